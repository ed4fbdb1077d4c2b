//! The machine itself: reports come in, and at each tick every rule is planned anew.

use std::sync::Arc;
use std::time::Duration;

use super::budgets::{Budgets, Claim};
use super::operation::Operation;
use super::operations::Operations;
use super::rates::{Counted, Rates};
use super::rule::{Plan, Planned};
use super::spans::SpansPerTrace;
use super::{Limit, Refused, Report, Rule, Threshold};

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

    /// All rules there are, planned within a second. Whatever was learned of those that were there before stays; a rule that is gone is
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
        // A budget that has become smaller holds soon.
        self.early = self.began.then_some(self.last + EARLY_GAP);
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
            let mut part = 0.0;
            if let Some(operation) = self.operations.of(number) {
                operation.reported(now, seen, kept, count.held);
                part = operation.decided();
            }
            if count.seen > 0 {
                rule.kept += kept / window;
                rule.due += seen * part / window;
                let (seen, kept) = ((seen / window) as f32, (kept / window) as f32);
                counts.push(Counted { operation: number, seen, kept });
            }
        }
        for old in self.rates.of(proxy) {
            let part = self.operations.get(old.operation).map_or(0.0, Operation::decided);
            if let Some(rule) = self.operations.rule(old.operation).and_then(|rule| self.rules.get_mut(rule)) {
                rule.kept -= f64::from(old.kept);
                rule.due -= f64::from(old.seen) * part;
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

    /// Much more is kept than is planned by the latest reports, or would be if proxies let it.
    fn flooded(&self) -> bool {
        let spans = self.spans.mean();
        let planned = |rule: &Planned| match rule.is_adaptive() {
            _ if rule.said => rule.granted,
            true => rule.budget() / spans,
            false => rule.budget(),
        };
        let comes = |rule: &Planned| rule.kept.max(rule.due);
        let flooded = |rule: &Planned| comes(rule) > FLOOD * planned(rule) + rule.burst() / self.interval.as_secs_f64();
        let adaptive = self.rules.iter().filter(|rule| rule.is_adaptive());
        let all: f64 = adaptive.map(|rule| comes(rule) * spans).sum();
        self.budgets.mesh.is_some_and(|mesh| all > FLOOD * mesh) || self.rules.iter().any(flooded)
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
            let due = |&number: &u32| {
                let seen = sums.get(number as usize).map_or(0.0, |sum| sum.seen);
                seen * self.operations.get(number).map_or(0.0, Operation::decided)
            };
            rule.due = rule.operations.values().map(due).sum();
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

/// The least time between two plans.
const EARLY_GAP: Duration = Duration::from_secs(1);
/// Kept, of what is planned, before the next plan is made early.
const FLOOD: f64 = 2.0;
/// Intervals after the start in which nothing rises.
const CALM: u32 = 3;
const WINDOW_LEAST: Duration = Duration::from_millis(100);
const WINDOW_MOST: Duration = Duration::from_secs(60);
/// Of one operation on one proxy. No proxy does a tenth of it.
const REQUESTS_PER_SECOND: f64 = 1e6;
/// In one report: sixteen rules with all the operations that a rule may have.
const COUNTS: usize = 4096;
const RULES: usize = 65_536;
