//! TLS that is not for the proxy passes through untouched and is routed by the name that its client asks for.

use std::sync::Arc;

use rustls::version::{TLS12, TLS13};
use spanmesh_tests::certificates::{Leaf, connect, handshake};
use spanmesh_tests::origin::full;
use spanmesh_tests::{Authority, Client, Dribble, Origin, Protocol, Proxy, Wire, run};
use tokio_rustls::TlsConnector;

struct Setting {
    authority: Authority,
    leaves: [Leaf; 2],
    /// That of a.example, that of b.example.
    origins: [Origin; 2],
}

/// Two origins that end TLS themselves and know these protocols.
async fn setting(alpn: &[&str]) -> Setting {
    let authority = Authority::new();
    let leaves = [authority.leaf(&["a.example"]), authority.leaf(&["b.example", "x.b.example"])];
    let origins = [
        Origin::secure(leaves[0].server(alpn), |_| async { http::Response::new(full("a")) }).await,
        Origin::secure(leaves[1].server(alpn), |_| async { http::Response::new(full("b")) }).await,
    ];
    Setting { authority, leaves, origins }
}

impl Setting {
    /// A proxy that knows both; `more` are further fields of its listener.
    fn proxy(&self, protocol: &str, more: &str) -> Proxy {
        let [a, b] = &self.origins;
        Proxy::start(&format!(
            "listeners:\n- name: in\n  mode: inbound\n  address: '127.0.0.1:0'\n  protocol: {protocol}\n{more}  routes:\n  \
             - {{name: to-a, match: {{sni: a.example}}, upstream: a}}\n  \
             - {{name: to-b, match: {{sni: b.example}}, upstream: b}}\n  \
             - {{name: below-b, match: {{sni: '*.b.example'}}, upstream: b}}\n\
             upstreams:\n- {{name: a, addresses: ['{}']}}\n- {{name: b, addresses: ['{}']}}\n",
            a.address, b.address
        ))
    }
}

#[test]
fn each_name_reaches_its_origin_which_shows_its_own_certificate() {
    for (protocol, versions) in [("tls", &[&TLS13]), ("detect", &[&TLS13]), ("tls", &[&TLS12]), ("detect", &[&TLS12])] {
        run(async move {
            let setting = setting(&["h2", "http/1.1"]).await;
            let proxy = setting.proxy(protocol, "");
            for (number, (name, place, route)) in
                [("a.example", 0, "to-a"), ("b.example", 1, "to-b"), ("x.b.example", 1, "below-b")]
                    .into_iter()
                    .enumerate()
            {
                let connector = setting.authority.client(&["http/1.1"], versions);
                let stream = connect(&connector, name, proxy.address("in")).await.expect("a handshake");
                assert!(setting.leaves[place].is_shown_by(&stream));
                let mut client = Client::over(Protocol::Http1, stream, proxy.address("in")).await;
                assert_eq!(client.get("/").await.body, ["a", "b"][place]);
                drop(client);
                let line = proxy.logged(number + 1).await.pop().expect("a line");
                assert_eq!([&line["route"], &line["protocol"]], [route, "TCP"]);
            }
            assert_eq!(proxy.metric("spanmesh_proxy_detections_total", &["outcome=\"tls\""]), 3.0);
        });
    }
}

#[test]
fn the_application_negotiates_its_own_protocol() {
    for (offered, known, chosen) in [
        (&["h2", "http/1.1"][..], &["h2", "http/1.1"][..], Some("h2")),
        (&["http/1.1"], &["h2", "http/1.1"], Some("http/1.1")),
        (&["my-own/7", "other"], &["my-own/7"], Some("my-own/7")),
        (&[], &["h2"], None),
    ] {
        run(async move {
            let setting = setting(known).await;
            let proxy = setting.proxy("detect", "");
            let connector = setting.authority.client(offered, &[&TLS13]);
            let stream = connect(&connector, "a.example", proxy.address("in")).await.expect("a handshake");
            assert_eq!(stream.get_ref().1.alpn_protocol(), chosen.map(str::as_bytes));
        });
    }
}

