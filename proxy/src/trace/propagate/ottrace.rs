//! OpenTracing's `ot-tracer-*`, as its basic tracers have it: ids of 64 bits. A longer trace is read, but never written.

use http::{HeaderMap, HeaderName, HeaderValue};
use spanmesh_proto::SpanId;

use super::ink::Ink;
use super::text::{self, Line, put_hex};
use super::{Decision, Found, Reading};
use crate::trace::context::TraceContext;

const TRACE_ID: HeaderName = HeaderName::from_static("ot-tracer-traceid");
const SPAN_ID: HeaderName = HeaderName::from_static("ot-tracer-spanid");
const SAMPLED: HeaderName = HeaderName::from_static("ot-tracer-sampled");
pub static NAMES: [HeaderName; 3] = [TRACE_ID, SPAN_ID, SAMPLED];

pub fn read(headers: &HeaderMap) -> Reading {
    let decision = match text::first(headers, SAMPLED) {
        None => Decision::Open,
        Some(text) if text == b"1" || text.eq_ignore_ascii_case(b"true") => Decision::Accept,
        Some(text) if text == b"0" || text.eq_ignore_ascii_case(b"false") => Decision::Deny,
        Some(_) => return Reading::Malformed,
    };
    let (trace, span) = match (text::line(headers, TRACE_ID), text::line(headers, SPAN_ID)) {
        (Line::None, Line::None) if decision == Decision::Open => return Reading::Absent,
        (Line::None, Line::None) => return Reading::Valid(Found::decided(decision)),
        (Line::One(trace), Line::One(span)) => (trace, span),
        _ => return Reading::Malformed,
    };
    let trace = text::hex(trace, 32).and_then(text::trace);
    let span = text::hex(span, 16).and_then(|number| text::span(number as u64));
    match (trace, span) {
        (Some(trace), Some(span)) => Reading::Valid(Found::new(trace, Some(span), decision)),
        _ => Reading::Malformed,
    }
}

pub fn write(headers: &mut HeaderMap, context: &TraceContext, span: SpanId, ink: &mut Ink) -> Option<()> {
    let low = text::low(context.trace)?;
    let trace = ink.value(16, |out| put_hex(out, &low.to_be_bytes()))?;
    let span = ink.value(16, |out| put_hex(out, &span.to_bytes()))?;
    headers.insert(TRACE_ID, trace);
    headers.insert(SPAN_ID, span);
    headers.insert(SAMPLED, HeaderValue::from_static(if context.sampled { "true" } else { "false" }));
    Some(())
}
