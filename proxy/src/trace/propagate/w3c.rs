//! W3C Trace Context, level 2: reading and writing `traceparent`. `tracestate` (`state`) passes through untouched while
//! the trace goes on.

use bytes::BytesMut;
use http::{HeaderMap, HeaderName, HeaderValue};
use spanmesh_proto::{SpanId, TraceId};

use super::ink::Ink;
use super::{Decision, Found, Reading};
use crate::trace::context::TraceContext;

pub const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
pub const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");
pub static NAMES: [HeaderName; 2] = [TRACEPARENT, TRACESTATE];

/// Two lines are malformed even where they say the same.
pub fn read(headers: &HeaderMap) -> Reading {
    // By reference: the constant would be made and dropped for each look.
    let [traceparent, _] = &NAMES;
    headers.get_all(traceparent).iter().fold(Reading::Absent, and)
}

/// What the lines say with one more.
pub fn and(before: Reading, line: &HeaderValue) -> Reading {
    match before {
        Reading::Absent => parse(line.as_bytes()).map_or(Reading::Malformed, Reading::Valid),
        Reading::Valid(_) | Reading::Malformed => Reading::Malformed,
    }
}

pub fn write(headers: &mut HeaderMap, context: &TraceContext, span: SpanId, ink: &mut Ink) -> Option<()> {
    let value = ink.value(LENGTH, |out| put(out, context, span))?;
    let [traceparent, _] = &NAMES;
    headers.insert(traceparent, value);
    Some(())
}

/// `vv-trace-parent-flags`. Version 00 has exactly 55 bytes; a higher version may go on after a dash; ff is invalid.
pub fn parse(text: &[u8]) -> Option<Found> {
    let mut cursor = Cursor(text);
    let [version] = spanmesh_proto::ids::hex::<1>(cursor.take(2)?)?;
    cursor.dash()?;
    let trace = TraceId::parse(cursor.take(32)?)?;
    cursor.dash()?;
    let parent = SpanId::parse(cursor.take(16)?)?;
    cursor.dash()?;
    let [flags] = spanmesh_proto::ids::hex::<1>(cursor.take(2)?)?;
    match (version, cursor.0) {
        (0xff, _) => return None,
        (_, []) => {}
        (0, _) => return None,
        (_, [b'-', ..]) => {}
        _ => return None,
    }
    let decision = Decision::of(flags & SAMPLED != 0);
    Some(Found { random: flags & RANDOM != 0, ..Found::new(trace, Some(parent), decision) })
}

fn put(out: &mut BytesMut, context: &TraceContext, span: SpanId) {
    let flags = (u8::from(context.sampled) * SAMPLED) | (u8::from(context.random) * RANDOM);
    // In one piece: every request has it.
    let mut text = *b"00-                                -                -0 ";
    let (trace, rest) = text.split_at_mut(3 + 32);
    let (parent, sampled) = rest.split_at_mut(1 + 16);
    trace.get_mut(3..).into_iter().for_each(|place| place.copy_from_slice(&context.trace.to_digits()));
    parent.get_mut(1..).into_iter().for_each(|place| place.copy_from_slice(&span.to_digits()));
    sampled.last_mut().into_iter().for_each(|digit| *digit = b'0' + flags);
    out.extend_from_slice(&text);
}

struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn dash(&mut self) -> Option<()> {
        (self.take(1)? == b"-").then_some(())
    }
}

const LENGTH: usize = 55;
const SAMPLED: u8 = 0x01;
const RANDOM: u8 = 0x02;

/// Arbitrary bytes never panic, and whatever is accepted is written back as the same context.
pub fn fuzz_traceparent(data: &[u8]) {
    let Some(found) = parse(data) else { return };
    let Some(ids) = found.ids else { return };
    let Some(parent) = ids.parent else { return };
    let sampled = found.decision == Decision::Accept;
    let context = TraceContext { trace: ids.trace, parent: None, sampled, random: found.random, debug: false };
    let mut out = BytesMut::new();
    put(&mut out, &context, parent);
    assert_eq!(parse(&out), Some(found));
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "00-0af7651916cd43dd8448eb211c80319c-00f067aa0ba902b7-01";

    #[test]
    fn fifty_five_zeros_are_no_context() {
        assert_eq!(parse(&[b'0'; 55]), None);
    }

    #[test]
    fn empty_flags_are_no_context() {
        assert_eq!(parse(b"00-0af7651916cd43dd8448eb211c80319c-00f067aa0ba902b7-"), None);
    }

    #[test]
    fn a_good_header_is_read_and_written_the_same() {
        let found = parse(GOOD.as_bytes()).expect("valid");
        assert!(found.decision == Decision::Accept && !found.random);
        let ids = found.ids.expect("ids");
        let context = TraceContext { trace: ids.trace, parent: None, sampled: true, random: false, debug: false };
        let mut headers = HeaderMap::new();
        write(&mut headers, &context, ids.parent.expect("parent"), &mut Ink::default()).expect("written");
        assert_eq!(headers.get(TRACEPARENT).expect("traceparent"), GOOD);
    }

    #[test]
    fn versions() {
        let tail = &GOOD[2..];
        for (text, valid) in [
            (format!("cc{tail}"), true),
            (format!("cc{tail}-what-follows"), true),
            (format!("cc{tail}.what-follows"), false),
            (format!("ff{tail}"), false),
            (format!("00{tail}-more"), false),
            (format!("00{tail} "), false),
            (format!("0{tail}"), false),
            (GOOD.to_uppercase(), false),
        ] {
            assert_eq!(parse(text.as_bytes()).is_some(), valid, "{text}");
        }
    }

    #[test]
    fn two_lines_begin_anew() {
        let mut headers = HeaderMap::new();
        headers.append(TRACEPARENT, HeaderValue::from_static(GOOD));
        headers.append(TRACEPARENT, HeaderValue::from_static(GOOD));
        assert_eq!(read(&headers), Reading::Malformed);
    }

    #[test]
    fn every_prefix_and_every_changed_byte_is_handled() {
        for end in 0..GOOD.len() {
            fuzz_traceparent(&GOOD.as_bytes()[..end]);
        }
        for place in 0..GOOD.len() {
            for byte in 0..=255u8 {
                let mut text = GOOD.as_bytes().to_vec();
                text[place] = byte;
                fuzz_traceparent(&text);
            }
        }
    }
}
