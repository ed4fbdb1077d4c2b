//! Nothing waits for ever: connecting, an answer, an attempt, a silent stream, an idle client, a slow head. And what is
//! alive is not cut.

use std::time::{Duration, Instant};

use bytes::Bytes;
use http::StatusCode;
use http_body_util::BodyExt;
use hyper::body::Frame;
use spanmesh_tests::origin::{channel, empty};
use spanmesh_tests::streams::{BlackHole, read_http1};
use spanmesh_tests::{Client, Origin, Protocol, Proxy, Scripted, Wire, eventually, run};

#[test]
fn a_connection_that_does_not_come_about_is_given_up() {
    for (client, upstream) in Protocol::PAIRS {
        run(async move {
            let hole = BlackHole::new().await;
            let proxy = Proxy::routed(&[hole.address], upstream, "connectTimeout: 300ms", "", "");
            let mut client = Client::connect(client, proxy.address("in")).await;
            let since = Instant::now();
            assert_eq!(client.get("/").await.status, StatusCode::GATEWAY_TIMEOUT);
            assert!((Duration::from_millis(300)..Duration::from_secs(5)).contains(&since.elapsed()));
            assert_eq!(proxy.logged(1).await[0]["flag"], "connect_timeout");
        });
    }
}

#[test]
fn a_head_that_never_comes_ends_with_the_routes_timeout() {
    for (client, upstream) in Protocol::PAIRS {
        run(async move {
            let origin = Scripted::start(upstream, |asked| asked.ignore()).await;
            let proxy = Proxy::routed(&[origin.address], upstream, "", "timeout: 300ms", "");
            let mut client = Client::connect(client, proxy.address("in")).await;
            let since = Instant::now();
            assert_eq!(client.get("/").await.status, StatusCode::GATEWAY_TIMEOUT);
            assert!((Duration::from_millis(300)..Duration::from_secs(5)).contains(&since.elapsed()));
            assert_eq!(proxy.logged(1).await[0]["flag"], "request_timeout");
            if upstream == Protocol::Http1 {
                eventually("the origin's connection is cut", || origin.open.get() == 0).await;
            }
        });
    }
}

#[test]
fn a_body_that_stalls_ends_with_the_routes_timeout() {
    stalls("timeout: 300ms", "request_timeout");
}

#[test]
fn a_body_that_stalls_ends_with_the_idle_timeout() {
    stalls("idleTimeout: 300ms", "idle_timeout");
    stalls("idleTimeout: 300ms, timeout: 60s", "idle_timeout");
}

fn stalls(route: &'static str, flag: &'static str) {
    for (client, upstream) in Protocol::PAIRS {
        run(async move {
            let origin = Scripted::start(upstream, |asked| asked.begin("a piece")).await;
            let proxy = Proxy::routed(&[origin.address], upstream, "", route, "");
            let mut asking = Client::connect(client, proxy.address("in")).await;
            let request = asking.request("GET", "/").body(empty()).expect("request");
            let answer = asking.send(request).await.expect("a head");
            assert_eq!(answer.status(), StatusCode::OK);
            let mut body = answer.into_body();
            let piece = body.frame().await.expect("a frame").expect("data");
            assert_eq!(piece.data_ref().expect("data"), "a piece");
            let error = body.frame().await.expect("an end").expect_err("cut off, not ended");
            if client == Protocol::Http2 {
                let text = format!("{error:?}");
                assert!(text.contains("CANCEL"), "{text}");
                // Only the stream was reset.
                assert!(matches!(&asking, Client::Http2(send, _) if !send.is_closed()));
            }
            assert_eq!(proxy.logged(1).await[0]["flag"], flag, "{client:?} {upstream:?}");
            if upstream == Protocol::Http1 {
                eventually("the origin's connection is cut", || origin.open.get() == 0).await;
            }
            drop((asking, body));
            proxy.at_rest().await;
        });
    }
}

