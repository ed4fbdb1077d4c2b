//! Bodies, watched to their last byte. A request's body flows from the client to the attempt, a response's body from
//! the upstream to the client; the response's body carries the open exchange and closes it exactly once: at its end,
//! at its trailers, at its error, or by being dropped, which means that the client went away.

use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Version};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::time::{Instant, Sleep};

use super::attempts;
use super::client::Lease;
use super::counted::pieces::SMALL as SMALL_PIECE;
use super::cut::{Cut, Uploads};
use super::debt::Reading;
use super::grpc;
use super::headers::{self, Trailers};
use super::replay::{Broken, Gate, Replay};
use super::uploads::Waiting;
use super::watched::{EXTENSIONS_OVER, TRAILERS_OVER};
use crate::connection::Uploading;
use crate::error::Flag;
use crate::exchange::{Exchange, Open};
use crate::limit::Limit;
use crate::meters::Direction;

/// Why a body ended early. Carries the HTTP/2 reason where there is one, so that a reset passes through as it came.
#[derive(Debug)]
pub struct BodyError {
    flag: Flag,
    source: Option<h2::Error>,
}

impl BodyError {
    pub fn new(flag: Flag, reason: Option<h2::Reason>) -> Self {
        Self { flag, source: reason.map(h2::Error::from) }
    }
}

impl std::fmt::Display for BodyError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.flag.name(), self.flag.meaning().text)
    }
}

impl std::error::Error for BodyError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_ref().map(|error| error as _)
    }
}

/// The client's body. Until its end its connection knows that what comes is no head.
pub struct Upload {
    body: Incoming,
    uploading: Option<Uploading>,
    exchange: Rc<Exchange>,
    waiting: Option<Rc<Waiting>>,
    reading: Option<Reading>,
    /// What came behind small pieces that went on as one.
    next: Option<Box<Result<Frame<Bytes>, hyper::Error>>>,
}

impl Upload {
    pub fn new(body: Incoming, exchange: &Rc<Exchange>) -> Self {
        let uploading = (!body.is_end_stream()).then(|| exchange.connection().uploading());
        let debt = exchange.connection().debt().filter(|_| uploading.is_some());
        let reading = debt.map(|debt| debt.read(exchange));
        Self { body, uploading, exchange: exchange.clone(), waiting: None, reading, next: None }
    }

    /// A frame as the engine has it.
    fn poll_engine(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        poll_read(&mut self.body, self.reading.as_ref(), cx)
    }

    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        if let Some(next) = self.next.take() {
            return Poll::Ready(Some(*next));
        }
        loop {
            let frame = ready!(self.poll_engine(cx));
            match frame.as_ref().and_then(|frame| frame.as_ref().ok()?.data_ref()) {
                Some(data) if data.is_empty() && !self.body.is_end_stream() => {}
                Some(data) if data.len() < SMALL_PIECE => {
                    let data = data.clone();
                    return Poll::Ready(Some(Ok(Frame::data(self.gathered(data, cx)))));
                }
                _ => return Poll::Ready(frame),
            }
        }
    }

    /// A peer may count small frames, and all that one connection brings: those that are here already go on as one.
    fn gathered(&mut self, first: Bytes, cx: &mut Context<'_>) -> Bytes {
        let mut all: Option<BytesMut> = None;
        while all.as_ref().is_none_or(|all| all.len() < GATHERED) && !self.body.is_end_stream() {
            match self.poll_engine(cx) {
                Poll::Ready(Some(Ok(frame))) if frame.data_ref().is_some_and(|data| data.len() < SMALL_PIECE) => {
                    let data = frame.into_data().unwrap_or_default();
                    all.get_or_insert_with(|| BytesMut::from(&first[..])).extend_from_slice(&data);
                }
                Poll::Ready(Some(other)) => {
                    self.next = Some(Box::new(other));
                    break;
                }
                Poll::Ready(None) | Poll::Pending => break,
            }
        }
        if let Some(reading) = &self.reading {
            reading.has_enough();
        }
        all.map_or(first, BytesMut::freeze)
    }

    fn waits(&mut self) {
        if self.waiting.is_none() {
            self.waiting = Waiting::new(&self.exchange, self.body.size_hint().exact().is_some());
        }
        if let Some(waiting) = &self.waiting {
            waiting.waits(Instant::now());
        }
    }
}

