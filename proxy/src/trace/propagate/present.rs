//! Which formats a request may be in, found in one walk over its headers: to look each of them up would cost more than the
//! rest of the settling. What nearly every request has is read on the way. A name that is noted here belongs to its format and
//! may be taken out with it.

use http::{HeaderMap, HeaderValue};

use super::baggage::Size;
use super::set::Set;
use super::state::Check;
use super::{Format, Reading, w3c};

/// What the walk finds.
pub struct Walk {
    pub present: Present,
    /// What `traceparent` says.
    pub w3c: Reading,
    pub state: Check,
    pub baggage: Size,
    pub request_id: Option<HeaderValue>,
}

/// A set of formats and of what travels beside them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Present(u16);

impl Walk {
    pub fn over(headers: &HeaderMap) -> Self {
        let mut walk = Self {
            present: Present::default(),
            w3c: Reading::Absent,
            state: Check::default(),
            baggage: Size::default(),
            request_id: None,
        };
        for (name, value) in headers {
            let field = Present::field(name.as_str());
            walk.present.0 |= field.0;
            match field {
                Present::W3C => walk.w3c = w3c::and(walk.w3c, value),
                Present::STATE => walk.state.line(value),
                Present::BAGGAGE => walk.baggage.add(value),
                Present::REQUEST_ID if walk.request_id.is_none() => walk.request_id = Some(value.clone()),
                _ => {}
            }
        }
        walk
    }
}

impl Present {
    const W3C: Self = Self(1 << Format::W3c as u16);
    /// `tracestate`, with or without a `traceparent`.
    const STATE: Self = Self(1 << 10);
    /// W3C `baggage`.
    const BAGGAGE: Self = Self(1 << 11);
    /// Baggage in other formats' headers.
    const OTHER_BAGGAGE: Self = Self(1 << 12);
    const REQUEST_ID: Self = Self(1 << 13);

    pub fn has(self, format: Format) -> bool {
        self.0 & Self::from(format).0 != 0
    }

    /// All formats of which something is there; a tracestate without a traceparent is W3C's too.
    pub fn formats(self) -> Set {
        let state = self.0 & Self::STATE.0;
        Set::from_bits((self.0 | state >> 10) & (Self::STATE.0 - 1))
    }

    /// Whether any format at all may be there.
    pub fn any(self) -> bool {
        self.0 & (Self::STATE.0 - 1) != 0
    }

    pub fn state(self) -> bool {
        self.0 & Self::STATE.0 != 0
    }

    pub fn baggage(self) -> bool {
        self.0 & Self::BAGGAGE.0 != 0
    }

    pub fn other_baggage(self) -> bool {
        self.0 & Self::OTHER_BAGGAGE.0 != 0
    }

    fn field(name: &str) -> Self {
        match name.as_bytes().first() {
            Some(b't') if name == "traceparent" => Self::W3C,
            Some(b't') if name == "tracestate" => Self::STATE,
            Some(b'b') if name == "b3" => Format::B3.into(),
            Some(b'b') if name == "baggage" => Self::BAGGAGE,
            Some(b'x') => match name {
                "x-request-id" => Self::REQUEST_ID,
                "x-amzn-trace-id" => Format::Xray.into(),
                "x-cloud-trace-context" => Format::Gcp.into(),
                _ if name.starts_with("x-b3-") => Format::B3Multi.into(),
                _ if name.starts_with("x-datadog-") => Format::Datadog.into(),
                _ => Self::default(),
            },
            Some(b'u') if name == "uber-trace-id" => Format::Jaeger.into(),
            Some(b'u') if name.starts_with("uberctx-") => Self::OTHER_BAGGAGE,
            Some(b'j') if name == "jaeger-debug-id" => Format::Jaeger.into(),
            Some(b'j') if name == "jaeger-baggage" => Self::OTHER_BAGGAGE,
            Some(b's') if name == "sw8-correlation" => Self::OTHER_BAGGAGE,
            Some(b's') if name == "sw8" || name == "sw8-x" => Format::Skywalking.into(),
            Some(b'g') if name == "grpc-trace-bin" => Format::Binary.into(),
            Some(b'o') if name.starts_with("ot-tracer-") => Format::Ottrace.into(),
            Some(b'o') if name.starts_with("ot-baggage-") => Self::OTHER_BAGGAGE,
            _ => Self::default(),
        }
    }
}

impl From<Format> for Present {
    fn from(format: Format) -> Self {
        Self(1 << format as u16)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::propagate::{FORMATS, b3, binary, datadog, gcp, jaeger, ottrace, skywalking, w3c, xray};

    #[test]
    fn every_header_that_a_format_owns_is_noted() {
        for (format, names) in [
            (Format::B3, &b3::NAMES[..]),
            (Format::B3Multi, &b3::MULTI),
            (Format::Jaeger, &jaeger::NAMES),
            (Format::Xray, &xray::NAMES),
            (Format::Datadog, &datadog::NAMES),
            (Format::Gcp, &gcp::NAMES),
            (Format::Skywalking, &skywalking::NAMES),
            (Format::Binary, &binary::NAMES),
            (Format::Ottrace, &ottrace::NAMES),
            (Format::W3c, &w3c::NAMES[..1]),
        ] {
            for name in names {
                assert!(Present::field(name.as_str()) == format.into(), "{name}");
                assert!(Present::field(name.as_str()).any(), "{name}");
            }
        }
        assert_eq!(FORMATS.map(|format| 1 << format as u16).iter().sum::<u16>(), Present::STATE.0 - 1);
        assert!(Present::field("baggage").baggage() && Present::field("tracestate").state());
        assert!(Present::field("x-b4") == Present::default() && Present::field("") == Present::default());
    }
}
