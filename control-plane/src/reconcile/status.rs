//! What the status of each resource is to say. Pure: what was read, what proxies have and what is there go in, and what
//! differs comes out.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::Timestamp;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use spanmesh_crds::{
    AncestorRef, AncestorStatus, CONTROLLER, CapturePhase, MeshTracingStatus, PolicyStatus, TargetKind, TargetRef,
    TraceCaptureStatus,
};

use super::conditions::{ACCEPTED, CONVERGED, PROGRAMMED, Say, flips, say, settled};
use super::placed::Placed;
use crate::capturing::Shown;
use crate::cluster::{Cluster, concerns};
use crate::picture::Seat;
use crate::push::registry::Registry;
use crate::snapshot;
use crate::source::Verdict;
use crate::source::kube::object::{Named, Object};
use crate::source::kube::{Kind, Objects};

#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Status {
    Mesh(MeshTracingStatus),
    Policy(PolicyStatus),
    Capture(TraceCaptureStatus),
}

/// A status that differs from what is there.
#[derive(Clone, Debug)]
pub struct Found {
    pub kind: Kind,
    pub object: Arc<Object>,
    pub status: Status,
    /// It says something else, and not only in other words or numbers.
    pub flips: bool,
}

/// Proxies that are alike.
#[derive(Clone, Debug)]
pub struct Stand {
    pub seat: Seat,
    /// Of each: the picture that is in force there, and what it refuses.
    pub proxies: Vec<(u64, Option<String>)>,
}

pub struct Scene<'a> {
    pub verdicts: &'a [Verdict],
    pub cluster: &'a Cluster,
    pub placed: &'a Placed,
    pub stands: Vec<Stand>,
    pub captures: &'a [Shown],
    pub now: Timestamp,
}

impl Stand {
    pub fn all(registry: &Registry, cluster: &Cluster) -> Vec<Self> {
        let mut stands: HashMap<Seat, Vec<(u64, Option<String>)>> = HashMap::new();
        registry.each(|seen| {
            let refusal = seen.refusals.first().map(|(what, why)| format!("{what}: {why}"));
            stands
                .entry(cluster.workloads.seat(Seat::of(&seen.node), &seen.node.pod))
                .or_default()
                .push((seen.picture, refusal));
        });
        stands.into_iter().map(|(seat, proxies)| Self { seat, proxies }).collect()
    }
}

/// How many proxies it concerns, how many of them decide by it, and what one of the others refuses.
#[derive(Clone, Debug, Default)]
struct Count {
    of: usize,
    have: usize,
    refusal: Option<String>,
}

