//! Moves bytes both ways between a client and an upstream that nobody here reads: opaque TCP, TLS passed through, and
//! what follows an HTTP upgrade.
//!
//! Half-close is kept: the end of one direction is passed on and the other goes on. An abrupt end is passed on as such.
//! Nothing is allocated while a connection is idle; a reader that stalls holds 16 KiB or one pipe. Plain sockets are
//! moved in the kernel while they have much to move ([`pipe`]).
//!
//! The caller owns the clock of the connection, its metrics and its log line; it reads [`Moved`] at any time, also
//! after it dropped the future to cut the connection.

mod direction;
pub mod pipe;
#[cfg(test)]
mod tests;

use std::{
    cell::Cell,
    fmt,
    future::poll_fn,
    io,
    pin::pin,
    rc::Rc,
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::{Instant, sleep},
};

use self::{
    direction::{Direction, End, Foreign},
    pipe::Pipes,
};
use super::prefixed::Prefixed;

/// Copies between any two streams; both are dropped at the end. A caller that must close them in a special way after an
/// abrupt end (see [`CopyEnd::is_abrupt`]) passes `&mut` and keeps them.
pub async fn copy<A, B>(client: A, upstream: B, watch: &CopyWatch) -> CopyEnd
where
    A: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
{
    run(&mut Foreign(client), &mut Foreign(upstream), watch, None).await
}

/// Copies between two sockets, with splice where it pays. After an abrupt end of one side the other is reset too, so
/// that its peer sees the same kind of end.
pub async fn copy_tcp(
    client: impl Into<Prefixed<TcpStream>>,
    upstream: impl Into<Prefixed<TcpStream>>,
    watch: &CopyWatch,
    pipes: &Pipes,
) -> CopyEnd {
    let (mut client, mut upstream) = (client.into(), upstream.into());
    let end = run(&mut client, &mut upstream, watch, Some(pipes)).await;
    if end.is_abrupt() {
        // A socket that is gone already cannot be told, and need not be.
        let _ = client.stream().set_zero_linger();
        let _ = upstream.stream().set_zero_linger();
    }
    end
}

/// How a copy is watched.
pub struct CopyWatch {
    idle: Duration,
    moved: Rc<Moved>,
    first: Cell<Option<Told>>,
}

/// Whom to tell which side spoke first.
type Told = Box<dyn FnOnce(Side)>;

impl CopyWatch {
    /// Ends the copy when no byte arrived either way for `idle`, to within a quarter of it.
    pub fn new(idle: Duration) -> Self {
        Self { idle, moved: Rc::default(), first: Cell::new(None) }
    }

    /// Calls `told` with the side whose bytes are the first to be passed on. Once, and not if nobody speaks.
    pub fn on_first(self, told: impl FnOnce(Side) + 'static) -> Self {
        self.first.set(Some(Box::new(told)));
        self
    }

    /// The live counters.
    pub fn moved(&self) -> Rc<Moved> {
        self.moved.clone()
    }

    /// Counts what the other side's socket took.
    fn count(&self, from: Side, bytes: u64, spliced: bool) {
        if let Some(told) = self.first.take() {
            told(from);
        }
        let counter = self.moved.from(from);
        counter.set(counter.get() + bytes);
        if spliced {
            self.moved.spliced.set(self.moved.spliced.get() + bytes);
        }
    }
}

impl fmt::Debug for CopyWatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CopyWatch").field("idle", &self.idle).field("moved", &self.moved).finish_non_exhaustive()
    }
}

/// Bytes that were passed on, as far as the receiving sockets took them.
#[derive(Debug, Default)]
pub struct Moved {
    /// From the client to the upstream.
    pub up: Cell<u64>,
    /// From the upstream to the client.
    pub down: Cell<u64>,
    /// Those of both that never left the kernel.
    pub spliced: Cell<u64>,
}

impl Moved {
    fn from(&self, side: Side) -> &Cell<u64> {
        match side {
            Side::Client => &self.up,
            Side::Upstream => &self.down,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Side {
    Client,
    Upstream,
}

impl Side {
    fn other(self) -> Self {
        match self {
            Self::Client => Self::Upstream,
            Self::Upstream => Self::Client,
        }
    }
}

/// How a copy ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CopyEnd {
    /// From the client to the upstream.
    pub up: Ended,
    /// From the upstream to the client.
    pub down: Ended,
    /// The side that ended first, by closing or by failing. `None`: neither did.
    pub first: Option<Side>,
}

impl CopyEnd {
    /// Whether an end was other than asked for, so that a peer must not take what it got for the whole.
    pub fn is_abrupt(&self) -> bool {
        let abrupt = |ended| match ended {
            Ended::Reset | Ended::Error(_) => true,
            Ended::Eof | Ended::Idle | Ended::Cut => false,
        };
        abrupt(self.up) || abrupt(self.down)
    }
}

/// How one direction ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Ended {
    /// The sender closed its side and the receiver was told.
    Eof,
    /// One of the two broke the connection off.
    Reset,
    /// Nothing moved for too long.
    Idle,
    Error(io::ErrorKind),
    /// It could have gone on, but the side it needed was gone.
    Cut,
}

async fn run<A: End, B: End>(client: &mut A, upstream: &mut B, watch: &CopyWatch, pipes: Option<&Pipes>) -> CopyEnd {
    let mut both = Both { up: Direction::new(Side::Client), down: Direction::new(Side::Upstream), first: None };
    let quarter = (watch.idle / QUIET_TICKS).max(Duration::from_millis(1));
    let mut tick = pin!(sleep(quarter));
    let (mut quiet, mut total) = (0, 0);
    poll_fn(|cx| {
        if let Poll::Ready(end) = both.poll(cx, client, upstream, watch, pipes) {
            return Poll::Ready(end);
        }
        // Ticks instead of a timer that is put back at every byte: a busy connection pays nothing for its watch.
        while tick.as_mut().poll(cx).is_ready() {
            let now = watch.moved.up.get() + watch.moved.down.get();
            quiet = if now == total { quiet + 1 } else { 0 };
            total = now;
            if quiet >= QUIET_TICKS {
                return Poll::Ready(both.end(Ended::Idle));
            }
            tick.as_mut().reset(Instant::now() + quarter);
        }
        Poll::Pending
    })
    .await
}

struct Both {
    up: Direction,
    down: Direction,
    first: Option<Side>,
}

impl Both {
    fn poll<A: End, B: End>(
        &mut self,
        cx: &mut Context<'_>,
        client: &mut A,
        upstream: &mut B,
        watch: &CopyWatch,
        pipes: Option<&Pipes>,
    ) -> Poll<CopyEnd> {
        if let Poll::Ready(stop) = self.up.poll(cx, client, upstream, watch, pipes) {
            self.first.get_or_insert(stop.by);
            self.down.opposite_stopped(stop);
        }
        if let Poll::Ready(stop) = self.down.poll(cx, upstream, client, watch, pipes) {
            self.first.get_or_insert(stop.by);
            self.up.opposite_stopped(stop);
        }
        match (self.up.ended(), self.down.ended()) {
            (Some(up), Some(down)) => Poll::Ready(CopyEnd { up, down, first: self.first }),
            _ => Poll::Pending,
        }
    }

    fn end(&self, ended: Ended) -> CopyEnd {
        CopyEnd { up: self.up.ended().unwrap_or(ended), down: self.down.ended().unwrap_or(ended), first: self.first }
    }
}

/// The idle limit is looked at in quarters, so a connection may live a quarter longer than it.
const QUIET_TICKS: u32 = 4;
