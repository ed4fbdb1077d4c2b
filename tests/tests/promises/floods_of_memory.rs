//! Clients that ask for much and read nothing hold no more than their windows, and clients that send slowly no more than
//! their connections: resident memory is bounded by how many there are, and the others are served.

use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Response;
use http_body::Frame;
use spanmesh_tests::frames::{GET, HEADERS, SETTINGS, WINDOW_UPDATE, frame};
use spanmesh_tests::origin::{channel, full};
use spanmesh_tests::{Client, Dir, Origin, Process, Protocol, Wire, eventually, run};

const PROGRAM: &str = env!("CARGO_BIN_EXE_spanmesh-proxy-under-test");
/// A stream's window from the upstream, the answer's send buffer, and a connection of each side with its buffers.
const EACH: usize = 512 * 1024;

async fn fountain(protocol: Protocol) -> Origin {
    Origin::start(protocol, |request| async move {
        if request.uri().path() == "/" {
            return Response::new(full("hello"));
        }
        let (feed, body) = channel();
        tokio::task::spawn_local(async move {
            let piece = Bytes::from(vec![b'y'; 64 * 1024]);
            while feed.send(Frame::data(piece.clone())).await.is_ok() {}
        });
        Response::new(body)
    })
    .await
}

#[test]
fn slow_readers_hold_no_more_than_their_windows() {
    for (client, upstream) in Protocol::PAIRS {
        run(async move {
            let origin = fountain(upstream).await;
            let dir = Dir::new();
            let yaml = format!(
                "listeners:\n- {{name: in, mode: inbound, address: '127.0.0.1:0', protocol: http, upstream: app}}\n\
                 upstreams:\n- {{name: app, addresses: ['{}'], protocol: {}}}\n",
                origin.address,
                upstream.word()
            );
            let proxy = Process::start(PROGRAM, dir.as_ref(), &yaml).await;
            let mut good = Client::connect(client, proxy.address("in")).await;
            assert_eq!(good.get("/").await.body, "hello");
            let before = proxy.resident();
            // Over one HTTP/2 connection to the upstream, fewer than take up its window.
            let count = if upstream == Protocol::Http2 { 40 } else { 100 };
            let mut readers = Vec::new();
            for _ in 0..count {
                let mut wire = Wire::connect(proxy.address("in")).await;
                match client {
                    Protocol::Http1 => wire.write("GET /endless HTTP/1.1\r\nhost: a\r\n\r\n").await,
                    Protocol::Http2 => {
                        // The widest windows that there are, so that no window of the client is the bound.
                        let path = [&GET[..2], &[4, 8], b"/endless", &GET[3..]].concat();
                        wire.write(
                            [
                                spanmesh_tests::frames::PREFACE,
                                &frame(SETTINGS, 0, 0, &[0, 4, 0x7f, 0xff, 0xff, 0xff]),
                                &frame(WINDOW_UPDATE, 0, 0, &[0x7f, 0xff, 0, 0]),
                                &frame(HEADERS, 5, 1, &path),
                            ]
                            .concat(),
                        )
                        .await;
                    }
                }
                readers.push(wire);
            }
            eventually("all are served", || proxy.metric("spanmesh_proxy_requests_in_flight", &[]) == f64::from(count))
                .await;
            let (mut still, mut last) = (0, 0);
            let begun = Instant::now();
            while still < 5 && begun.elapsed() < Duration::from_secs(30) {
                let since = Instant::now();
                assert_eq!(good.get("/").await.body, "hello");
                assert!(since.elapsed() < Duration::from_secs(10), "{:?} for a neighbour", since.elapsed());
                tokio::time::sleep(Duration::from_millis(100)).await;
                let carried = proxy.metric("spanmesh_proxy_response_bytes_total", &[]) as usize + proxy.resident();
                still = if carried.abs_diff(last) < 1 << 20 { still + 1 } else { 0 };
                last = carried;
            }
            let each = proxy.resident().saturating_sub(before) / readers.len();
            eprintln!("{client:?} to {upstream:?}: {} KiB for each reader", each / 1024);
            assert!(each < EACH, "{each} bytes for each reader");
            drop(readers);
            eventually("all are gone", || proxy.metric("spanmesh_proxy_requests_in_flight", &[]) == 0.0).await;
        });
    }
}

/// A thousand clients that send one byte now and then: each costs its connection and a small buffer.
#[test]
fn slow_senders_hold_little() {
    run(async {
        let origin = fountain(Protocol::Http1).await;
        let dir = Dir::new();
        let yaml = format!(
            "listeners:\n- {{name: in, mode: inbound, address: '127.0.0.1:0', protocol: http, upstream: app}}\n\
             upstreams:\n- {{name: app, addresses: ['{}'], protocol: http1}}\n",
            origin.address
        );
        let proxy = Process::start(PROGRAM, dir.as_ref(), &yaml).await;
        let mut good = Client::connect(Protocol::Http1, proxy.address("in")).await;
        assert_eq!(good.get("/").await.body, "hello");
        let before = proxy.resident();
        let mut senders = Vec::new();
        for _ in 0..300 {
            let mut wire = Wire::connect(proxy.address("in")).await;
            wire.write("GET / HTTP/1.1\r\nhost: a\r\nx-slow: ").await;
            senders.push(wire);
        }
        for _ in 0..5 {
            for sender in &mut senders {
                sender.write("y").await;
            }
            assert_eq!(good.get("/").await.body, "hello");
        }
        let each = proxy.resident().saturating_sub(before) / senders.len();
        assert!(each < 64 * 1024, "{each} bytes for each sender");
    });
}
