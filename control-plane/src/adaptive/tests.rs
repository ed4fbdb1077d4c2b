//! The promises of the planner, in a mesh in virtual time.

use std::time::Duration;

use super::simulation::{Load, Mesh, SPANS, STEP, load};
use super::{Kind, Rule};

const BUDGET: f64 = 3000.0;
/// How long a burst may be above twice the budget: until each proxy holds its own part of it.
const BURST: Duration = Duration::from_secs(1);

fn rule(kind: Kind) -> Rule {
    Rule { policy: "shop/checkout".into(), rule: "rest".into(), service: None, kind }
}

fn adaptive(spans_per_second: f64) -> Rule {
    rule(Kind::Adaptive { spans_per_second, min_traces_per_minute: 1.0, min_probability: 1e-5 })
}

/// Together twice what the budget allows, and unlike.
fn loads() -> Vec<Load> {
    [("GET /", 600.0), ("GET /cart", 250.0), ("POST /pay", 100.0), ("GET /item", 40.0), ("PUT /item", 10.0)]
        .map(|(operation, rate)| load(operation, rate))
        .into()
}

fn times(loads: &[Load], factor: f64) -> Vec<Load> {
    loads.iter().map(|each| load(&each.operation, each.rate * factor)).collect()
}

/// Spans per second in each stretch of so many steps.
fn rates(kept: &[u64], steps: usize) -> Vec<f64> {
    let seconds = STEP.as_secs_f64() * steps as f64;
    kept.chunks_exact(steps).map(|kept| kept.iter().sum::<u64>() as f64 * SPANS / seconds).collect()
}

/// How long it was above this without a break, at most.
fn longest_above(kept: &[u64], most: f64) -> Duration {
    let mut longest = 0;
    let mut present = 0;
    for rate in rates(kept, 2) {
        present = if rate > most { present + 1 } else { 0 };
        longest = longest.max(present);
    }
    2 * STEP * longest
}

fn mean(kept: &[u64]) -> f64 {
    kept.iter().sum::<u64>() as f64 * SPANS / (kept.len() as f64 * STEP.as_secs_f64())
}

#[test]
fn after_a_tenfold_step_spans_are_back_within_twenty_seconds_and_never_twice_the_budget_for_a_second() {
    for proxies in [1, 10, 40] {
        for seed in 0..5 {
            let mut mesh = Mesh::new(seed, proxies, adaptive(BUDGET), loads());
            mesh.run(90);
            // Somewhere between two ticks.
            for _ in 0..seed * 17 {
                mesh.run(1);
            }
            let start = mesh.now;
            mesh.loads = times(&loads(), 10.0);
            mesh.run(60);
            let kept = mesh.since(start);
            let above = longest_above(kept, 2.0 * BUDGET);
            assert!(above <= BURST, "{proxies} proxies: {above:?}");
            for rate in rates(&kept[200..], 50) {
                assert!((rate / BUDGET - 1.0).abs() < 0.2, "{proxies} proxies: {rate}");
            }
        }
    }
}

/// Why proxies are told of the limit and of each other.
#[test]
fn caps_that_know_only_of_the_whole_budget_do_not_hold_a_step_over_ten_proxies() {
    let above = [true, false].map(|alone| {
        let mut mesh = Mesh::new(1, 10, adaptive(BUDGET), loads());
        mesh.alone = alone;
        mesh.run(93);
        let start = mesh.now;
        mesh.loads = times(&loads(), 10.0);
        mesh.run(60);
        longest_above(mesh.since(start), 2.0 * BUDGET)
    });
    assert!(above[0] > BURST && above[1] <= BURST, "{above:?}");
}

/// Such as one that is drained.
#[test]
fn a_load_that_moves_to_one_of_ten_proxies_is_let_through_there_before_long() {
    let mut mesh = Mesh::new(8, 10, adaptive(BUDGET), loads());
    mesh.run(100);
    let start = mesh.now;
    mesh.only(1);
    mesh.run(60);
    let kept = rates(mesh.since(start), 100);
    assert!(kept[5] > 0.8 * BUDGET && kept.iter().all(|rate| *rate < 1.3 * BUDGET), "{kept:?}");
}

