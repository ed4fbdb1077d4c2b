//! Jaeger's `uber-trace-id`, and `jaeger-debug-id`, with which whoever looks for a fault forces a trace. Its baggage
//! (`uberctx-*`) is no part of the trace and passes as the application's.

use std::borrow::Cow;

use http::{HeaderMap, HeaderName};
use spanmesh_proto::SpanId;

use super::ink::Ink;
use super::text::{self, Line, put_hex};
use super::{Decision, Found, Reading};
use crate::trace::context::TraceContext;

pub const UBER: HeaderName = HeaderName::from_static("uber-trace-id");
pub const DEBUG_ID: HeaderName = HeaderName::from_static("jaeger-debug-id");
pub static NAMES: [HeaderName; 2] = [UBER, DEBUG_ID];

/// The debug id alone asks for a trace; beside ids it asks for nothing that they do not say.
pub fn read(headers: &HeaderMap) -> Reading {
    match text::line(headers, UBER) {
        Line::None if headers.contains_key(DEBUG_ID) => Reading::Valid(Found::decided(Decision::Debug)),
        Line::None => Reading::Absent,
        Line::One(text) => parse(text).map_or(Reading::Malformed, |(found, _)| Reading::Valid(found)),
        Line::Several => Reading::Malformed,
    }
}

/// `{trace}:{span}:{parent}:{flags}`, the colons perhaps percent-encoded. Returns the flags too.
fn parse(text: &[u8]) -> Option<(Found, u8)> {
    let text = colons(text);
    let mut parts = text.split(|byte| *byte == b':');
    let (trace, span, parent, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    if parts.next().is_some() || !parent.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    let trace = text::trace(text::hex(trace, 32)?)?;
    let span = text::span(text::hex(span, 16)? as u64)?;
    let flags = text::hex(flags, 2)? as u8;
    let decision = match (flags & SAMPLED != 0, flags & DEBUG != 0) {
        (true, true) => Decision::Debug,
        (accepted, _) => Decision::of(accepted),
    };
    Some((Found::new(trace, Some(span), decision), flags))
}

pub fn write(headers: &mut HeaderMap, context: &TraceContext, span: SpanId, ink: &mut Ink) -> Option<()> {
    // What other flags there were keep their meaning for who knows them.
    let kept = match text::line(headers, UBER) {
        Line::One(text) => parse(text).map_or(0, |(_, flags)| flags & !(SAMPLED | DEBUG)),
        Line::None | Line::Several => 0,
    };
    let flags = match (context.debug, context.sampled) {
        (true, _) => kept | SAMPLED | DEBUG,
        (_, true) => kept | SAMPLED,
        (_, false) => kept,
    };
    let value = ink.value(32 + 1 + 16 + 3 + 2, |out| {
        put_hex(out, &context.trace.to_bytes());
        out.extend_from_slice(b":");
        put_hex(out, &span.to_bytes());
        out.extend_from_slice(b":0:");
        put_hex(out, &[flags]);
    })?;
    headers.insert(UBER, value);
    headers.remove(DEBUG_ID);
    Some(())
}

/// Some clients encode the value as a whole.
fn colons(text: &[u8]) -> Cow<'_, [u8]> {
    if !text.contains(&b'%') || text.len() > ENCODED {
        return Cow::Borrowed(text);
    }
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((first, more)) = rest.split_first() {
        let (byte, after) = match rest {
            [b'%', b'3', b'A' | b'a', after @ ..] => (b':', after),
            _ => (*first, more),
        };
        decoded.push(byte);
        rest = after;
    }
    Cow::Owned(decoded)
}

/// The longest that can be valid, encoded.
const ENCODED: usize = 32 + 16 + 32 + 2 + 9;
const SAMPLED: u8 = 0x01;
const DEBUG: u8 = 0x02;
