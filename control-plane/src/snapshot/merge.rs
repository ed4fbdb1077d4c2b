//! Which rules a proxy has, and in which order: mesh < namespace < workload or service < route, and overrides from above.
//! Of two policies at the same level the older one wins, and the other one is told.

use spanmesh_crds::{
    Action, BoostRule, Empty, HeadRule, Keep, Match, Parent, Sampling, SamplingPolicySpec, Strategy, TargetKind,
    TargetRef,
};

use crate::cluster::{Cluster, Level, Meta, Resource, concerns};
use crate::picture::Seat;

/// Rules in the order in which they are asked, each with the policy that it is of.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Merged {
    pub parent: Option<Parent>,
    pub rules: Vec<Of<HeadRule>>,
    pub boosts: Vec<Of<BoostRule>>,
    pub keeps: Vec<Of<Keep>>,
    pub lost: Vec<Lost>,
}

/// A rule, and the policy that it is of.
#[derive(Clone, Debug, PartialEq)]
pub struct Of<Rule> {
    pub policy: String,
    pub generation: u64,
    pub rule: Rule,
}

/// A part of a policy that an older one at the same level took the place of.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Lost {
    pub policy: String,
    pub winner: String,
    pub part: &'static str,
}

/// One policy at one level.
#[derive(Clone, Copy, Debug)]
struct Layer<'a> {
    level: Option<Level>,
    meta: &'a Meta,
    sampling: &'a Sampling,
    strategy: Strategy,
}

impl Merged {
    pub fn is_empty(&self) -> bool {
        self.parent.is_none() && self.rules.is_empty() && self.boosts.is_empty() && self.keeps.is_empty()
    }

    /// Rules whose thresholds are measured: policy and rule.
    pub fn measured(&self) -> impl Iterator<Item = (String, String)> {
        let measured = self.rules.iter().filter(|of| {
            let action = &of.rule.action;
            action.adaptive.is_some() || action.rate_limit.as_ref().is_some_and(|limit| !limit.per_proxy)
        });
        measured.map(|of| (of.policy.clone(), of.rule.name.clone()))
    }
}

/// What a proxy decides by.
pub fn own(cluster: &Cluster, seat: &Seat) -> Merged {
    let mesh = cluster.mesh.iter().filter_map(|mesh| {
        let sampling = mesh.spec.defaults.as_ref()?;
        Some(Layer { level: None, meta: &mesh.meta, sampling, strategy: Strategy::AtomicDefaults })
    });
    let mut layers: Vec<_> = mesh.collect();
    layers.extend(cluster.sampling.iter().filter_map(|resource| placed(resource, seat)));
    layers.sort_by_key(|layer| layer.level);
    let mut merged = stack(&layers);
    for resource in cluster.sampling.iter().rev() {
        merged.put_routes(resource, seat);
    }
    for resource in cluster.sampling.iter().rev() {
        let here = |target: &TargetRef| concerns(target, &resource.meta.namespace, seat) == Some(Level::Namespace);
        if let Some(overrides) = &resource.spec.overrides
            && resource.spec.target_refs.iter().any(here)
        {
            merged.put_above(&resource.meta, overrides);
        }
    }
    if let Some(mesh) = &cluster.mesh
        && let Some(overrides) = &mesh.spec.overrides
    {
        merged.put_above(&mesh.meta, overrides);
    }
    merged
}

/// What decides at the callers of a service, where they have no rule for it themselves: the rules of policies for it.
/// Whether a caller's decision counts, and what is kept at the end, is the service's own proxy's.
pub fn for_callers(cluster: &Cluster, service: &str, namespace: &str) -> Merged {
    let is = |target: &TargetRef| target.kind == TargetKind::Service && target.name == service;
    let layers = cluster.sampling.iter().filter_map(|resource| {
        let Resource { meta, spec } = resource;
        let sampling = spec.defaults.as_ref()?;
        let named = meta.namespace == namespace && spec.target_refs.iter().any(is);
        named.then_some(Layer { level: Some(Level::Workload), meta, sampling, strategy: spec.strategy })
    });
    let mut merged = stack(&layers.collect::<Vec<_>>());
    if !merged.rules.is_empty() || !merged.boosts.is_empty() {
        // Whatever is to hold above all else holds above these, too.
        let here = |target: &TargetRef| target.kind == TargetKind::Namespace && target.name == namespace;
        for Resource { meta, spec } in cluster.sampling.iter().rev() {
            if let Some(overrides) = &spec.overrides
                && meta.namespace == namespace
                && spec.target_refs.iter().any(here)
            {
                merged.put_above(meta, overrides);
            }
        }
        if let Some(mesh) = &cluster.mesh
            && let Some(overrides) = &mesh.spec.overrides
        {
            merged.put_above(&mesh.meta, overrides);
        }
    }
    Merged { parent: None, keeps: Vec::new(), ..merged }
}

/// A policy that names both the namespace and a workload in it counts once, as the more specific.
fn placed<'a>(resource: &'a Resource<SamplingPolicySpec>, seat: &Seat) -> Option<Layer<'a>> {
    let Resource { meta, spec } = resource;
    let levels = spec.target_refs.iter().filter_map(|target| concerns(target, &meta.namespace, seat));
    let level = levels.filter(|level| *level != Level::Route).max()?;
    Some(Layer { level: Some(level), meta, sampling: spec.defaults.as_ref()?, strategy: spec.strategy })
}

