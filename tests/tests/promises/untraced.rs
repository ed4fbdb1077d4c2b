//! Probes, scrapes and applications' own reports are carried and logged like all else, and make no spans, unless somebody
//! asks for them.

use http::{HeaderMap, Response};
use spanmesh_tests::origin::{empty, full};
use spanmesh_tests::{Client, Origin, Protocol, Proxy, each, run};
use std::cell::RefCell;
use std::rc::Rc;

/// Kind, method, path, headers.
type Asked = (&'static str, &'static str, &'static str, &'static [(&'static str, &'static str)]);

const ASKED: [Asked; 5] = [
    ("probes", "GET", "/healthz", &[("user-agent", "kube-probe/1.31")]),
    ("scrapes", "GET", "/metrics", &[("user-agent", "Prometheus/2.53.0")]),
    ("exports", "POST", "/v1/traces", &[("content-type", "application/x-protobuf")]),
    ("exports", "POST", "/api/v2/spans", &[("content-type", "application/json")]),
    (
        "exports",
        "POST",
        "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
        &[("content-type", "application/grpc")],
    ),
];

type Seen = Rc<RefCell<Vec<HeaderMap>>>;

async fn origin(protocol: Protocol) -> (Origin, Seen) {
    let seen = Seen::default();
    let keep = seen.clone();
    let origin = Origin::start(protocol, move |request| {
        keep.borrow_mut().push(request.headers().clone());
        async { Response::new(full("x")) }
    });
    (origin.await, seen)
}

fn proxy(origin: &Origin, protocol: Protocol, mode: &str, policy: &str) -> Proxy {
    Proxy::start(&format!(
        "listeners:\n- {{name: side, mode: {mode}, address: '127.0.0.1:0', upstream: app}}\n\
         upstreams:\n- {{name: app, addresses: ['{}'], protocol: {}}}\n{policy}",
        origin.address,
        protocol.word()
    ))
}

async fn ask(client: &mut Client, (_, method, path, headers): Asked, more: &[(&str, &str)]) {
    let mut request = client.request(method, path);
    for (name, value) in headers.iter().chain(more) {
        request = request.header(*name, *value);
    }
    let answer = client.whole(request.body(empty()).expect("request")).await;
    assert_eq!((answer.status.as_u16(), &answer.body[..]), (200, &b"x"[..]));
}

#[test]
fn what_is_nobodys_call_is_carried_logged_and_counted_and_makes_no_spans() {
    each(|client, upstream| async move {
        for mode in ["inbound", "outbound", "gateway"] {
            let (origin, seen) = origin(upstream).await;
            let proxy = proxy(&origin, upstream, mode, "");
            let mut client = Client::connect(client, proxy.address("side")).await;
            for asked in ASKED {
                ask(&mut client, asked, &[]).await;
            }
            client.get("/").await;
            let spans = proxy.spanned(if mode == "gateway" { 2 } else { 1 }).await;
            assert!(spans.len() <= 2 && spans.iter().all(|span| span.name == "GET /"), "{spans:?}");
            assert_eq!(proxy.logged(6).await.len(), 6);
            for (kind, count) in [("probes", 1.0), ("scrapes", 1.0), ("exports", 3.0)] {
                let label = format!("kind=\"{kind}\"");
                assert_eq!(proxy.metric("spanmesh_proxy_requests_untraced_total", &[&label]), count, "{kind}");
            }
            // What stands behind is not asked to trace it either.
            for headers in &seen.borrow()[..ASKED.len()] {
                assert!(headers["traceparent"].to_str().expect("text").ends_with("-02"), "{headers:?}");
            }
        }
    });
}

#[test]
fn a_trace_that_the_caller_has_goes_through_as_if_no_proxy_stood_there() {
    run(async {
        let context = "00-0af7651916cd43dd8448eb211c80319c-00f067aa0ba902b7-01";
        for mode in ["inbound", "outbound"] {
            let (origin, seen) = origin(Protocol::Http1).await;
            let proxy = proxy(&origin, Protocol::Http1, mode, "");
            let mut client = Client::connect(Protocol::Http1, proxy.address("side")).await;
            for asked in ASKED {
                ask(&mut client, asked, &[("traceparent", context)]).await;
            }
            for headers in seen.borrow().iter() {
                assert_eq!(headers["traceparent"], context);
            }
            client.get("/").await;
            assert_eq!(proxy.spanned(1).await.len(), 1);
        }
    });
}

#[test]
fn who_asks_for_them_gets_their_spans() {
    run(async {
        let (origin, _) = origin(Protocol::Http1).await;
        let policy = "policy: {untraced: [exports], destinations: [{name: file, file: {path: DIR/spans.jsonl}}]}\n";
        let proxy = proxy(&origin, Protocol::Http1, "inbound", policy);
        let mut client = Client::connect(Protocol::Http1, proxy.address("side")).await;
        for asked in ASKED {
            ask(&mut client, asked, &[]).await;
        }
        assert_eq!(proxy.spanned(2).await.len(), 2, "of the probe and of the scrape");
    });
}
