//! One accepted connection: the facts that every request on it shares, and the few cells by which its requests and its
//! task tell each other what goes on. Lives on one worker.

use std::cell::{Cell, OnceCell, RefCell};
use std::net::SocketAddr;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use crate::clients::Place;
use crate::error::Flag;
use crate::exchange::Exchange;
use crate::http::debt::Debt;
use crate::limit::Limit;
use crate::rules::flood::Flood;
use crate::worker::Worker;
use crate::worker::listener::Listener;

pub struct Connection {
    pub worker: Rc<Worker>,
    pub listener: Rc<Listener>,
    pub peer: SocketAddr,
    pub local: SocketAddr,
    /// Where the client wanted to go, if the connection was redirected to this listener.
    pub original: Option<SocketAddr>,
    /// The client's bytes came under TLS that ended here.
    pub tls: Cell<bool>,
    pub http2: Cell<bool>,
    seen: Arc<Seen>,
    /// The exchange that was opened last, until the task that carries it has taken it up.
    opened: RefCell<Weak<Exchange>>,
    open: Cell<u32>,
    /// The client waits for 100 before it sends its body, and has not been told.
    withheld: Cell<bool>,
    /// Request bodies that have not come to their end.
    uploads: Cell<u32>,
    idle_since: Cell<Instant>,
    requests: Cell<u64>,
    aborted: Cell<bool>,
    /// Its place among the connections of its client, where those are counted.
    client: RefCell<Option<Place>>,
    /// Requests that were there with the latest read, and which read that was.
    ahead: Cell<(u32, u64)>,
    /// Bytes read when a head could begin.
    head_from: Cell<u64>,
    /// Requests that its client gave up at once.
    given_up: RefCell<Flood>,
    reset_too_often: Cell<bool>,
    /// When it last gave one up at once.
    hasty: Cell<Option<Instant>>,
    /// HTTP/2 heads that were given to the service, were refused because there were too many, or were found unread.
    known: Cell<u64>,
    debt: OnceCell<Rc<Debt>>,
}

/// What goes over the client's socket, as its reader and writer sees it, which must be `Send`.
#[derive(Default)]
pub struct Seen {
    /// A head is under way; over HTTP/1: bytes have come since a request last began or ended.
    reading: AtomicBool,
    /// Bytes read and written.
    moved: AtomicU64,
    /// The first request, from 1, whose bytes can be read in two ways.
    ambiguous: AtomicU64,
    /// The connection has become a tunnel: nobody here reads what goes over it.
    switched: AtomicBool,
    /// Requests that were handed out.
    requests: AtomicU64,
    /// Bytes read, and in how many pieces: reads over HTTP/1, frames over HTTP/2.
    read: AtomicU64,
    units: AtomicU64,
    /// HTTP/2 streams refused because there were too many, and not counted yet.
    refused: AtomicU64,
    /// HTTP/2 heads that opened a stream, those with one that is under way, and those that the engine has judged.
    heads: AtomicU64,
    begun: AtomicU64,
    settled: AtomicU64,
    /// Heads that the engine answered by itself, which it does when they are too large.
    large: AtomicU64,
    /// Too many HTTP/2 frames that carry nothing.
    flooded: AtomicBool,
    /// What was written last is not the whole of it: the connection must not end as if it were.
    abrupt: AtomicBool,
}

impl Seen {
    pub fn reading(&self, reading: bool) {
        self.reading.store(reading, Ordering::Relaxed);
    }

    pub fn moved(&self, bytes: usize) {
        add(&self.moved, bytes as u64);
    }

    pub fn ambiguous(&self, number: u64) {
        self.ambiguous.store(number, Ordering::Relaxed);
    }

    pub fn abrupt(&self) {
        self.abrupt.store(true, Ordering::Relaxed);
    }

    pub fn is_abrupt(&self) -> bool {
        self.abrupt.load(Ordering::Relaxed)
    }

    pub fn has_switched(&self) -> bool {
        self.switched.load(Ordering::Relaxed)
    }

    pub fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    pub fn read(&self, bytes: usize) {
        add(&self.read, bytes as u64);
    }

    pub fn units(&self, units: u64) {
        add(&self.units, units);
    }

    pub fn refuse(&self) {
        add(&self.refused, 1);
    }