/// From the least to the most specific; among equals the older first.
fn stack(layers: &[Layer<'_>]) -> Merged {
    let mut merged = Merged::default();
    for level in layers.chunk_by(|one, two| one.level == two.level) {
        let mut lost = Vec::new();
        let parents = level.iter().filter(|layer| layer.sampling.parent.is_some());
        let mut parents = parents.map(|layer| (layer.meta, layer.sampling.parent));
        if let Some((winner, parent)) = parents.next() {
            merged.parent = parent;
            lost.extend(parents.map(|(meta, _)| Lost::new(meta, winner, "parent")));
        }
        let rules = |sampling: &Sampling| sampling.head.as_ref().map(|head| head.rules.clone());
        let boosts = |sampling: &Sampling| sampling.head.as_ref().map(|head| head.boost.clone());
        merged.rules = block(level, merged.rules, "head", rules, &mut lost);
        // They lose with the rules, which is said once.
        merged.boosts = block(level, merged.boosts, "head", boosts, &mut Vec::new());
        merged.keeps = block(level, merged.keeps, "keep", |sampling| sampling.keep.clone(), &mut lost);
        merged.lost.append(&mut lost);
    }
    merged
}

/// One part of the policies of one level, on top of what is below.
fn block<Rule>(
    level: &[Layer<'_>],
    below: Vec<Of<Rule>>,
    part: &'static str,
    pick: impl Fn(&Sampling) -> Option<Vec<Rule>>,
    lost: &mut Vec<Lost>,
) -> Vec<Of<Rule>> {
    let mut rules = Vec::new();
    let mut first: Option<&Meta> = None;
    let mut is_open = true;
    for layer in level {
        let Some(own) = pick(layer.sampling) else { continue };
        let patches = layer.strategy == Strategy::PatchDefaults;
        match first {
            Some(winner) if !patches || !is_open => lost.push(Lost::new(layer.meta, winner, part)),
            _ => {
                rules.extend(own.into_iter().map(|rule| of(layer.meta, rule)));
                first = first.or(Some(layer.meta));
                is_open = patches;
            }
        }
    }
    if is_open {
        rules.extend(below);
    }
    rules
}

impl Lost {
    fn new(loser: &Meta, winner: &Meta, part: &'static str) -> Self {
        Self { policy: loser.full_name(), winner: winner.full_name(), part }
    }
}

impl Merged {
    /// Rules for one route stand before those for all. Where their policy is atomic, they are all there is for the route.
    fn put_routes(&mut self, resource: &Resource<SamplingPolicySpec>, seat: &Seat) {
        let Resource { meta, spec } = resource;
        let Some(head) = spec.defaults.as_ref().and_then(|sampling| sampling.head.as_ref()) else { return };
        for target in &spec.target_refs {
            if concerns(target, &meta.namespace, seat) != Some(Level::Route) {
                continue;
            }
            let narrowed = |matching: &Option<Match>| {
                Some(Match { route: Some(route(target)), ..matching.clone().unwrap_or_default() })
            };
            let rule = |rule: &HeadRule| HeadRule { matching: narrowed(&rule.matching), ..rule.clone() };
            let mut rules: Vec<_> = head.rules.iter().map(|written| of(meta, rule(written))).collect();
            let is_closed = head.rules.last().is_some_and(|last| last.matching.is_none());
            if spec.strategy == Strategy::AtomicDefaults && !is_closed {
                let action = Action { always: Some(Empty {}), ..Action::default() };
                rules.push(of(meta, HeadRule { name: UNMATCHED.into(), matching: narrowed(&None), action }));
            }
            self.rules.splice(0..0, rules);
            let boost = |rule: &BoostRule| BoostRule { matching: narrowed(&rule.matching), ..rule.clone() };
            self.boosts.splice(0..0, head.boost.iter().map(|written| of(meta, boost(written))).collect::<Vec<_>>());
        }
    }

    fn put_above(&mut self, meta: &Meta, sampling: &Sampling) {
        self.parent = sampling.parent.or(self.parent);
        if let Some(head) = &sampling.head {
            self.rules.splice(0..0, head.rules.iter().map(|rule| of(meta, rule.clone())).collect::<Vec<_>>());
            self.boosts.splice(0..0, head.boost.iter().map(|rule| of(meta, rule.clone())).collect::<Vec<_>>());
        }
        if let Some(keeps) = &sampling.keep {
            self.keeps.splice(0..0, keeps.iter().map(|rule| of(meta, rule.clone())).collect::<Vec<_>>());
        }
    }
}

fn of<Rule>(meta: &Meta, rule: Rule) -> Of<Rule> {
    Of { policy: meta.full_name(), generation: meta.generation, rule }
}

/// As a rule of a route is called in the proxy's configuration.
fn route(target: &TargetRef) -> String {
    match target.section_name.as_str() {
        "" => target.name.clone(),
        section => format!("{}/{section}", target.name),
    }
}

/// What decides of a request of a route that no rule of its policy matches.
const UNMATCHED: &str = "unmatched";
