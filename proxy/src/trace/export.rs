//! Where finished spans go. A worker fills its own buffer and hands it over in batches without waiting; a thread in the
//! background gives them to each destination: as lines to a file's or stream's sink, or encoded into parcels that a sender
//! of its own brings to a receiver on the network. No destination waits for another.

pub mod answer;
pub mod dial;
mod filter;
mod grpc;
mod http;
pub mod json;
mod ledger;
mod lines;
mod parcel;
pub mod protobuf;
mod queue;
pub mod retry;
mod sender;
pub mod settings;
mod source;
pub mod spill;
mod zipkin;

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::sleep_until;

use self::filter::Filter;
use self::ledger::{Ledger, signed};
use self::lines::Lines;
use self::parcel::{Envelope, Parcel};
use self::queue::Queue;
use self::retry::Reason;
use self::sender::End;
use self::settings::{Destination, Remote};
use self::source::Source;
use self::spill::Spill;
use super::attributes::Told;
use super::manner::Manner;
use super::span::Batch;
use crate::config::Delivery;
use crate::telemetry::metrics::{AnyThread, Counter, Gauge, Registry, Shard, family};

/// Takes finished spans to the encoder.
pub type Batches = mpsc::Sender<Batch>;

/// The worker's end.
pub struct SpanBuffer {
    open: RefCell<Batch>,
    /// What the text of the batch before needed.
    room: Cell<usize>,
    batches: Option<Batches>,
    created: Counter,
    full: Counter,
    in_flight: Gauge,
}

impl SpanBuffer {
    pub fn new(batches: Option<Batches>, shard: &Shard) -> Self {
        Self {
            open: RefCell::default(),
            room: Cell::new(0),
            batches,
            created: shard.counter(family::SPANS_CREATED, &[]),
            full: shard.counter(family::SPANS_DROPPED, &[ALL, "queue_full"]),
            in_flight: shard.gauge(family::SPANS_IN_FLIGHT, &[ALL]),
        }
    }

    /// Whether anybody takes spans.
    pub fn is_on(&self) -> bool {
        COMPILED && self.batches.is_some()
    }

    /// `fill` writes spans into the open batch and says how many. All spans of a batch are told in one manner.
    pub fn write(&self, manner: &Arc<Manner>, fill: impl FnOnce(&mut Batch) -> u32) {
        if self.open.borrow().manner.as_ref().is_some_and(|open| !Arc::ptr_eq(open, manner)) {
            self.flush();
        }
        let full = {
            let mut open = self.open.borrow_mut();
            if open.manner.is_none() {
                open.manner = Some(manner.clone());
                open.make_room(self.room.get());
            }
            let made = fill(&mut open);
            self.created.add(made.into());
            self.in_flight.add(made.into());
            open.is_full()
        };
        if full {
            self.flush();
        }
    }

    /// Hands over what there is. Called when a batch is full, once a second, and at the end.
    pub fn flush(&self) {
        let batch = self.open.take();
        if batch.is_empty() {
            return;
        }
        let Some(batches) = &self.batches else { return };
        self.room.set(batch.size());
        if let Err(mpsc::error::TrySendError::Full(batch) | mpsc::error::TrySendError::Closed(batch)) =
            batches.try_send(batch)
        {
            self.full.add(batch.len() as u64);
            self.in_flight.add(-signed(batch.len()));
        }
    }
}

/// What connections that are cut at a worker's end still say comes after its last flush.
impl Drop for SpanBuffer {
    fn drop(&mut self) {
        self.flush();
    }
}

/// The background's end: one thread that encodes and sends.
pub struct Exporter {
    batches: Batches,
    changes: mpsc::UnboundedSender<Vec<Destination>>,
    end: watch::Sender<Option<Instant>>,
    /// Closed when the thread has ended.
    ended: Receiver<()>,
}

/// Tells the thread of the spans of other destinations than before. Those that go send what they were given.
#[derive(Clone)]
pub struct Changes(mpsc::UnboundedSender<Vec<Destination>>);

impl Changes {
    /// They are few: they come as policies do. After the end nobody hears them.
    pub fn tell(&self, destinations: Vec<Destination>) {
        let _ = self.0.send(destinations);
    }
}

