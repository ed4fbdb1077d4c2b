//! Datadog's headers: decimal ids of 64 bits, the upper half of the trace in the tag `_dd.p.tid`, and a priority. The
//! user's own priorities, -1 and 2, are Deny and Debug here; the automatic ones, 0 and 1, Deny and Accept.

use http::{HeaderMap, HeaderName, HeaderValue};
use spanmesh_proto::SpanId;

use super::ink::Ink;
use super::text::{self, Line, put_decimal, put_hex};
use super::{Decision, Found, Reading};
use crate::trace::context::TraceContext;

const TRACE_ID: HeaderName = HeaderName::from_static("x-datadog-trace-id");
const PARENT_ID: HeaderName = HeaderName::from_static("x-datadog-parent-id");
const PRIORITY: HeaderName = HeaderName::from_static("x-datadog-sampling-priority");
const ORIGIN: HeaderName = HeaderName::from_static("x-datadog-origin");
const TAGS: HeaderName = HeaderName::from_static("x-datadog-tags");
pub static NAMES: [HeaderName; 5] = [TRACE_ID, PARENT_ID, PRIORITY, ORIGIN, TAGS];

/// A malformed upper half leaves the lower one. Without a trace the rest says nothing.
pub fn read(headers: &HeaderMap) -> Reading {
    let low = match text::line(headers, TRACE_ID) {
        Line::None => return Reading::Absent,
        Line::One(text) => text::decimal(text).filter(|low| *low != 0),
        Line::Several => None,
    };
    let parent = match text::line(headers, PARENT_ID) {
        Line::None => Some(0),
        Line::One(text) => text::decimal(text),
        Line::Several => None,
    };
    let (Some(low), Some(parent)) = (low, parent) else { return Reading::Malformed };
    let high = tags(headers).find(|(key, _)| *key == TID).and_then(|(_, value)| upper(value)).unwrap_or_default();
    let Some(trace) = text::trace(u128::from(high) << 64 | u128::from(low)) else { return Reading::Malformed };
    Reading::Valid(Found::new(trace, text::span(parent), decision(headers)))
}

pub fn write(headers: &mut HeaderMap, context: &TraceContext, span: SpanId, ink: &mut Ink) -> Option<()> {
    let low = text::low(context.trace)?;
    let high = text::high(context.trace);
    let trace = ink.value(20, |out| put_decimal(out, low))?;
    let parent = ink.value(20, |out| put_decimal(out, text::span_number(span)))?;
    let mut empty = true;
    let tags = ink.value(TAGS_MAX, |out| {
        if high != 0 {
            out.extend_from_slice(TID);
            out.extend_from_slice(b"=");
            put_hex(out, &high.to_be_bytes());
        }
        let mut length = if high != 0 { TID.len() + 17 } else { 0 };
        for (key, value) in tags(headers) {
            let needs = key.len() + value.len() + 2;
            // Others are meant for one hop.
            if key == TID || !key.starts_with(PROPAGATED) || length + needs > TAGS_MAX {
                continue;
            }
            if length > 0 {
                out.extend_from_slice(b",");
            }
            length += needs;
            out.extend_from_slice(key);
            out.extend_from_slice(b"=");
            out.extend_from_slice(value);
        }
        empty = length == 0;
    })?;
    let now = match (context.debug, context.sampled) {
        (true, _) => Decision::Debug,
        (_, sampled) => Decision::of(sampled),
    };
    // Who said it keeps the word that was used: the user's No is not the sampler's.
    if decision(headers) != now {
        let word = match now {
            Decision::Debug => "2",
            Decision::Accept => "1",
            Decision::Deny | Decision::Open => "0",
        };
        headers.insert(PRIORITY, HeaderValue::from_static(word));
    }
    headers.insert(TRACE_ID, trace);
    headers.insert(PARENT_ID, parent);
    match empty {
        true => drop(headers.remove(TAGS)),
        false => drop(headers.insert(TAGS, tags)),
    }
    Some(())
}

fn decision(headers: &HeaderMap) -> Decision {
    match text::first(headers, PRIORITY) {
        Some(b"-1" | b"0") => Decision::Deny,
        Some(b"1") => Decision::Accept,
        Some(b"2") => Decision::Debug,
        _ => Decision::Open,
    }
}

fn tags(headers: &HeaderMap) -> impl Iterator<Item = (&[u8], &[u8])> {
    let text = text::first(headers, TAGS).unwrap_or_default();
    text.split(|byte| *byte == b',').filter_map(|tag| {
        let tag = tag.trim_ascii();
        let (key, value) = tag.split_at(tag.iter().position(|byte| *byte == b'=')?);
        Some((key, value.get(1..).unwrap_or_default()))
    })
}

fn upper(text: &[u8]) -> Option<u64> {
    let lower_case = text.len() == 16 && !text.iter().any(u8::is_ascii_uppercase);
    lower_case.then(|| text::hex(text, 16)).flatten().map(|number| number as u64)
}

const TID: &[u8] = b"_dd.p.tid";
const PROPAGATED: &[u8] = b"_dd.p.";
/// Datadog's own libraries send no more.
const TAGS_MAX: usize = 512;
