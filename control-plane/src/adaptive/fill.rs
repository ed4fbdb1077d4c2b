//! Water-filling: many share a budget, each gets the same, but none more than it can use; what one leaves is the
//! others'. So the rare has all it wants before the busy has more than its share.

/// What one of those that share can use. It has `low` whatever the others want.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Want {
    pub low: f64,
    pub high: f64,
}

impl Want {
    pub fn up_to(high: f64) -> Self {
        Self { low: 0.0, high }
    }
}

/// How high the water stands: each has as much as this, held between its own low and high, and all of them together
/// have the budget. Infinite if there is enough for all, 0 if the lows alone are too much.
pub fn level(wants: &[Want], budget: f64) -> f64 {
    let mut left = budget - wants.iter().map(|want| want.low).sum::<f64>();
    if left <= 0.0 {
        return if wants.iter().any(|want| want.high > want.low) { 0.0 } else { f64::INFINITY };
    }
    // Where one begins to take and where it has enough.
    let taking = wants.iter().filter(|want| want.high > want.low);
    let mut turns: Vec<(f64, f64)> = taking.flat_map(|want| [(want.low, 1.0), (want.high, -1.0)]).collect();
    turns.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (mut height, mut width) = (0.0, 0.0);
    for (turn, change) in turns {
        let volume = width * (turn - height);
        if volume > left {
            return height + left / width;
        }
        left -= volume;
        width += change;
        height = turn;
    }
    f64::INFINITY
}

#[cfg(test)]
mod tests {
    use rand::rngs::SmallRng;
    use rand::{RngExt, SeedableRng};

    use super::*;

    fn poured(wants: &[Want], level: f64) -> f64 {
        wants.iter().map(|want| level.clamp(want.low, want.high.max(want.low))).sum()
    }

    #[test]
    fn the_small_have_all_and_the_large_share_the_rest() {
        let wants = [1.0, 10.0, 1000.0, 5000.0].map(Want::up_to);
        assert_eq!(level(&wants, 111.0), 50.0);
        assert_eq!(level(&wants, 4.0), 1.0);
        assert_eq!(level(&wants, 6011.0), f64::INFINITY);
        assert_eq!(level(&[], 1.0), f64::INFINITY);
        assert_eq!(level(&wants, 0.0), 0.0);
    }

    #[test]
    fn what_one_has_in_any_case_is_taken_from_the_others() {
        let wants = [Want { low: 60.0, high: 6000.0 }, Want::up_to(100.0), Want::up_to(100.0)];
        assert_eq!(level(&wants, 100.0), 20.0);
        assert_eq!(level(&wants, 60.0), 0.0);
        assert_eq!(level(&[Want { low: 5.0, high: 5.0 }], 1.0), f64::INFINITY);
    }

    #[test]
    fn whatever_is_wanted_the_budget_is_used_up_and_not_more() {
        let mut rng = SmallRng::seed_from_u64(1);
        for _ in 0..2_000 {
            let some = rng.random_range(1..40);
            let mut wants = Vec::new();
            for _ in 0..some {
                let high = 10f64.powf(rng.random_range(-3.0..5.0));
                let low = if rng.random_bool(0.3) { high * rng.random_range(0.0..1.0) } else { 0.0 };
                wants.push(Want { low, high });
            }
            let (lows, highs) = (poured(&wants, 0.0), poured(&wants, f64::INFINITY));
            let budget = 10f64.powf(rng.random_range(-3.0..6.0));
            let had = poured(&wants, level(&wants, budget));
            let right = budget.clamp(lows, highs);
            assert!((had / right - 1.0).abs() < 1e-9, "{had} of {right}: {wants:?}");
        }
    }
}
