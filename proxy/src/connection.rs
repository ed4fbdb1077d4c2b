//! One accepted connection: the facts that every request on it shares, and the few cells by which its requests and its
//! task tell each other what goes on. Lives on one worker.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use tokio::time::Instant;

use crate::error::Flag;
use crate::exchange::Exchange;
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
    /// Request bodies that have not come to their end.
    uploads: Cell<u32>,
    idle_since: Cell<Instant>,
    requests: Cell<u64>,
    aborted: Cell<bool>,
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
}

impl Seen {
    pub fn reading(&self, reading: bool) {
        self.reading.store(reading, Ordering::Relaxed);
    }

    /// Only the connection's own task writes here, so this needs no locked instruction.
    pub fn moved(&self, bytes: usize) {
        let moved = self.moved.load(Ordering::Relaxed);
        self.moved.store(moved.wrapping_add(bytes as u64), Ordering::Relaxed);
    }

    pub fn ambiguous(&self, number: u64) {
        self.ambiguous.store(number, Ordering::Relaxed);
    }

    pub fn has_switched(&self) -> bool {
        self.switched.load(Ordering::Relaxed)
    }
}

impl Connection {
    pub fn new(
        worker: Rc<Worker>,
        listener: Rc<Listener>,
        peer: SocketAddr,
        local: SocketAddr,
        original: Option<SocketAddr>,
    ) -> Self {
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
            uploads: Cell::new(0),
            idle_since: Cell::new(Instant::now()),
            requests: Cell::new(0),
            aborted: Cell::new(false),
        }
    }

    /// A request begins.
    pub fn began(&self) {
        self.open.set(self.open.get() + 1);
        self.requests.set(self.requests.get() + 1);
        self.head_over();
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
        }
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
