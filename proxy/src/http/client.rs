//! Connections to upstreams: made over TCP or TLS, handed to hyper, leased to one attempt (HTTP/1) or shared by many
//! (HTTP/2), and given back when the answer's last byte has passed. Where they wait in between is `pool`.

use std::cell::{Cell, OnceCell, RefCell};
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::{Request, Response, Version};
use hyper::body::Incoming;
use hyper::client::conn::{TrySendError, http1, http2};
use hyper_util::rt::{TokioIo, TokioTimer};
use pin_project_lite::pin_project;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::AbortHandle;
use tokio::time::Instant;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::attempts;
use super::body::RequestBody;
use super::counted::{Counted, RESET_STREAMS};
use super::cut::{Cut, Uploads};
use super::debt::Debt;
use super::framing::answers::{Answering, Awaited};
use super::pool::Pooled;
use super::windows::Windows;
use crate::connection::Seen;
use crate::error::Flag;
use crate::identity::failure::{Peer, TlsFailure};
use crate::limit::Limit;
use crate::meters::UpstreamMeters;
use crate::net::connect::{self, ConnectError};
use crate::rules::balance::InFlight;
use crate::telemetry::metrics::Held;
use crate::trace::span::micros;

/// Which protocol the next hop is to speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    Http1,
    Http2,
    /// What TLS negotiates.
    Negotiated,
}

/// What the connections of one upstream are made with.
pub struct Settings {
    pub connect_timeout: Duration,
    pub tls: Option<Arc<Tls>>,
    pub header_bytes: usize,
    pub header_count: usize,
    pub windows: Windows,
    /// HTTP/2 frames a second that may carry nothing.
    pub frames: u32,
    pub meters: Rc<UpstreamMeters>,
}

/// One client configuration for each set of protocols offered; sessions are resumed only within one of them.
pub struct Tls {
    pub name: ServerName<'static>,
    pub http1: TlsConnector,
    pub http2: TlsConnector,
    pub negotiated: TlsConnector,
    /// Offers nothing: for bytes that are no HTTP.
    pub opaque: TlsConnector,
}

/// Why there is no connection.
#[derive(Clone, Debug)]
pub struct ConnectFailure {
    pub flag: Flag,
    pub text: String,
}

/// A connection that has not had its first request.
pub enum Fresh {
    Http1(http1::SendRequest<RequestBody>, Carrier),
    Http2(Rc<Http2>),
}

/// What it took to make a connection, in microseconds.
#[derive(Clone, Copy, Debug, Default)]
pub struct Made {
    pub connect: u32,
    /// The handshake, where there is one.
    pub tls: Option<u32>,
}

impl Made {
    fn connected(started: Instant) -> Self {
        Self { connect: micros(started.elapsed()), tls: None }
    }

    fn secured(self, started: Instant) -> Self {
        Self { tls: Some(micros(started.elapsed()).saturating_sub(self.connect)), ..self }
    }
}

/// The task of an HTTP/1 connection, and what it must know of requests.
pub struct Carrier {
    task: AbortHandle,
    awaited: Awaited,
}

impl Carrier {
    pub fn abort(&self) {
        self.task.abort();
    }
}

/// A connection for bytes that nobody here reads.
pub enum Raw {
    Plain(TcpStream),
    Secure(Box<TlsStream<TcpStream>>),
}

pub async fn raw(address: SocketAddr, settings: &Settings) -> Result<(Raw, Made), ConnectFailure> {
    let started = Instant::now();
    let stream = connect::connect(address, settings.connect_timeout, Some(MARK)).await?;
    let made = Made::connected(started);
    match &settings.tls {
        None => Ok((Raw::Plain(stream), made)),
        Some(tls) => {
            let stream = secure(stream, &tls.opaque, tls, settings, started).await?;
            Ok((Raw::Secure(Box::new(stream)), made.secured(started)))
        }
    }
}

