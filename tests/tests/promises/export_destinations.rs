//! Several destinations at once, each with what it asks for: its tenants' spans, its headers, Zipkin's words, a file whose
//! disk fails. Connections are renewed, secrets are not shown, and the resource says who it was.

use std::collections::{BTreeMap, HashSet};
use std::path::PathBuf;
use std::time::Duration;

use http::{Request, Response};
use http_body_util::BodyExt;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use serde_json::Value as Json;
use spanmesh_tests::origin::{empty, full};
use spanmesh_tests::{Books, Client, Collector, Dir, Origin, Protocol, Proxy, eventually, hex, run};

fn proxy(origin: &Origin, rest: &str, destinations: &str) -> Proxy {
    Proxy::start(&format!(
        "{rest}listeners:\n- {{name: in, mode: gateway, address: '127.0.0.1:0', upstream: app}}\n\
         upstreams:\n- {{name: app, addresses: ['{}'], protocol: http1}}\n\
         policy:\n  destinations:\n{destinations}",
        origin.address
    ))
}

async fn ask(proxy: &Proxy, host: &str, path: &str) {
    let mut client = Client::connect(Protocol::Http1, proxy.address("in")).await;
    let mut request: Request<_> = client.request("GET", path).body(empty()).expect("a request");
    request.headers_mut().insert("host", host.parse().expect("a value"));
    assert_eq!(client.whole(request).await.status, 200);
}

#[test]
fn each_tenant_gets_its_spans_with_its_headers() {
    for protocol in [Protocol::Http1, Protocol::Http2] {
        run(async move {
            let origin = Origin::hello(Protocol::Http1).await;
            let (red, blue, other) =
                (Collector::start(protocol).await, Collector::start(protocol).await, Collector::start(protocol).await);
            let tenant = |name: &str, collector: &Collector| {
                let target = collector.target(protocol, &format!("headers: [{{name: x-scope-orgid, value: {name}}}]"));
                format!(
                    "  - {{name: {name}, {target}, delivery: {{age: 10ms}}, \
                     only: {{attributes: [{{key: server.address, values: [{name}.example]}}]}}}}\n"
                )
            };
            let destinations = [
                tenant("red", &red),
                tenant("blue", &blue),
                format!(
                    "  - {{name: elsewhere, {}, delivery: {{age: 10ms}}, only: {{namespaces: [shop, stock], services: [cart]}}}}\n",
                    other.target(protocol, "")
                ),
                "  - {name: file, file: {path: DIR/spans.jsonl}, only: {attributes: [{key: url.query}]}}\n".to_owned(),
            ];
            let proxy = proxy(&origin, "node: {service: cart, namespace: other}\n", &destinations.concat());
            for round in 0..6 {
                ask(&proxy, ["red.example", "blue.example", "green.example"][round % 3], "/a").await;
            }
            ask(&proxy, "red.example", "/a?b=c").await;
            let exported =
                |name: &str| proxy.metric("spanmesh_proxy_spans_exported_total", &[&format!("destination=\"{name}\"")]);
            let filtered =
                |name: &str| proxy.metric("spanmesh_proxy_spans_filtered_total", &[&format!("destination=\"{name}\"")]);
            // Seven requests, each with a server and a client span.
            for (name, all) in [("red", 6.0), ("blue", 4.0), ("elsewhere", 0.0), ("file", 1.0)] {
                eventually(name, || exported(name) == all && exported(name) + filtered(name) == 14.0).await;
            }
            assert_eq!((red.taken(), blue.taken(), other.taken()), (6, 4, 0));
            for (collector, name) in [(&red, "red"), (&blue, "blue")] {
                for received in collector.state.requests.borrow().iter() {
                    assert_eq!(received.headers["x-scope-orgid"], name);
                }
            }
            assert_eq!(proxy.spans().len(), 1, "only the server span has a query of its own");
        });
    }
}

