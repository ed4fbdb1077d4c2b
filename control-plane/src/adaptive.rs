//! What adaptive rules and the mesh's rate limits come to at present. Proxies report how often each operation is called;
//! out come thresholds that are the same for all proxies, so it does not matter how many there are. Every operation has
//! the same share of its rule's budget at most, so a rare one is not starved by a busy one.
//! Pure: whoever owns a `Planner` feeds it reports, wakes it when it asks for it, and sends what has changed.
//! Thresholds fall at once and rise slowly; nothing rises while nobody reports, nor soon after the start.

use std::sync::Arc;
use std::time::Duration;

pub use budgets::Budgets;
use budgets::Claim;
use operations::Operations;
use rates::{Counted, Rates};
use rule::{Plan, Planned};
use spans::SpansPerTrace;

mod budgets;
mod fill;
mod operation;
mod operations;
#[cfg(test)]
mod properties;
mod rates;
mod rule;
#[cfg(test)]
mod simulation;
mod spans;
#[cfg(test)]
mod tests;
pub mod threshold;

/// A rule whose threshold is made here.
#[derive(Clone, Debug, PartialEq)]
pub struct Rule {
    /// `namespace/name` of the resource, and the rule's name in it, as proxies report them.
    pub policy: Arc<str>,
    pub rule: Arc<str>,
    /// `name.namespace` of the service whose budget it shares, if it belongs to one.
    pub service: Option<Arc<str>>,
    pub kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    Adaptive {
        spans_per_second: f64,
        /// Of each operation, also above the rule's budget, but not above the service's and the mesh's.
        min_traces_per_minute: f64,
        /// Whatever the budgets are.
        min_probability: f64,
    },
    /// Of the whole mesh. After a quiet time as many more as `burst`.
    RateLimit { traces_per_second: f64, burst: f64 },
}

/// What one proxy has counted in one window.
#[derive(Clone, Copy, Debug)]
pub struct Report<'a> {
    pub window: Duration,
    pub counts: &'a [Count<'a>],
    /// Sampled spans that it made.
    pub spans: u64,
    /// Requests that no rule decided; they are kept.
    pub unruled: u64,
}

/// Of any rule; those of others than are planned here tell how many traces there are.
#[derive(Clone, Copy, Debug)]
pub struct Count<'a> {
    pub policy: &'a str,
    pub rule: &'a str,
    pub operation: &'a str,
    pub seen: u64,
    pub kept: u64,
    /// The threshold that was pushed to the proxy, where one is in force. It may be told of what was not seen, too.
    pub held: Option<u64>,
}

/// Ordered as a list of them is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Threshold {
    pub policy: Arc<str>,
    pub rule: Arc<str>,
    /// Empty: of whatever is not named.
    pub operation: Arc<str>,
    pub threshold: u64,
}

/// What a burst may come to before the next thresholds: for the caps that proxies have of their own.
#[derive(Clone, Debug, PartialEq)]
pub struct Limit {
    pub policy: Arc<str>,
    pub rule: Arc<str>,
    /// Of all proxies together.
    pub traces_per_second: f64,
    /// That have decided by the rule lately.
    pub proxies: u32,
}

/// What was not taken of what came, since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Refused {
    /// Reports: without a window, or from more proxies than there is room for.
    pub reports: u64,
    /// Counts beyond those that one report may have, or that cannot be.
    pub counts: u64,
}

#[derive(Debug)]
pub struct Planner {
    budgets: Budgets,
    /// By policy and name.
    rules: Vec<Planned>,
    operations: Operations,
    rates: Rates,
    spans: SpansPerTrace,
    interval: Duration,
    regular: Duration,
    early: Option<Duration>,
    last: Duration,
    /// Nothing rises before: proxies are still on their way back to a control plane that has just begun.
    rising: Duration,
    began: bool,
    thresholds: Vec<Threshold>,
    limits: Vec<Limit>,
    refused: Refused,
}

impl Planner {
    /// It listens for one interval before it says anything: until then whatever the proxies hold stays in force.
    pub fn new(now: Duration, interval: Duration) -> Self {
        let interval = interval.max(EARLY_GAP);
        Self {
            budgets: Budgets::default(),
            rules: Vec::new(),
            operations: Operations::default(),
            rates: Rates::default(),
            spans: SpansPerTrace::new(now),
            interval,
            regular: now + interval,
            early: None,
            last: now,
            rising: now + CALM * interval,
            began: false,
            thresholds: Vec::new(),
            limits: Vec::new(),
            refused: Refused::default(),
        }
    }

