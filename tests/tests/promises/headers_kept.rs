//! The proxy passes on the fields that it was given, less those of one connection, plus the trace's. Nothing else.

use std::cell::RefCell;
use std::rc::Rc;

use http::{HeaderMap, Response};
use spanmesh_tests::origin::{empty, full};
use spanmesh_tests::{Client, Origin, Protocol, Proxy, Wire, each, run};

fn names(headers: &HeaderMap) -> Vec<&str> {
    let mut names: Vec<_> = headers.keys().map(|name| name.as_str()).collect();
    names.sort_unstable();
    names
}

#[test]
fn no_field_is_invented() {
    each(|client, upstream| async move {
        let seen = Rc::new(RefCell::new(HeaderMap::new()));
        let kept = seen.clone();
        let origin = Origin::start(upstream, move |request| {
            *kept.borrow_mut() = request.headers().clone();
            async {
                Response::builder().header("content-length", "2").header("x-b", "1").body(full("ok")).expect("answer")
            }
        })
        .await;
        let proxy = Proxy::between(origin.address, upstream);
        let mut client = Client::connect(client, proxy.address("in")).await;
        for method in ["GET", "POST", "DELETE"] {
            let mut request = client.request(method, "/").header("x-a", "1");
            let mut expected = vec!["traceparent", "x-a", "x-request-id"];
            // hyper's HTTP/2 client would add it; a client of HTTP/1.1 has said by leaving it out that there is no body.
            if method == "POST" && matches!(client, Client::Http2(..)) {
                request = request.header("content-length", "0");
                expected.insert(0, "content-length");
            }
            if upstream == Protocol::Http1 {
                expected.push("host");
            }
            expected.sort_unstable();
            let answer = client.whole(request.body(empty()).expect("request")).await;
            let seen = seen.borrow();
            let arrived: Vec<_> = names(&seen).into_iter().filter(|name| *name != "tracestate").collect();
            let invented: Vec<_> = arrived.iter().filter(|name| !expected.contains(*name)).collect();
            // hyper's own HTTP/1.1 client, which asks here, tells the length of an empty POST too.
            assert!(
                invented.iter().all(|name| **name == "content-length" && method == "POST"),
                "{method}: {invented:?}"
            );
            assert!(expected.iter().all(|name| arrived.contains(name)), "{method}: {arrived:?}");
            assert_eq!(names(&answer.headers), ["content-length", "x-b"], "{method}");
        }
    });
}

#[test]
fn an_empty_post_without_a_length_gets_none() {
    run(async {
        for upstream in [Protocol::Http1, Protocol::Http2] {
            let seen = Rc::new(RefCell::new(HeaderMap::new()));
            let kept = seen.clone();
            let origin = Origin::start(upstream, move |request| {
                *kept.borrow_mut() = request.headers().clone();
                async { Response::new(empty()) }
            })
            .await;
            let proxy = Proxy::between(origin.address, upstream);
            let mut wire = Wire::connect(proxy.address("in")).await;
            wire.write("POST / HTTP/1.1\r\nhost: a\r\n\r\n").await;
            assert!(wire.head().await.starts_with("HTTP/1.1 200 OK\r\n"));
            assert!(!seen.borrow().contains_key("content-length"), "{upstream:?}: {:?}", seen.borrow());
            let mut streams = spanmesh_tests::by_hand::connect(proxy.address("in")).await;
            let request = http::Request::post(format!("http://{}/", proxy.address("in"))).body(()).expect("request");
            streams.send_request(request, true).expect("send").0.await.expect("answer");
            assert!(!seen.borrow().contains_key("content-length"), "{upstream:?}: {:?}", seen.borrow());
        }
    });
}

