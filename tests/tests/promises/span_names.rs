//! A span is named by the method and by the path that its route is configured with, or by a template that the traffic has
//! taught, never by the path that was asked for.

use http::{Response, StatusCode};
use spanmesh_tests::origin::full;
use spanmesh_tests::proxy::text;
use spanmesh_tests::{Client, Origin, Protocol, Proxy, each, run};

const SERVER: i32 = 2;
const CLIENT: i32 = 3;

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
const ASKED: [(&str, &str); 4] = [
    ("/carts/7", "/carts/{id}"),
    ("/carts/8?q=1", "/carts/{id}"),
    ("/help", "/help"),
    ("/files/a/b.txt", "/files/{path=**}"),
];

#[test]
fn a_gateway_names_both_spans_by_the_route() {
    each(|client, upstream| async move {
        let origin = Origin::hello(upstream).await;
        let proxy = proxy(&origin, upstream, "gateway");
        let mut client = Client::connect(client, proxy.address("side")).await;
        for (path, _) in ASKED {
            client.get(path).await;
        }
        let spans = proxy.spanned(ASKED.len() * 2).await;
        for ((path, route), pair) in ASKED.into_iter().zip(spans.chunks(2)) {
            let [server, call] = pair else { panic!("{spans:?}") };
            assert_eq!((server.kind, call.kind), (SERVER, CLIENT));
            let name = format!("GET {route}");
            assert_eq!((&server.name, &call.name), (&name, &name));
            assert_eq!((text(server, "http.route"), text(server, "url.template")), (route, ""));
            assert_eq!((text(call, "http.route"), text(call, "url.template")), ("", route));
            assert_eq!([server, call].map(|span| text(span, "spanmesh.route.source")), ["configured"; 2]);
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

#[test]
fn without_a_configured_path_the_traffic_teaches_the_template() {
    each(|client, upstream| async move {
        let origin = Origin::hello(upstream).await;
        let proxy = proxy(&origin, upstream, "gateway");
        let mut client = Client::connect(client, proxy.address("side")).await;
        let asked = ["/users/4711/items", "/users/4712/items?q=1", "/orders/0af76519-16cd-43dd-8448-eb211c80319c"];
        let templates = ["/users/{id}/items", "/users/{id}/items", "/orders/{id}"];
        for path in asked {
            client.get(path).await;
        }
        let spans = proxy.spanned(asked.len() * 2).await;
        for (template, pair) in templates.into_iter().zip(spans.chunks(2)) {
            for span in pair {
                assert_eq!((span.name.as_str(), text(span, "url.template")), (&*format!("GET {template}"), template));
                assert_eq!((text(span, "http.route"), text(span, "spanmesh.route.source")), ("", "learned"));
            }
        }
    });
}

#[test]
fn there_are_few_names_whatever_paths_are_tried() {
    run(async {
        let origin = Origin::start(Protocol::Http2, |request| async move {
            let mut answer = Response::new(full("x"));
            if request.uri().path().starts_with("/wp") {
                *answer.status_mut() = StatusCode::NOT_FOUND;
            }
            answer
        })
        .await;
        let proxy = proxy(&origin, Protocol::Http2, "inbound");
        let mut client = Client::connect(Protocol::Http2, proxy.address("side")).await;
        let letter = |number: u32| char::from_u32(u32::from('a') + number % 26).expect("a letter");
        for number in 0..400 {
            let (first, second) = (letter(number / 26), letter(number));
            client.get(&format!("/{first}x/{second}y")).await;
            client.get(&format!("/wp/{first}/{second}")).await;
        }
        let spans = proxy.spanned(800).await;
        let names: std::collections::HashSet<_> = spans.iter().map(|span| span.name.as_str()).collect();
        assert!(names.len() <= 201 && names.contains("GET"), "{} names", names.len());
        assert!(names.iter().all(|name| !name.starts_with("GET /wp")), "what was refused teaches nothing");
    });
}
