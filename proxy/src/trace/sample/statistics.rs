//! A million requests past each kind of rule: as many are kept as the rule says, and counts weighted by the thresholds that are
//! told come to the true ones. Time and chance are the test's own.
//!
//! Three standard deviations bound what chance may do to a share. Of a weighted count, chance alone is above one per cent
//! below a share of 0.083, so there the randomness is spread evenly instead, and what is left is what the rule does wrong.

use std::sync::Arc;
use std::time::Duration;

use http::Method;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use super::*;
use crate::config::{Adaptive, KeepLimit, KeepOn, Match, Mode, PathKind, PathMatch, RateLimit};
use crate::error::Flag;
use crate::rules::sampling::plan::{self, Action, Chain, Id, Plan, Rule};
use crate::rules::sampling::{Ended, Keep, Steward, Tally};

#[test]
fn as_many_are_kept_as_a_share_says_and_the_counts_are_right() {
    for share in [0.9, 0.1, 0.001] {
        check(&format!("{share}"), chain([rule("r", "/", part(share))]), share);
    }
    check("always", chain([rule("r", "/", Action::Always)]), 1.0);
}

#[test]
fn a_boost_keeps_the_greater_of_two_shares_and_the_counts_are_right() {
    let boosted =
        |head: Action, boost: Action| Chain { boosts: vec![rule("b", "/", boost)], ..chain([rule("r", "/", head)]) };
    check("never, boosted", boosted(Action::Never, part(0.3)), 0.3);
    check("a share, boosted by a greater one", boosted(part(0.1), part(0.4)), 0.4);
    check("a share, boosted by all", boosted(part(0.1), Action::Always), 1.0);
}

#[test]
fn rules_of_several_paths_keep_the_sum_of_their_shares_and_the_counts_are_right() {
    let rules = [rule("a", "/a", part(0.5)), rule("b", "/b", Action::Always), rule("rest", "/", part(0.1))];
    let expected = (0.5 + 1.0 + 0.1 + 0.1) / 4.0;
    check("paths", Chain { boosts: vec![rule("boost", "/c", part(0.1))], ..chain(rules) }, expected);
}

#[test]
fn never_keeps_nothing_and_says_nothing_of_it() {
    let mut proxy = Proxy::new(&own(chain([rule("r", "/", Action::Never)])), Vec::new());
    let mut rng = SmallRng::seed_from_u64(1);
    let sums = proxy.pass(REQUESTS, || rng.random::<u64>() >> 8);
    assert_eq!((sums.kept, sums.weighed, sums.unknown), (0, 0.0, 0));
}

#[test]
fn a_rate_keeps_as_many_in_a_second_as_it_says_and_the_counts_are_right() {
    let action = Action::RateLimit(RateLimit { traces_per_second: 100.0, burst: 1, per_proxy: true });
    // What is pushed is for others.
    let timed = Timed::run(&own(chain([rule("r", "/", action)])), pushed(0.01), &[1000.0]);
    timed.meets("a rate", 100.0, 0.01);
    // The first look knows of no load.
    timed.never_above("a rate", 200.0, 1);
}

#[test]
fn a_rate_of_the_whole_mesh_keeps_the_share_that_was_pushed() {
    let action = Action::RateLimit(RateLimit { traces_per_second: 200.0, burst: 10, per_proxy: false });
    let timed = Timed::run(&own(chain([rule("r", "/", action)])), pushed(0.1), &[1000.0]);
    timed.keeps("a pushed rate", 0.1);
}

#[test]
fn an_adaptive_rule_without_a_threshold_meets_its_budget_and_the_counts_are_right() {
    let timed = Timed::run(&own(chain([rule("r", "/", adaptive(100.0))])), Vec::new(), &[1000.0]);
    timed.meets("adaptive", 100.0, 0.02);
    timed.never_above("adaptive", 200.0, 1);
    let timed = Timed::run(&own(chain([rule("r", "/", adaptive(100.0))])), Vec::new(), &[100.0, 1000.0, 200.0, 2000.0]);
    timed.meets("adaptive under a load that changes", 100.0, 0.05);
}

#[test]
fn an_adaptive_rule_with_a_threshold_keeps_the_share_that_was_pushed() {
    let timed = Timed::run(&own(chain([rule("r", "/", adaptive(200.0))])), pushed(0.1), &[1000.0]);
    timed.keeps("adaptive, pushed", 0.1);
    // A proxy that has all of the load alone stays in the budget whatever was pushed.
    let timed = Timed::run(&own(chain([rule("r", "/", adaptive(100.0))])), pushed(0.5), &[1000.0]);
    timed.meets("adaptive, pushed too much", 100.0, 0.02);
}

