//! How long to wait before the API server is asked again: longer each time, never the same for two replicas, and never less
//! than it asked for.

use std::time::Duration;

use rand::{Rng, RngExt};

#[derive(Debug)]
pub struct Pause {
    first: Duration,
    times: u32,
}

impl Pause {
    pub fn new(first: Duration) -> Self {
        Self { first, times: 0 }
    }

    /// `rest` is what the server asked for.
    pub fn next(&mut self, rest: Duration, rng: &mut impl Rng) -> Duration {
        let usual = self.first.saturating_mul(1 << self.times.min(16)).min(LONGEST);
        self.times = self.times.saturating_add(1);
        let apart = rng.random_range(0.5..1.5);
        // All that were told the same second come in the one after it, not at its beginning.
        usual.mul_f64(apart).max(rest + self.first.mul_f64(apart))
    }

    /// It has worked again.
    pub fn over(&mut self) {
        self.times = 0;
    }

    pub fn times(&self) -> u32 {
        self.times
    }
}

/// A definition or a right that comes is in force within this time.
const LONGEST: Duration = Duration::from_secs(20);

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::SmallRng;

    use super::*;

    #[test]
    fn pauses_grow_to_a_limit_and_hold_what_the_server_asked_for() {
        let mut rng = SmallRng::seed_from_u64(1);
        let mut pause = Pause::new(Duration::from_millis(200));
        let pauses: Vec<_> = (0..40).map(|_| pause.next(Duration::ZERO, &mut rng)).collect();
        assert!(pauses[0] < Duration::from_millis(300), "{:?}", pauses[0]);
        assert!(pauses[3] > Duration::from_millis(800), "{:?}", pauses[3]);
        assert!(pauses.iter().all(|pause| *pause <= LONGEST.mul_f64(1.5)));
        assert!(pauses[20..].iter().all(|pause| *pause >= LONGEST / 2));
        pause.over();
        assert!(pause.next(Duration::ZERO, &mut rng) < Duration::from_millis(300));
        let asked = Duration::from_secs(120);
        let pauses: Vec<_> = (0..9).map(|_| pause.next(asked, &mut rng)).collect();
        assert!(pauses.iter().all(|pause| *pause > asked));
        assert!(pauses.windows(2).all(|two| two[0] != two[1]));
    }
}
