//! The examples that come with the proxy are right, and each does what its first lines say. Addresses and files are
//! overridden by the environment's variables, as a user would.

use std::path::PathBuf;
use std::process::Command;

use rustls::version::TLS13;
use spanmesh_tests::certificates::connect;
use spanmesh_tests::{Authority, Client, Dir, Origin, Protocol, Proxy, Wire, run};

#[path = "../../../proxy/examples/first_request.rs"]
mod first_request;

fn example(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../proxy/examples").join(name)
}

const LIST: &str = "SPANMESH_LISTENERS__0__ADDRESS";

/// Runs an example with these variables; the servers' ports and the files are the test's own.
fn start(dir: Dir, name: &str, variables: &[(&str, String)]) -> Proxy {
    let (log, spans) = (dir.path("access.log").display().to_string(), dir.path("spans.jsonl").display().to_string());
    let usual = [
        ("SPANMESH_ADMIN__ADDRESS", "127.0.0.1:0".to_owned()),
        ("SPANMESH_STATUS__ADDRESS", "127.0.0.1:0".to_owned()),
        ("SPANMESH_WORKERS", "1".to_owned()),
        ("SPANMESH_TELEMETRY__LOG", "warn".to_owned()),
        ("SPANMESH_TELEMETRY__ACCESS_LOG__TO", log),
        ("SPANMESH_POLICY__DESTINATIONS__0__FILE__PATH", spans),
    ];
    let variables = usual.iter().chain(variables).map(|(name, value)| ((*name).to_owned(), value.clone()));
    Proxy::load(dir, &example(name), variables)
}

fn addresses(origin: &Origin) -> String {
    format!("['{}']", origin.address)
}

const PORT_0: &str = "127.0.0.1:0";

#[test]
fn every_example_passes_check_config() {
    let mut seen = 0;
    for entry in std::fs::read_dir(example("")).expect("the folder") {
        let path = entry.expect("an entry").path();
        if path.extension().is_none_or(|extension| extension != "yaml") {
            continue;
        }
        let output =
            Command::new(env!("CARGO_BIN_EXE_spanmesh-proxy-under-test")).arg("check-config").arg(&path).output();
        let output = output.expect("run");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        seen += 1;
    }
    assert_eq!(seen, 4);
}

#[test]
fn the_first_request_is_shown_from_end_to_end() {
    first_request::main().expect("it runs");
}

#[test]
fn standalone_routes_by_path_and_traces() {
    for client in [Protocol::Http1, Protocol::Http2] {
        run(async move {
            let (web, cart) = (Origin::hello(client).await, Origin::echo(client).await);
            let proxy = start(
                Dir::new(),
                "standalone.yaml",
                &[
                    (LIST, PORT_0.into()),
                    ("SPANMESH_UPSTREAMS__0__ADDRESSES", addresses(&web)),
                    ("SPANMESH_UPSTREAMS__1__ADDRESSES", addresses(&cart)),
                ],
            );
            let mut client = Client::connect(client, proxy.address("front")).await;
            assert_eq!(client.get("/").await.body, "hello");
            let request = client.request("POST", "/cart/7").body(spanmesh_tests::origin::full("an apple"));
            assert_eq!(client.whole(request.expect("request")).await.body, "an apple");
            let lines = proxy.logged(2).await;
            assert_eq!([&lines[0]["route"], &lines[1]["route"]], ["rest", "cart"]);
            assert_eq!(proxy.spanned(4).await.len(), 4);
        });
    }
}

#[test]
fn two_sidecars_make_one_trace_of_a_call() {
    for protocol in [Protocol::Http1, Protocol::Http2] {
        run(async move {
            let app = Origin::hello(protocol).await;
            let server = start(
                Dir::new(),
                "sidecar-server.yaml",
                &[(LIST, PORT_0.into()), ("SPANMESH_UPSTREAMS__0__ADDRESSES", addresses(&app))],
            );
            let inbound = server.address("in");
            let client = start(
                Dir::new(),
                "sidecar-client.yaml",
                &[
                    (LIST, PORT_0.into()),
                    ("SPANMESH_LISTENERS__1__ADDRESS", PORT_0.into()),
                    ("SPANMESH_UPSTREAMS__0__ADDRESSES", format!("['{inbound}']")),
                ],
            );
            // By the listener that leads there.
            let mut connection = Client::connect(protocol, client.address("to-server")).await;
            assert_eq!(connection.get("/").await.body, "hello");
            let mut calls = 1;
            // As a forward proxy, the way that http_proxy tells clients to ask.
            if protocol == Protocol::Http1 {
                let mut wire = Wire::connect(client.address("out")).await;
                let head = format!("GET http://{inbound}/ HTTP/1.1\r\nhost: {inbound}\r\nconnection: close\r\n\r\n");
                wire.write(head).await;
                let answer = String::from_utf8(wire.rest().await).expect("text");
                assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("hello"), "{answer}");
                calls += 1;
            }
            let (ours, theirs) = (client.spanned(calls).await, server.spanned(calls).await);
            for server in &theirs {
                let caller = ours.iter().find(|span| span.span_id == server.parent_span_id).expect("the caller's span");
                assert_eq!((&caller.trace_id, caller.kind, server.kind), (&server.trace_id, 3, 2));
            }
        });
    }
}

#[test]
fn the_gateway_ends_tls_and_redirects_what_is_plain() {
    for protocol in [Protocol::Http1, Protocol::Http2] {
        run(async move {
            let app = Origin::hello(Protocol::Http1).await;
            let (authority, dir) = (Authority::new(), Dir::new());
            let (cert, key) = authority.leaf(&["localhost"]).write(&dir, "tls");
            let proxy = start(
                dir,
                "gateway.yaml",
                &[
                    (LIST, PORT_0.into()),
                    ("SPANMESH_LISTENERS__1__ADDRESS", PORT_0.into()),
                    ("SPANMESH_LISTENERS__0__TLS__CERTIFICATES__0__CERT", cert.display().to_string()),
                    ("SPANMESH_LISTENERS__0__TLS__CERTIFICATES__0__KEY", key.display().to_string()),
                    ("SPANMESH_UPSTREAMS__0__ADDRESSES", addresses(&app)),
                ],
            );
            let alpn = if protocol == Protocol::Http2 { "h2" } else { "http/1.1" };
            let address = proxy.address("https");
            let stream = connect(&authority.client(&[alpn], &[&TLS13]), "localhost", address).await;
            let mut client = Client::over(protocol, stream.expect("a handshake"), address).await;
            assert_eq!(client.get("/api/v1/carts/7").await.body, "hello");
            let mut plain = Client::connect(protocol, proxy.address("http")).await;
            let answer = plain.get("/a?b").await;
            assert_eq!(
                (answer.status.as_u16(), &answer.headers["location"]),
                (308, &"https://127.0.0.1/a?b".parse().expect("value"))
            );
            let lines = proxy.logged(2).await;
            assert_eq!(lines[0]["route"], "api");
        });
    }
}
