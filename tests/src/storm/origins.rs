//! What stands behind the proxy in a storm: servers that do as they are asked, and servers that break every rule.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::BodyExt;
use hyper::body::{Frame, Incoming};
use hyper_util::rt::TokioIo;
use tokio::io::AsyncWriteExt;
use tokio::sync::oneshot;
use tokio_rustls::TlsAcceptor;

use super::{Dice, pattern};
use crate::origin::{Body, channel, full};
use crate::{Origin, Protocol, Wire, frames};

/// All of them, on a thread of their own: an origin that has no time takes what it has not looked at for an attack.
pub struct Origins {
    /// What stands for each in the configuration.
    pub addresses: [(&'static str, SocketAddr); 7],
    /// The thread ends when this is dropped.
    _stay: oneshot::Sender<()>,
}

impl Origins {
    pub async fn start(acceptor: impl Fn() -> TlsAcceptor) -> Self {
        let (good, bad) = (acceptor(), acceptor());
        let (tell, told) = oneshot::channel();
        let (stay, stayed) = oneshot::channel();
        std::thread::spawn(move || {
            let mut builder = tokio::runtime::Builder::new_current_thread();
            let runtime = builder.enable_all().build_local(tokio::runtime::LocalOptions::default()).expect("a runtime");
            runtime.block_on(async {
                let app1 = Origin::start(Protocol::Http1, serve).await;
                let app2 = Origin::start(Protocol::Http2, serve).await;
                let secure = Origin::secure(good, serve).await;
                let addresses = [
                    ("APP1", app1.address),
                    ("APP2", app2.address),
                    ("SECURE", secure.address),
                    ("ECHO", echo().await),
                    ("BAD1", bad_http1().await),
                    ("BAD2", bad_http2().await),
                    ("WORSE", bad_tls(bad).await),
                ];
                tell.send(addresses).expect("it waits");
                // Ends with an error, since nothing is ever said.
                let _: Result<(), _> = stayed.await;
            });
        });
        Self { addresses: told.await.expect("the thread serves"), _stay: stay }
    }
}

/// Answers what the good clients ask: `…/echo`, `…/grpc`, `…/ws`, `…/down/PLACE/LENGTH`, `…/up/PLACE/LENGTH`.
pub async fn serve(mut request: Request<Incoming>) -> Response<Body> {
    let path = request.uri().path().to_owned();
    let words: Vec<&str> = path.split('/').skip_while(|word| !WORDS.contains(word)).collect();
    let number = |place: usize| words.get(place).and_then(|word| word.parse::<usize>().ok()).unwrap_or_default();
    match words.first().copied().unwrap_or_default() {
        "echo" => match request.into_body().collect().await {
            Ok(whole) => Response::new(full(whole.to_bytes())),
            Err(_) => Response::builder().status(400).body(full("gone")).expect("answer"),
        },
        "grpc" => Response::new(echoed(request.into_body())),
        "ws" => {
            let upgrade = hyper::upgrade::on(&mut request);
            tokio::task::spawn_local(async move {
                let Ok(upgraded) = upgrade.await else { return };
                let (mut reader, mut writer) = tokio::io::split(TokioIo::new(upgraded));
                let _ = tokio::io::copy(&mut reader, &mut writer).await;
                let _ = writer.shutdown().await;
            });
            let answer = Response::builder().status(101).header("connection", "upgrade").header("upgrade", "websocket");
            answer.header("sec-websocket-accept", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=").body(full("")).expect("answer")
        }
        "down" => {
            let (feed, body) = channel();
            let bytes = pattern(number(1), number(2));
            tokio::task::spawn_local(async move {
                for start in (0..bytes.len()).step_by(PIECE) {
                    let piece = bytes.slice(start..bytes.len().min(start + PIECE));
                    if feed.send(Frame::data(piece)).await.is_err() {
                        return;
                    }
                }
            });
            Response::new(body)
        }
        "up" => {
            let whole = request.into_body().collect().await.map(|whole| whole.to_bytes());
            let right = whole.is_ok_and(|whole| whole == pattern(number(1), number(2)));
            Response::new(full(if right { "whole" } else { "wrong" }))
        }
        _ => Response::builder().status(404).body(full("nothing here")).expect("answer"),
    }
}

const WORDS: [&str; 5] = ["echo", "grpc", "ws", "down", "up"];
const PIECE: usize = 16 * 1024;

/// Each piece as it comes, then the status that gRPC ends with.
fn echoed(mut body: Incoming) -> Body {
    let (feed, answer) = channel();
    tokio::task::spawn_local(async move {
        while let Some(frame) = body.frame().await {
            let Ok(frame) = frame else { return };
            if frame.is_data() && feed.send(frame).await.is_err() {
                return;
            }
        }
        let trailers = HeaderMap::from_iter([("grpc-status".parse().expect("name"), HeaderValue::from_static("0"))]);
        let _ = feed.send(Frame::trailers(trailers)).await;
    });
    answer
}

/// Gives every byte back, and the end too.
pub async fn echo() -> SocketAddr {
    bad(|wire, _| async move {
        let (mut reader, mut writer) = wire.stream.into_split();
        let _ = tokio::io::copy(&mut reader, &mut writer).await;
    })
    .await
}

/// Each connection has dice of its own, and an end.
async fn bad<F: Future<Output = ()> + 'static>(serve: impl Fn(Wire, Dice) -> F + 'static) -> SocketAddr {
    Wire::serve(move |wire, number| {
        let serving = serve(wire, Dice::new(number as u64));
        async move { drop(tokio::time::timeout(PATIENCE, serving).await) }
    })
    .await
}

/// Speaks HTTP/1.1 badly.
pub async fn bad_http1() -> SocketAddr {
    bad(|mut wire, mut dice| async move {
        // Before anything was asked.
        match dice.below(20) {
            0 => return,
            1 => return wire.reset(),
            2 => drop(wire.send(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await),
            _ => {}
        }
        loop {
            let asked = if dice.below(8) == 0 { wire.try_exactly(9).await.map(drop) } else { head(&mut wire).await };
            if asked.is_none() {
                return;
            }
            let answer = ANSWERS[dice.below(ANSWERS.len())];
            let sent = wire.send(answer.as_bytes()).await;
            if dice.below(8) == 0 {
                tokio::time::sleep(Duration::from_millis(dice.below(3000) as u64)).await;
            }
            match dice.below(5) {
                _ if sent.is_err() => return,
                0 => return wire.reset(),
                1 => return,
                _ => {}
            }
        }
    })
    .await
}

async fn head(wire: &mut Wire) -> Option<()> {
    wire.try_until("\r\n\r\n").await.map(drop)
}

const ANSWERS: [&str; 24] = [
    "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok",
    "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    "",
    "HT",
    "HTTP/1.1 200 OK\r\ncontent-le",
    "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nshort",
    "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nlonger than that",
    "HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\nok",
    "HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n",
    "HTTP/1.1 200 OK\r\ncontent-length: 99999999999999999999999\r\n\r\n",
    "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nff\r\nhalf a chunk",
    "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nxyz\r\nno size\r\n",
    "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n",
    "HTTP/1.1 200 OK\r\ntransfer-encoding: gzip\r\n\r\n",
    "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nokHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nno",
    "HTTP/1.1 503 No\r\ncontent-length: 2\r\n\r\nno",
    "HTTP/1.1 101 Switching\r\nupgrade: else\r\nconnection: upgrade\r\n\r\n",
    "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Hints\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok",
    "HTTP/1.0 200 OK\r\n\r\nto the end",
    "HTTP/9.9 200 OK\r\n\r\n",
    "HTTP/1.1 abc OK\r\n\r\n",
    "\0\u{1}\u{2}\u{3}\u{16}garbage\r\n\r\n",
    "HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
    "HTTP/1.1 204 None\r\ncontent-length: 5\r\n\r\nhello",
];

/// Speaks HTTP/2 badly.
pub async fn bad_http2() -> SocketAddr {
    bad(|mut wire, mut dice| async move {
        match dice.below(20) {
            0 => return,
            1 => return wire.reset(),
            2 => return drop(wire.send(b"HTTP/1.1 400 Bad\r\n\r\n").await),
            3 => drop(wire.send(&frames::goaway(0, h2::Reason::NO_ERROR)).await),
            _ => {}
        }
        let Some(mut stream) = frames::accept(&mut wire).await else { return };
        loop {
            if wire.send(&broken(stream, &mut dice)).await.is_err() {
                return;
            }
            match dice.below(6) {
                0 => return wire.reset(),
                1 => return,
                _ => {}
            }
            match frames::head(&mut wire).await {
                Some(next) => stream = next,
                None => return,
            }
        }
    })
    .await
}

fn broken(stream: u32, dice: &mut Dice) -> Vec<u8> {
    use frames::*;
    let head = frame(HEADERS, END_HEADERS, stream, OK);
    let data = frame(DATA, 0, stream, b"a piece");
    let any = [
        h2::Reason::NO_ERROR,
        h2::Reason::CANCEL,
        h2::Reason::REFUSED_STREAM,
        h2::Reason::INTERNAL_ERROR,
        h2::Reason::ENHANCE_YOUR_CALM,
    ][dice.below(5)];
    match dice.below(14) {
        0 => frame(HEADERS, END_HEADERS | END_STREAM, stream, OK),
        1 => [head, frame(DATA, END_STREAM, stream, b"whole")].concat(),
        2 => reset(stream, any),
        3 => [head, data, reset(stream, any)].concat(),
        4 => goaway(0, any),
        5 => goaway(stream, any),
        6 => [head, data, goaway(stream, any)].concat(),
        7 => [head, goaway(0, any)].concat(),
        8 => frame(HEADERS, 0, stream, OK),
        9 => frame(DATA, 0, stream, b"no head"),
        10 => frame(HEADERS, END_HEADERS, stream, &[0xff; 40]),
        11 => (0..200).flat_map(|_| frame(SETTINGS, 0, 0, &[])).collect(),
        12 => [frame(HEADERS, END_HEADERS, stream, &[OK, &literal("content-length", "3")].concat()), data].concat(),
        _ => Vec::new(),
    }
}

/// Speaks TLS badly, or leaves without a word behind the handshake.
pub async fn bad_tls(acceptor: TlsAcceptor) -> SocketAddr {
    bad(move |mut wire, mut dice| {
        let acceptor = acceptor.clone();
        async move {
            match dice.below(5) {
                0 => {}
                1 => wire.reset(),
                2 => {
                    wire.try_exactly(1 + dice.below(200)).await;
                }
                3 => drop(wire.send(b"HTTP/1.1 400 no TLS here\r\n\r\n").await),
                _ => {
                    let Ok(mut stream) = acceptor.accept(wire.stream).await else { return };
                    let mut head = [0; 64];
                    let _ = tokio::io::AsyncReadExt::read(&mut stream, &mut head).await;
                    let _ = stream.write_all(ANSWERS[dice.below(ANSWERS.len())].as_bytes()).await;
                    // The socket closes without TLS's own goodbye.
                }
            }
        }
    })
    .await
}

/// A piece of a hostile body.
pub fn noise(dice: &mut Dice, length: usize) -> Bytes {
    pattern(dice.below(1000), length)
}

/// An origin's connection that nobody ends.
const PATIENCE: Duration = Duration::from_secs(20);
