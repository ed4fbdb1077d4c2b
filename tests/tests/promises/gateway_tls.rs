//! A gateway ends TLS: the right certificate for each name, the protocol that the client prefers, new certificates
//! without a restart, and no client that can hold up the others.

use std::time::{Duration, Instant};

use rustls::version::{TLS12, TLS13};
use spanmesh_tests::certificates::{Leaf, connect};
use spanmesh_tests::{Authority, Client, Dir, Origin, Protocol, Proxy, Wire, eventually, run};
use tokio::io::AsyncWriteExt;

struct Edge {
    authority: Authority,
    a: Leaf,
    b: Leaf,
    proxy: Proxy,
}

/// A gateway with one certificate for a.example and one for all below b.example; `more` are further sections.
fn edge(origin: &Origin, protocol: Protocol, more: &str) -> Edge {
    let authority = Authority::new();
    let (a, b) = (authority.leaf(&["a.example"]), authority.leaf(&["*.b.example"]));
    let dir = Dir::new();
    a.write(&dir, "a");
    b.write(&dir, "b");
    let proxy = Proxy::start_in(
        dir,
        &format!(
            "listeners:\n- name: edge\n  mode: gateway\n  address: '127.0.0.1:0'\n  upstream: app\n  tls:\n    certificates:\n    \
             - {{cert: DIR/a.crt, key: DIR/a.key}}\n    - {{cert: DIR/b.crt, key: DIR/b.key}}\n\
             - {{name: plain, mode: gateway, address: '127.0.0.1:0', httpsRedirect: true}}\n\
             upstreams:\n- {{name: app, addresses: ['{}'], protocol: {}}}\n{more}",
            origin.address,
            protocol.word()
        ),
    );
    Edge { authority, a, b, proxy }
}

fn alpn(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Http1 => "http/1.1",
        Protocol::Http2 => "h2",
    }
}

#[test]
fn requests_under_tls_pass_in_either_version_and_protocol() {
    for (client, upstream) in Protocol::PAIRS {
        for versions in [&[&TLS12], &[&TLS13]] {
            run(async move {
                let origin = Origin::echo(upstream).await;
                let edge = edge(&origin, upstream, "");
                let address = edge.proxy.address("edge");
                // Both are offered; the client's choice of words is the order of preference, the proxy's is h2 first.
                let offered: &[&str] = if client == Protocol::Http2 { &["h2", "http/1.1"] } else { &["http/1.1"] };
                let connector = edge.authority.client(offered, versions);
                let stream = connect(&connector, "a.example", address).await.expect("a handshake");
                assert_eq!(stream.get_ref().1.alpn_protocol(), Some(alpn(client).as_bytes()));
                assert_eq!(stream.get_ref().1.protocol_version(), Some(versions[0].version));
                let mut client = Client::over(client, stream, address).await;
                let request = client.request("POST", "/x").body(spanmesh_tests::origin::full("secret"));
                let answer = client.whole(request.expect("request")).await;
                assert_eq!((answer.status.as_u16(), &answer.body[..]), (200, &b"secret"[..]));
                edge.proxy.logged(1).await;
                assert_eq!(edge.proxy.metric("spanmesh_proxy_tls_handshakes_total", &["outcome=\"ok\""]), 1.0);
            });
        }
    }
}

#[test]
fn a_client_without_alpn_speaks_http1() {
    run(async {
        let origin = Origin::hello(Protocol::Http1).await;
        let edge = edge(&origin, Protocol::Http1, "");
        let stream = connect(&edge.authority.client(&[], &[&TLS13]), "a.example", edge.proxy.address("edge")).await;
        let mut client = Client::over(Protocol::Http1, stream.expect("a handshake"), edge.proxy.address("edge")).await;
        assert_eq!(client.get("/").await.body, "hello");
    });
}

