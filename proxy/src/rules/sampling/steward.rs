//! Looks at the counts of the engines ten times a second, sets the thresholds that move, and adds up what there is to report.
//! Pure: whoever owns it brings the time (`trace/sampler`).

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use super::cap::Cap;
use super::engine::{Engine, Lasting, Row};
use super::plan::{Action, Id, Limit, Plan, Pushed};
use super::rate::{self, Purse, Rate};
use super::tally::Seat;
use super::threshold::Threshold;

#[derive(Debug, Default)]
pub struct Steward {
    pub(crate) lasting: Lasting,
    engines: Vec<Live>,
    moods: HashMap<Key, Mood>,
    /// What was pushed, by policy, rule and operation.
    pushed: HashMap<(String, String, String), Threshold>,
    /// By policy and rule.
    limits: HashMap<Name, Limit>,
    caps: HashMap<Name, Cap>,
    /// Since the latest report, and from the beginning.
    fresh: Sums,
    whole: Sums,
    obeyed: Rate,
    spans: Rate,
    kept: Rate,
    /// Spans that may still be made before the guard rises; at first as many as ever.
    saved: Option<f64>,
    guard: Threshold,
}

/// What was counted since the last time it was asked for.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Counts {
    pub rules: Vec<RuleCount>,
    /// Requests that came with a decision which was obeyed.
    pub arrived_kept: u64,
    pub arrived_dropped: u64,
    /// Requests that no rule decided.
    pub unruled: u64,
    pub unruled_kept: u64,
    /// Sampled spans that were made.
    pub spans: u64,
    /// 0 is none.
    pub guard: u64,
}

#[derive(Clone, Debug, PartialEq)]
pub struct RuleCount {
    pub id: Id,
    pub operation: String,
    pub seen: u64,
    pub kept: u64,
}

/// Policy and rule, whatever their generation.
type Name = (Arc<str>, Arc<str>);

/// Who decided, and on what operation.
type Key = (Who, String);

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Who {
    /// No rule matched.
    Nobody,
    Caller,
    Rule(Id),
}

#[derive(Debug, Default)]
struct Sums {
    rules: HashMap<(Id, String), (u64, u64)>,
    arrived: (u64, u64),
    unruled: (u64, u64),
    spans: u64,
}

#[derive(Debug)]
struct Live {
    engine: Arc<Engine>,
    seen: HashMap<Seat, (u64, u64)>,
    spans: u64,
}

/// How a rule or an operation fares.
#[derive(Clone, Copy, Debug, Default)]
struct Mood {
    rate: Rate,
    purse: Purse,
    /// The share that is kept now.
    share: f64,
}

impl Steward {
    /// Its counts are followed from now on; the newest has its thresholds set, also before the first look: nothing is kept
    /// beyond its budget because a plan was replaced.
    pub fn follow(&mut self, engine: Arc<Engine>) {
        self.inherit(&engine);
        if let Some(before) = self.engines.last() {
            let is_busy = |id: &Id, operation: &str| {
                let mood = self.moods.get(&(Who::Rule(id.clone()), operation.to_owned()));
                mood.is_some_and(|mood| mood.rate.per_second() > IDLE)
            };
            engine.take_operations(&before.engine, is_busy);
        }
        let moods = self.measure(&engine, &HashMap::new(), Duration::ZERO);
        self.moods.extend(moods);
        engine.set_guard(self.guard);
        self.engines.push(Live { engine, seen: HashMap::new(), spans: 0 });
    }

    /// A rule that was written anew begins with what is known of the one before.
    fn inherit(&mut self, engine: &Engine) {
        let ids: HashMap<(&str, &str), &Id> =
            engine.rows.iter().map(|row| ((&*row.id.policy, &*row.id.rule), &row.id)).collect();
        let fresh = self.moods.iter().filter_map(|((who, operation), mood)| {
            let Who::Rule(before) = who else { return None };
            let id = ids.get(&(&*before.policy, &*before.rule)).filter(|id| **id != before)?;
            Some(((Who::Rule((*id).clone()), operation.clone()), *mood))
        });
        let fresh: Vec<(Key, Mood)> = fresh.collect();
        self.moods.extend(fresh);
    }

