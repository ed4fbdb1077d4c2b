//! The trace that a request belongs to, as this hop understood it. Made once per request by `trust`, read by the
//! attempts and by the spans.

use rand::RngExt;
use spanmesh_proto::{SpanId, TraceId};

/// The trace of one request at this hop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceContext {
    pub trace: TraceId,
    /// The span that called us; `None` where the trace begins here.
    pub parent: Option<SpanId>,
    pub sampled: bool,
    /// The 56 low bits of the trace id are random (W3C level 2). Copied on, never added to a trace that others began.
    pub random: bool,
    /// Somebody who may do so has forced the trace; sampled, and no later rule says otherwise.
    pub debug: bool,
}

impl TraceContext {
    /// A trace that begins here. New traces are kept.
    pub fn root(rng: &mut impl RngExt) -> Self {
        Self { trace: random_trace(rng), parent: None, sampled: true, random: true, debug: false }
    }
}

/// A new span id. Zero is invalid and is drawn again.
pub fn random_span(rng: &mut impl RngExt) -> SpanId {
    loop {
        if let Some(span) = SpanId::from_bytes(rng.random()) {
            return span;
        }
    }
}

fn random_trace(rng: &mut impl RngExt) -> TraceId {
    loop {
        if let Some(trace) = TraceId::from_bytes(rng.random()) {
            return trace;
        }
    }
}
