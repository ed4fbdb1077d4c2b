//! How long an attempt may take.

use std::pin::Pin;

use tokio::time::Instant;

use super::Job;
use super::missed::Missed;
use crate::error::Flag;
use crate::exchange::Exchange;
use crate::rules::retry::Failure;

/// The time that an attempt has: the request's deadline or the policy's own limit, and in any case the idle timeout
/// while no byte moves.
pub(super) struct Limit<'a> {
    exchange: &'a Exchange,
    due: Option<(Instant, Flag)>,
}

impl<'a> Limit<'a> {
    pub(super) fn new(job: &'a Job<'_>, now: Instant) -> Self {
        let own = job.policy.and_then(|policy| policy.attempt_timeout).map(|timeout| now + timeout);
        let due = match (own, job.exchange.deadline()) {
            (Some(own), deadline) if deadline.is_none_or(|deadline| own < deadline) => {
                Some((own, Flag::AttemptTimeout))
            }
            (_, deadline) => deadline.map(|deadline| (deadline, Flag::RequestTimeout)),
        };
        Self { exchange: job.exchange, due }
    }

    /// The future is borrowed: held by value, its size would count twice.
    pub(super) async fn keep<F: Future>(&self, mut future: Pin<&mut F>) -> Result<F::Output, Missed> {
        loop {
            let moved = self.exchange.moved();
            let idle = Instant::now() + self.exchange.idle_timeout();
            let limit = self.due.filter(|(due, _)| *due <= idle);
            let due = limit.map_or(idle, |(due, _)| due);
            match tokio::time::timeout_at(due, future.as_mut()).await {
                Ok(value) => return Ok(value),
                // A long body is on its way: it does not lie still.
                Err(_) if limit.is_none() && self.exchange.moved() != moved => {}
                Err(_) => {
                    // Whose silence it is when nothing moves: the client's, while it still has something to send.
                    let still = if self.exchange.is_uploaded() { Flag::RequestTimeout } else { Flag::IdleTimeout };
                    let flag = limit.map_or(still, |(_, flag)| flag);
                    return Err(Missed::new(Failure::AttemptTimeout, flag));
                }
            }
        }
    }
}
