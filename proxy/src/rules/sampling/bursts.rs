//! What holds between two pushes of thresholds: bursts, and operations that are new.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, Method};

use super::*;
use crate::config::{Adaptive, Match, RateLimit};

const LOOK: Duration = Duration::from_millis(100);

fn plan(version: u64, generation: u64, action: Action) -> Plan {
    let rule = Rule { id: Id::new("shop/cart", "rest", generation), match_: Match::default(), action };
    Plan { version, own: Chain { rules: vec![rule], ..Chain::default() }, guard: None, ..Plan::default() }
}

fn adaptive() -> Action {
    Action::Adaptive(Adaptive { spans_per_second: 1000.0, min_traces_per_minute: 1.0, min_probability: 1e-5 })
}

fn pushed(operation: &str, probability: f64) -> Pushed {
    let threshold = Threshold::of(probability).unwrap();
    Pushed { policy: "shop/cart".into(), rule: "rest".into(), operation: operation.into(), threshold }
}

fn limit(traces_per_second: f64, proxies: u32) -> Limit {
    Limit { policy: "shop/cart".into(), rule: "rest".into(), traces_per_second, proxies }
}

fn share(engine: &Engine, template: &str) -> f64 {
    let request = Request { method: Some(&Method::GET), template: Some(template), ..Request::NOTHING };
    let choice = engine.head(&request, &HeaderMap::new(), true, None).unwrap();
    choice.threshold.unwrap().probability()
}

/// So many requests of each operation in each look; a share of them is kept. What is kept in the last second, of all.
fn run(steward: &mut Steward, engine: &Engine, operations: &[(&str, u64)], looks: usize) -> f64 {
    let tally = engine.tally();
    let mut kept = Vec::new();
    for _ in 0..looks {
        let mut passed = 0;
        for (template, count) in operations {
            let request = Request { method: Some(&Method::GET), template: Some(template), ..Request::NOTHING };
            let choice = engine.head(&request, &HeaderMap::new(), true, None).unwrap();
            let pass = (*count as f64 * choice.threshold.unwrap().probability()).round() as u64;
            (0..*count).for_each(|place| tally.count(choice.seat, place < pass));
            passed += pass;
        }
        kept.push(passed);
        steward.look(LOOK);
    }
    kept.iter().rev().take(10).sum::<u64>() as f64
}

#[test]
fn a_burst_is_held_within_a_second_to_half_more_than_this_proxys_part() {
    for action in [adaptive(), Action::RateLimit(RateLimit { traces_per_second: 1e6, burst: 1, per_proxy: false })] {
        let mut steward = Steward::default();
        let engine = Arc::new(Engine::new(&plan(1, 1, action)));
        steward.follow(engine.clone());
        steward.push(vec![pushed("", 0.1)]);
        steward.limit(vec![limit(500.0, 5)]);
        let calm = run(&mut steward, &engine, &[("/busy", 100)], 100);
        assert!((90.0..=110.0).contains(&calm), "{calm} of its hundred");
        run(&mut steward, &engine, &[("/busy", 1000)], 10);
        let burst = run(&mut steward, &engine, &[("/busy", 1000)], 10);
        assert!((120.0..=170.0).contains(&burst), "{burst} in the second after the burst's first");
        // No limit is pushed any more: it is as it was without.
        steward.limit(Vec::new());
        let free = run(&mut steward, &engine, &[("/busy", 1000)], 20);
        assert!((900.0..=1100.0).contains(&free), "{free}");
    }
}

#[test]
fn a_limit_takes_from_the_busy_before_it_takes_from_the_rare() {
    let mut steward = Steward::default();
    let engine = Arc::new(Engine::new(&plan(1, 1, adaptive())));
    steward.follow(engine.clone());
    steward.push(vec![pushed("GET /busy", 0.5), pushed("", 1.0)]);
    steward.limit(vec![limit(100.0, 1)]);
    run(&mut steward, &engine, &[("/busy", 1000), ("/rare", 1)], 30);
    assert_eq!(share(&engine, "/rare"), 1.0);
    assert!(share(&engine, "/busy") < 0.016, "{}", share(&engine, "/busy"));
}

#[test]
fn an_operation_that_is_new_goes_by_what_was_pushed_for_those_without_a_name_from_its_first_request_on() {
    let mut steward = Steward::default();
    let engine = Arc::new(Engine::new(&plan(1, 1, adaptive())));
    steward.push(vec![pushed("GET /busy", 0.5), pushed("", 0.01)]);
    steward.follow(engine.clone());
    steward.look(LOOK);
    assert!((share(&engine, "/new") - 0.01).abs() < 1e-4, "{}", share(&engine, "/new"));
}
