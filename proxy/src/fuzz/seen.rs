//! What a run in memory sees of the proxy: the exchanges that were closed, the connections that it made to an upstream,
//! and what was found wrong. Everything runs on one thread, so it stands in a thread-local and needs no way in.

use std::cell::RefCell;
use std::hash::{DefaultHasher, Hash, Hasher};

use tokio::io::DuplexStream;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::error::Flag;
use crate::exchange::Record;

/// One closed exchange.
#[derive(Clone, Debug)]
pub struct Closed {
    /// `None` if its head could not be read.
    pub method: Option<String>,
    pub path: String,
    pub status: Option<u16>,
    pub flag: Flag,
    /// How many connections it was put on, at most.
    pub attempts: usize,
    pub answered: usize,
    pub sent: u64,
    pub received: u64,
}

#[derive(Default)]
struct Seen {
    /// Where the far ends go of the connections made, if this thread is in a run.
    origin: Option<UnboundedSender<DuplexStream>>,
    closed: Vec<Closed>,
    wrong: Vec<String>,
    marks: Vec<u64>,
}

thread_local! {
    static SEEN: RefCell<Seen> = RefCell::default();
}

fn with<T>(look: impl FnOnce(&mut Seen) -> T) -> T {
    SEEN.with_borrow_mut(look)
}

/// A run begins. Gives the far ends of the connections that the proxy makes.
pub fn begin() -> UnboundedReceiver<DuplexStream> {
    let (origin, dialled) = unbounded_channel();
    with(|seen| *seen = Seen { origin: Some(origin), ..Seen::default() });
    dialled
}

/// A connection to an upstream, if this thread is in a run.
pub fn dial() -> Option<DuplexStream> {
    with(|seen| {
        let origin = seen.origin.as_ref()?;
        let (near, far) = tokio::io::duplex(PIPE);
        origin.send(far).ok()?;
        Some(near)
    })
}

/// Outside of a run nothing is kept: programs that are built beside the tests have this too.
pub fn closed(record: &Record, flag: Flag, (sent, received): (u64, u64)) {
    if with(|seen| seen.origin.is_none()) {
        return;
    }
    let request = record.request.as_ref();
    let method = request.and_then(|request| request.method.as_ref());
    let path = request.and_then(|request| request.path.as_ref());
    let closed = Closed {
        method: method.map(|method| method.as_str().into()),
        path: path.map(|path| path.path().into()).unwrap_or_default(),
        status: record.status.map(|status| status.as_u16()),
        flag,
        attempts: record.attempts.len(),
        answered: record.attempts.iter().filter(|attempt| attempt.status.is_some()).count(),
        sent,
        received,
    };
    mark((flag.name(), closed.status, closed.attempts.min(3), closed.sent.min(2), closed.received.min(2)));
    with(|seen| seen.closed.push(closed));
}

pub fn wrong(text: impl Into<String>) {
    with(|seen| seen.wrong.push(text.into()));
}

/// Something by which runs differ, for whoever picks the inputs that are worth keeping.
pub fn mark(what: impl Hash) {
    let mut hasher = DefaultHasher::new();
    what.hash(&mut hasher);
    with(|seen| seen.marks.push(hasher.finish()));
}

/// What came out of the latest run.
pub fn marks() -> Vec<u64> {
    with(|seen| std::mem::take(&mut seen.marks))
}

/// The run is over: its exchanges in the order in which they closed, and what was wrong.
pub fn end() -> (Vec<Closed>, Vec<String>) {
    with(|seen| {
        seen.origin = None;
        (std::mem::take(&mut seen.closed), std::mem::take(&mut seen.wrong))
    })
}

/// As much as a small socket buffer holds.
pub const PIPE: usize = 16 * 1024;
