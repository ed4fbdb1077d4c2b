//! A greater share keeps all that a lower one keeps, and proxies with the same policy disagree on no trace, however that trace
//! came. Traces and policies are made by chance from fixed seeds.

use std::sync::Arc;
use std::time::Duration;

use http::Method;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use super::*;
use crate::config::{Match, Mode, PathKind, PathMatch, RateLimit};
use crate::rules::sampling::Steward;
use crate::rules::sampling::plan::{Action, Chain, Id, Plan, Pushed, Rule};
use crate::trace::propagate::ink::Ink;
use crate::trace::trust::{self, Rules};

#[test]
fn a_greater_share_keeps_all_that_a_lower_one_keeps() {
    let mut rng = SmallRng::seed_from_u64(31);
    for _ in 0..50 {
        // Also shares that are next to each other, and very small ones.
        let small = 10f64.powf(-rng.random_range(0.0..5.0));
        let mut shares = [small, (small * 1.0001).min(1.0), (small * rng.random_range(1.0..9.0)).min(1.0), 1.0];
        shares.sort_by(f64::total_cmp);
        let engines = shares.map(|share| engine(vec![rule("r", None, part(share))], Vec::new()));
        let boosted =
            shares.map(|share| engine(vec![rule("r", None, Action::Never)], vec![rule("b", None, part(share))]));
        for _ in 0..1_000 {
            let trace = Trace::random(&mut rng);
            for kind in [&engines, &boosted] {
                let kept: Vec<bool> = kind.iter().map(|engine| trace.decide(engine).sampled).collect();
                assert!(kept.is_sorted(), "{trace:?}: {kept:?} of {shares:?}");
                assert!(kept[3]);
            }
        }
    }
}

#[test]
fn a_guard_and_a_rate_only_take_away() {
    let mut rng = SmallRng::seed_from_u64(37);
    let free = engine(vec![rule("r", None, part(0.5))], Vec::new());
    let bound = engine(vec![rule("r", None, part(0.5))], Vec::new());
    bound.set_guard(Threshold::of(0.2).unwrap());
    for _ in 0..50_000 {
        let trace = Trace::random(&mut rng);
        let (free, bound) = (trace.decide(&free), trace.decide(&bound));
        assert!(free.sampled || !bound.sampled, "{trace:?}");
        if bound.sampled {
            assert_eq!(bound.threshold, Told::Set(Threshold::of(0.2).unwrap()));
        }
    }
}

#[test]
fn two_proxies_with_the_same_policy_disagree_on_no_trace() {
    let rules = || {
        let limit = RateLimit { traces_per_second: 1e6, burst: 1, per_proxy: false };
        vec![
            rule("never", Some("/never"), Action::Never),
            rule("half", Some("/half"), part(0.5)),
            rule("few", Some("/few"), part(0.01)),
            rule("limit", Some("/limit"), Action::RateLimit(limit)),
            rule("rest", None, part(0.1)),
        ]
    };
    let boosts = || vec![rule("boost", Some("/few"), part(0.2))];
    let pushed = Pushed {
        policy: "shop/cart".into(),
        rule: "limit".into(),
        operation: String::new(),
        threshold: Threshold::of(0.3).unwrap(),
    };
    let mut rng = SmallRng::seed_from_u64(41);
    let follows = |engine: Engine| {
        let (engine, mut steward) = (Arc::new(engine), Steward::default());
        steward.push(vec![pushed.clone()]);
        steward.follow(engine.clone());
        (engine, steward)
    };
    let (one, mut busy) = follows(engine(rules(), boosts()));
    // The other has other rules behind the same ones, has counted other things and was told of the policy at another time.
    let more = [rules(), vec![rule("behind", None, Action::Always)]].concat();
    let (other, mut idle) = follows(engine(more, boosts()));
    let tally = one.tally();
    for number in 0..100_000 {
        let trace = Trace::random(&mut rng);
        let (here, there) = (trace.decide(&one), trace.decide(&other));
        tally.count(here.reason.seat, here.reason.kept);
        let said = |verdict: Verdict| (verdict.sampled, verdict.by, verdict.threshold, verdict.reason.randomness);
        assert_eq!(said(here), said(there), "{trace:?}");
        if number % 1_000 == 0 {
            busy.look(Duration::from_millis(100));
        }
        if number % 7_000 == 0 {
            idle.look(Duration::from_millis(300));
        }
    }
}

#[test]
fn the_next_hop_keeps_what_this_one_has_kept_whatever_its_own_rules_say() {
    let mut rng = SmallRng::seed_from_u64(43);
    let first = engine(vec![rule("r", None, part(0.3))], Vec::new());
    let next = engine(vec![rule("r", None, part(0.05))], Vec::new());
    for _ in 0..50_000 {
        let trace = Trace { decision: Decision::Open, ..Trace::random(&mut rng) };
        let here = trace.decide(&first);
        let told = told(trace.ot.as_deref(), here.threshold).or(trace.ot.clone()).filter(|ot| !ot.is_empty());
        let decision = if here.sampled { Decision::Accept } else { Decision::Deny };
        let there = Trace { decision, ot: told, ..trace.clone() }.decide(&next);
        assert_eq!((there.sampled, there.threshold), (here.sampled, Told::Unchanged), "{trace:?}");
    }
}

