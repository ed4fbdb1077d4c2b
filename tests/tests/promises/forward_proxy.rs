//! An outbound listener without routes, upstream or redirection is a plain forward proxy: absolute targets and CONNECT.

use http::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use spanmesh_tests::origin::empty;
use spanmesh_tests::{Client, Origin, Protocol, Proxy, Wire, run};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

fn forward() -> Proxy {
    Proxy::start("listeners:\n- {name: out, mode: outbound, address: '127.0.0.1:0'}\n")
}

#[test]
fn an_absolute_target_says_where_to_go() {
    run(async {
        let origin = Origin::hello(Protocol::Http1).await;
        let proxy = forward();
        let mut wire = Wire::connect(proxy.address("out")).await;
        for _ in 0..2 {
            // The target wins over the Host beside it.
            wire.write(format!("GET http://{}/a?b HTTP/1.1\r\nhost: elsewhere\r\n\r\n", origin.address)).await;
            assert!(wire.head().await.starts_with("HTTP/1.1 200 OK\r\n"));
            assert_eq!(wire.exactly(5).await, b"hello");
        }
        assert_eq!(origin.requests.get(), 2);
        wire.write("GET /a HTTP/1.1\r\nhost: a\r\n\r\n").await;
        assert!(wire.head().await.starts_with("HTTP/1.1 404 "), "there is nowhere to go");
        assert_eq!(proxy.logged(3).await[2]["flag"], "no_route");
    });
}

#[test]
fn connect_opens_a_tunnel_over_http1() {
    run(async {
        let (listener, address) = Wire::listen().await;
        let proxy = forward();
        let mut client = Wire::connect(proxy.address("out")).await;
        client.write(format!("CONNECT {address} HTTP/1.1\r\nhost: {address}\r\n\r\nearly")).await;
        let mut origin = Wire::accept(&listener).await;
        let head = client.head().await;
        assert!(head.starts_with("HTTP/1.1 200 ") && !head.contains("content-length"), "{head}");
        assert!(!head.contains("transfer-encoding"), "{head}");
        assert_eq!(origin.exactly(5).await, b"early");
        origin.write("from the origin").await;
        assert_eq!(client.exactly(15).await, b"from the origin");
        client.finish().await;
        assert!(origin.rest().await.is_empty());
        origin.write("still").await;
        drop(origin);
        assert_eq!(client.rest().await, b"still");
        let line = proxy.logged(1).await.remove(0);
        assert_eq!((&line["flag"], &line["method"], &line["status"]), (&"ok".into(), &"CONNECT".into(), &200.into()));
    });
}

#[test]
fn connect_opens_a_tunnel_over_http2() {
    run(async {
        let (listener, address) = Wire::listen().await;
        let proxy = forward();
        let mut client = Client::connect(Protocol::Http2, proxy.address("out")).await;
        let request = Request::connect(address.to_string()).body(empty()).expect("request");
        let mut answer = client.send(request).await.expect("answer");
        assert_eq!(answer.status(), StatusCode::OK);
        let mut origin = Wire::accept(&listener).await;
        let mut io = TokioIo::new(hyper::upgrade::on(&mut answer).await.expect("a tunnel"));
        io.write_all(b"over").await.expect("write");
        assert_eq!(origin.exactly(4).await, b"over");
        origin.write("back").await;
        let mut back = [0; 4];
        io.read_exact(&mut back).await.expect("read");
        assert_eq!(&back, b"back");
    });
}

#[test]
fn a_tunnel_that_cannot_be_dug_is_an_ordinary_answer() {
    run(async {
        let nobody = std::net::TcpListener::bind("127.0.0.1:0").expect("bind").local_addr().expect("address");
        let proxy = forward();
        for protocol in [Protocol::Http1, Protocol::Http2] {
            let mut client = Client::connect(protocol, proxy.address("out")).await;
            let request = Request::connect(nobody.to_string()).header("host", nobody.to_string());
            let answer = client.whole(request.body(empty()).expect("request")).await;
            assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
            assert!(answer.body.starts_with(b"connect_failed"), "{:?}", answer.body);
        }
        // The proxy does not go round in circles, and a listener with an upstream of its own digs no tunnels.
        let own = proxy.address("out");
        let mut client = Client::connect(Protocol::Http1, own).await;
        let request = Request::connect(own.to_string()).header("host", own.to_string());
        let answer = client.whole(request.body(empty()).expect("request")).await;
        assert_eq!(answer.status, StatusCode::FORBIDDEN);
        let origin = Origin::hello(Protocol::Http1).await;
        let inbound = Proxy::between(origin.address, Protocol::Http1);
        let mut client = Client::connect(Protocol::Http1, inbound.address("in")).await;
        let request = Request::connect(nobody.to_string()).header("host", nobody.to_string());
        let answer = client.whole(request.body(empty()).expect("request")).await;
        assert_eq!(answer.status, StatusCode::FORBIDDEN);
    });
}