/// `open` is dropped when the connection ends; one that switches protocols is then its tunnel's to count.
pub async fn connect(
    address: SocketAddr,
    wanted: Wanted,
    settings: &Settings,
    open: Held,
) -> Result<(Fresh, Made), ConnectFailure> {
    #[cfg(feature = "fuzzing")]
    if let Some(io) = crate::fuzz::seen::dial() {
        let http2 = wanted == Wanted::Http2;
        let fresh = if http2 { self::http2(io, settings, open).await? } else { http1(io, settings, open).await? };
        return Ok((fresh, Made::default()));
    }
    let started = Instant::now();
    let stream = connect::connect(address, settings.connect_timeout, Some(MARK)).await?;
    let made = Made::connected(started);
    let Some(tls) = &settings.tls else {
        let fresh = match wanted {
            Wanted::Http2 => http2(stream, settings, open).await?,
            Wanted::Http1 | Wanted::Negotiated => http1(stream, settings, open).await?,
        };
        return Ok((fresh, made));
    };
    let connector = match wanted {
        Wanted::Http1 => &tls.http1,
        Wanted::Http2 => &tls.http2,
        Wanted::Negotiated => &tls.negotiated,
    };
    let stream = secure(stream, connector, tls, settings, started).await?;
    let made = made.secured(started);
    match (wanted, stream.get_ref().1.alpn_protocol()) {
        (_, Some(b"h2")) => Ok((http2(stream, settings, open).await?, made)),
        (Wanted::Http2, other) => {
            let other = other.map_or("nothing".into(), String::from_utf8_lossy);
            let text =
                format!("{address} was offered h2 and chose {other}; set the upstream's protocol to http1 or auto");
            Err(ConnectFailure { flag: Flag::ProtocolError, text })
        }
        _ => Ok((http1(stream, settings, open).await?, made)),
    }
}

/// The handshake has what is left of the time to connect.
async fn secure(
    stream: TcpStream,
    connector: &TlsConnector,
    tls: &Tls,
    settings: &Settings,
    started: Instant,
) -> Result<TlsStream<TcpStream>, ConnectFailure> {
    let left = settings.connect_timeout.saturating_sub(started.elapsed());
    match tokio::time::timeout(left, connector.connect(tls.name.clone(), stream)).await {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(error)) => {
            let text = TlsFailure::of(Peer::Upstream, &error).to_string();
            Err(ConnectFailure { flag: Flag::TlsFailed, text })
        }
        Err(_) => {
            let text = format!("no TLS handshake within {:?}", settings.connect_timeout);
            Err(ConnectFailure { flag: Flag::ConnectTimeout, text })
        }
    }
}

impl From<ConnectError> for ConnectFailure {
    fn from(error: ConnectError) -> Self {
        let flag = match error {
            ConnectError::Timeout => Flag::ConnectTimeout,
            ConnectError::Files => Flag::Overload,
            _ => Flag::ConnectFailed,
        };
        Self { flag, text: error.to_string() }
    }
}

async fn http1<T>(io: T, settings: &Settings, open: Held) -> Result<Fresh, ConnectFailure>
where
    T: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let mut builder = http1::Builder::new();
    builder.max_buf_size(settings.header_bytes.max(MIN_BUFFER));
    if settings.header_count != HYPER_HEADER_COUNT {
        builder.max_headers(settings.header_count);
    }
    let awaited = Awaited::default();
    let informed = settings.meters.informational();
    let io = Answering::new(io, awaited.clone(), settings.header_bytes.max(MIN_BUFFER), informed);
    let (send, connection) = builder.handshake(TokioIo::new(io)).await.map_err(handshake)?;
    let task = tokio::task::spawn_local(async move {
        let _open = open;
        if let Err(error) = connection.with_upgrades().await {
            tracing::debug!(%error, "upstream HTTP/1 connection ended");
        }
    });
    Ok(Fresh::Http1(send, Carrier { task: task.abort_handle(), awaited }))
}

