//! The client's connection: hyper reads requests from it and writes answers to it. This task also keeps the
//! connection's own times, which hyper does not tell apart: how long a head may take once it has begun, and how long a
//! connection may lie still between requests. And it ends the connection when the proxy drains.
//!
//! ```text
//!   idle ──first byte of a head──▶ reading ──head complete──▶ busy ──last answer ended──▶ idle
//!   idle: closed after idleTimeout      reading: closed after headerTimeout      busy: the exchange keeps its own time
//! ```
//!
//! Over HTTP/2 the client's preface and settings are read like a head, and no frame but a head's counts as one: a client
//! that only says PING is idle. A head that is begun while another request is busy has its time from that one's end
//! over HTTP/2; over HTTP/1, where it waits unread behind its answer, its beginning alone leaves the connection idle.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::StatusCode;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::time::{Instant, Sleep};

use super::client::{self, BROKEN_STREAMS, HYPER_HEADER_COUNT, MIN_BUFFER, SEND_BUFFER};
use super::counted::Counted;
use super::stalled::{Carried, Streams};
use super::watched::{Socket, Watched};
use crate::connection::Connection;
use crate::data_path;
use crate::drain::Draining;
use crate::error::Flag;
use crate::exchange::Open;
use crate::limit::Limit;

/// The service's error: an HTTP/2 stream is reset with this reason, an HTTP/1 connection is closed.
#[derive(Debug)]
pub struct Reset(h2::Error);

impl From<h2::Reason> for Reset {
    fn from(reason: h2::Reason) -> Self {
        Self(reason.into())
    }
}

impl std::fmt::Display for Reset {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "the stream is reset: {}", self.0)
    }
}

impl std::error::Error for Reset {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.0)
    }
}

pub async fn http1(connection: Rc<Connection>, io: impl Socket) {
    let limits = &connection.worker.limits;
    let mut builder = http1::Builder::new();
    builder.auto_date_header(false).max_buf_size(limits.header_bytes.max(MIN_BUFFER));
    builder.max_header_size(limits.header_bytes);
    if limits.header_count != HYPER_HEADER_COUNT {
        builder.max_headers(limits.header_count);
    }
    let served = connection.clone();
    // Boxed: the engine keeps room for it between requests too.
    let service = service_fn(move |request| Box::pin(data_path::request(served.clone(), request)));
    let io = TokioIo::new(Watched::http1(io, &connection));
    let mut serving = pin!(builder.serve_connection(io, service).with_upgrades());
    let end = Watch::new(&connection).keep(serving.as_mut(), |serving| serving.graceful_shutdown()).await;
    ended(connection, end);
}

pub async fn http2(connection: Rc<Connection>, io: impl Socket) {
    connection.http2.set(true);
    let limits = &connection.worker.limits;
    let window = connection.worker.shared.windows.client();
    let mut builder = http2::Builder::new(Streams::of(&connection));
    builder
        .timer(TokioTimer::new())
        .auto_date_header(false)
        .enable_connect_protocol()
        .initial_stream_window_size(window.stream)
        .initial_connection_window_size(window.connection)
        .max_send_buf_size(SEND_BUFFER)
        .max_concurrent_streams(limits.streams)
        .max_pending_accept_reset_streams(RESET_UNSEEN)
        .max_local_error_reset_streams(BROKEN_STREAMS)
        .max_header_list_size(u32::try_from(limits.header_bytes.saturating_mul(HEAD_SLACK)).unwrap_or(u32::MAX));
    let debt = connection.owes(window.connection);
    let served = connection.clone();
    let service = service_fn(move |request| {
        served.handed();
        // Boxed: on its way into a task of its own the engine moves it several times.
        Box::pin(data_path::request(served.clone(), request))
    });
    let mut serving = pin!(builder.serve_connection(TokioIo::new(Counted::client(io, &connection, debt)), service));
    let end = Watch::new(&connection).keep(serving.as_mut(), |serving| serving.graceful_shutdown()).await;
    ended(connection, end);
}

/// How a connection's task ended.
enum End {
    Served(Result<(), hyper::Error>),
    /// A head was begun and not finished in time.
    HeadTimeout,
    /// The client did too much.
    Limited(Limit),
    /// The drain's deadline came, or an answer was not taken.
    Cut,
}