impl Scene<'_> {
    pub fn statuses(&self, objects: &Objects) -> Vec<Found> {
        let key = |verdict: &Verdict| (verdict.kind.clone(), verdict.namespace.clone(), verdict.name.clone());
        let verdicts: HashMap<_, _> = self.verdicts.iter().map(|verdict| (key(verdict), verdict)).collect();
        let lost = self.lost();
        let mut found = Vec::new();
        for (kind, object) in objects.iter() {
            let name = object.name();
            let verdict = verdicts.get(&(kind.resource().kind.to_owned(), name.namespace, name.name));
            // What was read since is told with the next reading.
            let Some(verdict) = verdict.filter(|verdict| verdict.generation == object.metadata.generation) else {
                continue;
            };
            let differs = match kind {
                Kind::MeshTracing => self.mesh(object, verdict),
                Kind::SamplingPolicy | Kind::SpanPolicy => self.policy(*kind, object, verdict, &lost),
                Kind::TraceCapture => self.capture(object, verdict),
            };
            if let Some((status, flips)) = differs {
                found.push(Found { kind: *kind, object: object.clone(), status, flips });
            }
        }
        // What has turned is told first.
        found.sort_by_key(|found| !found.flips);
        found
    }

    fn mesh(&self, object: &Object, verdict: &Verdict) -> Option<(Status, bool)> {
        let before: MeshTracingStatus = parsed(&object.status);
        let count = self.count(Kind::MeshTracing, object, |_| true);
        let said = self.said(Kind::MeshTracing, object, verdict, &count, None);
        let generation = object.metadata.generation;
        let status = MeshTracingStatus {
            observed_generation: i64::try_from(generation).ok(),
            conditions: settled(said, generation, &before.conditions, self.now),
            observed_proxies: small(count.of),
            converged_proxies: small(count.have),
        };
        let turned = flips(&status.conditions, &before.conditions);
        (status != before).then_some((Status::Mesh(status), turned))
    }

    fn policy(&self, kind: Kind, object: &Object, verdict: &Verdict, lost: &Lost) -> Option<(Status, bool)> {
        let before: PolicyStatus = parsed(&object.status);
        let Object { metadata, spec, .. } = object;
        let targets: Vec<TargetRef> = parsed(&spec["targetRefs"]);
        let mut turned = false;
        let ours = targets.into_iter().map(|target| {
            let reference = AncestorRef {
                group: target.group.clone(),
                kind: target.kind.word().to_owned(),
                namespace: Some(metadata.namespace.clone()),
                name: target.name.clone(),
                section_name: Some(target.section_name.clone()).filter(|section| !section.is_empty()),
            };
            let is_it =
                |entry: &&AncestorStatus| entry.ancestor_ref == reference && entry.controller_name == CONTROLLER;
            let old: &[Condition] = before.ancestors.iter().find(is_it).map_or(&[], |entry| &entry.conditions);
            let count = self.count(kind, object, |seat| concerns(&target, &metadata.namespace, seat).is_some());
            let is_missing =
                target.kind == TargetKind::Service && self.cluster.workloads.lacks(&metadata.namespace, &target.name);
            let gives_way = lost.get(&format!("{}/{}", metadata.namespace, metadata.name));
            let gives_way = gives_way.filter(|_| kind == Kind::SamplingPolicy);
            let mut said = self.said(kind, object, verdict, &count, gives_way);
            if is_missing && verdict.accepted {
                let words = format!(
                    "there is no Service {} in {}; the policy holds as soon as there is one",
                    target.name, metadata.namespace
                );
                said.retain(|say| say.kind != ACCEPTED);
                said.insert(0, say(ACCEPTED, false, "TargetNotFound", words));
            }
            let conditions = settled(said, metadata.generation, old, self.now);
            turned |= flips(&conditions, old);
            AncestorStatus { ancestor_ref: reference, controller_name: CONTROLLER.to_owned(), conditions }
        });
        let ours: Vec<_> = ours.collect();
        // Those of other controllers are theirs.
        let others = before.ancestors.iter().filter(|entry| entry.controller_name != CONTROLLER).cloned();
        let status = PolicyStatus { ancestors: ours.into_iter().chain(others).take(ANCESTORS).collect() };
        (status != before).then_some((Status::Policy(status), turned))
    }

    fn capture(&self, object: &Object, verdict: &Verdict) -> Option<(Status, bool)> {
        let before: TraceCaptureStatus = parsed(&object.status);
        let Object { metadata, .. } = object;
        let accepted = accepted(verdict, None);
        let shown = self.captures.iter().find(|shown| {
            (&shown.namespace, &shown.name, shown.generation)
                == (&metadata.namespace, &metadata.name, metadata.generation)
        });
        let has_ended = before.phase.is_some_and(|phase| phase != CapturePhase::Running);
        // What has ended is as it was written, and what has not begun here yet says so soon.
        if verdict.accepted && (shown.is_none() || has_ended) {
            return None;
        }
        let mut status = TraceCaptureStatus { conditions: Vec::new(), ..before.clone() };
        if let Some(shown) = shown {
            let phase = [CapturePhase::Running, CapturePhase::Done, CapturePhase::Expired];
            status.phase = phase.into_iter().find(|phase| phase.word() == shown.phase);
            // Another control plane may have collected some before this one began.
            let known: HashSet<&String> = before.trace_ids.iter().collect();
            let fresh = shown.traces.iter().filter(|trace| !known.contains(trace)).cloned();
            status.trace_ids = before.trace_ids.iter().cloned().chain(fresh).collect();
            status.collected = small(status.trace_ids.len());
            status.trace_ids.truncate(TRACES);
            status.start_time = status.start_time.or(Some(Time(self.now)));
            if status.phase.is_some_and(|phase| phase != CapturePhase::Running) {
                status.end_time = status.end_time.or(Some(Time(self.now)));
            }
        }
        status.conditions = settled(vec![accepted], metadata.generation, &before.conditions, self.now);
        let turned = status.phase != before.phase || flips(&status.conditions, &before.conditions);
        (status != before).then_some((Status::Capture(status), turned))
    }

    fn said(&self, kind: Kind, object: &Object, verdict: &Verdict, count: &Count, gives_way: Option<&Way>) -> Vec<Say> {
        let generation = object.metadata.generation;
        let version = self.placed.version(kind, &object.name(), generation);
        let programmed = match (verdict.accepted, version) {
            (false, _) => say(PROGRAMMED, false, "Invalid", "a resource that was refused is given to no proxy"),
            (true, None) => say(PROGRAMMED, false, "Pending", "it will be given to proxies in a moment"),
            (true, Some(_)) => say(PROGRAMMED, true, "Programmed", "it is given to proxies as they connect"),
        };
        let Count { of, have, refusal } = count;
        let words = format!("{have} of {of} proxies decide by generation {generation}");
        let converged = match (verdict.accepted, of, refusal) {
            (false, _, _) => say(CONVERGED, false, "Invalid", "no proxy decides by a resource that was refused"),
            (true, 0, _) => Say {
                status: "Unknown",
                ..say(CONVERGED, false, "NoProxies", "no proxy that it concerns is connected")
            },
            (true, of, _) if have == of => say(CONVERGED, true, "Converged", words),
            (true, _, Some(refusal)) => say(
                CONVERGED,
                false,
                "Refused",
                format!("{words}; one refuses {refusal}; `spanmesh proxy-status` names it"),
            ),
            (true, _, None) => say(CONVERGED, false, "Progressing", words),
        };
        vec![accepted(verdict, gives_way.map(|way| (way, object))), programmed, converged]
    }

    fn count(&self, kind: Kind, object: &Object, concerned: impl Fn(&Seat) -> bool) -> Count {
        let version = self.placed.version(kind, &object.name(), object.metadata.generation);
        let mut count = Count::default();
        for stand in self.stands.iter().filter(|stand| concerned(&stand.seat)) {
            count.of += stand.proxies.len();
            for (picture, refusal) in &stand.proxies {
                match (refusal, version) {
                    (Some(refusal), _) => count.refusal = count.refusal.or_else(|| Some(refusal.clone())),
                    (None, Some(version)) if *picture >= version => count.have += 1,
                    (None, _) => {}
                }
            }
        }
        count
    }

    /// Of each policy, the parts that give way to older ones, in words.
    fn lost(&self) -> Lost {
        let mut lost = Lost::new();
        for stand in &self.stands {
            for part in snapshot::lost(self.cluster, &stand.seat) {
                let way = lost.entry(part.policy).or_default();
                if way.len() < WINNERS {
                    way.insert((part.part, part.winner));
                }
            }
        }
        lost
    }
}

