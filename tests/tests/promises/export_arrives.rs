//! Spans reach a receiver over OTLP, by HTTP and by gRPC, field by field what the file of the same spans says.

use http::Request;
use opentelemetry_proto::tonic::trace::v1::Span;
use spanmesh_tests::certificates::Authority;
use spanmesh_tests::origin::empty;
use spanmesh_tests::{Client, Collector, Dir, Origin, Protocol, Proxy, beside, eventually, run};

/// A gateway in front of `origin` whose spans go to a file and to the collector.
fn proxy(origin: &Origin, target: &str, delivery: &str) -> Proxy {
    proxy_in(Dir::new(), origin, target, delivery)
}

fn proxy_in(dir: Dir, origin: &Origin, target: &str, delivery: &str) -> Proxy {
    Proxy::start_in(
        dir,
        &format!(
            "node: {{service: cart, namespace: shop}}\n\
             listeners:\n- {{name: in, mode: gateway, address: '127.0.0.1:0', upstream: app}}\n\
             upstreams:\n- {{name: app, addresses: ['{}'], protocol: http1}}\n\
             policy:\n  destinations:\n  - {{name: file, file: {{path: DIR/spans.jsonl}}}}\n  \
             - {{name: there, {target}, delivery: {{age: 10ms, backoff: 10ms, {delivery}}}}}\n",
            origin.address
        ),
    )
}

async fn ask(proxy: &Proxy, requests: usize) {
    let mut client = Client::connect(Protocol::Http1, proxy.address("in")).await;
    for number in 0..requests {
        let request: Request<_> = client
            .request("GET", &format!("/a/{number}?q=ü"))
            .header("user-agent", "a test")
            .body(empty())
            .expect("ok");
        assert_eq!(client.whole(request).await.status, 200);
    }
}

async fn arrived(proxy: &Proxy, count: usize) {
    let exported = || proxy.metric("spanmesh_proxy_spans_exported_total", &["destination=\"there\""]);
    eventually("spans are exported", || exported() >= count as f64).await;
}

fn sorted(mut spans: Vec<Span>) -> Vec<Span> {
    spans.sort_by(|a, b| a.span_id.cmp(&b.span_id));
    spans
}

#[test]
fn what_arrives_is_what_the_file_says() {
    let ways = [
        (Protocol::Http1, ""),
        (Protocol::Http1, "compression: gzip"),
        (Protocol::Http1, "encoding: json"),
        (Protocol::Http1, "encoding: json, compression: gzip"),
        (Protocol::Http2, ""),
        (Protocol::Http2, "compression: gzip"),
    ];
    beside(ways, |(protocol, fields)| async move {
        let (origin, collector) = (Origin::hello(Protocol::Http1).await, Collector::start(protocol).await);
        let proxy = proxy(&origin, &collector.target(protocol, fields), "");
        ask(&proxy, 20).await;
        arrived(&proxy, 40).await;
        let file = proxy.spanned(40).await;
        assert_eq!(sorted(collector.spans()), sorted(file), "{protocol:?} {fields}");
        assert_eq!(collector.state.connections.get(), 1, "{fields}");
        let requests = collector.state.requests.borrow();
        for received in requests.iter() {
            let path = match protocol {
                Protocol::Http1 => "/v1/traces",
                Protocol::Http2 => "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
            };
            assert_eq!(received.path, path);
            let resource = received.request.resource_spans[0].resource.as_ref().expect("a resource");
            assert!(resource.attributes.iter().any(|attribute| attribute.key == "service.namespace"));
            assert_eq!(
                received.headers["user-agent"].to_str().expect("text").split('/').next(),
                Some("spanmesh-proxy")
            );
        }
    });
}