impl Body for Upload {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let Poll::Ready(frame) = self.poll_piece(cx) else {
            self.waits();
            return Poll::Pending;
        };
        if let Some(waiting) = &self.waiting {
            let data = frame.as_ref().and_then(|frame| frame.as_ref().ok()?.data_ref());
            waiting.came(data.map_or(0, Bytes::len), Instant::now());
        }
        if !matches!(&frame, Some(Ok(frame)) if frame.is_data()) || self.is_end_stream() {
            self.uploading = None;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.next.is_none() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        leave(&mut self.body, self.reading.as_ref());
    }
}

/// Polls, and tells who counts what lies unread.
fn poll_read(
    body: &mut Incoming,
    reading: Option<&Reading>,
    cx: &mut Context<'_>,
) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
    let polled = Pin::new(&mut *body).poll_frame(cx);
    let Some(reading) = reading else { return polled };
    match &polled {
        Poll::Pending => reading.waits(),
        Poll::Ready(Some(Ok(frame))) => reading.took(frame.data_ref().map_or(0, Bytes::len), body.is_end_stream()),
        Poll::Ready(_) => {}
    }
    polled
}

/// What is dropped unread is owed no longer.
fn leave(body: &mut Incoming, reading: Option<&Reading>) {
    let Some(reading) = reading.filter(|reading| reading.owes() && !body.is_end_stream()) else { return };
    let mut nobody = Context::from_waker(Waker::noop());
    while let Poll::Ready(Some(Ok(frame))) = Pin::new(&mut *body).poll_frame(&mut nobody) {
        reading.took(frame.data_ref().map_or(0, Bytes::len), body.is_end_stream());
    }
}

/// The body of one attempt, towards an upstream.
pub struct RequestBody {
    source: Source,
    exchange: Rc<Exchange>,
    trailers: Trailers,
    upload: Option<(Cut, Uploads)>,
}

enum Source {
    Empty,
    Direct(Upload),
    Replayed(Replay),
    Gated(Upload, Gate),
}

impl RequestBody {
    pub fn empty(exchange: Rc<Exchange>) -> Self {
        Self { source: Source::Empty, exchange, trailers: Trailers::All, upload: None }
    }

    pub fn direct(body: Upload, exchange: Rc<Exchange>) -> Self {
        let source = if body.is_end_stream() { Source::Empty } else { Source::Direct(body) };
        Self { source, exchange, trailers: Trailers::All, upload: None }
    }

    pub fn replayed(body: Replay, exchange: Rc<Exchange>) -> Self {
        Self { source: Source::Replayed(body), exchange, trailers: Trailers::All, upload: None }
    }

    pub fn gated(body: Upload, gate: Gate, exchange: Rc<Exchange>) -> Self {
        Self { source: Source::Gated(body, gate), exchange, trailers: Trailers::All, upload: None }
    }

    pub fn trailers(mut self, taken: Trailers) -> Self {
        self.trailers = taken;
        self
    }

    pub fn upload(mut self, upload: Option<(Cut, Uploads)>) -> Self {
        self.upload = upload;
        self
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        if let Some((cut, uploads)) = this.upload.take() {
            uploads.polled(&cut);
        }
        let frame = match &mut this.source {
            Source::Empty => None,
            Source::Direct(body) => ready!(Pin::new(body).poll_frame(cx)),
            Source::Replayed(body) => match ready!(body.poll_frame(cx)) {
                None => None,
                Some(Ok(frame)) => Some(Ok(frame)),
                Some(Err(Broken::Client(error))) => Some(Err(error)),
                Some(Err(Broken::Superseded)) => {
                    return Poll::Ready(Some(Err(BodyError::new(Flag::Ok, Some(h2::Reason::CANCEL)))));
                }
            },
            Source::Gated(body, gate) => match ready!(gate.poll_open(cx)) {
                true => {
                    this.exchange.connection().withholds(false);
                    ready!(Pin::new(body).poll_frame(cx))
                }
                false => return Poll::Ready(Some(Err(BodyError::new(Flag::Ok, Some(h2::Reason::CANCEL))))),
            },
        };
        Poll::Ready(match frame {
            None => {
                this.exchange.uploaded();
                None
            }
            Some(Ok(mut frame)) => {
                if let Some(data) = frame.data_ref() {
                    this.exchange.sent(data.len());
                    if this.is_end_stream() {
                        this.exchange.uploaded();
                    }
                } else if let Some(trailers) = frame.trailers_ref()
                    && headers::are_too_many(trailers, &this.exchange.connection().worker.limits)
                {
                    this.exchange.request_failed(this.exchange.limited(Limit::Trailers));
                    return Poll::Ready(Some(Err(BodyError::new(Flag::TooLarge, Some(h2::Reason::CANCEL)))));
                } else if let Some(trailers) = frame.trailers_mut()
                    && !this.trailers.clean(trailers)
                {
                    this.exchange.trailers_dropped(Direction::Request);
                    if this.trailers == Trailers::None || trailers.is_empty() {
                        return Poll::Ready(None);
                    }
                }
                Some(Ok(frame))
            }
            Some(Err(error)) => {
                let flag = fault(&error, &this.exchange);
                this.exchange.request_failed(flag);
                Some(Err(BodyError::new(flag, Some(reason(&error).unwrap_or(h2::Reason::CANCEL)))))
            }
        })
    }

