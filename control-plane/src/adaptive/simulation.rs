//! A mesh in virtual time: proxies whose requests arrive by chance, that report every two seconds and hold bursts by the
//! proxy's own functions, and the planner. Each kept trace has six spans, two of them on the proxy where it begins.

use std::collections::BTreeMap;
use std::f64::consts::TAU;
use std::sync::Arc;
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use spanmesh_proxy::rules::sampling::cap::Cap;
use spanmesh_proxy::rules::sampling::{self, rate};

use super::threshold::probability;
use super::{Budgets, Count, Planner, Report, Rule};

pub const STEP: Duration = Duration::from_millis(100);
pub const INTERVAL: Duration = Duration::from_secs(10);
const WINDOW: Duration = Duration::from_secs(2);
pub const SPANS: f64 = 6.0;
const OWN_SPANS: u64 = 2;
/// All spans that are not made where a trace begins are reported by one that no trace begins at.
const CALLEE: u64 = 1 << 40;

/// Requests per second in the whole mesh.
#[derive(Clone, Debug)]
pub struct Load {
    pub operation: String,
    pub rate: f64,
}

pub fn load(operation: &str, rate: f64) -> Load {
    Load { operation: operation.into(), rate }
}

pub struct Mesh {
    pub now: Duration,
    pub planner: Planner,
    pub loads: Vec<Load>,
    /// What reports say of thresholds in force.
    pub tell_held: bool,
    /// Proxies know of no limit, as those of a version before.
    pub alone: bool,
    pub rule: Rule,
    budgets: Budgets,
    proxies: Vec<Proxy>,
    callee: u64,
    rng: SmallRng,
    /// Traces per step that were kept, from the start.
    kept: Vec<u64>,
    by_operation: BTreeMap<String, (u64, u64)>,
}

#[derive(Default)]
struct Proxy {
    alive: bool,
    next: Duration,
    counts: BTreeMap<String, (u64, u64)>,
    rates: BTreeMap<String, rate::Rate>,
    cap: Cap,
    held: BTreeMap<Arc<str>, u64>,
    limit: Option<sampling::Limit>,
}

impl Mesh {
    pub fn new(seed: u64, proxies: usize, rule: Rule, loads: Vec<Load>) -> Self {
        let mut mesh = Self {
            now: Duration::ZERO,
            planner: Planner::new(Duration::ZERO, INTERVAL),
            loads,
            tell_held: true,
            alone: false,
            rule,
            budgets: Budgets::default(),
            proxies: Vec::new(),
            callee: 0,
            rng: SmallRng::seed_from_u64(seed),
            kept: Vec::new(),
            by_operation: BTreeMap::new(),
        };
        for _ in 0..proxies {
            let next = mesh.rng.random_range(0.0..1.0) * WINDOW.as_secs_f64();
            mesh.proxies.push(Proxy { alive: true, next: Duration::from_secs_f64(next), ..Proxy::default() });
        }
        mesh.planner.set(vec![mesh.rule.clone()], mesh.budgets.clone());
        mesh
    }

    /// A new control plane that knows nothing.
    pub fn restart(&mut self) {
        self.planner = Planner::new(self.now, INTERVAL);
        self.planner.set(vec![self.rule.clone()], self.budgets.clone());
    }

    pub fn only(&mut self, proxies: usize) {
        for (place, proxy) in self.proxies.iter_mut().enumerate() {
            proxy.alive = place < proxies;
        }
    }

    pub fn run(&mut self, seconds: u64) {
        let end = self.now + Duration::from_secs(seconds);
        while self.now < end {
            self.step();
        }
    }

    /// Traces that were kept in each of the steps since then.
    pub fn since(&self, start: Duration) -> &[u64] {
        &self.kept[(start.as_millis() / STEP.as_millis()) as usize..]
    }

    /// Seen and kept of one operation, from the start.
    pub fn of(&self, operation: &str) -> (u64, u64) {
        self.by_operation.get(operation).copied().unwrap_or_default()
    }

