//! Whether spans are made of a request: one function, whose inputs are all there is to it. The facts of every request
//! are recorded in its exchange; this decides what becomes of them, and what the next hop is told.
//! Thresholds as OpenTelemetry has them in tracestate: a trace is kept if its randomness R reaches the threshold T.

use spanmesh_proto::TraceId;

use super::propagate::Decision;
use super::propagate::text;
use crate::config::{ParentDecision, Sampling, SamplingAction, Trust};

/// Which traces are kept.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Policy {
    /// As its caller decided; the other where there is no decision.
    Parent(Head),
    /// Whatever the caller decided.
    Head(Head),
}

/// Which new traces are kept.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Head {
    Always,
    Never,
    Probability(Threshold),
}

impl Default for Policy {
    fn default() -> Self {
        Self::Parent(Head::Always)
    }
}

impl From<&Sampling> for Policy {
    fn from(written: &Sampling) -> Self {
        let head = match written.head.rules.first().map(|rule| rule.action) {
            // Rates are not followed yet.
            None | Some(SamplingAction::Always | SamplingAction::RateLimit(_) | SamplingAction::Adaptive(_)) => {
                Head::Always
            }
            Some(SamplingAction::Never) => Head::Never,
            // What is no probability was refused where it was read.
            Some(SamplingAction::Probability(part)) => Threshold::of(part).map_or(Head::Never, Head::Probability),
        };
        match written.parent {
            ParentDecision::Respect => Self::Parent(head),
            ParentDecision::Ignore => Self::Head(head),
        }
    }
}

/// 56 bits: how many of all traces are dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Threshold(u64);

/// All that a decision hangs on.
#[derive(Clone, Copy, Debug)]
pub struct Inputs<'a> {
    pub trust: Trust,
    /// What the caller said.
    pub decision: Decision,
    pub trace: TraceId,
    /// OpenTelemetry's member of tracestate, where the trace goes on with it.
    pub ot: Option<&'a str>,
    pub policy: Policy,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Verdict {
    pub sampled: bool,
    pub by: By,
    pub threshold: Told,
}

/// Who decided: as `spanmesh.sampling.decision` has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    Head,
    Context,
    Forced,
}

impl By {
    pub fn name(self) -> &'static str {
        match self {
            Self::Head => "head",
            Self::Context => "context",
            Self::Forced => "forced",
        }
    }
}

/// What the next hop is told of the threshold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    Unchanged,
    Set(Threshold),
    /// With what probability this was kept is not known.
    Erased,
}

pub fn decide(inputs: &Inputs<'_>) -> Verdict {
    let ot = inputs.ot.map(Ot::parse).unwrap_or_default();
    let randomness = ot.rv.unwrap_or_else(|| text::trace_number(inputs.trace) as u64 & MAX);
    let believed = match inputs.trust {
        Trust::Continue => inputs.decision,
        Trust::Downgrade | Trust::Restart | Trust::Ignore => Decision::Open,
    };
    let (sampled, by) = match (inputs.policy, believed) {
        (_, Decision::Debug) => (true, By::Forced),
        (Policy::Parent(_), Decision::Accept) => (true, By::Context),
        (Policy::Parent(_), Decision::Deny) => (false, By::Context),
        (Policy::Parent(head), Decision::Open) | (Policy::Head(head), _) => return begin(head, randomness, &ot),
    };
    // A flag and a threshold that say different things: the flag is obeyed, and nobody counts with the threshold.
    let threshold = match ot.th {
        Some(threshold) if (randomness >= threshold.0) != sampled => Told::Erased,
        _ => Told::Unchanged,
    };
    Verdict { sampled, by, threshold }
}

fn begin(head: Head, randomness: u64, ot: &Ot) -> Verdict {
    let unknown = if ot.th.is_some() { Told::Erased } else { Told::Unchanged };
    let (sampled, threshold) = match head {
        Head::Always => (true, unknown),
        Head::Never => (false, unknown),
        Head::Probability(threshold) if randomness >= threshold.0 => (true, Told::Set(threshold)),
        Head::Probability(_) => (false, unknown),
    };
    Verdict { sampled, by: By::Head, threshold }
}

