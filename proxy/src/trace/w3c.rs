//! W3C Trace Context, level 2: reading and writing `traceparent`. `tracestate` passes through untouched while the
//! trace goes on, and is dropped with the trace that it described when the trace begins anew.
//! Pure over header values; which values are believed is `trust`'s affair.

use http::{HeaderMap, HeaderName, HeaderValue};
use spanmesh_proto::{SpanId, TraceId};

use super::context::TraceContext;

pub const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
pub const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// What a request's headers say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extracted {
    /// No `traceparent`.
    Absent,
    Valid(TraceContext),
    /// Present but unreadable, or there twice: the trace begins anew.
    Malformed,
}

pub fn extract(headers: &HeaderMap) -> Extracted {
    let mut lines = headers.get_all(TRACEPARENT).iter();
    let Some(first) = lines.next() else { return Extracted::Absent };
    if lines.next().is_some() {
        return Extracted::Malformed;
    }
    match parse(first.as_bytes()) {
        Some(context) => Extracted::Valid(context),
        None => Extracted::Malformed,
    }
}

/// `vv-trace-parent-flags`. Version 00 has exactly 55 bytes; a higher version may go on after a dash; ff is invalid.
pub fn parse(text: &[u8]) -> Option<TraceContext> {
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
    Some(TraceContext { trace, parent: Some(parent), sampled: flags & SAMPLED != 0, random: flags & RANDOM != 0 })
}

/// Writes the header for the next hop, whose parent is `span`. A restarted trace takes no `tracestate` along.
pub fn inject(headers: &mut HeaderMap, context: &TraceContext, span: SpanId) {
    headers.insert(TRACEPARENT, value(context, span));
    if context.parent.is_none() {
        headers.remove(TRACESTATE);
    }
}

fn value(context: &TraceContext, span: SpanId) -> HeaderValue {
    let mut text = *b"00-00000000000000000000000000000000-0000000000000000-00";
    write_hex(text.get_mut(3..35), &context.trace.to_bytes());
    write_hex(text.get_mut(36..52), &span.to_bytes());
    let flags = (u8::from(context.sampled) * SAMPLED) | (u8::from(context.random) * RANDOM);
    write_hex(text.get_mut(53..55), &[flags]);
    // Digits and dashes only, so this cannot fail; an empty value would be dropped by the next hop's parser.
    HeaderValue::from_bytes(&text).unwrap_or(HeaderValue::from_static(""))
}

fn write_hex(target: Option<&mut [u8]>, bytes: &[u8]) {
    let digit = |nibble: u8| if nibble < 10 { b'0' + nibble } else { b'a' + nibble - 10 };
    for (pair, byte) in target.unwrap_or_default().chunks_exact_mut(2).zip(bytes) {
        if let [high, low] = pair {
            *high = digit(byte >> 4);
            *low = digit(byte & 0x0f);
        }
    }
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

const SAMPLED: u8 = 0x01;
const RANDOM: u8 = 0x02;

/// Arbitrary bytes never panic, and whatever is accepted is written back as the same context.
pub fn fuzz_traceparent(data: &[u8]) {
    if let Some(context) = parse(data) {
        let Some(parent) = context.parent else { return };
        let written = value(&context, parent);
        assert_eq!(parse(written.as_bytes()), Some(context));
    }
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
        let context = parse(GOOD.as_bytes()).expect("valid");
        assert!(context.sampled && !context.random);
        assert_eq!(value(&context, context.parent.expect("parent")), GOOD);
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
        assert_eq!(extract(&headers), Extracted::Malformed);
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
