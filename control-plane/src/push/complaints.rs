//! Says what proxies do wrong, a few times in a while and not for each: whoever does it on purpose does it often.

use std::fmt::Display;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

#[derive(Debug, Default)]
pub struct Complaints(Mutex<Pace>);

/// How many were said since when. Pure.
#[derive(Debug, Default)]
struct Pace {
    began: Option<Instant>,
    said: u32,
    left_out: u64,
}

impl Complaints {
    pub fn say(&self, peer: impl Display, reason: impl Display) {
        let turn = self.0.lock().unwrap_or_else(PoisonError::into_inner).turn(Instant::now());
        match turn {
            Some(0) => tracing::warn!(%peer, "a proxy is not served: {reason}"),
            Some(left_out) => tracing::warn!(%peer, left_out, "a proxy is not served: {reason}"),
            None => tracing::debug!(%peer, "a proxy is not served: {reason}"),
        }
    }
}

impl Pace {
    /// Whether one may be said, and how many were not before it.
    fn turn(&mut self, now: Instant) -> Option<u64> {
        if self.began.is_none_or(|began| now.saturating_duration_since(began) >= WHILE) {
            (self.began, self.said) = (Some(now), 0);
        }
        if self.said >= MOST {
            self.left_out += 1;
            return None;
        }
        self.said += 1;
        Some(std::mem::take(&mut self.left_out))
    }
}

const WHILE: Duration = Duration::from_secs(10);
/// In a while.
const MOST: u32 = 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_are_said_in_a_while_and_the_others_are_counted() {
        let (mut pace, start) = (Pace::default(), Instant::now());
        let said = (0..1000).filter(|_| pace.turn(start).is_some()).count();
        assert_eq!(said, 10);
        assert_eq!(pace.turn(start + WHILE), Some(990));
        assert_eq!(pace.turn(start + WHILE), Some(0));
    }
}