#[test]
fn the_guard_keeps_its_spans_in_a_second_and_the_counts_are_right() {
    let guarded = |own| Plan { own, guard: Some(100.0), ..Plan::default() };
    for (name, own) in [
        ("no rule", Chain::default()),
        ("a share", chain([rule("r", "/", part(0.5))])),
        ("boosted", Chain { boosts: vec![rule("b", "/", Action::Always)], ..chain([rule("r", "/", Action::Never)]) }),
    ] {
        let timed = Timed::run(&guarded(own), Vec::new(), &[1000.0]);
        timed.meets(name, 100.0, 0.05);
    }
}

#[test]
fn what_is_kept_at_its_end_is_counted_right_with_a_fraction_and_where_rules_overlap() {
    let errors = |fraction| keep("errors", KeepOn::Errors, fraction, WIDE);
    let slow = |fraction| keep("slow", KeepOn::Latency(Duration::from_millis(500)), fraction, WIDE);
    let short = keep("errors", KeepOn::Errors, 1.0, KeepLimit { traces_per_second: 5.0, burst: 5 });
    for (name, keeps) in [
        ("all errors", vec![errors(1.0)]),
        ("a part of the errors", vec![errors(0.3)]),
        ("errors, and what is slow, of which more is kept", vec![errors(0.3), slow(0.6)]),
        ("errors, and what is slow, of which less is kept", vec![errors(0.6), slow(0.3)]),
        ("a limit that is too low", vec![short.clone()]),
        ("a limit that is too low, and another rule", vec![short, slow(0.5)]),
    ] {
        for (arrives, head, head_tells) in [
            (Arrives::Open, part(0.1), true),
            (Arrives::Open, Action::Never, false),
            (Arrives::Told(0.1), Action::Never, true),
            (Arrives::Untold(0.5), Action::Never, false),
        ] {
            let rules = Chain { keeps: keeps.clone(), ..chain([rule("r", "/", head)]) };
            let name = format!("{name}, {arrives:?}, {head:?}");
            Ends::run(&own(rules), arrives).is_right(&name, &keeps, head_tells);
        }
    }
}

/// A plan without a guard.
fn own(own: Chain) -> Plan {
    Plan { own, guard: None, ..Plan::default() }
}

fn chain<const N: usize>(rules: [Rule; N]) -> Chain {
    Chain { rules: rules.into(), ..Chain::default() }
}

fn rule(name: &str, prefix: &str, action: Action) -> Rule {
    let path = Some(PathMatch { kind: PathKind::Prefix, value: prefix.into() });
    Rule { id: Id::new("shop/cart", name, 1), match_: Match { path, ..Match::default() }, action }
}

fn keep(name: &str, on: KeepOn, fraction: f64, limit: KeepLimit) -> Keep {
    let threshold = Threshold::of(fraction).unwrap();
    Keep { id: Id::new("shop/cart", name, 1), on: vec![on], threshold, limit }
}

fn part(share: f64) -> Action {
    Action::Threshold(Threshold::of(share).unwrap())
}

fn adaptive(spans_per_second: f64) -> Action {
    Action::Adaptive(Adaptive { spans_per_second, min_traces_per_minute: 1.0, min_probability: 0.00001 })
}

fn pushed(share: f64) -> Vec<plan::Pushed> {
    let threshold = Threshold::of(share).unwrap();
    vec![plan::Pushed { policy: "shop/cart".into(), rule: "r".into(), operation: String::new(), threshold }]
}

/// The share by chance, and the counts by chance and by randomness that is spread evenly.
fn check(name: &str, chain: Chain, share: f64) {
    let plan = own(chain);
    let mut rng = SmallRng::seed_from_u64(9);
    let sums = Proxy::new(&plan, Vec::new()).pass(REQUESTS, || rng.random::<u64>() >> 8);
    let all = f64::from(REQUESTS);
    // Chance in which rule is asked is none: paths take turns.
    let sigma = (all * share * (1.0 - share)).sqrt();
    let expected = all * share;
    assert!((f64::from(sums.kept) - expected).abs() <= 3.0 * sigma, "{name}: {} kept of {expected}", sums.kept);
    let mut even = Even::default();
    let even = Proxy::new(&plan, Vec::new()).pass(REQUESTS / 5, || even.next());
    assert_eq!((sums.unknown, even.unknown), (0, 0), "{name}: something was kept that does not count");
    let (chance, spread) = (sums.weighed / all, even.weighed / f64::from(REQUESTS / 5));
    assert!((spread - 1.0).abs() <= 0.01, "{name}: counts come to {spread} of what is true");
    let allowed = if share >= 0.083 { 0.01 } else { 3.0 / (all * share).sqrt() };
    assert!((chance - 1.0).abs() <= allowed, "{name}: counts come to {chance} of what is true");
}

/// One proxy, as the road and the background do with it.
struct Proxy {
    engine: Arc<Engine>,
    tally: Arc<Tally>,
    steward: Steward,
}