    fn is_end_stream(&self) -> bool {
        match &self.source {
            Source::Empty => true,
            Source::Direct(body) | Source::Gated(body, _) => body.is_end_stream(),
            Source::Replayed(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            // A length of 0 would make hyper add a `content-length: 0` that the client did not send.
            Source::Empty => SizeHint::default(),
            Source::Direct(body) | Source::Gated(body, _) => body.size_hint(),
            Source::Replayed(body) => body.size_hint(),
        }
    }
}

/// The body of an answer, towards the client.
pub struct ResponseBody {
    source: Answer,
    open: Option<Open>,
    /// Gives the connection back when the body has ended.
    lease: Option<Lease>,
    gate: Option<Gate>,
    limits: Option<Limits>,
    /// Bytes that the answer's length still promises.
    left: Option<u64>,
    trailers: Trailers,
    reading: Option<Reading>,
}

enum Answer {
    Empty,
    Full(Bytes),
    Stream(Incoming),
    /// No body, though the head tells its length: see [`ResponseBody::unsent`].
    Unsent,
}

/// The times that a streaming answer must keep while the upstream is waited for; a client that does not read is found by
/// `stalled`. The timer is armed when the body is first waited for, and is moved only
/// when it fires: an answer that is there at once costs no timer.
struct Limits {
    idle: std::time::Duration,
    deadline: Option<Instant>,
    moved: Instant,
    /// Bytes carried both ways when the timer last fired.
    bytes: u64,
    timer: Option<Pin<Box<Sleep>>>,
}

impl ResponseBody {
    /// A body that the proxy made itself; the exchange closes with it.
    pub fn own(bytes: Bytes, open: Open) -> Self {
        let source = if bytes.is_empty() { Answer::Empty } else { Answer::Full(bytes) };
        goes_out(&open);
        Self {
            source,
            open: Some(open),
            lease: None,
            gate: None,
            limits: None,
            left: None,
            trailers: Trailers::All,
            reading: None,
        }
    }

    /// No body and no exchange: the exchange lives on elsewhere (a tunnel).
    pub fn none() -> Self {
        Self {
            source: Answer::Empty,
            open: None,
            lease: None,
            gate: None,
            limits: None,
            left: None,
            trailers: Trailers::All,
            reading: None,
        }
    }

    pub fn stream(body: Incoming, open: Open, lease: Lease, gate: Option<Gate>, trailers: Trailers) -> Self {
        goes_out(&open);
        let limits = Limits {
            idle: open.exchange().idle_timeout(),
            deadline: open.exchange().deadline(),
            moved: open.exchange().opened(),
            bytes: open.exchange().moved(),
            timer: None,
        };
        let debt = lease.debt().filter(|_| !body.is_end_stream());
        Self {
            reading: debt.map(|debt| debt.read(open.exchange())),
            left: body.size_hint().exact(),
            source: Answer::Stream(body),
            open: Some(open),
            lease: Some(lease),
            gate,
            limits: Some(limits),
            trailers,
        }
    }

    /// For a 304 with a length. hyper's server takes `Content-Length` out of the head of an answer without a body, and
    /// leaves it in when a body of unknown length follows, of which it then writes nothing: RFC 9110 §15.4.5.
    pub fn unsent(mut self) -> Self {
        self.source = Answer::Unsent;
        self
    }

