//! The formats in which a trace travels, one file each: what a request's headers say, and what the next hop's will.
//! Pure functions over header maps; which of several formats is believed, and how far, is `trust`'s affair.
//! A format owns its headers. What of them is not rewritten (a tracestate, unknown fields of X-Ray) is read again from
//! the headers when they are written, so what `trust` leaves in the map is what survives.

pub mod b3;
pub mod baggage;
pub mod binary;
pub mod datadog;
pub mod gcp;
pub mod ink;
pub mod jaeger;
pub mod ottrace;
pub mod present;
pub mod set;
pub mod skywalking;
pub mod state;
pub mod text;
pub mod w3c;
pub mod xray;

#[cfg(test)]
mod tests;

use http::HeaderMap;
use spanmesh_proto::{SpanId, TraceId};

use self::ink::Ink;
use self::present::Walk;
use super::context::TraceContext;
pub use crate::config::Format;

/// What one format's headers say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reading {
    Absent,
    Valid(Found),
    /// There, but unreadable, or there twice.
    Malformed,
}

/// What was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// A decision may come without a trace.
    pub ids: Option<Ids>,
    pub decision: Decision,
    /// W3C's random flag; no other format says it.
    pub random: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ids {
    pub trace: TraceId,
    /// Missing where only the trace is known, as behind a load balancer of AWS.
    pub parent: Option<SpanId>,
}

/// What the caller wants of the trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// It leaves that to us.
    Open,
    Deny,
    Accept,
    /// Accept, and no later rule may say otherwise.
    Debug,
}

/// What SkyWalking's callee is told of its caller.
#[derive(Clone, Copy, Debug)]
pub struct Hop<'a> {
    pub service: &'a str,
    pub instance: &'a str,
    /// What the caller calls.
    pub path: &'a str,
    pub address: std::net::SocketAddr,
}

impl Found {
    pub fn new(trace: TraceId, parent: Option<SpanId>, decision: Decision) -> Self {
        Self { ids: Some(Ids { trace, parent }), decision, random: false }
    }

    /// What this one leaves open is filled in from one that agrees with it: the decision, the parent, the upper half of the
    /// trace, or all ids.
    pub fn filled(self, other: Self) -> Self {
        let ids = match (self.ids, other.ids) {
            (Some(own), Some(other)) => {
                let trace = if text::high(own.trace) == 0 { other.trace } else { own.trace };
                Some(Ids { trace, parent: own.parent.or(other.parent) })
            }
            (own, other) => own.or(other),
        };
        let decision = if self.decision == Decision::Open { other.decision } else { self.decision };
        Self { ids, decision, random: self.random || other.random }
    }

    /// A decision about a trace that has yet to begin.
    pub fn decided(decision: Decision) -> Self {
        Self { ids: None, decision, random: false }
    }
}

impl Decision {
    pub fn of(accepted: bool) -> Self {
        if accepted { Self::Accept } else { Self::Deny }
    }

    /// Two that cannot both hold. Who leaves it open agrees with all.
    pub fn contradicts(self, other: Self) -> bool {
        match (self, other) {
            (Self::Open, _) | (_, Self::Open) => false,
            (Self::Deny, other) => other != Self::Deny,
            (Self::Accept | Self::Debug, other) => other == Self::Deny,
        }
    }
}

/// What a format says in these headers.
pub fn read(format: Format, headers: &HeaderMap) -> Reading {
    match format {
        Format::W3c => w3c::read(headers),
        Format::B3 => b3::read(headers),
        Format::B3Multi => b3::read_multi(headers),
        Format::Jaeger => jaeger::read(headers),
        Format::Xray => xray::read(headers),
        Format::Datadog => datadog::read(headers),
        Format::Gcp => gcp::read(headers),
        Format::Skywalking => skywalking::read(headers),
        Format::Binary => binary::read(headers),
        Format::Ottrace => ottrace::read(headers),
    }
}

