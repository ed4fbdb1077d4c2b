//! What a connection speaks, from its listener, its port and its first bytes. Every byte that was read is given on.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use bytes::BytesMut;
use rustls::server::Acceptor;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::server::TlsStream;

use crate::config::ListenerProtocol;
use crate::connection::Connection;
use crate::error::Flag;
use crate::exchange::Open;
use crate::identity::failure::{Peer, TlsFailure};
use crate::limit::Limit;
use crate::net::client_hello::{self, HelloError};
use crate::net::detect;
use crate::net::prefixed::Prefixed;
use crate::net::sniff::{self, Outcome};

pub enum Sniffed<S = TcpStream> {
    Http1(Prefixed<S>),
    Http2(Prefixed<S>),
    /// HTTP under TLS that ended here.
    Secure1(TlsStream<TcpStream>),
    Secure2(TlsStream<TcpStream>),
    /// Bytes to carry as they are; the name that a TLS client asked for, if it is TLS.
    Opaque {
        io: Prefixed<S>,
        server_name: Option<String>,
    },
    /// The connection is over.
    Gone,
}

/// What the listener and the port say before a byte is read.
enum Declared {
    Http,
    Opaque,
    Tls,
    Unknown { wait: Duration },
}

pub async fn protocol(connection: &Rc<Connection>, stream: TcpStream) -> Sniffed {
    if connection.listener.tls.is_some() {
        return secure(connection, stream).await;
    }
    let limits = &connection.worker.limits;
    let listener = &connection.listener;
    let sniffed = match declared(connection) {
        Declared::Opaque => opaque(stream, BytesMut::new()),
        Declared::Http => http(connection, stream).await,
        Declared::Tls => tls(connection, stream).await,
        Declared::Unknown { wait } => unknown(stream, wait, limits.header_timeout).await,
    };
    listener.meters.detected(match &sniffed {
        Sniffed::Http1(_) | Sniffed::Secure1(_) => "http1",
        Sniffed::Http2(_) | Sniffed::Secure2(_) => "http2",
        Sniffed::Opaque { server_name: Some(_), .. } => "tls",
        Sniffed::Opaque { .. } => "opaque",
        Sniffed::Gone => "gone",
    });
    sniffed
}

fn declared(connection: &Connection) -> Declared {
    let listener = &connection.listener;
    let target = connection.original.unwrap_or(connection.local);
    match listener.protocol {
        ListenerProtocol::Http => Declared::Http,
        ListenerProtocol::Opaque => Declared::Opaque,
        ListenerProtocol::Tls => Declared::Tls,
        ListenerProtocol::Detect if listener.opaque_ports.contains(&target.port()) => Declared::Opaque,
        ListenerProtocol::Detect if listener.http_ports.contains(&target.port()) => Declared::Http,
        ListenerProtocol::Detect => {
            let server_first = connection.worker.shared.is_server_first(target, Instant::now());
            // What a client has already said is still looked at: the memory may be of another time.
            let wait = if server_first { Duration::ZERO } else { listener.detect_timeout };
            Declared::Unknown { wait }
        }
    }
}

/// How the wait for a client's first byte ended.
enum First {
    /// With a byte, or with the client's end.
    Came,
    Late,
    /// A drain waits no longer for who has said nothing.
    Drained,
}

async fn first(connection: &Connection, stream: &TcpStream, wait: Duration) -> First {
    // `readable` may say so without cause; a byte that is seen is there, and so is an end.
    let mut byte = [0];
    tokio::select! {
        biased;
        came = tokio::time::timeout(wait, stream.peek(&mut byte)) => if came.is_ok() { First::Came } else { First::Late },
        () = connection.worker.drain.quiet() => First::Drained,
    }
}

/// HTTP by declaration: only its version is open. A client may connect ahead of need, so the first byte may take as long
/// as an idle connection may live; what it begins, it has the time of a head to finish.
async fn http(connection: &Connection, mut stream: TcpStream) -> Sniffed {
    let limits = &connection.worker.limits;
    if !matches!(first(connection, &stream, limits.idle_timeout).await, First::Came) {
        return Sniffed::Gone;
    }
    let version = |bytes: &[u8]| match detect::sniff(bytes) {
        detect::Sniffed::NeedMore if bytes.starts_with(b"P") && bytes.len() < 4 => None,
        detect::Sniffed::NeedMore if bytes.starts_with(b"PRI") => None,
        sniffed => Some(sniffed),
    };
    match sniff::read(&mut stream, version, limits.header_timeout, detect::ENOUGH).await {
        Ok((bytes, Outcome::Decided(detect::Sniffed::Http2))) => Sniffed::Http2(Prefixed::new(stream, bytes)),
        Ok((bytes, _)) if !bytes.is_empty() => Sniffed::Http1(Prefixed::new(stream, bytes)),
        Ok(_) | Err(_) => Sniffed::Gone,
    }
}