#[test]
fn each_name_is_shown_its_certificate_and_an_unknown_one_the_first() {
    run(async {
        let origin = Origin::hello(Protocol::Http1).await;
        let edge = edge(&origin, Protocol::Http1, "");
        let (address, client) = (edge.proxy.address("edge"), edge.authority.client(&[], &[&TLS12, &TLS13]));
        let stream = connect(&client, "a.example", address).await.expect("a handshake");
        assert!(edge.a.is_shown_by(&stream));
        let stream = connect(&client, "shop.b.example", address).await.expect("a handshake");
        assert!(edge.b.is_shown_by(&stream));
        let error = connect(&client, "c.example", address).await.expect_err("no certificate for this name");
        assert!(error.to_string().contains("a.example"), "{error}");
    });
}

#[test]
fn new_certificates_are_shown_soon_live_connections_go_on_and_broken_files_change_nothing() {
    run(async {
        let origin = Origin::hello(Protocol::Http1).await;
        let edge = edge(&origin, Protocol::Http1, "");
        let (address, connector) = (edge.proxy.address("edge"), edge.authority.client(&["http/1.1"], &[&TLS13]));
        let stream = connect(&connector, "a.example", address).await.expect("a handshake");
        let mut before = Client::over(Protocol::Http1, stream, address).await;
        assert_eq!(before.get("/").await.body, "hello");

        let new = edge.authority.leaf(&["a.example"]);
        new.write(&edge.proxy.dir, "a");
        replaced(&edge.proxy, "replaced").await;
        let stream = connect(&connector, "a.example", address).await.expect("a handshake");
        assert!(new.is_shown_by(&stream));
        assert_eq!(before.get("/").await.body, "hello");

        edge.proxy.dir.write("a.crt", "-----BEGIN CERTIFICATE-----\nnot this time\n");
        replaced(&edge.proxy, "refused").await;
        let stream = connect(&connector, "a.example", address).await.expect("a handshake");
        assert!(new.is_shown_by(&stream));
        assert_eq!(before.get("/").await.body, "hello");

        // The neighbour is not held up by it.
        let other = edge.authority.leaf(&["*.b.example"]);
        other.write(&edge.proxy.dir, "b");
        eventually("the other pair is replaced", || reloads(&edge.proxy, "replaced") == 2.0).await;
        let stream = connect(&connector, "x.b.example", address).await.expect("a handshake");
        assert!(other.is_shown_by(&stream));
    });
}

fn reloads(proxy: &Proxy, outcome: &str) -> f64 {
    proxy.metric("spanmesh_proxy_certificate_reloads_total", &[&format!("outcome=\"{outcome}\"")])
}

async fn replaced(proxy: &Proxy, outcome: &str) {
    eventually(outcome, || reloads(proxy, outcome) == 1.0).await;
}

#[test]
fn plain_http_is_sent_to_https() {
    for protocol in [Protocol::Http1, Protocol::Http2] {
        run(async move {
            let origin = Origin::hello(Protocol::Http1).await;
            let edge = edge(&origin, Protocol::Http1, "");
            let mut client = Client::connect(protocol, edge.proxy.address("plain")).await;
            for (method, host, target, location) in [
                ("GET", "shop.example:8080", "/a/b?c=d", "https://shop.example/a/b?c=d"),
                ("POST", "shop.example", "/", "https://shop.example/"),
            ] {
                let uri = match protocol {
                    Protocol::Http1 => target.to_owned(),
                    Protocol::Http2 => format!("http://{host}{target}"),
                };
                let request = http::Request::builder().method(method).uri(uri).header("host", host);
                let answer = client.whole(request.body(spanmesh_tests::origin::empty()).expect("request")).await;
                assert_eq!(
                    (answer.status.as_u16(), &answer.headers["location"]),
                    (308, &location.parse().expect("value"))
                );
            }
            let lines = edge.proxy.logged(2).await;
            assert_eq!((&lines[0]["status"], &lines[0]["flag"]), (&308.into(), &"ok".into()));
            assert_eq!(origin.requests.get(), 0);
        });
    }
}