#[test]
fn ten_proxies_share_a_budget_as_one_has_it() {
    let means = [1, 10].map(|proxies| {
        let mut mesh = Mesh::new(7, proxies, adaptive(BUDGET), loads());
        mesh.run(100);
        let start = mesh.now;
        mesh.run(100);
        mean(mesh.since(start))
    });
    assert!(means.iter().all(|mean| (0.85..1.15).contains(&(mean / BUDGET))), "{means:?}");
    assert!((means[0] / means[1] - 1.0).abs() < 0.1, "{means:?}");
}

#[test]
fn proxies_that_come_and_go_change_nothing() {
    let mut mesh = Mesh::new(3, 10, adaptive(BUDGET), loads());
    mesh.run(100);
    let start = mesh.now;
    mesh.only(2);
    mesh.run(60);
    mesh.only(10);
    mesh.run(60);
    let kept = mesh.since(start);
    assert!(longest_above(kept, 2.0 * BUDGET) <= Duration::from_secs(1));
    for (place, rate) in rates(&kept[300..], 100).into_iter().enumerate() {
        assert!((0.6..1.4).contains(&(rate / BUDGET)), "{place}: {rate}");
    }
}

#[test]
fn what_is_called_once_a_minute_has_its_traces_beside_what_is_busy() {
    let mut busy = times(&loads(), 10.0);
    busy.push(load("DELETE /account", 1.0 / 60.0));
    let mut mesh = Mesh::new(11, 4, adaptive(100.0), busy);
    mesh.run(3600);
    let (seen, kept) = mesh.of("DELETE /account");
    assert!(seen > 40 && kept + 3 >= seen, "{kept} of {seen}");
    // The busy ones have the same among themselves.
    let traces = ["GET /", "GET /cart", "POST /pay"].map(|operation| mesh.of(operation).1 as f64);
    assert!(traces.iter().all(|trace| (trace / traces[0] - 1.0).abs() < 0.25), "{traces:?}");
}

#[test]
fn a_control_plane_that_begins_anew_makes_no_spike() {
    for tell_held in [true, false] {
        let mut mesh = Mesh::new(5, 10, adaptive(BUDGET), times(&loads(), 10.0));
        mesh.tell_held = tell_held;
        mesh.run(120);
        let start = mesh.now;
        mesh.restart();
        assert_eq!(mesh.planner.thresholds(), None);
        mesh.run(60);
        for rate in rates(mesh.since(start), 10) {
            assert!((0.7..1.35).contains(&(rate / BUDGET)), "{rate}, told: {tell_held}");
        }
    }
}

#[test]
fn load_that_comes_and_goes_is_bounded_each_time_and_does_not_build_up() {
    for (half, most) in [(7, 2.0), (20, 1.7), (65, 1.35)] {
        let mut mesh = Mesh::new(half, 5, adaptive(BUDGET), loads());
        mesh.run(60);
        let mut on = Vec::new();
        for _ in 0..8 {
            mesh.loads = times(&loads(), 0.05);
            mesh.run(half);
            let start = mesh.now;
            mesh.loads = times(&loads(), 10.0);
            mesh.run(half);
            let kept = mesh.since(start);
            assert!(longest_above(kept, 2.0 * BUDGET) <= BURST, "{half}");
            on.push(mean(kept) / BUDGET);
        }
        assert!(on.iter().all(|mean| *mean < most), "{half}: {on:?}");
        let highest = |means: &[f64]| means.iter().copied().fold(0.0, f64::max);
        assert!(highest(&on[4..]) < highest(&on[..4]) * 1.25, "{half}: {on:?}");
    }
}

#[test]
fn a_rate_limit_is_the_meshs_and_not_each_proxys() {
    let limit = rule(Kind::RateLimit { traces_per_second: 20.0, burst: 50.0 });
    let mut mesh = Mesh::new(2, 8, limit, loads());
    mesh.run(120);
    let start = mesh.now;
    mesh.run(200);
    let traces = mean(mesh.since(start)) / SPANS;
    assert!((16.0..24.0).contains(&traces), "{traces}");
    let said = mesh.planner.thresholds().expect("it has listened");
    assert_eq!(said.iter().map(|threshold| &*threshold.operation).collect::<Vec<_>>(), [""]);
}