#[derive(Default)]
struct Sums {
    asked: u32,
    kept: u32,
    weighed: f64,
    /// Kept, and nobody is told with what threshold.
    unknown: u32,
}

impl Proxy {
    fn new(plan: &Plan, pushed: Vec<plan::Pushed>) -> Self {
        let engine = Arc::new(Engine::new(plan));
        let tally = engine.tally();
        let mut steward = Steward::default();
        steward.push(pushed);
        steward.follow(engine.clone());
        Self { engine, tally, steward }
    }

    fn pass(&mut self, requests: u32, mut randomness: impl FnMut() -> u64) -> Sums {
        let mut sums = Sums::default();
        for number in 0..requests {
            self.ask(number, randomness(), &mut sums);
        }
        sums
    }

    fn ask(&self, number: u32, randomness: u64, sums: &mut Sums) {
        let path = ["/a", "/b", "/c", "/d"][number as usize % 4];
        let verdict = self.decide(path, randomness, Decision::Open, None);
        sums.asked += 1;
        if verdict.sampled {
            sums.kept += 1;
            self.tally.spans(1);
            match verdict.threshold {
                Told::Set(threshold) => sums.weighed += threshold.adjusted_count(),
                // As many as there are, where nothing is said.
                Told::Unchanged if verdict.reason.seat == Seat::UNRULED => sums.weighed += 1.0,
                Told::Unchanged | Told::Erased => sums.unknown += 1,
            }
        }
    }

    fn decide(&self, path: &str, randomness: u64, decision: Decision, ot: Option<&str>) -> Verdict {
        let request = Request { side: Mode::Gateway, method: Some(&Method::GET), path, ..Request::NOTHING };
        let trace = TraceId::from_bytes((1u128 << 127 | u128::from(randomness)).to_be_bytes()).unwrap();
        let inputs = Inputs {
            trust: Trust::Continue,
            decision,
            trace,
            ot,
            engine: &self.engine,
            request: &request,
            headers: &HeaderMap::new(),
        };
        let verdict = decide(&inputs);
        self.tally.count(verdict.reason.seat, verdict.reason.kept);
        if let Some((boost, kept)) = verdict.reason.boost {
            self.tally.count(boost, kept);
        }
        verdict
    }
}

/// Spread evenly over all 56 bits, and no two alike: multiples of the golden ratio.
#[derive(Default)]
struct Even(u64);

impl Even {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        self.0 >> 8
    }
}

/// A million requests in virtual time, the loads one after the other, with what was kept in each look.
struct Timed {
    sums: Sums,
    looks: Vec<u32>,
}

impl Timed {
    fn run(plan: &Plan, pushed: Vec<plan::Pushed>, loads: &[f64]) -> Self {
        let mut rng = SmallRng::seed_from_u64(17);
        let mut proxy = Proxy::new(plan, pushed);
        let (mut sums, mut looks) = (Sums::default(), Vec::new());
        let each = REQUESTS / loads.len() as u32;
        for load in loads {
            let until = sums.asked + each;
            while sums.asked < until {
                let before = sums.kept;
                for _ in 0..arrivals(load * LOOK.as_secs_f64(), &mut rng) {
                    let (number, randomness) = (sums.asked, rng.random::<u64>() >> 8);
                    proxy.ask(number, randomness, &mut sums);
                }
                looks.push(sums.kept - before);
                proxy.steward.look(LOOK);
            }
        }
        assert_eq!(sums.unknown, 0);
        Self { sums, looks }
    }

    /// So many in a second, but for this part; and the counts are right within one per cent.
    fn meets(&self, name: &str, budget: f64, part: f64) {
        // Without the first seconds, in which a load is not known yet.
        let later = &self.looks[KNOWN..];
        let rate = f64::from(later.iter().sum::<u32>()) / (later.len() as f64 * LOOK.as_secs_f64());
        assert!((rate / budget - 1.0).abs() <= part, "{name}: {rate} in a second, of {budget}");
        self.counts(name);
    }

    fn keeps(&self, name: &str, share: f64) {
        let asked = f64::from(self.sums.asked);
        let sigma = (asked * share * (1.0 - share)).sqrt();
        // What came in the first look, before there was a threshold, is no matter of chance.
        let kept = f64::from(self.sums.kept);
        assert!((kept - asked * share).abs() <= 3.0 * sigma, "{name}: {kept} of {}", asked * share);
        self.counts(name);
    }

    fn counts(&self, name: &str) {
        let told = self.sums.weighed / f64::from(self.sums.asked);
        assert!((told - 1.0).abs() <= 0.01, "{name}: counts come to {told} of what is true");
    }