impl Exporter {
    /// `resource` is what all spans have in common.
    pub fn start(destinations: Vec<Destination>, resource: json::Resource, registry: &Registry) -> io::Result<Self> {
        let (batches, queue) = mpsc::channel(QUEUE);
        let (changes, changed) = mpsc::unbounded_channel();
        let (files, remotes) = open(destinations, &resource, registry)?;
        let nowhere = registry.shared().counter(family::SPANS_DROPPED, &[ALL, Reason::Nowhere.name()]);
        let in_flight = registry.shared().gauge(family::SPANS_IN_FLIGHT, &[ALL]);
        let late = registry.shared().counter(family::SPANS_DROPPED, &[ALL, Reason::Ended.name()]);
        let (end, told) = watch::channel(None);
        let (gone, ended) = sync_channel::<()>(0);
        let mut runtime = Builder::new_current_thread();
        runtime.enable_all().max_blocking_threads(LOOK_UPS);
        let registry = registry.clone();
        let (ready, started) = sync_channel(1);
        thread::Builder::new().name("spans".into()).spawn(move || {
            let runtime = match runtime.build_local(LocalOptions::default()) {
                Ok(runtime) => runtime,
                Err(error) => return drop(ready.send(Err(error))),
            };
            let _ = ready.send(Ok(()));
            runtime.block_on(async move {
                let end = End(told.clone());
                let mut work = Work {
                    files,
                    outlets: Vec::new(),
                    resource,
                    in_flight,
                    ended: late,
                    nowhere,
                    room: 0,
                    registry,
                    told,
                    senders: JoinSet::new(),
                };
                work.send_to(remotes);
                work.run(queue, changed, end.clone()).await;
                work.close();
                while work.senders.join_next().await.is_some() {}
                // All of them at once, as it were: what one waits for, the others use.
                let until = end.disks().unwrap_or_else(|| Instant::now() + FINISH);
                work.files.iter().for_each(|file| file.close(until));
                for spill in work.outlets.iter().filter_map(|outlet| outlet.spill.as_ref()) {
                    spill.close(until.max(Instant::now() + LAST)).await;
                }
                work.outlets.iter().for_each(Outlet::say);
            });
            // A name look-up may still hang in its thread; nobody waits for it.
            runtime.shutdown_background();
            drop(gone);
        })?;
        started.recv().unwrap_or_else(|_| Err(io::Error::other("the thread of the spans ended while starting")))?;
        Ok(Self { batches, changes, end, ended })
    }

    pub fn changes(&self) -> Changes {
        Changes(self.changes.clone())
    }

    pub fn batches(&self) -> Batches {
        self.batches.clone()
    }

    /// Writes and sends what was handed over, as far as it goes until `deadline`, and ends; the rest is counted as dropped.
    /// The workers' buffers are gone by then, unless one is stuck; the end of the process does not wait for that.
    pub fn finish(self, deadline: Instant) {
        drop(self.batches);
        self.end.send_replace(Some(deadline));
        let left = deadline.saturating_duration_since(Instant::now());
        let _ = self.ended.recv_timeout(left + FINISH);
    }
}

/// What the thread does.
struct Work {
    files: Vec<Lines>,
    outlets: Vec<Outlet>,
    resource: json::Resource,
    in_flight: Gauge<AnyThread>,
    /// Spans that nobody was given when the time was up.
    ended: Counter<AnyThread>,
    /// Spans that came while there was no destination.
    nowhere: Counter<AnyThread>,
    /// What the line before needed.
    room: usize,
    registry: Registry,
    told: watch::Receiver<Option<Instant>>,
    senders: JoinSet<()>,
}

