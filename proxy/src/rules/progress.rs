//! Whether a body that is waited for comes fast enough. Only the time counts in which the proxy waits for the client: an
//! upstream that takes nothing is not the client's doing. Asked by `http::uploads`.

use std::time::Duration;

use tokio::time::Instant;

/// How slow is too slow.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Bytes a second; 0 is never too slow.
    pub rate: u64,
    /// Over so much waiting.
    pub over: Duration,
}

/// One body's progress, over one stretch of waiting after another.
#[derive(Debug)]
pub struct Progress {
    pace: Pace,
    waited: Duration,
    since: Option<Instant>,
    came: u64,
}

/// What came in a whole stretch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stretch {
    pub came: u64,
    pub enough: bool,
}

impl Progress {
    pub fn new(pace: Pace) -> Self {
        Self { pace, waited: Duration::ZERO, since: None, came: 0 }
    }

    /// Nothing is there. Returns when the stretch is over if nothing comes.
    pub fn waits(&mut self, now: Instant) -> Instant {
        let since = *self.since.get_or_insert(now);
        since + self.pace.over.saturating_sub(self.waited)
    }

    pub fn is_waiting(&self) -> bool {
        self.since.is_some()
    }

    pub fn came(&mut self, bytes: usize, now: Instant) {
        self.came = self.came.saturating_add(bytes as u64);
        self.settle(now);
    }

    /// The stretch that is over, if one is; another begins.
    pub fn over(&mut self, now: Instant) -> Option<Stretch> {
        self.settle(now);
        if self.waited < self.pace.over {
            return None;
        }
        let came = std::mem::take(&mut self.came);
        self.waited = Duration::ZERO;
        Some(Stretch { came, enough: came >= self.wanted() })
    }

    /// Bytes that a stretch must bring.
    pub fn wanted(&self) -> u64 {
        let millis = u64::try_from(self.pace.over.as_millis()).unwrap_or(u64::MAX);
        self.pace.rate.saturating_mul(millis) / 1000
    }

    fn settle(&mut self, now: Instant) {
        if let Some(since) = self.since.take() {
            self.waited += now.saturating_duration_since(since);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn only_waiting_counts() {
        let mut now = Instant::now();
        let mut progress = Progress::new(Pace { rate: 10, over: 5 * SECOND });
        for _ in 0..100 {
            progress.waits(now);
            now += Duration::from_millis(40);
            progress.came(1, now);
            // The upstream takes nothing for a while.
            now += 60 * SECOND;
            assert_eq!(progress.over(now), None);
        }
    }

    #[test]
    fn a_byte_a_second_is_too_slow_and_twenty_are_not() {
        for (bytes, enough) in [(1, false), (20, true)] {
            let mut now = Instant::now();
            let mut progress = Progress::new(Pace { rate: 10, over: 5 * SECOND });
            for _ in 0..4 {
                progress.waits(now);
                now += SECOND;
                progress.came(bytes, now);
                assert_eq!(progress.over(now), None);
            }
            let due = progress.waits(now);
            assert_eq!(due, now + SECOND);
            assert_eq!(progress.over(due), Some(Stretch { came: 4 * bytes as u64, enough }));
        }
    }
}