    /// In any second that begins so many seconds later.
    fn never_above(&self, name: &str, most: f64, after: usize) {
        let seconds = self.looks[after * 10..].windows(10).map(|looks| looks.iter().sum::<u32>());
        let highest = seconds.max().unwrap();
        assert!(f64::from(highest) <= most, "{name}: {highest} in a second");
    }
}

/// As independent requests come, for means up to some hundreds.
fn arrivals(mean: f64, rng: &mut SmallRng) -> u32 {
    let (mut at, mut count) = (0.0, 0);
    loop {
        at -= rng.random::<f64>().max(f64::MIN_POSITIVE).ln();
        if at > mean {
            return count;
        }
        count += 1;
    }
}

/// How traces come.
#[derive(Clone, Copy, Debug)]
enum Arrives {
    /// Nobody has decided.
    Open,
    /// A caller has decided with a share, and tells it.
    Told(f64),
    /// A caller has decided by itself, and does not tell how.
    Untold(f64),
}

/// Requests that end, some of them as errors, some slow and some both.
#[derive(Default)]
struct Ends {
    requests: [f64; 4],
    weighed: [f64; 4],
}

impl Ends {
    fn run(plan: &Plan, arrives: Arrives) -> Self {
        let (mut even, mut rng) = (Even::default(), SmallRng::seed_from_u64(23));
        let proxy = Proxy::new(plan, Vec::new());
        let mut ends = Self::default();
        for number in 0..ENDS {
            let randomness = even.next();
            let (is_error, is_slow) = (number % 2 == 1, number / 2 % 2 == 1);
            let (decision, ot) = match arrives {
                Arrives::Open => (Decision::Open, None),
                Arrives::Told(share) => {
                    let threshold = Threshold::of(share).unwrap();
                    let decision = if threshold.keeps(randomness) { Decision::Accept } else { Decision::Deny };
                    (decision, Some(format!("th:{}", threshold.digits())))
                }
                Arrives::Untold(share) => {
                    (if rng.random_bool(share) { Decision::Accept } else { Decision::Deny }, None)
                }
            };
            let verdict = proxy.decide("/", randomness, decision, ot.as_deref());
            let ended = Ended {
                status: None,
                grpc_error: false,
                error: is_error,
                flag: Flag::Ok,
                took: if is_slow { Duration::from_secs(1) } else { Duration::ZERO },
                retries: 0,
                randomness,
                sampled: verdict.sampled,
                now: START + u64::from(number) * 1_000_000,
            };
            let kept = proxy.engine.keep(&ended, None);
            let place = usize::from(is_error) + 2 * usize::from(is_slow);
            ends.requests[place] += 1.0;
            if !verdict.sampled && kept.is_none() {
                continue;
            }
            // What the next hop is told; of what is not sampled, nothing is.
            let before = match told(ot.as_deref(), verdict.threshold) {
                Some(ot) => Some(ot).filter(|ot| !ot.is_empty()),
                None => ot,
            };
            let before =
                before.filter(|_| verdict.sampled).map(|ot| HeaderValue::from_str(&format!("ot={ot}")).unwrap());
            let ended =
                kept.and_then(|kept| super::ended(before.as_ref(), &verdict.reason, verdict.sampled, kept.threshold));
            let state = ended.or_else(|| before.map(|state| state.to_str().unwrap().to_owned()));
            let told = state.as_deref().and_then(|state| state.strip_prefix("ot=")).and_then(|ot| Ot::parse(ot).th);
            ends.weighed[place] += told.map_or(0.0, Threshold::adjusted_count);
        }
        ends
    }

    /// Of errors, of what is slow, of both and of the rest each. What is not kept for its end counts where the head tells how
    /// much of it is kept. Where a limit had no room nothing is known of what the head has dropped, and it does not count;
    /// but nothing ever counts for more than there is.
    fn is_right(&self, name: &str, keeps: &[Keep], head_tells: bool) {
        for (place, what) in ["neither", "errors", "slow", "both"].into_iter().enumerate() {
            let is_sure = keeps.iter().any(|keep| {
                let bit = if keep.on == [KeepOn::Errors] { 1 } else { 2 };
                keep.limit == WIDE && place & bit != 0
            });
            let told = self.weighed[place] / self.requests[place];
            if head_tells || is_sure {
                assert!((told - 1.0).abs() <= 0.01, "{name}: {what} come to {told} of what is true");
            } else {
                assert!(told <= 1.01, "{name}: {what} come to {told} of what is true");
            }
        }
    }
}

const REQUESTS: u32 = 1_000_000;
const ENDS: u32 = 100_000;
const LOOK: Duration = Duration::from_millis(100);
/// Looks after which a load is known.
const KNOWN: usize = 30;
const WIDE: KeepLimit = KeepLimit { traces_per_second: 1e6, burst: 1_000_000 };
const START: u64 = 1_000_000_000_000;
