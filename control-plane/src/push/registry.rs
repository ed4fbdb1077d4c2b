//! Which proxies are connected, and how far each of them is: for the admin page, for statuses and for metrics.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use spanmesh_proto::v1;

#[derive(Debug, Default)]
pub struct Registry {
    next: AtomicU64,
    proxies: Mutex<BTreeMap<u64, Seen>>,
    pub counts: Counts,
}

/// What is counted for metrics.
#[derive(Debug, Default)]
pub struct Counts {
    pub connections: AtomicU64,
    pub turned_away: AtomicU64,
    pub pushes: AtomicU64,
    pub pushed_bytes: AtomicU64,
    pub acks: AtomicU64,
    pub nacks: AtomicU64,
    pub missteps: AtomicU64,
    pub reports_dropped: AtomicU64,
    /// How long pushes took from the change to the acknowledgement: buckets as `LATENCIES` has them, and their sum.
    pub latencies: [AtomicU64; LATENCIES.len() + 1],
    pub latency_micros: AtomicU64,
}

/// A connected proxy.
#[derive(Clone, Debug)]
pub struct Seen {
    pub node: v1::Node,
    pub version: String,
    pub peer: String,
    pub since: Instant,
    /// What is in force there.
    pub picture: u64,
    pub is_waiting: bool,
    /// Kind and name of what it refused, and why.
    pub refusals: Vec<(String, String)>,
    /// What it said that it does not know.
    pub unknown: Vec<String>,
    pub report: Option<v1::Report>,
}

impl Registry {
    pub fn enter(&self, seen: Seen) -> u64 {
        let id = self.next.fetch_add(1, Ordering::Relaxed) + 1;
        self.lock().insert(id, seen);
        self.counts.connections.fetch_add(1, Ordering::Relaxed);
        id
    }

    pub fn leave(&self, id: u64) {
        self.lock().remove(&id);
    }

    pub fn update(&self, id: u64, change: impl FnOnce(&mut Seen)) {
        if let Some(seen) = self.lock().get_mut(&id) {
            change(seen);
        }
    }

    pub fn connected(&self) -> usize {
        self.lock().len()
    }

    /// All of them, in the order in which they came.
    pub fn list(&self) -> Vec<(u64, Seen)> {
        self.lock().iter().map(|(id, seen)| (*id, seen.clone())).collect()
    }

    /// How many have this version in force, with nothing refused. None has 0, which is before the first picture.
    pub fn converged(&self, version: u64) -> usize {
        if version == 0 {
            return 0;
        }
        self.lock().values().filter(|seen| seen.picture >= version && seen.refusals.is_empty()).count()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Seen>> {
        self.proxies.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Counts {
    pub fn add(counter: &AtomicU64, much: u64) {
        counter.fetch_add(much, Ordering::Relaxed);
    }

    pub fn took(&self, latency: Duration) {
        let place = LATENCIES.iter().position(|bound| latency <= *bound).unwrap_or(LATENCIES.len());
        if let Some(bucket) = self.latencies.get(place) {
            Self::add(bucket, 1);
        }
        Self::add(&self.latency_micros, u64::try_from(latency.as_micros()).unwrap_or(u64::MAX));
    }
}

/// The bounds of the latencies' buckets.
pub const LATENCIES: [Duration; 10] = [
    Duration::from_millis(5),
    Duration::from_millis(10),
    Duration::from_millis(25),
    Duration::from_millis(50),
    Duration::from_millis(100),
    Duration::from_millis(250),
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_secs(5),
    Duration::from_secs(30),
];