async fn http2<T>(io: T, settings: &Settings, open: Held) -> Result<Fresh, ConnectFailure>
where
    T: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let uploads = Uploads::default();
    let window = settings.windows.upstream();
    let (seen, meters) = (Arc::<Seen>::default(), settings.meters.clone());
    let debt = Debt::new(window.connection);
    let io = Counted::upstream(io, seen.clone(), debt.clone(), settings.frames);
    let (send, connection) = http2::Builder::new(uploads.clone())
        .timer(TokioTimer::new())
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_WAIT)
        .initial_stream_window_size(window.stream)
        .initial_connection_window_size(window.connection)
        .max_send_buf_size(SEND_BUFFER)
        .initial_max_send_streams(UNSETTLED)
        .max_local_error_reset_streams(BROKEN_STREAMS)
        // For a second; of a stream that is forgotten, each piece that still comes counts as one that the peer broke.
        .max_concurrent_reset_streams(RESET_STREAMS)
        .max_header_list_size(u32::try_from(settings.header_bytes).unwrap_or(u32::MAX))
        .handshake(TokioIo::new(io))
        .await
        .map_err(handshake)?;
    let connection = Rc::new(RefCell::new(Some(connection)));
    let polled = connection.clone();
    tokio::task::spawn_local(async move {
        let _open = open;
        let ended = std::future::poll_fn(|cx| match polled.borrow_mut().as_mut() {
            Some(connection) => Pin::new(connection).poll(cx),
            None => Poll::Ready(Ok(())),
        })
        .await;
        // Requests that it took and did not send are given back when it is dropped; their leases hold the other end of
        // this `Rc`, so without this they would wait for ever.
        drop((polled.take(), window));
        if let Err(error) = ended {
            if seen.is_flooded() {
                meters.limited(Limit::Frames);
            } else if is_too_much(&error) {
                meters.limited(Limit::Engine);
            }
            tracing::debug!(%error, "upstream HTTP/2 connection ended");
        }
    });
    Ok(Fresh::Http2(Rc::new(Http2 {
        send,
        streams: Cell::new(0),
        used: Cell::new(false),
        idle_since: Cell::new(Instant::now()),
        born: Instant::now(),
        settings: connection,
        uploads,
        debt,
    })))
}

/// Whether the engine itself ended a connection because its peer did too much.
pub fn is_too_much(error: &hyper::Error) -> bool {
    cause(error).is_some_and(|h2| h2.is_library() && h2.reason() == Some(h2::Reason::ENHANCE_YOUR_CALM))
}

/// Whether the engine itself ended a connection.
pub fn is_broken(error: &hyper::Error) -> bool {
    cause(error).is_some_and(|h2| h2.is_library() && h2.is_go_away())
}

fn cause(error: &hyper::Error) -> Option<&h2::Error> {
    std::error::Error::source(error).and_then(|source| source.downcast_ref())
}

fn handshake(error: hyper::Error) -> ConnectFailure {
    // Our preface is all that has been written: a peer that is gone by now has broken no rule, and has seen no request.
    let flag = match attempts::broken(&error) {
        Flag::UpstreamReset | Flag::UpstreamClosed => Flag::ConnectFailed,
        flag => flag,
    };
    ConnectFailure { flag, text: format!("the HTTP handshake with the upstream failed: {error}") }
}

/// An HTTP/2 connection that many attempts share.
pub struct Http2 {
    send: http2::SendRequest<RequestBody>,
    streams: Cell<usize>,
    used: Cell<bool>,
    idle_since: Cell<Instant>,
    pub born: Instant,
    settings: Rc<dyn PeerSettings>,
    uploads: Uploads,
    debt: Rc<Debt>,
}

impl Http2 {
    pub fn is_usable(&self) -> bool {
        self.send.is_ready()
    }

    /// Beyond the peer's limit hyper queues silently, so another connection is opened instead. Every peer takes one
    /// stream; how many more is known when its settings have come.
    pub fn has_room(&self) -> bool {
        let streams = self.streams.get();
        streams == 0 || self.is_settled() && streams < self.settings.max_streams()
    }

    /// Whether the peer has said how many streams it takes, or has had its time to.
    pub fn is_settled(&self) -> bool {
        self.settings.max_streams() != UNSETTLED || self.born.elapsed() > SETTINGS_WAIT
    }

    pub async fn settled(&self) {
        let mut pause = Duration::from_millis(1);
        while self.is_usable() && !self.is_settled() {
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(SETTINGS_PAUSE);
        }
    }