    pub fn heads(&self, heads: u64, begun: u64) {
        self.heads.store(heads, Ordering::Relaxed);
        self.begun.store(begun, Ordering::Relaxed);
    }

    pub fn settled(&self, heads: u64) {
        self.settled.store(heads, Ordering::Relaxed);
    }

    pub fn answered_large(&self) {
        add(&self.large, 1);
    }

    pub fn flood(&self) {
        self.flooded.store(true, Ordering::Relaxed);
    }

    pub fn is_flooded(&self) -> bool {
        self.flooded.load(Ordering::Relaxed)
    }
}

/// Only the connection's own task writes here, so this needs no locked instruction.
fn add(cell: &AtomicU64, count: u64) {
    cell.store(cell.load(Ordering::Relaxed).wrapping_add(count), Ordering::Relaxed);
}

impl Connection {
    pub fn new(
        worker: Rc<Worker>,
        listener: Rc<Listener>,
        peer: SocketAddr,
        local: SocketAddr,
        original: Option<SocketAddr>,
    ) -> Self {
        let given_up = RefCell::new(Flood::new(worker.limits.resets, Instant::now()));
        Self {
            worker,
            listener,
            peer,
            local,
            original,
            tls: Cell::new(false),
            http2: Cell::new(false),
            seen: Arc::default(),
            opened: RefCell::default(),
            open: Cell::new(0),
            withheld: Cell::new(false),
            uploads: Cell::new(0),
            idle_since: Cell::new(Instant::now()),
            requests: Cell::new(0),
            aborted: Cell::new(false),
            client: RefCell::default(),
            ahead: Cell::new((0, 0)),
            head_from: Cell::new(0),
            given_up,
            reset_too_often: Cell::new(false),
            hasty: Cell::new(None),
            known: Cell::new(0),
            debt: OnceCell::new(),
        }
    }

    pub fn counted(&self, place: Place) {
        self.client.replace(Some(place));
    }

    /// A request begins.
    pub fn began(&self) {
        self.open.set(self.open.get() + 1);
        self.requests.set(self.requests.get() + 1);
        self.seen.requests.store(self.requests.get(), Ordering::Relaxed);
        let (ahead, last) = self.ahead.get();
        let read = self.seen.units.load(Ordering::Relaxed);
        self.ahead.set((if read == last { ahead.saturating_add(1) } else { 0 }, read));
        self.head_over();
    }

    /// Requests before the latest that came with it: over HTTP/1, what is there is taken before more is read.
    pub fn ahead(&self) -> u32 {
        self.ahead.get().0
    }

    /// A request has ended.
    pub fn ended(&self, now: Instant) {
        self.open.set(self.open.get().saturating_sub(1));
        self.idle_since.set(now);
        self.head_over();
    }

    /// Over HTTP/2 the frames alone tell what is read.
    fn head_over(&self) {
        if !self.http2.get() {
            self.seen.reading(false);
            self.head_from.set(self.seen.read.load(Ordering::Relaxed));
        }
    }

    /// Bytes of a head that has not ended.
    pub fn head_bytes(&self) -> u64 {
        self.seen.read.load(Ordering::Relaxed).wrapping_sub(self.head_from.get())
    }

    /// Where what lies unread on an HTTP/2 connection with this window is counted.
    pub fn owes(&self, window: u32) -> Rc<Debt> {
        self.debt.get_or_init(|| Debt::new(window)).clone()
    }

    pub fn debt(&self) -> Option<&Rc<Debt>> {
        self.debt.get()
    }

    /// Bytes that came from the client, and in how many pieces.
    pub fn came(&self) -> (u64, u64) {
        (self.seen.read.load(Ordering::Relaxed), self.seen.units.load(Ordering::Relaxed))
    }

    /// HTTP/2 streams refused since the last call because there were too many.
    pub fn take_refused(&self) -> u64 {
        match self.seen.refused.load(Ordering::Relaxed) {
            0 => 0,
            refused => {
                self.seen.refused.store(0, Ordering::Relaxed);
                self.known.set(self.known.get() + refused);
                refused
            }
        }
    }

    /// An HTTP/2 head is given to the service.
    pub fn handed(&self) {
        self.known.set(self.known.get() + 1);
    }

