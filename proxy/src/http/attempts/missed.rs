//! A failed attempt: what its failure means for the request, and whether the engine's error leaves room for another try.

use crate::error::Flag;
use crate::http::body::is_reset;
use crate::http::client::{ConnectFailure, Lease};
use crate::rules::retry::Failure;

use super::{Answered, Job};

/// A failed attempt.
pub struct Missed {
    pub(super) failure: Failure,
    pub(super) flag: Flag,
    pub(super) reason: Option<h2::Reason>,
    /// An answer that the policy would rather not have; it is what the client gets if there is no other.
    pub(super) kept: Option<Box<Answered>>,
}

impl Missed {
    pub fn new(failure: Failure, flag: Flag) -> Self {
        Self { failure, flag, reason: None, kept: None }
    }
}

impl From<ConnectFailure> for Missed {
    fn from(failure: ConnectFailure) -> Self {
        tracing::debug!(flag = failure.flag.name(), "{}", failure.text);
        let kind = match failure.flag {
            Flag::ConnectTimeout => Failure::ConnectTimeout,
            _ => Failure::ConnectFailed,
        };
        Self::new(kind, failure.flag)
    }
}

/// What an error of the engine means for the request.
pub(super) fn classify(job: &Job<'_>, lease: &Lease, written: bool, error: &hyper::Error) -> Missed {
    tracing::debug!(%error, written, reused = lease.reused, "attempt failed");
    if let Some(flag) = job.exchange.request_failure() {
        return Missed::new(Failure::Reset, flag);
    }
    if let Some(h2) = h2_error(error) {
        return match h2.reason() {
            Some(reason @ h2::Reason::REFUSED_STREAM) if h2.is_remote() => {
                let reason = h2.is_reset().then_some(reason);
                Missed { reason, ..Missed::new(Failure::RefusedStream, Flag::UpstreamReset) }
            }
            // Only the peer's own GOAWAY says which streams it has not looked at; one of ours ends them all.
            _ if h2.is_go_away() && h2.is_remote() => Missed::new(Failure::GoAway, Flag::UpstreamReset),
            _ if !written => Missed::new(Failure::NotWritten, Flag::UpstreamClosed),
            reason => {
                let reason = if h2.is_reset() && h2.is_remote() { reason } else { None };
                Missed { reason, ..Missed::new(Failure::Reset, Flag::UpstreamReset) }
            }
        };
    }
    if is_ambiguous(error) {
        return Missed::new(Failure::Reset, Flag::ProtocolError);
    }
    let closed = error.is_incomplete_message() || error.is_canceled() || error.is_closed() || is_io(error);
    if !written {
        return Missed::new(Failure::NotWritten, Flag::UpstreamClosed);
    }
    // The origin closed an idle connection while the request was on its way: a safe method may go out again.
    if closed && lease.reused && job.head.method.is_safe() {
        return Missed::new(Failure::NotWritten, Flag::UpstreamClosed);
    }
    match (closed, is_reset(error)) {
        (_, true) => Missed::new(Failure::Reset, Flag::UpstreamReset),
        (true, false) => Missed::new(Failure::Reset, Flag::UpstreamClosed),
        (false, false) => Missed::new(Failure::Reset, Flag::ProtocolError),
    }
}

fn h2_error(error: &hyper::Error) -> Option<&h2::Error> {
    find(error)
}

fn is_io(error: &hyper::Error) -> bool {
    find::<std::io::Error>(error).is_some()
}

/// The head of the answer can be read in two ways.
fn is_ambiguous(error: &hyper::Error) -> bool {
    find::<std::io::Error>(error).is_some_and(|error| error.kind() == std::io::ErrorKind::InvalidData)
}

fn find<'a, E: std::error::Error + 'static>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a E> {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(found) = error.downcast_ref::<E>() {
            return Some(found);
        }
        cause = error.source();
    }
    None
}
