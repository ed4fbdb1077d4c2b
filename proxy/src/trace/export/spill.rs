//! Where spans wait on disk when memory is full or the proxy ends. A thread of its own has the disk, so that one that is
//! slow or hangs holds up nobody; this is the side that gives it orders. What it is given counts as in flight until it is
//! written. A disk that is full, read-only or broken costs spans, which are counted, and one line in the log. One that
//! hangs at the end loses its say: what it has not spoken of by then is counted for it.
//!
//! ```text
//!   queue is full, or the proxy ends ──▶ put ──▶ written ──▶ fetch ──▶ settle: deleted
//!                                         │         ▲          └─────▶ give back, at the end
//!                                         └▶ dropped└─ what an earlier process left
//! ```

pub mod record;
mod store;

use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use tokio::sync::{Notify, oneshot};
use tokio::time::timeout_at;

pub use self::store::Place;
use self::store::{Left, Store};
use super::ledger::Ledger;
use super::parcel::{Envelope, Parcel};
use super::retry::Reason;
use crate::config;

/// Clones lead to the same disk.
#[derive(Clone)]
pub struct Spill {
    // Has no bound of its own: puts are bounded in bytes, and a sender waits for each of its other orders.
    orders: Sender<Order>,
    shared: Arc<Shared>,
    ledger: Arc<Ledger>,
}

/// Spans from the disk.
pub struct Fetched {
    pub place: Place,
    pub parcel: Parcel,
    pub envelope: Arc<Envelope>,
}

impl Spill {
    pub fn start(name: &str, to: &config::Spill, ledger: Arc<Ledger>) -> io::Result<Self> {
        let (orders, inbox) = channel();
        let shared = Arc::new(Shared::default());
        let mut disk = Disk {
            name: name.to_owned(),
            dir: to.path.join(name),
            limit: to.bytes as u64,
            store: None,
            tried: None,
            fails: false,
            shared: shared.clone(),
            ledger: ledger.clone(),
        };
        thread::Builder::new().name("spill".into()).spawn(move || disk.run(&inbox))?;
        Ok(Self { orders, shared, ledger })
    }

    /// From the queue: never waits.
    pub fn put(&self, parcel: Parcel, envelope: Arc<Envelope>) {
        let (size, spans) = (parcel.size(), parcel.len());
        let before = self.shared.backlog.fetch_add(size, Ordering::Relaxed);
        if before > 0 && before + size > BACKLOG {
            self.shared.backlog.fetch_sub(size, Ordering::Relaxed);
            self.ledger.dropped(spans, Reason::SpillFailed);
            return;
        }
        self.order(Order::Put { parcel, envelope, done: None }, spans);
    }

    /// Waits until it is written or dropped, or the disk has had its time: at the end, the one that it has for all.
    pub async fn place(&self, parcel: Parcel, envelope: Arc<Envelope>, until: Option<Instant>) {
        let spans = parcel.len();
        self.shared.backlog.fetch_add(parcel.size(), Ordering::Relaxed);
        let (done, told) = oneshot::channel();
        self.order(Order::Put { parcel, envelope, done: Some(done) }, spans);
        let in_time = timeout_at(until.unwrap_or_else(|| Instant::now() + PATIENCE).into(), told).await.is_ok();
        if !in_time && until.is_some() {
            self.forsake();
        }
    }

    /// Whether something waits.
    pub fn has_any(&self) -> bool {
        self.shared.waiting.load(Ordering::Acquire) > 0
    }

    /// Something came that can be fetched.
    pub async fn news(&self) {
        self.shared.news.notified().await;
    }

    /// Asks for the oldest; `None` comes when there is none after all.
    pub fn fetch(&self) -> oneshot::Receiver<Option<Fetched>> {
        let (give, fetched) = oneshot::channel();
        self.order(Order::Fetch(give), 0);
        fetched
    }

    /// What was fetched has been counted otherwise.
    pub fn settle(&self, place: Place) {
        self.order(Order::Settle(place), 0);
    }

