//! What holds of every plan, whatever is reported: budgets, floors, fairness, bounds.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use super::threshold::{probability, threshold};
use super::{Budgets, Count, Kind, Planner, Report, Rule, Threshold};

const INTERVAL: Duration = Duration::from_secs(10);
const WINDOW: Duration = Duration::from_secs(5);

fn rule(policy: usize, service: Option<usize>, spans_per_second: f64, min_probability: f64) -> Rule {
    Rule {
        policy: format!("shop/{policy}").into(),
        rule: "rest".into(),
        service: service.map(|service| format!("{service}.shop").into()),
        kind: Kind::Adaptive { spans_per_second, min_traces_per_minute: 0.0, min_probability },
    }
}

/// Requests in a window, by rule.
type Called = Vec<Vec<u64>>;

/// A mesh without chance: every proxy has the same part of each operation's requests.
struct Exact {
    now: Duration,
    planner: Planner,
    rules: Vec<Rule>,
    called: Called,
    proxies: u64,
    spans: u64,
}

impl Exact {
    fn new(rules: Vec<Rule>, budgets: Budgets, called: Called, proxies: u64, spans: u64) -> Self {
        let mut planner = Planner::new(Duration::ZERO, INTERVAL);
        planner.set(rules.clone(), budgets);
        Self { now: Duration::ZERO, planner, rules, called, proxies, spans }
    }

    fn window(&mut self) {
        self.now += WINDOW;
        let names: Vec<String> = (0..300).map(|place| format!("GET /{place}")).collect();
        let mut counts = Vec::new();
        for (rule, called) in self.rules.iter().zip(&self.called) {
            for (operation, &seen) in names.iter().zip(called) {
                let kept = (seen as f64 * self.part(rule, operation)).round() as u64;
                let (policy, rule) = (&*rule.policy, &*rule.rule);
                counts.push(Count { policy, rule, operation, seen, kept, held: None });
            }
        }
        // One trace at least, so that what it comes to is known.
        let kept: u64 = counts.iter().map(|count| count.kept).sum();
        let report = Report { window: WINDOW, counts: &counts, spans: (kept + 1) * self.spans, unruled: 1 };
        for proxy in 0..self.proxies {
            self.planner.report(self.now, proxy, &report);
        }
        self.planner.tick(self.now);
    }

    fn part(&self, rule: &Rule, operation: &str) -> f64 {
        let said = self.planner.thresholds().unwrap_or(&[]);
        let of = |operation: &str| {
            let wanted = (&*rule.policy, &*rule.rule, operation);
            said.iter().find(|said| (&*said.policy, &*said.rule, &*said.operation) == wanted)
        };
        of(operation).or_else(|| of("")).map_or(1.0, |said| probability(said.threshold))
    }

    /// Probability and spans per second of each operation of a rule.
    fn plan(&self, place: usize) -> Vec<(f64, f64)> {
        let spans = (self.proxies * self.spans) as f64 / WINDOW.as_secs_f64();
        let called = self.called[place].iter().enumerate();
        let plan = called.map(|(operation, &seen)| {
            let part = self.part(&self.rules[place], &format!("GET /{operation}"));
            (part, part * seen as f64 * spans)
        });
        plan.collect()
    }

    fn spans(&self, place: usize) -> f64 {
        self.plan(place).iter().map(|(_, spans)| spans).sum()
    }
}

#[test]
fn whatever_the_load_budgets_floors_and_shares_hold_once_it_has_settled() {
    for seed in 0..60 {
        let mut rng = SmallRng::seed_from_u64(seed);
        let least = 1e-6;
        let rules: Vec<Rule> = (0..rng.random_range(1..6))
            .map(|policy| {
                let service = rng.random_bool(0.7).then(|| rng.random_range(0..3));
                rule(policy, service, 10f64.powf(rng.random_range(0.0..4.0)), least)
            })
            .collect();
        let budgets = Budgets {
            mesh: rng.random_bool(0.5).then(|| 10f64.powf(rng.random_range(1.0..4.0))),
            services: [("0.shop".to_string(), 10f64.powf(rng.random_range(1.0..3.0)))].into(),
        };
        let mut some = || -> Called {
            let operations = |_: &Rule| {
                let count = rng.random_range(1..20);
                (0..count).map(|_| 10f64.powf(rng.random_range(0.0..5.0)) as u64).collect()
            };
            rules.iter().map(operations).collect()
        };
        let (first, then) = (some(), some());
        let (proxies, spans) = (rng.random_range(1..4), rng.random_range(1..12));
        let mut mesh = Exact::new(rules.clone(), budgets.clone(), first, proxies, spans);
        (0..12).for_each(|_| mesh.window());
        mesh.called = then;
        for round in 0..80 {
            mesh.window();
            // Small changes are smoothed over some plans.
            if round < 8 {
                continue;
            }
            let of = |service: Option<&str>| -> f64 {
                let belongs = |rule: &Rule| service.is_none() || rule.service.as_deref() == service;
                let places = rules.iter().enumerate().filter(|(_, rule)| belongs(rule));
                places.map(|(place, _)| mesh.spans(place)).sum()
            };
            let within = |had: f64, budget: f64, what: &str| {
                assert!(had <= budget * 1.2 * 1.001 + 0.1, "{seed} {round} {what}: {had} of {budget}");
            };
            within(of(None), budgets.mesh.unwrap_or(f64::INFINITY), "mesh");
            within(of(Some("0.shop")), budgets.services["0.shop"], "service");
            for (place, rule) in rules.iter().enumerate() {
                let Kind::Adaptive { spans_per_second, .. } = rule.kind else { continue };
                within(mesh.spans(place), spans_per_second, "rule");
                assert!(mesh.plan(place).iter().all(|(part, _)| (least * 0.999..=1.0).contains(part)), "{seed}");
            }
        }
        // It has had time to rise: what is not kept whole has as much as any other of its rule has, but for the band
        // within which nothing moves.
        for place in 0..rules.len() {
            let plan = mesh.plan(place);
            let above_floor = plan.iter().filter(|(part, _)| *part > least * 1.001);
            let most = above_floor.map(|(_, spans)| *spans).fold(0.0, f64::max);
            for (part, spans) in plan {
                assert!(part > 0.8 || spans * 1.2 * 1.2 * 1.01 >= most, "{seed}: {part} {spans} of {most}");
            }
        }
    }
}