#[test]
fn a_handshake_that_never_ends_is_given_up() {
    run(async {
        let origin = Origin::hello(Protocol::Http1).await;
        let edge = edge(&origin, Protocol::Http1, "limits: {headerTimeout: 300ms}\n");
        let mut silent = Wire::connect(edge.proxy.address("edge")).await;
        let mut begun = Wire::connect(edge.proxy.address("edge")).await;
        begun.write(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc").await;
        assert_eq!(silent.rest().await, b"");
        assert_eq!(begun.rest().await, b"");
        for line in edge.proxy.logged(2).await {
            assert_eq!(line["flag"], "idle_timeout");
        }
        assert_eq!(edge.proxy.metric("spanmesh_proxy_tls_handshakes_total", &["outcome=\"timeout\""]), 2.0);
    });
}

#[test]
fn a_client_that_is_silent_after_its_handshake_is_given_up() {
    run(async {
        let origin = Origin::hello(Protocol::Http1).await;
        let edge = edge(&origin, Protocol::Http1, "limits: {headerTimeout: 300ms}\n");
        let connector = edge.authority.client(&["h2"], &[&TLS13]);
        let address = edge.proxy.address("edge");
        let _silent = connect(&connector, "a.example", address).await.expect("a handshake");
        assert_eq!(edge.proxy.logged(1).await[0]["flag"], "idle_timeout");
        edge.proxy.at_rest().await;
    });
}

#[test]
fn clients_stuck_in_their_handshakes_hold_up_nobody() {
    run(async {
        let origin = Origin::hello(Protocol::Http1).await;
        let edge = edge(&origin, Protocol::Http1, "limits: {headerTimeout: 1h, handshakes: 4}\n");
        let (address, connector) = (edge.proxy.address("edge"), edge.authority.client(&["http/1.1"], &[&TLS13]));
        // Some say nothing, some stop in the middle of their hello, some never answer the proxy's part.
        let hello = whole_hello().await;
        let mut stuck = Vec::new();
        for bytes in [&b""[..], &hello[..hello.len() / 2], &hello[..]] {
            for _ in 0..12 {
                let mut wire = Wire::connect(address).await;
                wire.write(bytes).await;
                wire.stream.flush().await.expect("flush");
                stuck.push(wire);
            }
        }
        let started = Instant::now();
        let stream = connect(&connector, "a.example", address).await.expect("a handshake");
        let mut client = Client::over(Protocol::Http1, stream, address).await;
        assert_eq!(client.get("/").await.body, "hello");
        assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
    });
}

/// What a client says first.
async fn whole_hello() -> Vec<u8> {
    let (listener, address) = Wire::listen().await;
    let authority = Authority::new();
    let connector = authority.client(&["http/1.1"], &[&TLS13]);
    let client = tokio::task::spawn_local(async move { connect(&connector, "a.example", address).await });
    let mut wire = Wire::accept(&listener).await;
    let head = wire.exactly(5).await;
    let body = wire.exactly(usize::from(u16::from_be_bytes([head[3], head[4]]))).await;
    client.abort();
    [head, body].concat()
}

#[test]
fn a_client_that_speaks_plain_http_to_tls_is_turned_away_and_counted() {
    run(async {
        let origin = Origin::hello(Protocol::Http1).await;
        let edge = edge(&origin, Protocol::Http1, "");
        let mut client = Wire::connect(edge.proxy.address("edge")).await;
        client.write("GET / HTTP/1.1\r\nhost: a.example\r\n\r\n").await;
        client.rest().await;
        let line = edge.proxy.logged(1).await.remove(0);
        assert_eq!(line["flag"], "tls_failed");
        assert!(line["detail"].as_str().is_some_and(|text| text.contains("http://")), "{line}");
        assert_eq!(edge.proxy.metric("spanmesh_proxy_tls_handshakes_total", &["outcome=\"not_tls\""]), 1.0);
    });
}
