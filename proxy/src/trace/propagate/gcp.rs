//! Google Cloud's `x-cloud-trace-context`: `{trace}/{span, decimal};o={0|1}`, all but the trace may be missing.

use http::{HeaderMap, HeaderName};
use spanmesh_proto::SpanId;

use super::ink::Ink;
use super::text::{self, Line, put_decimal, put_hex};
use super::{Decision, Found, Reading};
use crate::trace::context::TraceContext;

pub const GCP: HeaderName = HeaderName::from_static("x-cloud-trace-context");
pub static NAMES: [HeaderName; 1] = [GCP];

pub fn read(headers: &HeaderMap) -> Reading {
    match text::line(headers, GCP) {
        Line::None => Reading::Absent,
        Line::One(text) => parse(text).map_or(Reading::Malformed, Reading::Valid),
        Line::Several => Reading::Malformed,
    }
}

pub fn parse(text: &[u8]) -> Option<Found> {
    let mut options = text.split(|byte| *byte == b';');
    let mut ids = options.next()?.split(|byte| *byte == b'/');
    let trace = ids.next().filter(|text| text.len() == 32)?;
    let span = match ids.next() {
        None | Some(b"") => None,
        Some(text) => text::span(text::decimal(text)?),
    };
    let decision = match (options.next(), options.next()) {
        (None | Some(b"" | b"o="), None) => Decision::Open,
        (Some(b"o=0"), None) => Decision::Deny,
        (Some(b"o=1"), None) => Decision::Accept,
        _ => return None,
    };
    if ids.next().is_some() {
        return None;
    }
    Some(Found::new(text::trace(text::hex(trace, 32)?)?, span, decision))
}

pub fn write(headers: &mut HeaderMap, context: &TraceContext, span: SpanId, ink: &mut Ink) -> Option<()> {
    let value = ink.value(32 + 1 + 20 + 4, |out| {
        put_hex(out, &context.trace.to_bytes());
        out.extend_from_slice(b"/");
        put_decimal(out, text::span_number(span));
        out.extend_from_slice(if context.sampled { b";o=1" } else { b";o=0" });
    })?;
    headers.insert(GCP, value);
    Some(())
}
