//! What became of the spans that one destination was given. Every span that enters leaves by exactly one of these calls,
//! and each is counted where it happens: created + recovered = exported + rejected + dropped + filtered + in flight +
//! spilled. The thread of the spans and that of the disk write in it.

use super::retry::Reason;
use crate::telemetry::metrics::{AnyThread, Counter, Gauge, Registry, family};

pub struct Ledger {
    exported: Counter<AnyThread>,
    rejected: Counter<AnyThread>,
    dropped: [(Reason, Counter<AnyThread>); Reason::ALL.len()],
    in_flight: Gauge<AnyThread>,
    spilled: Gauge<AnyThread>,
    recovered: Counter<AnyThread>,
    filtered: Counter<AnyThread>,
}

impl Ledger {
    pub fn new(destination: &str, registry: &Registry) -> Self {
        let shared = registry.shared();
        Self {
            exported: shared.counter(family::SPANS_EXPORTED, &[destination]),
            rejected: shared.counter(family::SPANS_REJECTED, &[destination]),
            dropped: Reason::ALL
                .map(|reason| (reason, shared.counter(family::SPANS_DROPPED, &[destination, reason.name()]))),
            in_flight: shared.gauge(family::SPANS_IN_FLIGHT, &[destination]),
            spilled: shared.gauge(family::SPANS_SPILLED, &[destination]),
            recovered: shared.counter(family::SPANS_RECOVERED, &[destination]),
            filtered: shared.counter(family::SPANS_FILTERED, &[destination]),
        }
    }

    pub fn entered(&self, spans: usize) {
        self.in_flight.add(signed(spans));
    }

    /// Never entered.
    pub fn filtered(&self, spans: usize) {
        self.filtered.add(spans as u64);
    }

    /// A receiver took a request of so many spans, but not all of them.
    pub fn taken(&self, spans: usize, rejected: u64) {
        // One that rejects more than it was sent is not believed.
        let rejected = rejected.min(spans as u64);
        self.exported.add(spans as u64 - rejected);
        self.rejected.add(rejected);
        self.in_flight.add(-signed(spans));
    }

    pub fn dropped(&self, spans: usize, reason: Reason) {
        self.in_flight.add(-signed(spans));
        self.gone(spans, reason);
    }

    /// From memory to the disk.
    pub fn spilled(&self, spans: usize) {
        self.in_flight.add(-signed(spans));
        self.spilled.add(signed(spans));
    }

    /// Back again.
    pub fn fetched(&self, spans: usize) {
        self.spilled.add(-signed(spans));
        self.in_flight.add(signed(spans));
    }

    /// Dropped while they lay on the disk.
    pub fn erased(&self, spans: usize, reason: Reason) {
        self.spilled.add(-signed(spans));
        self.gone(spans, reason);
    }

    /// What another process left on the disk, and what of it cannot be read.
    pub fn recovered(&self, spans: usize, lost: usize) {
        self.recovered.add((spans + lost) as u64);
        self.spilled.add(signed(spans + lost));
        self.erased(lost, Reason::SpillLost);
    }

    /// What must never happen, for the test that would see it.
    #[cfg(feature = "fuzzing")]
    pub fn denied(&self, spans: usize) {
        self.in_flight.add(-signed(spans));
    }

    /// How many were dropped for this reason so far.
    pub fn lost(&self, reason: Reason) -> u64 {
        self.counter(reason).map_or(0, Counter::value)
    }

    fn gone(&self, spans: usize, reason: Reason) {
        if let Some(counter) = self.counter(reason) {
            counter.add(spans as u64);
        }
    }

    fn counter(&self, reason: Reason) -> Option<&Counter<AnyThread>> {
        self.dropped.iter().find(|(of, _)| *of == reason).map(|(_, counter)| counter)
    }
}

pub fn signed(spans: usize) -> i64 {
    i64::try_from(spans).unwrap_or(i64::MAX)
}
