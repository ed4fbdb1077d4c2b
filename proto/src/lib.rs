//! The words that Spanmesh's programs exchange. Parsed once, at the border, and typed from there on.

#![forbid(unsafe_code)]

pub mod ids;

pub use ids::{SpanId, TraceId};
