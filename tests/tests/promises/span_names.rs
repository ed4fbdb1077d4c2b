//! A span is named by the method and by the path that its route is configured with, never by the path that was asked for.

use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use spanmesh_tests::{Client, Origin, Protocol, Proxy, each, run};

const SERVER: i32 = 2;
const CLIENT: i32 = 3;

fn text<'a>(span: &'a Span, key: &str) -> &'a str {
    let attribute = span.attributes.iter().find(|attribute| attribute.key == key);
    match attribute.and_then(|attribute| attribute.value.as_ref()?.value.as_ref()) {
        Some(Value::StringValue(text)) => text,
        None => "",
        other => panic!("{key}: {other:?}"),
    }
}

fn proxy(origin: &Origin, protocol: Protocol, mode: &str) -> Proxy {
    Proxy::start(&format!(
        "listeners:\n- name: side\n  mode: {mode}\n  address: '127.0.0.1:0'\n  routes:\n\
         \x20 - {{name: cart, match: {{pathTemplate: '/carts/{{id}}'}}, upstream: app}}\n\
         \x20 - {{name: help, match: {{path: /help}}, upstream: app}}\n\
         \x20 - {{name: files, match: {{pathTemplate: '/files/{{path=**}}'}}, upstream: app}}\n\
         \x20 - {{name: rest, match: {{pathPrefix: /}}, upstream: app}}\n\
         upstreams:\n- {{name: app, addresses: ['{}'], protocol: {}}}\n",
        origin.address,
        protocol.word()
    ))
}

/// Path, route.
const ASKED: [(&str, &str); 5] = [
    ("/carts/7", "/carts/{id}"),
    ("/carts/8?q=1", "/carts/{id}"),
    ("/help", "/help"),
    ("/files/a/b.txt", "/files/{path=**}"),
    ("/other/9", ""),
];

#[test]
fn a_gateway_names_both_spans_by_the_route() {
    each(|client, upstream| async move {
        let origin = Origin::hello(upstream).await;
        let proxy = proxy(&origin, upstream, "gateway");
        let mut client = Client::connect(client, proxy.address("side")).await;
        for (number, (path, route)) in (1..).zip(ASKED) {
            client.get(path).await;
            let spans = proxy.spanned(number * 2).await;
            let [server, call] = &spans[number * 2 - 2..] else { panic!("{spans:?}") };
            assert_eq!((server.kind, call.kind), (SERVER, CLIENT));
            let name = format!("GET {route}");
            assert_eq!((server.name.as_str(), call.name.as_str()), (name.trim(), name.trim()));
            assert_eq!((text(server, "http.route"), text(server, "url.template")), (route, ""));
            assert_eq!((text(call, "http.route"), text(call, "url.template")), ("", route));
            let source = if route.is_empty() { "" } else { "configured" };
            assert_eq!([server, call].map(|span| text(span, "spanmesh.route.source")), [source; 2]);
            assert_eq!(text(server, "url.path"), path.split('?').next().expect("a path"));
        }
    });
}

#[test]
fn a_sidecar_names_its_one_span_by_the_route() {
    for (mode, key) in [("inbound", "http.route"), ("outbound", "url.template")] {
        run(async move {
            let origin = Origin::hello(Protocol::Http1).await;
            let proxy = proxy(&origin, Protocol::Http1, mode);
            let mut client = Client::connect(Protocol::Http1, proxy.address("side")).await;
            client.get("/carts/7").await;
            let span = proxy.spanned(1).await.remove(0);
            assert_eq!((span.name.as_str(), text(&span, key)), ("GET /carts/{id}", "/carts/{id}"));
        });
    }
}