    /// HTTP/2 heads that the engine refused since the last call without a word to anybody, and how many of them because
    /// they were too large. Asked when it has handed out all that it has.
    pub fn take_unread(&self) -> (u64, u64) {
        let settled = self.seen.settled.load(Ordering::Relaxed);
        if settled <= self.known.get() {
            if self.seen.large.load(Ordering::Relaxed) != 0 {
                self.seen.large.store(0, Ordering::Relaxed);
            }
            return (0, 0);
        }
        let unread = settled - self.known.replace(settled);
        (unread, self.seen.large.swap(0, Ordering::Relaxed).min(unread))
    }

    /// HTTP/2 heads of which nobody has heard when the connection ends; if it broke in one, with that.
    pub fn unheard(&self, broke: bool) -> u64 {
        let heads = if broke { &self.seen.begun } else { &self.seen.heads };
        heads.load(Ordering::Relaxed).saturating_sub(self.known.get())
    }

    /// The client took back a request right after it was sent.
    pub fn given_up(&self, now: Instant) {
        self.hasty.set(Some(now));
        if self.http2.get() && !self.given_up.borrow_mut().spend(1, || now) {
            self.reset_too_often.set(true);
        }
    }

    /// Whether its client took back a request lately: what it sends may be taken back already.
    pub fn is_hasty(&self, now: Instant) -> bool {
        self.http2.get() && self.hasty.get().is_some_and(|last| now.saturating_duration_since(last) < HASTY)
    }

    /// What the client did too much of, if it did.
    pub fn flooded(&self) -> Option<Limit> {
        if self.reset_too_often.get() {
            return Some(Limit::Resets);
        }
        self.seen.is_flooded().then_some(Limit::Frames)
    }

    pub fn seen(&self) -> Arc<Seen> {
        self.seen.clone()
    }

    /// Refuses the request that began last if it can be read in two ways, or comes behind one that can.
    pub fn sound(&self) -> Result<(), Flag> {
        match self.seen.ambiguous.load(Ordering::Relaxed) {
            first if first != 0 && self.requests.get() >= first => Err(Flag::BadRequest),
            _ => Ok(()),
        }
    }

    /// Whether the client keeps its body back until it is asked for.
    pub fn withholds(&self, withholds: bool) {
        self.withheld.set(withholds);
    }

    pub fn is_withheld(&self) -> bool {
        self.withheld.get()
    }

    /// What comes from now on is a tunnel's.
    pub fn switched(&self) {
        self.seen.switched.store(true, Ordering::Relaxed);
    }

    /// Bytes read from and written to the client's socket, as far as they are counted: over HTTP/1.
    pub fn moved(&self) -> u64 {
        self.seen.moved.load(Ordering::Relaxed)
    }

    pub fn opened(&self, exchange: &Rc<Exchange>) {
        self.opened.replace(Rc::downgrade(exchange));
    }

    /// The exchange that was opened since the last call.
    pub fn take_opened(&self) -> Option<Rc<Exchange>> {
        self.opened.take().upgrade()
    }

    /// A head has begun. What comes while a body is under way belongs to that, also after an early answer.
    pub fn is_reading(&self) -> bool {
        self.uploads.get() == 0 && self.seen.reading.load(Ordering::Relaxed)
    }

    /// A request's body begins.
    pub fn uploading(self: &Rc<Self>) -> Uploading {
        self.uploads.set(self.uploads.get() + 1);
        Uploading(self.clone())
    }

    /// Requests under way.
    pub fn open(&self) -> u32 {
        self.open.get()
    }

    /// Requests so far.
    pub fn requests(&self) -> u64 {
        self.requests.get()
    }

    pub fn idle_since(&self) -> Instant {
        self.idle_since.get()
    }

    /// The drain's deadline has come: what is dropped now was cut off by this proxy, not by its client.
    pub fn abort(&self) {
        self.aborted.set(true);
    }

    pub fn aborted(&self) -> bool {
        self.aborted.get()
    }
}

/// A request's body under way, until this is dropped.
pub struct Uploading(Rc<Connection>);

impl Drop for Uploading {
    fn drop(&mut self) {
        self.0.uploads.set(self.0.uploads.get().saturating_sub(1));
        self.0.head_over();
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.listener.closed();
    }
}

/// For so long a client that took back one request is expected to take back others.
const HASTY: Duration = Duration::from_secs(10);