    /// All rules there are. Whatever was learned of those that were there before stays; a rule that is gone is
    /// forgotten, with its operations.
    pub fn set(&mut self, mut rules: Vec<Rule>, budgets: Budgets) {
        rules.sort_by(|a, b| (&a.policy, &a.rule).cmp(&(&b.policy, &b.rule)));
        rules.dedup_by(|b, a| (&a.policy, &a.rule) == (&b.policy, &b.rule));
        rules.truncate(RULES);
        self.budgets = budgets;
        let mut new: Vec<Planned> = rules.into_iter().map(Planned::new).collect();
        for old in std::mem::take(&mut self.rules) {
            let same = new.binary_search_by(|rule| rule.compare(&old.spec.policy, &old.spec.rule));
            let same = same.ok().and_then(|place| new.get_mut(place));
            // The operations of a rate limit are not told apart.
            if let Some(rule) = same.filter(|rule| rule.is_adaptive() == old.is_adaptive()) {
                *rule = Planned { spec: rule.spec.clone(), ..old };
            }
        }
        self.rules = new;
        self.operations.place(&self.rules);
        self.rates.forget(|operation| self.operations.get(operation).is_some());
    }

    /// Takes what a proxy has counted; `proxy` is the same number when it comes back. May bring `wake` forward.
    pub fn report(&mut self, now: Duration, proxy: u64, report: &Report<'_>) {
        if report.window.is_zero() {
            self.refused.reports += 1;
            return;
        }
        let window = report.window.clamp(WINDOW_LEAST, WINDOW_MOST).as_secs_f64();
        let mut counts = Vec::with_capacity(report.counts.len().min(COUNTS));
        let mut traces = report.unruled as f64;
        self.refused.counts += report.counts.len().saturating_sub(COUNTS) as u64;
        for count in report.counts.iter().take(COUNTS) {
            let most = REQUESTS_PER_SECOND * window;
            if count.seen as f64 > most || count.kept > count.seen {
                self.refused.counts += 1;
            }
            let seen = (count.seen as f64).min(most);
            let kept = (count.kept as f64).min(seen);
            traces += kept;
            let Ok(place) = self.rules.binary_search_by(|rule| rule.compare(count.policy, count.rule)) else {
                continue;
            };
            let rule = &mut self.rules[place];
            let number = self.operations.number(now, place, rule, count.operation);
            if let Some(operation) = self.operations.of(number) {
                operation.reported(now, seen, kept, count.held);
            }
            if count.seen > 0 {
                rule.kept += kept / window;
                let (seen, kept) = ((seen / window) as f32, (kept / window) as f32);
                counts.push(Counted { operation: number, seen, kept });
            }
        }
        for old in self.rates.of(proxy) {
            if let Some(rule) = self.operations.rule(old.operation).and_then(|rule| self.rules.get_mut(rule)) {
                rule.kept -= f64::from(old.kept);
            }
        }
        let most = REQUESTS_PER_SECOND * window;
        self.spans.add(now, (report.spans as f64).min(most), traces.min(most));
        if !self.rates.put(now, proxy, report.window.clamp(WINDOW_LEAST, WINDOW_MOST), counts) {
            self.refused.reports += 1;
        }
        if self.began && self.early.is_none() && self.flooded() {
            self.early = Some(now.max(self.last + EARLY_GAP));
        }
    }

    /// When `tick` has something to do.
    pub fn wake(&self) -> Duration {
        self.early.map_or(self.regular, |early| early.min(self.regular))
    }

    /// Plans anew, if it is time to. True if thresholds or limits have changed.
    pub fn tick(&mut self, now: Duration) -> bool {
        if now < self.wake() {
            return false;
        }
        let regular = now >= self.regular;
        if regular {
            self.regular = now + self.interval;
        }
        self.early = None;
        self.last = now;
        self.rates.expire(now);
        if self.rates.proxies() == 0 {
            return false;
        }
        self.began = true;
        self.plan(now, regular);
        let before = (std::mem::take(&mut self.thresholds), std::mem::take(&mut self.limits));
        self.say(&before.1);
        (&before.0, &before.1) != (&self.thresholds, &self.limits)
    }

    /// Sorted, those of a rule beside each other; `None` while it listens: what the proxies hold stays.
    pub fn thresholds(&self) -> Option<&[Threshold]> {
        self.began.then_some(&self.thresholds)
    }

    /// In the same order, one for each rule that has thresholds.
    pub fn limits(&self) -> &[Limit] {
        &self.limits
    }

    pub fn spans_per_trace(&self) -> f64 {
        self.spans.mean()
    }

    pub fn refused(&self) -> Refused {
        self.refused
    }

    /// Operations that are remembered.
    pub fn operations(&self) -> usize {
        self.operations.len()
    }