    pub fn streams(&self) -> usize {
        self.streams.get()
    }

    pub fn idle_since(&self) -> Instant {
        self.idle_since.get()
    }

    /// Whether the peer takes extended CONNECT. Its settings may still be on their way on a fresh connection, so this
    /// waits for them, and no longer.
    pub async fn extended_connect(&self) -> bool {
        self.settled().await;
        self.settings.extended_connect()
    }
}

/// What hyper tells only on the connection itself, which its task owns too.
trait PeerSettings {
    fn max_streams(&self) -> usize;
    fn extended_connect(&self) -> bool;
}

impl<T> PeerSettings for RefCell<Option<http2::Connection<T, RequestBody, Uploads>>>
where
    T: hyper::rt::Read + hyper::rt::Write + Unpin + 'static,
{
    fn max_streams(&self) -> usize {
        let connection = self.try_borrow().ok();
        let connection = connection.as_ref().and_then(|connection| connection.as_ref());
        connection.map_or(usize::MAX, |connection| connection.current_max_send_streams())
    }

    fn extended_connect(&self) -> bool {
        let connection = self.try_borrow().ok();
        let connection = connection.as_ref().and_then(|connection| connection.as_ref());
        connection.is_some_and(|connection| connection.is_extended_connect_protocol_enabled())
    }
}

/// The right of one attempt to use a connection. Dropped without being given back, an HTTP/1 connection closes.
pub struct Lease {
    connection: Leased,
    endpoint: Rc<Pooled>,
    in_flight: (InFlight, Held),
    born: Instant,
    /// The connection had carried a request before.
    pub reused: bool,
    keep: bool,
    /// Ends the request's upload, if it has one that hyper carries by itself.
    upload: OnceCell<Cut>,
}

/// An answer, or what hyper makes of there being none, with the request if it was not sent.
pub type Sent = Result<Response<Incoming>, TrySendError<Request<RequestBody>>>;