    fn step(&mut self) {
        self.now += STEP;
        let alive = self.proxies.iter().filter(|proxy| proxy.alive).count() as f64;
        let budget = self.budget();
        let mut all = 0;
        for proxy in self.proxies.iter_mut().filter(|proxy| proxy.alive) {
            let level = proxy.level(&self.loads, budget);
            let mut passed = 0;
            for load in &self.loads {
                let mean = load.rate / alive * STEP.as_secs_f64();
                let rate = proxy.rates.entry(load.operation.clone()).or_default();
                let part = part(&proxy.held, &load.operation).min(rate::share(level, rate.per_second()));
                let kept = poisson(&mut self.rng, mean * part);
                let dropped = poisson(&mut self.rng, mean * (1.0 - part));
                rate.look(kept + dropped, STEP);
                passed += kept;
                for count in [&mut proxy.counts, &mut self.by_operation] {
                    let count = count.entry(load.operation.clone()).or_default();
                    *count = (count.0 + kept + dropped, count.1 + kept);
                }
            }
            all += passed;
            let most = proxy.limit.as_ref().map_or(f64::INFINITY, |limit| proxy.cap.most(limit));
            proxy.cap.look(passed, most, STEP);
        }
        self.kept.push(all);
        self.callee += all * (SPANS as u64 - OWN_SPANS);
        self.report();
        if self.planner.tick(self.now) {
            self.push();
        }
    }

    fn budget(&self) -> f64 {
        match self.rule.kind {
            super::Kind::Adaptive { spans_per_second, .. } => spans_per_second / OWN_SPANS as f64,
            super::Kind::RateLimit { traces_per_second, .. } => traces_per_second,
        }
    }

    fn report(&mut self) {
        for (place, proxy) in self.proxies.iter_mut().enumerate() {
            if self.now < proxy.next || !proxy.alive {
                continue;
            }
            proxy.next += WINDOW;
            let held = |operation: &str| {
                let held = proxy.held.get(operation).or_else(|| proxy.held.get("")).copied();
                held.filter(|_| self.tell_held)
            };
            let count = |(operation, &(seen, kept)): (&'_ String, &(u64, u64))| (operation.clone(), seen, kept);
            let counts: Vec<(String, u64, u64)> = proxy.counts.iter().map(count).collect();
            let counts: Vec<Count<'_>> = counts
                .iter()
                .map(|(operation, seen, kept)| Count {
                    policy: &self.rule.policy,
                    rule: &self.rule.rule,
                    operation,
                    seen: *seen,
                    kept: *kept,
                    held: held(operation),
                })
                .collect();
            let kept: u64 = counts.iter().map(|count| count.kept).sum();
            let report = Report { window: WINDOW, counts: &counts, spans: kept * OWN_SPANS, unruled: 0 };
            self.planner.report(self.now, place as u64, &report);
            proxy.counts.clear();
        }
        if self.now.as_millis().is_multiple_of(WINDOW.as_millis()) {
            let spans = std::mem::take(&mut self.callee);
            self.planner.report(self.now, CALLEE, &Report { window: WINDOW, counts: &[], spans, unruled: 0 });
        }
    }

    fn push(&mut self) {
        let held: BTreeMap<Arc<str>, u64> = self
            .planner
            .thresholds()
            .into_iter()
            .flatten()
            .map(|threshold| (threshold.operation.clone(), threshold.threshold))
            .collect();
        let limit = self.planner.limits().first().map(|limit| sampling::Limit {
            policy: limit.policy.clone(),
            rule: limit.rule.clone(),
            traces_per_second: limit.traces_per_second,
            proxies: limit.proxies,
        });
        for proxy in self.proxies.iter_mut().filter(|proxy| proxy.alive) {
            proxy.held = held.clone();
            proxy.limit = limit.clone().filter(|_| !self.alone);
        }
    }
}

impl Proxy {
    /// As the proxy's steward has it: what each operation may come to, within what was pushed.
    fn level(&self, loads: &[Load], unplanned: f64) -> f64 {
        let rate = |load: &Load| self.rates.get(&load.operation).copied().unwrap_or_default().per_second();
        let amounts = loads.iter().map(|load| rate(load) * part(&self.held, &load.operation));
        rate::level(amounts, self.limit.as_ref().map_or(unplanned, |limit| self.cap.most(limit)))
    }
}

fn part(held: &BTreeMap<Arc<str>, u64>, operation: &str) -> f64 {
    held.get(operation).or_else(|| held.get("")).map_or(1.0, |&threshold| probability(threshold))
}

pub fn poisson(rng: &mut SmallRng, mean: f64) -> u64 {
    if mean > 30.0 {
        let normal = (-2.0 * (1.0 - rng.random::<f64>()).ln()).sqrt() * (TAU * rng.random::<f64>()).cos();
        return (mean + mean.sqrt() * normal).round().max(0.0) as u64;
    }
    let (mut left, mut count) = ((-mean).exp(), 0);
    loop {
        left /= rng.random::<f64>().max(f64::MIN_POSITIVE);
        if left > 1.0 {
            return count;
        }
        count += 1;
    }
}
