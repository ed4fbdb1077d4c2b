//! What is accepted and hardly meant: rules that nobody ever asks, and policies that another one takes the place of.

use std::collections::{BTreeMap, BTreeSet};

use spanmesh_crds::{BoostRule, HeadRule, Sampling, SamplingPolicySpec, TargetKind, TargetRef};

use super::Policies;
use super::covers::covers;
use crate::cluster::{Cluster, Resource};
use crate::picture::Seat;
use crate::snapshot::{self, Lost, Of};

/// Something to look at again.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Concern {
    /// File and line.
    pub place: String,
    pub kind: String,
    pub namespace: String,
    pub name: String,
    pub field: String,
    /// For people: what is odd and what to do.
    pub text: String,
}

/// All there is, in the order of their places.
pub fn review(policies: &Policies) -> Vec<Concern> {
    let cluster = &policies.reading.cluster;
    let seats = policies.seats();
    let mut concerns = Vec::new();
    let mut tell = |namespace: &str, kind: &str, name: &str, field: String, text: String| {
        let of = |verdict: &&super::Verdict| {
            verdict.accepted && (&*verdict.kind, &*verdict.namespace, &*verdict.name) == (kind, namespace, name)
        };
        // What a source has kept from before has no place any more.
        let mut place = policies.verdicts().iter().find(of).map(|verdict| verdict.place.clone()).unwrap_or_default();
        if let (Some(line), Some((file, _))) = (policies.folder.line(&place, &field), place.rsplit_once(':')) {
            place = format!("{file}:{line}");
        }
        let (kind, namespace, name) = (kind.to_owned(), namespace.to_owned(), name.to_owned());
        concerns.push(Concern { place, kind, namespace, name, field, text });
    };
    let chains = Chains::new(cluster, &seats, &policies.services());
    for resource in &cluster.sampling {
        let Resource { meta, spec } = resource;
        let full = meta.full_name();
        let mut say = |field: String, text: String| tell(&meta.namespace, SAMPLING, &meta.name, field, text);
        sections(spec, &mut say);
        for (part, sampling) in [("defaults", &spec.defaults), ("overrides", &spec.overrides)] {
            let Some(sampling) = sampling else { continue };
            look(&chains, &full, part, sampling, &mut say);
        }
        for lost in chains.lost.iter().filter(|lost| lost.policy == full) {
            let text = format!(
                "gives way to {}, which is for the same and older, or first by its name; merge the two, or let both be `strategy: PatchDefaults`",
                lost.winner
            );
            say(format!("spec.defaults.{}", lost.part), text);
        }
    }
    if let Some(mesh) = &cluster.mesh {
        let mut say = |field: String, text: String| tell("", "MeshTracing", &mesh.meta.name, field, text);
        for (part, sampling) in [("defaults", &mesh.spec.defaults), ("overrides", &mesh.spec.overrides)] {
            let Some(sampling) = sampling else { continue };
            look(&chains, &mesh.meta.full_name(), part, sampling, &mut say);
        }
    }
    concerns.sort();
    concerns.dedup();
    concerns
}

/// Every list of rules that some proxy walks.
struct Chains {
    /// Policy and rule of those that are asked somewhere.
    asked: BTreeSet<(String, String)>,
    /// Of those that are in some list: what stands before them.
    behind: BTreeMap<(String, String), (String, String)>,
    lost: BTreeSet<Lost>,
}

impl Chains {
    fn new(cluster: &Cluster, seats: &[Seat], services: &[String]) -> Self {
        let mut chains = Self { asked: BTreeSet::new(), behind: BTreeMap::new(), lost: BTreeSet::new() };
        for seat in seats {
            chains.walk(&snapshot::own(cluster, seat).rules);
            chains.lost.extend(snapshot::lost(cluster, seat));
        }
        for service in services {
            if let Some((service, namespace)) = service.split_once('.') {
                chains.walk(&snapshot::for_callers(cluster, service, namespace).rules);
            }
        }
        chains
    }

    fn walk(&mut self, rules: &[Of<HeadRule>]) {
        let name = |of: &Of<HeadRule>| (of.policy.clone(), of.rule.name.clone());
        for (place, of) in rules.iter().enumerate() {
            let before = rules.iter().take(place);
            let mut covering = before.filter(|before| covers(before.rule.matching.as_ref(), of.rule.matching.as_ref()));
            match covering.next() {
                Some(first) => {
                    self.behind.entry(name(of)).or_insert_with(|| name(first));
                }
                None => {
                    self.asked.insert(name(of));
                }
            }
        }
    }
}

fn look(chains: &Chains, policy: &str, part: &str, sampling: &Sampling, say: &mut impl FnMut(String, String)) {
    let Some(head) = &sampling.head else { return };
    for (place, HeadRule { name, .. }) in head.rules.iter().enumerate() {
        let key = (policy.to_owned(), name.clone());
        if chains.asked.contains(&key) {
            continue;
        }
        // Of a policy that gave way nothing stands anywhere, which is said once.
        if let Some((other, rule)) = chains.behind.get(&key) {
            let whose = if other == policy { String::new() } else { format!(" of {other}") };
            let text = format!(
                "`{name}` is never asked: `{rule}`{whose} stands before it and matches all that it matches; put it first, or remove it"
            );
            say(format!("spec.{part}.head.rules[{place}]"), text);
        }
    }
    for (place, BoostRule { name, matching, action }) in head.boost.iter().enumerate() {
        if matching.is_none() && action.always.is_some() {
            let text =
                format!("`{name}` keeps every request, so that no rule and no caller decides; give it a `match`");
            say(format!("spec.{part}.head.boost[{place}]"), text);
        }
    }
}

/// A proxy knows its gateway, not which of its listeners a policy means.
fn sections(spec: &SamplingPolicySpec, say: &mut impl FnMut(String, String)) {
    for (place, TargetRef { kind, section_name, .. }) in spec.target_refs.iter().enumerate() {
        if *kind == TargetKind::Gateway && !section_name.is_empty() {
            let text = format!(
                "holds for all listeners of the gateway, not only for `{section_name}`; match by `host` instead"
            );
            say(format!("spec.targetRefs[{place}].sectionName"), text);
        }
    }
}

const SAMPLING: &str = "SamplingPolicy";
