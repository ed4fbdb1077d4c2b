//! What is no HTTP passes as it is: whole, in both directions, with its ends and its resets.

use std::time::{Duration, Instant};

use spanmesh_tests::{Client, Dribble, Origin, Protocol, Proxy, Wire, eventually, free_port, run};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

/// One inbound listener in front of `upstream`, with further fields.
fn proxy(upstream: std::net::SocketAddr, fields: &str) -> Proxy {
    Proxy::start(&format!(
        "listeners:\n- {{name: in, mode: inbound, address: '127.0.0.1:0', upstream: app, {fields}}}\n\
         upstreams:\n- {{name: app, addresses: ['{upstream}']}}\nlimits: {{idleTimeout: 20s}}\n"
    ))
}

const OPAQUE: &str = "protocol: opaque";
const DETECT: &str = "protocol: detect";

#[test]
fn the_end_of_one_direction_is_passed_on_and_the_other_goes_on() {
    for fields in [OPAQUE, DETECT] {
        run(async move {
            let (listener, address) = Wire::listen().await;
            let proxy = proxy(address, fields);

            // The client ends first.
            let mut client = Wire::connect(proxy.address("in")).await;
            client.write(b"\x01question").await;
            client.finish().await;
            let mut origin = Wire::accept(&listener).await;
            assert_eq!(origin.rest().await, b"\x01question");
            origin.write("answer after the end").await;
            drop(origin);
            assert_eq!(client.rest().await, b"answer after the end");

            // The origin ends first.
            let mut client = Wire::connect(proxy.address("in")).await;
            client.write(b"\x01hello").await;
            let mut origin = Wire::accept(&listener).await;
            assert_eq!(origin.exactly(6).await, b"\x01hello");
            origin.write("bye").await;
            origin.finish().await;
            assert_eq!(client.rest().await, b"bye");
            client.write("more").await;
            client.finish().await;
            assert_eq!(origin.rest().await, b"more");

            for line in proxy.logged(2).await {
                assert_eq!((&line["flag"], &line["protocol"]), (&"ok".into(), &"TCP".into()));
            }
        });
    }
}

#[test]
fn bulk_passes_both_ways_at_once_and_unharmed_in_the_kernel() {
    run(async { assert!(bulk("16Mi").await > 0.0, "no pipe was used") });
}

#[test]
fn bulk_passes_without_pipes_too() {
    run(async { assert_eq!(bulk("0").await, 0.0) });
}

/// Moves bulk with at most so many bytes of pipes, and tells how many the proxy came to hold.
async fn bulk(pipes: &str) -> f64 {
    let (listener, address) = Wire::listen().await;
    let proxy = Proxy::start(&format!(
        "listeners:\n- {{name: in, mode: inbound, address: '127.0.0.1:0', protocol: opaque, upstream: app}}\n\
             upstreams:\n- {{name: app, addresses: ['{address}']}}\nlimits: {{pipeBytes: {pipes}}}\n"
    ));
    let client = Wire::connect(proxy.address("in")).await;
    let origin = Wire::accept(&listener).await;
    let (client_reads, client_writes) = client.stream.into_split();
    let (origin_reads, origin_writes) = origin.stream.into_split();
    let (sent_up, sent_down, came_up, came_down) =
        tokio::join!(pour(client_writes, 1), pour(origin_writes, 2), drink(origin_reads), drink(client_reads));
    assert_eq!((sent_up, sent_down), (came_up, came_down));
    assert_eq!(came_up.0, BULK);

    let line = proxy.logged(1).await.remove(0);
    assert_eq!((&line["requestBytes"], &line["responseBytes"]), (&BULK.into(), &BULK.into()));
    assert_eq!(proxy.metric("spanmesh_proxy_tcp_bytes_total", &["direction=\"up\""]), BULK as f64);
    assert_eq!(proxy.metric("spanmesh_proxy_tcp_bytes_total", &["direction=\"down\""]), BULK as f64);
    // Looked at once a second; some pipes are kept for the next.
    let held = || proxy.metric("spanmesh_proxy_splice_pipe_bytes", &[]);
    if pipes != "0" {
        eventually("pipes are held", || held() > 0.0).await;
    }
    held()
}

const BULK: u64 = 24 << 20;

