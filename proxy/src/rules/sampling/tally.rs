//! What one listener of one worker counts of a plan's decisions: a cell has one writer, so counting is a relaxed load and a
//! store. Whoever reads adds the tallies up.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Where a rule, or an operation of it, is counted, and where its threshold stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Seat(pub(super) u32);

/// Of a thousand rules with operations most seats are never taken: a worker makes room for them when they are.
#[derive(Debug)]
pub struct Tally {
    chunks: Box<[OnceLock<Box<Chunk>>]>,
    spans: AtomicU64,
}

type Chunk = [Pair; CHUNK];

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

    fn place(self) -> (usize, usize) {
        (self.0 as usize / CHUNK, self.0 as usize % CHUNK)
    }
}

impl Tally {
    pub(super) fn new(seats: usize) -> Self {
        let chunks = (0..seats.div_ceil(CHUNK)).map(|_| OnceLock::new()).collect();
        Self { chunks, spans: AtomicU64::new(0) }
    }

    pub fn count(&self, seat: Seat, kept: bool) {
        let (chunk, place) = seat.place();
        let chunk = self.chunks.get(chunk).map(|chunk| chunk.get_or_init(fresh));
        if let Some(pair) = chunk.and_then(|chunk| chunk.get(place)) {
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
        let (chunk, place) = seat.place();
        let pair = self.chunks.get(chunk).and_then(OnceLock::get).and_then(|chunk| chunk.get(place));
        pair.map_or((0, 0), |pair| (pair.seen.load(Relaxed), pair.kept.load(Relaxed)))
    }

    pub(super) fn made(&self) -> u64 {
        self.spans.load(Relaxed)
    }
}

fn fresh() -> Box<Chunk> {
    Box::new(std::array::from_fn(|_| Pair::default()))
}

fn add(cell: &AtomicU64, more: u64) {
    cell.store(cell.load(Relaxed).wrapping_add(more), Relaxed);
}

/// A KiB.
const CHUNK: usize = 64;
