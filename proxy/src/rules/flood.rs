//! How much a peer may do that carries nothing: so many a second, and ten times as many at once. Asked by `http::counted`
//! for frames and by the connection for requests that are given up at once.

use std::time::Duration;

use tokio::time::Instant;

use crate::net::frames::{DATA, Frame, HEADERS, RST_STREAM, SETTINGS};

/// A bucket that fills with time and with what is carried. It looks at the clock only when it is empty.
#[derive(Debug)]
pub struct Flood {
    left: u32,
    rate: u32,
    filled: Instant,
}

impl Flood {
    pub fn new(rate: u32, now: Instant) -> Self {
        Self { left: rate.saturating_mul(BURST_SECONDS), rate, filled: now }
    }

    /// Something was carried, to which this much belongs.
    pub fn earn(&mut self, worth: u32) {
        self.left = self.left.saturating_add(worth).min(self.rate.saturating_mul(BURST_SECONDS));
    }

    /// False when it is too much.
    pub fn spend(&mut self, cost: u32, now: impl FnOnce() -> Instant) -> bool {
        if self.left < cost {
            self.fill(now());
        }
        match self.left.checked_sub(cost) {
            Some(left) => {
                self.left = left;
                true
            }
            None => false,
        }
    }

    fn fill(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.filled).min(Duration::from_secs(BURST_SECONDS.into()));
        let worth = u64::from(self.rate) * u64::try_from(passed.as_micros()).unwrap_or(u64::MAX) / 1_000_000;
        if worth > 0 {
            // What is left of a part stays for the next time.
            let micros = worth * 1_000_000 / u64::from(self.rate.max(1));
            self.filled = now - passed.saturating_sub(Duration::from_micros(micros));
            self.earn(u32::try_from(worth).unwrap_or(u32::MAX));
        }
    }
}

/// What a frame from the peer costs: those of a message's content cost nothing.
pub fn cost(frame: &Frame) -> u32 {
    match frame.kind {
        DATA if frame.length > 0 || frame.ends_stream() => 0,
        HEADERS if frame.length > 0 => 0,
        // Each may change the window of every stream.
        SETTINGS => SETTINGS_COST,
        _ => 1,
    }
}

/// What a frame allows, whoever sent it: a receiver tells of each piece of a body that it took, for the stream and for the
/// connection, and may measure the way with a PING; some tell more often, by the bytes.
pub fn worth(frame: &Frame) -> u32 {
    match frame.kind {
        DATA if frame.length > 0 => PIECE_WORTH + frame.length / BYTES_WORTH,
        HEADERS => PIECE_WORTH,
        _ => 0,
    }
}

/// What a frame allows that came from a client: not its heads, of which a flood may consist.
pub fn worth_from_client(frame: &Frame) -> u32 {
    if frame.kind == HEADERS { 0 } else { worth(frame) }
}

/// Whether we refused a stream with this frame because there were too many.
pub fn refuses_stream(frame: &Frame) -> bool {
    frame.kind == RST_STREAM && frame.code == REFUSED_STREAM
}

const BURST_SECONDS: u32 = 10;
const SETTINGS_COST: u32 = 8;
const PIECE_WORTH: u32 = 4;
const BYTES_WORTH: u32 = 1024;
const REFUSED_STREAM: u32 = 7;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_and_then_a_rate() {
        let begun = Instant::now();
        let mut flood = Flood::new(100, begun);
        assert!((0..1000).all(|_| flood.spend(1, || begun)));
        assert!(!flood.spend(1, || begun));
        let later = begun + Duration::from_millis(500);
        assert!((0..50).all(|_| flood.spend(1, || later)));
        assert!(!flood.spend(1, || later));
        let much_later = begun + Duration::from_secs(1000);
        assert!((0..1000).all(|_| flood.spend(1, || much_later)));
        assert!(!flood.spend(1, || much_later), "no more than a burst is saved up");
    }

    #[test]
    fn what_is_carried_pays_for_what_belongs_to_it() {
        let now = Instant::now();
        let mut flood = Flood::new(1, now);
        let data = Frame { kind: DATA, flags: 0, length: 20, stream: 1, code: 0 };
        let update = Frame { kind: 8, flags: 0, length: 4, stream: 1, code: 0 };
        for _ in 0..100_000 {
            flood.earn(worth(&data));
            assert!((0..3).all(|_| flood.spend(cost(&update), || now)));
        }
    }

    #[test]
    fn slow_spending_adds_up_over_looks_at_the_clock() {
        let begun = Instant::now();
        let mut flood = Flood::new(1000, begun);
        while flood.spend(1, || begun) {}
        let mut taken = 0;
        for micros in (0..1_000_000).step_by(300) {
            taken += u32::from(flood.spend(1, || begun + Duration::from_micros(micros)));
        }
        assert!((990..=1000).contains(&taken), "{taken}");
    }
}