#[test]
fn an_answer_over_http1_is_passed_on_line_by_line() {
    run(async {
        let (listener, address) = Wire::listen().await;
        let proxy = Proxy::between(address, Protocol::Http1);
        let mut client = Wire::connect(proxy.address("in")).await;
        client.write("GET /a?b HTTP/1.1\r\nhost: shop.example:81\r\nuser-agent: t\r\naccept: */*\r\n\r\n").await;
        let mut origin = Wire::accept(&listener).await;
        let head = origin.head().await;
        assert!(head.starts_with("GET /a?b HTTP/1.1\r\n"), "{head}");
        let mut lines: Vec<_> = head.lines().skip(1).filter(|line| !line.is_empty()).collect();
        lines.sort_unstable();
        let told = |line: &&str| !line.starts_with("trace") && !line.starts_with("x-request-id: ");
        let lines: Vec<_> = lines.into_iter().filter(told).collect();
        assert_eq!(lines, ["accept: */*", "host: shop.example:81", "user-agent: t"]);
        let answer = "HTTP/1.1 299 As We Say\r\nx-one: 1\r\ncontent-length: 2\r\nserver: x\r\n\r\nok";
        origin.write(answer).await;
        let head = client.head().await;
        assert!(head.starts_with("HTTP/1.1 299 As We Say\r\n"), "the words of the status stay: {head}");
        let mut lines: Vec<_> = head.lines().skip(1).filter(|line| !line.is_empty()).collect();
        lines.sort_unstable();
        assert_eq!(lines, ["content-length: 2", "server: x", "x-one: 1"]);
        assert_eq!(client.exactly(2).await, b"ok");
    });
}

#[test]
fn what_belongs_to_one_connection_is_taken_out() {
    for upstream in [Protocol::Http1, Protocol::Http2] {
        run(async move {
            let seen = Rc::new(RefCell::new(HeaderMap::new()));
            let kept = seen.clone();
            let origin = Origin::start(upstream, move |request| {
                *kept.borrow_mut() = request.headers().clone();
                async move {
                    let mut answer = Response::builder().header("x-b", "1");
                    if upstream == Protocol::Http1 {
                        answer = answer.header("connection", "x-mine").header("x-mine", "1");
                        answer = answer.header("keep-alive", "timeout=5").header("proxy-connection", "keep-alive");
                    }
                    answer.body(full("ok")).expect("answer")
                }
            })
            .await;
            let proxy = Proxy::between(origin.address, upstream);
            let mut wire = Wire::connect(proxy.address("in")).await;
            wire.write(
                "GET / HTTP/1.1\r\nhost: a\r\nconnection: keep-alive, x-secret\r\nx-secret: 1\r\nkeep-alive: 5\r\n\
                 proxy-connection: keep-alive\r\nte: gzip, trailers\r\nupgrade: h2c\r\nhttp2-settings: x\r\n\
                 proxy-authorization: Basic eA==\r\nx-a: 1\r\n\r\n",
            )
            .await;
            let head = wire.head().await;
            for name in ["x-mine", "keep-alive", "proxy-connection"] {
                assert!(!head.contains(name), "{name} in {head}");
            }
            assert!(head.contains("x-b: 1"));
            let seen = seen.borrow();
            for name in
                ["x-secret", "keep-alive", "proxy-connection", "upgrade", "http2-settings", "proxy-authorization"]
            {
                assert!(!seen.contains_key(name), "{name} in {seen:?}");
            }
            assert_eq!((&seen["te"], &seen["x-a"]), (&"trailers".parse().unwrap(), &"1".parse().unwrap()));
        });
    }
}

#[test]
fn the_host_is_the_authority_and_the_authority_is_the_host() {
    each(|client, upstream| async move {
        let seen = Rc::new(RefCell::new(None));
        let kept = seen.clone();
        let origin = Origin::start(upstream, move |request| {
            let host = request.headers().get("host").map(|host| host.to_str().expect("text").to_owned());
            let authority = request.uri().authority().map(|authority| authority.to_string());
            *kept.borrow_mut() = match upstream {
                Protocol::Http1 => host,
                Protocol::Http2 => {
                    assert_eq!(host, None, "one name is enough");
                    authority
                }
            };
            async { Response::new(empty()) }
        })
        .await;
        let proxy = Proxy::between(origin.address, upstream);
        let mut client = Client::connect(client, proxy.address("in")).await;
        for name in ["shop.example", "shop.example:8080", "[::1]:80"] {
            let request = match client {
                Client::Http1(..) => http::Request::get("/").header("host", name),
                Client::Http2(..) => http::Request::get(format!("http://{name}/")),
            };
            client.whole(request.body(empty()).expect("request")).await;
            assert_eq!(seen.borrow().as_deref(), Some(name));
        }
    });
}