    /// What was fetched stays for the next process.
    pub fn give_back(&self, place: Place, spans: usize) {
        self.order(Order::GiveBack(place, spans), spans);
    }

    /// Waits until all orders are carried out; what is not by then is lost, and counted.
    pub async fn close(&self, until: Instant) {
        let (done, told) = oneshot::channel();
        self.order(Order::Done(done), 0);
        if timeout_at(until.into(), told).await.is_err() {
            self.forsake();
        }
    }

    fn order(&self, order: Order, spans: usize) {
        let mut hand = self.shared.hand();
        match order {
            Order::Put { .. } => hand.new += spans,
            Order::GiveBack(..) => hand.back += spans,
            Order::Fetch(_) | Order::Settle(_) | Order::Done(_) => {}
        }
        // The thread ends only after everybody who could give an order, unless it panicked.
        if hand.closed || self.orders.send(order).is_err() {
            hand.empty(&self.ledger);
        }
    }

    /// The disk hangs and nobody can wait any longer.
    fn forsake(&self) {
        let mut hand = self.shared.hand();
        if !std::mem::replace(&mut hand.closed, true) {
            tracing::warn!(
                "the disk for spans does not answer, and the proxy ends; {} spans that it was to write are dropped",
                hand.new
            );
        }
        hand.empty(&self.ledger);
    }
}

enum Order {
    Put { parcel: Parcel, envelope: Arc<Envelope>, done: Option<oneshot::Sender<()>> },
    Fetch(oneshot::Sender<Option<Fetched>>),
    Settle(Place),
    GiveBack(Place, usize),
    Done(oneshot::Sender<()>),
}

#[derive(Default)]
struct Shared {
    /// Requests on the disk that nobody has fetched.
    waiting: AtomicUsize,
    /// Bytes on their way to the disk.
    backlog: AtomicUsize,
    news: Notify,
    /// Held for a few instructions and never while the disk works.
    hand: Mutex<Hand>,
}

/// Spans in orders that are not carried out, and so in flight.
#[derive(Default)]
struct Hand {
    /// Not on the disk yet.
    new: usize,
    /// There already.
    back: usize,
    /// The thread of the disk has no say any more.
    closed: bool,
}

