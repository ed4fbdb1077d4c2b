//! Takes an endpoint out of the choice for a while when it cannot be connected to.
//!
//! The first ejection lasts the upstream's `ejectTime`, each one after it twice as long, at most ten times; a success
//! ends it and forgets them all. Any number of several endpoints may be ejected, because `balance` uses all of them
//! when none is left. An only endpoint is never ejected: that would only turn one error into another.
//!
//! ```text
//!   healthy ──failure──▶ ejected ──time──▶ on trial ──failure──▶ ejected, twice as long
//!      ▲                    │                  │
//!      └─────success────────┴──────────────────┘
//! ```

use std::time::Duration;

use tokio::time::Instant;

use super::balance::Endpoint;

/// A connect failed. `endpoints` is how many the upstream has. True if this ejected the endpoint, for the counter.
///
/// Failures of an endpoint that is out already are the echo of the same trouble (requests that were connecting at the
/// same time) and lengthen nothing.
pub fn failed(endpoint: &Endpoint, endpoints: usize, eject_time: Duration, now: Instant) -> bool {
    if endpoints < 2 || endpoint.is_ejected(now) {
        return false;
    }
    let times = 1_u32.checked_shl(endpoint.failures.get()).unwrap_or(MAX_TIMES).min(MAX_TIMES);
    endpoint.failures.set(endpoint.failures.get().saturating_add(1));
    // A time beyond the clock's range cannot be kept, so it ejects nothing.
    endpoint.ejected_until.set(now.checked_add(eject_time.saturating_mul(times)));
    endpoint.is_ejected(now)
}

/// A request was answered, or a connection made for bytes that nobody here reads.
pub fn succeeded(endpoint: &Endpoint) {
    endpoint.failures.set(0);
    endpoint.ejected_until.set(None);
}

/// 100 s at the default of 10 s: longer than a pod takes to restart, short enough to come back by itself.
const MAX_TIMES: u32 = 10;

#[cfg(test)]
mod tests {
    use super::*;

    const TIME: Duration = Duration::from_secs(10);

    fn endpoint() -> Endpoint {
        Endpoint::new(([127, 0, 0, 1], 1).into())
    }

    #[test]
    fn each_repeat_doubles_up_to_ten_times_and_a_success_forgives() {
        let endpoint = endpoint();
        let mut now = Instant::now();
        for times in [1, 2, 4, 8, 10, 10, 10] {
            assert!(failed(&endpoint, 2, TIME, now));
            assert!(endpoint.is_ejected(now + TIME * times - Duration::from_nanos(1)));
            now += TIME * times;
            assert!(!endpoint.is_ejected(now));
        }
        for _ in 0..100 {
            failed(&endpoint, 2, TIME, now);
            now += TIME * 10;
        }
        assert!(failed(&endpoint, 2, TIME, now));
        succeeded(&endpoint);
        assert!(!endpoint.is_ejected(now));
        assert!(failed(&endpoint, 2, TIME, now));
        assert!(!endpoint.is_ejected(now + TIME));
    }

    #[test]
    fn many_failures_at_once_are_one() {
        let endpoint = endpoint();
        let now = Instant::now();
        assert!(failed(&endpoint, 2, TIME, now));
        for _ in 0..50 {
            assert!(!failed(&endpoint, 2, TIME, now + TIME / 2));
        }
        assert!(!endpoint.is_ejected(now + TIME));
    }

    #[test]
    fn an_only_endpoint_is_never_ejected() {
        let endpoint = endpoint();
        let now = Instant::now();
        assert!(!failed(&endpoint, 1, TIME, now));
        assert!(!endpoint.is_ejected(now));
    }

    #[test]
    fn strange_times_do_no_harm() {
        let endpoint = endpoint();
        let now = Instant::now();
        assert!(!failed(&endpoint, 2, Duration::ZERO, now));
        assert!(!failed(&endpoint, 2, Duration::MAX, now));
    }
}
