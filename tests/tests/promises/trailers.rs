//! Trailers travel both ways where the next hop takes them; where it does not they are dropped and counted.

use http::{HeaderMap, HeaderValue, Response};
use http_body_util::BodyExt;
use spanmesh_tests::origin::{empty, with_trailers};
use spanmesh_tests::{Client, Origin, Protocol, Proxy, Wire, each, eventually, run};

const DROPPED: &str = "spanmesh_proxy_trailers_dropped_total";

fn sums() -> HeaderMap {
    HeaderMap::from_iter([("x-sum".parse().expect("a name"), HeaderValue::from_static("abc"))])
}

#[test]
fn announced_trailers_travel_both_ways() {
    each(|client, upstream| async move {
        let origin = Origin::start(upstream, |request| async move {
            assert_eq!(request.headers()["trailer"], "x-sum");
            let body = request.into_body().collect().await.expect("a whole body");
            let trailers = body.trailers().cloned().unwrap_or_default();
            assert_eq!(trailers.get("x-sum").expect("the client's trailer"), "abc");
            assert_eq!(body.to_bytes(), "one two");
            let answer = Response::builder().header("trailer", "x-sum");
            answer.body(with_trailers(&["three ", "four"], sums())).expect("answer")
        })
        .await;
        let proxy = Proxy::between(origin.address, upstream);
        let mut client = Client::connect(client, proxy.address("in")).await;
        let request = client.request("POST", "/").header("trailer", "x-sum").header("te", "trailers");
        let answer = client.whole(request.body(with_trailers(&["one ", "two"], sums())).expect("request")).await;
        assert_eq!(answer.body, "three four");
        assert_eq!(answer.headers["trailer"], "x-sum");
        assert_eq!(answer.trailers.expect("the origin's trailers")["x-sum"], "abc");
        assert_eq!(proxy.metric(DROPPED, &[]), 0.0);
    });
}

#[test]
fn trailers_behind_a_body_of_known_length_reach_http1() {
    run(async {
        let origin = Origin::start(Protocol::Http2, |request| async move {
            request.into_body().collect().await.expect("a whole body");
            let answer = Response::builder().header("trailer", "x-sum").header("content-length", "4");
            answer.body(with_trailers(&["four"], sums())).expect("answer")
        })
        .await;
        let proxy = Proxy::between(origin.address, Protocol::Http2);
        let mut wire = Wire::connect(proxy.address("in")).await;
        wire.write("GET / HTTP/1.1\r\nhost: a\r\nte: trailers\r\nconnection: te\r\n\r\n").await;
        assert!(!wire.head().await.contains("content-length"));
        assert_eq!(wire.until("\r\n\r\n").await, "4\r\nfour\r\n0\r\nx-sum: abc\r\n\r\n");

        let (listener, address) = Wire::listen().await;
        let proxy = Proxy::between(address, Protocol::Http1);
        let mut client = Client::connect(Protocol::Http2, proxy.address("in")).await;
        let request = client.request("POST", "/").header("trailer", "x-sum").header("content-length", "4");
        let request = request.body(with_trailers(&["four"], sums())).expect("request");
        let asking = client.send(request);
        let answering = async {
            let mut wire = Wire::accept(&listener).await;
            let head = wire.head().await;
            assert!(!head.contains("content-length") && head.contains("transfer-encoding: chunked"), "{head}");
            assert_eq!(wire.until("\r\n\r\n").await, "4\r\nfour\r\n0\r\nx-sum: abc\r\n\r\n");
            wire.write("HTTP/1.1 204 No Content\r\n\r\n").await;
        };
        let (answer, ()) = tokio::join!(asking, answering);
        assert_eq!(answer.expect("answer").status().as_u16(), 204);
    });
}

