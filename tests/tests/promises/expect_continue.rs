//! `Expect: 100-continue` from end to end: no byte of the body is asked for before the origin wants it, and an origin that
//! does not want it says so before the body is sent.

use std::time::Duration;

use http_body_util::BodyExt;
use spanmesh_tests::origin::full;
use spanmesh_tests::{Client, Origin, Protocol, Proxy, Wire, run};
use tokio::io::AsyncReadExt;

/// A proxy that waits so long for the origin's word.
fn waiting(upstream: std::net::SocketAddr, protocol: Protocol, wait: &str) -> Proxy {
    Proxy::start(&format!(
        "listeners:\n- {{name: in, mode: inbound, address: '127.0.0.1:0', upstream: app}}\n\
         upstreams:\n- {{name: app, addresses: ['{upstream}'], protocol: {}}}\n\
         limits: {{continueWait: {wait}}}\n",
        protocol.word()
    ))
}

const HEAD: &str = "POST /up HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 4\r\n\r\n";
const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

/// Nothing has come for a while. What would come comes at once, so the wait need not be long.
async fn silent(wire: &mut Wire) {
    let mut byte = [0];
    let read = tokio::time::timeout(Duration::from_millis(100), wire.stream.peek(&mut byte)).await;
    assert!(read.is_err(), "bytes came too early");
}

#[test]
fn the_body_is_asked_for_when_the_origin_says_100() {
    run(async {
        let (listener, address) = Wire::listen().await;
        let proxy = waiting(address, Protocol::Http1, "60s");
        let mut client = Wire::connect(proxy.address("in")).await;
        client.write(HEAD).await;
        let mut origin = Wire::accept(&listener).await;
        // Twice, to see that the connections stay right afterwards.
        for number in 0..2 {
            if number > 0 {
                client.write(HEAD).await;
            }
            let head = origin.head().await;
            assert!(head.contains("expect: 100-continue"), "{head}");
            silent(&mut client).await;
            origin.write("HTTP/1.1 100 Continue\r\n\r\n").await;
            assert_eq!(client.head().await, "HTTP/1.1 100 Continue\r\n\r\n");
            silent(&mut origin).await;
            client.write("body").await;
            assert_eq!(origin.exactly(4).await, b"body");
            origin.write(OK).await;
            assert!(client.head().await.starts_with("HTTP/1.1 200 OK\r\n"));
            assert_eq!(client.exactly(2).await, b"ok");
        }
        let lines = proxy.logged(2).await;
        assert!(lines.iter().all(|line| line["flag"] == "ok" && line["requestBytes"] == 4), "{lines:?}");
    });
}

#[test]
fn a_refusal_reaches_the_client_before_the_body() {
    for status in ["417 Expectation Failed", "401 Unauthorized"] {
        run(async move {
            let (listener, address) = Wire::listen().await;
            let proxy = waiting(address, Protocol::Http1, "60s");
            let mut client = Wire::connect(proxy.address("in")).await;
            client.write(HEAD).await;
            let mut origin = Wire::accept(&listener).await;
            origin.head().await;
            origin.write(format!("HTTP/1.1 {status}\r\ncontent-length: 2\r\n\r\nno")).await;
            let head = client.head().await;
            assert!(head.starts_with(&format!("HTTP/1.1 {status}\r\n")), "no 100 comes first: {head}");
            // Nobody will read the body. A 417 asks the client to come again, and who hears of a close might not.
            assert_eq!(head.contains("\r\nconnection: close\r\n"), !status.starts_with("417"), "{head}");
            assert_eq!(client.exactly(2).await, b"no");
            // The origin never sees a body: its connection ends instead of carrying another request.
            assert!(origin.rest().await.is_empty());
            // The client may still send its body or close; if its connection stays, the next request is read right.
            let mut rest = Vec::new();
            let _ = tokio::time::timeout(Duration::from_secs(5), client.stream.read_to_end(&mut rest)).await;
            assert!(rest.is_empty(), "{:?}", String::from_utf8_lossy(&rest));
            let line = proxy.logged(1).await.remove(0);
            assert_eq!((&line["flag"], &line["requestBytes"]), (&"ok".into(), &0.into()));

            let mut client = Client::connect(Protocol::Http1, proxy.address("in")).await;
            let asking = client.get("/next");
            let answering = async {
                let mut origin = Wire::accept(&listener).await;
                assert!(origin.head().await.starts_with("GET /next "));
                origin.write(OK).await;
            };
            assert_eq!(tokio::join!(asking, answering).0.body, "ok");
        });
    }
}