/// Writes noise and tells its length and checksum.
async fn pour(mut to: OwnedWriteHalf, seed: u64) -> (u64, u64) {
    let (mut state, mut sum, mut sent) = (seed, Sum::default(), 0);
    let mut chunk = vec![0; 48 * 1024];
    while sent < BULK {
        for word in chunk.chunks_exact_mut(8) {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            word.copy_from_slice(&state.to_le_bytes());
        }
        let part = chunk.len().min(usize::try_from(BULK - sent).expect("small"));
        to.write_all(&chunk[..part]).await.expect("write");
        sum.add(&chunk[..part]);
        sent += part as u64;
    }
    to.shutdown().await.expect("shutdown");
    (sent, sum.0)
}

async fn drink(mut from: OwnedReadHalf) -> (u64, u64) {
    let (mut sum, mut came) = (Sum::default(), 0);
    let mut chunk = vec![0; 64 * 1024];
    loop {
        let count = from.read(&mut chunk).await.expect("read");
        if count == 0 {
            return (came, sum.0);
        }
        sum.add(&chunk[..count]);
        came += count as u64;
    }
}

/// FNV-1a.
struct Sum(u64);

impl Default for Sum {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Sum {
    fn add(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
}

/// How long a client waits that lets the server speak first.
async fn greeted(proxy: &Proxy, listener: &tokio::net::TcpListener) -> Duration {
    let started = Instant::now();
    let mut client = Wire::connect(proxy.address("in")).await;
    let mut origin = Wire::accept(listener).await;
    origin.write("220 ready\r\n").await;
    assert_eq!(client.until("\n").await, "220 ready\r\n");
    let waited = started.elapsed();
    client.write("EHLO me\r\n").await;
    assert_eq!(origin.until("\n").await, "EHLO me\r\n");
    waited
}

#[test]
fn a_server_that_speaks_first_is_waited_for_once() {
    run(async {
        let (listener, address) = Wire::listen().await;
        let proxy = proxy(address, "detectTimeout: 1s");
        let first = greeted(&proxy, &listener).await;
        let second = greeted(&proxy, &listener).await;
        assert!(first >= Duration::from_millis(990), "{first:?}");
        assert!(second < Duration::from_millis(900), "{second:?}");
    });
}

#[test]
fn what_is_remembered_as_server_first_is_still_read_as_http() {
    run(async {
        let (listener, address) = Wire::listen().await;
        let proxy = proxy(address, "detectTimeout: 50ms");
        greeted(&proxy, &listener).await;
        // The request is there before the proxy looks, as on a connection that is used at once.
        let mut client = Wire::connect(proxy.address("in")).await;
        client.write("GET /now HTTP/1.1\r\nhost: a\r\n\r\n").await;
        let mut origin = Wire::accept(&listener).await;
        let head = origin.head().await;
        assert!(head.starts_with("GET /now HTTP/1.1\r\n"), "{head}");
    });
}

#[test]
fn on_a_port_declared_opaque_nobody_waits() {
    run(async {
        let (listener, address) = Wire::listen().await;
        let port = free_port();
        let proxy = Proxy::start(&format!(
            "listeners:\n- {{name: in, mode: inbound, address: '127.0.0.1:{port}', upstream: app, opaquePorts: [{port}]}}\n\
             upstreams:\n- {{name: app, addresses: ['{address}']}}\n"
        ));
        let waited = greeted(&proxy, &listener).await;
        assert!(waited < Duration::from_millis(900), "{waited:?}");
        // Not even HTTP is read there.
        let mut client = Wire::connect(proxy.address("in")).await;
        client.write("GET / HTTP/1.1\r\n").await;
        let mut origin = Wire::accept(&listener).await;
        assert_eq!(origin.until("\n").await, "GET / HTTP/1.1\r\n");
    });
}

#[test]
fn on_a_port_declared_http_a_client_may_connect_long_before_it_asks() {
    run(async {
        let origin = Origin::hello(Protocol::Http1).await;
        let port = free_port();
        let proxy = Proxy::start(&format!(
            "listeners:\n- {{name: in, mode: inbound, address: '127.0.0.1:{port}', upstream: app, httpPorts: [{port}], \
             detectTimeout: 1ms}}\nupstreams:\n- {{name: app, addresses: ['{}']}}\n",
            origin.address
        ));
        let mut client = Wire::connect(proxy.address("in")).await;
        // Long after the time in which a silent client is taken for one that waits for the server.
        tokio::time::sleep(Duration::from_millis(200)).await;
        client.write("GET /late HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await;
        let answer = String::from_utf8(client.rest().await).expect("text");
        assert!(answer.ends_with("hello"), "{answer}");
        assert_eq!(proxy.logged(1).await[0]["protocol"], "HTTP/1.1");
    });
}

#[test]
fn a_client_that_has_said_nothing_holds_up_no_drain() {
    run(async move {
        let (_listener, address) = Wire::listen().await;
        let mut proxy = Proxy::start(&format!(
            "listeners:\n- {{name: in, mode: inbound, address: '127.0.0.1:0', upstream: app, protocol: http}}\n\
             upstreams:\n- {{name: app, addresses: ['{address}']}}\ndrain: {{timeout: 1h, idleGrace: 100ms}}\n"
        ));
        let mut silent = Wire::connect(proxy.address("in")).await;
        eventually("the connection is open", || {
            proxy.metric("spanmesh_proxy_connections_active", &["listener=\"in\""]) == 1.0
        })
        .await;
        proxy.drain();
        assert_eq!(silent.rest().await, b"");
        proxy.ended().await;
    });
}

#[test]
fn a_client_that_closes_its_half_without_a_word_still_gets_the_answer() {
    run(async {
        let (listener, address) = Wire::listen().await;
        let proxy = proxy(address, "detectTimeout: 300ms");
        let mut client = Wire::connect(proxy.address("in")).await;
        client.finish().await;
        let mut origin = Wire::accept(&listener).await;
        assert_eq!(origin.rest().await, b"");
        origin.write("a greeting all the same").await;
        drop(origin);
        assert_eq!(client.rest().await, b"a greeting all the same");
    });
}

#[test]
fn a_beginning_that_could_be_anything_is_handed_on_after_the_detect_timeout() {
    run(async {
        let (listener, address) = Wire::listen().await;
        let proxy = proxy(address, "detectTimeout: 300ms");
        let started = Instant::now();
        let mut client = Wire::connect(proxy.address("in")).await;
        client.write("HELLO").await;
        let mut origin = Wire::accept(&listener).await;
        assert_eq!(origin.exactly(5).await, b"HELLO");
        let waited = started.elapsed();
        assert!(waited >= Duration::from_millis(290), "{waited:?}");
        assert!(waited < Duration::from_millis(950), "{waited:?}: that is the longest wait, not the configured one");
        client.write(" again").await;
        assert_eq!(origin.exactly(6).await, b" again");
    });
}

#[test]
fn no_byte_is_lost_when_the_first_ones_come_one_by_one() {
    for (client, upstream) in Protocol::PAIRS {
        run(async move {
            let origin = Origin::echo(upstream).await;
            let proxy = Proxy::between(origin.address, upstream);
            let slow = Dribble::to(proxy.address("in"), 1, 300).await;
            let mut client = Client::connect(client, slow.address).await;
            let request =
                client.request("POST", "/slowly").body(spanmesh_tests::origin::full("body")).expect("request");
            let answer = client.whole(request).await;
            assert_eq!((answer.status.as_u16(), &answer.body[..]), (200, &b"body"[..]));
            assert_eq!(proxy.logged(1).await[0]["path"], "/slowly");
        });
    }
    // Beginnings that could become HTTP or TLS for a while, and do not.
    let others: [&[u8]; 6] = [
        b"GET key-of-redis\r\nGET another\r\n",
        b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n and more",
        b"\x16\x03\x01\x02\x00\x05 no hello",
        b"\x00\x01\x02\x03",
        b"\r\n\r\n\r\nGET / HTTP/1.1\r\n",
        b"CONNECT {\"verbose\":false,\"pedantic\":false}\r\nPING\r\n",
    ];
    for bytes in others {
        run(async move {
            let (listener, address) = Wire::listen().await;
            let proxy = proxy(address, DETECT);
            let slow = Dribble::to(proxy.address("in"), 1, bytes.len()).await;
            let mut client = Wire::connect(slow.address).await;
            client.write(bytes).await;
            client.finish().await;
            let mut origin = Wire::accept(&listener).await;
            assert_eq!(String::from_utf8_lossy(&origin.rest().await), String::from_utf8_lossy(bytes));
        });
    }
}

#[test]
fn an_opaque_connection_leaves_one_line_and_its_numbers() {
    run(async {
        let (listener, address) = Wire::listen().await;
        let proxy = proxy(address, OPAQUE);
        let mut client = Wire::connect(proxy.address("in")).await;
        let peer = client.stream.local_addr().expect("address");
        let mut origin = Wire::accept(&listener).await;
        client.write("12345").await;
        assert_eq!(origin.exactly(5).await, b"12345");
        origin.write("123").await;
        origin.finish().await;
        client.rest().await;
        client.finish().await;
        let line = proxy.logged(1).await.remove(0);
        assert_eq!(
            [&line["flag"], &line["protocol"], &line["listener"], &line["upstream"], &line["peer"], &line["endpoint"]],
            ["ok", "TCP", "in", "app", &peer.to_string(), &address.to_string()]
        );
        assert_eq!((&line["requestBytes"], &line["responseBytes"]), (&5.into(), &3.into()));
        assert_eq!(proxy.metric("spanmesh_proxy_tcp_connections_total", &["flag=\"ok\"", "listener=\"in\""]), 1.0);
        assert_eq!(proxy.metric("spanmesh_proxy_tcp_bytes_total", &["direction=\"up\""]), 5.0);
        assert_eq!(proxy.metric("spanmesh_proxy_tcp_bytes_total", &["direction=\"down\""]), 3.0);
        assert_eq!(proxy.metric("spanmesh_proxy_requests_total", &[]), 0.0);
        eventually("the connection is counted as closed", || {
            proxy.metric("spanmesh_proxy_connections_active", &[]) == 0.0
        })
        .await;
    });
}

#[test]
fn a_connection_on_which_nothing_moves_is_closed() {
    run(async {
        let (listener, address) = Wire::listen().await;
        let proxy = Proxy::start(&format!(
            "listeners:\n- {{name: in, mode: inbound, address: '127.0.0.1:0', protocol: opaque, upstream: app}}\n\
             upstreams:\n- {{name: app, addresses: ['{address}']}}\nlimits: {{idleTimeout: 1s}}\n"
        ));
        let mut client = Wire::connect(proxy.address("in")).await;
        let mut origin = Wire::accept(&listener).await;
        // What moves keeps it open, in whichever direction.
        for _ in 0..4 {
            tokio::time::sleep(Duration::from_millis(400)).await;
            origin.write("x").await;
            client.exactly(1).await;
        }
        assert_eq!(client.rest().await, b"");
        origin.rest().await;
        assert_eq!(proxy.logged(1).await[0]["flag"], "idle_timeout");
        assert_eq!(proxy.metric("spanmesh_proxy_tcp_connections_total", &["flag=\"idle_timeout\""]), 1.0);
    });
}

#[test]
fn a_reset_of_one_side_reaches_the_other_as_a_reset() {
    run(async {
        let (listener, address) = Wire::listen().await;
        let proxy = proxy(address, OPAQUE);
        for (number, client_resets) in [(1, true), (2, false)] {
            let client = Wire::connect(proxy.address("in")).await;
            let mut origin = Wire::accept(&listener).await;
            let mut client = client;
            client.write("x").await;
            origin.exactly(1).await;
            let (resets, mut sees) = if client_resets { (client, origin) } else { (origin, client) };
            socket2::SockRef::from(&resets.stream).set_linger(Some(Duration::ZERO)).expect("linger");
            drop(resets);
            let error = sees.stream.read(&mut [0; 8]).await.expect_err("a reset");
            assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
            let line = proxy.logged(number).await.pop().expect("a line");
            assert_eq!(line["flag"], if client_resets { "client_reset" } else { "upstream_reset" });
        }
    });
}

#[test]
fn an_origin_that_is_not_there_ends_the_connection_and_is_named() {
    run(async {
        let address = format!("127.0.0.1:{}", free_port()).parse().expect("address");
        let proxy = proxy(address, OPAQUE);
        let mut client = Wire::connect(proxy.address("in")).await;
        assert_eq!(client.rest().await, b"");
        let line = proxy.logged(1).await.remove(0);
        assert_eq!((&line["flag"], &line["endpoint"]), (&"connect_failed".into(), &address.to_string().into()));
        assert!(line["detail"].as_str().is_some_and(|text| text.contains("refused")), "{line}");
    });
}
