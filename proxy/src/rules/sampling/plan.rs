//! What is to be decided by, as plain values: built from the file here, and from the wire by whoever reads that.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::threshold::Threshold;
use crate::config::{
    Adaptive, BoostAction, KeepLimit, KeepOn, Match, Mode, ParentDecision, RateLimit, Sampling, SamplingAction,
};

/// All that decides on traces at one proxy.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// Grows with each change; the file's is 0.
    pub version: u64,
    /// What holds for the proxy itself.
    pub own: Chain,
    /// What holds for calls to a service, by its name, `service.namespace` in small letters.
    pub destinations: BTreeMap<String, Chain>,
    pub captures: Vec<Capture>,
    /// Sampled spans in a second; `None` is no bound.
    pub guard: Option<f64>,
}

/// Rules in order. Of a destination's only what follows `parent` holds for its callers.
#[derive(Clone, Debug, PartialEq)]
pub struct Chain {
    pub parent: ParentDecision,
    /// The first that matches decides.
    pub rules: Vec<Rule>,
    /// Those that match may keep what was not kept so far.
    pub boosts: Vec<Rule>,
    /// Asked at the end of a request.
    pub keeps: Vec<Keep>,
}

/// Whose rule it is: as spans, metrics and reports tell it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Id {
    /// `namespace/name`, or `file`.
    pub policy: Arc<str>,
    pub rule: Arc<str>,
    pub generation: u64,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Rule {
    pub id: Id,
    pub match_: Match,
    pub action: Action,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Action {
    Never,
    Always,
    Threshold(Threshold),
    RateLimit(RateLimit),
    Adaptive(Adaptive),
}

#[derive(Clone, Debug, PartialEq)]
pub struct Keep {
    pub id: Id,
    /// At least one of them must hold.
    pub on: Vec<KeepOn>,
    /// Of what matches, kept by the trace's randomness.
    pub threshold: Threshold,
    pub limit: KeepLimit,
}

/// The next requests that match are kept, as many as are permitted (`trace/sampler`).
#[derive(Clone, Debug, PartialEq)]
pub struct Capture {
    /// `namespace/name`.
    pub name: Arc<str>,
    pub generation: u64,
    pub match_: Match,
    /// In nanoseconds since 1970; nothing is captured from then on.
    pub until: u64,
    /// Empty: on all sides.
    pub sides: Vec<Mode>,
}

/// What an adaptive rule or a rate limit of the whole mesh comes to at present.
#[derive(Clone, Debug, PartialEq)]
pub struct Pushed {
    pub policy: String,
    pub rule: String,
    /// Empty: all operations that are not named.
    pub operation: String,
    pub threshold: Threshold,
}

/// What all proxies together keep by such a rule in a second, and by how many of them that is.
#[derive(Clone, Debug, PartialEq)]
pub struct Limit {
    pub policy: Arc<str>,
    pub rule: Arc<str>,
    pub traces_per_second: f64,
    pub proxies: u32,
}

impl Default for Plan {
    fn default() -> Self {
        Self::from(&Sampling::default())
    }
}

impl Plan {
    /// Whatever their versions.
    pub fn decides_as(&self, other: &Self) -> bool {
        let Self { version: _, own, destinations, captures, guard } = self;
        (own, destinations, captures, guard) == (&other.own, &other.destinations, &other.captures, &other.guard)
    }
}

impl Default for Chain {
    fn default() -> Self {
        Self { parent: ParentDecision::Respect, rules: Vec::new(), boosts: Vec::new(), keeps: Vec::new() }
    }
}

impl Id {
    pub fn new(policy: &str, rule: &str, generation: u64) -> Self {
        Self { policy: policy.into(), rule: rule.into(), generation }
    }

    /// Of whatever generation.
    pub fn is_same_rule(&self, other: &Id) -> bool {
        self.policy == other.policy && self.rule == other.rule
    }
}

impl From<SamplingAction> for Action {
    fn from(written: SamplingAction) -> Self {
        match written {
            SamplingAction::Always => Self::Always,
            SamplingAction::Never => Self::Never,
            // What is no probability was refused where it was read.
            SamplingAction::Probability(part) => Threshold::of(part).map_or(Self::Never, Self::Threshold),
            SamplingAction::RateLimit(limit) => Self::RateLimit(limit),
            SamplingAction::Adaptive(adaptive) => Self::Adaptive(adaptive),
        }
    }
}

impl From<BoostAction> for Action {
    fn from(written: BoostAction) -> Self {
        match written {
            BoostAction::Always => Self::Always,
            BoostAction::Probability(part) => Self::from(SamplingAction::Probability(part)),
        }
    }
}

impl From<&Sampling> for Plan {
    fn from(written: &Sampling) -> Self {
        let id = |name: &Option<String>, list: &str, index: usize| match name {
            Some(name) => Id::new(FILE, name, 0),
            None => Id::new(FILE, &format!("{list}[{index}]"), 0),
        };
        let rules = written.head.rules.iter().enumerate().map(|(index, rule)| Rule {
            id: id(&rule.name, "head.rules", index),
            match_: rule.match_.clone(),
            action: rule.action.into(),
        });
        let boosts = written.head.boost.iter().enumerate().map(|(index, boost)| Rule {
            id: id(&boost.name, "head.boost", index),
            match_: boost.match_.clone(),
            action: boost.action.into(),
        });
        let keeps = written.keep.iter().enumerate().map(|(index, keep)| Keep {
            id: id(&keep.name, "keep", index),
            on: vec![keep.when.clone()],
            threshold: Threshold::of(keep.fraction).unwrap_or(Threshold::ALL),
            limit: keep.limit,
        });
        let own =
            Chain { parent: written.parent, rules: rules.collect(), boosts: boosts.collect(), keeps: keeps.collect() };
        Self { version: 0, own, destinations: BTreeMap::new(), captures: Vec::new(), guard: written.guard.0 }
    }
}

/// The policy that spans name where the file decides.
const FILE: &str = "file";
