//! A rule with what is planned for it.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::fill::{Want, level};
use super::operation::{Operation, Step};
use super::operations::Operations;
use super::{Kind, Rule};

#[derive(Debug)]
pub struct Planned {
    pub spec: Rule,
    /// The numbers of its operations, by name. A rate limit has one, without a name.
    pub operations: BTreeMap<Arc<str>, u32>,
    /// Per second in the mesh: requests, and those that are kept by the latest reports.
    pub all: f64,
    pub kept: f64,
    /// As many would be kept if proxies held no burst by themselves.
    pub due: f64,
    /// Traces per second that it may have.
    pub granted: f64,
    /// Of a rate limit: traces that were not used.
    pub saved: f64,
    /// Its thresholds have been given out.
    pub said: bool,
}

/// By what a rule is planned.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Per second, in spans or, for a rate limit, in traces.
    pub share: f64,
    /// What a trace costs of it.
    pub cost: f64,
    /// Thresholds may fall.
    pub grow: bool,
    pub interval: Duration,
}

impl Planned {
    pub fn new(spec: Rule) -> Self {
        Self { spec, operations: BTreeMap::new(), all: 0.0, kept: 0.0, due: 0.0, granted: 0.0, saved: 0.0, said: false }
    }

    pub fn compare(&self, policy: &str, rule: &str) -> Ordering {
        (&*self.spec.policy, &*self.spec.rule).cmp(&(policy, rule))
    }

    pub fn is_adaptive(&self) -> bool {
        matches!(self.spec.kind, Kind::Adaptive { .. })
    }

    pub fn budget(&self) -> f64 {
        sound(match self.spec.kind {
            Kind::Adaptive { spans_per_second, .. } => spans_per_second,
            Kind::RateLimit { traces_per_second, .. } => traces_per_second,
        })
    }

    pub fn burst(&self) -> f64 {
        match self.spec.kind {
            Kind::Adaptive { .. } => 0.0,
            Kind::RateLimit { burst, .. } => sound(burst),
        }
    }

    /// The least probability, and the traces per second that every operation may have.
    fn floors(&self) -> (f64, f64) {
        match self.spec.kind {
            Kind::Adaptive { min_traces_per_minute, min_probability, .. } => {
                (sound(min_probability).min(1.0), sound(min_traces_per_minute) / 60.0)
            }
            Kind::RateLimit { .. } => (0.0, 0.0),
        }
    }

    fn present<'a>(&'a self, operations: &'a Operations) -> impl Iterator<Item = &'a Operation> {
        self.operations.values().filter_map(|&number| operations.get(number))
    }

    /// Spans per second that it asks for: its budget, or more if its operations have no less than they must.
    pub fn claim(&self, operations: &Operations, cost: f64) -> f64 {
        let (_, floor) = self.floors();
        let least: f64 = self.present(operations).map(|operation| operation.rate().min(floor) * cost).sum();
        self.budget().max(least)
    }

    /// An interval has passed: what was not kept of what might have been is saved.
    pub fn save(&mut self, interval: Duration) {
        let unused = (self.budget() - self.kept) * interval.as_secs_f64();
        self.saved = (self.saved + unused).clamp(0.0, self.burst());
    }

    pub fn plan(&mut self, operations: &mut Operations, plan: Plan) {
        let budget = plan.share + self.saved / plan.interval.as_secs_f64();
        self.granted = plan.share / plan.cost;
        let (least, floor) = self.floors();
        let want = |operation: &Operation| {
            let high = operation.rate() * plan.cost;
            Want { low: high * least, high }
        };
        let wants: Vec<Want> = self.present(operations).map(want).collect();
        let lows: f64 = wants.iter().map(|want| want.low).sum();
        let has: f64 = self.present(operations).map(|it| it.rate() * plan.cost * it.probability()).sum();
        let over = has > OVER * budget.max(lows);
        let level = level(&wants, budget);
        for &number in self.operations.values() {
            let Some(operation) = operations.of(number) else { continue };
            let part = |rate: f64| if operation.rate() > rate { rate / operation.rate() } else { 1.0 };
            let target = part(level / plan.cost).max(least);
            let floor = part(floor).min(target).max(least);
            operation.step(Step { target, floor, grow: plan.grow, over });
        }
    }

    /// Whatever is not named is treated as the busiest that is: nothing that is new has more than its share.
    pub fn others(&self, operations: &Operations) -> u64 {
        self.present(operations).map(Operation::threshold).max().unwrap_or(0)
    }
}

/// Nothing less than nothing, and a number.
fn sound(written: f64) -> f64 {
    if written.is_finite() { written.max(0.0) } else { 0.0 }
}

/// A rule's operations may together have so much of its budget; beyond, small steps down are taken too.
const OVER: f64 = 1.1;
