//! Latencies in buckets less than one per cent wide.

pub struct Histogram {
    counts: Vec<u64>,
    total: u64,
    max: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { counts: vec![0; (64 << BITS) as usize], total: 0, max: 0 }
    }
}

impl Histogram {
    pub fn add(&mut self, nanoseconds: u64) {
        self.counts[index(nanoseconds)] += 1;
        self.total += 1;
        self.max = self.max.max(nanoseconds);
    }

    pub fn total(&self) -> u64 {
        self.total
    }

    pub fn max(&self) -> u64 {
        self.max
    }

    /// The least value that at least this share of all values does not exceed.
    pub fn quantile(&self, share: f64) -> u64 {
        let wanted = (self.total as f64 * share).ceil() as u64;
        let mut seen = 0;
        for (index, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= wanted.max(1) {
                return value(index as u64).min(self.max);
            }
        }
        self.max
    }
}

/// Below 2^BITS each value has its own bucket, above each power of two has 2^BITS.
fn index(value: u64) -> usize {
    if value < 1 << BITS {
        return value as usize;
    }
    let shift = 63 - value.leading_zeros() as u64 - BITS;
    (((shift + 1) << BITS) + ((value >> shift) - (1 << BITS))) as usize
}

/// The greatest value of a bucket.
fn value(index: u64) -> u64 {
    let (power, rest) = (index >> BITS, index & ((1 << BITS) - 1));
    match power {
        0 => rest,
        power => ((((1 << BITS) + rest + 1) as u128) << (power - 1)).saturating_sub(1) as u64,
    }
}

const BITS: u64 = 7;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_narrow() {
        for sample in [0, 1, 127, 128, 129, 1000, 12_345, 999_999_999, u64::MAX / 2] {
            let bound = value(index(sample) as u64);
            assert!(bound >= sample && bound as f64 <= sample as f64 * 1.01, "{sample} {bound}");
        }
    }

    #[test]
    fn quantiles_are_those_of_the_values() {
        let mut histogram = Histogram::default();
        (1..=100).for_each(|value| histogram.add(value));
        assert_eq!((histogram.quantile(0.5), histogram.quantile(0.99), histogram.quantile(1.0)), (50, 99, 100));
        assert_eq!((histogram.total(), histogram.max()), (100, 100));
    }
}