/// What hyper refused by itself opens and closes an exchange too: it was a request, only no one could read it. So do
/// HTTP/2 heads that had come and were not handed out when the connection ended.
fn ended(connection: Rc<Connection>, end: End) {
    let limited = |limit: Limit| {
        connection.worker.meters.limited(limit);
        limit.flag().unwrap_or(Flag::ClientReset)
    };
    let (mut broke, mut long) = (false, false);
    let (flag, least) = match end {
        End::Served(Ok(())) => (Flag::ClientReset, 0),
        End::Served(Err(error)) if error.is_parse_too_large() => {
            let bytes = connection.worker.limits.header_bytes as u64;
            long = is_long_target(&error);
            (
                limited(match connection.head_bytes() >= bytes {
                    _ if long => Limit::TargetBytes,
                    true => Limit::HeaderBytes,
                    false => Limit::HeaderCount,
                }),
                1,
            )
        }
        End::Served(Err(error)) if error.is_parse() => (Flag::BadRequest, 1),
        End::Served(Err(error)) if client::is_too_much(&error) => (limited(Limit::Engine), 1),
        // The client left in the middle of a head. Over HTTP/2 it may as well have said nothing at all.
        End::Served(Err(_)) if !connection.http2.get() && connection.open() == 0 && connection.is_reading() => {
            (Flag::ClientReset, 1)
        }
        End::Served(Err(error)) => match connection.flooded() {
            Some(limit) => (limited(limit), 1),
            None => {
                tracing::debug!(%error, peer = %connection.peer, "client connection ended");
                broke = client::is_broken(&error);
                (if broke { Flag::BadRequest } else { Flag::ClientReset }, 0)
            }
        },
        End::Limited(limit) => (limited(limit), 1),
        End::HeadTimeout => (limited(Limit::HeaderTime), 1),
        End::Cut => (Flag::Draining, 0),
    };
    let answers = !connection.http2.get() && matches!(flag, Flag::BadRequest | Flag::TooLarge);
    let status = if long { StatusCode::URI_TOO_LONG } else { flag.status() };
    // The engine holds no more than these; what else came in the last bytes is not worth a line each.
    let most = u64::from(connection.worker.limits.streams).max(1);
    for _ in 0..connection.unheard(broke).clamp(least, most) {
        Open::unread(connection.clone(), answers.then_some(status)).fail(flag);
    }
}

/// The one of two kinds of too large that hyper answers with 414. It tells them apart in words alone.
fn is_long_target(error: &hyper::Error) -> bool {
    error.to_string() == "URI too long"
}

/// HTTP/2 heads that the engine refused while the connection goes on: with 431 when one is larger than even `HEAD_SLACK`
/// allows, else with a reset of its stream.
fn unread(connection: &Rc<Connection>) {
    let (unread, large) = connection.take_unread();
    for number in 0..unread {
        let (status, flag) = match number < large {
            true => {
                connection.worker.meters.limited(Limit::HeaderBytes);
                (Some(Flag::TooLarge.status()), Flag::TooLarge)
            }
            false => (None, Flag::BadRequest),
        };
        Open::unread(connection.clone(), status).fail(flag);
    }
}

/// Polls a connection together with its times and the drain. While a request is open there is nothing to watch but the
/// drain's deadline and whether its exchange was cut, so a busy connection touches neither the clock nor a timer.
struct Watch<'a> {
    connection: &'a Rc<Connection>,
    carried: Carried,
    timer: Option<Pin<Box<Sleep>>>,
    due: Instant,
    /// When the head that is being read began.
    head: Option<Instant>,
    /// When the connection was told to close.
    closing: Option<Instant>,
}

enum Verdict {
    Wait(Instant),
    Close,
    HeadTimeout,
    Cut,
}

impl<'a> Watch<'a> {
    fn new(connection: &'a Rc<Connection>) -> Self {
        Self { connection, carried: Carried::default(), timer: None, due: Instant::now(), head: None, closing: None }
    }

    async fn keep<F>(mut self, mut serving: Pin<&mut F>, close: impl Fn(Pin<&mut F>)) -> End
    where
        F: Future<Output = Result<(), hyper::Error>>,
    {
        let drain = &self.connection.worker.drain;
        let mut changed = pin!(drain.changed());
        let mut heard = None;
        poll_fn(|cx| {
            // Once for each change is enough: this task's waker stays the same.
            let phase = drain.phase().map(|phase| phase.deadline);
            if heard != Some(phase) {
                heard = Some(phase);
                while changed.as_mut().poll(cx).is_ready() {
                    changed.set(drain.changed());
                }
            }
            loop {
                let served = serving.as_mut().poll(cx);
                for _ in 0..self.connection.take_refused() {
                    self.connection.worker.meters.limited(Limit::Streams);
                }
                if let Poll::Ready(result) = served {
                    return Poll::Ready(End::Served(result));
                }
                unread(self.connection);
                if let Some(limit) = self.connection.flooded() {
                    return Poll::Ready(End::Limited(limit));
                }
                if self.carried.is_cut(self.connection, cx) {
                    return Poll::Ready(End::Cut);
                }
                let phase = drain.phase();
                if phase.is_none() && self.connection.open() > 0 {
                    self.head = None;
                    return Poll::Pending;
                }
                if phase.is_none() && self.rests() {
                    return Poll::Pending;
                }
                let now = Instant::now();
                match self.verdict(phase, now) {
                    Verdict::Close => {
                        if phase.is_none() {
                            self.connection.worker.meters.limited(Limit::IdleTime);
                        }
                        self.closing = Some(now);
                        close(serving.as_mut());
                    }
                    Verdict::HeadTimeout => return Poll::Ready(End::HeadTimeout),
                    Verdict::Cut => {
                        self.connection.abort();
                        return Poll::Ready(End::Cut);
                    }
                    Verdict::Wait(until) => match self.poll_timer(until, cx) {
                        Poll::Ready(()) => {}
                        Poll::Pending => return Poll::Pending,
                    },
                }
            }
        })
        .await
    }

