//! What the formats' own projects say, and every pair of formats.

use std::time::Duration;

use http::{HeaderName, HeaderValue};

use super::*;

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const PARENT: &str = "00f067aa0ba902b7";

fn headers(lines: &[(&str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in lines {
        let name = HeaderName::from_bytes(name.as_bytes()).expect("a name");
        headers.append(name, HeaderValue::from_str(value).expect("a value"));
    }
    headers
}

fn found(trace: &str, parent: &str, decision: Decision) -> Reading {
    let trace = text::hex(trace.as_bytes(), 32).and_then(text::trace).expect("a trace");
    let parent = text::hex(parent.as_bytes(), 16).and_then(|number| text::span(number as u64));
    Reading::Valid(Found::new(trace, parent, decision))
}

fn decided(decision: Decision) -> Reading {
    Reading::Valid(Found::decided(decision))
}

fn hop() -> Hop<'static> {
    Hop { service: "cart", instance: "cart-1", path: "/x", address: ([10, 0, 0, 1], 80).into() }
}

fn context(trace: &str, decision: Decision) -> TraceContext {
    TraceContext {
        trace: text::hex(trace.as_bytes(), 32).and_then(text::trace).expect("a trace"),
        parent: None,
        sampled: matches!(decision, Decision::Accept | Decision::Debug),
        random: false,
        debug: decision == Decision::Debug,
    }
}

fn span() -> SpanId {
    SpanId::parse(PARENT.as_bytes()).expect("a span")
}

/// The headers that a format writes into these.
fn written(format: Format, before: &[(&str, &str)], trace: &str, decision: Decision) -> Vec<(String, String)> {
    let mut headers = headers(before);
    assert!(write(format, &mut headers, &context(trace, decision), span(), &hop(), &mut Ink::default()));
    let text = |value: &HeaderValue| value.to_str().expect("text").to_owned();
    let mut lines: Vec<_> = headers.iter().map(|(name, value)| (name.to_string(), text(value))).collect();
    lines.sort();
    lines
}

fn check(format: Format, cases: &[(&[(&str, &str)], Reading)]) {
    for (lines, expected) in cases {
        assert_eq!(read(format, &headers(lines)), *expected, "{format:?} {lines:?}");
    }
}

use Decision::{Accept, Debug, Deny, Open};
use Reading::{Absent, Malformed};

#[test]
fn b3_in_one_header() {
    let b3 = |text: &'static str| [("b3", text)];
    check(
        Format::B3,
        &[
            (&[], Absent),
            (&b3("0"), decided(Deny)),
            (&b3("1"), decided(Accept)),
            (&b3("d"), decided(Debug)),
            (&b3("0af7651916cd43dd8448eb211c80319c-00f067aa0ba902b7"), found(TRACE, PARENT, Open)),
            (&b3("0af7651916cd43dd8448eb211c80319c-00f067aa0ba902b7-0"), found(TRACE, PARENT, Deny)),
            (&b3("0AF7651916CD43DD8448EB211C80319C-00F067AA0BA902B7-1"), found(TRACE, PARENT, Accept)),
            (&b3("8448eb211c80319c-00f067aa0ba902b7-d-05e3ac9a4f6e3b90"), found("8448eb211c80319c", PARENT, Debug)),
            (&b3("0af7651916cd43dd8448eb211c80319c-00f067aa0ba902b7-x"), Malformed),
            (&b3("0af7651916cd43dd8448eb211c80319c-0000000000000000-1"), Malformed),
            (&b3("00000000000000000000000000000000-00f067aa0ba902b7-1"), Malformed),
            (&b3("af7651916cd43dd8448eb211c80319c-00f067aa0ba902b7-1"), Malformed),
            (&b3("2"), Malformed),
            (&b3(""), Malformed),
            (&[("b3", "0"), ("b3", "1")], Malformed),
            (&[("b3", "0"), ("b3", "0")], decided(Deny)),
        ],
    );
    for (decision, last) in [(Deny, "0"), (Accept, "1"), (Debug, "d")] {
        let text = format!("{TRACE}-{PARENT}-{last}");
        assert_eq!(written(Format::B3, &[("b3", "0")], TRACE, decision), [("b3".to_owned(), text)]);
    }
}

#[test]
fn b3_in_several_headers() {
    let ids = [("x-b3-traceid", TRACE), ("x-b3-spanid", PARENT)];
    let with = |name: &'static str, value: &'static str| [ids[0], ids[1], (name, value)];
    check(
        Format::B3Multi,
        &[
            (&[], Absent),
            (&[("x-b3-parentspanid", PARENT)], Absent),
            (&ids, found(TRACE, PARENT, Open)),
            (&with("x-b3-sampled", "1"), found(TRACE, PARENT, Accept)),
            (&with("x-b3-sampled", "true"), found(TRACE, PARENT, Accept)),
            (&with("X-B3-Sampled", "False"), found(TRACE, PARENT, Deny)),
            (&with("x-b3-flags", "1"), found(TRACE, PARENT, Debug)),
            (&with("x-b3-flags", "0"), found(TRACE, PARENT, Open)),
            (&with("x-b3-sampled", "maybe"), Malformed),
            (&[("x-b3-sampled", "0")], decided(Deny)),
            (&[("x-b3-flags", "1"), ("x-b3-sampled", "0")], decided(Debug)),
            (&[("x-b3-sampled", "0"), ("x-b3-sampled", "1")], decided(Deny)),
            (&[("x-b3-traceid", TRACE)], Malformed),
            (&[("x-b3-spanid", PARENT)], Malformed),
            (&with("x-b3-traceid", "8448eb211c80319c"), Malformed),
        ],
    );
    let before = with("x-b3-sampled", "0");
    let lines = written(Format::B3Multi, &[before[2], ("x-b3-parentspanid", PARENT)], TRACE, Debug);
    let expected = [("x-b3-flags", "1"), ("x-b3-spanid", PARENT), ("x-b3-traceid", TRACE)];
    assert_eq!(lines, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
}

#[test]
fn jaeger() {
    let uber = |text: &'static str| [("uber-trace-id", text)];
    check(
        Format::Jaeger,
        &[
            (&[], Absent),
            (&uber("0af7651916cd43dd8448eb211c80319c:00f067aa0ba902b7:0:1"), found(TRACE, PARENT, Accept)),
            (&uber("af7651916cd43dd8448eb211c80319c:f067aa0ba902b7:1:00"), found(TRACE, PARENT, Deny)),
            (&uber("0af7651916cd43dd8448eb211c80319c%3A00f067aa0ba902b7%3a0%3A3"), found(TRACE, PARENT, Debug)),
            (&uber("1:2:0000000000000000:03"), found("1", "2", Debug)),
            (&uber("1:2:0:2"), found("1", "2", Deny)),
            (&uber("1:2:0:9"), found("1", "2", Accept)),
            (&uber("0:2:0:1"), Malformed),
            (&uber("1:0:0:1"), Malformed),
            (&uber("1:2:0:100"), Malformed),
            (&uber("1:2:0"), Malformed),
            (&uber("1:2:0:1:0"), Malformed),
            (&uber(""), Malformed),
            (&uber("%%%%"), Malformed),
            (&uber("00af7651916cd43dd8448eb211c80319c:1:0:1"), Malformed),
            (&[("jaeger-debug-id", "why")], decided(Debug)),
        ],
    );
    let before = "1:2:0:9";
    for (decision, flags) in [(Deny, "08"), (Accept, "09"), (Debug, "0b")] {
        let lines = written(Format::Jaeger, &[("uber-trace-id", before), ("jaeger-debug-id", "x")], TRACE, decision);
        assert_eq!(lines, [("uber-trace-id".to_owned(), format!("{TRACE}:{PARENT}:0:{flags}"))]);
    }
}

#[test]
fn xray() {
    let header = |text: &'static str| [("x-amzn-trace-id", text)];
    check(
        Format::Xray,
        &[
            (&[], Absent),
            (&header("Root=1-0af76519-16cd43dd8448eb211c80319c"), found(TRACE, "", Open)),
            (
                &header("Root=1-0af76519-16cd43dd8448eb211c80319c;Parent=00f067aa0ba902b7;Sampled=1"),
                found(TRACE, PARENT, Accept),
            ),
            (
                &header("Sampled=0; Parent=00f067aa0ba902b7 ;Lineage=a:1;Root=1-0af76519-16cd43dd8448eb211c80319c"),
                found(TRACE, PARENT, Deny),
            ),
            (&header("Self=1-1-1;Root=1-0af76519-16cd43dd8448eb211c80319c;Sampled=?"), found(TRACE, "", Open)),
            (&header("Sampled=0"), decided(Deny)),
            (&header("Root=2-0af76519-16cd43dd8448eb211c80319c"), Malformed),
            (&header("Root=1-0af76519-16cd43dd8448eb211c80319"), Malformed),
            (&header("Root=1-00000000-000000000000000000000000"), Malformed),
            (&header("Root=1-0af76519-16cd43dd8448eb211c80319c;Parent=0"), Malformed),
            (&header("Root=1-0af76519-16cd43dd8448eb211c80319c;Sampled=2"), Malformed),
            (&header("Self=1-1-1"), Malformed),
            (&header(""), Malformed),
        ],
    );
    let before = header("Self=1-1-1;Root=1-0af76519-16cd43dd8448eb211c80319c;Sampled=0;Lineage=a:1;x=");
    let expected = "Root=1-0af76519-16cd43dd8448eb211c80319c;Parent=00f067aa0ba902b7;Sampled=1;Lineage=a:1;x=";
    assert_eq!(written(Format::Xray, &before, TRACE, Accept), [("x-amzn-trace-id".to_owned(), expected.to_owned())]);
}

#[test]
fn datadog() {
    let low = "9532127138774266268";
    let parent = "67667974448284343";
    let id = ("x-datadog-trace-id", low);
    let of = ("x-datadog-parent-id", parent);
    let tags = ("x-datadog-tags", "_dd.p.dm=-1,_dd.p.tid=0af7651916cd43dd");
    check(
        Format::Datadog,
        &[
            (&[], Absent),
            (&[("x-datadog-sampling-priority", "1")], Absent),
            (&[id], found("8448eb211c80319c", "", Open)),
            (&[id, of, ("x-datadog-sampling-priority", "1")], found("8448eb211c80319c", PARENT, Accept)),
            (&[id, of, tags, ("x-datadog-sampling-priority", "2")], found(TRACE, PARENT, Debug)),
            (&[id, of, tags, ("x-datadog-sampling-priority", "-1")], found(TRACE, PARENT, Deny)),
            (&[id, of, tags, ("x-datadog-sampling-priority", "x")], found(TRACE, PARENT, Open)),
            (&[id, ("x-datadog-tags", "_dd.p.tid=0AF7651916CD43DD")], found("8448eb211c80319c", "", Open)),
            (&[id, ("x-datadog-tags", ",=,_dd.p.tid=1")], found("8448eb211c80319c", "", Open)),
            (&[("x-datadog-trace-id", "0")], Malformed),
            (&[("x-datadog-trace-id", "18446744073709551616")], Malformed),
            (&[id, ("x-datadog-parent-id", "-1")], Malformed),
        ],
    );
    let others = ("x-datadog-tags", "_dd.p.dm=-1,other=1,_dd.p.tid=0000000000000001");
    let lines = written(Format::Datadog, &[others, ("x-datadog-sampling-priority", "-1")], TRACE, Deny);
    let expected = [
        ("x-datadog-parent-id", parent),
        ("x-datadog-sampling-priority", "-1"),
        ("x-datadog-tags", "_dd.p.tid=0af7651916cd43dd,_dd.p.dm=-1"),
        ("x-datadog-trace-id", low),
    ];
    assert_eq!(lines, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
    let lines = written(Format::Datadog, &[("x-datadog-tags", "other=1")], "8448eb211c80319c", Debug);
    assert_eq!(lines.iter().map(|line| line.1.as_str()).collect::<Vec<_>>(), [parent, "2", low]);
}

#[test]
fn google_cloud() {
    let header = |text: &'static str| [("x-cloud-trace-context", text)];
    check(
        Format::Gcp,
        &[
            (&[], Absent),
            (&header("0af7651916cd43dd8448eb211c80319c/67667974448284343;o=1"), found(TRACE, PARENT, Accept)),
            (&header("0AF7651916CD43DD8448EB211C80319C/67667974448284343;o=0"), found(TRACE, PARENT, Deny)),
            (&header("0af7651916cd43dd8448eb211c80319c"), found(TRACE, "", Open)),
            (&header("0af7651916cd43dd8448eb211c80319c/;o="), found(TRACE, "", Open)),
            (&header("0af7651916cd43dd8448eb211c80319c;o=1"), found(TRACE, "", Accept)),
            (&header("0af7651916cd43dd8448eb211c80319c/0"), found(TRACE, "", Open)),
            (&header("0af7651916cd43dd8448eb211c80319c/18446744073709551616"), Malformed),
            (&header("0af7651916cd43dd8448eb211c80319c/1;o=2"), Malformed),
            (&header("0af7651916cd43dd8448eb211c80319"), Malformed),
            (&header("00000000000000000000000000000000/1"), Malformed),
            (&header(""), Malformed),
        ],
    );
}

#[test]
fn opencensus_in_binary() {
    let bytes = |text: &str| {
        let mut out = bytes::BytesMut::new();
        let bytes: Vec<u8> =
            (0..text.len() / 2).map(|at| u8::from_str_radix(&text[at * 2..][..2], 16).expect("hex")).collect();
        text::put_base64(&mut out, &bytes, text.len().is_multiple_of(3));
        String::from_utf8(out.to_vec()).expect("text")
    };
    for (hex, expected) in [
        (format!("0000{TRACE}01{PARENT}0201"), found(TRACE, PARENT, Accept)),
        (format!("0000{TRACE}01{PARENT}0200"), found(TRACE, PARENT, Deny)),
        (format!("0000{TRACE}01{PARENT}"), found(TRACE, PARENT, Open)),
        (format!("0000{TRACE}01{PARENT}02010955"), found(TRACE, PARENT, Accept)),
        (format!("0000{TRACE}"), found(TRACE, "", Open)),
        ("000201".into(), decided(Accept)),
        (format!("0100{TRACE}01{PARENT}0201"), Malformed),
        (format!("0000{TRACE}01{PARENT}02"), Malformed),
        (format!("0000{}01{PARENT}0201", "0".repeat(32)), Malformed),
        (format!("0001{PARENT}"), Malformed),
        ("00".into(), Malformed),
        (String::new(), Malformed),
    ] {
        assert_eq!(read(Format::Binary, &headers(&[("grpc-trace-bin", &bytes(&hex))])), expected, "{hex}");
    }
    let lines = written(Format::Binary, &[], TRACE, Accept);
    assert_eq!(lines[0].1, bytes(&format!("0000{TRACE}01{PARENT}0201")).trim_end_matches('='));
}

#[test]
fn opentracing() {
    let ids = [("ot-tracer-traceid", "8448eb211c80319c"), ("ot-tracer-spanid", PARENT)];
    check(
        Format::Ottrace,
        &[
            (&[], Absent),
            (&ids, found("8448eb211c80319c", PARENT, Open)),
            (&[ids[0], ids[1], ("ot-tracer-sampled", "true")], found("8448eb211c80319c", PARENT, Accept)),
            (&[ids[0], ids[1], ("ot-tracer-sampled", "0")], found("8448eb211c80319c", PARENT, Deny)),
            (&[("ot-tracer-traceid", TRACE), ids[1]], found(TRACE, PARENT, Open)),
            (&[("ot-tracer-sampled", "false")], decided(Deny)),
            (&[ids[0]], Malformed),
            (&[ids[0], ids[1], ("ot-tracer-sampled", "x")], Malformed),
        ],
    );
}

#[test]
fn skywalking() {
    let header = |text: &'static str| [("sw8", text)];
    let base64 = |text: &str| {
        let mut out = bytes::BytesMut::new();
        text::put_base64(&mut out, text.as_bytes(), true);
        String::from_utf8(out.to_vec()).expect("text")
    };
    check(
        Format::Skywalking,
        &[
            (&[], Absent),
            (&header("1-MQ==-MQ==-0-MQ==-MQ==-MQ=="), Malformed),
            (&header("1-MQ==-MQ==-0-MQ==-MQ==-MQ==-MQ==-MQ=="), Malformed),
            (&header("2-MQ==-MQ==-0-MQ==-MQ==-MQ==-MQ=="), Malformed),
            (&header("1-MQ==-MQ==--1-MQ==-MQ==-MQ==-MQ=="), Malformed),
            (&header("1--MQ==-0-MQ==-MQ==-MQ==-MQ=="), Malformed),
            (&header("1-!-MQ==-0-MQ==-MQ==-MQ==-MQ=="), Malformed),
            (&header(""), Malformed),
        ],
    );
    // The example of the protocol's own page, with ids that are no numbers.
    let page = "1-TRACEID-SEGMENTID-3-U0VSVklDRQ==-SU5TVEFOQ0U=-RU5EUE9JTlQ=-QUREUkVTUw=="
        .replace("TRACEID", &base64("a.b.c"))
        .replace("SEGMENTID", &base64("d.e.f"));
    let map = headers(&[("sw8", &page)]);
    let Reading::Valid(Found { ids: Some(ids), decision: Accept, .. }) = read(Format::Skywalking, &map) else {
        panic!("{:?}", read(Format::Skywalking, &map))
    };
    let Reading::Valid(Found { ids: Some(next), .. }) =
        read(Format::Skywalking, &headers(&[("sw8", &page.replace("-3-", "-4-"))]))
    else {
        panic!("unreadable")
    };
    assert!(ids.trace == next.trace && ids.parent != next.parent);
    // The trace keeps its own text.
    let mut map = map;
    let going = TraceContext { trace: ids.trace, parent: None, sampled: false, random: false, debug: false };
    assert!(write(Format::Skywalking, &mut map, &going, span(), &hop(), &mut Ink::default()));
    let text = map.get("sw8").expect("sw8").to_str().expect("text");
    let names = ["cart", "cart-1", "/x", "10.0.0.1:80"].map(base64).join("-");
    assert_eq!(text, format!("0-{}-{}-0-{names}", base64("a.b.c"), base64(PARENT)));
}

#[test]
fn skywalking_is_told_of_no_other_hops_time() {
    for (before, after) in [("1-1700000000000", Some("1-")), ("1", Some("1-")), ("0-1700000000000", None), ("x", None)]
    {
        let lines = written(Format::Skywalking, &[("sw8-x", before)], TRACE, Accept);
        let mode = lines.iter().find(|(name, _)| name == "sw8-x").map(|(_, value)| value.as_str());
        assert_eq!(mode, after, "{before}");
    }
    // Alone it says nothing, and belongs to no trace.
    assert_eq!(read(Format::Skywalking, &headers(&[("sw8-x", "1-")])), Absent);
}

/// What this thread has taken of the processor, the least of several times, since others use the machine too.
fn cost(mut work: impl FnMut() -> Duration) -> Duration {
    (0..9).map(|_| work()).min().expect("a time")
}

fn processor() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// Ten times as much takes about ten times as long; a hundred times would be quadratic.
fn is_in_proportion(little: Duration, much: Duration) -> bool {
    much < little * 40 + Duration::from_millis(1)
}

#[test]
fn what_is_long_is_read_in_proportion_to_its_length() {
    let read_all = |name: &str, value: &str| {
        cost(|| {
            let mut headers = headers(&[(name, value)]);
            let began = processor();
            let walk = present::Walk::over(&headers);
            for format in FORMATS {
                std::hint::black_box(read(format, &headers));
            }
            std::hint::black_box((walk.state.end(), walk.baggage.is_over()));
            baggage::keep(&mut headers, &["a".to_owned()], &mut Ink::default());
            processor() - began
        })
    };
    for (name, piece) in [
        ("traceparent", "0"),
        ("traceparent", "-"),
        ("tracestate", "a=1,"),
        ("tracestate", ","),
        ("b3", "0-"),
        ("x-b3-traceid", "0"),
        ("uber-trace-id", "%3A"),
        ("x-amzn-trace-id", "Root=1-0af76519-16cd43dd8448eb211c80319c;"),
        ("x-datadog-tags", "_dd.p.tid=,"),
        ("x-cloud-trace-context", "0/"),
        ("sw8", "MQ==-"),
        ("grpc-trace-bin", "AAAA"),
        ("ot-tracer-traceid", "f"),
        ("baggage", "a=1;b,"),
        ("sw8-correlation", "MQ==:MQ==,"),
        ("jaeger-baggage", "a=1,"),
    ] {
        let of = |bytes: usize| read_all(name, &piece.repeat(bytes / piece.len()));
        let (little, much) = (of(10_000), of(100_000));
        assert!(is_in_proportion(little, much), "{name} {piece}: {little:?} {much:?}");
    }
}

#[test]
fn many_headers_are_taken_out_in_proportion_to_their_number() {
    let clear_all = |count: usize| {
        let name = |kind: &str, number: usize| HeaderName::try_from(format!("{kind}{number}")).expect("a name");
        let mut all = HeaderMap::new();
        for kind in ["x-", "uberctx-"] {
            (0..count).for_each(|number| drop(all.insert(name(kind, number), HeaderValue::from_static("1"))));
        }
        cost(|| {
            let mut headers = all.clone();
            let began = processor();
            baggage::clear(&mut headers);
            let took = processor() - began;
            assert_eq!(headers.len(), count);
            took
        })
    };
    let (few, many) = (clear_all(1_000), clear_all(10_000));
    assert!(is_in_proportion(few, many), "{few:?} {many:?}");
}

/// What a format cannot say; a table of `PROPAGATION.md` has the same.
fn losses(format: Format) -> (bool, bool) {
    let wide = format != Format::Ottrace;
    let debug = matches!(format, Format::B3 | Format::B3Multi | Format::Jaeger | Format::Datadog);
    (wide, debug)
}

#[test]
fn every_pair_of_formats_there_and_back() {
    let mut ink = Ink::default();
    for from in FORMATS {
        for to in FORMATS {
            for decision in [Deny, Accept, Debug] {
                for trace in [TRACE, "8448eb211c80319c", "ffffffffffffffffffffffffffffffff", "1"] {
                    let mut current = context(trace, decision);
                    let mut expected = (text::trace_number(current.trace), decision);
                    for format in [from, to, from] {
                        let mut headers = HeaderMap::new();
                        assert!(write(format, &mut headers, &current, span(), &hop(), &mut ink));
                        let (wide, debug) = losses(format);
                        if !wide {
                            expected.0 &= u128::from(u64::MAX);
                        }
                        if !debug && expected.1 == Debug {
                            expected.1 = Accept;
                        }
                        let Reading::Valid(found) = read(format, &headers) else { panic!("{format:?} {headers:?}") };
                        let ids = found.ids.expect("ids");
                        assert_eq!(ids.parent, Some(span()), "{from:?} {to:?}");
                        assert_eq!((text::trace_number(ids.trace), found.decision), expected, "{from:?} {to:?}");
                        current = context(&ids.trace.to_string(), found.decision);
                    }
                }
            }
        }
    }
}

#[test]
fn a_trace_without_low_bits_cannot_be_said_in_sixty_four() {
    let trace = "0af7651916cd43dd0000000000000000";
    for format in FORMATS {
        let says = !matches!(format, Format::Datadog | Format::Ottrace);
        let mut headers = headers(&[("x-datadog-trace-id", "1"), ("ot-tracer-traceid", "1")]);
        let count = headers.len();
        let written = write(format, &mut headers, &context(trace, Accept), span(), &hop(), &mut Ink::default());
        assert_eq!(written, says, "{format:?}");
        assert!(says || headers.len() == count - 1, "what cannot be said is not left to lie");
    }
}

#[test]
fn no_cut_and_no_changed_byte_breaks_a_format() {
    for format in FORMATS {
        let mut headers = HeaderMap::new();
        write(format, &mut headers, &context(TRACE, Debug), span(), &hop(), &mut Ink::default());
        let text: Vec<u8> = headers
            .iter()
            .flat_map(|(name, value)| [name.as_str().as_bytes(), b":", value.as_bytes(), b"\n"].concat())
            .collect();
        for place in 0..text.len() {
            fuzz_formats(&text[..place]);
            for byte in [0, b'\t', b' ', b'-', b'0', b'%', b'=', b'Z', b'f', 0x7f, 0xff] {
                let mut changed = text.clone();
                changed[place] = byte;
                fuzz_formats(&changed);
            }
        }
    }
}
