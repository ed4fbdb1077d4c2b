//! One stalled stream of a hundred takes nothing from the other ninety-nine, and costs a bounded piece of memory, in
//! either direction, whoever stalls.

use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use h2::client::SendRequest;
use http::{Request, Response};
use http_body::Frame;
use spanmesh_tests::origin::{channel, empty, full};
use spanmesh_tests::streams::read_http2;
use spanmesh_tests::{Client, Origin, Protocol, Proxy, Wire, eventually, run};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

const PIECE: usize = 16 * 1024;
/// Of each of the 99: more than a stream's window, so that the window must move.
const WHOLE: usize = 512 * 1024;
/// More than all buffers of one stalled stream: kernel sockets, windows, send buffers.
const BOUND: usize = 24 * 1024 * 1024;

/// `/endless` never stops, and `fed` counts what it gave; everything else is `WHOLE` bytes.
async fn fountain(protocol: Protocol) -> (Origin, Rc<Cell<usize>>) {
    let fed = Rc::new(Cell::new(0));
    let count = fed.clone();
    let origin = Origin::start(protocol, move |request| {
        let count = count.clone();
        async move {
            if request.uri().path() != "/endless" {
                return Response::new(full(vec![b'x'; WHOLE]));
            }
            let (feed, body) = channel();
            tokio::task::spawn_local(async move {
                let piece = Bytes::from(vec![b'y'; PIECE]);
                while count.get() < 2 * BOUND && feed.send(Frame::data(piece.clone())).await.is_ok() {
                    count.set(count.get() + PIECE);
                }
            });
            Response::new(body)
        }
    })
    .await;
    (origin, fed)
}

/// Never reads the body of `/stalled`, and answers everything else with the length of its body.
async fn selective(protocol: Protocol) -> SocketAddr {
    let (listener, address) = Wire::listen().await;
    tokio::task::spawn_local(async move {
        loop {
            let mut wire = Wire::accept(&listener).await;
            tokio::task::spawn_local(async move {
                if protocol == Protocol::Http2 {
                    return selective_http2(wire.stream).await;
                }
                loop {
                    let head = wire.try_until("\r\n\r\n").await?;
                    if head.starts_with("POST /stalled") {
                        std::future::pending::<()>().await;
                    }
                    let length = head.split("content-length: ").nth(1)?.split('\r').next()?.to_owned();
                    wire.try_exactly(length.parse().ok()?).await?;
                    let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{length}", length.len());
                    wire.send(answer.as_bytes()).await.ok()?;
                }
            });
        }
    });
    address
}

/// Its own connection window is wide, so that what it does not read is nobody's trouble but the stream's.
async fn selective_http2(stream: TcpStream) -> Option<()> {
    let mut builder = h2::server::Builder::new();
    builder.initial_window_size(64 * 1024).initial_connection_window_size(1 << 24);
    let mut connection = builder.handshake::<_, Bytes>(stream).await.ok()?;
    let mut held = Vec::new();
    while let Some(accepted) = connection.accept().await {
        let (request, mut reply) = accepted.ok()?;
        if request.uri().path() == "/stalled" {
            held.push((request, reply));
            continue;
        }
        tokio::task::spawn_local(async move {
            let length = read_http2(request.into_body()).await?.len().to_string();
            reply.send_response(Response::new(()), false).ok()?.send_data(length.into(), true).ok()
        });
    }
    None
}

/// Waits until nothing more is taken, and says how much it was.
async fn settled(fed: &Rc<Cell<usize>>) -> usize {
    loop {
        let before = fed.get();
        tokio::time::sleep(Duration::from_millis(300)).await;
        if before > 0 && fed.get() == before {
            return before;
        }
    }
}

/// A client whose own connection window is no limit.
async fn wide(proxy: &Proxy) -> SendRequest<Bytes> {
    let stream = TcpStream::connect(proxy.address("in")).await.expect("connect");
    let (send, connection) = h2::client::Builder::new()
        .initial_connection_window_size(1 << 30)
        .initial_window_size(64 * 1024)
        .handshake(stream)
        .await
        .expect("handshake");
    tokio::task::spawn_local(async move { drop(connection.await) });
    send
}

fn get(path: &str) -> Request<()> {
    Request::builder().uri(format!("http://a{path}")).body(()).expect("request")
}

#[test]
fn a_client_that_does_not_read_one_stream_reads_the_others() {
    for upstream in [Protocol::Http1, Protocol::Http2] {
        run(async move {
            let (origin, fed) = fountain(upstream).await;
            let proxy = Proxy::between(origin.address, upstream);
            let mut client = wide(&proxy).await;
            let (stalled, _) = client.send_request(get("/endless"), true).expect("send");
            let stalled = stalled.await.expect("a head");
            let taken = settled(&fed).await;
            assert!(taken < BOUND, "{upstream:?}: {taken} bytes for a reader that stands still");

            let mut reading = JoinSet::new();
            for _ in 0..99 {
                let (answer, _) = client.send_request(get("/"), true).expect("send");
                reading.spawn_local(async move {
                    let body = answer.await.expect("a head").into_body();
                    read_http2(body).await.expect("a whole body").len()
                });
            }
            while let Some(length) = reading.join_next().await {
                assert_eq!(length.expect("join"), WHOLE);
            }
            assert_eq!(fed.get(), taken, "the stalled one did not move");
            drop((stalled, client));
            proxy.at_rest().await;
        });
    }
}

