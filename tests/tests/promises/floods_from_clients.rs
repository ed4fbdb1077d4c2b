//! HTTP/2 floods from a client: its connection ends, by name and counted; memory stays bounded and the others are served
//! meanwhile.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use spanmesh_tests::frames::*;
use spanmesh_tests::{Client, Dir, Origin, Process, Protocol, eventually, process, run};

const PROGRAM: &str = env!("CARGO_BIN_EXE_spanmesh-proxy-under-test");
/// What a flood may cost at most, a debug build's allocator and the test's own traffic included.
const GROWTH: usize = 48 * 1024 * 1024;
/// No flood may hold up a neighbour for longer, on a busy machine.
const LATENCY: Duration = Duration::from_secs(2);
/// More than any limit lets pass.
const FLOOD: usize = 24 * 1024 * 1024;

/// Sends `bytes` of each round, from 0, until the connection ends or the flood is over, and takes all answers. Returns
/// whether the proxy ended it.
fn flood(address: SocketAddr, mut bytes: impl FnMut(u32) -> Vec<u8>) -> bool {
    let mut stream = TcpStream::connect(address).expect("connect");
    stream.set_write_timeout(Some(Duration::from_secs(10))).expect("timeout");
    let mut answers = stream.try_clone().expect("clone");
    let reader = std::thread::spawn(move || while answers.read(&mut [0; 65536]).is_ok_and(|count| count > 0) {});
    let (mut sent, mut round) = (0, 0);
    let mut ended = stream.write_all(&hello()).is_err();
    while !ended && sent < FLOOD {
        let mut piece = Vec::new();
        while piece.len() < 32 * 1024 {
            piece.extend(bytes(round));
            round += 1;
        }
        ended = stream.write_all(&piece).is_err() || reader.is_finished();
        sent += piece.len();
    }
    let _ = stream.shutdown(std::net::Shutdown::Both);
    reader.join().expect("join");
    ended
}

/// Two floods at once beside a good client of each protocol.
fn beside_good_clients(limits: &[&str], upstream: Protocol, bytes: impl Fn(u32) -> Vec<u8> + Send + Copy + 'static) {
    let names: Vec<_> = limits.iter().map(|name| format!("limit=\"{name}\"")).collect();
    run(async move {
        let origin = Origin::hello(upstream).await;
        let dir = Dir::new();
        let yaml = format!(
            "listeners:\n- {{name: in, mode: inbound, address: '127.0.0.1:0', protocol: http, upstream: app}}\n\
             upstreams:\n- {{name: app, addresses: ['{}'], protocol: {}}}\n",
            origin.address,
            upstream.word()
        );
        let proxy = Process::start(PROGRAM, dir.as_ref(), &yaml).await;
        let address = proxy.address("in");
        let mut good = Vec::new();
        for protocol in [Protocol::Http1, Protocol::Http2] {
            let mut client = Client::connect(protocol, address).await;
            assert_eq!(client.get("/").await.body, "hello");
            good.push(client);
        }
        let before = proxy.resident();
        let floods: Vec<_> = (0..2).map(|_| std::thread::spawn(move || flood(address, bytes))).collect();
        let (mut worst, mut most) = (Duration::ZERO, 0);
        while !floods.iter().all(|flood| flood.is_finished()) {
            for client in &mut good {
                let since = Instant::now();
                assert_eq!(client.get("/").await.body, "hello");
                worst = worst.max(since.elapsed());
            }
            most = most.max(proxy.resident());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let ended = floods.into_iter().all(|flood| flood.join().expect("join"));
        let growth = most.saturating_sub(before);
        eprintln!("{names:?}: worst {worst:?}, {} KiB more", growth / 1024);
        assert!(ended, "the flood was let through");
        assert!(worst < LATENCY, "{worst:?} for a neighbour");
        assert!(growth < GROWTH, "{growth} bytes more");
        let counted =
            || -> f64 { names.iter().map(|name| proxy.metric("spanmesh_proxy_limits_reached_total", &[name])).sum() };
        eventually("both are counted", || counted() >= 2.0).await;
        eventually("both are logged", || {
            process::log(dir.as_ref()).iter().filter(|line| line["flag"] == "rate_limited").count() >= 2
        })
        .await;
        // What the flood began is over, and the good clients are still connected.
        eventually("nothing in flight", || proxy.metric("spanmesh_proxy_requests_in_flight", &[]) == 0.0).await;
        assert_eq!(proxy.metric("spanmesh_proxy_connections_active", &[]), 2.0);
        for client in &mut good {
            assert_eq!(client.get("/").await.body, "hello");
        }
    });
}

#[test]
fn pings() {
    beside_good_clients(&["http2_frames"], Protocol::Http1, |_| frame(PING, 0, 0, &[1; 8]));
}

#[test]
fn settings() {
    // Each changes the window of every stream.
    beside_good_clients(&["http2_frames"], Protocol::Http1, |round| {
        frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 255, (round % 256) as u8])
    });
}

