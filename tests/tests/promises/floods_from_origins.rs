//! HTTP/2 floods from an origin: its connection ends, counted; other upstreams are served meanwhile, and nothing of the
//! requests that it had is left.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::time::{Duration, Instant};

use spanmesh_tests::client::whole;
use spanmesh_tests::frames::*;
use spanmesh_tests::origin::empty;
use spanmesh_tests::{Client, Dir, Origin, Process, Protocol, Scripted, eventually, run};

const PROGRAM: &str = env!("CARGO_BIN_EXE_spanmesh-proxy-under-test");
const GROWTH: usize = 48 * 1024 * 1024;
const LATENCY: Duration = Duration::from_secs(2);

/// An origin that takes what comes, and on each connection sends `bytes` of each round for as long as it lasts.
fn flooding(bytes: impl Fn(u32) -> Vec<u8> + Send + Copy + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
    let address = listener.local_addr().expect("address");
    std::thread::spawn(move || {
        while let Ok((mut stream, _)) = listener.accept() {
            std::thread::spawn(move || {
                let mut taken = stream.try_clone().expect("clone");
                std::thread::spawn(move || while taken.read(&mut [0; 65536]).is_ok_and(|count| count > 0) {});
                let _ = stream.write_all(&frame(SETTINGS, 0, 0, b""));
                // The request is there by then.
                std::thread::sleep(Duration::from_millis(300));
                for round in 0.. {
                    let times = if round == 0 { 1 } else { 100 };
                    if stream.write_all(&bytes(round).repeat(times)).is_err() {
                        return;
                    }
                }
            });
        }
    });
    address
}

async fn two(hostile: SocketAddr, good: SocketAddr, dir: &Dir) -> Process {
    let yaml = format!(
        "listeners:\n- name: in\n  mode: gateway\n  address: '127.0.0.1:0'\n  routes:\n  \
         - {{name: bad, match: {{pathPrefix: /bad}}, upstream: bad}}\n  - {{name: good, upstream: good}}\n\
         upstreams:\n- {{name: bad, addresses: ['{hostile}'], protocol: http2}}\n\
         - {{name: good, addresses: ['{good}'], protocol: http2}}\n"
    );
    Process::start(PROGRAM, dir.as_ref(), &yaml).await
}

fn a_flood_ends(bytes: impl Fn(u32) -> Vec<u8> + Send + Copy + 'static) {
    run(async move {
        let good = Origin::hello(Protocol::Http2).await;
        let dir = Dir::new();
        let proxy = two(flooding(bytes), good.address, &dir).await;
        let mut client = Client::connect(Protocol::Http1, proxy.address("in")).await;
        assert_eq!(client.get("/").await.body, "hello");
        let before = proxy.resident();
        let mut asking = Client::connect(Protocol::Http1, proxy.address("in")).await;
        let failed = tokio::task::spawn_local(async move {
            let request = asking.request("GET", "/bad").body(empty()).expect("request");
            // Its head may have come before its end.
            let Ok(answer) = asking.send(request).await else { return true };
            whole(answer).await.map_or(true, |answer| answer.status == 502)
        });
        let mut worst = Duration::ZERO;
        while !failed.is_finished() {
            let since = Instant::now();
            assert_eq!(client.get("/").await.body, "hello");
            worst = worst.max(since.elapsed());
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert!(failed.await.expect("join"));
        assert!(worst < LATENCY, "{worst:?} for a neighbour");
        assert!(proxy.resident().saturating_sub(before) < GROWTH);
        let limits = ["limit=\"http2_frames\"", "limit=\"http2_engine\""];
        let counted = || -> f64 {
            limits.iter().map(|limit| proxy.metric("spanmesh_proxy_limits_reached_total", &[limit])).sum()
        };
        eventually("it is counted", || counted() >= 1.0).await;
        assert_eq!(proxy.metric("spanmesh_proxy_upstream_requests_in_flight", &[]), 0.0);
        assert_eq!(client.get("/").await.body, "hello");
    });
}

#[test]
fn pings() {
    a_flood_ends(|_| frame(PING, 0, 0, &[1; 8]));
}

#[test]
fn settings() {
    a_flood_ends(|round| frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 255, (round % 256) as u8]));
}

#[test]
fn window_updates() {
    a_flood_ends(|_| frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1]));
}

#[test]
fn empty_pieces_of_an_answer() {
    a_flood_ends(|round| match round {
        // 200
        0 => frame(HEADERS, END_HEADERS, 1, &[0x88]),
        _ => frame(DATA, 0, 1, b""),
    });
}

/// Every request is reset as soon as it comes, thousands of times.
#[test]
fn resets_of_every_stream_leave_nothing_behind() {
    for reason in [h2::Reason::REFUSED_STREAM, h2::Reason::INTERNAL_ERROR, h2::Reason::CANCEL] {
        run(async move {
            let good = Origin::hello(Protocol::Http2).await;
            let hostile = Scripted::start(Protocol::Http2, move |asked| asked.reset(reason)).await;
            let dir = Dir::new();
            let proxy = two(hostile.address, good.address, &dir).await;
            let mut client = Client::connect(Protocol::Http2, proxy.address("in")).await;
            let mut storm = tokio::task::JoinSet::new();
            let mut before = 0;
            for round in 0..20 {
                for _ in 0..100 {
                    let Client::Http2(send, address) = &client else { unreachable!() };
                    let mut one = Client::Http2(send.clone(), *address);
                    let request = one.request("GET", "/bad").body(empty()).expect("request");
                    storm.spawn_local(async move { one.send(request).await.is_ok() });
                }
                while storm.join_next().await.is_some() {}
                assert_eq!(client.get("/").await.body, "hello");
                if round == 9 {
                    before = proxy.resident();
                }
            }
            eventually("nothing in flight", || {
                ["requests_in_flight", "upstream_requests_in_flight"]
                    .iter()
                    .all(|name| proxy.metric(&format!("spanmesh_proxy_{name}"), &[]) == 0.0)
            })
            .await;
            let growth = proxy.resident().saturating_sub(before);
            assert!(growth < 8 * 1024 * 1024, "{growth} bytes more after a thousand resets");
        });
    }
}