impl Work {
    /// Until nobody can hand over more, or the time is up.
    async fn run(
        &mut self,
        mut queue: mpsc::Receiver<Batch>,
        mut changes: mpsc::UnboundedReceiver<Vec<Destination>>,
        mut end: End,
    ) {
        let mut scratch = Vec::new();
        loop {
            let aged = self.outlets.iter().filter_map(Outlet::due).min();
            tokio::select! {
                batch = queue.recv() => match batch {
                    Some(mut batch) => {
                        Manner::prepare(&mut batch);
                        self.take(&batch, &mut scratch);
                    }
                    None => return,
                },
                Some(destinations) = changes.recv() => self.change(destinations),
                () = sleep_until(aged.unwrap_or_else(Instant::now).into()), if aged.is_some() => {
                    let now = Instant::now();
                    self.outlets.iter_mut().filter(|outlet| outlet.due().is_some_and(|due| due <= now)).for_each(Outlet::ship);
                }
                () = end.come() => {
                    queue.close();
                    while let Ok(batch) = queue.try_recv() {
                        self.ended.add(batch.len() as u64);
                        self.in_flight.add(-signed(batch.len()));
                    }
                    return;
                }
            }
        }
    }

    /// Those that go send what they were given, as long as they would have tried anyway.
    fn change(&mut self, destinations: Vec<Destination>) {
        match open(destinations, &self.resource, &self.registry) {
            Ok((files, remotes)) => {
                self.close();
                let now = Instant::now();
                std::mem::replace(&mut self.files, files).iter().for_each(|file| file.close(now + LAST));
                self.outlets.clear();
                self.send_to(remotes);
                while self.senders.try_join_next().is_some() {}
            }
            Err(error) => {
                tracing::warn!("spans go where they went before: a new destination cannot be opened: {error}")
            }
        }
    }

    fn send_to(&mut self, remotes: Vec<Remote>) {
        let Self { outlets, resource, registry, told, senders, .. } = self;
        outlets.extend(remotes.into_iter().map(|remote| Outlet::open(remote, resource, registry, told, senders)));
    }

    fn take(&mut self, batch: &Batch, scratch: &mut Vec<u8>) {
        if self.outlets.is_empty() && self.files.is_empty() {
            self.nowhere.add(batch.len() as u64);
        }
        for outlet in &mut self.outlets {
            outlet.take(batch, scratch);
        }
        let (whole, some): (Vec<_>, Vec<_>) = self.files.iter().partition(|file| file.filter.takes_all());
        if let Some((last, others)) = whole.split_last() {
            let mut spans = Told::all(batch);
            for left in (1..=batch.len()).rev().step_by(LINE_SPANS) {
                let mut line = Vec::with_capacity(self.room);
                json::encode(&mut line, &self.resource, spans.by_ref().take(LINE_SPANS));
                line.push(b'\n');
                self.room = line.len();
                let count = left.min(LINE_SPANS);
                others.iter().for_each(|file| file.take(count, line.clone()));
                last.take(count, line);
            }
        }
        some.iter().for_each(|file| file.take_some(batch, scratch));
        self.in_flight.add(-signed(batch.len()));
    }

    fn close(&mut self) {
        for outlet in &mut self.outlets {
            outlet.ship();
            outlet.queue.close();
        }
    }
}

fn open(
    destinations: Vec<Destination>,
    resource: &json::Resource,
    registry: &Registry,
) -> io::Result<(Vec<Lines>, Vec<Remote>)> {
    let (mut files, mut remotes) = (Vec::new(), Vec::new());
    for destination in destinations {
        match destination {
            Destination::Lines { name, only, target } => {
                files.push(Lines::open(&name, target, &only, resource, registry)?);
            }
            Destination::Remote(remote) => remotes.push(*remote),
        }
    }
    Ok((files, remotes))
}

/// The near end of a destination on the network: gathers spans until there are enough, or they have waited long enough.
struct Outlet {
    name: String,
    envelope: Arc<Envelope>,
    open: Parcel,
    since: Option<Instant>,
    delivery: Delivery,
    queue: Rc<Queue>,
    spill: Option<Spill>,
    filter: Filter,
    ledger: Arc<Ledger>,
    #[cfg(feature = "fuzzing")]
    mutant: Option<Mutant>,
}

