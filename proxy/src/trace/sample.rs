//! Whether spans are made of a request: one function, whose inputs are all there is to it. The facts of every request
//! are recorded in its exchange; this decides what becomes of them, and what the next hop is told.
//! Thresholds as OpenTelemetry has them in tracestate: a trace is kept if its randomness R reaches the threshold T.

use http::{HeaderMap, HeaderValue};
use spanmesh_proto::TraceId;

use super::propagate::Decision;
use super::propagate::text;
use crate::config::{ParentDecision, Trust};
use crate::rules::sampling::threshold::{self, DIGITS, MAX};
use crate::rules::sampling::{Choice, Engine, Request, Seat};

pub use crate::rules::sampling::Threshold;

/// All that a decision hangs on.
#[derive(Clone, Copy, Debug)]
pub struct Inputs<'a> {
    pub trust: Trust,
    /// What the caller said.
    pub decision: Decision,
    pub trace: TraceId,
    /// OpenTelemetry's member of tracestate, where the trace goes on with it.
    pub ot: Option<&'a str>,
    pub engine: &'a Engine,
    pub request: &'a Request<'a>,
    pub headers: &'a HeaderMap,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Verdict {
    pub sampled: bool,
    pub by: By,
    pub threshold: Told,
    pub reason: Reason,
}

/// What a decision rests on, for whoever counts it, tells it, or asks again at the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reason {
    /// The rule that decided, and whether it kept the trace by itself.
    pub seat: Seat,
    pub kept: bool,
    /// The boost that was for what would have been dropped, and whether it kept it instead.
    pub boost: Option<(Seat, bool)>,
    /// The chain of where the request goes.
    pub chain: Option<u16>,
    pub randomness: u64,
    /// The randomness is the root's and not the trace's.
    pub stated: bool,
}

/// Who decided: as `spanmesh.sampling.decision` has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    Head,
    Context,
    Forced,
    /// A boost, against what was decided before.
    Boost,
    /// What became of the request.
    Trigger,
}