    fn finish(&mut self, flag: Option<Flag>) {
        if self.open.is_none() && self.lease.is_none() && self.gate.is_none() {
            return;
        }
        let now = Instant::now();
        if let Some(open) = self.open.take() {
            if flag.is_some() {
                open.exchange().broke_off();
            }
            open.end(flag.unwrap_or(Flag::Ok), now);
        }
        if let Some(lease) = self.lease.take() {
            lease.give_back(flag.is_none(), now);
        }
        if let Some(gate) = self.gate.take() {
            gate.refuse();
        }
    }

    fn took(&mut self, mut frame: Frame<Bytes>) -> Option<Frame<Bytes>> {
        if let Some(data) = frame.data_ref() {
            if let Some(open) = &self.open {
                open.exchange().received(data.len());
            }
            self.left = self.left.map(|left| left.saturating_sub(data.len() as u64));
            if self.is_end_stream() {
                self.finish(None);
            }
            return Some(frame);
        }
        if let Some(trailers) = frame.trailers_mut() {
            self.ended_with(trailers);
            if !self.trailers.clean(trailers)
                && let Some(open) = &self.open
            {
                open.exchange().trailers_dropped(Direction::Response);
            }
            let taken = self.trailers != Trailers::None && !trailers.is_empty();
            self.finish(None);
            return taken.then_some(frame);
        }
        Some(frame)
    }

    fn ended_with(&self, trailers: &HeaderMap) {
        if let (Some(open), Some(status)) = (&self.open, grpc::status(trailers)) {
            open.exchange().grpc_status(status);
        }
    }

    /// Whose fault it is that the answer broke off. When the client broke off its own body, the attempt was reset here.
    fn broken(&self, error: &hyper::Error) -> Flag {
        let failed = self.open.as_ref().and_then(|open| open.exchange().request_failure());
        failed.unwrap_or_else(|| attempts::broken(error))
    }

    /// hyper ends a body quietly at RST_STREAM with NO_ERROR, even where the stream's end has not come.
    fn is_cut(&self) -> bool {
        let Answer::Stream(body) = &self.source else { return false };
        let http2 = self.lease.as_ref().is_some_and(|lease| lease.version() == Version::HTTP_2);
        http2 && self.left != Some(0) && !body.is_end_stream()
    }

