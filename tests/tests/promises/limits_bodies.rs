//! The limits of a body: how slowly it may come, its chunk extensions and trailers, and what is kept of it for another
//! try. Streams, which are silent for as long as they like, are not hurt.

use std::time::{Duration, Instant};

use bytes::Bytes;
use http::StatusCode;
use hyper::body::Frame;
use spanmesh_tests::frames::{self, DATA, END_HEADERS, END_STREAM, HEADERS, frame, hello};
use spanmesh_tests::origin::channel;
use spanmesh_tests::{Client, Origin, Protocol, Proxy, Scripted, Wire, eventually, run};

const FAST: &str = "bodyRate: 100, bodyTimeout: 1s";

/// Sends `first` and then `slowly`, again and again, ten times a second. Whether the proxy ended it by itself.
async fn is_ended(proxy: &Proxy, first: &[u8], slowly: &[u8]) -> bool {
    let mut wire = Wire::connect(proxy.address("in")).await;
    wire.write(first).await;
    let since = Instant::now();
    for byte in slowly.iter().cycle() {
        if since.elapsed() > Duration::from_secs(6) {
            return false;
        }
        let wait = Duration::from_millis(100);
        if tokio::time::timeout(wait, wire.try_exactly(1 << 20)).await.is_ok() || wire.send(&[*byte]).await.is_err() {
            return true;
        }
    }
    unreachable!()
}

async fn slow(mode: &str, first: &[u8], slowly: &[u8]) {
    let origin = Origin::echo(Protocol::Http1).await;
    // What the proxy breaks off, the origin sees broken off; its own handler is not asked for more.
    let origin = Origin::start(Protocol::Http1, move |_| {
        let _keep = &origin;
        std::future::pending()
    })
    .await;
    let proxy = Proxy::limited(mode, &origin, FAST);
    assert!(is_ended(&proxy, first, slowly).await, "{mode}: {}", String::from_utf8_lossy(first));
    assert_eq!(proxy.reached("body_rate"), 1.0);
    assert_eq!(proxy.logged(1).await[0]["flag"], "idle_timeout");
    proxy.at_rest().await;
}

const CHUNKED: &str = "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n";

