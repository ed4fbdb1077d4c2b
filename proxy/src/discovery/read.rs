//! The bodies of resources, read into what the road decides by. Whatever is wrong in one is told by its field.

use prost::Message;
use spanmesh_proto::v1;

use crate::config::pushed::{self, Pushed};
use crate::config::{KeepLimit, Mode, ParentDecision};
use crate::rules::sampling::plan::{self, Action, Capture, Chain, Id, Keep, Plan, Rule};
use crate::rules::sampling::threshold::Threshold;

pub const POLICY: &str = "policy";
const OWN: &str = "own";
pub const DESTINATION: &str = "destination";
pub const THRESHOLDS: &str = "thresholds";
pub const CAPTURE: &str = "capture";

/// All that is pushed, in the types of the road.
#[derive(Clone, Debug, PartialEq)]
pub struct Snapshot {
    /// `None`: none was pushed.
    pub pushed: Option<Pushed>,
    pub plan: Plan,
    pub thresholds: Vec<plan::Pushed>,
    pub limits: Vec<plan::Limit>,
}

/// One resource.
#[derive(Clone, Debug, PartialEq)]
pub enum Decoded {
    Policy(Box<Pushed>, Box<Chain>),
    Destination(Chain),
    Thresholds(Vec<plan::Pushed>, Vec<plan::Limit>),
    Capture(Box<Capture>),
}

impl Snapshot {
    pub fn of<'a>(version: u64, resources: impl Iterator<Item = (&'a str, &'a Decoded)>) -> Self {
        let plan = Plan { version, ..Plan::default() };
        let mut snapshot = Self { pushed: None, plan, thresholds: Vec::new(), limits: Vec::new() };
        for (name, resource) in resources {
            match resource {
                Decoded::Policy(pushed, own) => {
                    snapshot.plan.own = (**own).clone();
                    if let Some(guard) = pushed.guard {
                        snapshot.plan.guard = guard;
                    }
                    snapshot.pushed = Some((**pushed).clone());
                }
                Decoded::Destination(chain) => drop(snapshot.plan.destinations.insert(name.to_owned(), chain.clone())),
                Decoded::Thresholds(thresholds, limits) => {
                    snapshot.thresholds.clone_from(thresholds);
                    snapshot.limits.clone_from(limits);
                }
                Decoded::Capture(capture) => snapshot.plan.captures.push((**capture).clone()),
            }
        }
        snapshot
    }
}

/// What a proxy decides by that is given this; for whoever wants to know before it is pushed. What one would refuse is
/// refused, with its resource's kind and name.
pub fn plan(
    policy: &v1::Policy,
    destinations: &[(String, v1::Chain)],
    captures: &[(String, v1::Capture)],
) -> Result<Plan, String> {
    let read = |kind: &str, name: &str, body: Vec<u8>| {
        let decoded = decode(kind, name, &body, &[]).map_err(|reason| format!("{kind} {name}: {reason}"));
        decoded.map(|(decoded, _)| (name.to_owned(), decoded))
    };
    let mut resources = vec![read(POLICY, OWN, policy.encode_to_vec())?];
    for (name, chain) in destinations {
        resources.push(read(DESTINATION, name, chain.encode_to_vec())?);
    }
    for (name, capture) in captures {
        resources.push(read(CAPTURE, name, capture.encode_to_vec())?);
    }
    Ok(Snapshot::of(0, resources.iter().map(|(name, decoded)| (name.as_str(), decoded))).plan)
}

/// True if the body has more than this version knows.
pub fn decode(
    kind: &str,
    name: &str,
    body: &[u8],
    environment: &[(String, String)],
) -> Result<(Decoded, bool), String> {
    match kind {
        POLICY => {
            let (message, is_partial) = message::<v1::Policy>(body)?;
            let own = message.sampling.as_ref().map(chain).transpose()?.unwrap_or_default();
            let pushed = pushed::policy(&message, environment)?;
            let is_partial = is_partial || message.sampling.as_ref().is_some_and(has_strange_words);
            Ok((Decoded::Policy(Box::new(pushed), Box::new(own)), is_partial))
        }
        DESTINATION => {
            let (message, is_partial) = message::<v1::Chain>(body)?;
            Ok((Decoded::Destination(chain(&message)?), is_partial || has_strange_words(&message)))
        }
        THRESHOLDS => {
            let (message, is_partial) = message::<v1::Thresholds>(body)?;
            if message.thresholds.len().max(message.limits.len()) > THRESHOLDS_MOST {
                return Err(format!("has more than {THRESHOLDS_MOST} thresholds"));
            }
            let thresholds = message.thresholds.into_iter().map(|threshold| {
                let number = threshold.threshold;
                let threshold_of = Threshold::new(number).ok_or(format!("{number:x} is no threshold of 56 bits"))?;
                let v1::Threshold { policy, rule, operation, .. } = threshold;
                Ok(plan::Pushed { policy, rule, operation, threshold: threshold_of })
            });
            let thresholds = thresholds.collect::<Result<_, String>>()?;
            let limits = message.limits.into_iter().map(limit).collect::<Result<_, String>>()?;
            Ok((Decoded::Thresholds(thresholds, limits), is_partial))
        }
        CAPTURE => {
            let (message, is_partial) = message::<v1::Capture>(body)?;
            let match_ = message.r#match.as_ref().map(pushed::matches).transpose()?.unwrap_or_default();
            let sides = message.sides.iter().map(|side| mode(side)).collect::<Result<_, _>>()?;
            // Without an end it is taken away when it is over.
            let until = match u64::try_from(message.until).unwrap_or_default() {
                0 => u64::MAX,
                milliseconds => milliseconds.saturating_mul(NANOS_PER_MILLISECOND),
            };
            let capture = Capture { name: name.into(), generation: message.generation, match_, until, sides };
            Ok((Decoded::Capture(Box::new(capture)), is_partial))
        }
        other => Err(format!("the kind {other} is not known")),
    }
}