impl Shared {
    fn hand(&self) -> MutexGuard<'_, Hand> {
        self.hand.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Hand {
    /// Says what becomes of them if no thread does.
    fn empty(&mut self, ledger: &Ledger) {
        ledger.dropped(std::mem::take(&mut self.new), Reason::SpillFailed);
        ledger.spilled(std::mem::take(&mut self.back));
    }
}

/// What the thread has.
struct Disk {
    name: String,
    dir: PathBuf,
    limit: u64,
    store: Option<Store>,
    /// When the folder was tried last.
    tried: Option<Instant>,
    fails: bool,
    shared: Arc<Shared>,
    ledger: Arc<Ledger>,
}

impl Disk {
    fn run(&mut self, inbox: &Receiver<Order>) {
        loop {
            self.open();
            // A folder that cannot be had now may hold spans that wait for us.
            let order = match self.store {
                Some(_) => inbox.recv().map_err(|_| RecvTimeoutError::Disconnected),
                None => inbox.recv_timeout(LOOK),
            };
            match order {
                Ok(_) if self.shared.hand().closed => return,
                Ok(order) => self.obey(order),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            self.shared.waiting.store(self.store.as_ref().map_or(0, Store::waiting), Ordering::Release);
        }
    }

    fn obey(&mut self, order: Order) {
        match order {
            Order::Put { parcel, envelope, done } => {
                self.put(&parcel, &envelope);
                self.shared.backlog.fetch_sub(parcel.size(), Ordering::Relaxed);
                drop(done);
            }
            Order::Fetch(give) => {
                let fetched = self.fetch();
                if let Err(Some(Fetched { place, parcel, .. })) = give.send(fetched) {
                    self.give_back(place, parcel.len());
                }
            }
            Order::Settle(place) => {
                let outcome = self.store.as_mut().map_or(Ok(()), |store| store.settle(place));
                if let Err(error) = outcome {
                    self.failed(&error);
                }
            }
            Order::GiveBack(place, spans) => {
                let shared = self.shared.clone();
                let mut hand = shared.hand();
                if !hand.closed {
                    hand.back = hand.back.saturating_sub(spans);
                    self.give_back(place, spans);
                }
            }
            Order::Done(done) => drop(done),
        }
    }

    fn put(&mut self, parcel: &Parcel, envelope: &Arc<Envelope>) {
        let Some(store) = &mut self.store else { return self.written(parcel.len(), false) };
        let gone = store.make_room(parcel);
        if gone > 0 {
            self.ledger.erased(gone, Reason::SpillFull);
        }
        let outcome = store.append(parcel, envelope);
        self.written(parcel.len(), outcome.is_ok());
        let Some(store) = &mut self.store else { return };
        match outcome {
            Ok(()) => {
                self.shared.waiting.store(store.waiting(), Ordering::Release);
                self.shared.news.notify_one();
                self.works();
            }
            Err(error) => {
                if !store.is_there() {
                    // Somebody took the folder away; it is made again.
                    self.ledger.erased(store.spans(), Reason::SpillLost);
                    (self.store, self.tried) = (None, None);
                }
                self.failed(&error);
            }
        }
    }

    fn fetch(&mut self) -> Option<Fetched> {
        let store = self.store.as_mut()?;
        while let Some(given) = store.give() {
            if let Some((parcel, envelope)) = given.parcel {
                self.ledger.fetched(given.spans);
                return Some(Fetched { place: given.place, parcel, envelope });
            }
            self.ledger.erased(given.spans, Reason::SpillLost);
            let _ = store.settle(given.place);
        }
        None
    }

    /// So many spans are on the disk now, or never will be. What a disk that hung writes after all is for the next
    /// process to find and to count.
    fn written(&self, spans: usize, is_there: bool) {
        let mut hand = self.shared.hand();
        if hand.closed {
            return;
        }
        hand.new = hand.new.saturating_sub(spans);
        match is_there {
            true => self.ledger.spilled(spans),
            false => self.ledger.dropped(spans, Reason::SpillFailed),
        }
    }

    fn give_back(&mut self, place: Place, spans: usize) {
        match self.store.as_mut().is_some_and(|store| store.take_back(place)) {
            true => self.ledger.spilled(spans),
            false => self.ledger.dropped(spans, Reason::SpillFull),
        }
    }

    fn open(&mut self) {
        let is_due = self.tried.is_none_or(|tried| tried.elapsed() >= LOOK);
        if self.store.is_some() || !is_due {
            return;
        }
        self.tried = Some(Instant::now());
        match Store::open(&self.dir, self.limit) {
            Ok((store, Left { spans, lost, damaged })) => {
                self.ledger.recovered(spans, lost);
                if spans > 0 || damaged {
                    let rest = if damaged { format!(", {lost} more that cannot be read") } else { String::new() };
                    tracing::info!(destination = self.name, "found {spans} spans on the disk{rest}");
                }
                self.shared.waiting.store(store.waiting(), Ordering::Release);
                self.shared.news.notify_one();
                self.store = Some(store);
                self.works();
            }
            Err(error) => self.failed(&error),
        }
    }

    fn works(&mut self) {
        if std::mem::take(&mut self.fails) {
            tracing::info!(destination = self.name, folder = %self.dir.display(), "the disk takes spans again");
        }
    }

    fn failed(&mut self, error: &io::Error) {
        if !std::mem::replace(&mut self.fails, true) {
            tracing::warn!(
                destination = self.name, folder = %self.dir.display(),
                "the disk takes no spans: {error}; those that memory cannot hold are dropped and counted until it does"
            );
        }
    }
}

/// On their way to the disk, beyond the queue; one request is let through whatever its size.
const BACKLOG: usize = 4 * 1024 * 1024;
/// How often a folder is tried that cannot be used.
const LOOK: Duration = Duration::from_secs(1);
/// For the disk to write one request.
const PATIENCE: Duration = Duration::from_secs(5);
