//! Brings the parcels of one destination to its receiver, one request at a time. `retry` decides what follows a failure;
//! here is who asks it, waits, counts every span once, and says once when a destination fails or works again.
//!
//! ```text
//!   source ──▶ send ──▶ taken ─────────────▶ exported, rejected
//!               ▲  └──▶ failed ─▶ again ─▶ pause ─┐
//!               │          ├────▶ halve ──────────┤
//!               └──────────┼──────────────────────┘
//!                          └────▶ drop ────▶ dropped, by reason, or to the disk when it was tried for too long
//! ```

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::time::{sleep_until, timeout};

use super::answer::Taken;
use super::grpc::Grpc;
use super::http::Http;
use super::ledger::Ledger;
use super::parcel::{Envelope, Parcel};
use super::retry::{self, Failure, Fate, Limits, Reason, Tries};
use super::source::{Done, Load, Origin, Source};

pub struct Sender {
    pub name: String,
    pub source: Source,
    pub envelope: Arc<Envelope>,
    pub receiver: Receiver,
    pub timeout: Duration,
    pub limits: Limits,
    pub ledger: Arc<Ledger>,
    pub end: End,
    pub health: Health,
}

pub enum Receiver {
    Http(Http),
    Grpc(Grpc),
}

/// When the proxy is to be gone, once that is known.
#[derive(Clone)]
pub struct End(pub watch::Receiver<Option<Instant>>);

impl Sender {
    /// To the end of the source.
    pub async fn run(mut self) {
        while let Some(load) = self.source.next(&mut self.end.clone()).await {
            let Load { parcel, from } = load;
            let (size, spans) = (parcel.size(), parcel.len());
            let envelope = match &from {
                Origin::Queue => self.envelope.clone(),
                Origin::Disk(_, envelope) => envelope.clone(),
            };
            let rest = match envelope.format() == self.envelope.format() {
                true => self.bring(parcel, &envelope).await,
                // Written before the configuration was changed.
                false => {
                    self.ledger.dropped(spans, Reason::SpillLost);
                    Vec::new()
                }
            };
            let done = Done { from, size, spans, rest };
            self.source.close(done, &envelope, &self.ledger, &self.end).await;
        }
    }

    /// Gives back what is still to be sent, if it should be.
    async fn bring(&mut self, parcel: Parcel, envelope: &Envelope) -> Vec<Parcel> {
        let mut end = self.end.clone();
        let first = Instant::now();
        let mut left = vec![(parcel, false)];
        let mut rest = Vec::new();
        while let Some((parcel, halved)) = left.pop() {
            let spans = parcel.len();
            let outcome = tokio::select! {
                biased;
                () = end.come() => {
                    rest.push(parcel);
                    continue;
                }
                outcome = self.receiver.send(&parcel, envelope, self.timeout) => outcome,
            };
            let failure = match outcome {
                Ok(Taken { rejected, message }) => {
                    self.health.works(&self.name);
                    self.health.rejects(&self.name, rejected, &message);
                    self.ledger.taken(spans, rejected);
                    continue;
                }
                Err(failure) => failure,
            };
            let failures = self.health.fails(&self.name, &failure, Instant::now());
            let tries = Tries { spans, spent: first.elapsed(), halved, failures };
            let (fate, pause) = retry::judge(&failure, tries, &self.limits, &mut rand::rng());
            match fate {
                Fate::Drop(Reason::Expired) if self.source.has_disk() => rest.push(parcel),
                Fate::Drop(reason) => self.ledger.dropped(spans, reason),
                Fate::Again => left.push((parcel, halved)),
                Fate::Halve => match parcel.halves() {
                    Some((one, two)) => left.extend([(two, true), (one, true)]),
                    None => self.ledger.dropped(spans, Reason::TooLarge),
                },
            }
            end.pause(pause).await;
        }
        rest
    }
}

impl Receiver {
    /// What is under way when the time is up is given up with its connection.
    async fn send(&mut self, parcel: &Parcel, envelope: &Envelope, limit: Duration) -> Result<Taken, Failure> {
        let outcome = match self {
            Receiver::Http(http) => timeout(limit, http.send(parcel, envelope)).await,
            Receiver::Grpc(grpc) => timeout(limit, grpc.send(parcel, envelope, limit)).await,
        };
        outcome.unwrap_or(Err(Failure::Silent))
    }
}

impl End {
    pub fn is_over(&self) -> bool {
        self.0.borrow().is_some_and(|at| Instant::now() >= at)
    }

    /// How long disks and files have for what is left, once the end is known.
    pub fn disks(&self) -> Option<Instant> {
        self.0.borrow().map(|at| at + DISKS)
    }

