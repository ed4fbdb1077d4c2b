//! A destination that is a file or a stream: a line for each batch. Its sink writes on a thread of its own and tells what
//! became of every line, so that the books say what was written and not what was asked for.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::filter::Filter;
use super::json::Resource;
use super::ledger::Ledger;
use super::parcel::{Envelope, Format, Parcel};
use super::retry::Reason;
use crate::config::Only;
use crate::telemetry::metrics::Registry;
use crate::telemetry::sink::{self, Sink, Target};
use crate::trace::attributes::Told;
use crate::trace::span::Batch;

pub struct Lines {
    pub filter: Filter,
    sink: Sink,
    envelope: Envelope,
    ledger: Arc<Ledger>,
    /// How many spans are in each line that is on its way. The sink has a limit of lines.
    under_way: Arc<Mutex<VecDeque<usize>>>,
}

impl Lines {
    pub fn open(name: &str, target: Target, only: &Only, resource: &Resource, registry: &Registry) -> io::Result<Self> {
        let ledger = Arc::new(Ledger::new(name, registry));
        let under_way = Arc::new(Mutex::new(VecDeque::new()));
        let (books, lines) = (ledger.clone(), under_way.clone());
        let tell = move |written, lost| {
            let mut lines = lock(&lines);
            (0..written).filter_map(|_| lines.pop_front()).for_each(|spans| books.taken(spans, 0));
            (0..lost).filter_map(|_| lines.pop_front()).for_each(|spans| books.dropped(spans, Reason::WriteFailed));
        };
        let limits = sink::Limits { line: LINE, ..sink::Limits::default() };
        Ok(Self {
            filter: Filter::new(only, resource),
            sink: Sink::told("spans", target, limits, registry, Box::new(tell))?,
            envelope: Envelope::new(Format::Json, resource),
            ledger,
            under_way,
        })
    }

    /// Spans that are encoded already, with a line feed.
    pub fn take(&self, spans: usize, line: Vec<u8>) {
        self.ledger.entered(spans);
        // Before the line, since it may be written at once.
        lock(&self.under_way).push_back(spans);
        if !self.sink.give(line) {
            lock(&self.under_way).pop_back();
            self.ledger.dropped(spans, Reason::QueueFull);
        }
    }

    /// Those of a batch that are for this destination.
    pub fn take_some(&self, batch: &Batch, scratch: &mut Vec<u8>) {
        let mut parcel = Parcel::default();
        for told in Told::all(batch) {
            if self.filter.takes(&told) {
                scratch.clear();
                self.envelope.encode(scratch, &told);
                parcel.push(scratch);
            }
        }
        self.ledger.filtered(batch.len() - parcel.len());
        if !parcel.is_empty() {
            let mut line = Vec::from(self.envelope.wrap(&parcel));
            line.push(b'\n');
            self.take(parcel.len(), line);
        }
    }

    /// Waits until all is written; the rest is lost with the process.
    pub fn close(&self, until: Instant) {
        if !self.sink.flush(until.saturating_duration_since(Instant::now())) {
            let rest: usize = lock(&self.under_way).drain(..).sum();
            self.ledger.dropped(rest, Reason::Ended);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A span's words may be long.
const LINE: usize = 4 * 1024 * 1024;
