//! The limits of connections and of what stands in line on one: in all, per client, requests ahead, streams, handshakes.
//! Each refuses by name and counts, and whoever is in is served on. (All connections and descriptors: see `overload`.)

use std::net::SocketAddr;
use std::time::Duration;

use http::{Response, StatusCode};
use rustls::version::TLS13;
use spanmesh_tests::certificates::connect;
use spanmesh_tests::frames::{ask, hello};
use spanmesh_tests::origin::full;
use spanmesh_tests::{Authority, Client, Dir, Origin, Protocol, Proxy, Wire, eventually, run};

async fn from(source: &str, to: SocketAddr) -> Wire {
    let socket = tokio::net::TcpSocket::new_v4().expect("socket");
    socket.bind(format!("{source}:0").parse().expect("address")).expect("bind");
    Wire::from(socket.connect(to).await.expect("connect"))
}

async fn is_served(wire: &mut Wire) -> bool {
    wire.send(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.is_ok() && wire.try_until("hello").await.is_some()
}

#[test]
fn one_client_does_not_get_all_connections() {
    for (mode, limits) in
        [("gateway", "connections: 12"), ("inbound", "connectionsPerClient: 3"), ("gateway", "connectionsPerClient: 3")]
    {
        run(async move {
            let origin = Origin::hello(Protocol::Http1).await;
            let proxy = Proxy::limited(mode, &origin, limits);
            let address = proxy.address("in");
            let mut held = Vec::new();
            for _ in 0..3 {
                let mut wire = from("127.0.0.2", address).await;
                assert!(is_served(&mut wire).await);
                held.push(wire);
            }
            for _ in 0..2 {
                assert!(!is_served(&mut from("127.0.0.2", address).await).await, "{mode} {limits}");
            }
            assert_eq!(proxy.reached("connections_per_client"), 2.0);
            assert_eq!(proxy.metric("spanmesh_proxy_connections_refused_total", &["reason=\"rate_limited\""]), 2.0);
            let log = proxy.logged(5).await;
            assert_eq!(log.iter().filter(|line| line["flag"] == "rate_limited").count(), 2);
            assert!(is_served(&mut from("127.0.0.3", address).await).await, "another client");
            for wire in &mut held {
                assert!(is_served(wire).await, "what is there goes on");
            }
            held.pop();
            eventually("there is room", || proxy.metric("spanmesh_proxy_connections_active", &[]) == 2.0).await;
            assert!(is_served(&mut from("127.0.0.2", address).await).await);
        });
    }
}

#[test]
fn a_sidecar_asks_nobody_for_an_address() {
    run(async {
        let origin = Origin::hello(Protocol::Http1).await;
        let proxy = Proxy::limited("inbound", &origin, "connections: 12");
        let mut held = Vec::new();
        for _ in 0..12 {
            let mut wire = from("127.0.0.2", proxy.address("in")).await;
            assert!(is_served(&mut wire).await);
            held.push(wire);
        }
    });
}

#[test]
fn all_connections_together_have_a_limit() {
    run(async {
        let origin = Origin::hello(Protocol::Http1).await;
        let proxy = Proxy::limited("inbound", &origin, "connections: 2");
        let (mut one, mut two) = (Wire::connect(proxy.address("in")).await, Wire::connect(proxy.address("in")).await);
        assert!(is_served(&mut one).await && is_served(&mut two).await);
        assert!(!is_served(&mut Wire::connect(proxy.address("in")).await).await);
        assert_eq!(proxy.reached("connections"), 1.0);
        assert_eq!(proxy.logged(3).await[2]["flag"], "overload");
        assert!(is_served(&mut one).await && is_served(&mut two).await);
    });
}

#[test]
fn requests_sent_far_ahead_are_refused() {
    run(async {
        let origin = Origin::hello(Protocol::Http1).await;
        let proxy = Proxy::limited("inbound", &origin, "pipelined: 10");
        let mut neighbour = Client::connect(Protocol::Http1, proxy.address("in")).await;
        let mut wire = Wire::connect(proxy.address("in")).await;
        wire.write("GET / HTTP/1.1\r\nhost: a\r\n\r\n".repeat(50)).await;
        let answers = String::from_utf8(wire.rest().await).expect("text");
        assert_eq!(answers.matches("HTTP/1.1 200").count(), 11, "{answers}");
        assert_eq!(answers.matches("HTTP/1.1 429").count(), 1, "{answers}");
        assert_eq!(origin.requests.get(), 11);
        assert_eq!(proxy.reached("pipelined"), 1.0);
        assert_eq!(proxy.logged(12).await[11]["flag"], "rate_limited");
        assert_eq!(neighbour.get("/").await.status, StatusCode::OK);
    });
}

#[test]
fn a_client_that_always_sends_one_ahead_is_served() {
    run(async {
        let origin = Origin::hello(Protocol::Http1).await;
        let proxy = Proxy::limited("inbound", &origin, "pipelined: 2");
        let mut wire = Wire::connect(proxy.address("in")).await;
        let request = "GET / HTTP/1.1\r\nhost: a\r\n\r\n";
        wire.write(request).await;
        for _ in 0..30 {
            wire.write(request).await;
            wire.until("hello").await;
        }
        assert_eq!(proxy.reached("pipelined"), 0.0);
    });
}

#[test]
fn streams_beyond_the_limit_are_refused_and_counted() {
    run(async {
        let origin = Origin::start(Protocol::Http1, |request| async move {
            if request.method() == "POST" {
                std::future::pending::<()>().await;
            }
            Response::new(full("hello"))
        })
        .await;
        let proxy = Proxy::limited("inbound", &origin, "streams: 4");
        let mut neighbour = Client::connect(Protocol::Http2, proxy.address("in")).await;
        let mut wire = Wire::connect(proxy.address("in")).await;
        let heads: Vec<u8> = (0..10).flat_map(|number| ask(2 * number + 1, false)).collect();
        wire.write([hello(), heads].concat()).await;
        // RST_STREAM with REFUSED_STREAM, for each beyond the fourth.
        for stream in [9u8, 11, 13, 15, 17, 19] {
            let reset = [0, 0, 4, 3, 0, 0, 0, 0, stream, 0, 0, 0, 7];
            wire.until(std::str::from_utf8(&reset).expect("ASCII")).await;
        }
        eventually("they are counted", || proxy.reached("streams") == 6.0).await;
        assert_eq!(proxy.metric("spanmesh_proxy_requests_in_flight", &[]), 4.0);
        assert_eq!(neighbour.get("/").await.status, StatusCode::OK);
        drop((wire, neighbour));
        proxy.at_rest().await;
    });
}

/// A gateway that ends TLS.
fn edge(authority: &Authority, origin: &Origin, limits: &str) -> Proxy {
    let dir = Dir::new();
    authority.leaf(&["a.example"]).write(&dir, "a");
    Proxy::start_in(
        dir,
        &format!(
            "listeners:\n- name: edge\n  mode: gateway\n  address: '127.0.0.1:0'\n  upstream: app\n  tls:\n    \
             certificates:\n    - {{cert: DIR/a.crt, key: DIR/a.key}}\n\
             upstreams:\n- {{name: app, addresses: ['{}']}}\nlimits: {{{limits}}}\n",
            origin.address
        ),
    )
}

/// Two turns, and two clients that are slow in theirs: the third waits, and is served when one has lost its turn.
#[test]
fn handshakes_wait_for_their_turn_and_are_counted() {
    run(async {
        let origin = Origin::hello(Protocol::Http1).await;
        let authority = Authority::new();
        let proxy = edge(&authority, &origin, "handshakes: 1, headerTimeout: 2s");
        let address = proxy.address("edge");
        let hello = client_hello(&authority).await;
        let mut stuck = Vec::new();
        for _ in 0..8 {
            let mut wire = Wire::connect(address).await;
            wire.write(&hello).await;
            stuck.push(wire);
        }
        let connector = authority.client(&["http/1.1"], &[&TLS13]);
        let stream = connect(&connector, "a.example", address).await.expect("a handshake");
        let mut client = Client::over(Protocol::Http1, stream, address).await;
        assert_eq!(client.get("/").await.status, StatusCode::OK);
        assert!(proxy.reached("handshakes") >= 1.0);
        // Those that never go on are closed.
        eventually("they are closed", || proxy.reached("handshake_time") == 8.0).await;
        eventually("they are logged", || proxy.log().iter().filter(|line| line["flag"] == "idle_timeout").count() == 8)
            .await;
        assert_eq!(client.get("/").await.status, StatusCode::OK);
    });
}

/// A record of the handshake that comes one byte at a time.
#[test]
fn a_handshake_that_trickles_is_closed() {
    run(async {
        let origin = Origin::hello(Protocol::Http1).await;
        let authority = Authority::new();
        let proxy = edge(&authority, &origin, "headerTimeout: 1s");
        let hello = client_hello(&authority).await;
        let mut wire = Wire::connect(proxy.address("edge")).await;
        let mut closed = false;
        for byte in hello.iter().take(100) {
            let ended = tokio::time::timeout(Duration::from_millis(50), wire.try_exactly(1)).await.is_ok();
            if ended || wire.send(&[*byte]).await.is_err() {
                closed = true;
                break;
            }
        }
        assert!(closed);
        // The socket is gone a moment before it is counted.
        eventually("it is counted", || proxy.reached("handshake_time") == 1.0).await;
        assert_eq!(proxy.logged(1).await[0]["flag"], "idle_timeout");
    });
}

/// The first bytes that a client of TLS sends.
async fn client_hello(authority: &Authority) -> Vec<u8> {
    let (listener, address) = Wire::listen().await;
    let connector = authority.client(&["http/1.1"], &[&TLS13]);
    let connecting = tokio::task::spawn_local(async move { drop(connect(&connector, "a.example", address).await) });
    let mut wire = Wire::accept(&listener).await;
    let mut hello = wire.exactly(5).await;
    let length = usize::from(hello[3]) << 8 | usize::from(hello[4]);
    hello.extend(wire.exactly(length).await);
    connecting.abort();
    hello
}