impl By {
    pub fn name(self) -> &'static str {
        match self {
            Self::Head => "head",
            Self::Context => "context",
            Self::Forced => "forced",
            Self::Boost => "boost",
            Self::Trigger => "trigger",
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
    let Inputs { engine, request, headers, .. } = *inputs;
    let ot = inputs.ot.map(Ot::parse).unwrap_or_default();
    let randomness = ot.rv.unwrap_or_else(|| text::trace_number(inputs.trace) as u64 & MAX);
    let chain = engine.chain(request);
    let believed = match inputs.trust {
        Trust::Continue => inputs.decision,
        Trust::Downgrade | Trust::Restart | Trust::Ignore => Decision::Open,
    };
    let is_believed = inputs.trust == Trust::Continue;
    let reason = Reason { seat: Seat::ARRIVED, kept: false, boost: None, chain, randomness, stated: ot.rv.is_some() };
    let boost = || engine.boost(request, headers, is_believed, chain);
    match (engine.parent(), believed) {
        (_, Decision::Debug) => heard(true, By::Forced, &ot, reason),
        (ParentDecision::Respect, Decision::Accept) => heard(true, By::Context, &ot, reason),
        (ParentDecision::Respect, Decision::Deny) => {
            let Some(choice) = boost() else { return heard(false, By::Context, &ot, reason) };
            let guarded = engine.guarded();
            let kept = choice.threshold.is_some_and(|threshold| threshold.max(guarded).keeps(randomness));
            let reason = Reason { boost: Some((choice.seat, kept)), ..reason };
            if kept {
                // Of a trace that begins in its middle nobody knows with what probability it was kept.
                return Verdict { sampled: true, by: By::Boost, threshold: ot.erased(), reason };
            }
            heard(false, By::Context, &ot, reason)
        }
        (_, Decision::Open) | (ParentDecision::Ignore, Decision::Accept | Decision::Deny) => {
            if let Some(seat) = engine.capture(request, headers, is_believed, inputs.trace) {
                let reason = Reason { seat, kept: true, ..reason };
                return Verdict { sampled: true, by: By::Forced, threshold: ot.erased(), reason };
            }
            let head = engine.head(request, headers, is_believed, chain);
            begin(head, boost(), engine.guarded(), &ot, reason)
        }
    }
}

/// A caller's decision that is obeyed.
fn heard(sampled: bool, by: By, ot: &Ot, reason: Reason) -> Verdict {
    // A flag and a threshold that say different things: the flag is obeyed, and nobody counts with the threshold.
    let threshold = match ot.th {
        Some(threshold) if threshold.keeps(reason.randomness) != sampled => Told::Erased,
        _ => Told::Unchanged,
    };
    Verdict { sampled, by, threshold, reason: Reason { kept: sampled, ..reason } }
}

/// A trace that begins here. With a boost it is kept with the lower threshold of both, so that counting by it is right
/// whichever of them keeps it.
fn begin(head: Option<Choice>, boost: Option<Choice>, guarded: Threshold, ot: &Ot, reason: Reason) -> Verdict {
    let seat = head.map_or(Seat::UNRULED, |choice| choice.seat);
    let ruled = head.map_or(Some(Threshold::ALL), |choice| choice.threshold);
    let boosted = boost.and_then(|choice| choice.threshold);
    let lowest = match (ruled, boosted) {
        (Some(ruled), Some(boosted)) => Some(ruled.min(boosted)),
        (one, other) => one.or(other),
    };
    let keeps = |threshold: Option<Threshold>| {
        threshold.map(|threshold| threshold.max(guarded)).filter(|threshold| threshold.keeps(reason.randomness))
    };
    let kept = keeps(ruled).is_some();
    // Whatever the guard says of it: the guard goes by how many there are.
    let is_dropped = !ruled.is_some_and(|threshold| threshold.keeps(reason.randomness));
    let boost = boost.map(|choice| choice.seat).filter(|_| is_dropped);
    let reason = Reason { seat, kept, boost: boost.map(|boost| (boost, false)), ..reason };
    let Some(threshold) = keeps(lowest) else {
        return Verdict { sampled: false, by: By::Head, threshold: ot.erased(), reason };
    };
    // Where nobody has written a rule, nothing is said of what is kept of all.
    let told = if head.is_none() && threshold == Threshold::ALL { ot.erased() } else { Told::Set(threshold) };
    let by = if kept { By::Head } else { By::Boost };
    let reason = Reason { boost: boost.map(|boost| (boost, !kept)), ..reason };
    Verdict { sampled: true, by, threshold: told, reason }
}

/// `key:value;key:value`.
#[derive(Clone, Copy, Debug, Default)]
struct Ot {
    th: Option<Threshold>,
    rv: Option<u64>,
}

impl Ot {
    /// What is not as the specification has it says nothing.
    fn parse(text: &str) -> Self {
        Self::read(text).unwrap_or_default()
    }

    fn read(text: &str) -> Option<Self> {
        let mut ot = Self::default();
        if text.len() > LONGEST {
            return None;
        }
        for pair in text.split(';') {
            let (key, value) = pair.split_once(':')?;
            let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
            let is_key = key.starts_with(|first: char| first.is_ascii_lowercase())
                && key.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
            if !is_key || !value.bytes().all(plain) {
                return None;
            }
            match key {
                "th" => ot.th = Some(Threshold::parse(value)?),
                "rv" => ot.rv = Some(threshold::lower_hex(value).filter(|_| value.len() == DIGITS)?),
                _ => {}
            }
        }
        Some(ot)
    }

    fn erased(&self) -> Told {
        if self.th.is_some() { Told::Erased } else { Told::Unchanged }
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

/// The tracestate of a span whose request is kept for its end, with this threshold if it is known, and was sampled or not
/// before: it tells the lower threshold of both. `None`: as it is.
pub fn ended(
    state: Option<&HeaderValue>,
    reason: &Reason,
    sampled: bool,
    threshold: Option<Threshold>,
) -> Option<String> {
    if !sampled {
        let threshold = threshold.map(|threshold| format!("th:{}", threshold.digits()));
        let randomness = reason.stated.then(|| format!("rv:{:014x}", reason.randomness));
        let parts: Vec<String> = threshold.into_iter().chain(randomness).collect();
        return (!parts.is_empty()).then(|| format!("ot={}", parts.join(";")));
    }
    let threshold = threshold?;
    let text = state.map_or(Some(""), |state| state.to_str().ok())?;
    let members = || text.split(',').map(str::trim).filter(|member| !member.is_empty());
    let ot = members().find_map(|member| member.strip_prefix("ot="));
    match ot.and_then(|ot| Ot::parse(ot).th) {
        Some(before) if threshold < before => {}
        // A caller has kept it, nobody knows with what probability. Whatever that was: all that reach this are kept.
        None if reason.seat == Seat::ARRIVED => {}
        Some(_) | None => return None,
    }
    let first = format!("ot={}", told(ot, Told::Set(threshold))?);
    let others = members().filter(|member| !member.starts_with("ot=")).map(str::to_owned);
    Some([first].into_iter().chain(others).collect::<Vec<_>>().join(","))
}

fn pairs(text: &str) -> impl Iterator<Item = (&str, &str)> {
    text.split(';').filter_map(|pair| pair.split_once(':'))
}

/// Of OpenTelemetry's member.
const LONGEST: usize = 256;

#[cfg(test)]
mod agreement;
#[cfg(test)]
mod statistics;
#[cfg(test)]
mod vectors;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Mode, Sampling};
    use crate::rules::sampling::Plan;

