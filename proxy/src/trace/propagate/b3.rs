//! B3 of Zipkin, in one header (`b3`) and in several (`x-b3-*`). A decision may come alone, without ids. The parent's
//! own parent is not read and not written: it says nothing that the span does not say itself.

use bytes::BytesMut;
use http::{HeaderMap, HeaderName, HeaderValue};
use spanmesh_proto::{SpanId, TraceId};

use super::ink::Ink;
use super::text::{self, Line, put_hex};
use super::{Decision, Found, Reading};
use crate::trace::context::TraceContext;

pub const B3: HeaderName = HeaderName::from_static("b3");
pub static NAMES: [HeaderName; 1] = [B3];

const TRACE_ID: HeaderName = HeaderName::from_static("x-b3-traceid");
const SPAN_ID: HeaderName = HeaderName::from_static("x-b3-spanid");
const PARENT_SPAN_ID: HeaderName = HeaderName::from_static("x-b3-parentspanid");
const SAMPLED: HeaderName = HeaderName::from_static("x-b3-sampled");
const FLAGS: HeaderName = HeaderName::from_static("x-b3-flags");
pub static MULTI: [HeaderName; 5] = [TRACE_ID, SPAN_ID, PARENT_SPAN_ID, SAMPLED, FLAGS];

pub fn read(headers: &HeaderMap) -> Reading {
    match text::line(headers, B3) {
        Line::None => Reading::Absent,
        Line::One(text) => parse(text).map_or(Reading::Malformed, Reading::Valid),
        Line::Several => Reading::Malformed,
    }
}

/// `{trace}-{span}[-{decision}[-{parent}]]`, or a decision alone.
pub fn parse(text: &[u8]) -> Option<Found> {
    let mut parts = text.split(|byte| *byte == b'-');
    let trace = parts.next()?;
    let Some(span) = parts.next() else { return decision(trace).map(Found::decided) };
    let decision = match parts.next() {
        Some(text) => decision(text)?,
        None => Decision::Open,
    };
    match (parts.next(), parts.next()) {
        (None, _) => {}
        (Some(parent), None) => drop(self::span(parent)?),
        (Some(_), Some(_)) => return None,
    }
    Some(Found::new(self::trace(trace)?, Some(self::span(span)?), decision))
}

/// The first value holds for the decision; ids that are said twice must be the same.
pub fn read_multi(headers: &HeaderMap) -> Reading {
    let debug = text::first(headers, FLAGS) == Some(b"1");
    let sampled = match text::first(headers, SAMPLED) {
        None => Some(Decision::Open),
        Some(text) if text.eq_ignore_ascii_case(b"true") => Some(Decision::Accept),
        Some(text) if text.eq_ignore_ascii_case(b"false") => Some(Decision::Deny),
        Some(text) => decision(text),
    };
    let decision = match sampled {
        _ if debug => Decision::Debug,
        Some(decision) => decision,
        None => return Reading::Malformed,
    };
    match (text::line(headers, TRACE_ID), text::line(headers, SPAN_ID)) {
        (Line::None, Line::None) if decision == Decision::Open => Reading::Absent,
        (Line::None, Line::None) => Reading::Valid(Found::decided(decision)),
        (Line::One(trace), Line::One(span)) => match (self::trace(trace), self::span(span)) {
            (Some(trace), Some(span)) => Reading::Valid(Found::new(trace, Some(span), decision)),
            _ => Reading::Malformed,
        },
        _ => Reading::Malformed,
    }
}

pub fn write(headers: &mut HeaderMap, context: &TraceContext, span: SpanId, ink: &mut Ink) -> Option<()> {
    let value = ink.value(32 + 1 + 16 + 2, |out| {
        put_hex(out, &context.trace.to_bytes());
        out.extend_from_slice(b"-");
        put_hex(out, &span.to_bytes());
        out.extend_from_slice(match (context.debug, context.sampled) {
            (true, _) => b"-d",
            (_, true) => b"-1",
            (_, false) => b"-0",
        });
    })?;
    headers.insert(B3, value);
    Some(())
}

/// Debug implies that it is accepted, which is then not said as well.
pub fn write_multi(headers: &mut HeaderMap, context: &TraceContext, span: SpanId, ink: &mut Ink) -> Option<()> {
    let put = |bytes: &[u8], ink: &mut Ink| ink.value(32, |out: &mut BytesMut| put_hex(out, bytes));
    let trace = put(&context.trace.to_bytes(), ink)?;
    let span = put(&span.to_bytes(), ink)?;
    headers.insert(TRACE_ID, trace);
    headers.insert(SPAN_ID, span);
    headers.remove(PARENT_SPAN_ID);
    let (said, unsaid, value) = match (context.debug, context.sampled) {
        (true, _) => (FLAGS, SAMPLED, "1"),
        (_, true) => (SAMPLED, FLAGS, "1"),
        (_, false) => (SAMPLED, FLAGS, "0"),
    };
    headers.insert(said, HeaderValue::from_static(value));
    headers.remove(unsaid);
    Some(())
}

fn decision(text: &[u8]) -> Option<Decision> {
    match text {
        b"0" => Some(Decision::Deny),
        b"1" => Some(Decision::Accept),
        b"d" => Some(Decision::Debug),
        _ => None,
    }
}

fn trace(text: &[u8]) -> Option<TraceId> {
    match text.len() {
        16 | 32 => text::trace(text::hex(text, 32)?),
        _ => None,
    }
}

fn span(text: &[u8]) -> Option<SpanId> {
    match text.len() {
        16 => text::span(text::hex(text, 16)? as u64),
        _ => None,
    }
}