#[test]
fn zipkin_is_told_in_its_own_words() {
    run(async {
        let origin = Origin::hello(Protocol::Http1).await;
        let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
        let zipkin = Origin::start(Protocol::Http1, move |request| {
            let tell = tell.clone();
            async move {
                let (head, body) = request.into_parts();
                let body = body.collect().await.expect("a body").to_bytes();
                tell.send((head, serde_json::from_slice::<Vec<Json>>(&body).expect("a list"))).expect("heard");
                Response::builder()
                    .status(202)
                    .header("content-type", "text/plain")
                    .body(full("ok"))
                    .expect("an answer")
            }
        })
        .await;
        let destinations = format!(
            "  - {{name: zipkin, zipkin: {{endpoint: 'http://{}'}}, delivery: {{age: 10ms}}}}\n  \
             - {{name: file, file: {{path: DIR/spans.jsonl}}}}\n",
            zipkin.address
        );
        let proxy = proxy(&origin, "node: {service: cart}\n", &destinations);
        ask(&proxy, "shop.example", "/a").await;
        let file = proxy.spanned(2).await;
        let mut spans = Vec::new();
        while spans.len() < 2 {
            let (head, more) = told.recv().await.expect("a request");
            assert_eq!((head.method.as_str(), head.uri.path()), ("POST", "/api/v2/spans"));
            assert_eq!(head.headers["content-type"], "application/json");
            spans.extend(more);
        }
        for span in file {
            let id = hex(&span.span_id);
            let same = spans.iter().find(|same| same["id"] == id.as_str()).expect("the same span");
            assert_eq!(same["traceId"], hex(&span.trace_id).as_str());
            match span.parent_span_id.is_empty() {
                true => assert!(same.get("parentId").is_none()),
                false => assert_eq!(same["parentId"], hex(&span.parent_span_id).as_str()),
            }
            assert_eq!(same["name"], span.name.as_str());
            assert_eq!(same["kind"], if span.kind == 2 { "SERVER" } else { "CLIENT" });
            assert_eq!(same["timestamp"], span.start_time_unix_nano / 1000);
            let duration = (span.end_time_unix_nano / 1000 - span.start_time_unix_nano / 1000).max(1);
            assert_eq!(same["duration"], duration);
            assert_eq!(same["localEndpoint"]["serviceName"], "cart");
            assert_eq!(same["remoteEndpoint"]["ipv4"], "127.0.0.1");
            for attribute in &span.attributes {
                let value = match attribute.value.as_ref().and_then(|value| value.value.as_ref()) {
                    Some(Value::StringValue(text)) => text.clone(),
                    Some(Value::IntValue(number)) => number.to_string(),
                    other => panic!("{other:?}"),
                };
                assert_eq!(same["tags"][&attribute.key], value.as_str(), "{}", attribute.key);
            }
        }
        let exported = || proxy.metric("spanmesh_proxy_spans_exported_total", &["zipkin"]);
        eventually("exported", || exported() == 2.0).await;
    });
}

#[test]
fn connections_are_made_anew_after_a_while_and_nothing_is_lost_between_them() {
    for protocol in [Protocol::Http1, Protocol::Http2] {
        run(async move {
            let collector = Collector::start(protocol).await;
            let target = collector.target(protocol, "").replace("127.0.0.1", "localhost");
            let mut books = Books::open(&target, "renew: 50ms");
            let mut made = 0;
            while collector.state.connections.get() < 5 {
                books.make(10);
                made += 10;
                tokio::time::sleep(Duration::from_millis(10)).await;
                assert!(made < 10_000, "the connection is never renewed");
            }
            books.close(Duration::from_secs(5)).await;
            assert_eq!((books.exported(), collector.taken()), (made, made), "{protocol:?}");
            // None lives for less than 50 ms.
            assert!(made >= 50, "{made} spans over five connections");
        });
    }
}

#[test]
fn what_a_file_does_not_take_is_no_export() {
    run(async {
        let dir = Dir::new();
        let missing: PathBuf = dir.path("missing/spans.jsonl");
        let mut books = Books::open(&format!("file: {{path: {}}}", missing.display()), "");
        books.make(100);
        eventually("they are dropped", || books.dropped("write_failed") == 100).await;
        books.settled().await;
        std::fs::create_dir(dir.path("missing")).expect("made");
        eventually("it works again", || {
            books.make(10);
            books.exported() > 0
        })
        .await;
        books.close(Duration::from_secs(5)).await;
        let lines = std::fs::read_to_string(missing).expect("lines");
        assert_eq!(lines.matches("\"spanId\"").count() as u64, books.exported());
    });
}

#[test]
fn a_full_disk_costs_the_spans_of_a_file_and_nothing_else() {
    run(async {
        let mut books = Books::open("file: {path: /dev/full}", "");
        books.make(300);
        eventually("they are dropped", || books.dropped("write_failed") == 300).await;
        books.close(Duration::from_secs(5)).await;
        assert_eq!(books.exported(), 0);
    });
}