/// Nothing is declared: the client's first bytes tell.
pub async fn unknown<S>(mut stream: S, wait: Duration, hello_wait: Duration) -> Sniffed<S>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let decided = |bytes: &[u8]| Some(detect::sniff(bytes)).filter(|sniffed| *sniffed != detect::Sniffed::NeedMore);
    let (bytes, sniffed) = match sniff::read(&mut stream, decided, wait, detect::ENOUGH).await {
        Ok((bytes, Outcome::Decided(sniffed))) => (bytes, sniffed),
        // Its half is closed, but the other side may still have something to say.
        Ok((bytes, Outcome::Eof)) if bytes.is_empty() => return opaque(stream, bytes),
        Ok((bytes, _)) => {
            let sniffed = detect::settle(&bytes);
            (bytes, sniffed)
        }
        Err(_) => return Sniffed::Gone,
    };
    match sniffed {
        detect::Sniffed::Http1 => Sniffed::Http1(Prefixed::new(stream, bytes)),
        detect::Sniffed::Http2 => Sniffed::Http2(Prefixed::new(stream, bytes)),
        detect::Sniffed::Tls => passed_through(stream, bytes, hello_wait).await,
        detect::Sniffed::Opaque | detect::Sniffed::NeedMore => opaque(stream, bytes),
    }
}

/// TLS by declaration. A client that is silent for as long as a head may take never meant it.
async fn tls(connection: &Connection, stream: TcpStream) -> Sniffed {
    let wait = connection.worker.limits.header_timeout;
    match first(connection, &stream, wait).await {
        First::Came => passed_through(stream, BytesMut::new(), wait).await,
        First::Late | First::Drained => Sniffed::Gone,
    }
}

/// TLS that is not for us: its ClientHello may take several segments.
async fn passed_through<S>(stream: S, read: BytesMut, wait: Duration) -> Sniffed<S>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut stream = Prefixed::new(stream, read);
    let hello = |bytes: &[u8]| match client_hello::server_name(bytes) {
        Err(HelloError::Incomplete) => None,
        answer => Some(answer),
    };
    match sniff::read(&mut stream, hello, wait, client_hello::ENOUGH).await {
        Ok((bytes, outcome)) if !bytes.is_empty() => {
            let server_name = match outcome {
                Outcome::Decided(Ok(hello)) => hello.server_name,
                _ => None,
            };
            let (stream, rest) = stream.into_parts();
            let mut bytes = bytes;
            bytes.extend_from_slice(&rest);
            Sniffed::Opaque { io: Prefixed::new(stream, bytes), server_name }
        }
        Ok(_) | Err(_) => Sniffed::Gone,
    }
}

fn opaque<S>(stream: S, bytes: BytesMut) -> Sniffed<S> {
    Sniffed::Opaque { io: Prefixed::new(stream, bytes), server_name: None }
}

/// TLS ends here. Handshakes are expensive, so only so many run at once; the others wait their turn within the time
/// that a head has. A client that has said nothing yet has no turn, and one that does not go on loses it, so that
/// clients that are stuck hold up nobody.
async fn secure(connection: &Rc<Connection>, stream: TcpStream) -> Sniffed {
    let Some(acceptor) = connection.listener.tls.clone() else { return Sniffed::Gone };
    let wait = connection.worker.limits.header_timeout;
    let deadline = Instant::now() + wait;
    // One that is late is timed out by the handshake.
    if matches!(first(connection, &stream, wait).await, First::Drained) {
        return Sniffed::Gone;
    }
    let waits = Cell::new(false);
    let handshake = async {
        let hello = LazyConfigAcceptor::new(Acceptor::default(), stream).await?;
        let turn = match connection.worker.handshakes.try_acquire() {
            Ok(turn) => Some(turn),
            Err(_) => {
                connection.worker.meters.limited(Limit::Handshakes);
                waits.set(true);
                connection.worker.handshakes.acquire().await.ok()
            }
        };
        waits.set(false);
        let mut rest = hello.into_stream(acceptor.config().clone());
        match tokio::time::timeout(TURN, &mut rest).await {
            Ok(done) => done,
            Err(_) => {
                drop(turn);
                rest.await
            }
        }
    };
    match tokio::time::timeout_at(deadline, handshake).await {
        Ok(Ok(stream)) => {
            connection.tls.set(true);
            connection.listener.meters.handshake("ok");
            match stream.get_ref().1.alpn_protocol() {
                Some(b"h2") => Sniffed::Secure2(stream),
                _ => Sniffed::Secure1(stream),
            }
        }
        Ok(Err(error)) => {
            let failure = TlsFailure::of(Peer::Client, &error);
            connection.listener.meters.handshake(failure.word());
            let open = Open::bytes(connection.clone());
            open.exchange().explain(failure.to_string());
            open.fail(Flag::TlsFailed);
            Sniffed::Gone
        }
        Err(_) => {
            connection.listener.meters.handshake("timeout");
            let limit = if waits.get() { Limit::Handshakes } else { Limit::HandshakeTime };
            let open = Open::bytes(connection.clone());
            let flag = open.exchange().limited(limit);
            open.fail(flag);
            Sniffed::Gone
        }
    }
}

/// Our part of a handshake is done at once; the rest of a turn is for the client's answer, and most are nearer than this.
const TURN: Duration = Duration::from_millis(100);