    /// What this plan does not have need not last.
    pub fn forget(&mut self, plan: &Plan) {
        self.lasting.permits.retain(|(name, generation), _| {
            plan.captures.iter().any(|capture| capture.name == *name && capture.generation == *generation)
        });
        let chains = plan.destinations.values().chain([&plan.own]);
        let keeps: HashSet<&Id> = chains.flat_map(|chain| &chain.keeps).map(|keep| &keep.id).collect();
        self.lasting.buckets.retain(|id, _| keeps.contains(id));
    }

    /// In place of what was pushed before.
    pub fn push(&mut self, thresholds: Vec<Pushed>) {
        let entry = |pushed: Pushed| ((pushed.policy, pushed.rule, pushed.operation), pushed.threshold);
        self.pushed = thresholds.into_iter().map(entry).collect();
    }

    /// In place of those that were pushed before.
    pub fn limit(&mut self, limits: Vec<Limit>) {
        self.limits = limits.into_iter().map(|limit| ((limit.policy.clone(), limit.rule.clone()), limit)).collect();
    }

    /// Adds up what was counted since the last look, and sets the thresholds.
    pub fn look(&mut self, since: Duration) {
        let mut came: HashMap<Key, (u64, u64)> = HashMap::new();
        let (mut obeyed, mut spans, mut kept) = (0, 0, 0);
        for live in &mut self.engines {
            for (key, seen, passed) in live.news() {
                for (sums, tells_apart) in [(&mut self.fresh, true), (&mut self.whole, false)] {
                    let sum = match &key {
                        (Who::Rule(id), operation) if tells_apart => {
                            sums.rules.entry((id.clone(), operation.clone())).or_default()
                        }
                        // However often the rule is written anew, it is one.
                        (Who::Rule(id), _) => {
                            sums.rules.entry((Id { generation: 0, ..id.clone() }, String::new())).or_default()
                        }
                        (Who::Caller, _) => &mut sums.arrived,
                        (Who::Nobody, _) => &mut sums.unruled,
                    };
                    *sum = (sum.0 + seen, sum.1 + passed);
                }
                if key.0 == Who::Caller {
                    obeyed += passed;
                }
                kept += passed;
                let sum = came.entry(key).or_default();
                *sum = (sum.0 + seen, sum.1 + passed);
            }
            let made = live.engine.spans();
            spans += made.saturating_sub(std::mem::replace(&mut live.spans, made));
        }
        self.fresh.spans += spans;
        self.whole.spans += spans;
        self.obeyed.look(obeyed, since);
        self.spans.look(spans, since);
        self.kept.look(kept, since);
        self.cap(&came, since);
        // An old one goes when no request holds it any more.
        let newest = self.engines.last().map(|live| live.engine.clone());
        let is_newest = |engine: &Arc<Engine>| newest.as_ref().is_some_and(|newest| Arc::ptr_eq(newest, engine));
        self.engines.retain(|live| is_newest(&live.engine) || Arc::strong_count(&live.engine) > 1);
        let Some(engine) = newest else { return };
        self.moods = self.measure(&engine, &came, since);
        self.guard(&engine, spans, since);
    }

    /// What was counted since this was last asked.
    pub fn counts(&mut self) -> Counts {
        std::mem::take(&mut self.fresh).counts(self.guard)
    }

    /// What was counted from the beginning, of all operations and generations of a rule together.
    pub fn totals(&self) -> Counts {
        self.whole.counts(self.guard)
    }

    /// Sampled spans of a kept request.
    fn spans_each(&self) -> f64 {
        match self.kept.per_second() {
            kept if kept > 0.1 => (self.spans.per_second() / kept).clamp(1.0, MANY),
            _ => 1.0,
        }
    }

