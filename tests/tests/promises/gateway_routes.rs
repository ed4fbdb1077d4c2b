//! The route table, and what a gateway tells the application about where a request came from.

use http::{Request, Response};
use hyper::body::Incoming;
use rustls::version::TLS13;
use spanmesh_tests::certificates::connect;
use spanmesh_tests::origin::{empty, full};
use spanmesh_tests::{Authority, Client, Dir, Origin, Protocol, Proxy, run};

/// Answers with its own name.
async fn named(protocol: Protocol, name: &'static str) -> Origin {
    Origin::start(protocol, move |_| async move { Response::new(full(name)) }).await
}

#[test]
fn the_first_route_that_fits_takes_the_request() {
    for (client, upstream) in Protocol::PAIRS {
        run(async move {
            let (one, two) = (named(upstream, "one").await, named(upstream, "two").await);
            let word = upstream.word();
            let proxy = Proxy::start(&format!(
                "listeners:\n- name: edge\n  mode: gateway\n  address: '127.0.0.1:0'\n  routes:\n  \
                 - {{name: exact, match: {{path: /exact}}, upstream: one}}\n  \
                 - {{name: prefix, match: {{host: shop.example, pathPrefix: /cart}}, upstream: one}}\n  \
                 - {{name: template, match: {{pathTemplate: '/items/{{id}}/parts/{{rest=**}}'}}, upstream: two}}\n  \
                 - {{name: method, match: {{method: DELETE}}, upstream: two}}\n  \
                 - {{name: header, match: {{headers: {{x-canary: 'yes'}}}}, upstream: two}}\n  \
                 - {{name: below, match: {{host: '*.shop.example'}}, upstream: one}}\n\
                 upstreams:\n- {{name: one, addresses: ['{}'], protocol: {word}}}\n\
                 - {{name: two, addresses: ['{}'], protocol: {word}}}\n",
                one.address, two.address
            ));
            let mut connection = Client::connect(client, proxy.address("edge")).await;
            let cases = [
                ("GET", "any.example", "/exact", None, Some(("exact", "one"))),
                ("GET", "any.example", "/exact?query=1", None, Some(("exact", "one"))),
                ("GET", "any.example", "/exact/not", None, None),
                ("GET", "shop.example", "/cart", None, Some(("prefix", "one"))),
                ("GET", "SHOP.example:8080", "/cart/7", None, Some(("prefix", "one"))),
                ("GET", "shop.example", "/cartoon", None, None),
                ("GET", "other.example", "/cart", None, None),
                ("GET", "any.example", "/items/7/parts/a/b", None, Some(("template", "two"))),
                ("GET", "any.example", "/items/7", None, None),
                ("DELETE", "any.example", "/", None, Some(("method", "two"))),
                ("GET", "any.example", "/", Some("yes"), Some(("header", "two"))),
                ("GET", "any.example", "/", Some("no"), None),
                ("GET", "eu.shop.example", "/", None, Some(("below", "one"))),
                ("GET", "shop.example", "/", None, None),
                // The first that fits, not the best.
                ("DELETE", "shop.example", "/cart", Some("yes"), Some(("prefix", "one"))),
            ];
            for (number, (method, host, path, canary, expected)) in cases.into_iter().enumerate() {
                let mut request = match client {
                    Protocol::Http1 => Request::builder().uri(path).header("host", host),
                    Protocol::Http2 => Request::builder().uri(format!("http://{host}{path}")),
                }
                .method(method);
                if let Some(canary) = canary {
                    request = request.header("x-canary", canary);
                }
                let answer = connection.whole(request.body(empty()).expect("request")).await;
                let line = proxy.logged(number + 1).await.pop().expect("a line");
                match expected {
                    Some((route, body)) => {
                        assert_eq!((answer.status.as_u16(), &answer.body[..]), (200, body.as_bytes()), "{host}{path}");
                        assert_eq!(line["route"], route);
                    }
                    None => {
                        assert_eq!(answer.status, 404, "{method} {host}{path}");
                        assert_eq!(line["flag"], "no_route");
                    }
                }
            }
        });
    }
}