/// Writes the trace for the next hop, whose parent is `span`. False where the format cannot say this trace.
pub fn write(
    format: Format,
    headers: &mut HeaderMap,
    context: &TraceContext,
    span: SpanId,
    hop: &Hop<'_>,
    ink: &mut Ink,
) -> bool {
    let written = match format {
        Format::W3c => w3c::write(headers, context, span, ink),
        Format::B3 => b3::write(headers, context, span, ink),
        Format::B3Multi => b3::write_multi(headers, context, span, ink),
        Format::Jaeger => jaeger::write(headers, context, span, ink),
        Format::Xray => xray::write(headers, context, span, ink),
        Format::Datadog => datadog::write(headers, context, span, ink),
        Format::Gcp => gcp::write(headers, context, span, ink),
        Format::Skywalking => skywalking::write(headers, context, span, hop, ink),
        Format::Binary => binary::write(headers, context, span, ink),
        Format::Ottrace => ottrace::write(headers, context, span, ink),
    };
    if written.is_none() {
        clear(format, headers);
    }
    written.is_some()
}

/// Takes a format's headers out.
pub fn clear(format: Format, headers: &mut HeaderMap) {
    let names: &[_] = match format {
        Format::W3c => &w3c::NAMES,
        Format::B3 => &b3::NAMES,
        Format::B3Multi => &b3::MULTI,
        Format::Jaeger => &jaeger::NAMES,
        Format::Xray => &xray::NAMES,
        Format::Datadog => &datadog::NAMES,
        Format::Gcp => &gcp::NAMES,
        Format::Skywalking => &skywalking::NAMES,
        Format::Binary => &binary::NAMES,
        Format::Ottrace => &ottrace::NAMES,
    };
    for name in names {
        headers.remove(name);
    }
}

/// Every format, in no order that means anything.
pub const FORMATS: [Format; 10] = [
    Format::W3c,
    Format::B3,
    Format::B3Multi,
    Format::Jaeger,
    Format::Xray,
    Format::Datadog,
    Format::Gcp,
    Format::Skywalking,
    Format::Binary,
    Format::Ottrace,
];

/// Lines of `name: value` as a request's headers, through every format: nothing panics, and what is read and written
/// is read the same again.
pub fn fuzz_formats(data: &[u8]) {
    let mut headers = HeaderMap::new();
    for text in data.split(|byte| *byte == b'\n').take(100) {
        let Some(colon) = text.iter().position(|byte| *byte == b':') else { continue };
        let (name, value) = text.split_at(colon);
        let name = http::HeaderName::from_bytes(name.trim_ascii());
        let value = http::HeaderValue::from_bytes(value.get(1..).unwrap_or_default().trim_ascii());
        if let (Ok(name), Ok(value)) = (name, value) {
            headers.append(name, value);
        }
    }
    let Walk { present, w3c, .. } = Walk::over(&headers);
    assert_eq!(w3c, w3c::read(&headers));
    let address = std::net::SocketAddr::from(([192, 0, 2, 1], 80));
    let hop = Hop { service: "s", instance: "i", path: "/", address };
    let mut ink = Ink::default();
    for format in FORMATS {
        let reading = read(format, &headers);
        assert!(reading == Reading::Absent || present.has(format), "{format:?}");
        let Reading::Valid(Found { ids: Some(Ids { trace, .. }), decision, random }) = reading else { continue };
        let Some(span) = text::span(7) else { continue };
        let context = TraceContext {
            trace,
            parent: None,
            sampled: matches!(decision, Decision::Accept | Decision::Debug),
            random,
            debug: decision == Decision::Debug,
        };
        for to in FORMATS {
            let mut headers = headers.clone();
            if write(to, &mut headers, &context, span, &hop, &mut ink) {
                let Reading::Valid(found) = read(to, &headers) else { panic!("{format:?} {to:?} {headers:?}") };
                let ids = found.ids.map(|ids| (text::low(ids.trace), ids.parent));
                assert_eq!(ids, Some((text::low(trace), Some(span))), "{format:?} {to:?}");
            }
        }
    }
    if state::check(&headers).is_valid() {
        let edit = state::Edit { without: &[state::OURS], with: Some((state::OT, "th:8")) };
        state::rewrite(&mut headers, &edit, &mut ink);
        assert!(state::check(&headers).is_valid());
    }
    baggage::keep(&mut headers, &["a".to_owned()], &mut ink);
}
