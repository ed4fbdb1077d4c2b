//! What follows a request that a receiver did not take: whether the spans are sent again, cut in two or dropped, and how
//! long the destination is left alone. Pure: the sender asks, waits and counts. The rules are those of the OTLP
//! specification ("OTLP/gRPC Response", "OTLP/HTTP Response").

use std::time::{Duration, SystemTime};

use rand::{Rng, RngExt};

/// How a request failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// There is no connection: nothing was sent.
    Unreachable(String),
    /// The connection ended before the answer did.
    Lost(String),
    /// No answer in time.
    Silent,
    Http {
        status: u16,
        /// What `Retry-After` says.
        wait: Option<Duration>,
        text: String,
    },
    Grpc {
        code: i32,
        /// What `google.rpc.RetryInfo` says.
        wait: Option<Duration>,
        text: String,
    },
    /// It says yes, in words that are not OTLP's.
    Garbled(String),
}

/// What becomes of the spans.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    Again,
    Halve,
    Drop(Reason),
}

/// Why spans are dropped on the way to one destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The queue was full, and they were the oldest.
    QueueFull,
    /// The receiver takes no request of this size.
    TooLarge,
    /// An answer after which the specification forbids another try.
    Refused,
    Redirected,
    Garbled,
    /// Tried for too long.
    Expired,
    /// The proxy ended.
    Ended,
    /// The disk held as much as it may, and they were the oldest on it.
    SpillFull,
    /// The disk did not take them.
    SpillFailed,
    /// What the disk gave back was not what had been written.
    SpillLost,
    /// A file or stream could not be written.
    WriteFailed,
    /// There was no destination yet, or none any more.
    Nowhere,
}

/// What is known of the spans and of the destination.
#[derive(Clone, Copy, Debug)]
pub struct Tries {
    pub spans: usize,
    /// Since the first try.
    pub spent: Duration,
    /// They are half of a larger request already.
    pub halved: bool,
    /// Failures of the destination in a row, this one included.
    pub failures: u32,
}

#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub backoff: Duration,
    pub backoff_max: Duration,
    pub give_up: Duration,
}

/// What becomes of the spans, and how long the destination is left alone.
pub fn judge(failure: &Failure, tries: Tries, limits: &Limits, rng: &mut impl Rng) -> (Fate, Duration) {
    let (may_again, asked) = match failure {
        Failure::Unreachable(_) | Failure::Lost(_) | Failure::Silent => (true, None),
        Failure::Http { status: 429 | 502 | 503 | 504, wait, .. } => (true, *wait),
        Failure::Http { .. } | Failure::Garbled(_) => (false, None),
        Failure::Grpc { code: RESOURCE_EXHAUSTED, wait, .. } => (wait.is_some(), *wait),
        Failure::Grpc { code, wait, .. } => (RETRYABLE.contains(code), *wait),
    };
    if !may_again {
        return (final_fate(failure, tries), Duration::ZERO);
    }
    let fate = if tries.spent > limits.give_up { Fate::Drop(Reason::Expired) } else { Fate::Again };
    let pause = match asked {
        Some(asked) => asked.clamp(limits.backoff.min(SHORTEST), LONGEST),
        None => backoff(tries.failures, limits, rng),
    };
    (fate, pause)
}

fn final_fate(failure: &Failure, tries: Tries) -> Fate {
    match failure {
        Failure::Grpc { code: RESOURCE_EXHAUSTED, .. } if tries.spans > 1 && !tries.halved => Fate::Halve,
        Failure::Grpc { code: RESOURCE_EXHAUSTED, .. } | Failure::Http { status: 413, .. } => {
            Fate::Drop(Reason::TooLarge)
        }
        Failure::Http { status: 300..=399, .. } => Fate::Drop(Reason::Redirected),
        Failure::Garbled(_) => Fate::Drop(Reason::Garbled),
        Failure::Http { .. } | Failure::Grpc { .. } | Failure::Unreachable(_) | Failure::Lost(_) | Failure::Silent => {
            Fate::Drop(Reason::Refused)
        }
    }
}