impl Threshold {
    /// In four digits behind those that are `f`, as OpenTelemetry's own samplers have it, so that thresholds from
    /// elsewhere are the same. `None` for what is no probability: never is not one.
    pub fn of(probability: f64) -> Option<Self> {
        if !(SMALLEST..=1.0).contains(&probability) {
            return None;
        }
        let kept = (probability * (MAX + 1) as f64).round() as u64;
        let exact = (MAX + 1).saturating_sub(kept).min(MAX);
        let full = (exact << 8).leading_ones() as usize / 4;
        let unit = 1u64 << (4 * DIGITS.saturating_sub(full + PRECISION));
        // Rounded up to a digit more it may be all of them, and then nothing would be kept.
        Some(Self(exact.saturating_add(unit / 2).min(MAX) / unit * unit))
    }

    /// 1 to 14 hexadecimal digits, zeros at the end left out.
    pub fn parse(digits: &str) -> Option<Self> {
        let value = lower_hex(digits)?;
        Some(Self(value << (4 * (DIGITS - digits.len()))))
    }

    pub fn digits(self) -> String {
        let digits = format!("{:014x}", self.0);
        let short = digits.trim_end_matches('0');
        if short.is_empty() { "0".into() } else { short.into() }
    }
}

/// `key:value;key:value`.
#[derive(Clone, Copy, Debug, Default)]
struct Ot {
    th: Option<Threshold>,
    rv: Option<u64>,
}

impl Ot {
    fn parse(text: &str) -> Self {
        let value = |name| pairs(text).find(|(key, _)| *key == name).map(|(_, value)| value);
        Self {
            th: value("th").and_then(Threshold::parse),
            rv: value("rv").filter(|digits| digits.len() == DIGITS).and_then(lower_hex),
        }
    }
}

/// The member's new value; empty if nothing is left of it.
pub fn told(ot: Option<&str>, threshold: Told) -> Option<String> {
    let first = match threshold {
        Told::Unchanged => return None,
        Told::Erased => None,
        Told::Set(threshold) => Some(format!("th:{}", threshold.digits())),
    };
    let others = pairs(ot.unwrap_or_default()).filter(|(key, _)| *key != "th");
    let others = others.map(|(key, value)| format!("{key}:{value}"));
    let mut parts: Vec<String> = first.into_iter().chain(others).collect();
    let mut text = parts.join(";");
    while text.len() > LONGEST {
        parts.pop();
        text = parts.join(";");
    }
    Some(text)
}

fn pairs(text: &str) -> impl Iterator<Item = (&str, &str)> {
    text.split(';').filter_map(|pair| pair.split_once(':'))
}

fn lower_hex(digits: &str) -> Option<u64> {
    let fine = !digits.is_empty() && digits.len() <= DIGITS && !digits.bytes().any(|byte| byte.is_ascii_uppercase());
    fine.then(|| text::hex(digits.as_bytes(), DIGITS)).flatten().map(|number| number as u64)
}