/// As many as the window of the connection to the origin is made for. The others have room on it all the same.
#[test]
fn sixty_four_streams_that_nobody_reads_leave_room_on_the_connection_to_the_origin() {
    run(async {
        let (origin, fed) = fountain(Protocol::Http2).await;
        let proxy = Proxy::between(origin.address, Protocol::Http2);
        let mut client = wide(&proxy).await;
        let mut stalled = Vec::new();
        for _ in 0..64 {
            let (answer, _) = client.send_request(get("/endless"), true).expect("send");
            stalled.push(answer.await.expect("a head"));
        }
        let taken = settled(&fed).await;
        assert!(taken < 2 * BOUND, "the fountain dried up");
        for _ in 0..10 {
            let (answer, _) = client.send_request(get("/"), true).expect("send");
            let body = answer.await.expect("a head").into_body();
            assert_eq!(read_http2(body).await.expect("a whole body").len(), WHOLE);
        }
        assert_eq!((fed.get(), origin.connections.get()), (taken, 1));
        drop((stalled, client));
        proxy.at_rest().await;
    });
}

#[test]
fn an_origin_that_does_not_read_one_stream_reads_the_others() {
    for upstream in [Protocol::Http1, Protocol::Http2] {
        run(async move {
            let address = selective(upstream).await;
            let proxy = Proxy::between(address, upstream);
            let client = Client::connect(Protocol::Http2, proxy.address("in")).await;
            let (feed, body) = channel();
            let fed = Rc::new(Cell::new(0));
            let count = fed.clone();
            tokio::task::spawn_local(async move {
                let piece = Bytes::from(vec![b'y'; PIECE]);
                while count.get() < 2 * BOUND && feed.send(Frame::data(piece.clone())).await.is_ok() {
                    count.set(count.get() + PIECE);
                }
            });
            let request = client.request("POST", "/stalled").body(body).expect("request");
            let Client::Http2(send, address) = &client else { unreachable!() };
            let mut stalled = Client::Http2(send.clone(), *address);
            let stalled = tokio::task::spawn_local(async move { drop(stalled.send(request).await) });
            let taken = settled(&fed).await;
            assert!(taken < BOUND, "{upstream:?}: {taken} bytes for an origin that stands still");

            let mut writing = JoinSet::new();
            for _ in 0..99 {
                let Client::Http2(send, address) = &client else { unreachable!() };
                let mut client = Client::Http2(send.clone(), *address);
                let request = client.request("POST", "/").body(full(vec![b'x'; WHOLE])).expect("request");
                writing.spawn_local(async move { client.whole(request).await.body });
            }
            while let Some(body) = writing.join_next().await {
                assert_eq!(body.expect("join"), WHOLE.to_string());
            }
            assert_eq!(fed.get(), taken, "the stalled one did not move");
            stalled.abort();
            drop(client);
            proxy.at_rest().await;
        });
    }
}

#[test]
fn a_reader_that_stands_still_costs_bounded_memory() {
    for upstream in [Protocol::Http1, Protocol::Http2] {
        run(async move {
            let (origin, fed) = fountain(upstream).await;
            let proxy = Proxy::between(origin.address, upstream);
            let mut wire = Wire::connect(proxy.address("in")).await;
            wire.write("GET /endless HTTP/1.1\r\nhost: a\r\n\r\n").await;
            let taken = settled(&fed).await;
            assert!(taken < BOUND, "{upstream:?}: {taken} bytes");
            // Where it goes on, everything is there.
            wire.exactly(taken).await;
            eventually("it flows again", || fed.get() > taken).await;
        });
    }
}

/// An origin that stops in the middle of one answer: the other streams of its connection go on.
#[test]
fn an_origin_that_stalls_one_answer_gives_the_others() {
    for client in [Protocol::Http1, Protocol::Http2] {
        run(async move {
            let origin = Origin::start(Protocol::Http2, |request| async move {
                if request.uri().path() == "/stalled" {
                    let (feed, body) = channel();
                    feed.send(Frame::data(Bytes::from_static(b"a piece"))).await.expect("taken");
                    tokio::task::spawn_local(async move { feed.closed().await });
                    return Response::new(body);
                }
                Response::new(full(vec![b'x'; WHOLE]))
            })
            .await;
            let proxy = Proxy::between(origin.address, Protocol::Http2);
            let mut waiting = Client::connect(client, proxy.address("in")).await;
            let request = waiting.request("GET", "/stalled").body(empty()).expect("request");
            let stalled = waiting.send(request).await.expect("a head");
            let mut reading = JoinSet::new();
            for _ in 0..99 {
                let mut client = Client::connect(client, proxy.address("in")).await;
                reading.spawn_local(async move { client.get("/").await.body.len() });
            }
            while let Some(length) = reading.join_next().await {
                assert_eq!(length.expect("join"), WHOLE);
            }
            assert!(origin.connections.get() <= 2, "the same connection carried them");
            drop((stalled, waiting));
        });
    }
}
