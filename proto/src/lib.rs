//! The words that Spanmesh's programs exchange: identifiers, parsed once at the border and typed from there on, and the
//! protocols. The protocols' Rust is generated from `spanmesh/v1/*.proto` and committed; `generate/` writes it.

#![forbid(unsafe_code)]

pub mod ids;

pub use ids::{SpanId, TraceId, hex_into};

/// Version 1 of the protocols.
pub mod v1 {
    #![allow(clippy::all, clippy::pedantic, missing_docs)]
    include!("generated/spanmesh.v1.rs");
}
