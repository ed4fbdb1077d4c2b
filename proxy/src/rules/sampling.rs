//! Which rule decides on a trace, and with which threshold. A `Plan` is what is to be decided by, plain, from the file or
//! from the control plane; compiled once, off the road, it is an `Engine`, which a request asks without a lock and
//! without allocating. `trace/sample` makes the decision of what the engine says; `trace/sampler` keeps the numbers.

mod ask;
mod bucket;
#[cfg(test)]
mod bursts;
pub mod cap;
mod engine;
pub mod explain;
mod index;
mod keep;
pub mod plan;
pub mod rate;
mod steward;
mod tally;
#[cfg(test)]
mod tests;
pub mod threshold;

pub use ask::{Request, Service};
pub use engine::{Captured, Choice, Engine, Lasting, Refused};
pub use keep::{Ended, Kept, Trigger};
pub use plan::{Action, Capture, Chain, Id, Keep, Limit, Plan, Pushed, Rule};
pub use steward::{Counts, RuleCount, Steward};
pub use tally::{Seat, Tally};
pub use threshold::Threshold;
