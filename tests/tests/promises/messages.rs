//! Whatever a message of HTTP/1.0, HTTP/1.1 or HTTP/2 can carry arrives, also where one is translated into another.

use std::cell::RefCell;
use std::rc::Rc;

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Frame;
use spanmesh_tests::origin::{Body, channel, empty, full};
use spanmesh_tests::{Client, Origin, Protocol, Proxy, Wire, each, eventually, run};

type Seen = Rc<RefCell<Vec<(Parts, Bytes)>>>;

/// An origin that keeps what it was asked and answers with the request's body.
async fn recording(protocol: Protocol) -> (Origin, Seen) {
    let seen = Seen::default();
    let kept = seen.clone();
    let origin = Origin::start(protocol, move |request| {
        let kept = kept.clone();
        async move {
            let (parts, body) = request.into_parts();
            let body = body.collect().await.expect("a whole body").to_bytes();
            kept.borrow_mut().push((parts, body.clone()));
            Response::new(full(body))
        }
    })
    .await;
    (origin, seen)
}

fn values(headers: &HeaderMap, name: &str) -> Vec<String> {
    headers.get_all(name).iter().map(|value| value.to_str().expect("text").to_owned()).collect()
}

/// Bytes of which no two pieces are alike.
fn pattern(length: usize) -> Bytes {
    let mut state = 1u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    std::iter::repeat_with(&mut next).take(length).collect()
}

/// A body that tells no length.
fn streamed(bytes: Bytes) -> Body {
    let (feed, body) = channel();
    tokio::task::spawn_local(async move {
        for at in (0..bytes.len()).step_by(16_000) {
            let piece = bytes.slice(at..bytes.len().min(at + 16_000));
            if feed.send(Frame::data(piece)).await.is_err() {
                return;
            }
        }
    });
    body
}

#[test]
fn every_method_arrives_as_it_was() {
    each(|client, upstream| async move {
        let (origin, seen) = recording(upstream).await;
        let proxy = Proxy::between(origin.address, upstream);
        let mut client = Client::connect(client, proxy.address("in")).await;
        for method in ["GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "HEAD", "PURGE", "m-search"] {
            let request = client.request(method, "/").body(empty()).expect("request");
            assert_eq!(client.whole(request).await.status, StatusCode::OK, "{method}");
            assert_eq!(seen.borrow_mut().pop().expect("seen").0.method.as_str(), method);
        }
    });
}

#[test]
fn bodies_of_known_and_unknown_length_arrive_both_ways() {
    each(|client, upstream| async move {
        let (origin, seen) = recording(upstream).await;
        let proxy = Proxy::between(origin.address, upstream);
        let mut client = Client::connect(client, proxy.address("in")).await;
        for method in ["GET", "POST", "DELETE"] {
            for length in [1, 1000, 100_000] {
                let bytes = pattern(length);
                let known = client.request(method, "/").header("content-length", length);
                let answer = client.whole(known.body(full(bytes.clone())).expect("request")).await;
                assert!(answer.body == bytes, "{method} {length}: {} bytes came back", answer.body.len());
                let (parts, body) = seen.borrow_mut().pop().expect("seen");
                assert!(body == bytes, "{method} {length}: {} bytes arrived", body.len());
                assert_eq!(values(&parts.headers, "content-length"), [length.to_string()], "{method}");

                let unknown = client.request(method, "/").header("x-unknown", "1");
                let unknown = match client {
                    // hyper's client leaves the body of a GET out, unless it is told.
                    Client::Http1(..) => unknown.header("transfer-encoding", "chunked"),
                    Client::Http2(..) => unknown,
                };
                let answer = client.whole(unknown.body(streamed(bytes.clone())).expect("request")).await;
                assert!(answer.body == bytes, "{method} {length} streamed: {} bytes came back", answer.body.len());
                let (parts, body) = seen.borrow_mut().pop().expect("seen");
                assert!(body == bytes, "{method} {length} streamed: {} bytes arrived", body.len());
                assert!(!parts.headers.contains_key("content-length"), "a length was invented: {:?}", parts.headers);
            }
        }
    });
}

