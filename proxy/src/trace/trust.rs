//! How much of what a caller says about its trace is believed, and which of several formats: the listener's `trust` and
//! the policy's `propagation`. Pure: headers, randomness and who else is in flight come in, a context and notes for
//! metrics and spans come out. The request's headers are cleaned of what is not believed and of what would be stale.

use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue};
use rand::RngExt;
use spanmesh_proto::{SpanId, TraceId};

use super::context::TraceContext;
use super::in_flight::Origin;
use super::propagate::ink::Ink;
use super::propagate::present::{Present, Walk};
pub use super::propagate::set::Set;
use super::propagate::state::{self, Checked, Edit};
use super::propagate::text;
use super::propagate::{self, Decision, Format, Found, Reading, baggage, jaeger, w3c};
use super::sample::{self, By, Inputs, Reason, Told, Verdict};
use crate::config::{Propagation, Trust};
use crate::rules::sampling::{Engine, Request, Seat};

/// What a listener reads and writes.
#[derive(Clone, Debug)]
pub struct Rules {
    pub propagation: Propagation,
    pub sampling: Arc<Engine>,
}

/// The context of a request, and what there is to tell about it.
#[derive(Clone, Debug)]
pub struct Settled {
    pub context: TraceContext,
    pub notes: Notes,
}

/// How the context came about.
#[derive(Clone, Debug, Default)]
pub struct Notes {
    /// The format that was believed.
    pub source: Option<Format>,
    /// Formats that said something else, and those that could not be read.
    pub disagreed: Set,
    pub malformed: Set,
    /// The tracestate was no list.
    pub state_malformed: bool,
    /// A span of another trace that this one goes back to.
    pub link: Option<(TraceId, SpanId)>,
    pub inferred: Option<Inferred>,
    /// Members of the baggage had to go.
    pub baggage_cut: bool,
    pub decided: Option<By>,
    pub reason: Option<Reason>,
    pub request_id: Option<HeaderValue>,
    /// The tracestate that the next hop is told. Only of what is sampled, and not where it is longer than a span's.
    pub state: Option<HeaderValue>,
    /// Why somebody forced the trace, in Jaeger's words.
    pub debug_id: Option<HeaderValue>,
}

/// What became of a request without a context, whose application may be working on another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inferred {
    Link,
    Parent,
    /// Nothing: it works on several.
    Several,
    /// Nothing: it works on none.
    Nobody,
}

impl Inferred {
    pub fn name(self) -> &'static str {
        match self {
            Self::Link => "link",
            Self::Parent => "parent",
            Self::Several => "several",
            Self::Nobody => "nobody",
        }
    }
}