    /// Sets the thresholds that move, and says how each rule fares.
    fn measure(&self, engine: &Engine, came: &HashMap<Key, (u64, u64)>, since: Duration) -> HashMap<Key, Mood> {
        let each = self.spans_each();
        let mut moods = HashMap::new();
        let nobody = (Who::Nobody, String::new());
        let mood = Mood { share: 1.0, ..self.observed(&nobody, came, None, since) };
        moods.insert(nobody, mood);
        for row in &engine.rows {
            let key = (Who::Rule(row.id.clone()), String::new());
            match row.action {
                Some(Action::RateLimit(limit)) => {
                    let purse = (limit.traces_per_second, f64::from(limit.burst));
                    let mood = self.observed(&key, came, Some(purse), since);
                    let pushed = if limit.per_proxy { None } else { pushed(&self.pushed, &row.id, "") };
                    let most = self.most(&row.id).filter(|_| !limit.per_proxy).unwrap_or(f64::INFINITY);
                    let share = mood.share.min(rate::share(most, mood.rate.per_second()));
                    let threshold = threshold(share).max(pushed.unwrap_or(Threshold::ALL));
                    engine.set(row.first, threshold);
                    moods.insert(key, Mood { share: threshold.probability(), ..mood });
                }
                Some(Action::Adaptive(adaptive)) => {
                    let seats = row.seats();
                    let all: Vec<(Seat, Key, Mood)> = seats
                        .into_iter()
                        .map(|(seat, name)| {
                            let key = (Who::Rule(row.id.clone()), name);
                            let mood = self.observed(&key, came, None, since);
                            (seat, key, mood)
                        })
                        .collect();
                    // Within what was pushed the rare operations have theirs before the busy ones, as in the plan.
                    let amounts = all.iter().map(|(_, key, mood)| {
                        let pushed = pushed(&self.pushed, &row.id, &key.1).unwrap_or(Threshold::ALL);
                        mood.rate.per_second() * pushed.probability()
                    });
                    let level = rate::level(amounts, self.most(&row.id).unwrap_or(adaptive.spans_per_second / each));
                    for (seat, key, mood) in all {
                        let rate = mood.rate.per_second();
                        let least = (adaptive.min_traces_per_minute / 60.0 / rate.max(f64::MIN_POSITIVE)).min(1.0);
                        let share = rate::share(level, rate).max(least).max(adaptive.min_probability);
                        let pushed = pushed(&self.pushed, &row.id, &key.1).unwrap_or(Threshold::ALL);
                        let threshold = threshold(share).max(pushed);
                        engine.set(seat, threshold);
                        moods.insert(key, Mood { share: threshold.probability(), ..mood });
                    }
                }
                Some(action @ (Action::Never | Action::Always | Action::Threshold(_))) => {
                    let share = match action {
                        Action::Never => 0.0,
                        Action::Threshold(threshold) => threshold.probability(),
                        Action::Always | Action::RateLimit(_) | Action::Adaptive(_) => 1.0,
                    };
                    let mood = self.observed(&key, came, None, since);
                    moods.insert(key, Mood { share, ..mood });
                }
                None => {}
            }
        }
        moods
    }

    /// How much of each rule's traces are this proxy's: known already when a limit comes.
    fn cap(&mut self, came: &HashMap<Key, (u64, u64)>, since: Duration) {
        let mut kept: HashMap<Name, u64> = HashMap::new();
        for ((who, _), (_, passed)) in came {
            if let Who::Rule(id) = who {
                *kept.entry((id.policy.clone(), id.rule.clone())).or_default() += passed;
            }
        }
        for name in kept.keys() {
            self.caps.entry(name.clone()).or_default();
        }
        self.caps.retain(|name, cap| {
            let limit = self.limits.get(name);
            let most = limit.map_or(f64::INFINITY, |limit| cap.most(limit));
            cap.look(kept.get(name).copied().unwrap_or_default(), most, since);
            limit.is_some() || cap.is_used()
        });
    }

    /// What of a rule of the whole mesh may be kept here in a second; nothing is said of it where no limit was pushed.
    fn most(&self, id: &Id) -> Option<f64> {
        let name = (id.policy.clone(), id.rule.clone());
        let limit = self.limits.get(&name)?;
        Some(self.caps.get(&name).copied().unwrap_or_default().most(limit))
    }

    /// How a rule fares after what came since the last look; with a budget and a burst also what share meets them.
    fn observed(&self, key: &Key, came: &HashMap<Key, (u64, u64)>, purse: Option<(f64, f64)>, since: Duration) -> Mood {
        let (seen, kept) = came.get(key).copied().unwrap_or_default();
        let mut mood = self.moods.get(key).copied().unwrap_or_default();
        mood.rate.look(seen, since);
        let allowed = purse.map_or(f64::INFINITY, |(budget, burst)| mood.purse.allow(budget, burst, kept, since));
        mood.share = rate::share(allowed, mood.rate.per_second());
        mood
    }