/// Between half of it and the whole, so that proxies that failed together do not return together.
fn backoff(failures: u32, limits: &Limits, rng: &mut impl Rng) -> Duration {
    let doubled = limits.backoff.saturating_mul(1 << failures.saturating_sub(1).min(20));
    doubled.min(limits.backoff_max).mul_f64(rng.random_range(0.5..=1.0))
}

/// `Retry-After`: seconds, or a date.
pub fn retry_after(value: &str, now: SystemTime) -> Option<Duration> {
    let value = value.trim();
    if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) {
        // More digits than fit are a very long time.
        return Some(value.parse().map_or(LONGEST, Duration::from_secs).min(LONGEST));
    }
    let date = httpdate::parse_http_date(value).ok()?;
    Some(date.duration_since(now).unwrap_or_default().min(LONGEST))
}

/// When a connection is to be made anew, so that not all proxies hang on one of several receivers.
pub fn lifetime(least: Duration, rng: &mut impl Rng) -> Duration {
    least.mul_f64(rng.random_range(1.0..=2.0))
}

impl Reason {
    pub const ALL: [Reason; 11] = [
        Reason::QueueFull,
        Reason::TooLarge,
        Reason::Refused,
        Reason::Redirected,
        Reason::Garbled,
        Reason::Expired,
        Reason::Ended,
        Reason::SpillFull,
        Reason::SpillFailed,
        Reason::SpillLost,
        Reason::WriteFailed,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Reason::QueueFull => "queue_full",
            Reason::TooLarge => "too_large",
            Reason::Refused => "refused",
            Reason::Redirected => "redirected",
            Reason::Garbled => "bad_answer",
            Reason::Expired => "expired",
            Reason::Ended => "ended",
            Reason::SpillFull => "spill_full",
            Reason::SpillFailed => "spill_failed",
            Reason::SpillLost => "spill_lost",
            Reason::WriteFailed => "write_failed",
            Reason::Nowhere => "no_destination",
        }
    }
}