/// Answers with what the request says of its way.
async fn telling(protocol: Protocol) -> Origin {
    Origin::start(protocol, |request: Request<Incoming>| async move {
        let names = ["x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "forwarded", "x-real-ip"];
        let told = names.map(|name| {
            let lines = request.headers().get_all(name).iter();
            lines.map(|line| String::from_utf8_lossy(line.as_bytes()).into_owned()).collect::<Vec<_>>().join(" + ")
        });
        Response::new(full(told.join("|")))
    })
    .await
}

async fn told(client: &mut Client, claims: &[(&str, &str)]) -> String {
    let mut request = client.request("GET", "/");
    for (name, value) in claims {
        request = request.header(*name, *value);
    }
    let answer = client.whole(request.body(empty()).expect("request")).await;
    String::from_utf8(answer.body.to_vec()).expect("text")
}

const CLAIMS: [(&str, &str); 6] = [
    ("x-forwarded-for", "192.0.2.1, 192.0.2.2"),
    ("x-forwarded-for", "192.0.2.3"),
    ("x-forwarded-proto", "https"),
    ("x-forwarded-host", "outside.example"),
    ("forwarded", "for=192.0.2.66"),
    ("x-real-ip", "192.0.2.66"),
];

#[test]
fn a_gateway_says_where_a_request_came_from_and_believes_only_the_hops_it_trusts() {
    for (client, upstream) in Protocol::PAIRS {
        run(async move {
            let origin = telling(upstream).await;
            let proxy = Proxy::start(&format!(
                "listeners:\n- {{name: none, mode: gateway, address: '127.0.0.1:0', upstream: app}}\n\
                 - {{name: two, mode: gateway, address: '127.0.0.1:0', upstream: app, trustedHops: 2}}\n\
                 upstreams:\n- {{name: app, addresses: ['{}'], protocol: {}}}\n",
                origin.address,
                upstream.word()
            ));
            let mut none = Client::connect(client, proxy.address("none")).await;
            let host = proxy.address("none");
            assert_eq!(told(&mut none, &[]).await, format!("127.0.0.1|http|{host}||"));
            assert_eq!(told(&mut none, &CLAIMS).await, format!("127.0.0.1|http|{host}||"));

            let mut two = Client::connect(client, proxy.address("two")).await;
            let host = proxy.address("two");
            assert_eq!(
                told(&mut two, &CLAIMS).await,
                "192.0.2.2, 192.0.2.3, 127.0.0.1|https|outside.example|for=192.0.2.66|192.0.2.66"
            );
            assert_eq!(told(&mut two, &[]).await, format!("127.0.0.1|http|{host}||"));
        });
    }
}

#[test]
fn under_tls_the_application_learns_that_it_was_https() {
    run(async {
        let origin = telling(Protocol::Http1).await;
        let (authority, dir) = (Authority::new(), Dir::new());
        authority.leaf(&["a.example"]).write(&dir, "a");
        let proxy = Proxy::start_in(
            dir,
            &format!(
                "listeners:\n- name: edge\n  mode: gateway\n  address: '127.0.0.1:0'\n  upstream: app\n  \
                 tls: {{certificates: [{{cert: DIR/a.crt, key: DIR/a.key}}]}}\n\
                 upstreams:\n- {{name: app, addresses: ['{}']}}\n",
                origin.address
            ),
        );
        let address = proxy.address("edge");
        let stream = connect(&authority.client(&["h2"], &[&TLS13]), "a.example", address).await.expect("a handshake");
        let mut client = Client::over(Protocol::Http2, stream, address).await;
        assert_eq!(told(&mut client, &[]).await, format!("127.0.0.1|https|{address}||"));
    });
}

#[test]
fn a_sidecar_adds_none_of_it_and_takes_none_away() {
    for (client, upstream) in Protocol::PAIRS {
        run(async move {
            let origin = telling(upstream).await;
            for mode in ["inbound", "outbound"] {
                let proxy = Proxy::start(&format!(
                    "role: sidecar\nlisteners:\n- {{name: side, mode: {mode}, address: '127.0.0.1:0', upstream: app}}\n\
                     upstreams:\n- {{name: app, addresses: ['{}'], protocol: {}}}\n",
                    origin.address,
                    upstream.word()
                ));
                let mut client = Client::connect(client, proxy.address("side")).await;
                assert_eq!(told(&mut client, &[]).await, "||||");
                assert_eq!(
                    told(&mut client, &CLAIMS).await,
                    "192.0.2.1, 192.0.2.2 + 192.0.2.3|https|outside.example|for=192.0.2.66|192.0.2.66"
                );
            }
        });
    }
}