#[test]
fn an_answer_of_unknown_length_arrives_whole() {
    each(|client, upstream| async move {
        let origin = Origin::start(upstream, |_| async { Response::new(streamed(pattern(300_000))) }).await;
        let proxy = Proxy::between(origin.address, upstream);
        let mut client = Client::connect(client, proxy.address("in")).await;
        for _ in 0..3 {
            let answer = client.get("/").await;
            assert!(answer.body == pattern(300_000));
            assert!(!answer.headers.contains_key("content-length"), "{:?}", answer.headers);
        }
    });
}

#[test]
fn large_bodies_arrive_unharmed() {
    each(|client, upstream| async move {
        let origin = Origin::echo(upstream).await;
        let proxy = Proxy::between(origin.address, upstream);
        let mut client = Client::connect(client, proxy.address("in")).await;
        let bytes = pattern(6_000_000);
        let request = client.request("POST", "/").body(full(bytes.clone())).expect("request");
        assert!(client.whole(request).await.body == bytes);
        let request = client.request("POST", "/").body(streamed(bytes.clone())).expect("request");
        assert!(client.whole(request).await.body == bytes);
    });
}

#[test]
fn answers_without_a_body_keep_what_they_tell_of_its_length() {
    each(|client, upstream| async move {
        let answers = |request: &str| match request {
            request if request.starts_with("HEAD /known") => ("200 OK", Some("1234")),
            request if request.starts_with("HEAD /unknown") => ("200 OK", None),
            request if request.starts_with("GET /304/known") => ("304 Not Modified", Some("1234")),
            request if request.starts_with("GET /304/unknown") => ("304 Not Modified", None),
            request if request.starts_with("GET /304/zero") => ("304 Not Modified", Some("0")),
            _ => ("204 No Content", None),
        };
        // By hand: hyper's own server would not send the length of a 304.
        let address = match upstream {
            Protocol::Http1 => {
                let (listener, address) = Wire::listen().await;
                tokio::task::spawn_local(async move {
                    let mut wire = Wire::accept(&listener).await;
                    loop {
                        let (status, length) = answers(&wire.head().await);
                        let length = length.map(|length| format!("content-length: {length}\r\n"));
                        wire.write(format!("HTTP/1.1 {status}\r\netag: \"a\"\r\n{}\r\n", length.unwrap_or_default()))
                            .await;
                    }
                });
                address
            }
            Protocol::Http2 => {
                let origin = spanmesh_tests::by_hand::StreamOrigin::start(move |request, mut respond| async move {
                    let line = format!("{} {}", request.method(), request.uri().path());
                    let (status, length) = answers(&line);
                    let mut answer = Response::builder().status(&status[..3]).header("etag", "\"a\"");
                    if let Some(length) = length {
                        answer = answer.header("content-length", length);
                    }
                    respond.send_response(answer.body(()).expect("answer"), true).expect("send");
                })
                .await;
                let address = origin.address;
                std::mem::forget(origin);
                address
            }
        };
        let proxy = Proxy::between(address, upstream);
        let mut client = Client::connect(client, proxy.address("in")).await;
        for (method, path, status, length) in [
            ("HEAD", "/known", 200, Some("1234")),
            ("HEAD", "/unknown", 200, None),
            ("GET", "/204", 204, None),
            ("GET", "/304/known", 304, Some("1234")),
            ("GET", "/304/zero", 304, Some("0")),
            ("GET", "/304/unknown", 304, None),
            ("HEAD", "/known", 200, Some("1234")),
        ] {
            let request = client.request(method, path).body(empty()).expect("request");
            let answer = client.whole(request).await;
            assert_eq!(answer.status.as_u16(), status, "{method} {path}");
            assert_eq!(values(&answer.headers, "content-length"), Vec::from_iter(length), "{method} {path}");
            assert_eq!(values(&answer.headers, "etag"), ["\"a\""], "{method} {path}");
            assert!(answer.body.is_empty());
        }
        let lines = proxy.logged(7).await;
        assert!(lines.iter().all(|line| line["flag"] == "ok"), "{lines:?}");
    });
}