    fn engine(yaml: &str) -> Engine {
        let text = format!(
            "version: 1\nrole: standalone\nlisteners:\n- {{name: in, mode: outbound, address: '127.0.0.1:1'}}\npolicy: {{sampling: {yaml}}}\n"
        );
        let config = crate::config::parse(&text, "test.yaml", std::iter::empty()).unwrap();
        Engine::new(&Plan::from(&config.policy.sampling))
    }

    fn head(action: &str) -> Engine {
        engine(&format!("{{head: {{rules: [{{action: {action}}}]}}}}"))
    }

    const REQUEST: Request<'_> = Request { side: Mode::Gateway, ..Request::NOTHING };

    fn decided(trust: Trust, decision: Decision, ot: Option<&str>, engine: &Engine) -> Verdict {
        let trace = TraceId::parse(b"0af7651916cd43dd8048eb211c80319c").expect("an id");
        decide(&Inputs { trust, decision, trace, ot, engine, request: &REQUEST, headers: &HeaderMap::new() })
    }

    #[test]
    fn a_caller_decides_where_it_is_believed() {
        let usual = Engine::new(&Plan::from(&Sampling::default()));
        for (trust, decision, sampled, by) in [
            (Trust::Continue, Decision::Deny, false, By::Context),
            (Trust::Continue, Decision::Accept, true, By::Context),
            (Trust::Continue, Decision::Debug, true, By::Forced),
            (Trust::Continue, Decision::Open, true, By::Head),
            (Trust::Downgrade, Decision::Deny, true, By::Head),
            (Trust::Restart, Decision::Debug, true, By::Head),
        ] {
            let verdict = decided(trust, decision, None, &usual);
            assert_eq!((verdict.sampled, verdict.by), (sampled, by), "{trust:?} {decision:?}");
        }
        let never = engine("{parent: Ignore, head: {rules: [{action: {never: {}}}]}}");
        let kept = |trust| decided(trust, Decision::Debug, None, &never).sampled;
        assert!(kept(Trust::Continue) && !kept(Trust::Downgrade) && !kept(Trust::Restart));
        let ignoring = engine("{parent: Ignore}");
        assert!(decided(Trust::Continue, Decision::Deny, None, &ignoring).sampled);
    }

    #[test]
    fn randomness_is_the_traces_or_what_the_root_said() {
        let half = head("{probability: '0.5'}");
        let decided = |ot| decided(Trust::Continue, Decision::Open, ot, &half);
        // 48eb… is below one half.
        assert!(!decided(None).sampled);
        let verdict = decided(Some("rv:80000000000000"));
        assert_eq!((verdict.sampled, verdict.threshold), (true, Told::Set(Threshold::of(0.5).unwrap())));
        assert_eq!(told(Some("rv:80000000000000"), verdict.threshold).as_deref(), Some("th:8;rv:80000000000000"));
        // Not fourteen digits: no randomness of the root's.
        assert!(!decided(Some("rv:8")).sampled);
    }