impl Outlet {
    fn open(
        remote: Remote,
        resource: &json::Resource,
        registry: &Registry,
        end: &watch::Receiver<Option<Instant>>,
        senders: &mut JoinSet<()>,
    ) -> Self {
        let envelope = Arc::new(Envelope::new(remote.format, resource));
        let queue = Rc::new(Queue::new(remote.delivery.queue));
        let ledger = Arc::new(Ledger::new(&remote.name, registry));
        let delivery = remote.delivery.clone();
        let spill = delivery.spill.as_ref().and_then(|to| {
            let spill = Spill::start(&remote.name, to, ledger.clone());
            spill.inspect_err(|error| tracing::warn!("spans do not go to the disk: it has no thread ({error})")).ok()
        });
        let filter = Filter::new(&remote.only, resource);
        #[cfg(feature = "fuzzing")]
        let mutant = Mutant::named(&remote.name);
        let source = Source::new(queue.clone(), spill.clone());
        let name = remote.name.clone();
        let sender = remote.sender(envelope.clone(), source, ledger.clone(), End(end.clone()));
        senders.spawn_local(sender.run());
        Self {
            name,
            envelope,
            open: Parcel::default(),
            since: None,
            delivery,
            queue,
            spill,
            filter,
            ledger,
            #[cfg(feature = "fuzzing")]
            mutant,
        }
    }

    /// The last word: the counters are not asked any more.
    fn say(&self) {
        let spans = self.ledger.lost(Reason::Ended);
        if spans > 0 {
            tracing::warn!(
                destination = self.name,
                "the proxy ends, and {spans} spans that were not taken in time are dropped"
            );
        }
    }

    fn due(&self) -> Option<Instant> {
        self.since.map(|since| since + self.delivery.age)
    }

    fn take(&mut self, batch: &Batch, scratch: &mut Vec<u8>) {
        for told in Told::all(batch) {
            if !self.filter.takes(&told) {
                self.ledger.filtered(1);
                continue;
            }
            self.ledger.entered(1);
            scratch.clear();
            self.envelope.encode(scratch, &told);
            if self.open.size() + scratch.len() > self.delivery.bytes {
                self.ship();
            }
            self.open.push(scratch);
            self.since.get_or_insert_with(Instant::now);
            if self.open.len() >= self.delivery.spans {
                self.ship();
            }
        }
    }

    fn ship(&mut self) {
        self.since = None;
        if self.open.is_empty() {
            return;
        }
        let next = Parcel::like(&self.open);
        let parcel = std::mem::replace(&mut self.open, next);
        #[cfg(feature = "fuzzing")]
        if let Some(mutant) = self.mutant.take() {
            return mutant.lose(&parcel, &self.ledger);
        }
        for gone in self.queue.push(parcel) {
            match &self.spill {
                Some(spill) => spill.put(gone, self.envelope.clone()),
                None => self.ledger.dropped(gone.len(), Reason::QueueFull),
            }
        }
    }
}

/// A mistake that the books must show: the first request of a destination with such a name vanishes. No part of the
/// program that is shipped.
#[cfg(feature = "fuzzing")]
#[derive(Clone, Copy)]
enum Mutant {
    /// Without a word.
    Forgets,
    /// As if it were done with.
    Denies,
}

#[cfg(feature = "fuzzing")]
impl Mutant {
    fn named(destination: &str) -> Option<Self> {
        match destination {
            "forgets" => Some(Self::Forgets),
            "denies" => Some(Self::Denies),
            _ => None,
        }
    }

    fn lose(self, parcel: &Parcel, ledger: &Ledger) {
        match self {
            Self::Forgets => {}
            // In flight no more, and nothing else.
            Self::Denies => ledger.denied(parcel.len()),
        }
    }
}

/// A benchmark's proxy is built without what spans cost, to compare with.
pub const COMPILED: bool = !cfg!(spanmesh_no_spans);
/// In place of a destination's name: what happens before spans are given to any.
const ALL: &str = "*";
/// Batches that wait for the encoder: with 128 spans each, about 8 MiB at worst.
const QUEUE: usize = 64;
/// Spans of one line: few enough that it is still at hand, in the cache, when it is written.
const LINE_SPANS: usize = 32;
/// For disks, files and streams, beyond the deadline.
const FINISH: Duration = Duration::from_secs(10);
/// For a disk whose time files have used up, to say that it is done.
const LAST: Duration = Duration::from_millis(200);
/// Names that are looked up at once; each destination looks up one.
const LOOK_UPS: usize = 4;
