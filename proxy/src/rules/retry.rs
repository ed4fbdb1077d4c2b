//! Whether a failed attempt may be followed by another, and when.
//!
//! Two things are asked in this order: is it *safe* (nothing is done twice that must be done once), and is it *wanted*
//! (the route's policy, its budget, the time that is left). Called only while no byte of an answer has gone to the
//! client; after that there is nothing to repeat.

use std::rc::Rc;
use std::time::Duration;

use http::Method;
use rand::{Rng, RngExt};
use tokio::time::Instant;

pub use super::budget::{Budget, Requesting, Retrying};

/// What a route wants repeated.
#[derive(Clone, Debug)]
pub struct Policy {
    /// Retries after the first try.
    pub attempts: u32,
    pub on: Vec<On>,
    pub attempt_timeout: Option<Duration>,
    /// The longest first wait; it doubles with each retry up to `backoff_max`. The wait itself is random below it.
    pub backoff: Duration,
    pub backoff_max: Duration,
    /// A longer body is not kept, and so cannot be sent again.
    pub body_limit: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum On {
    ConnectFailure,
    Reset,
    RefusedStream,
    Timeout,
    Status(u16),
}

/// How an attempt ended, as far as a retry cares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    ConnectFailed,
    ConnectTimeout,
    /// A connection from the pool died before any byte of the request was written.
    NotWritten,
    /// The stream is beyond the last one a GOAWAY names: the peer has not looked at it (RFC 9113 §6.8).
    GoAway,
    /// REFUSED_STREAM: the peer has not looked at it (RFC 9113 §8.7).
    RefusedStream,
    /// The connection or the stream broke after bytes were written.
    Reset,
    AttemptTimeout,
    Status(u16),
}

/// What the request has behind it.
#[derive(Clone, Copy, Debug)]
pub struct Progress<'a> {
    pub method: &'a Method,
    /// Retries of the policy so far: 0 after the first attempt. A [`Decision::Resend`] does not count.
    pub retries: u32,
    /// Whether the resends have been used.
    pub resent: bool,
    /// Whether the body can be sent again from its beginning: empty, kept, or not yet read.
    pub body_replayable: bool,
    /// The end of the request's time.
    pub deadline: Option<Instant>,
}

#[derive(Debug)]
pub enum Decision {
    /// At once, on a fresh connection, without a policy and a stated number of times: the peer never saw the request, so this
    /// only mends a race of ours with its closing.
    Resend,
    /// Hold the guard until that attempt has ended.
    Retry {
        after: Duration,
        hold: Retrying,
    },
    Stop(Stop),
}

/// Why there is no further attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// The peer may have acted on it, and the method is not idempotent.
    NotSafe,
    BodyGone,
    NoPolicy,
    /// The policy does not name this failure.
    NotNamed,
    AttemptsUsed,
    TooLittleTime,
    OverBudget,
}

pub fn decide(
    policy: Option<&Policy>,
    failure: Failure,
    progress: &Progress<'_>,
    budget: &Rc<Budget>,
    now: Instant,
    rng: &mut impl Rng,
) -> Decision {
    if failure.may_have_been_seen() && !is_idempotent(progress.method) {
        return Decision::Stop(Stop::NotSafe);
    }
    if !progress.body_replayable {
        return Decision::Stop(Stop::BodyGone);
    }
    if matches!(failure, Failure::NotWritten | Failure::GoAway) && !progress.resent {
        return Decision::Resend;
    }
    let Some(policy) = policy else { return Decision::Stop(Stop::NoPolicy) };
    if !policy.on.iter().any(|on| failure.is_named_by(*on)) {
        return Decision::Stop(Stop::NotNamed);
    }
    if progress.retries >= policy.attempts {
        return Decision::Stop(Stop::AttemptsUsed);
    }
    let after = policy.wait(progress.retries, rng);
    if progress.deadline.is_some_and(|deadline| deadline.saturating_duration_since(now) <= after) {
        return Decision::Stop(Stop::TooLittleTime);
    }
    match budget.retry() {
        Some(hold) => Decision::Retry { after, hold },
        None => Decision::Stop(Stop::OverBudget),
    }
}

impl Policy {
    /// Full jitter: anything from nothing to the doubled back-off, so that those who failed together do not return
    /// together.
    fn wait(&self, retries: u32, rng: &mut impl Rng) -> Duration {
        let doubled = self.backoff.saturating_mul(1_u32.checked_shl(retries).unwrap_or(u32::MAX));
        doubled.min(self.backoff_max).mul_f64(rng.random_range(0.0..1.0))
    }
}