    /// Much more is kept than is planned, by the latest reports.
    fn flooded(&self) -> bool {
        let spans = self.spans.mean();
        let flooded = |rule: &Planned| rule.kept > FLOOD * rule.granted + rule.burst() / self.interval.as_secs_f64();
        let adaptive = self.rules.iter().filter(|rule| rule.is_adaptive());
        let all: f64 = adaptive.map(|rule| rule.kept * spans).sum();
        self.budgets.mesh.is_some_and(|mesh| all > FLOOD * mesh)
            || self.rules.iter().any(|rule| rule.said && flooded(rule))
    }

    fn plan(&mut self, now: Duration, regular: bool) {
        let mean = if regular { self.spans.settle() } else { self.spans.mean() };
        let sums = self.rates.sums(self.operations.numbers());
        let grow = regular && now >= self.rising;
        for rule in &mut self.rules {
            rule.kept = 0.0;
            rule.all = 0.0;
            for &number in rule.operations.values() {
                let new = sums.get(number as usize).copied().unwrap_or_default();
                if let Some(operation) = self.operations.of(number) {
                    operation.measure(new, regular);
                    rule.all += operation.rate();
                    rule.kept += new.kept;
                }
            }
        }
        let shares = self.shares(mean);
        for (rule, share) in self.rules.iter_mut().zip(shares) {
            let cost = if rule.is_adaptive() { mean } else { 1.0 };
            if regular {
                rule.save(self.interval);
            }
            rule.plan(&mut self.operations, Plan { share, cost, grow, interval: self.interval });
        }
        if regular {
            self.operations.tidy(now, &mut self.rules, &sums);
        }
    }

    fn shares(&self, mean: f64) -> Vec<f64> {
        let adaptive: Vec<&Planned> = self.rules.iter().filter(|rule| rule.is_adaptive()).collect();
        let claims: Vec<Claim<'_>> = adaptive
            .iter()
            .map(|rule| Claim {
                service: rule.spec.service.as_deref(),
                budget: rule.claim(&self.operations, mean),
                all: rule.all * mean,
            })
            .collect();
        let mut shares = self.budgets.shares(&claims).into_iter();
        let mut of = |rule: &Planned| if rule.is_adaptive() { shares.next() } else { None };
        self.rules.iter().map(|rule| of(rule).unwrap_or_else(|| rule.budget())).collect()
    }

    fn say(&mut self, before: &[Limit]) {
        let spread = self.rates.spread(self.rules.len(), |operation| self.operations.rule(operation));
        for (rule, &proxies) in self.rules.iter_mut().zip(&spread) {
            if rule.operations.is_empty() {
                continue;
            }
            rule.said = true;
            let name = |operation: &Arc<str>, threshold| Threshold {
                policy: rule.spec.policy.clone(),
                rule: rule.spec.rule.clone(),
                operation: operation.clone(),
                threshold,
            };
            self.thresholds.push(name(self.operations.nameless(), rule.others(&self.operations)));
            for (operation, &number) in rule.operations.iter().filter(|(operation, _)| !operation.is_empty()) {
                self.thresholds.extend(self.operations.get(number).map(|found| name(operation, found.threshold())));
            }
            let limit = Limit {
                policy: rule.spec.policy.clone(),
                rule: rule.spec.rule.clone(),
                traces_per_second: rule.granted,
                proxies,
            };
            let same = before.binary_search_by(|old| rule.compare(&old.policy, &old.rule).reverse());
            let old = same.ok().and_then(|place| before.get(place)).filter(|old| old.near(&limit));
            self.limits.push(old.cloned().unwrap_or(limit));
        }
    }
}

impl Limit {
    /// Nothing is sent for so small a difference.
    fn near(&self, other: &Self) -> bool {
        let near = |a: f64, b: f64| a <= b * NEAR && b <= a * NEAR;
        near(self.traces_per_second, other.traces_per_second) && near(f64::from(self.proxies), f64::from(other.proxies))
    }
}

/// The least time between two plans.
const EARLY_GAP: Duration = Duration::from_secs(1);
/// Kept, of what is planned, before the next plan is made early.
const FLOOD: f64 = 2.0;
const NEAR: f64 = 1.2;
/// Intervals after the start in which nothing rises.
const CALM: u32 = 3;
const WINDOW_LEAST: Duration = Duration::from_millis(100);
const WINDOW_MOST: Duration = Duration::from_secs(60);
/// Of one operation on one proxy. No proxy does a tenth of it.
const REQUESTS_PER_SECOND: f64 = 1e6;
/// In one report: sixteen rules with all the operations that a rule may have.
const COUNTS: usize = 4096;
const RULES: usize = 65_536;
