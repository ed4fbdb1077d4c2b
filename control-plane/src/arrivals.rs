//! How many streams are begun per second. When a control plane comes back, all its proxies come at once, and each costs
//! a handshake and a whole snapshot: some are served, some wait, and the rest are told when to come back, each at a time
//! of its own, so that they come as fast as they can be served.

use std::time::Duration;

use rand::{Rng, RngExt};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    Serve,
    /// Its turn is at this time, within the time that `queue` allows.
    Wait {
        until: Duration,
    },
    Leave {
        after: Duration,
    },
}

#[derive(Debug)]
pub struct Arrivals {
    /// Between two streams.
    gap: Duration,
    /// How long one waits at most.
    queue: Duration,
    /// When the next may be served.
    next: Duration,
    /// Until when those that were sent away are expected.
    expected: Duration,
    sent_away: u64,
}

impl Arrivals {
    /// So many each second; so many wait.
    pub fn new(per_second: f64, queue: u32) -> Self {
        let per_second = if per_second.is_finite() { per_second.max(SLOWEST) } else { SLOWEST };
        let gap = Duration::from_secs_f64(1.0 / per_second);
        Self { gap, queue: gap * queue, next: Duration::ZERO, expected: Duration::ZERO, sent_away: 0 }
    }

    pub fn arrive(&mut self, now: Duration, rng: &mut impl Rng) -> Answer {
        let turn = self.next.max(now.saturating_sub(BURST));
        let wait = turn.saturating_sub(now);
        if wait <= self.queue {
            self.next = turn + self.gap;
            return if wait.is_zero() { Answer::Serve } else { Answer::Wait { until: turn } };
        }
        self.sent_away += 1;
        self.expected = self.expected.max(turn);
        let after = self.expected - now;
        if after > LONGEST {
            // More than anybody should wait: they come and ask again.
            return Answer::Leave { after: LONGEST.mul_f64(rng.random_range(0.5..1.0)) };
        }
        self.expected += self.gap.mul_f64(APART);
        Answer::Leave { after: after + SPREAD.mul_f64(rng.random_range(0.0..1.0)) }
    }

    pub fn sent_away(&self) -> u64 {
        self.sent_away
    }
}

/// What may be served at once after a quiet time, as time.
const BURST: Duration = Duration::from_millis(100);
/// Those that come back leave room for those that come for the first time.
const APART: f64 = 1.25;
const SPREAD: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(60);
/// One in a hundred seconds.
const SLOWEST: f64 = 0.01;

#[cfg(test)]
mod tests {
    use std::cmp::Reverse;
    use std::collections::BinaryHeap;

    use rand::SeedableRng;
    use rand::rngs::SmallRng;

    use super::*;

    /// When each of so many that come at once is served, and how often one had to ask.
    fn storm(arrivals: &mut Arrivals, proxies: u32, obeys: impl Fn(u32) -> bool) -> (Vec<Duration>, u32) {
        let mut rng = SmallRng::seed_from_u64(1);
        let mut coming: BinaryHeap<Reverse<(Duration, u32, u32)>> = BinaryHeap::new();
        for proxy in 0..proxies {
            let first = Duration::from_secs(100) + Duration::from_micros(rng.random_range(0..50_000));
            coming.push(Reverse((first, proxy, 1)));
        }
        let (mut served, mut most) = (Vec::new(), 0);
        while let Some(Reverse((now, proxy, asked))) = coming.pop() {
            if obeys(proxy) {
                most = most.max(asked);
            }
            match arrivals.arrive(now, &mut rng) {
                Answer::Serve => served.push(now - Duration::from_secs(100)),
                Answer::Wait { until } => served.push(until - Duration::from_secs(100)),
                Answer::Leave { after } => {
                    let after = if obeys(proxy) { after } else { Duration::from_millis(200) };
                    coming.push(Reverse((now + after, proxy, asked + 1)));
                }
            }
        }
        served.sort();
        (served, most)
    }

    /// The most in any second.
    fn busiest(served: &[Duration]) -> usize {
        let within = |(place, first): (usize, &Duration)| {
            served[place..].iter().take_while(|time| **time < *first + Duration::from_secs(1)).count()
        };
        served.iter().enumerate().map(within).max().unwrap_or(0)
    }

    #[test]
    fn ten_thousand_that_come_back_at_once_are_all_served_soon_and_never_too_many_at_once() {
        let (served, most) = storm(&mut Arrivals::new(1000.0, 500), 10_000, |_| true);
        assert_eq!(served.len(), 10_000);
        let last = served.last().expect("the last").as_secs_f64();
        assert!(last < 15.0, "{last} s");
        assert!(busiest(&served) <= 1101, "{}", busiest(&served));
        assert!(most <= 3, "one asked {most} times");
    }

    #[test]
    fn where_it_takes_longer_than_anybody_waits_they_ask_again_and_all_are_served() {
        let (served, most) = storm(&mut Arrivals::new(50.0, 50), 10_000, |_| true);
        assert_eq!(served.len(), 10_000);
        let last = served.last().expect("the last").as_secs_f64();
        assert!(last < 200.0 * 1.5, "{last} s");
        assert!(busiest(&served) <= 56, "{}", busiest(&served));
        assert!(most <= 10, "one asked {most} times");
    }

    #[test]
    fn some_that_do_not_listen_do_not_starve_those_that_do() {
        let obeys = |proxy| proxy % 20 != 0;
        let (served, most) = storm(&mut Arrivals::new(1000.0, 500), 10_000, obeys);
        let last = served.last().expect("the last").as_secs_f64();
        assert!(served.len() == 10_000 && last < 15.0 && most <= 5, "{last} s, one asked {most} times");
    }

    #[test]
    fn a_quiet_control_plane_serves_at_once() {
        let mut rng = SmallRng::seed_from_u64(1);
        let mut arrivals = Arrivals::new(100.0, 10);
        for second in 1..100 {
            assert_eq!(arrivals.arrive(Duration::from_secs(second), &mut rng), Answer::Serve);
        }
        let now = Duration::from_secs(200);
        let answers: Vec<Answer> = (0..30).map(|_| arrivals.arrive(now, &mut rng)).collect();
        let count = |kind: fn(&Answer) -> bool| answers.iter().filter(|answer| kind(answer)).count();
        assert_eq!(count(|answer| matches!(answer, Answer::Serve)), 11);
        assert_eq!(count(|answer| matches!(answer, Answer::Wait { .. })), 10);
        assert_eq!(arrivals.sent_away(), 9);
    }
}