/// By policy.
type Lost = HashMap<String, Way>;
/// Parts, each with the policy that took its place.
type Way = BTreeSet<(&'static str, String)>;

fn accepted(verdict: &Verdict, gives_way: Option<(&Way, &Object)>) -> Say {
    match (verdict.accepted, gives_way) {
        (true, None) => say(ACCEPTED, true, "Accepted", "it is valid"),
        (true, Some((way, object))) => {
            let words = way.iter().map(|(part, winner)| format!("its `{part}` gives way to {winner}, which is older"));
            let words = words.collect::<Vec<_>>().join("; ");
            let has = |part: &str| object.spec["defaults"].get(part).is_some();
            let is_lost = |part: &str| way.iter().any(|(lost, _)| *lost == part);
            match object.spec.get("overrides").is_some() || PARTS.into_iter().any(|part| has(part) && !is_lost(part)) {
                true => say(ACCEPTED, true, "Accepted", format!("it is valid, but {words}; the rest of it holds")),
                false => say(ACCEPTED, false, "Conflicted", words),
            }
        }
        (false, _) => {
            let rest = if verdict.before { "; what it said before goes on" } else { "" };
            say(ACCEPTED, false, "Invalid", format!("{}{rest}", verdict.problems.join("; ")))
        }
    }
}

/// What cannot be read was not written by any control plane, and is written anew.
fn parsed<T: DeserializeOwned + Default>(value: &Value) -> T {
    serde_json::from_value(value.clone()).unwrap_or_default()
}

fn small(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX).min(MOST)
}

/// As the definitions have it.
const ANCESTORS: usize = 16;
const TRACES: usize = 1000;
const MOST: u32 = 10_000_000;
/// As many as are named.
const WINNERS: usize = 8;
/// As `snapshot` calls what gives way, and as they stand in a policy.
const PARTS: [&str; 3] = ["parent", "head", "keep"];

#[cfg(test)]
mod tests;
