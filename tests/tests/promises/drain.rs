//! A proxy that is told to end says goodbye, finishes what is in flight, and cuts off what has no end. Most of it with
//! the real program as a process of its own, since signals and exit codes are part of the promise.

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Response;
use hyper::body::Frame;
use rustix::process::Signal;
use spanmesh_tests::client::whole;
use spanmesh_tests::origin::{channel, empty, full};
use spanmesh_tests::{Authority, Client, Dir, Origin, Process, Protocol, Proxy, Wire, eventually, process, proxy, run};
use tokio::sync::Notify;

const PROGRAM: &str = env!("CARGO_BIN_EXE_spanmesh-proxy-under-test");

/// HTTP at `in`.
fn between(upstream: SocketAddr, protocol: Protocol, drain: &str) -> String {
    format!(
        "drain: {drain}\n\
         listeners:\n\
         - {{name: in, mode: inbound, address: '127.0.0.1:0', protocol: http, upstream: app}}\n\
         upstreams:\n- {{name: app, addresses: ['{upstream}'], protocol: {}}}\n",
        protocol.word()
    )
}

/// Undetected bytes at `raw` beside it.
fn beside(upstream: SocketAddr, config: &str) -> String {
    let raw = "listeners:\n- {name: raw, mode: inbound, address: '127.0.0.1:0', protocol: opaque, upstream: bytes}";
    let bytes = format!("upstreams:\n- {{name: bytes, addresses: ['{upstream}']}}");
    config.replace("listeners:", raw).replace("upstreams:", &bytes)
}

/// Both ends of a tunnel through the proxy.
async fn tunnel(address: SocketAddr, listener: &tokio::net::TcpListener) -> (Wire, Wire) {
    let mut near = Wire::connect(address).await;
    let mut far = Wire::accept(listener).await;
    far.write("hello").await;
    near.until("hello").await;
    (near, far)
}

/// Answers when it is let.
async fn held(protocol: Protocol) -> (Origin, Rc<Notify>) {
    let gate = Rc::new(Notify::new());
    let opened = gate.clone();
    let origin = Origin::start(protocol, move |_| {
        let gate = opened.clone();
        async move {
            gate.notified().await;
            Response::new(full("held"))
        }
    })
    .await;
    (origin, gate)
}

fn flags(dir: &Dir) -> Vec<String> {
    let mut flags: Vec<_> =
        process::log(dir.as_ref()).iter().map(|line| line["flag"].as_str().expect("a flag").to_owned()).collect();
    flags.sort();
    flags
}

#[test]
fn on_sigterm_what_is_in_flight_finishes_with_a_goodbye_and_the_exit_code_is_0() {
    for (client, upstream) in Protocol::PAIRS {
        run(async move {
            let (origin, gate) = held(upstream).await;
            let dir = Dir::new();
            let config = between(origin.address, upstream, "{timeout: 30s, idleGrace: 100ms}");
            let mut proxy = Process::start(PROGRAM, dir.as_ref(), &config).await;
            assert_eq!(proxy.status("/ready"), "ready\n");
            let mut connection = Client::connect(client, proxy.address("in")).await;
            let request = connection.request("GET", "/").body(empty()).expect("request");
            let asked = tokio::task::spawn_local(async move {
                let answer = connection.send(request).await.expect("an answer");
                (whole(answer).await.expect("a whole answer"), connection)
            });
            eventually("the request is at the origin", || origin.requests.get() == 1).await;

            proxy.signal(Signal::TERM);
            eventually("it is not ready", || proxy.status("/ready").starts_with("HTTP/1.1 503")).await;
            assert_eq!(proxy.status("/live"), "live\n");
            let address = proxy.address("in");
            eventually("nobody accepts", || std::net::TcpStream::connect(address).is_err()).await;
            gate.notify_one();
            let (answer, connection) = asked.await.expect("join");
            assert_eq!((answer.status.as_u16(), &answer.body[..]), (200, &b"held"[..]));
            let close = answer.headers.get("connection").map(|value| value.to_str().expect("text"));
            assert_eq!(close, (client == Protocol::Http1).then_some("close"));
            eventually("the connection is closed", || connection.is_closed()).await;

            assert_eq!(proxy.exit_code().await, Some(0), "{}", proxy.said());
            assert_eq!(flags(&dir), ["ok"]);
            assert_eq!(proxy::spans(&dir).len(), 1);
        });
    }
}

