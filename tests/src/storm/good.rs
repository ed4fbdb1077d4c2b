//! The traffic that must not notice the storm. A round is one connection and some uses of it; whatever is not exactly as
//! it should be panics, and a panic is a failed round.

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::Frame;
use rustls::version::TLS13;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;

use super::measure::Tally;
use super::{Dice, PATTERN, Sharing, pattern};
use crate::certificates::connect;
use crate::origin::{channel, full};
use crate::{Authority, Client, Protocol, Wire};

/// Where the proxy listens, and what its clients need.
pub struct Places {
    pub plain: SocketAddr,
    pub edge: SocketAddr,
    pub tcp: SocketAddr,
    pub sharing: Sharing,
    pub http1: TlsConnector,
    pub http2: TlsConnector,
}

impl Places {
    pub fn new(sharing: Sharing, [plain, edge, tcp]: [SocketAddr; 3], authority: &Authority) -> Self {
        let connector = |alpn| authority.client(&[alpn], &[&TLS13]);
        Self { plain, edge, tcp, sharing, http1: connector("http/1.1"), http2: connector("h2") }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Http1,
    Http2,
    Grpc,
    WebSocket,
    Opaque,
    Tls,
    Down,
    Up,
}

impl Kind {
    pub const ALL: [Kind; 8] =
        [Kind::Http1, Kind::Http2, Kind::Grpc, Kind::WebSocket, Kind::Opaque, Kind::Tls, Kind::Down, Kind::Up];

