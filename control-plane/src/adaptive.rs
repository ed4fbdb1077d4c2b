//! What adaptive rules and the mesh's rate limits come to at present. Proxies report how often each operation is called;
//! out come thresholds that are the same for all proxies, so it does not matter how many there are. Every operation has
//! the same share of its rule's budget at most, so a rare one is not starved by a busy one.
//! Pure: whoever owns a `Planner` feeds it reports, wakes it when it asks for it, and sends what has changed.
//! Thresholds fall at once and rise slowly; nothing rises while nobody reports, nor soon after the start.

use std::sync::Arc;
use std::time::Duration;

pub use budgets::Budgets;
pub use planner::Planner;

mod budgets;
mod fill;
mod operation;
mod operations;
mod planner;
#[cfg(test)]
mod properties;
mod rates;
mod rule;
#[cfg(test)]
mod simulation;
mod spans;
#[cfg(test)]
mod tests;
pub mod threshold;

/// A rule whose threshold is made here.
#[derive(Clone, Debug, PartialEq)]
pub struct Rule {
    /// `namespace/name` of the resource, and the rule's name in it, as proxies report them.
    pub policy: Arc<str>,
    pub rule: Arc<str>,
    /// `name.namespace` of the service whose budget it shares, if it belongs to one.
    pub service: Option<Arc<str>>,
    pub kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    Adaptive {
        spans_per_second: f64,
        /// Of each operation, also above the rule's budget, but not above the service's and the mesh's.
        min_traces_per_minute: f64,
        /// Whatever the budgets are.
        min_probability: f64,
    },
    /// Of the whole mesh. After a quiet time as many more as `burst`.
    RateLimit { traces_per_second: f64, burst: f64 },
}

/// What one proxy has counted in one window.
#[derive(Clone, Copy, Debug)]
pub struct Report<'a> {
    pub window: Duration,
    pub counts: &'a [Count<'a>],
    /// Sampled spans that it made.
    pub spans: u64,
    /// Requests that no rule decided; they are kept.
    pub unruled: u64,
}

/// Of any rule; those of others than are planned here tell how many traces there are.
#[derive(Clone, Copy, Debug)]
pub struct Count<'a> {
    pub policy: &'a str,
    pub rule: &'a str,
    pub operation: &'a str,
    pub seen: u64,
    pub kept: u64,
    /// The threshold that was pushed to the proxy, where one is in force. It may be told of what was not seen, too.
    pub held: Option<u64>,
}

/// Ordered as a list of them is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Threshold {
    pub policy: Arc<str>,
    pub rule: Arc<str>,
    /// Empty: of whatever is not named.
    pub operation: Arc<str>,
    pub threshold: u64,
}

/// What a burst may come to before the next thresholds: for the caps that proxies have of their own.
#[derive(Clone, Debug, PartialEq)]
pub struct Limit {
    pub policy: Arc<str>,
    pub rule: Arc<str>,
    /// Of all proxies together.
    pub traces_per_second: f64,
    /// That have decided by the rule lately.
    pub proxies: u32,
}

/// What was not taken of what came, since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Refused {
    /// Reports: without a window, or from more proxies than there is room for.
    pub reports: u64,
    /// Counts beyond those that one report may have, or that cannot be.
    pub counts: u64,
}

impl Limit {
    /// Nothing is sent for so small a difference.
    fn near(&self, other: &Self) -> bool {
        let near = |a: f64, b: f64| a <= b * NEAR && b <= a * NEAR;
        near(self.traces_per_second, other.traces_per_second) && near(f64::from(self.proxies), f64::from(other.proxies))
    }
}

const NEAR: f64 = 1.2;