pin_project! {
    /// Waits for the answer over either protocol.
    #[project = Projected]
    enum Sending<A, B> {
        Http1 { #[pin] answer: A },
        Http2 { #[pin] answer: B },
    }
}

impl<A: Future<Output = Sent>, B: Future<Output = Sent>> Future for Sending<A, B> {
    type Output = Sent;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Sent> {
        match self.project() {
            Projected::Http1 { answer } => answer.poll(cx),
            Projected::Http2 { answer } => answer.poll(cx),
        }
    }
}

enum Leased {
    Http1(http1::SendRequest<RequestBody>, Task),
    Http2(http2::SendRequest<RequestBody>, Stream),
}

/// Ends the task of an HTTP/1 connection, unless it is taken out. Left alone, hyper would first wait until the origin has
/// taken what is written already, and hold the client's body and connection for as long.
struct Task(Option<Carrier>);

impl Drop for Task {
    fn drop(&mut self) {
        if let Some(task) = self.0.take() {
            task.abort();
        }
    }
}

/// One stream of a shared connection, counted until this is dropped.
struct Stream(Rc<Http2>);

impl Drop for Stream {
    fn drop(&mut self) {
        self.0.streams.set(self.0.streams.get().saturating_sub(1));
        self.0.idle_since.set(Instant::now());
    }
}

impl Lease {
    pub fn http1(
        send: http1::SendRequest<RequestBody>,
        task: Carrier,
        endpoint: Rc<Pooled>,
        in_flight: InFlight,
        born: Instant,
        reused: bool,
    ) -> Self {
        let in_flight = (in_flight, endpoint.meters.attempt());
        let connection = Leased::Http1(send, Task(Some(task)));
        Self { connection, endpoint, in_flight, born, reused, keep: true, upload: OnceCell::new() }
    }

    pub fn http2(shared: Rc<Http2>, endpoint: Rc<Pooled>, in_flight: InFlight) -> Self {
        shared.streams.set(shared.streams.get() + 1);
        let reused = shared.used.get();
        let born = shared.born;
        let connection = Leased::Http2(shared.send.clone(), Stream(shared));
        let in_flight = (in_flight, endpoint.meters.attempt());
        Self { connection, endpoint, in_flight, born, reused, keep: true, upload: OnceCell::new() }
    }

    pub fn version(&self) -> Version {
        match self.connection {
            Leased::Http1(..) => Version::HTTP_11,
            Leased::Http2(..) => Version::HTTP_2,
        }
    }

    pub fn endpoint(&self) -> &Rc<Pooled> {
        &self.endpoint
    }

    pub async fn extended_connect(&self) -> bool {
        match &self.connection {
            Leased::Http1(..) => false,
            Leased::Http2(_, stream) => stream.0.extended_connect().await,
        }
    }

    /// Not `async`: the request goes to its connection at once, and the future holds no second copy of it.
    pub fn send(&mut self, request: Request<RequestBody>) -> impl Future<Output = Sent> + use<> {
        match &mut self.connection {
            Leased::Http1(send, task) => {
                if let Some(carrier) = &task.0 {
                    carrier.awaited.await_head();
                }
                Sending::Http1 { answer: send.try_send_request(request) }
            }
            Leased::Http2(send, stream) => {
                stream.0.used.set(true);
                Sending::Http2 { answer: send.try_send_request(request) }
            }
        }
    }

    /// The head of the answer has come.
    pub fn answered<B>(&mut self, answer: &Response<B>) {
        self.endpoint.answered();
        // hyper goes on as HTTP/1.0 after an answer in HTTP/1.0, and then cannot send a body of unknown length.
        if answer.version() == Version::HTTP_10 {
            self.keep = false;
        }
    }

    /// What the request's body must tell so that its upload can be ended.
    pub fn upload(&self) -> Option<(Cut, Uploads)> {
        match &self.connection {
            Leased::Http1(..) => None,
            Leased::Http2(_, stream) => Some((self.upload.get_or_init(Cut::default).clone(), stream.0.uploads.clone())),
        }
    }

    /// Where what lies unread on its connection is counted.
    pub fn debt(&self) -> Option<&Rc<Debt>> {
        match &self.connection {
            Leased::Http1(..) => None,
            Leased::Http2(_, stream) => Some(&stream.0.debt),
        }
    }

    /// The connection closes behind this answer.
    pub fn is_last(&mut self) {
        self.keep = false;
    }

    /// The answer has ended; `whole` when its last byte came.
    pub fn give_back(self, whole: bool, now: Instant) {
        drop(self.in_flight);
        if let (false, Some(upload)) = (whole, self.upload.get()) {
            upload.cut();
        }
        if let Leased::Http1(send, mut task) = self.connection
            && whole
            && let Some(task) = task.0.take()
            && self.keep
            && !send.is_closed()
        {
            self.endpoint.put(send, task, self.born, now);
        }
    }
}

/// On every packet of the proxy's own, so that the redirect rules let it pass.
const MARK: u32 = connect::MARK;
/// A host that vanished sends no reset. While requests wait on a connection it is asked for a sign of life this often,
/// and given up after this wait.
const PING_INTERVAL: Duration = Duration::from_secs(15);
const PING_WAIT: Duration = Duration::from_secs(10);
pub const SEND_BUFFER: usize = 64 * 1024;
/// Streams of one connection that the peer broke and that we reset for it. hyper's own number, named so that it stays.
pub const BROKEN_STREAMS: usize = 1024;
/// hyper refuses less.
pub const MIN_BUFFER: usize = 8192;
/// hyper keeps this many headers on the stack; another number costs an allocation for each message.
pub const HYPER_HEADER_COUNT: usize = 100;
/// What a connection tells as its limit of streams until its peer has: no peer can say a number of more than 32 bits.
const UNSETTLED: usize = usize::MAX - 1;
/// Peers send their settings at once; one that has not after this long does not offer extended CONNECT, and its limit
/// of streams is what it was found to be.
const SETTINGS_WAIT: Duration = Duration::from_millis(512);
/// Between two looks for the settings, at most: what comes is seen soon, also late in the wait.
const SETTINGS_PAUSE: Duration = Duration::from_millis(16);