#[test]
fn the_budget_is_used_and_not_only_kept() {
    let mut mesh = Exact::new(vec![rule(0, None, 500.0, 0.0)], Budgets::default(), vec![vec![50_000, 3000, 10]], 2, 3);
    (0..60).for_each(|_| mesh.window());
    let spans = mesh.spans(0);
    assert!((400.0..600.0).contains(&spans), "{spans}");
    assert_eq!(mesh.plan(0)[2].0, 1.0);
    assert_eq!(mesh.planner.spans_per_trace(), 3.0);
}

#[test]
fn a_floor_is_above_the_rules_budget_and_below_the_meshs() {
    let floor = |mesh: Option<f64>| {
        let kind = Kind::Adaptive { spans_per_second: 1.0, min_traces_per_minute: 60.0, min_probability: 0.0 };
        let rules = vec![Rule { kind, ..rule(0, None, 0.0, 0.0) }];
        let mut mesh = Exact::new(rules, Budgets { mesh, ..Budgets::default() }, vec![vec![5000; 10]], 1, 2);
        (0..40).for_each(|_| mesh.window());
        mesh.spans(0)
    };
    // Ten operations with a trace each second, of two spans.
    assert!((18.0..22.0).contains(&floor(None)), "{}", floor(None));
    assert!((4.5..5.5).contains(&floor(Some(5.0))), "{}", floor(Some(5.0)));
}

#[test]
fn the_same_reports_come_to_the_same_list_in_the_same_order() {
    let run = || {
        let mut rng = SmallRng::seed_from_u64(4);
        let rules: Vec<Rule> = (0..20).rev().map(|policy| rule(policy, Some(policy % 3), 100.0, 0.0)).collect();
        let called = rules.iter().map(|_| (0..50).map(|_| rng.random_range(0..10_000)).collect()).collect();
        let budgets = Budgets { mesh: Some(900.0), ..Budgets::default() };
        let mut mesh = Exact::new(rules, budgets, called, 5, 4);
        (0..20).for_each(|_| mesh.window());
        mesh.planner.thresholds().expect("it has listened").to_vec()
    };
    let said = run();
    assert!(said.is_sorted() && said.len() == 20 * 51, "{}", said.len());
    assert_eq!(said, run());
}

#[test]
fn a_proxy_that_says_nonsense_is_bounded() {
    let mut planner = Planner::new(Duration::ZERO, INTERVAL);
    planner.set(vec![rule(0, None, 100.0, 1e-5)], Budgets::default());
    let (long, names) = ("x".repeat(1 << 16), (0..10_000).map(|name| format!("GET /{name}")).collect::<Vec<_>>());
    let count = |operation, seen, kept, held| Count { policy: "shop/0", rule: "rest", operation, seen, kept, held };
    let mut now = Duration::ZERO;
    for round in 0..20 {
        now += WINDOW;
        let mut lies: Vec<Count<'_>> =
            names.iter().skip(round * 100).map(|name| count(name, u64::MAX, u64::MAX, Some(u64::MAX))).collect();
        lies.insert(0, count(&long, u64::MAX, 0, None));
        lies.insert(1, count("", 1, u64::MAX, None));
        for window in [Duration::ZERO, Duration::from_nanos(1), Duration::MAX] {
            planner.report(now, 1, &Report { window, counts: &lies, spans: u64::MAX, unruled: u64::MAX });
        }
        let honest = [count("GET /0", 100, 10, None)];
        planner.report(now, 2, &Report { window: WINDOW, counts: &honest, spans: 30, unruled: 0 });
        planner.tick(now);
    }
    assert!(planner.operations() <= 257, "{}", planner.operations());
    let refused = planner.refused();
    assert!(refused.reports >= 20 && refused.counts > 100_000, "{refused:?}");
    let said = planner.thresholds().expect("it has listened");
    assert!(said.iter().all(|said| said.threshold <= threshold(1e-5)), "nothing is below the floor");
    assert!(planner.limits().iter().all(|limit| limit.traces_per_second.is_finite()));
    assert!((1.0..=1000.0).contains(&planner.spans_per_trace()));
}