    /// Nothing is to do but to wait for the timer, which is set and will fire early enough: so a request that has ended
    /// touches neither the clock nor the timer.
    fn rests(&self) -> bool {
        let armed = self.timer.as_ref().is_some_and(|timer| !timer.is_elapsed());
        armed
            && self.closing.is_none()
            && self.head.is_none()
            && !self.connection.is_reading()
            && self.due <= self.connection.idle_since() + self.connection.worker.limits.idle_timeout
    }

    /// What the connection's state asks for now, or until when there is nothing to do.
    fn verdict(&mut self, phase: Option<Draining>, now: Instant) -> Verdict {
        if phase.is_some_and(|phase| now >= phase.deadline) {
            return Verdict::Cut;
        }
        let limits = &self.connection.worker.limits;
        let busy = self.connection.open() > 0;
        self.head = match !busy && self.connection.is_reading() {
            true => self.head.or(Some(now)),
            false => None,
        };
        let idle_since = self.connection.idle_since();
        let next = match (self.closing, self.head) {
            // Told to close: HTTP/2 waits for the client's acknowledgement, which may never come.
            (Some(_), _) if busy => now + limits.idle_timeout,
            (Some(since), _) if now >= since.max(idle_since) + CLOSE_WAIT => return Verdict::Cut,
            (Some(since), _) => since.max(idle_since) + CLOSE_WAIT,
            (None, Some(began)) if now >= began + limits.header_timeout => return Verdict::HeadTimeout,
            (None, Some(began)) => began + limits.header_timeout,
            (None, None) => match self.idle_until(phase, busy) {
                Some(until) if now >= until => return Verdict::Close,
                Some(until) => until,
                None => now + limits.idle_timeout,
            },
        };
        Verdict::Wait(phase.map_or(next, |phase| next.min(phase.deadline)))
    }

    /// When a connection that lies still is told to close. A draining proxy says goodbye at once over HTTP/2, where no
    /// request is lost by it; over HTTP/1, and before the first request, it stays a while for a request that is already
    /// on its way.
    fn idle_until(&self, phase: Option<Draining>, busy: bool) -> Option<Instant> {
        let idle_since = self.connection.idle_since();
        match phase {
            Some(phase) if self.connection.http2.get() && self.connection.requests() > 0 => Some(phase.since),
            _ if busy => None,
            Some(phase) => Some(idle_since.max(phase.since) + phase.idle_grace),
            None => Some(idle_since + self.connection.worker.limits.idle_timeout),
        }
    }

    /// The timer is left alone when it would fire too early, which happens once an hour, and reset only when an earlier
    /// time is needed than the one it has: so a request does not touch it.
    fn poll_timer(&mut self, until: Instant, cx: &mut Context<'_>) -> Poll<()> {
        let timer = self.timer.get_or_insert_with(|| {
            self.due = until;
            Box::pin(tokio::time::sleep_until(until))
        });
        if until < self.due || timer.is_elapsed() {
            self.due = until;
            timer.as_mut().reset(until);
        }
        timer.as_mut().poll(cx)
    }
}

/// Streams that a client may reset before anybody here has seen them: one burst of a page that is left, all of one read.
/// The engine's 20 is less than what browsers do; each costs a few hundred bytes until it is looked at.
const RESET_UNSEEN: usize = 128;
/// Beyond the limit that it knows of, h2 answers by itself and tells nobody. It is given room, so that a head which is
/// only somewhat too large is refused here, with a log line and a number.
const HEAD_SLACK: usize = 4;
/// A client that does not acknowledge the end of its HTTP/2 connection is not waited for longer.
const CLOSE_WAIT: Duration = Duration::from_secs(5);
