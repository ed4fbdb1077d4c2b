//! Thresholds as OpenTelemetry has them in tracestate: 56 bits that say how many of all traces are dropped. A trace is
//! kept if its randomness R reaches the threshold T.

use std::fmt::{Display, Formatter};
use std::ops::Deref;

/// 56 bits: how many of all traces are dropped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Threshold(u64);

impl Threshold {
    /// Nothing is dropped.
    pub const ALL: Threshold = Threshold(0);

    /// In four digits behind those that are `f`, as OpenTelemetry's own samplers have it, so that thresholds from
    /// elsewhere are the same. `None` for what is no probability: never is not one.
    pub fn of(probability: f64) -> Option<Self> {
        Self::within(probability, PRECISION)
    }

    /// In so many digits behind those that are `f`.
    pub fn within(probability: f64, precision: usize) -> Option<Self> {
        if !(SMALLEST..=1.0).contains(&probability) {
            return None;
        }
        let kept = (probability * (MAX + 1) as f64).round() as u64;
        let exact = (MAX + 1).saturating_sub(kept).min(MAX);
        let full = (exact << 8).leading_ones() as usize / 4;
        let unit = 1u64 << (4 * DIGITS.saturating_sub(full + precision));
        // Rounded up to a digit more it may be all of them, and then nothing would be kept.
        Some(Self(exact.saturating_add(unit / 2).min(MAX) / unit * unit))
    }

    /// From a number; what is more than 56 bits is no threshold.
    pub fn new(threshold: u64) -> Option<Self> {
        (threshold <= MAX).then_some(Self(threshold))
    }

    pub fn number(self) -> u64 {
        self.0
    }

    /// The part of all traces that is kept.
    pub fn probability(self) -> f64 {
        (MAX + 1 - self.0) as f64 / (MAX + 1) as f64
    }

    /// How many traces one that was kept stands for.
    pub fn adjusted_count(self) -> f64 {
        1.0 / self.probability()
    }

    pub fn keeps(self, randomness: u64) -> bool {
        randomness >= self.0
    }

    /// 1 to 14 hexadecimal digits, zeros at the end left out.
    pub fn parse(digits: &str) -> Option<Self> {
        let value = lower_hex(digits)?;
        Some(Self(value << (4 * (DIGITS - digits.len()))))
    }

    pub fn digits(self) -> Digits {
        let mut text = [b'0'; DIGITS];
        let zeros = self.0.trailing_zeros() as usize / 4;
        let length = DIGITS.saturating_sub(zeros).max(1);
        for (place, digit) in text.iter_mut().enumerate().take(length) {
            let value = (self.0 >> (4 * (DIGITS - 1 - place)) & 0xf) as u8;
            *digit = if value < 10 { b'0' + value } else { b'a' + value - 10 };
        }
        Digits { text, length }
    }
}

/// As a header has them: at least one, and no zeros at the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Digits {
    text: [u8; DIGITS],
    length: usize,
}

impl Deref for Digits {
    type Target = str;

    fn deref(&self) -> &str {
        self.text.get(..self.length).and_then(|text| std::str::from_utf8(text).ok()).unwrap_or("0")
    }
}

impl PartialEq<&str> for Digits {
    fn eq(&self, other: &&str) -> bool {
        **self == **other
    }
}

impl Display for Digits {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(self)
    }
}

/// At most 14 digits, small ones.
pub fn lower_hex(digits: &str) -> Option<u64> {
    if digits.is_empty() || digits.len() > DIGITS {
        return None;
    }
    digits.bytes().try_fold(0, |number, byte| {
        let digit = match byte {
            b'0'..=b'9' => byte - b'0',
            b'a'..=b'f' => byte - b'a' + 10,
            _ => return None,
        };
        Some(number << 4 | u64::from(digit))
    })
}

pub const DIGITS: usize = 14;
pub const MAX: u64 = (1 << 56) - 1;
const PRECISION: usize = 4;
/// 2^-56.
const SMALLEST: f64 = 1.0 / (1u64 << 56) as f64;
