//! Which rule decides on a trace, and with which threshold. A `Plan` is what is to be decided by, plain, from the file or
//! from the control plane; compiled once, off the road, it is an `Engine`, which a request asks without a lock and
//! without allocating. `trace/sample` makes the decision of what the engine says; `trace/sampler` keeps the numbers.

pub mod plan;
pub mod threshold;

pub use plan::{Action, Capture, Chain, Id, Keep, Plan, Pushed, Rule};
pub use threshold::Threshold;
