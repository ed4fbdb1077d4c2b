//! Whether the proxy lives and whether it wants traffic.
//!
//! ```text
//!     Starting ──ready──▶ Ready ──drain──▶ Draining        there is no way back
//! ```
//!
//! Each worker touches a heartbeat once a second; a worker that has stopped touching it is stuck, and the proxy does not live.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Shared by the app, its workers and the two servers.
#[derive(Clone)]
pub struct Health(Arc<Inner>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    Starting,
    Ready,
    Draining,
}

/// One worker's sign of life. Dropped in order, it is forgotten; dropped by a panic, it stays as dead.
pub struct Heartbeat {
    health: Health,
    beat: Arc<Beat>,
}

impl Health {
    pub fn new() -> Health {
        let phase = AtomicU8::new(Phase::Starting as u8);
        Health(Arc::new(Inner { phase, started: Instant::now(), beats: Mutex::default() }))
    }

    pub fn phase(&self) -> Phase {
        match self.0.phase.load(Relaxed) {
            0 => Phase::Starting,
            1 => Phase::Ready,
            _ => Phase::Draining,
        }
    }

    /// All is set up. Too late when draining has begun.
    pub fn ready(&self) {
        self.0.phase.fetch_max(Phase::Ready as u8, Relaxed);
    }

    pub fn drain(&self) {
        self.0.phase.fetch_max(Phase::Draining as u8, Relaxed);
    }

    /// A heartbeat that counts from now on.
    pub fn heartbeat(&self, worker: impl Into<String>) -> Heartbeat {
        let beat = Arc::new(Beat { worker: worker.into(), last: AtomicU64::new(self.elapsed(Instant::now())) });
        self.beats().push(beat.clone());
        Heartbeat { health: self.clone(), beat }
    }

    /// What is wrong with the first worker that is stuck or dead.
    pub fn trouble(&self, now: Instant) -> Option<String> {
        let now = self.elapsed(now);
        self.beats().iter().find_map(|beat| match beat.last.load(Relaxed) {
            DEAD => Some(format!("{} has panicked", beat.worker)),
            last => {
                let silent = Duration::from_millis(now.saturating_sub(last));
                (silent >= STALE).then(|| format!("{} has not moved for {} s", beat.worker, silent.as_secs()))
            }
        })
    }

    fn elapsed(&self, now: Instant) -> u64 {
        u64::try_from(now.saturating_duration_since(self.0.started).as_millis()).unwrap_or(DEAD - 1)
    }

    fn beats(&self) -> std::sync::MutexGuard<'_, Vec<Arc<Beat>>> {
        self.0.beats.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Health {
    fn default() -> Health {
        Health::new()
    }
}

impl Heartbeat {
    /// To be called every second.
    pub fn beat(&self, now: Instant) {
        self.beat.last.store(self.health.elapsed(now), Relaxed);
    }
}

impl Drop for Heartbeat {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.beat.last.store(DEAD, Relaxed);
        } else {
            self.health.beats().retain(|beat| !Arc::ptr_eq(beat, &self.beat));
        }
    }
}

struct Inner {
    phase: AtomicU8,
    started: Instant,
    beats: Mutex<Vec<Arc<Beat>>>,
}

struct Beat {
    worker: String,
    /// Milliseconds since `started`.
    last: AtomicU64,
}

/// Ten missed beats. A worker that is only busy touches it between two polls.
const STALE: Duration = Duration::from_secs(10);
const DEAD: u64 = u64::MAX;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_no_way_back() {
        let health = Health::new();
        assert_eq!(health.phase(), Phase::Starting);
        health.ready();
        assert_eq!(health.phase(), Phase::Ready);
        health.drain();
        health.ready();
        assert_eq!(health.phase(), Phase::Draining);
    }

    #[test]
    fn a_worker_that_stops_is_named() {
        let health = Health::new();
        let (one, two) = (health.heartbeat("worker-0"), health.heartbeat("worker-1"));
        let now = Instant::now();
        one.beat(now + Duration::from_secs(12));
        two.beat(now);
        assert_eq!(health.trouble(now + Duration::from_millis(9_900)), None);
        assert_eq!(health.trouble(now + Duration::from_secs(12)).as_deref(), Some("worker-1 has not moved for 12 s"));
        two.beat(now + Duration::from_secs(12));
        assert_eq!(health.trouble(now + Duration::from_secs(12)), None);
    }

    #[test]
    fn a_worker_that_ends_is_forgotten_and_one_that_panics_is_not() {
        let health = Health::new();
        let later = Instant::now() + Duration::from_secs(60);
        drop(health.heartbeat("worker-0"));
        assert_eq!(health.trouble(later), None);
        let beat = health.heartbeat("worker-1");
        let end = std::thread::spawn(move || {
            let _beat = beat;
            panic!("on purpose");
        });
        assert!(end.join().is_err());
        assert_eq!(health.trouble(Instant::now()).as_deref(), Some("worker-1 has panicked"));
    }
}