/// Continue takes the caller's trace and decision. Downgrade keeps the trace but not the decision. Restart begins a new
/// trace with a link to the old one, Ignore one without.
pub fn settle(
    headers: &mut HeaderMap,
    trust: Trust,
    rules: &Rules,
    request: &Request<'_>,
    origin: impl FnOnce() -> Option<Origin>,
    rng: &mut impl RngExt,
    ink: &mut Ink,
) -> Settled {
    let Walk { present, w3c, state, baggage, request_id } = Walk::over(headers);
    let mut notes = Notes::default();
    let propagation = &rules.propagation;
    let (winner, agreed, forced) = match present.any() {
        true => read(headers, present, w3c, &propagation.extract, &mut notes),
        false => (None, Set::default(), false),
    };
    let believed = matches!(trust, Trust::Continue | Trust::Downgrade);
    let ids = winner.and_then(|found| found.ids);
    let (mut context, mut decision) = match (believed, ids) {
        (true, Some(ids)) => {
            let random = winner.is_some_and(|found| found.random);
            let parent = ids.parent;
            (TraceContext { trace: ids.trace, parent, sampled: false, random, debug: false }, Decision::Open)
        }
        (_, ids) => {
            if trust == Trust::Restart {
                notes.link = ids.and_then(|ids| Some((ids.trace, ids.parent?)));
            }
            (TraceContext::root(rng), Decision::Open)
        }
    };
    if let Some(found) = winner {
        decision = if forced { Decision::Debug } else { found.decision };
    } else if notes.malformed.is_empty()
        && let Some(origin) = origin()
    {
        decision = infer(origin, propagation.infer_parent, &mut context, &mut notes);
    }
    if trust == Trust::Continue && decision == Decision::Debug {
        notes.debug_id = headers.get(jaeger::DEBUG_ID).filter(|_| present.has(Format::Jaeger)).cloned();
    }
    let mut state = state.end();
    if present.any() || present.state() {
        let kept = if believed && ids.is_some() { agreed } else { Set::default() };
        if clean(headers, present, kept, believed, propagation).has(Format::W3c) {
            state = Checked::Absent;
        }
        notes.state_malformed = state == Checked::Invalid && trust != Trust::Downgrade;
        if state != Checked::Absent && (notes.state_malformed || trust == Trust::Downgrade) {
            headers.remove(w3c::TRACESTATE);
            state = Checked::Absent;
        }
    }
    // Before rules look at it.
    if present.baggage() || present.other_baggage() {
        match (propagation.baggage, believed) {
            (false, _) => baggage::clear(headers),
            (true, false) => baggage::keep(headers, &propagation.stranger_baggage, ink),
            (true, true) if baggage.is_over() => {
                notes.baggage_cut = true;
                baggage::cut(headers, ink);
            }
            (true, true) => {}
        }
    }
    // A parent that was inferred is as good as one that was told.
    let trust = if notes.inferred == Some(Inferred::Parent) { Trust::Continue } else { trust };
    let asked = Asked { trust, decision, trace: context.trace, engine: &rules.sampling, request };
    let writes = propagation.inject.contains(&Format::W3c);
    let verdict = decide(headers, state, &asked, writes, ink);
    context.sampled = verdict.sampled;
    // What a capture takes is kept; whoever forced a trace wants more than that.
    context.debug = verdict.by == By::Forced && verdict.reason.seat == Seat::ARRIVED;
    notes.decided = Some(verdict.by);
    notes.reason = Some(verdict.reason);
    let stated = state != Checked::Absent || verdict.threshold != Told::Unchanged;
    notes.state = if verdict.sampled && stated { state::whole(headers) } else { None };
    if propagation.request_id {
        notes.request_id = request_id.or_else(|| make_request_id(headers, rng, ink));
    }
    Settled { context, notes }
}

/// Writes what the next hop is told. Returns the formats that could not say it.
pub fn inject(
    headers: &mut HeaderMap,
    rules: &Rules,
    context: &TraceContext,
    span: SpanId,
    hop: &propagate::Hop<'_>,
    ink: &mut Ink,
) -> Set {
    let mut unsaid = Set::default();
    for format in &rules.propagation.inject {
        if !propagate::write(*format, headers, context, span, hop, ink) {
            unsaid.add(*format);
        }
    }
    unsaid
}

/// The first format in order that can be read wins; what it leaves open the next ones may say. Returns what was said, the
/// formats that agree, and whether any of those forces the trace.
fn read(
    headers: &HeaderMap,
    present: Present,
    w3c: Reading,
    order: &[Format],
    notes: &mut Notes,
) -> (Option<Found>, Set, bool) {
    let (mut winner, mut agreed, mut forced) = (None::<Found>, Set::default(), false);
    for format in order.iter().filter(|format| present.has(**format)) {
        let reading = if *format == Format::W3c { w3c } else { propagate::read(*format, headers) };
        match (reading, winner) {
            (Reading::Absent, _) => {}
            (Reading::Malformed, _) => notes.malformed.add(*format),
            (Reading::Valid(found), Some(first)) if differ(&first, &found) => notes.disagreed.add(*format),
            (Reading::Valid(found), first) => {
                winner = Some(first.map_or(found, |first| first.filled(found)));
                notes.source.get_or_insert(*format);
                agreed.add(*format);
                forced |= found.decision == Decision::Debug;
            }
        }
    }
    (winner, agreed, forced)
}