#[test]
fn requests_close_by_count_and_by_bytes() {
    for (delivery, spans, bytes) in [("spans: 8", 8, usize::MAX), ("bytes: 4Ki", usize::MAX, 5000)] {
        for protocol in [Protocol::Http1, Protocol::Http2] {
            run(async move {
                let (origin, collector) = (Origin::hello(Protocol::Http1).await, Collector::start(protocol).await);
                let proxy = proxy(&origin, &collector.target(protocol, ""), delivery);
                ask(&proxy, 40).await;
                arrived(&proxy, 80).await;
                let requests = collector.state.requests.borrow();
                let count = |received: &spanmesh_tests::collector::Received| {
                    received.request.resource_spans[0].scope_spans[0].spans.len()
                };
                assert!(requests.iter().all(|received| count(received) <= spans && received.bytes <= bytes));
                assert!(requests.len() >= if spans == 8 { 10 } else { 3 }, "{}", requests.len());
            });
        }
    }
}

#[test]
fn header_fields_go_with_every_request_and_follow_their_file() {
    for protocol in [Protocol::Http1, Protocol::Http2] {
        run(async move {
            let (origin, collector) = (Origin::hello(Protocol::Http1).await, Collector::start(protocol).await);
            let dir = Dir::new();
            let token = dir.write("token", "Bearer one\n");
            let fields = format!(
                "headers: [{{name: X-Tenant, value: shop}}, {{name: authorization, file: {}}}, {{name: x-none, variable: NO_SUCH}}]",
                token.display()
            );
            let proxy = proxy_in(dir, &origin, &collector.target(protocol, &fields), "");
            ask(&proxy, 1).await;
            arrived(&proxy, 2).await;
            proxy.dir.write("token", "Bearer two");
            let last = |name: &str| {
                let requests = collector.state.requests.borrow();
                let value = requests.last().expect("a request").headers.get(name).cloned();
                value.map(|value| value.to_str().expect("text").to_owned())
            };
            assert_eq!(last("authorization").as_deref(), Some("Bearer one"));
            for _ in 0..20 {
                ask(&proxy, 1).await;
                tokio::time::sleep(std::time::Duration::from_millis(300)).await;
                if last("authorization").as_deref() == Some("Bearer two") {
                    break;
                }
            }
            assert_eq!(last("authorization").as_deref(), Some("Bearer two"));
            assert_eq!((last("x-tenant").as_deref(), last("x-none")), (Some("shop"), None));
        });
    }
}

#[test]
fn a_path_is_a_base_or_taken_as_it_is() {
    for (field, path, seen) in [
        ("endpoint", "/tenant/", "/tenant/v1/traces"),
        ("endpoint", "/tenant", "/tenant/v1/traces"),
        ("tracesEndpoint", "/in", "/in"),
        ("tracesEndpoint", "", "/"),
    ] {
        run(async move {
            let (origin, collector) = (Origin::hello(Protocol::Http1).await, Collector::start(Protocol::Http1).await);
            let target = format!("otlpHttp: {{{field}: 'http://{}{path}'}}", collector.address);
            let proxy = proxy(&origin, &target, "");
            ask(&proxy, 1).await;
            arrived(&proxy, 2).await;
            assert_eq!(collector.state.requests.borrow()[0].path, seen);
        });
    }
}

#[test]
fn tls_is_spoken_to_whom_the_roots_know_and_to_nobody_else() {
    for (kind, alpn) in [("otlpHttp", "http/1.1"), ("otlpGrpc", "h2")] {
        run(async move {
            let (origin, dir) = (Origin::hello(Protocol::Http1).await, Dir::new());
            let (authority, stranger) = (Authority::new(), Authority::new());
            let collector = Collector::secure(authority.leaf(&["localhost"]).server(&[alpn])).await;
            let (root, other) = (dir.write("ca.crt", authority.pem()), dir.write("other.crt", stranger.pem()));
            let port = collector.address.port();
            let target = |root: &std::path::Path| {
                format!("{kind}: {{endpoint: 'https://localhost:{port}', tls: {{rootFile: {}}}}}", root.display())
            };
            let good = proxy(&origin, &target(&root), "");
            ask(&good, 3).await;
            arrived(&good, 6).await;
            let bad = proxy(&origin, &target(&other), "giveUp: 50ms");
            ask(&bad, 3).await;
            let dropped = || bad.metric("spanmesh_proxy_spans_dropped_total", &["there", "reason=\"expired\""]);
            eventually("given up", || dropped() == 6.0).await;
            assert_eq!(collector.taken(), 6);
        });
    }
}