#[test]
fn trailers_that_nobody_announced_are_dropped_towards_http1_and_counted() {
    run(async {
        let origin = Origin::start(Protocol::Http2, |request| async move {
            request.into_body().collect().await.expect("a whole body");
            let answer = Response::builder().header("trailer", "x-other");
            answer.body(with_trailers(&["four"], sums())).expect("answer")
        })
        .await;
        let proxy = Proxy::between(origin.address, Protocol::Http2);
        let mut wire = Wire::connect(proxy.address("in")).await;
        // The first does not take trailers at all, the second takes what was announced.
        for (number, te) in [(1.0, ""), (2.0, "te: trailers\r\nconnection: te\r\n")] {
            wire.write(format!("GET / HTTP/1.1\r\nhost: a\r\n{te}\r\n")).await;
            assert!(wire.head().await.contains("trailer: x-other"));
            assert_eq!(wire.until("0\r\n\r\n").await, "4\r\nfour\r\n0\r\n\r\n");
            eventually("the trailers are counted", || proxy.metric(DROPPED, &["response"]) == number).await;
        }

        let (listener, address) = Wire::listen().await;
        let proxy = Proxy::between(address, Protocol::Http1);
        let mut client = Client::connect(Protocol::Http2, proxy.address("in")).await;
        let request = client.request("POST", "/").body(with_trailers(&["four"], sums())).expect("request");
        let asking = client.send(request);
        let answering = async {
            let mut wire = Wire::accept(&listener).await;
            wire.head().await;
            assert_eq!(wire.until("0\r\n\r\n").await, "4\r\nfour\r\n0\r\n\r\n");
            wire.write("HTTP/1.1 204 No Content\r\n\r\n").await;
        };
        let (answer, ()) = tokio::join!(asking, answering);
        assert_eq!(answer.expect("answer").status().as_u16(), 204);
        eventually("the trailers are counted", || proxy.metric(DROPPED, &["request"]) == 1.0).await;
    });
}

#[test]
fn trailers_need_no_announcement_over_http2() {
    run(async {
        let origin = Origin::start(Protocol::Http2, |request| async move {
            let body = request.into_body().collect().await.expect("a whole body");
            Response::new(with_trailers(&["four"], body.trailers().cloned().unwrap_or_default()))
        })
        .await;
        let proxy = Proxy::between(origin.address, Protocol::Http2);
        let mut client = Client::connect(Protocol::Http2, proxy.address("in")).await;
        let request = client.request("POST", "/").body(with_trailers(&["x"], sums())).expect("request");
        assert_eq!(client.whole(request).await.trailers.expect("trailers")["x-sum"], "abc");
        let request = client.request("POST", "/").body(empty()).expect("request");
        assert!(client.whole(request).await.trailers.is_none_or(|trailers| trailers.is_empty()));
    });
}

/// What frames, routes, authenticates or belongs to one connection, and what only proxies of the mesh say.
const NO_TRAILERS: [&str; 9] = [
    "connection",
    "keep-alive",
    "transfer-encoding",
    "content-length",
    "host",
    "te",
    "authorization",
    "set-cookie",
    "spanmesh-keep",
];

#[test]
fn what_must_not_stand_in_trailers_is_dropped_both_ways_and_counted() {
    each(|client, upstream| async move {
        let lines: String = NO_TRAILERS.iter().map(|name| format!("{name}: 1\r\n")).collect();
        let message = format!("4\r\nfour\r\n0\r\n{lines}x-sum: abc\r\n\r\n");
        let names = format!("x-sum, {}", NO_TRAILERS.join(", "));
        let only_sum = |trailers: Option<&HeaderMap>| assert_eq!(trailers, Some(&sums()));
        // Towards an origin, from a client that writes what it likes.
        if client == Protocol::Http1 {
            let origin = Origin::start(upstream, move |request| async move {
                let body = request.into_body().collect().await.expect("a whole body");
                only_sum(body.trailers());
                Response::new(empty())
            })
            .await;
            let proxy = Proxy::between(origin.address, upstream);
            let mut wire = Wire::connect(proxy.address("in")).await;
            let head = format!("POST / HTTP/1.1\r\nhost: a\r\ntrailer: {names}\r\ntransfer-encoding: chunked\r\n\r\n");
            wire.write(head + &message).await;
            assert!(wire.head().await.starts_with("HTTP/1.1 200 "), "{upstream:?}");
            eventually("the trailers are counted", || proxy.metric(DROPPED, &["request"]) == 1.0).await;
        }
        // Towards a client, from such an origin.
        if upstream == Protocol::Http1 {
            let (listener, address) = Wire::listen().await;
            let proxy = Proxy::between(address, Protocol::Http1);
            let mut client = Client::connect(client, proxy.address("in")).await;
            let request = client.request("GET", "/").header("te", "trailers").body(empty()).expect("request");
            let answering = async {
                let mut wire = Wire::accept(&listener).await;
                wire.head().await;
                let head = format!("HTTP/1.1 200 OK\r\ntrailer: {names}\r\ntransfer-encoding: chunked\r\n\r\n");
                wire.write(head + &message).await;
                wire
            };
            let (answer, _wire) = tokio::join!(client.whole(request), answering);
            assert_eq!(answer.body, "four");
            only_sum(answer.trailers.as_ref());
            eventually("the trailers are counted", || proxy.metric(DROPPED, &["response"]) == 1.0).await;
        }
    });
}
