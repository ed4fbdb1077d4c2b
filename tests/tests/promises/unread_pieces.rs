//! Small messages that nobody reads are held against the connection that they came on, which many share. One reader that
//! stands still must not cost its neighbours that connection, in either direction, and is itself ended only where nothing
//! else helps.

use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::Rc;

use bytes::Bytes;
use h2::client::{ResponseFuture, SendRequest};
use http::{Request, Response};
use spanmesh_tests::Protocol::{Http1, Http2};
use spanmesh_tests::frames::{self, *};
use spanmesh_tests::streams::read_http2;
use spanmesh_tests::{Client, Proxy, Wire, eventually, run};
use tokio::net::TcpStream;

const PIECE: &[u8] = b"words\n";
/// Less than a stream's window, and more than the engine bears of such pieces.
const PIECES: usize = 40_500;

/// How an origin writes its pieces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Manner {
    /// As many as come together.
    Together,
    /// Each by itself.
    Singly,
}
use Manner::{Singly, Together};

struct Origin {
    address: SocketAddr,
    connections: Rc<Cell<usize>>,
    /// It has written all that it had for those who stand still.
    written: Rc<Cell<bool>>,
}

/// Answers the first so many requests of a connection with pieces without an end, in turns, and all others at once.
async fn origin(stalled: usize, pieces: usize, manner: Manner) -> Origin {
    let (connections, written) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(false)));
    let (count, done) = (connections.clone(), written.clone());
    let address = Wire::serve(move |wire, _| {
        count.set(count.get() + 1);
        let done = done.clone();
        async move { pile(wire, stalled, pieces, manner, &done).await.unwrap_or_default() }
    })
    .await;
    Origin { address, connections, written }
}

async fn pile(mut wire: Wire, stalled: usize, pieces: usize, manner: Manner, written: &Cell<bool>) -> Option<()> {
    frames::begin(&mut wire).await?;
    let mut streams = Vec::new();
    while streams.len() < stalled {
        streams.push(frames::head(&mut wire).await?);
    }
    let heads = streams.iter().flat_map(|stream| frame(HEADERS, END_HEADERS, *stream, OK));
    wire.send(&heads.collect::<Vec<_>>()).await.ok()?;
    let turn: Vec<_> = streams.iter().flat_map(|stream| frame(DATA, 0, *stream, PIECE)).collect();
    match manner {
        Together => wire.send(&turn.repeat(pieces)).await.ok()?,
        Singly => {
            for _ in 0..pieces {
                wire.send(&turn).await.ok()?;
                tokio::task::yield_now().await;
            }
        }
    }
    written.set(true);
    answer_all(wire).await
}

async fn answer_all(mut wire: Wire) -> Option<()> {
    loop {
        let stream = frames::head(&mut wire).await?;
        let head = frame(HEADERS, END_HEADERS, stream, OK);
        wire.send(&[head, frame(DATA, END_STREAM, stream, b"whole")].concat()).await.ok()?;
    }
}

/// A client that takes next to nothing.
async fn still(proxy: &Proxy) -> SendRequest<Bytes> {
    let stream = TcpStream::connect(proxy.address("in")).await.expect("connect");
    let mut builder = h2::client::Builder::new();
    let (send, connection) = builder.initial_window_size(10).handshake(stream).await.expect("handshake");
    tokio::task::spawn_local(async move { drop(connection.await) });
    send
}

fn get(client: &mut SendRequest<Bytes>) -> ResponseFuture {
    let request = Request::builder().uri("http://a/").body(()).expect("request");
    client.send_request(request, true).expect("send").0
}

#[test]
fn one_reader_that_stands_still_before_small_messages_costs_its_neighbours_nothing() {
    for manner in [Together, Singly] {
        run(async move {
            let origin = origin(1, PIECES, manner).await;
            let proxy = Proxy::between(origin.address, Http2);
            let mut client = still(&proxy).await;
            let stalled = get(&mut client).await.expect("a head");
            eventually("all pieces are written", || origin.written.get()).await;
            for protocol in [Http1, Http2] {
                let mut neighbour = Client::connect(protocol, proxy.address("in")).await;
                for _ in 0..20 {
                    assert_eq!(neighbour.get("/").await.body, "whole", "{manner:?}");
                }
            }
            assert_eq!(origin.connections.get(), 1, "{manner:?}");
            drop((stalled, client));
            proxy.at_rest().await;
        });
    }
}