#[test]
fn priorities() {
    beside_good_clients(&["http2_frames"], Protocol::Http1, |round| {
        frame(PRIORITY, 0, 2 * (round % 100_000) + 1, &[0, 0, 0, 0, 7])
    });
}

#[test]
fn window_updates() {
    beside_good_clients(&["http2_frames"], Protocol::Http1, |_| frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1]));
}

#[test]
fn frames_of_no_known_kind() {
    beside_good_clients(&["http2_frames"], Protocol::Http1, |_| frame(0xfa, 0, 0, b""));
}

#[test]
fn resets_of_a_stream_that_is_over() {
    beside_good_clients(&["http2_frames"], Protocol::Http1, |round| match round {
        0 => ask(1, true),
        _ => reset(1, h2::Reason::CANCEL),
    });
}

#[test]
fn empty_pieces_of_a_body() {
    beside_good_clients(&["http2_frames", "http2_engine"], Protocol::Http1, |round| match round {
        0 => ask(1, false),
        _ => frame(DATA, 0, 1, b""),
    });
}

#[test]
fn tiny_pieces_of_a_body_that_nobody_reads() {
    // The engine's window ends it, which is a fault of the flow and not a flood by its own name.
    run(async {
        let origin = Origin::start(Protocol::Http1, |_| std::future::pending()).await;
        let dir = Dir::new();
        let yaml = format!(
            "listeners:\n- {{name: in, mode: inbound, address: '127.0.0.1:0', protocol: http, upstream: app}}\n\
             upstreams:\n- {{name: app, addresses: ['{}']}}\n",
            origin.address
        );
        let proxy = Process::start(PROGRAM, dir.as_ref(), &yaml).await;
        let (address, before) = (proxy.address("in"), proxy.resident());
        let flood = std::thread::spawn(move || {
            flood(address, |round| match round {
                0 => ask(1, false),
                _ => frame(DATA, 0, 1, b"x"),
            })
        });
        eventually("it is over", || flood.is_finished()).await;
        assert!(proxy.resident().saturating_sub(before) < GROWTH);
    });
}

#[test]
fn a_head_in_empty_pieces() {
    beside_good_clients(&["http2_frames", "http2_engine"], Protocol::Http1, |round| match round {
        0 => frame(HEADERS, 0, 1, GET),
        _ => frame(CONTINUATION, 0, 1, b""),
    });
}

#[test]
fn a_head_without_an_end() {
    beside_good_clients(&["http2_frames", "http2_engine"], Protocol::Http1, |round| match round {
        0 => frame(HEADERS, 0, 1, GET),
        _ => frame(CONTINUATION, 0, 1, &field("x-more", &"x".repeat(8000))),
    });
}

#[test]
fn empty_heads() {
    beside_good_clients(&["http2_frames", "http2_engine"], Protocol::Http1, |round| {
        frame(HEADERS, END_HEADERS | END_STREAM, 2 * round + 1, b"")
    });
}

#[test]
fn requests_that_are_given_up_at_once() {
    for upstream in [Protocol::Http1, Protocol::Http2] {
        beside_good_clients(&["http2_resets", "http2_engine", "http2_frames"], upstream, |round| {
            [ask(2 * round + 1, true), reset(2 * round + 1, h2::Reason::CANCEL)].concat()
        });
    }
}

/// One field of 4,000 bytes is remembered, and then named by one byte for each of 4,000 times.
#[test]
fn heads_that_unfold() {
    beside_good_clients(&["http2_engine"], Protocol::Http1, |round| {
        let mut block = GET.to_vec();
        if round == 0 {
            block.extend([0x40, 1, b'x']);
            length(&mut block, 4000);
            block.extend(vec![b'y'; 4000]);
        }
        block.extend(vec![0xbe; 4000]);
        frame(HEADERS, END_HEADERS | END_STREAM, 2 * round + 1, &block)
    });
}

#[test]
fn requests_beyond_the_streams_that_it_may_have() {
    beside_good_clients(&["http2_frames", "http2_engine"], Protocol::Http1, |round| ask(2 * round + 1, false));
}