#[test]
fn a_client_that_does_not_wait_is_not_misread_after_a_refusal() {
    run(async {
        let (listener, address) = Wire::listen().await;
        let proxy = waiting(address, Protocol::Http1, "60s");
        let mut client = Wire::connect(proxy.address("in")).await;
        // A body that looks like a request must never become one.
        let body = "GET /smuggled HTTP/1.1\r\nhost: a\r\n\r\n";
        let length = body.len();
        client
            .write(format!(
                "POST /up HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: {length}\r\n\r\n{body}"
            ))
            .await;
        let mut origin = Wire::accept(&listener).await;
        origin.head().await;
        origin.write("HTTP/1.1 417 Expectation Failed\r\ncontent-length: 2\r\n\r\nno").await;
        assert!(client.head().await.starts_with("HTTP/1.1 417 "));
        assert_eq!(client.exactly(2).await, b"no");
        assert!(origin.rest().await.is_empty());
        let smuggled = tokio::time::timeout(Duration::from_millis(300), listener.accept()).await;
        assert!(smuggled.is_err(), "the body was read as a request");
    });
}

#[test]
fn an_http2_origin_gets_the_body_after_the_stated_wait() {
    run(async {
        let origin = Origin::start(Protocol::Http2, |request| async move {
            let body = request.into_body().collect().await.expect("a whole body").to_bytes();
            http::Response::new(full(body))
        })
        .await;
        let proxy = waiting(origin.address, Protocol::Http2, "200ms");
        let mut client = Wire::connect(proxy.address("in")).await;
        for _ in 0..2 {
            client.write(HEAD).await;
            assert_eq!(client.head().await, "HTTP/1.1 100 Continue\r\n\r\n");
            client.write("body").await;
            assert!(client.head().await.starts_with("HTTP/1.1 200 OK\r\n"));
            assert_eq!(client.exactly(4).await, b"body");
        }
    });
}

#[test]
fn the_wait_runs_out_for_a_silent_origin() {
    run(async {
        let (listener, address) = Wire::listen().await;
        let proxy = waiting(address, Protocol::Http1, "200ms");
        let mut client = Wire::connect(proxy.address("in")).await;
        let began = std::time::Instant::now();
        client.write(HEAD).await;
        let mut origin = Wire::accept(&listener).await;
        origin.head().await;
        assert_eq!(client.head().await, "HTTP/1.1 100 Continue\r\n\r\n");
        assert!(began.elapsed() >= Duration::from_millis(200), "it did not wait");
        client.write("body").await;
        assert_eq!(origin.exactly(4).await, b"body");
        origin.write(OK).await;
        assert!(client.head().await.starts_with("HTTP/1.1 200 OK\r\n"));
    });
}

#[test]
fn an_http2_origin_can_refuse_before_the_body_too() {
    run(async {
        let origin = Origin::start(Protocol::Http2, |request| async move {
            assert_eq!(request.headers()["expect"], "100-continue");
            http::Response::builder().status(417).body(full("no")).expect("answer")
        })
        .await;
        let proxy = waiting(origin.address, Protocol::Http2, "60s");
        let mut client = Wire::connect(proxy.address("in")).await;
        client.write(HEAD).await;
        let head = client.head().await;
        assert!(head.starts_with("HTTP/1.1 417 "), "{head}");
        // What comes now could be the body, or the request again: it is neither read nor asked for.
        assert_eq!(client.rest().await, b"no", "and the end of the connection");
    });
}

#[test]
fn an_answer_of_the_proxys_own_says_too_that_nobody_will_read_the_body() {
    run(async {
        let nobody = std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("its address");
        let proxy = waiting(nobody, Protocol::Http1, "60s");
        let mut client = Wire::connect(proxy.address("in")).await;
        client.write(HEAD).await;
        let head = client.head().await;
        assert!(head.starts_with("HTTP/1.1 503 ") && head.contains("\r\nconnection: close\r\n"), "{head}");
    });
}