const DIGITS: usize = 14;
const PRECISION: usize = 4;
const MAX: u64 = (1 << 56) - 1;
/// 2^-56.
const SMALLEST: f64 = 1.0 / (1u64 << 56) as f64;
/// Of OpenTelemetry's member.
const LONGEST: usize = 256;

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::SmallRng;

    use super::*;
    use crate::trace::context::TraceContext;

    const TRACES: u32 = 200_000;

    fn inputs(decision: Decision, ot: Option<&str>, policy: Policy) -> Inputs<'_> {
        let trace = TraceId::parse(b"0af7651916cd43dd8048eb211c80319c").expect("an id");
        Inputs { trust: Trust::Continue, decision, trace, ot, policy }
    }

    fn half() -> Head {
        Head::Probability(Threshold::of(0.5).expect("a probability"))
    }

    #[test]
    fn thresholds() {
        for (probability, digits) in [
            (1.0, "0"),
            (0.5, "8"),
            (0.25, "c"),
            (1.0 / 256.0, "ff"),
            (2f64.powi(-16), "ffff"),
            (SMALLEST, "ffffffffffffff"),
        ] {
            let threshold = Threshold::of(probability).expect("a probability");
            assert_eq!(threshold.digits(), digits);
            assert_eq!(Threshold::parse(digits), Some(threshold));
        }
        for (probability, digits) in [
            (1.0 / 3.0, "aaab"),
            (2.0 / 3.0, "5555"),
            (0.2, "cccd"),
            (0.1, "e666"),
            (0.01, "fd70a"),
            (0.001, "ffbe77"),
            (0.0001, "fff9724"),
            (0.00001, "ffff583a"),
            (0.000001, "ffffef39"),
            (0.75, "4"),
            (0.6, "6666"),
            (0.4, "999a"),
            (0.3, "b333"),
            (0.15, "d99a"),
            (0.05, "f3333"),
            (0.02, "fae14"),
            (0.005, "feb85"),
            (0.0005, "ffdf3b"),
        ] {
            assert_eq!(Threshold::of(probability).expect("a probability").digits(), digits, "{probability}");
        }
        for none in [0.0, -1.0, 1.1, f64::NAN, SMALLEST / 2.0] {
            assert_eq!(Threshold::of(none), None);
        }
        for bad in ["", "0AD", "x", "123456789012345"] {
            assert_eq!(Threshold::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_caller_decides_where_it_is_believed() {
        for (trust, decision, sampled, by) in [
            (Trust::Continue, Decision::Deny, false, By::Context),
            (Trust::Continue, Decision::Accept, true, By::Context),
            (Trust::Continue, Decision::Debug, true, By::Forced),
            (Trust::Continue, Decision::Open, true, By::Head),
            (Trust::Downgrade, Decision::Deny, true, By::Head),
            (Trust::Restart, Decision::Debug, true, By::Head),
        ] {
            let verdict = decide(&Inputs { trust, ..inputs(decision, None, Policy::default()) });
            assert_eq!((verdict.sampled, verdict.by), (sampled, by), "{trust:?} {decision:?}");
        }
        let never = |trust| decide(&Inputs { trust, ..inputs(Decision::Debug, None, Policy::Head(Head::Never)) });
        assert!(never(Trust::Continue).sampled && !never(Trust::Downgrade).sampled && !never(Trust::Restart).sampled);
        assert!(decide(&inputs(Decision::Deny, None, Policy::Head(Head::Always))).sampled);
    }

    #[test]
    fn randomness_is_the_traces_or_what_the_root_said() {
        let policy = Policy::Parent(half());
        // 48eb… is below one half.
        assert!(!decide(&inputs(Decision::Open, None, policy)).sampled);
        let verdict = decide(&inputs(Decision::Open, Some("rv:80000000000000"), policy));
        assert_eq!((verdict.sampled, verdict.threshold), (true, Told::Set(Threshold(1 << 55))));
        assert_eq!(told(Some("rv:80000000000000"), verdict.threshold).as_deref(), Some("th:8;rv:80000000000000"));
        // Not fourteen digits: no randomness of the root's.
        assert!(!decide(&inputs(Decision::Open, Some("rv:8"), policy)).sampled);
    }

    #[test]
    fn as_many_are_kept_as_the_probability_says() {
        let mut rng = SmallRng::seed_from_u64(5);
        for probability in [0.001, 0.05, 0.25, 0.5, 0.9] {
            let policy = Policy::Parent(Head::Probability(Threshold::of(probability).expect("a probability")));
            let mut kept = 0.0;
            for _ in 0..TRACES {
                let trace = TraceContext::root(&mut rng).trace;
                kept += f64::from(u8::from(decide(&Inputs { trace, ..inputs(Decision::Open, None, policy) }).sampled));
            }
            let expected = f64::from(TRACES) * probability;
            // Five standard deviations.
            let allowed = 5.0 * (expected * (1.0 - probability)).sqrt();
            assert!((kept - expected).abs() < allowed, "{kept} of {TRACES} at {probability}");
        }
    }

    #[test]
    fn a_flag_that_its_threshold_contradicts_is_obeyed_and_the_threshold_erased() {
        for (decision, ot, threshold) in [
            (Decision::Accept, "th:4;rv:80000000000000", Told::Unchanged),
            (Decision::Deny, "th:4;rv:80000000000000", Told::Erased),
            (Decision::Accept, "th:c;rv:80000000000000", Told::Erased),
            (Decision::Deny, "th:c;rv:80000000000000", Told::Unchanged),
            (Decision::Accept, "path:0", Told::Unchanged),
        ] {
            let verdict = decide(&inputs(decision, Some(ot), Policy::default()));
            assert_eq!((verdict.sampled, verdict.threshold), (decision == Decision::Accept, threshold), "{ot}");
        }
        assert_eq!(told(Some("th:4;other:value"), Told::Erased).as_deref(), Some("other:value"));
        assert_eq!(told(Some("th:4"), Told::Erased).as_deref(), Some(""));
        assert_eq!(told(Some("th:4"), Told::Unchanged), None);
    }
}