#[test]
fn a_hello_in_many_segments_and_up_to_16_kib_finds_its_way() {
    // Names of protocols make it long.
    let padding: Vec<String> = (0..62).map(|number| format!("{number:02}{}", "x".repeat(248))).collect();
    let padding: Vec<&str> = padding.iter().map(String::as_str).chain(["http/1.1"]).collect();
    for (alpn, piece) in [(&padding[62..], 1), (&padding[..], 1000), (&padding[..], 1 << 20), (&padding[30..], 37)] {
        let alpn: Vec<String> = alpn.iter().map(|&name| name.to_owned()).collect();
        run(async move {
            let alpn: Vec<&str> = alpn.iter().map(String::as_str).collect();
            let setting = setting(&["http/1.1"]).await;
            for protocol in ["tls", "detect"] {
                let proxy = setting.proxy(protocol, "");
                let slow = Dribble::to(proxy.address("in"), piece, 17_000).await;
                let connector = setting.authority.client(&alpn, &[&TLS13]);
                let stream = connect(&connector, "b.example", slow.address).await.expect("a handshake");
                assert!(setting.leaves[1].is_shown_by(&stream));
                let mut client = Client::over(Protocol::Http1, stream, slow.address).await;
                assert_eq!(client.get("/").await.body, "b");
            }
        });
    }
}

/// A client that does not say whom it asks for.
fn nameless(authority: &Authority) -> TlsConnector {
    let connector = authority.client(&[], &[&TLS13]);
    let mut config = (**connector.config()).clone();
    config.enable_sni = false;
    TlsConnector::from(Arc::new(config))
}

#[test]
fn a_name_that_no_route_knows_goes_to_the_listeners_upstream_or_nowhere() {
    for protocol in ["tls", "detect"] {
        run(async move {
            let setting = setting(&[]).await;
            let (unknown, none) = (setting.authority.client(&[], &[&TLS13]), nameless(&setting.authority));

            let proxy = setting.proxy(protocol, "  upstream: a\n");
            for connector in [&unknown, &none] {
                // The origin shows what it has; that it is not for this name is for the client to see.
                let failed = connect(connector, "c.example", proxy.address("in")).await.expect_err("another name");
                assert!(failed.to_string().contains("a.example"), "{failed}");
            }
            let named = connect(&none, "a.example", proxy.address("in")).await.expect("a handshake");
            assert!(setting.leaves[0].is_shown_by(&named));

            let proxy = setting.proxy(protocol, "");
            for (number, connector) in [&unknown, &none].into_iter().enumerate() {
                connect(connector, "c.example", proxy.address("in")).await.expect_err("no way");
                let line = proxy.logged(number + 1).await.pop().expect("a line");
                assert_eq!((&line["flag"], &line["protocol"]), (&"no_route".into(), &"TCP".into()));
            }
            assert_eq!(proxy.metric("spanmesh_proxy_tcp_connections_total", &["flag=\"no_route\""]), 2.0);
        });
    }
}

#[test]
fn a_route_that_asks_for_nothing_takes_what_has_no_name() {
    run(async {
        let setting = setting(&[]).await;
        let [a, b] = &setting.origins;
        let proxy = Proxy::start(&format!(
            "listeners:\n- name: in\n  mode: inbound\n  address: '127.0.0.1:0'\n  protocol: tls\n  routes:\n  \
             - {{name: to-a, match: {{sni: a.example}}, upstream: a}}\n  - {{name: rest, upstream: b}}\n\
             upstreams:\n- {{name: a, addresses: ['{}']}}\n- {{name: b, addresses: ['{}']}}\n",
            a.address, b.address
        ));
        let stream = connect(&nameless(&setting.authority), "b.example", proxy.address("in")).await;
        assert!(setting.leaves[1].is_shown_by(&stream.expect("a handshake")));
    });
}

#[test]
fn a_hello_that_never_ends_is_given_up_and_others_go_on() {
    run(async {
        let setting = setting(&[]).await;
        let [a, b] = &setting.origins;
        let proxy = Proxy::start(&format!(
            "listeners:\n- name: in\n  mode: inbound\n  address: '127.0.0.1:0'\n  protocol: tls\n  routes:\n  \
             - {{name: to-a, match: {{sni: a.example}}, upstream: a}}\n\
             upstreams:\n- {{name: a, addresses: ['{}']}}\n- {{name: b, addresses: ['{}']}}\n\
             limits: {{headerTimeout: 300ms}}\n",
            a.address, b.address
        ));
        let mut stuck = Wire::connect(proxy.address("in")).await;
        stuck.write(b"\x16\x03\x01\x02\x00\x01\x00").await;
        let connector = setting.authority.client(&[], &[&TLS13]);
        let stream = tokio::net::TcpStream::connect(proxy.address("in")).await.expect("connect");
        handshake(&connector, "a.example", stream).await.expect("a handshake");
        assert_eq!(stuck.rest().await, b"");
    });
}