#[test]
fn the_admin_page_shows_no_value_of_a_header() {
    run(async {
        let origin = Origin::hello(Protocol::Http1).await;
        let fields = "headers: [{name: authorization, value: hush-hush}, {name: x-a, file: /tmp/hush-file}]";
        let destinations = format!(
            "  - {{name: a, otlpHttp: {{endpoint: 'http://127.0.0.1:9', {fields}}}}}\n  \
             - {{name: b, otlpGrpc: {{endpoint: 'http://127.0.0.1:9', {fields}}}}}\n  \
             - {{name: c, zipkin: {{endpoint: 'http://127.0.0.1:9', {fields}}}}}\n"
        );
        let proxy = proxy(&origin, "", &destinations);
        let page = proxy.admin("GET", "/config");
        assert!(!page.contains("hush-hush"), "{page}");
        assert_eq!(page.matches("REDACTED").count(), 3, "{page}");
        assert!(page.contains("/tmp/hush-file"), "where a secret lies is no secret");
    });
}

#[test]
fn the_resource_says_which_service_pod_and_proxy_it_was() {
    let node = "{service: cart, namespace: shop, serviceVersion: 1.2.3, pod: cart-7f9-x, podUid: 0a1b, podIp: 10.1.2.3, \
                nodeName: worker-1, container: app, ownerKind: deployment, ownerName: cart-owner, cluster: prod}";
    let all = [
        ("service.name", "cart"),
        ("service.namespace", "shop"),
        ("service.version", "1.2.3"),
        ("service.instance.id", "shop.cart-7f9-x.app"),
        ("k8s.namespace.name", "shop"),
        ("k8s.pod.name", "cart-7f9-x"),
        ("k8s.pod.uid", "0a1b"),
        ("k8s.pod.ip", "10.1.2.3"),
        ("k8s.node.name", "worker-1"),
        ("k8s.container.name", "app"),
        ("k8s.deployment.name", "cart-owner"),
        ("k8s.cluster.name", "prod"),
        ("telemetry.sdk.name", "spanmesh"),
        ("telemetry.sdk.language", "rust"),
    ];
    let cases = [
        (node, Protocol::Http1, &all[..]),
        (node, Protocol::Http2, &all[..]),
        (
            "{ownerKind: statefulset, ownerName: db, pod: db-0}",
            Protocol::Http1,
            &[("service.name", "db"), ("k8s.statefulset.name", "db"), ("k8s.pod.name", "db-0")],
        ),
        ("{pod: alone}", Protocol::Http1, &[("service.name", "alone")]),
        ("{}", Protocol::Http1, &[("service.name", "unknown_service:spanmesh-proxy")]),
    ];
    for (node, protocol, expected) in cases {
        run(async move {
            let (origin, collector) = (Origin::hello(Protocol::Http1).await, Collector::start(protocol).await);
            let destinations = format!(
                "  - {{name: there, {}, delivery: {{age: 10ms}}}}\n  - {{name: file, file: {{path: DIR/spans.jsonl}}}}\n",
                collector.target(protocol, "")
            );
            let proxy = proxy(&origin, &format!("node: {node}\n"), &destinations);
            ask(&proxy, "shop.example", "/a").await;
            eventually("spans", || collector.taken() == 2).await;
            // The file's are held against the conventions.
            proxy.spanned(2).await;
            let requests = collector.state.requests.borrow();
            let resource = requests[0].request.resource_spans[0].resource.as_ref().expect("a resource");
            let text = |value: &Value| match value {
                Value::StringValue(text) => text.clone(),
                other => panic!("{other:?}"),
            };
            let said: BTreeMap<_, _> = resource
                .attributes
                .iter()
                .map(|attribute| {
                    let value = attribute.value.as_ref().and_then(|value| value.value.as_ref()).expect("a value");
                    (attribute.key.as_str(), text(value))
                })
                .collect();
            assert_eq!(said.len(), resource.attributes.len(), "no key is there twice");
            for (key, value) in expected {
                assert_eq!(said.get(key).map(String::as_str), Some(*value), "{key}");
            }
            let keys: HashSet<_> = said.keys().copied().collect();
            assert!(keys.contains("telemetry.sdk.version"));
            match expected.len() == all.len() {
                true => assert_eq!(keys.len(), all.len() + 1, "{said:?}"),
                false => assert_eq!(said["service.instance.id"].len(), 36, "{said:?}"),
            }
        });
    }
}
