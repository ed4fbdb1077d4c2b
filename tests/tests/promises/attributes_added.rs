//! Spans say what the configuration adds: headers that it lists, baggage, variables and words of its own, bounded and without
//! secrets. What is not listed is not told.

use http::Response;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use spanmesh_tests::origin::{empty, full};
use spanmesh_tests::{Client, Collector, Origin, Protocol, Proxy, each, eventually, run};

const ATTRIBUTES: &str = "[{requestHeader: X-Tenant}, {name: test.tenant, requestHeader: x-tenant}, \
                          {requestHeader: authorization}, {responseHeader: x-cache}, {name: test.user, baggage: user}, \
                          {name: test.path, variable: PATH}, {name: test.team, value: carts}, {requestHeader: x-none}]";

fn told(span: &Span, key: &str) -> Option<String> {
    let attribute = span.attributes.iter().find(|attribute| attribute.key == key)?;
    match attribute.value.as_ref()?.value.as_ref()? {
        Value::StringValue(text) => Some(text.clone()),
        Value::ArrayValue(list) => {
            let text = |value: &opentelemetry_proto::tonic::common::v1::AnyValue| match &value.value {
                Some(Value::StringValue(text)) => text.clone(),
                other => panic!("{key}: {other:?}"),
            };
            Some(format!("{:?}", list.values.iter().map(text).collect::<Vec<_>>()))
        }
        other => panic!("{key}: {other:?}"),
    }
}

async fn origin(protocol: Protocol) -> Origin {
    Origin::start(protocol, |request| async move {
        let mut answer = Response::new(full("x"));
        answer.headers_mut().insert("x-cache", "hit".parse().expect("a value"));
        if request.uri().path() == "/shop.Cart/Add" {
            answer.headers_mut().insert("content-type", "application/grpc".parse().expect("a value"));
            answer.headers_mut().insert("grpc-status", "0".parse().expect("a value"));
        }
        answer
    })
    .await
}

/// Written to a folder, since variables are read with the file.
fn proxy(origin: &Origin, protocol: Protocol, mode: &str, trust: &str, to: &str) -> Proxy {
    let dir = spanmesh_tests::Dir::new();
    let folder = dir.path("").display().to_string();
    let file = dir.path("proxy.yaml");
    let text = format!(
        "version: 1\nrole: standalone\nworkers: 1\nadmin: {{address: '127.0.0.1:0'}}\nstatus: {{address: '127.0.0.1:0'}}\n\
         telemetry: {{log: warn}}\n\
         listeners:\n- {{name: side, mode: {mode}, address: '127.0.0.1:0', upstream: app, trust: {trust}}}\n\
         upstreams:\n- {{name: app, addresses: ['{}'], protocol: {}}}\n\
         policy: {{attributes: {ATTRIBUTES}, destinations: [{{name: to, {}}}]}}\n",
        origin.address,
        protocol.word(),
        to.replace("DIR", folder.trim_end_matches('/'))
    );
    std::fs::write(&file, text).expect("written");
    Proxy::load(dir, &file, [("PATH".to_owned(), "/bin:bob@example.org".to_owned())].into_iter())
}

async fn ask(client: &mut Client, path: &str) {
    let request = client.request("POST", path).header("x-tenant", "a").header("x-tenant", "bob@example.org");
    let request = request.header("authorization", "Basic Ym9iOnB3").header("x-other", "not-told");
    let request = request.header("baggage", "user=J%C3%B6rg;p=1,other=not-told");
    let request = match path {
        "/shop.Cart/Add" => request.header("content-type", "application/grpc"),
        _ => request,
    };
    assert_eq!(client.whole(request.body(empty()).expect("request")).await.status, 200);
}

