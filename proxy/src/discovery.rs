//! How the proxy learns its policy from a control plane, and goes on with the last good one when that is away.
//!
//! `client` speaks the protocol, `held` knows what was pushed and what of it is good, `read` turns it into what the road
//! decides by, `store` keeps it on disk. All of it belongs to the background; workers are sent what comes out.

pub mod client;
pub mod held;
mod read;
mod store;
#[cfg(test)]
mod tests;

pub use read::{Snapshot, plan};
