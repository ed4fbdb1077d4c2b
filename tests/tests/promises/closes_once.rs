//! Every exchange closes exactly once, whoever goes away and whenever: afterwards nothing is in flight, and the flag says
//! whose doing it was.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use h2::client::SendRequest;
use http::Request;
use spanmesh_tests::streams::Asked;
use spanmesh_tests::{Protocol, Proxy, Scripted, Wire, each, eventually, run};
use tokio::net::TcpStream;

/// Where a client leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Point {
    BeforeHead,
    InHead,
    InBody,
    Waiting,
    InAnswer,
}

const POINTS: [Point; 5] = [Point::BeforeHead, Point::InHead, Point::InBody, Point::Waiting, Point::InAnswer];

/// `/begin` answers with a piece of a body, everything else never answers.
async fn never_ending(upstream: Protocol) -> Scripted {
    Scripted::start(upstream, |asked: Asked| async move {
        match asked.path.as_str() {
            "/begin" => asked.begin("a piece").await,
            _ => asked.ignore().await,
        }
    })
    .await
}

async fn leave_http1(address: SocketAddr, point: Point, reset: bool, in_flight: impl AsyncFn()) {
    let mut wire = Wire::connect(address).await;
    match point {
        Point::BeforeHead => {}
        Point::InHead => wire.write("GET / HTTP/1.1\r\nhost: a\r\nx-hal").await,
        Point::InBody => {
            wire.write("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 100\r\n\r\nhalf").await;
            in_flight().await;
        }
        Point::Waiting => {
            wire.write("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
            in_flight().await;
        }
        Point::InAnswer => {
            wire.write("GET /begin HTTP/1.1\r\nhost: a\r\n\r\n").await;
            wire.until("a piece").await;
        }
    }
    if reset {
        wire.reset();
    }
}

/// With one stream reset, or the whole connection dropped.
async fn leave_http2(address: SocketAddr, point: Point, whole: bool, in_flight: impl AsyncFn()) {
    let stream = TcpStream::connect(address).await.expect("connect");
    if point == Point::BeforeHead {
        return;
    }
    if point == Point::InHead {
        return Wire::from(stream).write("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0\0\0\x09\x01").await;
    }
    let (mut send, connection) = h2::client::handshake(stream).await.expect("handshake");
    let driving = tokio::task::spawn_local(async move { drop(connection.await) });
    let path = if point == Point::InAnswer { "/begin" } else { "/" };
    let (answer, mut body) = ask(&mut send, path, point != Point::InBody);
    let (mut waiting, mut got) = (None, None);
    match point {
        Point::InAnswer => {
            let mut answer = answer.await.expect("a head").into_body();
            answer.data().await.expect("a piece").expect("data");
            got = Some(answer);
        }
        _ => {
            if point == Point::InBody {
                body.send_data(Bytes::from_static(b"half"), false).expect("data");
            }
            in_flight().await;
            waiting = Some(answer);
        }
    }
    match whole {
        true => driving.abort(),
        false => {
            body.send_reset(h2::Reason::CANCEL);
            drop((body, got, waiting, send));
            let _ = driving.await;
        }
    }
}

fn ask(send: &mut SendRequest<Bytes>, path: &str, end: bool) -> (h2::client::ResponseFuture, h2::SendStream<Bytes>) {
    let method = if end { "GET" } else { "POST" };
    let request = Request::builder().method(method).uri(format!("http://a{path}")).body(()).expect("request");
    send.send_request(request, end).expect("send")
}

#[test]
fn clients_that_vanish_at_any_point_leave_nothing_behind() {
    each(|client, upstream| async move {
        let origin = never_ending(upstream).await;
        // Declared, because a client that says nothing would else be carried as bytes, and be in flight.
        let proxy = Proxy::start(&format!(
            "listeners:\n- {{name: in, mode: inbound, address: '127.0.0.1:0', upstream: app, protocol: http}}\n\
                 upstreams:\n- {{name: app, addresses: ['{}'], protocol: {}}}\n",
            origin.address,
            upstream.word()
        ));
        let mut expected = 0;
        for round in 0..25 {
            for point in POINTS {
                for abrupt in [true, false] {
                    let in_flight = async || {
                        let now = || proxy.metric("spanmesh_proxy_requests_in_flight", &[]);
                        eventually("it is in flight", || now() >= 1.0).await;
                    };
                    match client {
                        Protocol::Http1 => leave_http1(proxy.address("in"), point, abrupt, in_flight).await,
                        Protocol::Http2 => leave_http2(proxy.address("in"), point, abrupt, in_flight).await,
                    }
                    if matches!(point, Point::InBody | Point::Waiting | Point::InAnswer) {
                        expected += 1;
                        let nobody = || proxy.metric("spanmesh_proxy_requests_in_flight", &[]) == 0.0;
                        eventually(&format!("{point:?} ends, round {round}"), nobody).await;
                    }
                }
            }
        }
        proxy.at_rest().await;
        eventually("every line is written", || requests(&proxy).values().sum::<usize>() >= expected).await;
        assert_eq!(requests(&proxy), HashMap::from([("client_reset".to_owned(), expected)]), "{client:?} {upstream:?}");
        // Heads that were begun and not finished are counted too, and each thing once.
        let lines = proxy.log().iter().filter(|line| line["protocol"] != "TCP").count();
        assert_eq!(proxy.metric("spanmesh_proxy_requests_total", &[]) as usize, lines);
        if upstream == Protocol::Http1 {
            eventually("no connection to the origin is left", || origin.open.get() == 0).await;
        }
    });
}

/// The flags of all requests, without heads that never became one.
fn requests(proxy: &Proxy) -> HashMap<String, usize> {
    let mut flags = HashMap::new();
    for line in proxy.log().iter().filter(|line| line["method"].is_string()) {
        *flags.entry(line["flag"].as_str().expect("a flag").to_owned()).or_default() += 1;
    }
    flags
}

#[test]
fn origins_that_break_at_any_point_leave_nothing_behind() {
    each(|client, upstream| async move {
        let origin = Scripted::start(upstream, |asked: Asked| async move {
            match asked.path.as_str() {
                "/head" => asked.reset(h2::Reason::INTERNAL_ERROR).await,
                _ => asked.break_off("a piece").await,
            }
        })
        .await;
        let proxy = Proxy::between(origin.address, upstream);
        let mut sent = 0;
        for _ in 0..60 {
            for path in ["/head", "/body"] {
                let mut client = spanmesh_tests::Client::connect(client, proxy.address("in")).await;
                let request = client.request("POST", path).body(spanmesh_tests::origin::full("x")).expect("request");
                sent += 1;
                match client.send(request).await {
                    Ok(answer) if path == "/head" => assert_eq!(answer.status().as_u16(), 502),
                    Ok(answer) => drop(spanmesh_tests::client::whole(answer).await.expect_err("broken off")),
                    // A reset takes along what has not been written yet: that may be the head too.
                    Err(_) => {}
                }
            }
        }
        proxy.at_rest().await;
        eventually("every line is written", || requests(&proxy).values().sum::<usize>() >= sent).await;
        assert_eq!(requests(&proxy), HashMap::from([("upstream_reset".to_owned(), sent)]), "{client:?} {upstream:?}");
    });
}

/// Neither side moves any more when the client leaves: the origin must hear of it.
#[test]
fn an_upload_that_stalls_is_let_go_when_its_client_leaves() {
    for (answered, upstream) in
        [(false, Protocol::Http1), (true, Protocol::Http1), (false, Protocol::Http2), (true, Protocol::Http2)]
    {
        run(async move {
            let (listener, address) = Wire::listen().await;
            let proxy = Proxy::between(address, upstream);
            let origin = tokio::task::spawn_local(async move {
                let mut wire = Wire::accept(&listener).await;
                if upstream == Protocol::Http1 {
                    wire.head().await;
                    if answered {
                        wire.write("HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\na piece").await;
                    }
                    // Reads nothing; the end shows when the socket breaks.
                    loop {
                        tokio::time::sleep(Duration::from_millis(20)).await;
                        if answered && wire.send(b"x").await.is_err() {
                            return;
                        }
                        if !answered && wire.stream.take_error().expect("socket").is_some() {
                            return;
                        }
                        if wire.send(b"").await.is_err() {
                            return;
                        }
                    }
                }
                let mut connection = h2::server::handshake(wire.stream).await.expect("handshake");
                let (request, mut reply) = connection.accept().await.expect("a stream").expect("a stream");
                tokio::task::spawn_local(async move { while connection.accept().await.is_some() {} });
                if answered {
                    let mut stream = reply.send_response(http::Response::new(()), false).expect("head");
                    stream.send_data(Bytes::from_static(b"a piece"), false).expect("data");
                    drop(std::future::poll_fn(|cx| stream.poll_reset(cx)).await);
                } else {
                    drop(std::future::poll_fn(|cx| reply.poll_reset(cx)).await);
                }
                drop(request);
            });
            let stream = TcpStream::connect(proxy.address("in")).await.expect("connect");
            let (mut send, connection) = h2::client::handshake(stream).await.expect("handshake");
            let driving = tokio::task::spawn_local(async move { drop(connection.await) });
            let (answer, mut body) = ask(&mut send, "/", false);
            body.send_data(vec![b'x'; 8 * 1024 * 1024].into(), false).expect("data");
            let (mut waiting, mut got) = (None, None);
            if answered {
                let mut answer = answer.await.expect("a head").into_body();
                answer.data().await.expect("a piece").expect("data");
                got = Some(answer);
            } else {
                waiting = Some(answer);
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
            body.send_reset(h2::Reason::CANCEL);
            drop((body, got, waiting));
            if upstream == Protocol::Http2 {
                origin.await.expect("the origin's stream is reset");
            }
            drop(send);
            let _ = driving.await;
            proxy.at_rest().await;
            assert_eq!(proxy.logged(1).await[0]["flag"], "client_reset", "answered: {answered} {upstream:?}");
        });
    }
}
