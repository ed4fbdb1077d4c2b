//! Identifiers that travel between programs: parsed once, then only typed values.
//! An all-zero trace or span id is invalid everywhere, so neither type can hold one.

use std::fmt;
use std::num::{NonZeroU64, NonZeroU128};

/// A 128-bit trace id, never zero.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TraceId(NonZeroU128);

/// A 64-bit span id, never zero.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct SpanId(NonZeroU64);

impl TraceId {
    /// `None` for the all-zero id.
    pub fn from_bytes(bytes: [u8; 16]) -> Option<Self> {
        NonZeroU128::new(u128::from_be_bytes(bytes)).map(Self)
    }

    pub fn to_bytes(self) -> [u8; 16] {
        self.0.get().to_be_bytes()
    }

    /// Lower-case hexadecimal digits; W3C forbids upper case.
    pub fn to_digits(self) -> [u8; 32] {
        digits(&self.to_bytes())
    }

    /// Parses exactly 32 lower-case hexadecimal digits.
    pub fn parse(text: &[u8]) -> Option<Self> {
        Self::from_bytes(hex(text)?)
    }
}

impl SpanId {
    /// `None` for the all-zero id.
    pub fn from_bytes(bytes: [u8; 8]) -> Option<Self> {
        NonZeroU64::new(u64::from_be_bytes(bytes)).map(Self)
    }

    pub fn to_bytes(self) -> [u8; 8] {
        self.0.get().to_be_bytes()
    }

    /// Lower-case hexadecimal digits.
    pub fn to_digits(self) -> [u8; 16] {
        digits(&self.to_bytes())
    }

    /// Parses exactly 16 lower-case hexadecimal digits.
    pub fn parse(text: &[u8]) -> Option<Self> {
        Self::from_bytes(hex(text)?)
    }
}

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(str::from_utf8(&self.to_digits()).unwrap_or_default())
    }
}

impl fmt::Display for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(str::from_utf8(&self.to_digits()).unwrap_or_default())
    }
}

impl fmt::Debug for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Debug for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Lower-case hexadecimal of exactly `N` bytes. W3C forbids upper case, so this does too.
pub fn hex<const N: usize>(text: &[u8]) -> Option<[u8; N]> {
    if text.len() != N * 2 {
        return None;
    }
    let (mut bytes, mut wrong) = ([0; N], 0);
    for (byte, pair) in bytes.iter_mut().zip(text.as_chunks::<2>().0) {
        let [high, low] = pair.map(digit);
        *byte = high << 4 | low & 0x0F;
        wrong |= high | low;
    }
    (wrong & WRONG == 0).then_some(bytes)
}

fn digits<const N: usize>(bytes: &[u8]) -> [u8; N] {
    let mut text = [b'0'; N];
    hex_into(&mut text, bytes);
    text
}

/// Lower-case hexadecimal, as much as there is room for. Without branches: every log line and every span has ids.
#[inline]
pub fn hex_into(text: &mut [u8], bytes: &[u8]) {
    for (pair, byte) in text.as_chunks_mut::<2>().0.iter_mut().zip(bytes) {
        *pair = [byte >> 4, byte & 0xF].map(|nibble| nibble + b'0' + u8::from(nibble > 9) * (b'a' - b'9' - 1));
    }
}

/// Without a branch for each, since every request has fifty of them: what is no digit has the bit `WRONG`.
fn digit(byte: u8) -> u8 {
    const DIGITS: [u8; 256] = {
        let mut digits = [WRONG; 256];
        let mut value = 0;
        while value < 16 {
            digits[b"0123456789abcdef"[value] as usize] = value as u8;
            value += 1;
        }
        digits
    };
    // A byte is always below 256.
    DIGITS[usize::from(byte)]
}

const WRONG: u8 = 0x80;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_prints_what_it_was_parsed_from() {
        let text = "0af7651916cd43dd8448eb211c80319c";
        assert_eq!(TraceId::parse(text.as_bytes()).map(|id| id.to_string()).as_deref(), Some(text));
        assert_eq!(SpanId::parse(b"00f067aa0ba902b7").map(|id| id.to_string()).as_deref(), Some("00f067aa0ba902b7"));
    }

    #[test]
    fn zero_upper_case_and_wrong_lengths_are_refused() {
        assert_eq!(TraceId::parse(&[b'0'; 32]), None);
        assert_eq!(SpanId::parse(&[b'0'; 16]), None);
        assert_eq!(SpanId::parse(b"00F067AA0BA902B7"), None);
        assert_eq!(SpanId::parse(b"00f067aa0ba902b"), None);
        assert_eq!(SpanId::parse(b"00f067aa0ba902b7a"), None);
        assert_eq!(SpanId::parse(b""), None);
    }
}