/// Ids of which one was shortened on its way are the same if what is left is. A decision alone agrees with all who do not
/// contradict it.
fn differ(a: &Found, b: &Found) -> bool {
    if a.decision.contradicts(b.decision) {
        return true;
    }
    let (Some(a), Some(b)) = (a.ids, b.ids) else { return false };
    let (high, other) = (text::high(a.trace), text::high(b.trace));
    let parents = matches!((a.parent, b.parent), (Some(a), Some(b)) if a != b);
    parents || text::low(a.trace) != text::low(b.trace) || (high != other && high != 0 && other != 0)
}

fn infer(origin: Origin, as_parent: bool, context: &mut TraceContext, notes: &mut Notes) -> Decision {
    let (inferred, decision) = match origin {
        Origin::Nobody => (Inferred::Nobody, Decision::Open),
        Origin::Several => (Inferred::Several, Decision::Open),
        Origin::One(theirs, span) if as_parent => {
            *context = TraceContext { parent: Some(span), ..theirs };
            (Inferred::Parent, if theirs.debug { Decision::Debug } else { Decision::of(theirs.sampled) })
        }
        Origin::One(theirs, span) => {
            notes.link = Some((theirs.trace, span));
            (Inferred::Link, Decision::Open)
        }
    };
    notes.inferred = Some(inferred);
    decision
}

/// Only what agrees may leave something behind for its own format; what is not written would be stale. Returns what went.
fn clean(headers: &mut HeaderMap, present: Present, agreed: Set, believed: bool, propagation: &Propagation) -> Set {
    let (there, written) = (present.formats(), Set::from(&propagation.inject[..]));
    let unwritten = match !believed || propagation.normalise {
        true => there.without(written),
        false => there.without(written).and(Set::from(&propagation.clear[..])),
    };
    let stale = there.and(written).without(agreed);
    let gone = stale.or(unwritten);
    if !gone.is_empty() {
        gone.iter().for_each(|format| propagate::clear(format, headers));
    }
    gone
}

/// What is known for a decision before the tracestate was looked at.
struct Asked<'a> {
    trust: Trust,
    decision: Decision,
    trace: TraceId,
    engine: &'a Engine,
    request: &'a Request<'a>,
}

/// Asks for the decision and writes down what of it the next hop is told in tracestate.
fn decide(headers: &mut HeaderMap, state: Checked, asked: &Asked<'_>, writes: bool, ink: &mut Ink) -> Verdict {
    let (ours, has_ot) = match state {
        Checked::Valid { ours, ot } => (ours, ot),
        Checked::Absent | Checked::Invalid => (false, false),
    };
    let ot = has_ot.then(|| state::member(headers, state::OT)).flatten();
    let Asked { trust, decision, trace, engine, request } = *asked;
    let verdict = sample::decide(&Inputs { trust, decision, trace, ot, engine, request, headers });
    if let (Checked::Absent, Told::Set(threshold), true) = (state, verdict.threshold, writes) {
        state::begin(headers, (state::OT, &["th:", &threshold.digits()]), ink);
        return verdict;
    }
    let told = sample::told(ot, verdict.threshold);
    if ours || told.is_some() && writes {
        let told = told.as_deref();
        let without: &[&str] = if told == Some("") { &[state::OURS, state::OT] } else { &[state::OURS] };
        let with = told.filter(|text| !text.is_empty()).map(|text| (state::OT, text));
        state::rewrite(headers, &Edit { without, with }, ink);
    }
    verdict
}