#[test]
fn a_report_of_much_more_than_is_planned_brings_the_next_plan_forward() {
    for known in [true, false] {
        let mut mesh = Exact::new(vec![rule(0, None, 100.0, 0.0)], Budgets::default(), vec![vec![100]], 1, 2);
        (0..9).for_each(|_| mesh.window());
        // The tick was at 40 s; the next is at 50 s.
        assert_eq!((mesh.now.as_secs(), mesh.planner.wake().as_secs()), (45, 50));
        let name = if known { "shop/0" } else { "shop/new" };
        mesh.planner.set(vec![Rule { policy: name.into(), ..rule(0, None, 100.0, 0.0) }], Budgets::default());
        mesh.planner.tick(mesh.now);
        assert_eq!(mesh.planner.wake().as_secs(), 50);
        // What proxies hold back by themselves counts as well, where it was decided what they keep.
        let cases = if known { [(400, 400, 50), (10_000, 400, 46)] } else { [(10_000, 400, 50), (10_000, 600, 46)] };
        for (seen, kept, wake) in cases {
            let counts = [Count { policy: name, rule: "rest", operation: "GET /0", seen, kept, held: None }];
            let report = Report { window: WINDOW, counts: &counts, spans: 2 * kept, unruled: 0 };
            mesh.planner.report(mesh.now, 0, &report);
            assert_eq!(mesh.planner.wake().as_secs(), wake, "{known}");
        }
        assert!(mesh.planner.tick(Duration::from_secs(46)));
        let said = mesh.planner.thresholds().expect("it has listened");
        assert!(said.iter().all(|said| said.threshold >= threshold(0.06)), "{known}: {said:?}");
    }
}

#[test]
fn while_nobody_reports_nothing_changes() {
    let mut mesh = Exact::new(vec![rule(0, None, 100.0, 0.0)], Budgets::default(), vec![vec![50_000, 100]], 3, 2);
    (0..40).for_each(|_| mesh.window());
    let said = mesh.planner.thresholds().expect("it has listened").to_vec();
    for _ in 0..100 {
        mesh.now += INTERVAL;
        assert!(!mesh.planner.tick(mesh.now));
    }
    assert_eq!(mesh.planner.thresholds(), Some(&*said));
}

#[test]
fn what_a_rule_knew_goes_with_it_and_not_with_a_change_of_its_budget() {
    let rules = vec![rule(0, None, 100.0, 0.0), rule(1, None, 100.0, 0.0)];
    let mut mesh = Exact::new(rules.clone(), Budgets::default(), vec![vec![50_000, 100], vec![70_000]], 3, 2);
    (0..20).for_each(|_| mesh.window());
    let by_rule = |said: &[Threshold]| {
        let mut found: BTreeMap<Arc<str>, Vec<u64>> = BTreeMap::new();
        said.iter().for_each(|said| found.entry(said.policy.clone()).or_default().push(said.threshold));
        found
    };
    let before = by_rule(mesh.planner.thresholds().expect("it has listened"));
    assert_eq!(before.keys().map(|name| &**name).collect::<Vec<_>>(), ["shop/0", "shop/1"]);
    mesh.planner.set(vec![rule(1, None, 99.0, 0.0)], Budgets::default());
    assert_eq!(mesh.planner.operations(), 1);
    (0..2).for_each(|_| mesh.window());
    let after = by_rule(mesh.planner.thresholds().expect("it has listened"));
    assert_eq!(after.len(), 1);
    assert_eq!(after["shop/1"], before["shop/1"]);
}

#[test]
fn what_is_not_called_for_long_makes_room() {
    let mut planner = Planner::new(Duration::ZERO, INTERVAL);
    planner.set(vec![rule(0, None, 100.0, 0.0)], Budgets::default());
    let mut now = Duration::ZERO;
    let call = |planner: &mut Planner, now, from: usize, to: usize| {
        let names: Vec<String> = (from..to).map(|name| format!("GET /{name}")).collect();
        let count = |operation| Count { policy: "shop/0", rule: "rest", operation, seen: 1, kept: 1, held: None };
        let counts: Vec<Count<'_>> = names.iter().map(|name| count(name)).collect();
        planner.report(now, 1, &Report { window: WINDOW, counts: &counts, spans: 1, unruled: 0 });
        planner.tick(now);
    };
    for _ in 0..10 {
        now += INTERVAL;
        call(&mut planner, now, 0, 300);
    }
    assert_eq!(planner.operations(), 257);
    // Some are still called; the others go, and there is room for new ones.
    for _ in 0..70 {
        now += INTERVAL;
        call(&mut planner, now, 0, 10);
    }
    assert_eq!(planner.operations(), 10);
    call(&mut planner, now + INTERVAL, 400, 500);
    assert_eq!(planner.operations(), 110);
}