#[test]
fn over_http2_goaway_comes_at_once_and_the_open_stream_is_named_by_it() {
    run(async {
        let (origin, gate) = held(Protocol::Http1).await;
        let proxy = Proxy::start(&between(origin.address, Protocol::Http1, "{timeout: 30s}"));
        let stream = tokio::net::TcpStream::connect(proxy.address("in")).await.expect("connect");
        let (mut send, connection) = h2::client::handshake(stream).await.expect("handshake");
        let ended = tokio::task::spawn_local(connection);
        let request = http::Request::builder().uri("http://app/").body(()).expect("request");
        let (answer, _) = send.send_request(request, true).expect("sent");
        eventually("the request is at the origin", || origin.requests.get() == 1).await;
        proxy.drain();
        // A client that heard GOAWAY opens no stream any more; the one that is open goes on.
        let mut refused = None;
        for _ in 0..500 {
            tokio::time::sleep(Duration::from_millis(10)).await;
            refused = std::future::poll_fn(|cx| send.poll_ready(cx)).await.err();
            if refused.is_some() {
                break;
            }
        }
        assert!(refused.is_some_and(|error| error.is_go_away() && error.reason() == Some(h2::Reason::NO_ERROR)));
        gate.notify_one();
        assert_eq!(answer.await.expect("an answer").status(), 200);
        drop(send);
        ended.await.expect("join").expect("a connection that ended in order");
    });
}

#[test]
fn what_has_no_end_is_cut_at_the_timeout_and_says_draining() {
    for (client, upstream) in Protocol::PAIRS {
        run(async move {
            let (feed, body) = channel();
            let body = std::cell::RefCell::new(Some(body));
            let origin = Origin::start(upstream, move |request| {
                let stream = (request.uri().path() == "/stream").then(|| body.borrow_mut().take()).flatten();
                async move {
                    match stream {
                        Some(body) => Response::new(body),
                        None => std::future::pending().await,
                    }
                }
            })
            .await;
            let dir = Dir::new();
            let (listener, bytes) = Wire::listen().await;
            let config = between(origin.address, upstream, "{timeout: 700ms, idleGrace: 100ms}");
            let mut proxy = Process::start(PROGRAM, dir.as_ref(), &beside(bytes, &config)).await;
            // An answer without an end, a request without an answer, and a tunnel.
            let mut endless = Client::connect(client, proxy.address("in")).await;
            let request = endless.request("GET", "/stream").body(empty()).expect("request");
            feed.send(Frame::data(Bytes::from_static(b"tick"))).await.expect("fed");
            let answer = endless.send(request).await.expect("a head");
            let mut waiting = Client::connect(client, proxy.address("in")).await;
            let request = waiting.request("GET", "/never").body(empty()).expect("request");
            let never = tokio::task::spawn_local(async move { waiting.send(request).await.map(|_| ()) });
            let (mut near, mut far) = tunnel(proxy.address("raw"), &listener).await;
            eventually("both requests are at the origin", || origin.requests.get() == 2).await;

            let told = Instant::now();
            proxy.signal(Signal::TERM);
            assert_eq!(proxy.exit_code().await, Some(0), "{}", proxy.said());
            let took = told.elapsed();
            assert!(took >= Duration::from_millis(600) && took < Duration::from_secs(10), "{took:?}");
            assert!(whole(answer).await.is_err(), "an answer that was cut does not look whole");
            assert!(never.await.expect("join").is_err());
            near.rest().await;
            far.rest().await;
            assert_eq!(flags(&dir), ["draining"; 3]);
            assert_eq!(proxy::spans(&dir).len(), 3, "the spans of both requests and of the tunnel were written");
        });
    }
}

