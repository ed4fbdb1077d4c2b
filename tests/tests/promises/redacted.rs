//! What a span must not tell is taken out before it leaves the process, and out of the access log too: secrets in queries,
//! the users of URLs, and what looks like a card's number, an address or a token wherever it stands. The application
//! gets all of it.

use std::cell::RefCell;
use std::rc::Rc;

use http::Response;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use spanmesh_tests::origin::{empty, full};
use spanmesh_tests::{Client, Origin, Protocol, Proxy, each, run};

const PATH: &str = "/pay/4111111111111111/bob@example.org?secret=hush&sig=abcxyz&t=Bearer%20abcdefgh12\
                    &j=eyJhbGciOiJI.eyJzdWIiOiIx.c2lnbmF0&to=https://ann:pw@host/&kept=1";
const SECRETS: [&str; 8] =
    ["4111111111111111", "example.org", "hush", "abcxyz", "abcdefgh12", "eyJhbGciOiJI", "ann:pw", "t-4917610000000000"];

fn proxy(origin: &Origin, protocol: Protocol, mode: &str, redaction: &str) -> Proxy {
    Proxy::start(&format!(
        "listeners:\n- {{name: side, mode: {mode}, address: '127.0.0.1:0', upstream: app}}\n\
         upstreams:\n- {{name: app, addresses: ['{}'], protocol: {}}}\n\
         policy: {{redaction: {redaction}, destinations: [{{name: file, file: {{path: DIR/spans.jsonl}}}}]}}\n",
        origin.address,
        protocol.word()
    ))
}

async fn ask(client: &mut Client) {
    let request = client.request("GET", PATH).header("user-agent", "x (ann@example.org)");
    let request = request.header("x-request-id", "t-4917610000000000");
    let answer = client.whole(request.body(empty()).expect("request")).await;
    assert_eq!(answer.status, 200);
}

#[test]
fn secrets_reach_the_application_and_neither_spans_nor_the_log() {
    each(|client, upstream| async move {
        for mode in ["inbound", "outbound", "gateway"] {
            let asked = Rc::new(RefCell::new(Vec::new()));
            let keep = asked.clone();
            let origin = Origin::start(upstream, move |request| {
                keep.borrow_mut().push(request.uri().path_and_query().map(ToString::to_string));
                async { Response::new(full("x")) }
            });
            let origin = origin.await;
            let proxy = proxy(&origin, upstream, mode, "{query: [secret]}");
            let mut client = Client::connect(client, proxy.address("side")).await;
            ask(&mut client).await;
            assert_eq!(*asked.borrow(), [Some(PATH.to_owned())]);

            let spans = proxy.spanned(if mode == "gateway" { 2 } else { 1 }).await;
            let log = proxy.logged(1).await;
            for told in [format!("{spans:?}"), format!("{log:?}")] {
                for secret in SECRETS {
                    assert!(!told.contains(secret), "{secret}: {told}");
                }
                assert!(told.contains("/pay/REDACTED/REDACTED") && told.contains("t-REDACTED"), "{told}");
            }
            let query = "secret=REDACTED&sig=REDACTED&t=Bearer%20REDACTED&j=REDACTED\
                         &to=https://REDACTED:REDACTED@host/&kept=1";
            assert!(format!("{spans:?}").contains(query), "{spans:?}");
            assert!(spans.iter().all(|span| span.name == "GET /pay/{id}/{id}"), "{spans:?}");
        }
    });
}

