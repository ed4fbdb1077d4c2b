//! A failed attempt: what its failure means for the request, and whether the engine's error leaves room for another try.

use std::io::ErrorKind;

use crate::error::Flag;
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
    if let Some(h2) = find::<h2::Error>(error).filter(|h2| !h2.is_io()) {
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
                Missed { reason, ..Missed::new(Failure::Reset, broken(error)) }
            }
        };
    }
    if is_ambiguous(error) {
        return Missed::new(Failure::Reset, Flag::ProtocolError);
    }
    let closed = error.is_incomplete_message() || error.is_canceled() || error.is_closed() || io_error(error).is_some();
    if !written {
        return Missed::new(Failure::NotWritten, Flag::UpstreamClosed);
    }
    // The origin closed an idle connection while the request was on its way: a safe method may go out again.
    if closed && lease.reused && job.head.method.is_safe() {
        return Missed::new(Failure::NotWritten, Flag::UpstreamClosed);
    }
    Missed::new(Failure::Reset, if closed { broken(error) } else { Flag::ProtocolError })
}

/// How an origin broke off what it had begun, by the engine's error.
pub fn broken(error: &hyper::Error) -> Flag {
    match (io_error(error).map(std::io::Error::kind), find::<h2::Error>(error)) {
        (Some(ErrorKind::ConnectionReset), _) => Flag::UpstreamReset,
        // What the engine, or `framing`, says of framing that it cannot read.
        (Some(ErrorKind::InvalidData | ErrorKind::InvalidInput), _) => Flag::ProtocolError,
        (None, Some(h2)) if h2.is_library() => Flag::ProtocolError,
        (None, Some(_)) => Flag::UpstreamReset,
        (Some(_), _) | (None, None) => Flag::UpstreamClosed,
    }
}

fn io_error(error: &hyper::Error) -> Option<&std::io::Error> {
    find(error).or_else(|| find::<h2::Error>(error)?.get_io())
}

/// The head of the answer can be read in two ways.
fn is_ambiguous(error: &hyper::Error) -> bool {
    find::<std::io::Error>(error).is_some_and(|error| error.kind() == ErrorKind::InvalidData)
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
