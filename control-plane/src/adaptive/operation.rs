//! One operation of a rule: how often it is called, by the latest reports, and with what probability it is kept. Says
//! how fast either may move.

use std::time::Duration;

use super::threshold::{probability, threshold};

#[derive(Debug)]
pub struct Operation {
    called: Duration,
    /// Requests per second in the mesh, smoothed.
    rate: Option<f64>,
    /// As it was decided here last.
    probability: Option<f64>,
    before: Before,
}

/// How proxies kept it before it was decided here.
#[derive(Debug, Default)]
struct Before {
    held: Option<u64>,
    seen: f64,
    kept: f64,
}

/// What the latest reports of all proxies come to.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Rate {
    /// Requests per second, and those of them that were kept.
    pub seen: f64,
    pub kept: f64,
    /// Requests that this was counted from.
    pub count: f64,
}

/// How far a probability may go in one step.
#[derive(Clone, Copy, Debug)]
pub struct Step {
    /// What is right now, and what it may be at once, however low it was.
    pub target: f64,
    pub floor: f64,
    /// It may rise, to twice what it was.
    pub grow: bool,
    /// The rule has more than its budget: small steps down are taken too.
    pub over: bool,
}

impl Operation {
    pub fn new(now: Duration) -> Self {
        Self { called: now, rate: None, probability: None, before: Before::default() }
    }

    /// A proxy has counted it. Until this machine has decided, what the proxies do is where it begins.
    pub fn reported(&mut self, now: Duration, seen: f64, kept: f64, held: Option<u64>) {
        if seen > 0.0 {
            self.called = now;
        }
        if self.probability.is_none() {
            self.before.held = self.before.held.max(held);
            self.before.seen += seen;
            self.before.kept += kept;
        }
    }

    /// When a report last had requests of it.
    pub fn called(&self) -> Duration {
        self.called
    }

    /// What is more than chance is taken at once; the rest of what moves is smoothed, a half at each regular tick.
    pub fn measure(&mut self, new: Rate, regular: bool) {
        let old = self.rate.unwrap_or(new.seen);
        let expected = if new.seen > 0.0 { new.count * old / new.seen } else { 0.0 };
        let chance = DEVIATIONS * (expected + 1.0).sqrt();
        self.rate = Some(if new.count - expected > chance {
            new.seen
        } else if regular {
            old + SMOOTHING * (new.seen - old)
        } else {
            old
        });
    }

    pub fn rate(&self) -> f64 {
        self.rate.unwrap_or(0.0)
    }

    /// With what probability it is kept at present, as far as is known.
    pub fn probability(&self) -> f64 {
        self.probability.unwrap_or_else(|| match self.before.held {
            Some(held) => probability(held),
            None => ((self.before.kept + 1.0) / (self.before.seen + 1.0)).min(1.0),
        })
    }

    /// As `probability`, but 0 as long as it was not decided here.
    pub fn decided(&self) -> f64 {
        self.probability.unwrap_or(0.0)
    }

    pub fn threshold(&self) -> u64 {
        threshold(self.probability())
    }

    pub fn step(&mut self, step: Step) {
        let old = self.probability();
        let new = step.target.clamp(0.0, 1.0);
        let near = new <= old * DEAD_BAND && old <= new * DEAD_BAND;
        let settled = match new > old {
            // All of them is said as such.
            true if near && new < 1.0 => old,
            true if step.grow => new.min((old * GROWTH).max(step.floor)),
            true => new.min(old.max(step.floor)),
            false if near && !step.over => old,
            false => new,
        };
        self.probability = Some(probability(threshold(settled)));
    }
}

/// Beyond which a change of the rate is not chance.
const DEVIATIONS: f64 = 3.0;
const SMOOTHING: f64 = 0.5;
/// Nothing is pushed for less.
const DEAD_BAND: f64 = 1.2;
const GROWTH: f64 = 2.0;

#[cfg(test)]
mod tests {
    use super::*;

    fn at(probability: f64) -> Operation {
        let mut operation = Operation::new(Duration::ZERO);
        operation.reported(Duration::ZERO, 1000.0, 0.0, Some(threshold(probability)));
        operation
    }

    fn close(a: f64, b: f64) -> bool {
        (a / b - 1.0).abs() < 1e-3
    }

    #[test]
    fn it_rises_twofold_and_falls_at_once() {
        for (target, floor, grow, right) in [
            (0.9, 0.0, true, 0.2),
            (0.9, 0.0, false, 0.1),
            (0.001, 0.0, false, 0.001),
            (0.9, 0.5, true, 0.5),
            (0.9, 0.5, false, 0.5),
            (0.3, 0.5, false, 0.3),
        ] {
            let mut operation = at(0.1);
            operation.step(Step { target, floor, grow, over: false });
            assert!(close(operation.probability(), right), "{target} {floor} {grow}: {}", operation.probability());
        }
    }

    #[test]
    fn small_changes_are_left_alone_but_not_above_the_budget() {
        for (target, over, right) in
            [(0.119, false, 0.1), (0.084, false, 0.1), (0.084, true, 0.084), (0.08, false, 0.08)]
        {
            let mut operation = at(0.1);
            operation.step(Step { target, floor: 0.0, grow: true, over });
            assert!(close(operation.probability(), right), "{target}: {}", operation.probability());
        }
        let mut nearly = at(0.9);
        nearly.step(Step { target: 1.0, floor: 0.0, grow: true, over: false });
        assert_eq!(nearly.threshold(), 0);
    }

    #[test]
    fn it_begins_where_the_most_careful_proxy_is() {
        let mut operation = at(0.5);
        operation.reported(Duration::ZERO, 1.0, 1.0, Some(threshold(0.01)));
        assert!(close(operation.probability(), 0.01));
        let mut unknown = Operation::new(Duration::ZERO);
        unknown.reported(Duration::ZERO, 99.0, 4.0, None);
        assert_eq!(unknown.probability(), 0.05);
        unknown.reported(Duration::ZERO, 0.0, 0.0, Some(threshold(0.01)));
        assert!(close(unknown.probability(), 0.01));
    }

    #[test]
    fn chance_is_smoothed_and_a_step_is_believed() {
        let rate = |seen: f64| Rate { seen, kept: 0.0, count: seen * 5.0 };
        let mut operation = at(0.1);
        operation.measure(rate(100.0), true);
        operation.measure(rate(104.0), true);
        assert_eq!(operation.rate(), 102.0);
        operation.measure(rate(104.0), false);
        assert_eq!(operation.rate(), 102.0);
        operation.measure(rate(1000.0), false);
        assert_eq!(operation.rate(), 1000.0);
        operation.measure(Rate::default(), true);
        assert_eq!(operation.rate(), 500.0);
    }
}