/// In the shape of a UUID. One that came in any shape is kept instead.
fn make_request_id(headers: &mut HeaderMap, rng: &mut impl RngExt, ink: &mut Ink) -> Option<HeaderValue> {
    let mut bytes: [u8; 16] = rng.random();
    // RFC 9562 §5.4: version 4 and its variant.
    for (place, clear, set) in [(6, 0x0f, 0x40), (8, 0x3f, 0x80)] {
        if let Some(byte) = bytes.get_mut(place) {
            *byte = *byte & clear | set;
        }
    }
    // As long as a trace's id, and with that version never zero.
    let digits = TraceId::from_bytes(bytes)?.to_digits();
    let value = ink.value(36, |out| {
        let mut rest = &digits[..];
        for length in [8, 4, 4, 4, 12] {
            let Some((part, after)) = rest.split_at_checked(length) else { return };
            out.extend_from_slice(part);
            rest = after;
            if !rest.is_empty() {
                out.extend_from_slice(b"-");
            }
        }
    })?;
    headers.insert(REQUEST_ID, value.clone());
    Some(value)
}

pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::SmallRng;

    use super::*;
    use crate::rules::sampling::Plan;
    use crate::trace::propagate::FORMATS;

    const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
    const W3C: &str = "00-0af7651916cd43dd8448eb211c80319c-00f067aa0ba902b7-00";
    const W3C_SAMPLED: &str = "00-0af7651916cd43dd8448eb211c80319c-00f067aa0ba902b7-01";
    const B3: &str = "0af7651916cd43dd8448eb211c80319c-00f067aa0ba902b7-0";
    const OTHER: &str = "11111111111111111111111111111111-00f067aa0ba902b7-1";

    fn rules(change: impl FnOnce(&mut Propagation)) -> Rules {
        let mut propagation = Propagation { extract: FORMATS.to_vec(), ..Propagation::default() };
        change(&mut propagation);
        Rules { propagation, sampling: Arc::new(Engine::new(&Plan::default())) }
    }

    fn map(lines: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(HeaderName::from_static(name), HeaderValue::from_str(value).expect("a value"));
        }
        headers
    }

    fn settled(trust: Trust, rules: &Rules, lines: &[(&'static str, &str)]) -> (Settled, HeaderMap) {
        let mut headers = map(lines);
        let mut rng = SmallRng::seed_from_u64(1);
        let settled = settle(&mut headers, trust, rules, &Request::NOTHING, || None, &mut rng, &mut Ink::default());
        headers.remove(REQUEST_ID);
        (settled, headers)
    }

    #[test]
    fn a_trusted_caller_keeps_its_trace_its_decision_and_its_state() {
        let lines = [("traceparent", W3C), ("tracestate", "a=b"), ("tracestate", "c=d")];
        let (settled, headers) = settled(Trust::Continue, &rules(|_| {}), &lines);
        assert_eq!(settled.context.trace.to_string(), TRACE);
        assert!(!settled.context.sampled && !settled.context.random);
        assert_eq!(headers.get_all("tracestate").iter().collect::<Vec<_>>(), ["a=b", "c=d"]);
        assert_eq!((settled.notes.source, settled.notes.link), (Some(Format::W3c), None));
    }

    #[test]
    fn a_downgraded_caller_keeps_its_trace_only() {
        let lines = [("traceparent", W3C), ("tracestate", "a=b")];
        let (settled, headers) = settled(Trust::Downgrade, &rules(|_| {}), &lines);
        assert_eq!(settled.context.trace.to_string(), TRACE);
        assert!(settled.context.sampled && !headers.contains_key("tracestate"));
    }

    #[test]
    fn a_stranger_cannot_steer_and_only_a_restart_links_back() {
        for (trust, linked) in [(Trust::Restart, true), (Trust::Ignore, false)] {
            let lines = [
                ("traceparent", W3C),
                ("tracestate", "a=b"),
                ("x-b3-flags", "1"),
                ("x-datadog-origin", "rum"),
                ("baggage", "a=1,b=2"),
                ("uberctx-a", "1"),
                ("jaeger-debug-id", "x"),
            ];
            let rules = rules(|rules| {
                rules.stranger_baggage = vec!["b".into()];
                rules.inject = FORMATS.to_vec();
                rules.normalise = false;
            });
            let (settled, headers) = settled(trust, &rules, &lines);
            assert_ne!(settled.context.trace.to_string(), TRACE);
            assert_eq!(settled.context.parent, None);
            assert!(settled.context.sampled && settled.context.random && !settled.context.debug);
            let link = settled.notes.link.map(|(trace, span)| (trace.to_string(), span.to_string()));
            assert_eq!(link, linked.then(|| (TRACE.into(), "00f067aa0ba902b7".into())));
            assert_eq!(settled.notes.debug_id, None);
            assert_eq!(
                (headers.len(), headers.get("baggage").expect("baggage")),
                (1, &HeaderValue::from_static("b=2"))
            );
        }
    }

    #[test]
    fn the_first_that_can_be_read_wins_and_who_says_something_else_is_noted() {
        type Lines = &'static [(&'static str, &'static str)];
        let cases: [(Lines, _, &[Format], &[Format]); 9] = [
            (&[("traceparent", W3C), ("b3", B3)], Some(Format::W3c), &[], &[]),
            (&[("traceparent", W3C), ("b3", OTHER)], Some(Format::W3c), &[Format::B3], &[]),
            (&[("traceparent", W3C_SAMPLED), ("b3", B3)], Some(Format::W3c), &[Format::B3], &[]),
            (&[("traceparent", "garbage"), ("b3", B3)], Some(Format::B3), &[], &[Format::W3c]),
            (&[("traceparent", "garbage"), ("b3", "x")], None, &[], &[Format::W3c, Format::B3]),
            (
                &[("b3", B3), ("ot-tracer-traceid", "8448eb211c80319c"), ("ot-tracer-spanid", "00f067aa0ba902b7")],
                Some(Format::B3),
                &[],
                &[],
            ),
            (
                &[("b3", B3), ("ot-tracer-traceid", "8448eb211c80319d"), ("ot-tracer-spanid", "00f067aa0ba902b7")],
                Some(Format::B3),
                &[Format::Ottrace],
                &[],
            ),
            (&[("b3", "0"), ("uber-trace-id", "1:2:0:0")], Some(Format::B3), &[], &[]),
            (&[("b3", "0"), ("uber-trace-id", "1:2:0:1")], Some(Format::B3), &[Format::Jaeger], &[]),
        ];
        for (lines, source, disagreed, malformed) in cases {
            let lines: Vec<_> = lines.iter().map(|(name, value)| (*name, *value)).collect();
            let (settled, headers) = settled(Trust::Continue, &rules(|_| {}), &lines);
            assert_eq!(settled.notes.source, source, "{lines:?}");
            assert_eq!(settled.notes.disagreed.iter().collect::<Vec<_>>(), disagreed, "{lines:?}");
            assert_eq!(settled.notes.malformed.iter().collect::<Vec<_>>(), malformed, "{lines:?}");
            // What is not written is gone.
            assert!(headers.keys().all(|name| name == "traceparent"), "{headers:?}");
        }
    }

    #[test]
    fn what_the_first_leaves_open_is_filled_in_from_those_that_agree() {
        const RANDOM: &str = "00-0af7651916cd43dd8448eb211c80319c-00f067aa0ba902b7-02";
        let xray = "Root=1-0af76519-16cd43dd8448eb211c80319c";
        let order = |first: Format| rules(|rules| rules.extract = vec![first, Format::W3c]);
        let short =
            [("x-b3-traceid", "8448eb211c80319c"), ("x-b3-spanid", "00f067aa0ba902b7"), ("traceparent", RANDOM)];
        for (first, lines) in [
            // The upper half, the random flag and the decision; then the parent too; then all ids.
            (Format::B3Multi, &short[..]),
            (Format::Xray, &[("x-amzn-trace-id", xray), ("traceparent", RANDOM)]),
            (Format::B3, &[("b3", "0"), ("traceparent", RANDOM)]),
        ] {
            let (settled, _) = settled(Trust::Continue, &order(first), lines);
            let TraceContext { trace, parent, sampled, random, debug } = settled.context;
            assert_eq!(trace.to_string(), TRACE, "{first:?}");
            assert_eq!(parent.map(|span| span.to_string()).as_deref(), Some("00f067aa0ba902b7"), "{first:?}");
            assert_eq!((sampled, random, debug), (false, true, false), "{first:?}");
            assert_eq!((settled.notes.source, settled.notes.disagreed), (Some(first), Set::default()));
        }
    }

    #[test]
    fn a_decision_alone_begins_a_trace_that_keeps_it() {
        for (lines, sampled, debug) in [
            ([("b3", "0")], false, false),
            ([("b3", "1")], true, false),
            ([("b3", "d")], true, true),
            ([("jaeger-debug-id", "why")], true, true),
            ([("ot-tracer-sampled", "false")], false, false),
        ] {
            let (settled, headers) = settled(Trust::Continue, &rules(|_| {}), &lines);
            assert_eq!((settled.context.sampled, settled.context.debug), (sampled, debug), "{lines:?}");
            assert!(settled.context.parent.is_none() && headers.is_empty());
            assert_eq!(settled.notes.debug_id.is_some(), lines[0].0 == "jaeger-debug-id");
        }
    }

    #[test]
    fn a_force_in_one_format_holds_in_all_where_it_is_believed() {
        let lines = [("traceparent", W3C_SAMPLED), ("x-b3-flags", "1")];
        for (trust, debug) in [(Trust::Continue, true), (Trust::Downgrade, false), (Trust::Restart, false)] {
            let (settled, _) = settled(trust, &rules(|_| {}), &lines);
            assert_eq!(settled.context.debug, debug, "{trust:?}");
        }
    }

    #[test]
    fn what_agrees_keeps_its_own_and_what_does_not_leaves_nothing_behind() {
        let rules = rules(|rules| rules.inject = vec![Format::W3c, Format::Xray]);
        let same = "Root=1-0af76519-16cd43dd8448eb211c80319c;Parent=00f067aa0ba902b7;Lineage=a:1";
        let other = "Root=1-11111111-111111111111111111111111;Lineage=a:1";
        for (xray, stays) in [(same, true), (other, false)] {
            let lines = [("traceparent", W3C), ("x-amzn-trace-id", xray)];
            let (settled, mut headers) = settled(Trust::Continue, &rules, &lines);
            let span = SpanId::parse(b"1111111111111111").expect("a span");
            let hop = propagate::Hop { service: "", instance: "", path: "/", address: ([127, 0, 0, 1], 1).into() };
            assert!(inject(&mut headers, &rules, &settled.context, span, &hop, &mut Ink::default()).is_empty());
            let tail = if stays { ";Lineage=a:1" } else { "" };
            let expected = format!("Root=1-0af76519-16cd43dd8448eb211c80319c;Parent=1111111111111111;Sampled=0{tail}");
            assert_eq!(headers.get("x-amzn-trace-id").expect("xray"), expected.as_str());
        }
    }

    #[test]
    fn without_normalising_only_what_is_to_be_cleared_goes() {
        let rules = rules(|rules| {
            rules.extract = vec![Format::W3c];
            rules.normalise = false;
            rules.clear = vec![Format::Gcp];
        });
        let lines = [("b3", B3), ("sw8", "x"), ("x-cloud-trace-context", "x"), ("tracestate", "a=b")];
        let (settled, headers) = settled(Trust::Continue, &rules, &lines);
        assert_eq!(settled.notes.source, None);
        assert_eq!(headers.keys().map(HeaderName::as_str).collect::<Vec<_>>(), ["b3", "sw8"]);
    }

    #[test]
    fn a_list_that_is_none_goes_whole_and_the_meshs_member_goes_alone() {
        for (state, left, malformed) in [
            ("foo=,bar=3", None, true),
            ("a=1,spanmesh=x,b=2", Some("a=1,b=2"), false),
            ("spanmesh=x", None, false),
            ("ot=th:8;rv:00000000000000,a=1", Some("ot=rv:00000000000000,a=1"), false),
        ] {
            let lines = [("traceparent", W3C_SAMPLED), ("tracestate", state)];
            let (settled, headers) = settled(Trust::Continue, &rules(|_| {}), &lines);
            assert_eq!(headers.get("tracestate").map(|value| value.to_str().expect("text")), left, "{state}");
            assert_eq!(settled.notes.state_malformed, malformed, "{state}");
            assert_eq!(settled.context.trace.to_string(), TRACE);
        }
    }

    #[test]
    fn a_request_without_a_context_may_come_from_the_only_one_in_flight() {
        let theirs = TraceContext {
            trace: TraceId::parse(TRACE.as_bytes()).expect("a trace"),
            parent: None,
            sampled: false,
            random: true,
            debug: false,
        };
        let span = SpanId::parse(b"00f067aa0ba902b7").expect("a span");
        for (origin, as_parent, inferred) in [
            (Origin::One(theirs, span), false, Inferred::Link),
            (Origin::One(theirs, span), true, Inferred::Parent),
            (Origin::Several, true, Inferred::Several),
            (Origin::Nobody, true, Inferred::Nobody),
        ] {
            let rules = rules(|rules| rules.infer_parent = as_parent);
            let (mut rng, mut ink) = (SmallRng::seed_from_u64(1), Ink::default());
            let mut headers = map(&[]);
            let settled =
                settle(&mut headers, Trust::Continue, &rules, &Request::NOTHING, || Some(origin), &mut rng, &mut ink);
            assert_eq!(settled.notes.inferred, Some(inferred));
            assert_eq!(settled.notes.link, (inferred == Inferred::Link).then_some((theirs.trace, span)));
            let child = inferred == Inferred::Parent;
            assert_eq!((settled.context.trace == theirs.trace, settled.context.parent), (child, child.then_some(span)));
            assert_eq!(settled.context.sampled, !child);
            // One that says something, even if nobody can read it, comes from whom it says.
            let mut headers = map(&[("traceparent", "garbage")]);
            let settled =
                settle(&mut headers, Trust::Continue, &rules, &Request::NOTHING, || Some(origin), &mut rng, &mut ink);
            assert_eq!(settled.notes.inferred, None);
        }
    }

    #[test]
    fn a_request_id_is_made_where_it_is_missing_and_kept_in_any_shape() {
        let (mut rng, mut ink) = (SmallRng::seed_from_u64(1), Ink::default());
        let mut ask = |headers: &mut HeaderMap| {
            settle(headers, Trust::Restart, &rules(|_| {}), &Request::NOTHING, || None, &mut rng, &mut ink)
                .notes
                .request_id
        };
        let mut headers = HeaderMap::new();
        let made = ask(&mut headers).expect("an id");
        let text = made.to_str().expect("text");
        let lengths: Vec<_> = text.split('-').map(str::len).collect();
        assert_eq!((lengths, text.as_bytes()[14]), (vec![8, 4, 4, 4, 12], b'4'), "{text}");
        assert_eq!(headers.get(REQUEST_ID), Some(&made));
        for odd in ["", "x y,z", "1"] {
            let mut headers = map(&[("x-request-id", odd)]);
            assert_eq!(ask(&mut headers).expect("an id"), odd);
            assert_eq!(headers.get(REQUEST_ID).expect("an id"), odd);
        }
    }
}
