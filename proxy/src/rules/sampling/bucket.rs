//! How often something may happen: so many in a second, and a burst beyond it after a quiet time. One atomic for all workers;
//! what is asked is rare.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

#[derive(Debug, Default)]
pub struct Bucket {
    /// When it would be full again, in nanoseconds of the caller's clock.
    full: AtomicU64,
    /// When it last said no.
    refused: AtomicU64,
}

impl Bucket {
    pub fn take(&self, per_second: f64, burst: u32, now: u64) -> bool {
        let each = (SECOND / per_second) as u64;
        let depth = each.saturating_mul(burst.into());
        let taken = self.full.fetch_update(Relaxed, Relaxed, |full| {
            let next = full.max(now).saturating_add(each);
            (next <= now.saturating_add(depth)).then_some(next)
        });
        if taken.is_err() {
            self.refused.store(now, Relaxed);
        }
        taken.is_ok()
    }

    pub fn has_room(&self, per_second: f64, burst: u32, now: u64) -> bool {
        let each = (SECOND / per_second) as u64;
        let next = self.full.load(Relaxed).max(now).saturating_add(each);
        next <= now.saturating_add(each.saturating_mul(burst.into()))
    }

    /// Whether it said no lately: then what it lets through is no fair choice.
    pub fn is_short(&self, now: u64) -> bool {
        let refused = self.refused.load(Relaxed);
        refused != 0 && now.saturating_sub(refused) < LATELY
    }
}

const SECOND: f64 = 1e9;
const LATELY: u64 = 10_000_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_and_then_the_rate() {
        let bucket = Bucket::default();
        let start = 1_000_000_000_000;
        assert!(bucket.has_room(10.0, 5, start));
        let burst = (0..100).filter(|_| bucket.take(10.0, 5, start)).count();
        assert_eq!(burst, 5);
        assert!(!bucket.has_room(10.0, 5, start));
        assert!(bucket.is_short(start) && !bucket.is_short(start + LATELY));
        let later = (1..=1000u64).filter(|at| bucket.take(10.0, 5, start + at * 10_000_000)).count();
        assert!((99..=101).contains(&later), "{later} in ten seconds");
    }
}
