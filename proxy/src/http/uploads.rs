//! Bodies that are waited for. A client that sends one byte a second holds a request, and one of the upstream's, for
//! nothing; the worker looks once a second at the bodies that came too slowly for as long as they may, and cuts them. It
//! costs a body that is there at once nothing, and no body a timer. What is too slow is `rules::progress`.
//!
//! A body of known length has no reason to wait. One of unknown length may be a stream, which is silent for as long as it
//! likes; it must not stop in the middle of a chunk's line, of a chunk or of a frame. At a gateway, where the client is a
//! stranger, it must also come, unless it is gRPC or was answered already.

use std::cell::RefCell;
use std::rc::{Rc, Weak};

use tokio::time::Instant;

use crate::config::Mode;
use crate::error::Flag;
use crate::exchange::Exchange;
use crate::limit::Limit;
use crate::rules::progress::{Pace, Progress, Stretch};

/// The bodies of one worker that were waited for.
#[derive(Default)]
pub struct Waited(RefCell<Vec<Weak<Waiting>>>);

/// One of them.
pub struct Waiting {
    exchange: Rc<Exchange>,
    known_length: bool,
    progress: RefCell<Progress>,
    /// Bytes and units (HTTP/2 frames) of the connection when the stretch began.
    before: RefCell<(u64, u64)>,
}

impl Waited {
    /// Cuts what comes too slowly.
    pub fn sweep(&self, now: Instant) {
        self.0.borrow_mut().retain(|waiting| {
            let Some(waiting) = waiting.upgrade() else { return false };
            if waiting.is_too_slow(now) {
                waiting.exchange.connection().worker.meters.limited(Limit::BodyRate);
                waiting.exchange.request_failed(Flag::IdleTimeout);
                waiting.exchange.cut(Flag::IdleTimeout);
                return false;
            }
            true
        });
    }
}

impl Waiting {
    /// `None` where a body may take its time.
    pub fn new(exchange: &Rc<Exchange>, known_length: bool) -> Option<Rc<Self>> {
        let connection = exchange.connection();
        let limits = &connection.worker.limits;
        if limits.body_rate == 0 {
            return None;
        }
        let pace = Pace { rate: limits.body_rate as u64, over: limits.body_timeout };
        let waiting = Rc::new(Self {
            exchange: exchange.clone(),
            known_length,
            progress: RefCell::new(Progress::new(pace)),
            before: RefCell::new(connection.came()),
        });
        connection.worker.waited.0.borrow_mut().push(Rc::downgrade(&waiting));
        Some(waiting)
    }

    pub fn waits(&self, now: Instant) {
        self.progress.borrow_mut().waits(now);
    }

    pub fn came(&self, bytes: usize, now: Instant) {
        self.progress.borrow_mut().came(bytes, now);
    }

    fn is_too_slow(&self, now: Instant) -> bool {
        let mut progress = self.progress.borrow_mut();
        let waits = progress.is_waiting();
        let over = progress.over(now);
        if waits {
            progress.waits(now);
        }
        let Some(stretch) = over else { return false };
        let connection = self.exchange.connection();
        let came = connection.came();
        let (bytes, units) = self.before.replace(came);
        !stretch.enough && self.must_hurry(stretch, came.0.wrapping_sub(bytes), came.1.wrapping_sub(units), &progress)
    }

    /// `wire` and `units` came over the connection meanwhile.
    fn must_hurry(&self, stretch: Stretch, wire: u64, units: u64, progress: &Progress) -> bool {
        let connection = self.exchange.connection();
        let stuck_in_piece = match connection.http2.get() {
            true => wire > 0 && units == 0,
            // A whole chunk has at least a line of its own.
            false => wire > 0 && (stretch.came == 0 || wire.saturating_sub(stretch.came) < CHUNK_LINE),
        };
        if connection.http2.get() && wire >= progress.wanted().saturating_mul(connection.open().into()) {
            // The way is narrow and shared; each stream has its part.
            return false;
        }
        let stranger = connection.listener.mode == Mode::Gateway;
        let may_be_stream = self.exchange.is_grpc() || self.exchange.is_answered();
        self.known_length || stuck_in_piece || stranger && !may_be_stream
    }
}

/// `CR LF`, a digit, `CR LF`.
const CHUNK_LINE: u64 = 5;