#[test]
fn spans_say_what_the_configuration_adds() {
    each(|client, upstream| async move {
        for mode in ["inbound", "outbound", "gateway"] {
            let origin = origin(upstream).await;
            let proxy = proxy(&origin, upstream, mode, "Continue", "file: {path: DIR/spans.jsonl}");
            let mut client = Client::connect(client, proxy.address("side")).await;
            ask(&mut client, "/").await;
            let spans = proxy.spanned(if mode == "gateway" { 2 } else { 1 }).await;
            for span in &spans {
                for (key, value) in [
                    ("http.request.header.x-tenant", "[\"a\", \"REDACTED\"]"),
                    ("test.tenant", "a, REDACTED"),
                    ("http.request.header.authorization", "[\"REDACTED\"]"),
                    ("http.response.header.x-cache", "[\"hit\"]"),
                    ("test.user", "Jörg"),
                    ("test.path", "/bin:bob@example.org"),
                    ("test.team", "carts"),
                ] {
                    assert_eq!(told(span, key).as_deref(), Some(value), "{key}");
                }
                let text = format!("{span:?}");
                assert!(!text.contains("not-told") && !text.contains("x-none") && !text.contains("Ym9i"), "{text}");
            }
        }
    });
}

#[test]
fn a_strangers_baggage_is_not_told() {
    run(async {
        let origin = origin(Protocol::Http1).await;
        let proxy = proxy(&origin, Protocol::Http1, "gateway", "Restart", "file: {path: DIR/spans.jsonl}");
        let mut client = Client::connect(Protocol::Http1, proxy.address("side")).await;
        ask(&mut client, "/").await;
        let spans = proxy.spanned(2).await;
        assert!(spans.iter().all(|span| told(span, "test.user").is_none() && told(span, "test.team").is_some()));
    });
}

#[test]
fn lists_arrive_over_protobuf_and_calls_have_names_of_their_own() {
    run(async {
        let origin = origin(Protocol::Http2).await;
        let collector = Collector::start(Protocol::Http2).await;
        let to = collector.target(Protocol::Http2, "") + ", delivery: {age: 10ms}";
        let proxy = proxy(&origin, Protocol::Http2, "inbound", "Continue", &to);
        let mut client = Client::connect(Protocol::Http2, proxy.address("side")).await;
        ask(&mut client, "/shop.Cart/Add").await;
        eventually("a span", || !collector.spans().is_empty()).await;
        let span = collector.spans().remove(0);
        assert_eq!(told(&span, "rpc.request.metadata.x-tenant").as_deref(), Some("[\"a\", \"REDACTED\"]"));
        assert_eq!(told(&span, "rpc.response.metadata.x-cache").as_deref(), Some("[\"hit\"]"));
        assert_eq!(told(&span, "http.request.header.x-tenant"), None);
    });
}

/// Whatever a request brings: each word of a span has a limit, and so has the span.
#[test]
fn a_span_is_as_long_as_it_may_be_and_no_longer() {
    each(|client, upstream| async move {
        let origin = Origin::hello(upstream).await;
        let listed: Vec<_> = (0..32).map(|number| format!("{{requestHeader: x-{number}}}")).collect();
        let proxy = Proxy::start(&format!(
            "listeners:\n- {{name: in, mode: gateway, address: '127.0.0.1:0', upstream: app, trust: Continue}}\n\
             upstreams:\n- {{name: app, addresses: ['{}'], protocol: {}}}\n\
             policy: {{attributes: [{}], destinations: [{{name: file, file: {{path: DIR/spans.jsonl}}}}]}}\n",
            origin.address,
            upstream.word(),
            listed.join(", ")
        ));
        let mut client = Client::connect(client, proxy.address("in")).await;
        // The origin takes heads of 16 KiB.
        let long = "x".repeat(1200);
        let mut request = client.request("GET", &format!("/{long}?{long}")).header("user-agent", &long);
        request = request.header("x-request-id", &long).header("tracestate", format!("a={long}"));
        for number in 0..32 {
            request = request.header(format!("x-{number}"), &long[..270]);
        }
        assert_eq!(client.whole(request.body(empty()).expect("request")).await.status, 200);
        for span in proxy.spanned(2).await {
            let size: usize = span.attributes.iter().map(|attribute| format!("{:?}", attribute.value).len()).sum();
            assert!(size < 16 * 1024, "{size}");
            for key in
                ["url.path", "url.query", "user_agent.original", "spanmesh.request_id", "http.request.header.x-0"]
            {
                let told = told(&span, key);
                let limit = if key.starts_with("url.") { 1024 } else { 260 };
                assert!(told.as_ref().is_none_or(|told| told.len() <= limit), "{key}: {told:?}");
            }
            let full = told(&span, "url.full").map_or(0, |url| url.len());
            assert!(full <= 2 * 1024 + 300, "{full}");
        }
    });
}