impl Failure {
    /// Whether the peer may have begun to act on the request.
    fn may_have_been_seen(self) -> bool {
        match self {
            Failure::Reset | Failure::AttemptTimeout | Failure::Status(_) => true,
            Failure::ConnectFailed
            | Failure::ConnectTimeout
            | Failure::NotWritten
            | Failure::GoAway
            | Failure::RefusedStream => false,
        }
    }

    /// A connection that died unwritten may be called a failed connect or a reset: both conditions name it. So do both
    /// of theirs name an attempt whose time ran out while it was connecting.
    fn is_named_by(self, on: On) -> bool {
        match self {
            Failure::ConnectFailed => on == On::ConnectFailure,
            Failure::ConnectTimeout => matches!(on, On::ConnectFailure | On::Timeout),
            Failure::NotWritten => matches!(on, On::ConnectFailure | On::Reset),
            Failure::GoAway | Failure::RefusedStream => on == On::RefusedStream,
            Failure::Reset => on == On::Reset,
            Failure::AttemptTimeout => on == On::Timeout,
            Failure::Status(status) => on == On::Status(status),
        }
    }
}

/// RFC 9110 §9.2.2. A method that we do not know is not.
fn is_idempotent(method: &Method) -> bool {
    [Method::GET, Method::HEAD, Method::OPTIONS, Method::TRACE, Method::PUT, Method::DELETE].contains(method)
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::*;

    const FAILURES: [Failure; 9] = [
        Failure::ConnectFailed,
        Failure::ConnectTimeout,
        Failure::NotWritten,
        Failure::GoAway,
        Failure::RefusedStream,
        Failure::Reset,
        Failure::AttemptTimeout,
        Failure::Status(503),
        Failure::Status(500),
    ];
    const METHODS: [&str; 10] =
        ["GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE", "POST", "PATCH", "CONNECT", "PURGE"];

    fn policy() -> Policy {
        Policy {
            attempts: 2,
            on: vec![On::ConnectFailure, On::Reset, On::RefusedStream, On::Timeout, On::Status(503)],
            attempt_timeout: None,
            backoff: Duration::from_millis(25),
            backoff_max: Duration::from_millis(250),
            body_limit: 65536,
        }
    }

    fn fresh(method: &Method) -> Progress<'_> {
        Progress { method, retries: 0, resent: false, body_replayable: true, deadline: None }
    }

    fn ask(policy: Option<&Policy>, failure: Failure, progress: &Progress<'_>) -> Decision {
        let mut rng = StdRng::seed_from_u64(1);
        decide(policy, failure, progress, &Rc::new(Budget::default()), Instant::now(), &mut rng)
    }

    fn stop(decision: &Decision) -> Option<Stop> {
        match decision {
            Decision::Stop(stop) => Some(*stop),
            Decision::Resend | Decision::Retry { .. } => None,
        }
    }

    #[test]
    fn what_may_have_been_seen_is_repeated_only_if_idempotent() {
        let now = Instant::now();
        let mut rng = StdRng::seed_from_u64(2);
        for (failure, name) in FAILURES.iter().flat_map(|failure| METHODS.map(|name| (*failure, name))) {
            let method: Method = name.parse().unwrap();
            let seen = matches!(failure, Failure::Reset | Failure::AttemptTimeout | Failure::Status(_));
            let idempotent = METHODS.iter().position(|m| *m == name).unwrap() < 6;
            for state in 0..256_u32 {
                let bit = |n: u32| state >> n & 1 == 1;
                let progress = Progress {
                    method: &method,
                    retries: state & 3,
                    resent: bit(2),
                    body_replayable: bit(3),
                    deadline: bit(4).then(|| now + Duration::from_secs(u64::from(bit(5)))),
                };
                let budget = Rc::new(Budget::default());
                let taken: Vec<_> = (0..if bit(6) { 3 } else { 0 }).map(|_| budget.retry().unwrap()).collect();
                let policy = bit(7).then(policy);
                let decision = decide(policy.as_ref(), failure, &progress, &budget, now, &mut rng);
                let again = stop(&decision).is_none();
                if seen && !idempotent {
                    assert!(!again, "{failure:?} {name} {progress:?}");
                }
                if again {
                    assert!(progress.body_replayable);
                }
                match decision {
                    Decision::Retry { after, .. } => {
                        let policy = policy.as_ref().unwrap();
                        assert!(progress.retries < policy.attempts && taken.is_empty());
                        assert!(after <= policy.backoff_max);
                        assert!(progress.deadline.is_none_or(|deadline| now + after < deadline));
                    }
                    Decision::Resend => {
                        assert!(!progress.resent && matches!(failure, Failure::NotWritten | Failure::GoAway));
                        assert_eq!(budget.retries() as usize, taken.len(), "a resend is not a retry");
                    }
                    Decision::Stop(_) => assert_eq!(budget.retries() as usize, taken.len()),
                }
            }
        }
    }

    #[test]
    fn a_policy_names_its_failures() {
        for (failure, named_by) in [
            (Failure::ConnectFailed, vec![On::ConnectFailure]),
            (Failure::ConnectTimeout, vec![On::ConnectFailure, On::Timeout]),
            (Failure::NotWritten, vec![On::ConnectFailure, On::Reset]),
            (Failure::GoAway, vec![On::RefusedStream]),
            (Failure::RefusedStream, vec![On::RefusedStream]),
            (Failure::Reset, vec![On::Reset]),
            (Failure::AttemptTimeout, vec![On::Timeout]),
            (Failure::Status(503), vec![On::Status(503)]),
            (Failure::Status(500), vec![]),
        ] {
            for on in policy().on {
                let policy = Policy { on: vec![on], ..policy() };
                let progress = Progress { resent: true, ..fresh(&Method::GET) };
                let expected = if named_by.contains(&on) { None } else { Some(Stop::NotNamed) };
                assert_eq!(stop(&ask(Some(&policy), failure, &progress)), expected, "{failure:?} {on:?}");
            }
        }
    }

    #[test]
    fn what_was_never_seen_goes_out_again_once_without_a_policy() {
        for failure in [Failure::NotWritten, Failure::GoAway] {
            let post = fresh(&Method::POST);
            assert!(matches!(ask(None, failure, &post), Decision::Resend));
            let again = Progress { resent: true, ..post };
            assert_eq!(stop(&ask(None, failure, &again)), Some(Stop::NoPolicy));
            assert_eq!(stop(&ask(None, failure, &Progress { body_replayable: false, ..post })), Some(Stop::BodyGone));
            assert!(matches!(ask(Some(&policy()), failure, &again), Decision::Retry { .. }));
        }
        assert_eq!(stop(&ask(None, Failure::RefusedStream, &fresh(&Method::GET))), Some(Stop::NoPolicy));
    }

    #[test]
    fn reasons_to_stop() {
        let get = fresh(&Method::GET);
        let policy = policy();
        let cases = [
            (Failure::Reset, fresh(&Method::POST), Stop::NotSafe),
            (Failure::Status(503), fresh(&Method::PATCH), Stop::NotSafe),
            (Failure::ConnectFailed, Progress { body_replayable: false, ..get }, Stop::BodyGone),
            (Failure::Status(500), get, Stop::NotNamed),
            (Failure::Reset, Progress { retries: 2, ..get }, Stop::AttemptsUsed),
            (Failure::Reset, Progress { deadline: Some(Instant::now()), ..get }, Stop::TooLittleTime),
        ];
        for (failure, progress, expected) in cases {
            assert_eq!(stop(&ask(Some(&policy), failure, &progress)), Some(expected), "{failure:?}");
        }
        assert_eq!(stop(&ask(None, Failure::Reset, &get)), Some(Stop::NoPolicy));
    }

    #[test]
    fn waits_are_spread_below_the_doubled_backoff() {
        let mut rng = StdRng::seed_from_u64(3);
        let policy = policy();
        for (retries, top) in [(0, 25), (1, 50), (2, 100), (3, 200), (4, 250), (31, 250), (32, 250), (u32::MAX, 250)] {
            let top = Duration::from_millis(top);
            let waits: Vec<Duration> = (0..2_000).map(|_| policy.wait(retries, &mut rng)).collect();
            assert!(waits.iter().all(|wait| *wait <= top));
            assert!(waits.iter().any(|wait| *wait < top / 10) && waits.iter().any(|wait| *wait > top * 9 / 10));
        }
        let strange = Policy { backoff: Duration::MAX, backoff_max: Duration::MAX, ..policy };
        strange.wait(9, &mut rng);
    }

    #[test]
    fn a_full_budget_stops_and_an_ended_retry_makes_room() {
        let mut rng = StdRng::seed_from_u64(5);
        let (budget, policy) = (Rc::new(Budget::default()), policy());
        let mut once =
            || decide(Some(&policy), Failure::Reset, &fresh(&Method::GET), &budget, Instant::now(), &mut rng);
        let mut held: Vec<Decision> = (0..3).map(|_| once()).collect();
        assert!(held.iter().all(|decision| matches!(decision, Decision::Retry { .. })));
        assert_eq!(stop(&once()), Some(Stop::OverBudget));
        held.pop();
        assert!(matches!(once(), Decision::Retry { .. }));
    }
}
