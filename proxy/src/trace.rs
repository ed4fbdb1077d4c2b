//! Tracing: what a request brings along, what the next hop gets, and the span of this hop.
//! The road only reads headers and fills a compact record; encoding and writing happen on another thread.

pub mod attributes;
pub mod clock;
pub mod context;
pub mod custom;
pub mod export;
pub mod in_flight;
pub mod manner;
pub mod names;
pub mod propagate;
pub mod redact;
pub mod sample;
pub mod sampler;
pub mod span;
pub mod trust;