#[test]
fn what_waits_in_the_accept_queue_is_served() {
    run(async {
        let origin = Origin::hello(Protocol::Http1).await;
        let dir = Dir::new();
        let config =
            format!("workers: 2\n{}", between(origin.address, Protocol::Http1, "{timeout: 30s, idleGrace: 1s}"));
        let mut proxy = Process::start(PROGRAM, dir.as_ref(), &config).await;
        // While it stands still the kernel completes connections for it; then it finds them and the signal at once.
        proxy.signal(Signal::STOP);
        let mut clients = Vec::new();
        for _ in 0..100 {
            let mut client = Wire::connect(proxy.address("in")).await;
            client.write("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
            clients.push(client);
        }
        proxy.signal(Signal::TERM);
        proxy.signal(Signal::CONT);
        for client in &mut clients {
            assert!(client.head().await.starts_with("HTTP/1.1 200"));
        }
        drop(clients);
        assert_eq!(proxy.exit_code().await, Some(0), "{}", proxy.said());
        assert_eq!(flags(&dir).len(), 100);
    });
}

#[test]
fn a_second_signal_ends_at_once() {
    for signal in [Signal::TERM, Signal::INT] {
        run(async move {
            let (origin, _gate) = held(Protocol::Http1).await;
            let dir = Dir::new();
            let (listener, bytes) = Wire::listen().await;
            let config = between(origin.address, Protocol::Http1, "{timeout: 1h}");
            let mut proxy = Process::start(PROGRAM, dir.as_ref(), &beside(bytes, &config)).await;
            let mut client = Wire::connect(proxy.address("in")).await;
            client.write("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
            let _tunnel = tunnel(proxy.address("raw"), &listener).await;
            eventually("the request is at the origin", || origin.requests.get() == 1).await;
            proxy.signal(signal);
            eventually("it drains", || proxy.status("/ready").starts_with("HTTP/1.1 503")).await;
            tokio::time::sleep(Duration::from_millis(100)).await;
            assert!(!proxy.has_ended());
            let told = Instant::now();
            proxy.signal(signal);
            assert_eq!(proxy.exit_code().await, Some(0), "{}", proxy.said());
            assert!(told.elapsed() < Duration::from_secs(5), "{:?}", told.elapsed());
            assert_eq!(flags(&dir), ["draining", "draining"]);
        });
    }
}

#[test]
fn the_admin_page_drains_and_ends() {
    run(async {
        let (origin, gate) = held(Protocol::Http1).await;
        let mut proxy = Proxy::start(&between(origin.address, Protocol::Http1, "{timeout: 1h, idleGrace: 50ms}"));
        let mut client = Wire::connect(proxy.address("in")).await;
        client.write("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
        eventually("the request is at the origin", || origin.requests.get() == 1).await;
        assert!(proxy.admin("POST", "/drain").starts_with("HTTP/1.1 202"));
        eventually("it is not ready", || proxy.status("/ready").starts_with("HTTP/1.1 503")).await;
        gate.notify_one();
        assert!(client.head().await.contains("connection: close"));
        proxy.ended().await;
        assert_eq!(proxy.log()[0]["flag"], "ok");
    });
    run(async {
        let (origin, _gate) = held(Protocol::Http1).await;
        let mut proxy = Proxy::start(&between(origin.address, Protocol::Http1, "{timeout: 1h}"));
        let mut client = Wire::connect(proxy.address("in")).await;
        client.write("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
        eventually("the request is at the origin", || origin.requests.get() == 1).await;
        assert!(proxy.admin("POST", "/quitquitquit").starts_with("HTTP/1.1 202"));
        proxy.ended().await;
        client.rest().await;
        assert_eq!(proxy.log()[0]["flag"], "draining");
    });
}

#[test]
fn a_request_that_is_on_its_way_when_the_drain_begins_is_served_within_the_grace() {
    run(async {
        let origin = Origin::hello(Protocol::Http1).await;
        let mut proxy = Proxy::start(&between(origin.address, Protocol::Http1, "{timeout: 1h, idleGrace: 5s}"));
        let mut client = Wire::connect(proxy.address("in")).await;
        client.write("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
        assert!(!client.head().await.contains("connection: close"));
        client.exactly(5).await;
        proxy.drain();
        eventually("it drains", || proxy.status("/ready").starts_with("HTTP/1.1 503")).await;
        client.write("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
        assert!(client.head().await.contains("connection: close"));
        assert_eq!(client.rest().await, b"hello");
        proxy.ended().await;
    });
}

#[test]
fn what_lies_still_is_closed_when_the_grace_is_over() {
    run(async {
        let origin = Origin::hello(Protocol::Http1).await;
        let mut proxy = Proxy::start(&between(origin.address, Protocol::Http1, "{timeout: 1h, idleGrace: 300ms}"));
        let mut idle = Wire::connect(proxy.address("in")).await;
        idle.write("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
        idle.head().await;
        let mut silent = Wire::connect(proxy.address("in")).await;
        let mut multiplexed = Client::connect(Protocol::Http2, proxy.address("in")).await;
        multiplexed.get("/").await;
        eventually("all are there", || proxy.metric("spanmesh_proxy_connections_active", &[]) == 3.0).await;
        let told = Instant::now();
        proxy.drain();
        idle.rest().await;
        assert!(told.elapsed() >= Duration::from_millis(250), "{:?}", told.elapsed());
        silent.rest().await;
        eventually("HTTP/2 is closed", || multiplexed.is_closed()).await;
        proxy.ended().await;
        // The time of a head, 10 s, is no grace.
        assert!(told.elapsed() < Duration::from_secs(8), "nothing held it up: {:?}", told.elapsed());
    });
}

#[test]
fn a_connection_that_hangs_does_not_hold_up_the_end() {
    run(async {
        // A listener whose queue is full drops further attempts without a word, so the proxy's connect hangs.
        let socket = tokio::net::TcpSocket::new_v4().expect("socket");
        socket.bind("127.0.0.1:0".parse().expect("address")).expect("bind");
        let full = socket.listen(0).expect("listen");
        let address = full.local_addr().expect("address");
        let mut held = Vec::new();
        while let Ok(Ok(one)) =
            tokio::time::timeout(Duration::from_millis(200), tokio::net::TcpStream::connect(address)).await
        {
            held.push(one);
            assert!(held.len() < 16, "the queue never filled");
        }
        let origin = Origin::hello(Protocol::Http1).await;
        let config = between(origin.address, Protocol::Http1, "{timeout: 200ms, idleGrace: 50ms}");
        let config = beside(address, &config).replace("name: bytes,", "name: bytes, connectTimeout: 50s,");
        let mut proxy = Proxy::start(&config);
        let mut client = Wire::connect(proxy.address("raw")).await;
        client.write("hello").await;
        eventually("it is there", || proxy.metric("spanmesh_proxy_connections_active", &[]) == 1.0).await;
        let told = Instant::now();
        proxy.drain();
        proxy.ended().await;
        client.rest().await;
        assert!(told.elapsed() < Duration::from_secs(10), "{:?}", told.elapsed());
        assert_eq!(proxy.log()[0]["flag"], "draining", "what is cut at the very end is written down too");
    });
}

#[test]
fn a_tls_client_that_has_said_nothing_holds_up_no_drain() {
    run(async {
        let dir = Dir::new();
        Authority::new().leaf(&["a.example"]).write(&dir, "a");
        let mut proxy = Proxy::start_in(
            dir,
            "drain: {timeout: 1h, idleGrace: 50ms}\nlimits: {headerTimeout: 1m}\n\
             listeners:\n- name: ends\n  mode: gateway\n  address: '127.0.0.1:0'\n  upstream: app\n  \
             tls: {certificates: [{cert: DIR/a.crt, key: DIR/a.key}]}\n\
             - {name: passes, mode: inbound, address: '127.0.0.1:0', protocol: tls, upstream: app}\n\
             upstreams:\n- {name: app, addresses: ['127.0.0.1:1']}\n",
        );
        let mut ends = Wire::connect(proxy.address("ends")).await;
        let mut passes = Wire::connect(proxy.address("passes")).await;
        eventually("both are there", || proxy.metric("spanmesh_proxy_connections_active", &[]) == 2.0).await;
        let told = Instant::now();
        proxy.drain();
        assert_eq!(ends.rest().await, b"");
        assert_eq!(passes.rest().await, b"");
        proxy.ended().await;
        assert!(told.elapsed() < Duration::from_secs(20), "nothing held it up: {:?}", told.elapsed());
    });
}