    fn poll_limits(&mut self, cx: &mut Context<'_>) -> Poll<Flag> {
        let (Some(limits), Some(open)) = (&mut self.limits, &self.open) else { return Poll::Pending };
        limits.poll(open.exchange().moved(), cx)
    }
}

fn goes_out(open: &Open) {
    let exchange = open.exchange();
    exchange.connection().worker.answers.add(exchange);
}

impl Limits {
    /// `bytes` is what both directions have carried: while the client sends, a silent upstream is not idle.
    fn poll(&mut self, bytes: u64, cx: &mut Context<'_>) -> Poll<Flag> {
        let (deadline, idle) = (self.deadline, self.idle);
        let due = |moved: Instant| deadline.map_or(moved + idle, |deadline| deadline.min(moved + idle));
        let timer = self.timer.get_or_insert_with(|| {
            // Until now the body was never waited for, so it moved all the time.
            (self.moved, self.bytes) = (Instant::now(), bytes);
            Box::pin(tokio::time::sleep_until(due(self.moved)))
        });
        loop {
            ready!(timer.as_mut().poll(cx));
            let now = Instant::now();
            if deadline.is_some_and(|deadline| now >= deadline) {
                return Poll::Ready(Flag::RequestTimeout);
            }
            if now >= self.moved + idle {
                if self.bytes == bytes {
                    return Poll::Ready(Flag::IdleTimeout);
                }
                self.moved = now;
            }
            self.bytes = bytes;
            timer.as_mut().reset(due(self.moved).max(now));
        }
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        let frame = match &mut this.source {
            Answer::Empty => return Poll::Ready(None),
            Answer::Unsent => {
                this.finish(None);
                return Poll::Ready(None);
            }
            Answer::Full(bytes) => {
                let bytes = std::mem::take(bytes);
                this.source = Answer::Empty;
                return Poll::Ready(this.took(Frame::data(bytes)).map(Ok));
            }
            Answer::Stream(body) => loop {
                match poll_read(body, this.reading.as_ref(), cx) {
                    // A client may count frames that carry nothing.
                    Poll::Ready(Some(Ok(frame)))
                        if frame.data_ref().is_some_and(Bytes::is_empty) && !body.is_end_stream() => {}
                    polled => break polled,
                }
            },
        };
        match frame {
            Poll::Pending => {
                let flag = ready!(this.poll_limits(cx));
                this.finish(Some(flag));
                Poll::Ready(Some(Err(BodyError::new(flag, Some(h2::Reason::CANCEL)))))
            }
            Poll::Ready(None) if this.is_cut() => {
                this.finish(Some(Flag::UpstreamReset));
                let error = BodyError::new(Flag::UpstreamReset, Some(h2::Reason::NO_ERROR));
                Poll::Ready(Some(Err(error)))
            }
            Poll::Ready(None) => {
                this.finish(None);
                Poll::Ready(None)
            }
            Poll::Ready(Some(Ok(frame))) => {
                if let Some(Limits { timer: Some(_), moved, .. }) = &mut this.limits {
                    *moved = Instant::now();
                }
                Poll::Ready(this.took(frame).map(Ok))
            }
            Poll::Ready(Some(Err(error))) => {
                let reason = reason(&error);
                let flag = this.broken(&error);
                this.finish(Some(flag));
                Poll::Ready(Some(Err(BodyError::new(flag, reason))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.source {
            Answer::Empty => true,
            Answer::Full(bytes) => bytes.is_empty(),
            Answer::Stream(body) => body.is_end_stream(),
            Answer::Unsent => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Answer::Empty => SizeHint::with_exact(0),
            Answer::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            // A length that is known stands in the head, unless it was taken out to make room for trailers.
            Answer::Stream(_) | Answer::Unsent => SizeHint::default(),
        }
    }
}

impl Drop for ResponseBody {
    fn drop(&mut self) {
        // Whoever knows the length stops reading at the last byte. Over HTTP/2 the end itself may still be on its way, and
        // a stream that is dropped before it would be reset.
        if self.left == Some(0)
            && !self.is_end_stream()
            && let Answer::Stream(body) = std::mem::replace(&mut self.source, Answer::Empty)
        {
            tokio::task::spawn_local(tokio::time::timeout(END_WAIT, body.collect()));
        }
        if self.is_end_stream() || matches!(self.source, Answer::Unsent) {
            return self.finish(None);
        }
        if let Answer::Stream(body) = &mut self.source {
            leave(body, self.reading.as_ref());
        }
        // Not `finish`: the exchange itself knows whether the client went away or the drain cut it off.
        if let Some(open) = self.open.take() {
            open.exchange().broke_off();
        }
        self.finish(Some(Flag::ClientReset));
    }
}

/// Why a client's body broke off. Which of its own limits it was, the engine tells in words alone.
fn fault(error: &hyper::Error, exchange: &Exchange) -> Flag {
    let text = std::error::Error::source(error).map(ToString::to_string).unwrap_or_default();
    match text.as_str() {
        EXTENSIONS_OVER => exchange.limited(Limit::ChunkExtensions),
        TRAILERS_OVER | "chunk trailers count overflow" => exchange.limited(Limit::Trailers),
        _ if is_malformed(error) => Flag::BadRequest,
        _ => Flag::ClientReset,
    }
}

/// As much is made of small pieces: no more than one frame.
const GATHERED: usize = 8 * 1024;
/// How long the end of a body is awaited whose last byte has come.
const END_WAIT: std::time::Duration = std::time::Duration::from_secs(5);

/// Whether a body ended because nobody can say where it ends.
fn is_malformed(error: &hyper::Error) -> bool {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if let Some(io) = error.downcast_ref::<std::io::Error>() {
            return matches!(io.kind(), std::io::ErrorKind::InvalidData | std::io::ErrorKind::InvalidInput);
        }
        if let Some(h2) = error.downcast_ref::<h2::Error>() {
            return h2.is_reset() && h2.is_library();
        }
        cause = error.source();
    }
    false
}

/// The HTTP/2 reason inside an error of hyper's, if a reset was at its bottom.
pub fn reason(error: &(dyn std::error::Error + 'static)) -> Option<h2::Reason> {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(h2) = error.downcast_ref::<h2::Error>() {
            return h2.reason();
        }
        cause = error.source();
    }
    None
}