    /// The time is up.
    pub async fn come(&mut self) {
        match self.known().await {
            Some(at) => sleep_until(at.into()).await,
            None => std::future::pending().await,
        }
    }

    /// Waits; but when the end becomes known there is no time for more than one further try.
    async fn pause(&mut self, pause: Duration) {
        let until = Instant::now() + pause;
        let end = *self.0.borrow();
        match end {
            Some(end) => sleep_until(until.min(end).into()).await,
            None => tokio::select! {
                () = sleep_until(until.into()) => {}
                _ = self.known() => {}
            },
        }
    }

    async fn known(&mut self) -> Option<Instant> {
        // An error: nobody will ever tell.
        match self.0.wait_for(Option::is_some).await {
            Ok(at) => *at,
            Err(_) => std::future::pending().await,
        }
    }
}

/// Whether a destination takes spans, and what was said of it in the log: a line when it begins to fail and one when it
/// works again, however many requests fail in between. One that goes to and fro says so once a minute.
#[derive(Debug, Default)]
pub struct Health {
    failures: u32,
    said: bool,
    last: Option<Instant>,
    rejects: bool,
}

impl Health {
    fn works(&mut self, name: &str) {
        if std::mem::take(&mut self.said) {
            tracing::info!(destination = name, "spans are taken again after {} failed requests", self.failures);
        }
        self.failures = 0;
    }

    /// How many failures in a row there are now.
    fn fails(&mut self, name: &str, failure: &Failure, now: Instant) -> u32 {
        self.failures = self.failures.saturating_add(1);
        let is_due = self.last.is_none_or(|last| now.saturating_duration_since(last) >= QUIET);
        if !self.said && is_due {
            (self.said, self.last) = (true, Some(now));
            tracing::warn!(destination = name, "spans are not taken: {failure}");
        }
        self.failures
    }

    fn rejects(&mut self, name: &str, rejected: u64, message: &str) {
        if (rejected > 0 || !message.is_empty()) && !std::mem::replace(&mut self.rejects, true) {
            tracing::warn!(
                destination = name,
                "the receiver rejects {rejected} spans of a request and says `{message}`; this is said once, \
                 spanmesh_proxy_spans_rejected_total counts on"
            );
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Unreachable(text) => {
                write!(f, "{text}; is the receiver running, and does a NetworkPolicy allow the way to it?")
            }
            Failure::Lost(text) => write!(
                f,
                "the connection ended before the answer ({text}); is this the receiver's port for this protocol (4317 for \
                 gRPC, 4318 for HTTP), and does it speak TLS as the endpoint says?"
            ),
            Failure::Silent => f.write_str(
                "no answer in time; the receiver hangs or is overloaded, or a firewall swallows the packets",
            ),
            Failure::Garbled(text) => {
                write!(f, "the receiver {text}; is something else listening at this endpoint, such as a web server?")
            }
            Failure::Http { status, text, .. } => {
                write!(f, "the receiver answers {status} {text}")?;
                f.write_str(match status {
                    300..=399 => "; redirects are not followed: write the address where it leads",
                    401 | 403 => "; does the destination have the right `headers`?",
                    404 | 405 => {
                        "; is the path right? `/v1/traces` is added to `endpoint`, nothing to `tracesEndpoint`"
                    }
                    413 => "; lower delivery.bytes",
                    415 => "; try another `encoding` or no `compression`",
                    _ => "",
                })
            }
            Failure::Grpc { code, text, .. } => {
                write!(f, "the receiver answers with gRPC status {code}: {text}")?;
                f.write_str(match code {
                    8 => "; it is overloaded, or takes no request of this size: lower delivery.bytes",
                    12 => "; is there an OTLP receiver at this endpoint?",
                    7 | 16 => "; does the destination have the right `headers`?",
                    _ => "",
                })
            }
        }
    }
}

const QUIET: Duration = Duration::from_secs(60);
/// Beyond the deadline, for what is written only then.
const DISKS: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_destination_is_spoken_of_when_it_changes_and_not_more_than_once_a_minute() {
        let mut health = Health::default();
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut said = Vec::new();
        for (second, fails) in [(0, true), (1, true), (2, false), (3, true), (4, false), (61, true), (62, true)] {
            let before = health.said;
            if fails {
                health.fails("a", &Failure::Silent, at(second));
            } else {
                health.works("a");
            }
            if health.said != before {
                said.push((second, fails));
            }
        }
        assert_eq!(said, [(0, true), (2, false), (61, true)]);
        assert_eq!(health.failures, 2);
    }
}