#[test]
fn a_request_that_lies_still_before_its_answer_ends_with_the_idle_timeout() {
    for (client, upstream) in Protocol::PAIRS {
        run(async move {
            let origin = Scripted::start(upstream, |asked| asked.ignore()).await;
            let proxy = Proxy::routed(&[origin.address], upstream, "", "idleTimeout: 300ms, timeout: 60s", "");
            let mut client = Client::connect(client, proxy.address("in")).await;
            let since = Instant::now();
            assert_eq!(client.get("/").await.status, StatusCode::GATEWAY_TIMEOUT);
            assert!(since.elapsed() < Duration::from_secs(20));
            assert_eq!(proxy.logged(1).await[0]["flag"], "request_timeout");
        });
    }
}

#[test]
fn a_slow_upload_is_not_idle() {
    for (client, upstream) in Protocol::PAIRS {
        run(async move {
            let origin = Scripted::start(upstream, |asked| {
                let length = asked.body.len();
                asked.answer(200, length.to_string())
            })
            .await;
            let proxy = Proxy::routed(&[origin.address], upstream, "", "idleTimeout: 600ms", "");
            let mut client = Client::connect(client, proxy.address("in")).await;
            let (body, slow) = channel();
            let request = client.request("POST", "/").body(slow).expect("request");
            let asking = tokio::task::spawn_local(async move { client.whole(request).await });
            for _ in 0..20 {
                body.send(Frame::data(Bytes::from_static(b"0123456789"))).await.expect("taken");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            drop(body);
            let answer = asking.await.expect("join");
            assert_eq!((answer.status, &answer.body[..]), (StatusCode::OK, &b"200"[..]), "{upstream:?}");
        });
    }
}

#[test]
fn an_idle_client_lives_longer_than_a_head_may_take() {
    for client in [Protocol::Http1, Protocol::Http2] {
        run(async move {
            let origin = Origin::hello(Protocol::Http1).await;
            let proxy = limited(&origin, "detect", "headerTimeout: 300ms");
            let mut client = Client::connect(client, proxy.address("in")).await;
            for _ in 0..3 {
                assert_eq!(client.get("/").await.status, StatusCode::OK);
                tokio::time::sleep(Duration::from_millis(700)).await;
            }
            assert_eq!(proxy.metric("spanmesh_proxy_connections_active", &[]), 1.0);
            assert_eq!(proxy.log().len(), 3);
        });
    }
}

#[test]
fn a_head_that_is_not_finished_in_time_closes_the_connection() {
    for protocol in ["detect", "http"] {
        for (before, slowly) in [(0, false), (0, true), (1, false), (1, true)] {
            run(async move {
                let origin = Origin::hello(Protocol::Http1).await;
                let proxy = limited(&origin, protocol, "headerTimeout: 400ms");
                let mut wire = Wire::connect(proxy.address("in")).await;
                for _ in 0..before {
                    wire.write("GET /first HTTP/1.1\r\nhost: a\r\n\r\n").await;
                    assert!(wire.until("hello").await.starts_with("HTTP/1.1 200"));
                    tokio::time::sleep(Duration::from_millis(600)).await;
                }
                let since = Instant::now();
                wire.write("GET / HTTP/1.1\r\nhost: a\r\nx-slow: ").await;
                let mut chunk = [0; 64];
                loop {
                    assert!(since.elapsed() < Duration::from_secs(20), "never closed");
                    let _ = slowly && wire.send(b"x").await.is_ok();
                    let read = tokio::io::AsyncReadExt::read(&mut wire.stream, &mut chunk);
                    if tokio::time::timeout(Duration::from_millis(50), read).await.is_ok() {
                        break;
                    }
                }
                assert!(since.elapsed() >= Duration::from_millis(400), "{protocol} {:?}", since.elapsed());
                let lines = proxy.logged(before + 1).await;
                assert_eq!(lines[before]["flag"], "idle_timeout", "{lines:?}");
                proxy.at_rest().await;
            });
        }
    }
}

#[test]
fn a_client_that_never_says_what_it_speaks_is_not_waited_for() {
    run(async {
        let origin = Origin::hello(Protocol::Http1).await;
        let proxy = limited(&origin, "http", "headerTimeout: 300ms");
        for start in ["P", "PRI * HT", "G"] {
            let mut wire = Wire::connect(proxy.address("in")).await;
            wire.write(start).await;
            assert!(wire.rest().await.is_empty(), "{start}");
        }
        proxy.at_rest().await;
    });
}

#[test]
fn an_idle_client_is_let_go_after_the_idle_timeout() {
    for client in [Protocol::Http1, Protocol::Http2] {
        for protocol in ["detect", "http"] {
            run(async move {
                let origin = Origin::hello(Protocol::Http1).await;
                let proxy = limited(&origin, protocol, "idleTimeout: 1s");
                let mut client = Client::connect(client, proxy.address("in")).await;
                client.get("/").await;
                let since = Instant::now();
                eventually("it is closed", || match &client {
                    Client::Http1(send, _) => send.is_closed(),
                    Client::Http2(send, _) => send.is_closed(),
                })
                .await;
                assert!(since.elapsed() > Duration::from_millis(900), "{:?}", since.elapsed());
                proxy.at_rest().await;
                assert_eq!(proxy.log().len(), 1, "closing an idle connection is no request");
            });
        }
    }
}

#[test]
fn a_client_that_never_sends_a_byte_is_let_go_after_the_idle_timeout() {
    run(async {
        let origin = Origin::hello(Protocol::Http1).await;
        let proxy = limited(&origin, "http", "idleTimeout: 1s, headerTimeout: 100ms");
        let since = Instant::now();
        let mut wire = Wire::connect(proxy.address("in")).await;
        assert!(wire.rest().await.is_empty());
        assert!(since.elapsed() > Duration::from_millis(900), "{:?}", since.elapsed());
    });
}

/// The stream ends in a task of its own, which must not leave the connection without a timer.
#[test]
fn an_http2_client_that_reset_its_last_stream_is_let_go_too() {
    run(async {
        let origin = Scripted::start(Protocol::Http1, |asked| asked.begin("a piece")).await;
        let proxy = Proxy::routed(&[origin.address], Protocol::Http1, "", "", "limits: {idleTimeout: 1s}");
        let mut client = Client::connect(Protocol::Http2, proxy.address("in")).await;
        let request = client.request("GET", "/").body(empty()).expect("request");
        let answer = client.send(request).await.expect("a head");
        drop(answer);
        assert_eq!(proxy.logged(1).await[0]["flag"], "client_reset");
        eventually("it is closed", || matches!(&client, Client::Http2(send, _) if send.is_closed())).await;
    });
}

/// What comes after an early answer is the rest of the body, not the next head.
#[test]
fn an_upload_that_outlasts_its_answer_is_not_taken_for_a_slow_head() {
    run(async {
        let (listener, address) = Wire::listen().await;
        let proxy = Proxy::start(&format!(
            "listeners:\n- {{name: in, mode: inbound, address: '127.0.0.1:0', upstream: app}}\n\
             upstreams:\n- {{name: app, addresses: ['{address}'], protocol: http1, idleTimeout: 30s}}\n\
             limits: {{headerTimeout: 300ms}}\n"
        ));
        let mut client = Wire::connect(proxy.address("in")).await;
        client.write("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 20\r\n\r\n01234").await;
        let mut origin = Wire::accept(&listener).await;
        origin.head().await;
        origin.write("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
        assert!(client.until("\r\n\r\nok").await.starts_with("HTTP/1.1 200"));
        for _ in 0..3 {
            tokio::time::sleep(Duration::from_millis(200)).await;
            client.write("56789").await;
        }
        assert_eq!(origin.exactly(20).await, b"01234567895678956789");
        tokio::time::sleep(Duration::from_millis(700)).await;
        client.write("GET /next HTTP/1.1\r\nhost: a\r\n\r\n").await;
        let (_, path, _) = read_http1(&mut origin).await.expect("on the same connection");
        assert_eq!(path, "/next");
        origin.write("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nno").await;
        client.until("\r\n\r\nno").await;
        let flags: Vec<_> = proxy.logged(2).await.iter().map(|line| line["flag"].clone()).collect();
        assert_eq!(flags, ["ok", "ok"]);
    });
}

fn limited(origin: &Origin, protocol: &str, limits: &str) -> Proxy {
    Proxy::start(&format!(
        "listeners:\n- {{name: in, mode: inbound, address: '127.0.0.1:0', upstream: app, protocol: {protocol}}}\n\
         upstreams:\n- {{name: app, addresses: ['{}'], protocol: http1}}\n\
         limits: {{{limits}}}\n",
        origin.address
    ))
}
