//! The limits of a head: its bytes, its fields, its time; and of the silence between two. Each is answered or closed with
//! its flag, counted under its name, and felt by nobody else.

use std::time::Duration;

use http::StatusCode;
use spanmesh_tests::frames::{self, hello};
use spanmesh_tests::origin::empty;
use spanmesh_tests::{Client, Origin, Protocol, Proxy, Wire, eventually, run};

/// A request with these fields is refused as too large by this limit, beside a client that is served.
fn too_large(limits: &'static str, limit: &'static str, fields: fn() -> Vec<(String, String)>) {
    for protocol in [Protocol::Http1, Protocol::Http2] {
        run(async move {
            let origin = Origin::hello(Protocol::Http1).await;
            let proxy = Proxy::limited("inbound", &origin, limits);
            let mut neighbour = Client::connect(protocol, proxy.address("in")).await;
            assert_eq!(neighbour.get("/").await.status, StatusCode::OK);
            let mut client = Client::connect(protocol, proxy.address("in")).await;
            let mut request = client.request("GET", "/");
            for (name, value) in fields() {
                request = request.header(name, value);
            }
            let answer = client.whole(request.body(empty()).expect("request")).await;
            assert_eq!(answer.status, StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "{protocol:?}");
            assert_eq!(proxy.logged(2).await[1]["flag"], "too_large");
            eventually("it is counted", || proxy.reached(limit) == 1.0).await;
            assert_eq!(neighbour.get("/").await.status, StatusCode::OK);
            assert_eq!(origin.requests.get(), 2);
        });
    }
}

#[test]
fn a_head_of_too_many_bytes_is_refused() {
    too_large("headerBytes: 16Ki", "header_bytes", || vec![("x-large".into(), "y".repeat(20_000))]);
}

#[test]
fn a_head_below_the_engines_smallest_buffer_is_refused_too() {
    too_large("headerBytes: 1Ki", "header_bytes", || vec![("x-large".into(), "y".repeat(1500))]);
}

/// The engine's own limit, in reach where heads may be large.
#[test]
fn a_target_of_too_many_bytes_is_logged_with_the_status_that_it_got() {
    run(async {
        let origin = Origin::hello(Protocol::Http1).await;
        let proxy = Proxy::limited("inbound", &origin, "headerBytes: 200Ki");
        let mut wire = Wire::connect(proxy.address("in")).await;
        wire.write(format!("GET /{} HTTP/1.1\r\nhost: a\r\n\r\n", "y".repeat(65_000))).await;
        assert!(wire.head().await.starts_with("HTTP/1.1 200 "));
        wire.until("hello").await;
        wire.write(format!("GET /{} HTTP/1.1\r\nhost: a\r\n\r\n", "y".repeat(66_000))).await;
        assert!(wire.head().await.starts_with("HTTP/1.1 414 "));
        let line = proxy.logged(2).await.remove(1);
        assert_eq!((&line["flag"], &line["status"]), (&"too_large".into(), &414.into()));
        assert_eq!((proxy.reached("target_bytes"), proxy.reached("header_count")), (1.0, 0.0));
    });
}

#[test]
fn a_head_of_too_many_fields_is_refused() {
    too_large("", "header_count", || (0..120).map(|number| (format!("x-{number}"), "y".into())).collect());
    too_large("headerCount: 20", "header_count", || {
        (0..30).map(|number| (format!("x-{number}"), "y".into())).collect()
    });
}

/// RFC 9113 §8.2.3: HTTP/2 splits cookies into fields of their own.
#[test]
fn many_cookies_of_http2_are_one_field() {
    run(async {
        let origin = Origin::hello(Protocol::Http1).await;
        let proxy = Proxy::limited("inbound", &origin, "");
        let mut client = Client::connect(Protocol::Http2, proxy.address("in")).await;
        let mut request = client.request("GET", "/");
        for number in 0..150 {
            request = request.header("cookie", format!("c{number}=v"));
        }
        assert_eq!(client.whole(request.body(empty()).expect("request")).await.status, StatusCode::OK);
    });
}

/// One byte at a time: in the head of HTTP/1.1, in the preface, in the first bytes of a frame and in a head of HTTP/2.
#[test]
fn a_head_that_trickles_is_closed() {
    let http2 = |more: &[u8]| [hello(), more.to_vec()].concat();
    let heads: [(Vec<u8>, Vec<u8>); 4] = [
        (b"GET / HTTP/1.1\r\nhost: a\r\nx-slow: ".to_vec(), b"yyyyyyyy".repeat(100)),
        (frames::PREFACE[..10].to_vec(), frames::PREFACE[10..].to_vec()),
        (http2(&[0, 0]), Vec::new()),
        (http2(&[0, 4, 0, 1, 5, 0, 0, 0, 1]), vec![0x82; 1024]),
    ];
    for (first, slowly) in heads {
        run(async move {
            let origin = Origin::hello(Protocol::Http1).await;
            let proxy = Proxy::limited("inbound", &origin, "headerTimeout: 500ms");
            let mut neighbour = Client::connect(Protocol::Http2, proxy.address("in")).await;
            let mut wire = Wire::connect(proxy.address("in")).await;
            wire.write(&first).await;
            let mut closed = false;
            let mut slowly = slowly.iter();
            for _ in 0..100 {
                assert_eq!(neighbour.get("/").await.status, StatusCode::OK);
                let wait = Duration::from_millis(100);
                closed = tokio::time::timeout(wait, wire.try_exactly(1 << 20)).await.is_ok();
                if let (false, Some(byte)) = (closed, slowly.next()) {
                    closed = wire.send(&[*byte]).await.is_err();
                }
                if closed {
                    break;
                }
            }
            assert!(closed, "never closed: {first:?}");
            // A preface that is not finished is nothing yet.
            if first.len() != 10 {
                eventually("it is counted", || proxy.reached("header_time") == 1.0).await;
                eventually("it is logged", || proxy.log().iter().any(|line| line["flag"] == "idle_timeout")).await;
            }
            assert_eq!(neighbour.get("/").await.status, StatusCode::OK);
        });
    }
}

/// Two limits: idle lives longer than a head may take, and ends by its own.
#[test]
fn an_idle_connection_outlives_the_time_of_a_head_and_ends_by_its_own() {
    for protocol in [Protocol::Http1, Protocol::Http2] {
        run(async move {
            let origin = Origin::hello(Protocol::Http1).await;
            let proxy = Proxy::limited("inbound", &origin, "headerTimeout: 300ms, idleTimeout: 2s");
            let mut client = Client::connect(protocol, proxy.address("in")).await;
            assert_eq!(client.get("/").await.status, StatusCode::OK);
            tokio::time::sleep(Duration::from_millis(1000)).await;
            assert_eq!((proxy.reached("header_time"), proxy.reached("idle_time")), (0.0, 0.0));
            assert_eq!(client.get("/").await.status, StatusCode::OK);
            eventually("it is closed", || client.is_closed()).await;
            assert_eq!((proxy.reached("header_time"), proxy.reached("idle_time")), (0.0, 1.0));
            proxy.at_rest().await;
            assert_eq!(proxy.log().len(), 2, "no request was lost, so none is logged");
        });
    }
}
