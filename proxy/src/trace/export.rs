//! Where finished spans go. A worker fills its own buffer and hands it over in batches without waiting; a thread in the
//! background turns them into lines and gives them to each destination's sink.

pub mod json;
pub mod protobuf;

use std::cell::RefCell;
use std::io;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread;
use std::time::Duration;

use super::span::Batch;
use crate::telemetry::metrics::{AnyThread, Counter, Gauge, Registry, Shard, family};
use crate::telemetry::sink::{self, Sink, Target};

/// Takes finished spans to the encoder.
pub type Batches = SyncSender<Batch>;

/// The worker's end.
pub struct SpanBuffer {
    open: RefCell<Batch>,
    batches: Option<Batches>,
    created: Counter,
    full: Counter,
    in_flight: Gauge,
}

impl SpanBuffer {
    pub fn new(batches: Option<Batches>, shard: &Shard) -> Self {
        Self {
            open: RefCell::default(),
            batches,
            created: shard.counter(family::SPANS_CREATED, &[]),
            full: shard.counter(family::SPANS_DROPPED, &["queue_full"]),
            in_flight: shard.gauge(family::SPANS_IN_FLIGHT, &[]),
        }
    }

    /// Whether anybody takes spans.
    pub fn is_on(&self) -> bool {
        self.batches.is_some()
    }

    /// `fill` writes spans into the open batch and says how many.
    pub fn write(&self, fill: impl FnOnce(&mut Batch) -> u32) {
        let full = {
            let mut open = self.open.borrow_mut();
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
        if let Err(TrySendError::Full(batch) | TrySendError::Disconnected(batch)) = batches.try_send(batch) {
            self.full.add(batch.len() as u64);
            self.in_flight.add(-count(&batch));
        }
    }
}

/// What connections that are cut at a worker's end still say comes after its last flush.
impl Drop for SpanBuffer {
    fn drop(&mut self) {
        self.flush();
    }
}

/// The background's end: one thread that encodes.
pub struct Exporter {
    batches: SyncSender<Batch>,
    /// Closed when the thread has ended.
    ended: Receiver<()>,
}

impl Exporter {
    /// `destinations` are names and where their lines go; `resource` is what all spans have in common.
    pub fn start(
        destinations: Vec<(String, Target)>,
        resource: json::Resource,
        registry: &Registry,
    ) -> io::Result<Self> {
        let (batches, queue) = sync_channel(QUEUE);
        let mut outlets = Vec::new();
        for (name, target) in destinations {
            let shared = registry.shared();
            outlets.push(Outlet {
                sink: Sink::open("spans", target, sink::Limits { line: LINE, ..sink::Limits::default() }, registry)?,
                exported: shared.counter(family::SPANS_EXPORTED, &[&name]),
                dropped: shared.counter(family::SPANS_DROPPED, &["destination_full"]),
            });
        }
        let in_flight = registry.shared().gauge(family::SPANS_IN_FLIGHT, &[]);
        let (end, ended) = sync_channel::<()>(0);
        thread::Builder::new().name("spans".into()).spawn(move || {
            write(&queue, &outlets, &resource, &in_flight);
            drop(end);
        })?;
        Ok(Self { batches, ended })
    }

    pub fn batches(&self) -> Batches {
        self.batches.clone()
    }

    /// Writes what was handed over and ends. The workers' buffers are gone by then, unless one is stuck; the end of the
    /// process does not wait for that.
    pub fn finish(self) {
        drop(self.batches);
        let _ = self.ended.recv_timeout(FINISH);
    }
}

struct Outlet {
    sink: Sink,
    exported: Counter<AnyThread>,
    dropped: Counter<AnyThread>,
}

fn write(queue: &Receiver<Batch>, outlets: &[Outlet], resource: &json::Resource, in_flight: &Gauge<AnyThread>) {
    let mut line = Vec::new();
    while let Ok(batch) = queue.recv() {
        line.clear();
        json::encode(&mut line, resource, &batch);
        for outlet in outlets {
            let counter = if outlet.sink.push(line.as_slice()) { &outlet.exported } else { &outlet.dropped };
            counter.add(batch.len() as u64);
        }
        in_flight.add(-count(&batch));
    }
    for outlet in outlets {
        outlet.sink.flush(PATIENCE);
    }
}

fn count(batch: &Batch) -> i64 {
    i64::try_from(batch.len()).unwrap_or(i64::MAX)
}

/// Batches that wait for the encoder: with 128 spans each, about 8 MiB at worst.
const QUEUE: usize = 64;
/// A line carries one batch, whose paths may be long.
const LINE: usize = 4 * 1024 * 1024;
/// For one destination to take what it was given.
const PATIENCE: Duration = Duration::from_secs(5);
/// For all of them together.
const FINISH: Duration = Duration::from_secs(10);
