//! SkyWalking's `sw8`: eight fields by dashes, texts in base64. Its ids are texts of any shape: those of 32 and of 16
//! hexadecimal digits are taken as they are, others are mapped by a hash, the same on every hop. The trace's own text
//! is written on as long as it is there, so that SkyWalking's agents find their trace again.

use http::{HeaderMap, HeaderName, HeaderValue};
use spanmesh_proto::{SpanId, TraceId};

use super::ink::Ink;
use super::text::{self, Line, put_base64};
use super::{Decision, Found, Hop, Reading};
use crate::trace::context::TraceContext;

pub const SW8: HeaderName = HeaderName::from_static("sw8");
const SW8_X: HeaderName = HeaderName::from_static("sw8-x");
pub static NAMES: [HeaderName; 2] = [SW8, SW8_X];

pub fn read(headers: &HeaderMap) -> Reading {
    match text::line(headers, SW8) {
        Line::None => Reading::Absent,
        Line::One(text) => parse(text).map_or(Reading::Malformed, Reading::Valid),
        Line::Several => Reading::Malformed,
    }
}

/// `{sample}-{trace}-{segment}-{span}-{service}-{instance}-{endpoint}-{address}`.
pub fn parse(text: &[u8]) -> Option<Found> {
    if text.len() > LONGEST {
        return None;
    }
    let mut parts = text.split(|byte| *byte == b'-');
    let decision = match parts.next()? {
        b"0" => Decision::Deny,
        b"1" => Decision::Accept,
        _ => return None,
    };
    let (trace, segment, span) = (parts.next()?, parts.next()?, parts.next()?);
    let span = u32::try_from(text::decimal(span)?).ok()?;
    // Who calls, which no span of ours needs to know.
    let (mut scratch, mut named) = ([0; LONGEST], 0);
    for name in parts {
        text::base64(name, &mut scratch)?;
        named += 1;
    }
    if named != 4 {
        return None;
    }
    let trace = trace_id(text::base64(trace, &mut scratch)?)?;
    let parent = span_id(text::base64(segment, &mut scratch)?, span)?;
    Some(Found::new(trace, Some(parent), decision))
}

pub fn write(
    headers: &mut HeaderMap,
    context: &TraceContext,
    span: SpanId,
    hop: &Hop<'_>,
    ink: &mut Ink,
) -> Option<()> {
    let value = {
        let [sw8, _] = &NAMES;
        let before = match text::line(headers, sw8) {
            Line::One(text) => text.split(|byte| *byte == b'-').nth(1),
            Line::None | Line::Several => None,
        };
        let mut scratch = [0; LONGEST];
        let same = before.filter(|encoded| {
            let text = text::base64(encoded, &mut scratch);
            text.and_then(trace_id) == Some(context.trace)
        });
        ink.value(LENGTH, |out| {
            out.extend_from_slice(if context.sampled { b"1-" } else { b"0-" });
            match same {
                Some(encoded) => out.extend_from_slice(encoded),
                None => put_base64(out, &context.trace.to_digits(), true),
            }
            out.extend_from_slice(b"-");
            put_base64(out, &span.to_digits(), true);
            out.extend_from_slice(b"-0");
            for text in [hop.service, hop.instance, hop.path, &hop.address.to_string()] {
                let text = if text.is_empty() { "-" } else { text };
                out.extend_from_slice(b"-");
                put_base64(out, text.get(..text.floor_char_boundary(NAME)).unwrap_or_default().as_bytes(), true);
            }
        })?
    };
    headers.insert(SW8, value);
    extend(headers);
    Some(())
}

/// `sw8-x`, `{mode}-{time of sending}`. Mode 1 asks that the trace is not analysed, and holds for all of it; the time is that
/// of another hop's sending, and would be taken for ours.
fn extend(headers: &mut HeaderMap) {
    let [_, extension] = &NAMES;
    let unanalysed = match text::line(headers, extension) {
        Line::None => return,
        Line::One(text) => text.split(|byte| *byte == b'-').next() == Some(b"1"),
        Line::Several => false,
    };
    match unanalysed {
        true => drop(headers.insert(extension, HeaderValue::from_static("1-"))),
        false => drop(headers.remove(extension)),
    }
}

fn trace_id(text: &[u8]) -> Option<TraceId> {
    let digits = text.len() == 32 && !text.iter().any(u8::is_ascii_uppercase);
    let number = digits.then(|| text::hex(text, 32)).flatten();
    (!text.is_empty()).then(|| text::trace(number.unwrap_or_else(|| hash(text, 0)))).flatten()
}

/// A segment has spans, numbered from 0. A segment of ours has one, whose id is its name.
fn span_id(segment: &[u8], span: u32) -> Option<SpanId> {
    let digits = span == 0 && segment.len() == 16 && !segment.iter().any(u8::is_ascii_uppercase);
    let number = digits.then(|| text::hex(segment, 16)).flatten().map(|number| number as u64);
    let hashed = || {
        let hash = hash(segment, span);
        (hash >> 64) as u64 ^ hash as u64
    };
    (!segment.is_empty()).then(|| text::span(number.unwrap_or_else(hashed))).flatten()
}

/// FNV-1a of 128 bits.
fn hash(text: &[u8], number: u32) -> u128 {
    let step = |hash: u128, byte: &u8| (hash ^ u128::from(*byte)).wrapping_mul(PRIME);
    number.to_be_bytes().iter().filter(|byte| **byte != 0).fold(text.iter().fold(OFFSET, step), step)
}

const OFFSET: u128 = 0x6c62272e07bb014262b821756295c58d;
const PRIME: u128 = 0x0000000001000000000000000000013b;
/// The format's own limit.
const LONGEST: usize = 2048;
/// Of each name, so that four and the ids stay below it.
const NAME: usize = 256;
const LENGTH: usize = 600;