/// Of a long path, query, user agent or header a span tells the begin. What begins there as a secret is one, wherever the cut is.
#[test]
fn a_cut_leaves_no_part_of_a_secret() {
    each(|client, upstream| async move {
        let origin = Origin::hello(upstream).await;
        let listener = "listeners:\n- {name: side, mode: inbound, address: '127.0.0.1:0', upstream: app}\n";
        let proxy = Proxy::start(&format!(
            "{listener}upstreams:\n- {{name: app, addresses: ['{}'], protocol: {}}}\n\
             policy: {{attributes: [{{requestHeader: x-note, name: test.note}}], \
             destinations: [{{name: file, file: {{path: DIR/spans.jsonl}}}}]}}\n",
            origin.address,
            upstream.word()
        ));
        let mut client = Client::connect(client, proxy.address("side")).await;
        let mut expected = Vec::new();
        for (open, secret) in [
            ("", "4111111111111111"),
            ("", "a.name.that.is.long.enough@mail.example.org"),
            ("", "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.c2lnbmF0dXJl"),
            ("Bearer:", "abcdefghijklmnopqrstuvwxyz0123456789"),
            ("https://", "ann-of-a-name:and-of-a-word@host"),
        ] {
            for seen in [1, 5, secret.len() / 2, secret.len() - 1] {
                let before = |limit: usize| format!("{}/{open}", "x".repeat(limit - seen - open.len() - 1));
                let (path, query, short) = (before(1023), before(1022), before(256));
                let more = "y".repeat(300);
                let target = format!("/{path}{secret}/{more}?a={query}{secret}&b={more}");
                let note = format!("{short}{secret} {more}");
                let request = client.request("GET", &target).header("user-agent", &note).header("x-note", &note);
                assert_eq!(client.whole(request.body(empty()).expect("request")).await.status, 200);
                expected.push([
                    ("url.path", format!("/{path}")),
                    ("url.query", format!("a={query}")),
                    ("user_agent.original", short.clone()),
                    ("test.note", short),
                ]);
            }
        }
        for (span, expected) in proxy.spanned(expected.len()).await.iter().zip(&expected) {
            for (key, before) in expected {
                let attribute = span.attributes.iter().find(|attribute| attribute.key == *key);
                let Some(Value::StringValue(told)) =
                    attribute.and_then(|attribute| attribute.value.as_ref()?.value.as_ref())
                else {
                    panic!("no {key}: {span:?}");
                };
                let most = format!("{before}REDACTED:REDACTED@host");
                assert!(most.starts_with(told.as_str()) && told.len() > before.len() / 2, "{key}: {told}\n{before}");
            }
        }
    });
}

#[test]
fn a_hash_tells_which_secrets_are_the_same() {
    run(async {
        let origin = Origin::hello(Protocol::Http1).await;
        let dir = spanmesh_tests::Dir::new();
        std::fs::write(dir.path("key"), "a key\n").expect("written");
        let key = dir.path("key").display().to_string();
        let proxy = proxy(&origin, Protocol::Http1, "inbound", &format!("{{query: [secret], hashKeyFile: '{key}'}}"));
        let mut client = Client::connect(Protocol::Http1, proxy.address("side")).await;
        ask(&mut client).await;
        client.get("/mail?secret=hush&to=bob@example.org&sig=x").await;
        let spans = proxy.spanned(2).await;
        let told = format!("{spans:?}");
        for secret in SECRETS {
            assert!(!told.contains(secret), "{secret}: {told}");
        }
        // HMAC-SHA256 with `a key`, by another program.
        for (hash, count) in [("secret=hmac-bdd03c24e85749a1", 2), ("hmac-0cb5843256a88045", 2), ("sig=REDACTED", 2)] {
            assert_eq!(told.matches(hash).count(), count, "{hash}: {told}");
        }
        assert!(format!("{:?}", proxy.logged(2).await).contains("/pay/hmac-"));
    });
}

#[test]
fn a_key_that_cannot_be_read_is_said_at_the_start() {
    let text = "version: 1\nrole: standalone\nlisteners: [{name: a, mode: gateway, address: '127.0.0.1:0', upstream: a}]\n\
                upstreams: [{name: a, addresses: ['127.0.0.1:1']}]\nadmin: {address: '127.0.0.1:0'}\n\
                status: {address: '127.0.0.1:0'}\npolicy: {redaction: {hashKeyFile: /not/there}}\n";
    let config = spanmesh_proxy::config::parse(text, "test.yaml", std::iter::empty()).expect("right");
    let told = spanmesh_proxy::app::start(config, false).map(drop).expect_err("no key").to_string();
    assert!(told.contains("policy.redaction.hashKeyFile") && told.contains("/not/there"), "{told}");
}