#[test]
fn a_body_of_known_length_that_trickles_is_closed() {
    run(async {
        for mode in ["inbound", "gateway"] {
            slow(mode, b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1000\r\n\r\n", b"x").await;
        }
    });
}

#[test]
fn a_chunk_that_trickles_is_closed() {
    run(async {
        for mode in ["inbound", "gateway"] {
            slow(mode, format!("{CHUNKED}ff\r\nx").as_bytes(), b"x").await;
        }
    });
}

#[test]
fn a_chunks_line_that_trickles_is_closed() {
    run(async {
        slow("inbound", format!("{CHUNKED}5;").as_bytes(), b"x").await;
        slow("gateway", format!("{CHUNKED}0").as_bytes(), b"0").await;
    });
}

#[test]
fn small_chunks_of_a_stranger_are_closed_and_those_of_a_neighbour_may_be_a_stream() {
    run(async {
        slow("gateway", CHUNKED.as_bytes(), b"1\r\nx\r\n").await;
        let origin = Origin::echo(Protocol::Http1).await;
        let proxy = Proxy::limited("inbound", &origin, FAST);
        assert!(!is_ended(&proxy, CHUNKED.as_bytes(), b"1\r\nx\r\n").await);
        assert_eq!(proxy.reached("body_rate"), 0.0);
    });
}

#[test]
fn a_frame_that_trickles_is_closed() {
    run(async {
        for mode in ["inbound", "gateway"] {
            let first = [hello(), frames::ask(1, false), vec![0, 4, 0, DATA, 0, 0, 0, 0, 1]].concat();
            let origin = Origin::start(Protocol::Http1, |_| std::future::pending()).await;
            let proxy = Proxy::limited(mode, &origin, FAST);
            let mut neighbour = Client::connect(Protocol::Http2, proxy.address("in")).await;
            let mut wire = Wire::connect(proxy.address("in")).await;
            wire.write(&first).await;
            let since = Instant::now();
            while proxy.reached("body_rate") == 0.0 {
                assert!(since.elapsed() < Duration::from_secs(20), "{mode}: never ended");
                wire.write(b"x").await;
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            assert_eq!(proxy.logged(1).await[0]["flag"], "idle_timeout");
            assert!(!neighbour.is_closed());
            let _ = &mut neighbour;
        }
    });
}

#[test]
fn a_stream_of_grpc_or_one_that_is_answered_may_be_silent() {
    for grpc in [true, false] {
        run(async move {
            let origin = Origin::echo(Protocol::Http2).await;
            let proxy = Proxy::start(&format!(
                "listeners:\n- {{name: in, mode: gateway, address: '127.0.0.1:0', protocol: http, upstream: app}}\n\
                 upstreams:\n- {{name: app, addresses: ['{}'], protocol: http2}}\nlimits: {{{FAST}}}\n",
                origin.address
            ));
            let mut client = Client::connect(Protocol::Http2, proxy.address("in")).await;
            let (feed, body) = channel();
            let mut request = client.request("POST", "/");
            if grpc {
                request = request.header("content-type", "application/grpc").header("te", "trailers");
            }
            let answer = client.send(request.body(body).expect("request")).await.expect("an early answer");
            for _ in 0..4 {
                feed.send(Frame::data(Bytes::from_static(b"x"))).await.expect("taken");
                tokio::time::sleep(Duration::from_millis(900)).await;
            }
            drop(feed);
            let whole = spanmesh_tests::client::whole(answer).await.expect("whole");
            assert_eq!(whole.body, "xxxx");
            assert_eq!(proxy.reached("body_rate"), 0.0);
        });
    }
}

/// An origin that takes nothing is not the client's doing.
#[test]
fn a_body_that_waits_for_its_upstream_may_take_its_time() {
    for protocol in [Protocol::Http1, Protocol::Http2] {
        run(async move {
            let (listener, address) = Wire::listen().await;
            let proxy = Proxy::start(&format!(
                "listeners:\n- {{name: in, mode: gateway, address: '127.0.0.1:0', protocol: http, upstream: app}}\n\
                 upstreams:\n- {{name: app, addresses: ['{address}'], protocol: http1}}\nlimits: {{{FAST}}}\n"
            ));
            let mut client = Client::connect(protocol, proxy.address("in")).await;
            let size = 24 * 1024 * 1024;
            let body = spanmesh_tests::origin::full(vec![b'x'; size]);
            let request = client.request("POST", "/").header("content-length", size).body(body).expect("request");
            let asking = tokio::task::spawn_local(async move { client.whole(request).await.status });
            let mut origin = Wire::accept(&listener).await;
            origin.head().await;
            tokio::time::sleep(Duration::from_secs(4)).await;
            assert_eq!(proxy.reached("body_rate"), 0.0);
            origin.exactly(size).await;
            origin.write("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
            assert_eq!(asking.await.expect("join"), StatusCode::OK);
        });
    }
}

#[test]
fn chunk_extensions_have_a_limit() {
    run(async {
        let origin = Origin::start(Protocol::Http1, |_| std::future::pending()).await;
        let proxy = Proxy::limited("inbound", &origin, "");
        let mut wire = Wire::connect(proxy.address("in")).await;
        wire.write(format!("{CHUNKED}1;{}\r\nx\r\n0\r\n\r\n", "e".repeat(20_000))).await;
        let answer = String::from_utf8_lossy(&wire.rest().await).into_owned();
        assert!(answer.starts_with("HTTP/1.1 431") || answer.is_empty(), "{answer}");
        assert_eq!(proxy.logged(1).await[0]["flag"], "too_large");
        eventually("counted", || proxy.reached("chunk_extensions") == 1.0).await;
        proxy.at_rest().await;
    });
}

#[test]
fn trailers_have_the_limits_of_a_head() {
    let many = (0..120).map(|number| format!("x-{number}: y\r\n")).collect::<String>();
    for trailers in [many, format!("x-large: {}\r\n", "y".repeat(70_000))] {
        run(async move {
            let origin = Origin::start(Protocol::Http1, |_| std::future::pending()).await;
            let proxy = Proxy::limited("inbound", &origin, "");
            let mut wire = Wire::connect(proxy.address("in")).await;
            wire.write(format!("{CHUNKED}1\r\nx\r\n0\r\n{trailers}\r\n")).await;
            wire.rest().await;
            assert_eq!(proxy.logged(1).await[0]["flag"], "too_large");
            eventually("counted", || proxy.reached("trailers") == 1.0).await;
            proxy.at_rest().await;
        });
    }
}

#[test]
fn trailers_of_http2_have_the_limits_of_a_head() {
    run(async {
        let origin = Origin::start(Protocol::Http1, |_| std::future::pending()).await;
        let proxy = Proxy::limited("inbound", &origin, "");
        let mut neighbour = Client::connect(Protocol::Http2, proxy.address("in")).await;
        let block: Vec<u8> = (0..120).flat_map(|number| frames::field(&format!("x-{number}"), "y")).collect();
        let trailers = frame(HEADERS, END_HEADERS | END_STREAM, 1, &block);
        let mut wire = Wire::connect(proxy.address("in")).await;
        wire.write([hello(), frames::ask(1, false), frame(DATA, 0, 1, b"x"), trailers].concat()).await;
        assert_eq!(proxy.logged(1).await[0]["flag"], "too_large");
        assert_eq!(proxy.reached("trailers"), 1.0);
        assert!(!neighbour.is_closed());
        let _ = &mut neighbour;
        drop((wire, neighbour));
        proxy.at_rest().await;
    });
}

/// What is kept for another try is limited in all, not only for each; beyond, a request is tried once and goes through.
#[test]
fn bodies_kept_for_another_try_have_a_limit_together() {
    for (client, upstream) in Protocol::PAIRS {
        run(async move {
            let refusing = Scripted::start(upstream, |asked| asked.answer(503, "")).await;
            let proxy = Proxy::routed(
                &[refusing.address],
                upstream,
                "",
                "retry: {attempts: 1, on: [503], bodyLimit: 64Ki}",
                "limits: {bufferedBytes: 16Ki}",
            );
            for (size, requests, limited) in [(10 * 1024, 2, 0.0), (20 * 1024, 1, 1.0), (10 * 1024, 2, 1.0)] {
                let mut client = Client::connect(client, proxy.address("in")).await;
                let body = spanmesh_tests::origin::full(vec![b'x'; size]);
                let request = client.request("PUT", "/").header("content-length", size).body(body).expect("request");
                let before = proxy.metric("spanmesh_proxy_retries_total", &[]);
                assert_eq!(client.whole(request).await.status, StatusCode::SERVICE_UNAVAILABLE);
                let tries = 1.0 + proxy.metric("spanmesh_proxy_retries_total", &[]) - before;
                assert_eq!((tries, proxy.reached("buffered_bytes")), (f64::from(requests), limited), "{size}");
            }
            proxy.at_rest().await;
        });
    }
}