/// What came together is one piece, which costs nothing: nobody has to go.
#[test]
fn who_goes_on_after_a_while_misses_nothing() {
    run(async {
        let origin = origin(4, PIECES / 4, Together).await;
        let proxy = Proxy::between(origin.address, Http2);
        let mut client = still(&proxy).await;
        let asked: Vec<_> = (0..4).map(|_| get(&mut client)).collect();
        let mut stalled = Vec::new();
        for answer in asked {
            stalled.push(answer.await.expect("a head").into_body());
        }
        eventually("all pieces are written", || origin.written.get()).await;
        let mut neighbour = Client::connect(Http1, proxy.address("in")).await;
        assert_eq!(neighbour.get("/").await.body, "whole");
        for mut body in stalled {
            let mut all = Vec::new();
            while all.len() < PIECES / 4 * PIECE.len() {
                let data = body.data().await.expect("more").expect("data");
                body.flow_control().release_capacity(data.len()).expect("taken");
                all.extend_from_slice(&data);
            }
            assert_eq!(all, PIECE.repeat(PIECES / 4));
        }
        assert_eq!(origin.connections.get(), 1);
    });
}

/// An origin may not have heard of the reset yet, or not care.
#[test]
fn what_still_comes_for_a_request_that_was_given_up_costs_its_neighbours_nothing() {
    for (streams, pieces) in [(1, 40_000), (20, 2_000)] {
        run(async move {
            let (connections, go_on) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(false)));
            let (count, gone) = (connections.clone(), go_on.clone());
            let address = Wire::serve(move |wire, _| {
                count.set(count.get() + 1);
                let gone = gone.clone();
                async move { deaf(wire, streams, pieces, &gone).await.unwrap_or_default() }
            })
            .await;
            let proxy = Proxy::between(address, Http2);
            let mut client = still(&proxy).await;
            let mut answers = Vec::new();
            for _ in 0..streams {
                answers.push(get(&mut client).await.expect("a head"));
            }
            drop(answers);
            eventually(&format!("the origin has written all the same: {streams} streams"), || go_on.get()).await;
            let mut neighbour = Client::connect(Http1, proxy.address("in")).await;
            for _ in 0..20 {
                assert_eq!(neighbour.get("/").await.body, "whole", "{streams} streams");
            }
            assert_eq!(connections.get(), 1, "{streams} streams");
            drop((client, neighbour));
            proxy.at_rest().await;
        });
    }
}

/// Goes on with its answers after they were given up.
async fn deaf(mut wire: Wire, streams: usize, pieces: usize, written: &Cell<bool>) -> Option<()> {
    frames::begin(&mut wire).await?;
    let mut cancelled = Vec::new();
    while cancelled.len() < streams {
        let stream = frames::head(&mut wire).await?;
        wire.send(&frame(HEADERS, END_HEADERS, stream, OK)).await.ok()?;
        cancelled.push(stream);
    }
    let mut resets = 0;
    while resets < streams {
        resets += usize::from(frames::read(&mut wire).await?.kind == RST_STREAM);
    }
    let turn: Vec<_> = cancelled.iter().flat_map(|stream| frame(DATA, 0, *stream, PIECE)).collect();
    wire.send(&turn.repeat(pieces)).await.ok()?;
    written.set(true);
    answer_all(wire).await
}

/// Reads nothing of the first request's body on a connection, and answers the others with the length of theirs.
async fn selective() -> SocketAddr {
    let (listener, address) = Wire::listen().await;
    tokio::task::spawn_local(async move {
        loop {
            let stream = Wire::accept(&listener).await.stream;
            tokio::task::spawn_local(async move {
                let mut builder = h2::server::Builder::new();
                builder.initial_window_size(1024);
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
                Some(())
            });
        }
    });
    address
}

/// The connection of a client may carry the requests of many, as that between two sidecars does.
#[test]
fn one_upload_of_small_messages_that_nobody_reads_costs_the_others_of_its_connection_nothing() {
    for manner in [Together, Singly] {
        run(async move {
            let proxy = Proxy::between(selective().await, Http2);
            let mut wire = Wire::connect(proxy.address("in")).await;
            wire.write([hello(), post(1, "/stalled")].concat()).await;
            match manner {
                Together => wire.write(frame(DATA, 0, 1, PIECE).repeat(PIECES)).await,
                Singly => {
                    for _ in 0..PIECES {
                        wire.write(frame(DATA, 0, 1, PIECE)).await;
                        tokio::task::yield_now().await;
                    }
                }
            }
            for turn in 0..20 {
                let id = 2 * turn + 3;
                wire.write([post(id, "/other"), frame(DATA, END_STREAM, id, b"12345")].concat()).await;
                loop {
                    let frame = frames::read(&mut wire).await.expect("a frame");
                    assert_ne!(frame.kind, GOAWAY, "{manner:?}: {frame:?}");
                    assert!(frame.kind != RST_STREAM || frame.stream == 1, "{manner:?}: {frame:?}");
                    if frame.kind == DATA && frame.stream == id {
                        assert_eq!(frame.payload, b"5", "{manner:?}");
                        break;
                    }
                }
            }
            drop(wire);
            proxy.at_rest().await;
        });
    }
}

fn post(stream: u32, path: &str) -> Vec<u8> {
    let fields = [&[0x83, 0x86, 0x44, path.len() as u8], path.as_bytes(), &[0x41, 1, b'a']].concat();
    frame(HEADERS, END_HEADERS, stream, &fields)
}
