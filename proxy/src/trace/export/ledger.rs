//! What became of the spans that one destination was given. Every span that enters leaves by exactly one of these calls,
//! and each is counted where it happens: created = exported + rejected + dropped + in flight.

use super::retry::Reason;
use crate::telemetry::metrics::{AnyThread, Counter, Gauge, Registry, family};

pub struct Ledger {
    exported: Counter<AnyThread>,
    rejected: Counter<AnyThread>,
    dropped: [(Reason, Counter<AnyThread>); Reason::ALL.len()],
    in_flight: Gauge<AnyThread>,
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
        }
    }

    pub fn entered(&self, spans: usize) {
        self.in_flight.add(signed(spans));
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
        if let Some((_, counter)) = self.dropped.iter().find(|(of, _)| *of == reason) {
            counter.add(spans as u64);
        }
        self.in_flight.add(-signed(spans));
    }
}

pub fn signed(spans: usize) -> i64 {
    i64::try_from(spans).unwrap_or(i64::MAX)
}
