//! How many spans a trace that is kept comes to, in the mean of the mesh: all spans that were made, through all traces
//! that were begun. No proxy sees a whole trace, so it is the same number for every rule.

use std::time::Duration;

/// Both are counted with a weight that halves every `HALF_LIFE`, so that a minute with few traces weighs little.
#[derive(Debug)]
pub struct SpansPerTrace {
    at: Duration,
    spans: f64,
    traces: f64,
    mean: f64,
}

impl SpansPerTrace {
    pub fn new(now: Duration) -> Self {
        Self { at: now, spans: 0.0, traces: 0.0, mean: LEAST }
    }

    pub fn add(&mut self, now: Duration, spans: f64, traces: f64) {
        let age = now.saturating_sub(self.at).as_secs_f64();
        let weight = 0.5f64.powf(age / HALF_LIFE.as_secs_f64());
        self.at = self.at.max(now);
        self.spans = self.spans * weight + spans;
        self.traces = self.traces * weight + traces;
    }

    /// As it is from now on. Of less than one trace nothing is learned: the mean stays as it was.
    pub fn settle(&mut self) -> f64 {
        if self.traces >= 1.0 {
            self.mean = (self.spans / self.traces).clamp(LEAST, MOST);
        }
        self.mean
    }

    pub fn mean(&self) -> f64 {
        self.mean
    }
}

const HALF_LIFE: Duration = Duration::from_secs(20);
const LEAST: f64 = 1.0;
/// Beyond this somebody counts wrongly.
const MOST: f64 = 1000.0;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mean_follows_and_keeps_what_it_knew_when_nothing_comes() {
        let mut spans = SpansPerTrace::new(Duration::ZERO);
        assert_eq!(spans.settle(), 1.0);
        for second in 0..100 {
            spans.add(Duration::from_secs(second), 60.0, 10.0);
        }
        assert!((spans.settle() - 6.0).abs() < 1e-9);
        for second in 100..160 {
            spans.add(Duration::from_secs(second), 120.0, 10.0);
        }
        let mean = spans.settle();
        assert!((11.0..12.0).contains(&mean), "{mean}");
        spans.add(Duration::from_secs(10_000), 0.0, 0.0);
        assert_eq!(spans.settle(), mean);
    }

    #[test]
    fn a_wrong_count_moves_it_no_further_than_its_bounds() {
        let mut spans = SpansPerTrace::new(Duration::ZERO);
        spans.add(Duration::ZERO, 1e30, 1.0);
        assert_eq!(spans.settle(), 1000.0);
        spans.add(Duration::ZERO, 0.0, 1e40);
        assert_eq!(spans.settle(), 1.0);
    }
}