/// What is decoded and encoded again is shorter by what was not known.
fn message<M: Message + Default>(body: &[u8]) -> Result<(M, bool), String> {
    let message = M::decode(body).map_err(|error| format!("is no message of its kind: {error}"))?;
    let is_partial = message.encoded_len() < body.len();
    Ok((message, is_partial))
}

/// A number of an enumeration is kept when it is decoded, also one that is not known.
fn has_strange_words(message: &v1::Chain) -> bool {
    v1::Parent::try_from(message.parent).is_err()
}

fn chain(message: &v1::Chain) -> Result<Chain, String> {
    let parent = match message.parent() {
        v1::Parent::Unspecified | v1::Parent::Respect => ParentDecision::Respect,
        v1::Parent::Ignore => ParentDecision::Ignore,
    };
    for (what, length) in
        [("rules", message.rules.len()), ("boosts", message.boosts.len()), ("keeps", message.keeps.len())]
    {
        if length > LIST {
            return Err(format!("has more than {LIST} {what}"));
        }
    }
    Ok(Chain {
        parent,
        rules: message.rules.iter().map(rule).collect::<Result<_, _>>()?,
        boosts: message.boosts.iter().map(rule).collect::<Result<_, _>>()?,
        keeps: message.keeps.iter().map(keep).collect::<Result<_, _>>()?,
    })
}

fn rule(message: &v1::Rule) -> Result<Rule, String> {
    use v1::rule::Action as Written;
    let of = |reason: String| format!("{} of {}: {reason}", message.name, message.policy);
    let action = match &message.action {
        Some(Written::Never(_)) => Action::Never,
        Some(Written::Always(_)) => Action::Always,
        Some(Written::Threshold(threshold)) => {
            Action::Threshold(Threshold::new(*threshold).ok_or_else(|| of("is no threshold of 56 bits".into()))?)
        }
        Some(Written::RateLimit(limit)) => Action::RateLimit(pushed::rate_limit(limit).map_err(of)?),
        Some(Written::Adaptive(adaptive)) => Action::Adaptive(pushed::adaptive(adaptive).map_err(of)?),
        None => return Err(of("has an action that this version does not know".into())),
    };
    let match_ = message.r#match.as_ref().map(pushed::matches).transpose().map_err(of)?.unwrap_or_default();
    Ok(Rule { id: Id::new(&message.policy, &message.name, message.generation), match_, action })
}

fn keep(message: &v1::Keep) -> Result<Keep, String> {
    let of = |reason: String| format!("{} of {}: {reason}", message.name, message.policy);
    Ok(Keep {
        id: Id::new(&message.policy, &message.name, message.generation),
        on: pushed::keep_on(message).map_err(of)?,
        threshold: Threshold::new(message.threshold).ok_or_else(|| of("is no threshold of 56 bits".into()))?,
        limit: KeepLimit { traces_per_second: message.traces_per_second, burst: message.burst.max(1) },
    })
}

fn limit(message: v1::Limit) -> Result<plan::Limit, String> {
    let v1::Limit { policy, rule, traces_per_second, proxies } = message;
    if !(0.0..f64::INFINITY).contains(&traces_per_second) {
        return Err(format!("{rule} of {policy}: {traces_per_second} traces in a second are no limit"));
    }
    Ok(plan::Limit { policy: policy.into(), rule: rule.into(), traces_per_second, proxies })
}

fn mode(word: &str) -> Result<Mode, String> {
    match word {
        "inbound" => Ok(Mode::Inbound),
        "outbound" => Ok(Mode::Outbound),
        "gateway" => Ok(Mode::Gateway),
        other => Err(format!("{other} is no side of a proxy")),
    }
}

/// A policy has 32 rules; of all that concern one proxy there may be as many as this.
const LIST: usize = 4_096;
/// A gateway may have thousands of rules that adapt, each with a threshold for each operation.
const THRESHOLDS_MOST: usize = 131_072;
const NANOS_PER_MILLISECOND: u64 = 1_000_000;
