//! Durations are monotonic; wall time is one anchor per worker, moved once a second. Within one proxy a child therefore
//! never starts before its parent, even when the wall clock is set back between them.

use std::cell::Cell;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

/// Turns instants into nanoseconds since 1970.
#[derive(Debug)]
pub struct Clock {
    anchor: Cell<(Instant, u64)>,
}

impl Clock {
    pub fn new() -> Self {
        Self { anchor: Cell::new(now()) }
    }

    /// Takes the wall clock's present word for it. Called once a second by the worker.
    pub fn refresh(&self) {
        self.anchor.set(now());
    }

    pub fn unix_nanos(&self, instant: Instant) -> u64 {
        let (at, nanos) = self.anchor.get();
        match instant.checked_duration_since(at) {
            Some(after) => nanos.saturating_add(whole(after)),
            None => nanos.saturating_sub(whole(at.duration_since(instant))),
        }
    }
}

impl Default for Clock {
    fn default() -> Self {
        Self::new()
    }
}

fn now() -> (Instant, u64) {
    (Instant::now(), whole(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()))
}

fn whole(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instants_before_and_after_the_anchor_keep_their_order() {
        let clock = Clock::new();
        let (at, nanos) = clock.anchor.get();
        assert_eq!(clock.unix_nanos(at + Duration::from_millis(5)) - nanos, 5_000_000);
        assert_eq!(clock.unix_nanos(at), nanos);
    }
}