const RESOURCE_EXHAUSTED: i32 = 8;
/// CANCELLED, DEADLINE_EXCEEDED, ABORTED, OUT_OF_RANGE, UNAVAILABLE and DATA_LOSS.
const RETRYABLE: [i32; 6] = [1, 4, 10, 11, 14, 15];
/// A receiver that says "at once" each time is not asked a thousand times a second.
const SHORTEST: Duration = Duration::from_millis(100);
/// A receiver that asks for more than this is asked again all the same: an hour's spans are not kept anyway.
const LONGEST: Duration = Duration::from_secs(3600);

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::*;

    const LIMITS: Limits = Limits {
        backoff: Duration::from_secs(1),
        backoff_max: Duration::from_secs(30),
        give_up: Duration::from_secs(300),
    };
    const FIRST: Tries = Tries { spans: 10, spent: Duration::ZERO, halved: false, failures: 1 };

    fn judged(failure: Failure, tries: Tries) -> (Fate, Duration) {
        judge(&failure, tries, &LIMITS, &mut StdRng::seed_from_u64(7))
    }

    fn http(status: u16, wait: Option<u64>) -> Failure {
        Failure::Http { status, wait: wait.map(Duration::from_secs), text: String::new() }
    }

    fn grpc(code: i32, wait: Option<u64>) -> Failure {
        Failure::Grpc { code, wait: wait.map(Duration::from_secs), text: String::new() }
    }

    #[test]
    fn only_what_the_specification_names_is_sent_again() {
        for status in 300..600 {
            let again = matches!(status, 429 | 502 | 503 | 504);
            assert_eq!(judged(http(status, None), FIRST).0 == Fate::Again, again, "{status}");
        }
        for code in 1..=17 {
            let again = matches!(code, 1 | 4 | 10 | 11 | 14 | 15);
            assert_eq!(judged(grpc(code, None), FIRST).0 == Fate::Again, again, "{code}");
        }
        assert_eq!(judged(grpc(8, Some(3)), FIRST), (Fate::Again, Duration::from_secs(3)));
        for failure in [Failure::Silent, Failure::Lost(String::new()), Failure::Unreachable(String::new())] {
            assert_eq!(judged(failure, FIRST).0, Fate::Again);
        }
        assert_eq!(judged(Failure::Garbled(String::new()), FIRST), (Fate::Drop(Reason::Garbled), Duration::ZERO));
        assert_eq!(judged(http(307, None), FIRST).0, Fate::Drop(Reason::Redirected));
        assert_eq!(judged(http(413, None), FIRST).0, Fate::Drop(Reason::TooLarge));
        assert_eq!(judged(http(401, Some(1)), FIRST), (Fate::Drop(Reason::Refused), Duration::ZERO));
    }

    #[test]
    fn too_large_a_request_is_halved_once() {
        assert_eq!(judged(grpc(8, None), FIRST), (Fate::Halve, Duration::ZERO));
        assert_eq!(judged(grpc(8, None), Tries { halved: true, ..FIRST }).0, Fate::Drop(Reason::TooLarge));
        assert_eq!(judged(grpc(8, None), Tries { spans: 1, ..FIRST }).0, Fate::Drop(Reason::TooLarge));
    }

    #[test]
    fn pauses_double_up_to_a_bound_and_differ() {
        let mut rng = StdRng::seed_from_u64(1);
        for (failures, whole) in [(1, 1), (2, 2), (3, 4), (5, 16), (6, 30), (60, 30), (u32::MAX, 30)] {
            let tries = Tries { failures, ..FIRST };
            let pauses: Vec<_> =
                (0..100).map(|_| judge(&Failure::Silent, tries, &LIMITS, &mut rng).1.as_secs_f64()).collect();
            let whole = f64::from(whole);
            assert!(pauses.iter().all(|pause| (whole / 2.0..=whole).contains(pause)), "{failures}: {pauses:?}");
            assert!(pauses.iter().any(|pause| *pause != pauses[0]));
        }
        assert_eq!(judged(http(503, Some(90)), FIRST).1, Duration::from_secs(90), "what the receiver asks for");
        assert_eq!(judged(grpc(14, Some(u64::MAX)), FIRST).1, LONGEST);
        assert_eq!(judged(grpc(14, Some(0)), FIRST).1, SHORTEST);
    }

    #[test]
    fn what_was_tried_for_too_long_is_dropped_and_the_destination_left_alone_all_the_same() {
        let late = Tries { spent: Duration::from_secs(301), failures: 9, ..FIRST };
        let (fate, pause) = judged(Failure::Silent, late);
        assert_eq!(fate, Fate::Drop(Reason::Expired));
        assert!(pause >= Duration::from_secs(15));
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now = httpdate::parse_http_date("Sun, 06 Nov 1994 08:49:37 GMT").unwrap();
        for (value, seconds) in [
            ("0", Some(0)),
            (" 120 ", Some(120)),
            ("Sun, 06 Nov 1994 08:50:07 GMT", Some(30)),
            ("Sun, 06 Nov 1994 08:00:00 GMT", Some(0)),
            ("99999999999999999999999", Some(3600)),
            ("-1", None),
            ("1.5", None),
            ("soon", None),
            ("", None),
        ] {
            assert_eq!(retry_after(value, now), seconds.map(Duration::from_secs), "{value:?}");
        }
    }

    #[test]
    fn a_connection_lives_five_to_ten_minutes() {
        let mut rng = StdRng::seed_from_u64(3);
        let lives: Vec<_> = (0..100).map(|_| lifetime(Duration::from_secs(300), &mut rng).as_secs()).collect();
        assert!(lives.iter().all(|life| (300..=600).contains(life)) && lives.iter().any(|life| *life != lives[0]));
    }
}
