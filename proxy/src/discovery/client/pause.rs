//! How long to wait before the control plane is tried again: longer each time, and at random, so that those who lost it
//! together do not come back together. Pure.

use std::time::Duration;

use rand::RngExt;

#[derive(Debug, Default)]
pub struct Pause {
    tries: u32,
}

impl Pause {
    pub fn next(&mut self, rng: &mut impl RngExt) -> Duration {
        let most = FIRST.saturating_mul(1 << self.tries.min(DOUBLINGS)).min(LONGEST);
        self.tries += 1;
        // All of it is at random: the first try already is one of many.
        LEAST + most.mul_f64(rng.random_range(0.0..1.0))
    }

    pub fn reset(&mut self) {
        self.tries = 0;
    }
}

const LEAST: Duration = Duration::from_millis(50);
const FIRST: Duration = Duration::from_millis(500);
const LONGEST: Duration = Duration::from_secs(30);
const DOUBLINGS: u32 = 6;

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::SmallRng;

    use super::*;

    #[test]
    fn pauses_grow_to_a_bound_and_begin_anew() {
        let mut rng = SmallRng::seed_from_u64(1);
        let mut pause = Pause::default();
        assert!(pause.next(&mut rng) <= LEAST + FIRST);
        let long: Vec<_> = (0..200).map(|_| pause.next(&mut rng)).collect();
        assert!(long.iter().all(|pause| *pause <= LEAST + LONGEST));
        assert!(long.iter().any(|pause| *pause > LONGEST / 2), "they spread over all of it");
        assert!(long.iter().any(|pause| *pause < LONGEST / 8));
        pause.reset();
        assert!(pause.next(&mut rng) <= LEAST + FIRST);
    }
}