    /// Raises what begins here when more spans are made than may be, after as many as fit a little while.
    fn guard(&mut self, engine: &Engine, made: u64, since: Duration) {
        let Some(budget) = engine.guard else {
            self.guard = Threshold::ALL;
            engine.set_guard(Threshold::ALL);
            return;
        };
        let most = budget * SAVED;
        let saved = self.saved.unwrap_or(most) + budget * since.as_secs_f64() - made as f64;
        self.saved = Some(saved.clamp(0.0, most));
        let each = self.spans_each();
        let left = (budget / each - self.obeyed.per_second()).max(budget / each * LEAST);
        let rates: Vec<(f64, f64)> = self.moods.values().map(|mood| (mood.rate.per_second(), mood.share)).collect();
        let part = rate::common(rates.iter().copied(), left);
        let rises = saved <= 0.0 || self.guard > Threshold::ALL;
        self.guard = if rises && part < 1.0 { threshold(part) } else { Threshold::ALL };
        engine.set_guard(self.guard);
    }
}

impl Live {
    /// What was counted since this was last asked.
    fn news(&mut self) -> Vec<(Key, u64, u64)> {
        let mut seats =
            vec![((Who::Nobody, String::new()), Seat::UNRULED), ((Who::Caller, String::new()), Seat::ARRIVED)];
        for row in &self.engine.rows {
            seats.extend(row.seats().into_iter().map(|(seat, name)| ((Who::Rule(row.id.clone()), name), seat)));
        }
        let Self { engine, seen: before, .. } = self;
        let news = seats.into_iter().filter_map(|(key, seat)| {
            let now = engine.count(seat);
            let before = before.insert(seat, now).unwrap_or_default();
            let (seen, kept) = (now.0.saturating_sub(before.0), now.1.saturating_sub(before.1));
            (seen > 0 || kept > 0).then_some((key, seen, kept))
        });
        news.collect()
    }
}

impl Row {
    /// Each seat, with its operation where the rule tells them apart.
    fn seats(&self) -> Vec<(Seat, String)> {
        let Some(operations) = &self.operations else { return vec![(self.first, String::new())] };
        let names = operations.names.lock().unwrap_or_else(PoisonError::into_inner);
        [(self.first, OTHER.to_owned())].into_iter().chain(names.iter().cloned()).collect()
    }
}

impl Sums {
    fn counts(&self, guard: Threshold) -> Counts {
        let rule = |((id, operation), (seen, kept)): (&(Id, String), &(u64, u64))| RuleCount {
            id: id.clone(),
            operation: operation.clone(),
            seen: *seen,
            kept: *kept,
        };
        let mut rules: Vec<RuleCount> = self.rules.iter().map(rule).collect();
        rules.sort_by(|a, b| (&a.id, &a.operation).cmp(&(&b.id, &b.operation)));
        Counts {
            rules,
            arrived_kept: self.arrived.1,
            arrived_dropped: self.arrived.0 - self.arrived.1,
            unruled: self.unruled.0,
            unruled_kept: self.unruled.1,
            spans: self.spans,
            guard: guard.number(),
        }
    }
}

/// Of the operation, else of all that are not named.
fn pushed(all: &HashMap<(String, String, String), Threshold>, id: &Id, operation: &str) -> Option<Threshold> {
    let of = |operation: &str| all.get(&(id.policy.to_string(), id.rule.to_string(), operation.to_owned()));
    of(operation).or_else(|| of("")).copied()
}

fn threshold(share: f64) -> Threshold {
    Threshold::of(share.clamp(SMALLEST, 1.0)).unwrap_or(Threshold::ALL)
}

/// Operations that have no name of their own.
const OTHER: &str = "other";
/// Spans of one request: a gateway's and its attempts.
const MANY: f64 = 16.0;
/// Requests in a second, of an operation that need not be known to a new plan from the start.
const IDLE: f64 = 0.01;
/// Seconds that the guard's budget may have been saved for.
const SAVED: f64 = 2.0;
/// Of the guard's budget, for what begins here, however much is obeyed.
const LEAST: f64 = 0.01;
/// One of a thousand million.
const SMALLEST: f64 = 1e-9;
