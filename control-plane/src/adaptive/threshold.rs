//! Probabilities as thresholds of 56 bits, in the digits that proxies round to: a threshold that was computed here and
//! one that a proxy computes of the same probability are the same number.

/// What a trace's randomness must reach to be kept. A probability that is out of range is the nearest that is in it:
/// never is not a probability, and nothing that is computed here may come to it.
pub fn threshold(probability: f64) -> u64 {
    let probability = if probability.is_nan() { SMALLEST } else { probability.clamp(SMALLEST, 1.0) };
    let kept = (probability * (MAX + 1) as f64).round() as u64;
    let exact = (MAX + 1).saturating_sub(kept).min(MAX);
    let full = (exact << 8).leading_ones() as usize / 4;
    let unit = 1u64 << (4 * DIGITS.saturating_sub(full + PRECISION));
    exact.saturating_add(unit / 2).min(MAX) / unit * unit
}

pub fn probability(threshold: u64) -> f64 {
    (MAX + 1 - threshold.min(MAX)) as f64 / (MAX + 1) as f64
}

const DIGITS: usize = 14;
/// Significant digits behind those that are `f`.
const PRECISION: usize = 4;
const MAX: u64 = (1 << 56) - 1;
/// 2^-56.
const SMALLEST: f64 = 1.0 / (1u64 << 56) as f64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thresholds_have_the_digits_that_opentelemetry_lists() {
        for (one_in, digits) in [
            (1.0, "0"),
            (2.0, "8"),
            (3.0, "aaab"),
            (4.0, "c"),
            (5.0, "cccd"),
            (10.0, "e666"),
            (16.0, "f"),
            (100.0, "fd70a"),
            (1000.0, "ffbe77"),
            (10_000.0, "fff9724"),
            (100_000.0, "ffff583a"),
            (1_000_000.0, "ffffef39"),
            (20.0, "f3333"),
            (200.0, "feb85"),
            (2000.0, "ffdf3b"),
        ] {
            let text = format!("{:014x}", threshold(1.0 / one_in));
            assert_eq!(format!("{digits:0<14}"), text, "1 in {one_in}");
        }
        for (part, digits) in [(0.75, "4"), (0.6, "6666"), (0.4, "999a"), (0.3, "b333"), (0.15, "d99a")] {
            assert_eq!(format!("{digits:0<14}"), format!("{:014x}", threshold(part)), "{part}");
        }
    }

    #[test]
    fn whatever_is_computed_is_a_threshold_that_keeps_something() {
        for odd in [0.0, -1.0, f64::NAN, f64::NEG_INFINITY, 1e-300, SMALLEST] {
            assert_eq!(threshold(odd), MAX, "{odd}");
        }
        for much in [1.0, 2.0, f64::INFINITY] {
            assert_eq!(threshold(much), 0, "{much}");
        }
        assert_eq!((probability(0), probability(MAX), probability(u64::MAX)), (1.0, SMALLEST, SMALLEST));
    }

    #[test]
    fn the_way_there_and_back_loses_a_thousandth_at_most_and_settles() {
        let mut part = 1.0;
        while part > 1e-9 {
            let there = threshold(part);
            let back = probability(there);
            assert!((back / part - 1.0).abs() < 1e-3, "{part} {back}");
            assert_eq!(threshold(back), there, "{part}");
            part *= 0.83;
        }
    }
}
