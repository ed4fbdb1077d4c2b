//! How much of what a caller says about its trace is believed: the listener's `trust`.
//! Pure: headers and randomness in, a context out. The request's headers are cleaned of what is not believed.

use http::{HeaderMap, HeaderName};
use rand::RngExt;

use super::context::TraceContext;
use super::w3c::{self, Extracted};
use crate::config::Trust;

/// The context of a request, and whether what it brought was unreadable.
pub struct Settled {
    pub context: TraceContext,
    pub malformed: bool,
}

/// Continue takes the caller's trace and decision. Downgrade keeps the trace but not the decision. Restart and Ignore
/// begin a new trace; nothing that the caller said about the old one travels on.
pub fn settle(headers: &mut HeaderMap, trust: Trust, baggage: bool, rng: &mut impl RngExt) -> Settled {
    if !baggage {
        headers.remove(BAGGAGE);
    }
    let extracted = w3c::extract(headers);
    let malformed = extracted == Extracted::Malformed;
    let context = match (trust, extracted) {
        (Trust::Continue, Extracted::Valid(context)) => context,
        (Trust::Downgrade, Extracted::Valid(context)) => {
            headers.remove(w3c::TRACESTATE);
            TraceContext { sampled: true, ..context }
        }
        (Trust::Continue | Trust::Downgrade | Trust::Restart | Trust::Ignore, _) => {
            headers.remove(w3c::TRACESTATE);
            TraceContext::root(rng)
        }
    };
    Settled { context, malformed }
}

const BAGGAGE: HeaderName = HeaderName::from_static("baggage");

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use rand::{SeedableRng, rngs::SmallRng};

    use super::*;

    const UNSAMPLED: &str = "00-0af7651916cd43dd8448eb211c80319c-00f067aa0ba902b7-00";

    fn settled(trust: Trust) -> (Settled, HeaderMap) {
        let mut headers = HeaderMap::new();
        headers.insert(w3c::TRACEPARENT, HeaderValue::from_static(UNSAMPLED));
        headers.insert(w3c::TRACESTATE, HeaderValue::from_static("a=b"));
        let settled = settle(&mut headers, trust, true, &mut SmallRng::seed_from_u64(1));
        (settled, headers)
    }

    #[test]
    fn a_trusted_caller_keeps_its_trace_its_decision_and_its_state() {
        let (settled, headers) = settled(Trust::Continue);
        assert_eq!(settled.context.trace.to_string(), "0af7651916cd43dd8448eb211c80319c");
        assert!(!settled.context.sampled);
        assert!(headers.contains_key(w3c::TRACESTATE));
    }

    #[test]
    fn a_downgraded_caller_keeps_its_trace_only() {
        let (settled, headers) = settled(Trust::Downgrade);
        assert_eq!(settled.context.trace.to_string(), "0af7651916cd43dd8448eb211c80319c");
        assert!(settled.context.sampled);
        assert!(!headers.contains_key(w3c::TRACESTATE));
    }

    #[test]
    fn a_stranger_cannot_steer() {
        for trust in [Trust::Restart, Trust::Ignore] {
            let (settled, headers) = settled(trust);
            assert_ne!(settled.context.trace.to_string(), "0af7651916cd43dd8448eb211c80319c");
            assert_eq!(settled.context.parent, None);
            assert!(!headers.contains_key(w3c::TRACESTATE));
        }
    }
}