    /// How long one use may take at most: generous, because the machine is busy with the storm itself.
    pub fn bound(self) -> Duration {
        match self {
            Kind::Down | Kind::Up => Duration::from_secs(20),
            _ => Duration::from_secs(5),
        }
    }
}

pub async fn round(kind: Kind, places: Rc<Places>, tally: Rc<Tally>, mut dice: Dice) {
    // Straight, by an HTTP/2 hop, by a TLS hop.
    let way = ["", "/two", "/secure"][dice.below(3)];
    let protocol = if dice.below(2) == 0 { Protocol::Http1 } else { Protocol::Http2 };
    match kind {
        Kind::Http1 => {
            let mut client = Client::connect(Protocol::Http1, places.plain).await;
            for _ in 0..1 + dice.below(40) {
                let timed = tally.begin(kind);
                echo(&mut client, way, &mut dice).await;
                timed.done();
                dice.pause(10).await;
            }
        }
        Kind::Http2 => {
            for _ in 0..1 + dice.below(5) {
                let mut streams = JoinSet::new();
                let connection = Client::connect(Protocol::Http2, places.plain).await;
                for _ in 0..8 {
                    let (mut client, mut dice, tally) = (another(&connection), dice.split(), tally.clone());
                    streams.spawn_local(async move {
                        for _ in 0..1 + dice.below(10) {
                            let timed = tally.begin(kind);
                            echo(&mut client, way, &mut dice).await;
                            timed.done();
                            dice.pause(10).await;
                        }
                    });
                }
                while let Some(ended) = streams.join_next().await {
                    ended.expect("a stream");
                }
            }
        }
        // Its trailers come unannounced, which HTTP/1.1 has no room for.
        Kind::Grpc => grpc(&places, if way.is_empty() { "/two" } else { way }, &tally, &mut dice).await,
        Kind::WebSocket => websocket(&places, &tally, &mut dice).await,
        Kind::Opaque => opaque(&places, &tally, &mut dice).await,
        Kind::Tls => {
            let connector = if protocol == Protocol::Http1 { &places.http1 } else { &places.http2 };
            let timed = tally.begin(kind);
            let stream = connect(connector, "storm.example", places.edge).await.expect("a handshake");
            timed.done();
            let mut client = Client::over(protocol, stream, places.edge).await;
            for _ in 0..1 + dice.below(20) {
                let timed = tally.begin(kind);
                echo(&mut client, "", &mut dice).await;
                timed.done();
            }
        }
        Kind::Down => {
            let mut client = Client::connect(protocol, places.plain).await;
            let (place, length) = (dice.below(PATTERN), dice.below(PATTERN));
            let timed = tally.begin(kind);
            let answer = client.get(&format!("{way}/down/{place}/{length}")).await;
            assert!(answer.status == 200 && answer.body == pattern(place, length), "{}", answer.status);
            timed.done();
        }
        Kind::Up => {
            let mut client = Client::connect(protocol, places.plain).await;
            let (place, length) = (dice.below(PATTERN), dice.below(PATTERN));
            let request = client.request("POST", &format!("{way}/up/{place}/{length}"));
            let timed = tally.begin(kind);
            let answer = client.whole(request.body(full(pattern(place, length))).expect("request")).await;
            assert_eq!((answer.status.as_u16(), &answer.body[..]), (200, &b"whole"[..]));
            timed.done();
        }
    }
}

fn another(client: &Client) -> Client {
    match client {
        Client::Http2(send, address) => Client::Http2(send.clone(), *address),
        Client::Http1(..) => unreachable!("one request at a time"),
    }
}

async fn echo(client: &mut Client, way: &str, dice: &mut Dice) {
    let body = pattern(dice.below(PATTERN), dice.below(20_000));
    let method = ["POST", "PUT", "GET"][dice.below(3)];
    let body = if method == "GET" { Bytes::new() } else { body };
    let request = client.request(method, &format!("{way}/echo")).body(full(body.clone())).expect("request");
    let answer = client.whole(request).await;
    assert!(answer.status == 200 && answer.body == body, "{method}: {} {}", answer.status, answer.body.len());
}

async fn grpc(places: &Places, way: &str, tally: &Rc<Tally>, dice: &mut Dice) {
    let mut client = Client::connect(Protocol::Http2, places.plain).await;
    let (feed, body) = channel();
    let request = client.request("POST", &format!("{way}/grpc")).header("content-type", "application/grpc");
    let timed = tally.begin(Kind::Grpc);
    let answer = client.send(request.header("te", "trailers").body(body).expect("request")).await.expect("an answer");
    timed.done();
    let mut answer = answer.into_body();
    for _ in 0..dice.below(30) {
        let message = pattern(dice.below(PATTERN), 1 + dice.below(5000));
        let timed = tally.begin(Kind::Grpc);
        feed.send(Frame::data(message.clone())).await.expect("sent");
        let mut back = BytesMut::new();
        while back.len() < message.len() {
            let frame = answer.frame().await.expect("a frame").expect("a whole frame");
            back.extend_from_slice(&frame.into_data().expect("data"));
        }
        assert!(back == message);
        timed.done();
        dice.pause(10).await;
    }
    drop(feed);
    let last = answer.collect().await.expect("trailers");
    assert_eq!(last.trailers().expect("trailers")["grpc-status"], "0");
}

async fn websocket(places: &Places, tally: &Rc<Tally>, dice: &mut Dice) {
    let mut wire = Wire::connect(places.plain).await;
    let timed = tally.begin(Kind::WebSocket);
    wire.write(UPGRADE).await;
    assert!(wire.head().await.starts_with("HTTP/1.1 101 "));
    timed.done();
    for _ in 0..dice.below(30) {
        let message = pattern(dice.below(PATTERN), 1 + dice.below(5000));
        let timed = tally.begin(Kind::WebSocket);
        wire.write(&message).await;
        assert!(wire.exactly(message.len()).await == message);
        timed.done();
        dice.pause(10).await;
    }
    wire.finish().await;
    assert!(wire.rest().await.is_empty());
}

pub const UPGRADE: &str = "GET /ws HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
    sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

async fn opaque(places: &Places, tally: &Rc<Tally>, dice: &mut Dice) {
    let bytes = pattern(dice.below(PATTERN), dice.below(PATTERN / 8));
    let started = tally.begin(Kind::Opaque);
    let (mut reader, mut writer) = TcpStream::connect(places.tcp).await.expect("connect").into_split();
    let sent = bytes.clone();
    let sending = tokio::task::spawn_local(async move {
        writer.write_all(&sent).await.expect("sent");
        writer.shutdown().await.expect("finished");
        writer
    });
    let mut back = Vec::new();
    reader.read_to_end(&mut back).await.expect("read to the end");
    sending.await.expect("join");
    assert!(bytes == back, "{} of {} bytes", back.len(), bytes.len());
    started.done();
}
