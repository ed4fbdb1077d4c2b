//! What one listener of one worker counts of a plan's decisions: a cell has one writer, so counting is a relaxed load and a
//! store. Whoever reads adds the tallies up.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Where a rule, or an operation of it, is counted, and where its threshold stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Seat(pub(super) u32);

#[derive(Debug)]
pub struct Tally {
    seats: Box<[Pair]>,
    spans: AtomicU64,
}

#[derive(Debug, Default)]
struct Pair {
    seen: AtomicU64,
    kept: AtomicU64,
}

impl Seat {
    /// No rule matched.
    pub const UNRULED: Seat = Seat(0);
    /// A caller had decided.
    pub const ARRIVED: Seat = Seat(1);
    pub(super) const FIRST: u32 = 2;
}

impl Tally {
    pub(super) fn new(seats: usize) -> Self {
        Self { seats: (0..seats).map(|_| Pair::default()).collect(), spans: AtomicU64::new(0) }
    }

    pub fn count(&self, seat: Seat, kept: bool) {
        if let Some(pair) = self.seats.get(seat.0 as usize) {
            add(&pair.seen, 1);
            if kept {
                add(&pair.kept, 1);
            }
        }
    }

    /// Sampled spans that were made.
    pub fn spans(&self, made: u64) {
        add(&self.spans, made);
    }

    pub(super) fn at(&self, seat: Seat) -> (u64, u64) {
        self.seats.get(seat.0 as usize).map_or((0, 0), |pair| (pair.seen.load(Relaxed), pair.kept.load(Relaxed)))
    }

    pub(super) fn made(&self) -> u64 {
        self.spans.load(Relaxed)
    }
}

fn add(cell: &AtomicU64, more: u64) {
    cell.store(cell.load(Relaxed).wrapping_add(more), Relaxed);
}