#[test]
fn what_is_written_is_read_as_it_was_meant() {
    let mut rng = SmallRng::seed_from_u64(47);
    for _ in 0..100_000 {
        // As often short as long.
        let digits = rng.random_range(0..=56);
        let threshold = Threshold::new((rng.random::<u64>() & MAX) >> digits << digits).unwrap();
        assert_eq!(Threshold::parse(&threshold.digits()), Some(threshold));
        let rv = rng.random::<u64>() >> 8;
        let before = [format!("rv:{rv:014x}"), format!("th:8;rv:{rv:014x};x1:a-b_c.d"), format!("y:;rv:{rv:014x}")];
        for before in before {
            let text = told(Some(&before), Told::Set(threshold)).unwrap();
            let read = Ot::read(&text).unwrap();
            assert_eq!((read.th, read.rv), (Some(threshold), Some(rv)), "{text}");
            // Written again it is the same; and without a threshold, what it was before but for that.
            assert_eq!(told(Some(&text), Told::Set(threshold)).unwrap(), text);
            let others: Vec<&str> = before.split(';').filter(|pair| !pair.starts_with("th:")).collect();
            assert_eq!(told(Some(&text), Told::Erased).unwrap(), others.join(";"));
        }
    }
}

#[test]
fn a_trace_with_a_random_flag_or_a_stated_randomness_or_neither_is_decided_alike_on_the_road() {
    let mut rng = SmallRng::seed_from_u64(53);
    // No decision of a caller's counts here, so that one is made of what it brought.
    let half = || {
        let own = Chain { parent: ParentDecision::Ignore, rules: vec![rule("r", None, part(0.5))], ..Chain::default() };
        let sampling = Arc::new(Engine::new(&Plan { own, guard: None, ..Plan::default() }));
        Rules { sampling, propagation: crate::config::Propagation::default() }
    };
    let (one, other, mut ink) = (half(), half(), Ink::default());
    let mut kept = 0;
    for number in 0..3_000 {
        let (id, rv) = (rng.random::<u128>().max(1), rng.random::<u64>() >> 8);
        let is_stated = number % 3 == 2;
        let headers = || {
            let mut headers = HeaderMap::new();
            let flags = if number % 3 == 0 { "02" } else { "00" };
            let parent = format!("00-{id:032x}-00f067aa0ba902b7-{flags}");
            headers.insert("traceparent", HeaderValue::from_str(&parent).unwrap());
            if is_stated {
                headers.insert("tracestate", HeaderValue::from_str(&format!("ot=rv:{rv:014x},v=1")).unwrap());
            }
            headers
        };
        let decided = |rules: &Rules, ink: &mut Ink, seed| {
            let (mut headers, mut rng) = (headers(), SmallRng::seed_from_u64(seed));
            let settled =
                trust::settle(&mut headers, Trust::Continue, rules, &Request::NOTHING, || None, &mut rng, ink);
            (settled.context.sampled, settled.notes.reason.map(|reason| reason.randomness))
        };
        let (here, there) = (decided(&one, &mut ink, 1), decided(&other, &mut ink, 2));
        assert_eq!(here, there);
        let randomness = if is_stated { rv } else { id as u64 & MAX };
        assert_eq!(here, (randomness >= 1 << 55, Some(randomness)), "{id:032x}");
        kept += u32::from(here.0);
    }
    assert!((1_300..1_700).contains(&kept), "{kept}");
}

/// How a request came.
#[derive(Clone, Debug)]
struct Trace {
    id: TraceId,
    ot: Option<String>,
    decision: Decision,
    path: &'static str,
}

impl Trace {
    fn random(rng: &mut SmallRng) -> Self {
        let id = TraceId::from_bytes(rng.random::<u128>().max(1).to_be_bytes()).unwrap();
        let rv = rng.random::<u64>() >> 8;
        let ot = match rng.random_range(0..3) {
            0 => None,
            1 => Some(format!("rv:{rv:014x}")),
            _ => Some(format!("rv:{rv:014x};other:value")),
        };
        let path = ["/never", "/half", "/few", "/limit", "/else"][rng.random_range(0..5)];
        Self { id, ot, decision: Decision::Open, path }
    }

    fn decide(&self, engine: &Engine) -> Verdict {
        let request = Request { side: Mode::Gateway, method: Some(&Method::GET), path: self.path, ..Request::NOTHING };
        let (ot, headers) = (self.ot.as_deref(), &HeaderMap::new());
        decide(&Inputs {
            trust: Trust::Continue,
            decision: self.decision,
            trace: self.id,
            ot,
            engine,
            request: &request,
            headers,
        })
    }
}

fn engine(rules: Vec<Rule>, boosts: Vec<Rule>) -> Engine {
    let own = Chain { rules, boosts, ..Chain::default() };
    Engine::new(&Plan { own, guard: None, ..Plan::default() })
}

fn rule(name: &str, prefix: Option<&str>, action: Action) -> Rule {
    let path = prefix.map(|value| PathMatch { kind: PathKind::Prefix, value: value.into() });
    Rule { id: Id::new("shop/cart", name, 1), match_: Match { path, ..Match::default() }, action }
}

fn part(share: f64) -> Action {
    Action::Threshold(Threshold::of(share).unwrap())
}