#[test]
fn repeated_fields_keep_their_number_and_order() {
    each(|client, upstream| async move {
        let seen = Rc::new(RefCell::new(HeaderMap::new()));
        let kept = seen.clone();
        let origin = Origin::start(upstream, move |request| {
            *kept.borrow_mut() = request.headers().clone();
            async {
                let answer = Response::builder().header("set-cookie", "b=2; path=/").header("x-more", "1");
                let answer = answer.header("set-cookie", "a=1").header("x-more", "").header("set-cookie", "b=3");
                answer.body(full("x")).expect("answer")
            }
        })
        .await;
        let proxy = Proxy::between(origin.address, upstream);
        let mut client = Client::connect(client, proxy.address("in")).await;
        let request =
            client.request("GET", "/").header("x-list", "3").header("x-between", "y").header("x-list", "1, 2");
        let answer = client.whole(request.header("x-list", "").body(empty()).expect("request")).await;
        assert_eq!(values(&seen.borrow(), "x-list"), ["3", "1, 2", ""]);
        assert_eq!(values(&answer.headers, "set-cookie"), ["b=2; path=/", "a=1", "b=3"]);
        assert_eq!(values(&answer.headers, "x-more"), ["1", ""]);
    });
}

#[test]
fn split_cookies_are_one_field_where_http1_reads_them() {
    for upstream in [Protocol::Http1, Protocol::Http2] {
        run(async move {
            let (origin, seen) = recording(upstream).await;
            let proxy = Proxy::between(origin.address, upstream);
            let mut client = Client::connect(Protocol::Http2, proxy.address("in")).await;
            let request = client.request("GET", "/").header("cookie", "a=1").header("cookie", "b=2; c=3");
            client.whole(request.header("cookie", "d=4").body(empty()).expect("request")).await;
            let cookies = values(&seen.borrow()[0].0.headers, "cookie");
            match upstream {
                Protocol::Http1 => assert_eq!(cookies, ["a=1; b=2; c=3; d=4"]),
                Protocol::Http2 => assert_eq!(cookies.join("; "), "a=1; b=2; c=3; d=4"),
            }
        });
    }
}

#[test]
fn a_path_with_odd_characters_arrives_unchanged() {
    each(|client, upstream| async move {
        let (origin, seen) = recording(upstream).await;
        let proxy = Proxy::between(origin.address, upstream);
        let mut client = Client::connect(client, proxy.address("in")).await;
        for path in [
            "//double//slash/",
            "/a/../b/./c/..",
            "/%2e%2E/%2f?x=%zz&y=%",
            "/;v=1/a,b:c@d!$&'()*+=~",
            "/?",
            "/?a?b?c=/&&=",
            "/%C3%A4%FF%00",
            "/{x}\"y\"[z]^",
        ] {
            let request = client.request("GET", path).body(empty()).expect("request");
            assert_eq!(client.whole(request).await.status, StatusCode::OK, "{path}");
            let target = seen.borrow_mut().pop().expect("seen").0.uri;
            assert_eq!(target.path_and_query().expect("a path").as_str(), path);
        }
    });
}

#[test]
fn options_may_ask_for_the_whole_server() {
    for upstream in [Protocol::Http1, Protocol::Http2] {
        run(async move {
            let (origin, seen) = recording(upstream).await;
            let proxy = Proxy::between(origin.address, upstream);
            let mut wire = Wire::connect(proxy.address("in")).await;
            wire.write("OPTIONS * HTTP/1.1\r\nhost: shop.example\r\n\r\n").await;
            assert!(wire.head().await.starts_with("HTTP/1.1 200 OK\r\n"));
            let mut streams = spanmesh_tests::by_hand::connect(proxy.address("in")).await;
            let request = http::Request::builder().method("OPTIONS");
            let parts = http::uri::PathAndQuery::from_static("*");
            let mut uri = http::Uri::from_static("http://shop.example/").into_parts();
            uri.path_and_query = Some(parts);
            let request = request.uri(http::Uri::from_parts(uri).expect("target")).body(()).expect("request");
            let (answer, _) = streams.send_request(request, true).expect("send");
            assert_eq!(answer.await.expect("answer").status(), StatusCode::OK);
            for (parts, _) in seen.borrow().iter() {
                assert_eq!(parts.uri.path_and_query().expect("a path").as_str(), "*", "{:?}", parts.uri);
            }
            assert_eq!(seen.borrow().len(), 2);
        });
    }
}

