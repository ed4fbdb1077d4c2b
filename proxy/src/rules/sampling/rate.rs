//! Rates turned into thresholds: how many requests come, and with which share of them a budget is met. Time is an argument.

use std::time::Duration;

/// How many come in a second. Follows a step within a few looks and is calm between steps.
#[derive(Clone, Copy, Debug, Default)]
pub struct Rate {
    fast: f64,
    slow: f64,
    /// Seconds in which another load is still to show how much it is.
    moving: f64,
}

impl Rate {
    /// So many came since the last look.
    pub fn look(&mut self, came: u64, since: Duration) {
        let seconds = since.as_secs_f64();
        if seconds <= 0.0 {
            return;
        }
        let now = came as f64 / seconds;
        self.fast += (now - self.fast) * (1.0 - (-seconds / FAST).exp());
        self.slow += (now - self.slow) * (1.0 - (-seconds / SLOW).exp());
        // More than chance would have it: another load.
        let chance = STEP * ((self.slow + 1.0) / (2.0 * FAST)).sqrt();
        if (self.fast - self.slow).abs() > chance {
            self.moving = 3.0 * FAST;
        }
        if self.moving > 0.0 {
            self.moving -= seconds;
            self.slow = self.fast;
        }
    }

    pub fn per_second(self) -> f64 {
        self.slow
    }
}

/// A budget of traces in a second, and what was saved or overdrawn of it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Purse {
    saved: f64,
}

impl Purse {
    /// How many may be kept in a second from now on, when so many were.
    pub fn allow(&mut self, budget: f64, burst: f64, kept: u64, since: Duration) -> f64 {
        let seconds = since.as_secs_f64();
        // A burst that came before it was seen is not paid back for longer than chance explains. And what chance has not kept is
        // made good however small the burst is, or the rate would never be reached.
        let chance = 1.0 + 2.0 * budget.sqrt();
        self.saved = (self.saved + budget * seconds - kept as f64).clamp(-chance, burst.max(chance));
        (budget + self.saved).max(budget * LEAST)
    }
}

/// The share of requests with which a budget is met.
pub fn share(allowed: f64, rate: f64) -> f64 {
    if rate <= allowed { 1.0 } else { allowed / rate }
}

/// The level at which all that is above it, cut to it, is the budget: `amounts` are what each would take. Infinite where
/// they take less.
pub fn level(amounts: impl Iterator<Item = f64> + Clone, budget: f64) -> f64 {
    if amounts.clone().sum::<f64>() <= budget {
        return f64::INFINITY;
    }
    let (mut low, mut high) = (0.0, budget);
    for _ in 0..HALVINGS {
        let middle = (low + high) / 2.0;
        let taken: f64 = amounts.clone().map(|amount| amount.min(middle)).sum();
        if taken > budget { high = middle } else { low = middle }
    }
    low
}

/// The greatest share for all with which rates, each with the share that it has anyway, stay in the budget.
pub fn common(rates: impl Iterator<Item = (f64, f64)> + Clone, budget: f64) -> f64 {
    let taken = |part: f64| rates.clone().map(|(rate, share)| rate * share.min(part)).sum::<f64>();
    if taken(1.0) <= budget {
        return 1.0;
    }
    let (mut low, mut high) = (0.0, 1.0);
    for _ in 0..HALVINGS {
        let middle = (low + high) / 2.0;
        if taken(middle) > budget { high = middle } else { low = middle }
    }
    low
}

/// Seconds: a tenfold step is known after two thirds of it.
const FAST: f64 = 0.3;
const SLOW: f64 = 2.0;
/// Standard deviations of what comes by chance.
const STEP: f64 = 3.0;
/// Of a budget that is overdrawn.
const LEAST: f64 = 0.05;
const HALVINGS: u32 = 50;

#[cfg(test)]
mod tests {
    use rand::RngExt;
    use rand::SeedableRng;
    use rand::rngs::SmallRng;

    use super::*;

    const LOOK: Duration = Duration::from_millis(100);

    /// Runs a limit over loads of five seconds each, and gives what was kept in each look.
    fn kept(budget: f64, burst: f64, loads: &[f64], seconds: u32) -> Vec<u64> {
        let mut rng = SmallRng::seed_from_u64(3);
        let (mut rate, mut purse, mut part) = (Rate::default(), Purse::default(), 1.0);
        let mut all = Vec::new();
        for load in loads {
            for _ in 0..seconds * 10 {
                let mean = load * LOOK.as_secs_f64();
                // Near enough to how independent requests come.
                let came = (0..1000).filter(|_| rng.random_bool((mean / 1000.0).min(1.0))).count() as u64;
                let passed = (0..came).filter(|_| rng.random_bool(part)).count() as u64;
                all.push(passed);
                rate.look(came, LOOK);
                let allowed = purse.allow(budget, burst, passed, LOOK);
                part = share(allowed, rate.per_second());
            }
        }
        all
    }

    #[test]
    fn after_a_tenfold_step_the_rate_is_back_at_once() {
        for budget in [20.0, 100.0] {
            let all = kept(budget, 1.0, &[budget * 2.0, budget * 20.0, budget * 2.0], 30);
            let (_, step) = all.split_at(300);
            // Three seconds after either step until the next.
            for part in [&step[30..300], &step[330..]] {
                let mean = part.iter().sum::<u64>() as f64 / (part.len() as f64 / 10.0);
                assert!((mean / budget - 1.0).abs() < 0.2, "{mean} of {budget}");
            }
            let second = |at: usize| step[at..at + 10].iter().sum::<u64>() as f64;
            // The second that begins with the step may be above; none that begins a second later is.
            let above = (10..step.len() - 10).filter(|at| second(*at) > 2.0 * budget).count();
            assert_eq!(above, 0, "{budget}");
        }
    }

    #[test]
    fn a_limit_of_a_few_traces_is_kept_over_the_minutes() {
        for (budget, burst) in [(5.0, 10.0), (5.0, 1.0), (50.0, 1.0), (1.0, 1.0)] {
            let all = kept(budget, burst, &[budget * 20.0], 300);
            let mean = all[30..].iter().sum::<u64>() as f64 / 297.0;
            assert!((mean / budget - 1.0).abs() < 0.02, "{mean} of {budget}, {burst}");
        }
    }

    #[test]
    fn the_rare_is_not_starved_by_the_busy() {
        let amounts = [1000.0, 10.0, 1.0];
        let level = level(amounts.into_iter(), 100.0);
        assert!((level - 89.0).abs() < 0.01, "{level}");
        assert!(super::level(amounts.into_iter(), 2000.0).is_infinite());
        let part = common([(1000.0, 1.0), (1000.0, 0.01)].into_iter(), 60.0);
        assert!((part - 0.05).abs() < 0.001, "{part}");
    }
}