    #[test]
    fn a_boost_keeps_what_a_caller_or_a_rule_has_dropped() {
        let both = engine("{head: {rules: [{action: {never: {}}}], boost: [{name: debug, action: {always: {}}}]}}");
        for decision in [Decision::Open, Decision::Deny] {
            let verdict = decided(Trust::Continue, decision, Some("th:c;rv:80000000000000"), &both);
            assert_eq!((verdict.sampled, verdict.by), (true, By::Boost));
            let id = verdict.reason.boost.and_then(|(seat, _)| both.id(seat)).unwrap();
            assert_eq!((&*id.policy, &*id.rule), ("file", "debug"));
            let told = if decision == Decision::Open { Told::Set(Threshold::ALL) } else { Told::Erased };
            assert_eq!(verdict.threshold, told);
        }
        let most = engine("{head: {rules: [{action: {probability: '0.1'}}], boost: [{action: {probability: '0.5'}}]}}");
        let verdict = decided(Trust::Continue, Decision::Open, Some("rv:ffffffffffffff"), &most);
        assert_eq!((verdict.by, verdict.threshold), (By::Head, Told::Set(Threshold::of(0.5).unwrap())));
    }

    #[test]
    fn the_member_is_read_as_the_specification_has_it() {
        for (text, th) in [
            ("th:2", Some("2")),
            ("th:ab", Some("ab")),
            ("th:abcdefabcdefab", Some("abcdefabcdefab")),
            ("th:1000", Some("1")),
            ("th:2;extra:stuff", Some("2")),
            ("x:", None),
            ("x1y2z3:1-2-3;y1:y_1;xy:-;th:50", Some("5")),
            ("rv:ffffffffffffff", None),
            ("path:0", None),
        ] {
            let read = Ot::read(text);
            let digits = read.map(|ot| ot.th.map(|threshold| threshold.digits().to_string()));
            assert_eq!(digits, Some(th.map(str::to_owned)), "{text}");
        }
        assert_eq!(Ot::parse("rv:ffffffffffffff").rv, Some(MAX));
        for bad in [
            "",
            "th:1;",
            "th:1=p:2",
            ":1;th:1",
            "th:$",
            "th:0x1p+3",
            "th:14.5",
            "th:-1",
            "1:1;u:V",
            "X:1;u:V",
            "x:1;",
            "th:100000000000000",
            "th:ffffffffffffffff",
            "rv:ffffffffffff",
            "rv:fffffffffffffff",
        ] {
            assert!(Ot::read(bad).is_none(), "{bad}");
        }
        assert!(Ot::read(&format!("x:{}", "y".repeat(255))).is_none());
        // th, with what is told besides; others stay.
        let eight = Told::Set(Threshold::of(0.5).unwrap());
        assert_eq!(told(Some("th:0ad;other:value"), eight).as_deref(), Some("th:8;other:value"));
        assert_eq!(told(Some("th:0;rv:9b8233f7e3a151"), eight).as_deref(), Some("th:8;rv:9b8233f7e3a151"));
        // A stage behind another only raises: 8 and two of sixteen are e, f and eight of sixteen stay f.
        let raised = |th: &str, part: f64| Threshold::parse(th).unwrap().max(Threshold::of(part).unwrap()).digits();
        for (th, part, expected) in
            [("8", 2.0 / 16.0, "e"), ("8", 14.0 / 16.0, "8"), ("f", 0.5, "f"), ("0", 1.0 / 16.0, "f"), ("8", 1.0, "8")]
        {
            assert_eq!(raised(th, part), expected);
        }
    }

    #[test]
    fn a_flag_that_its_threshold_contradicts_is_obeyed_and_the_threshold_erased() {
        let usual = Engine::new(&Plan::default());
        for (decision, ot, threshold) in [
            (Decision::Accept, "th:4;rv:80000000000000", Told::Unchanged),
            (Decision::Deny, "th:4;rv:80000000000000", Told::Erased),
            (Decision::Accept, "th:c;rv:80000000000000", Told::Erased),
            (Decision::Deny, "th:c;rv:80000000000000", Told::Unchanged),
            (Decision::Accept, "path:0", Told::Unchanged),
        ] {
            let verdict = decided(Trust::Continue, decision, Some(ot), &usual);
            assert_eq!((verdict.sampled, verdict.threshold), (decision == Decision::Accept, threshold), "{ot}");
        }
        assert_eq!(told(Some("th:4;other:value"), Told::Erased).as_deref(), Some("other:value"));
        assert_eq!(told(Some("th:4"), Told::Erased).as_deref(), Some(""));
        assert_eq!(told(Some("th:4"), Told::Unchanged), None);
    }
}