#[test]
fn an_http10_client_is_served_with_and_without_keep_alive() {
    for upstream in [Protocol::Http1, Protocol::Http2] {
        run(async move {
            let origin = Origin::start(upstream, |request| async move {
                match request.uri().path() {
                    "/known" => Response::new(full("hello")),
                    _ => Response::new(streamed(Bytes::from_static(b"hello"))),
                }
            })
            .await;
            let proxy = Proxy::between(origin.address, upstream);
            for path in ["/known", "/unknown"] {
                let mut wire = Wire::connect(proxy.address("in")).await;
                wire.write(format!("GET {path} HTTP/1.0\r\n\r\n")).await;
                let head = wire.head().await;
                assert!(head.starts_with("HTTP/1.0 200 OK\r\n"), "{head}");
                assert!(!head.contains("transfer-encoding"), "HTTP/1.0 knows no chunks: {head}");
                assert_eq!(wire.rest().await, b"hello");
            }
            let mut wire = Wire::connect(proxy.address("in")).await;
            for _ in 0..3 {
                wire.write("GET /known HTTP/1.0\r\nhost: a\r\nconnection: keep-alive\r\n\r\n").await;
                let head = wire.head().await;
                assert!(head.contains("connection: keep-alive") && head.contains("content-length: 5"), "{head}");
                assert_eq!(wire.exactly(5).await, b"hello");
            }
            // What has no length ends with the connection.
            wire.write("GET /unknown HTTP/1.0\r\nhost: a\r\nconnection: keep-alive\r\n\r\n").await;
            wire.head().await;
            assert_eq!(wire.rest().await, b"hello");
            let lines = proxy.logged(6).await;
            assert!(lines.iter().all(|line| line["protocol"] == "HTTP/1.0" && line["flag"] == "ok"), "{lines:?}");
        });
    }
}

#[test]
fn an_http10_origin_is_served_and_a_chunked_post_after_it_too() {
    for protocol in [Protocol::Http1, Protocol::Http2] {
        run(async move {
            let (listener, address) = Wire::listen().await;
            let bodies = Rc::new(RefCell::new(Vec::new()));
            let kept = bodies.clone();
            tokio::task::spawn_local(async move {
                loop {
                    let mut wire = Wire::accept(&listener).await;
                    let kept = kept.clone();
                    tokio::task::spawn_local(async move {
                        let head = wire.head().await;
                        if head.starts_with("POST") {
                            assert!(head.contains("transfer-encoding: chunked"), "{head}");
                            let read = wire.until("0\r\n\r\n").await;
                            kept.borrow_mut().push(read);
                        }
                        let keep = "HTTP/1.0 200 OK\r\nconnection: keep-alive\r\ncontent-length: 2\r\n\r\nok";
                        wire.write(keep).await;
                        wire.rest().await;
                    });
                }
            });
            let proxy = Proxy::between(address, Protocol::Http1);
            let mut client = Client::connect(protocol, proxy.address("in")).await;
            for _ in 0..2 {
                assert_eq!(client.get("/").await.body, "ok");
                let request = client.request("POST", "/").body(streamed(pattern(10))).expect("request");
                assert_eq!(client.whole(request).await.body, "ok");
            }
            assert_eq!(bodies.borrow().len(), 2);
        });
    }
}

#[test]
fn an_http10_origin_that_ends_its_answer_with_the_connection_is_read_to_the_end() {
    for protocol in [Protocol::Http1, Protocol::Http2] {
        run(async move {
            let (listener, address) = Wire::listen().await;
            tokio::task::spawn_local(async move {
                loop {
                    let mut wire = Wire::accept(&listener).await;
                    wire.head().await;
                    wire.write("HTTP/1.0 200 OK\r\nserver: old\r\n\r\nto the end").await;
                }
            });
            let proxy = Proxy::between(address, Protocol::Http1);
            let mut client = Client::connect(protocol, proxy.address("in")).await;
            for _ in 0..2 {
                let answer = client.get("/").await;
                assert_eq!(
                    (&answer.body[..], &answer.headers["server"]),
                    (&b"to the end"[..], &"old".parse().unwrap())
                );
            }
            eventually("both are counted", || proxy.metric("spanmesh_proxy_requests_total", &["flag=\"ok\""]) == 2.0)
                .await;
        });
    }
}
