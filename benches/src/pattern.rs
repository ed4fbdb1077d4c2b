//! What all bodies are made of: bytes that do not compress, whose period is a prime, so that a piece that is missing,
//! doubled or swapped is seen wherever it was cut.

use std::sync::LazyLock;

/// Up to `most` bytes of the pattern as it stands at `offset`.
pub fn at(offset: u64, most: usize) -> &'static [u8] {
    let start = (offset % PERIOD as u64) as usize;
    &BYTES[start..start + most.min(RUN)]
}

/// Whether `bytes` are what stands at `offset`.
pub fn matches(mut offset: u64, bytes: &[u8]) -> bool {
    bytes.chunks(RUN).all(|chunk| {
        let same = at(offset, chunk.len()) == chunk;
        offset += chunk.len() as u64;
        same
    })
}

static BYTES: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    };
    let once: Vec<u8> = (0..PERIOD).map(|_| next()).collect();
    once.iter().copied().cycle().take(PERIOD + RUN).collect()
});

const PERIOD: usize = 65_521;
/// As much as is written or compared at once.
const RUN: usize = 256 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shifted_piece_is_seen() {
        let piece = at(1_000_000, 100_000);
        assert!(matches(1_000_000, piece));
        assert!(!matches(1_000_001, piece));
        assert!(matches(1_000_000 + PERIOD as u64, piece));
        assert!(!matches(0, &vec![0; 300_000]));
    }
}
