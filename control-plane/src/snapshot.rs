//! What a proxy is to have, of the cluster as it is. Pure: the same cluster and the same proxy give the same bytes.

mod merge;
mod wire;

use std::collections::{BTreeMap, BTreeSet};

use spanmesh_proto::v1;

use crate::cluster::{Cluster, GATEWAY, concerns};
use crate::picture::Seat;

pub use merge::{Lost, Of, for_callers, own};

/// Kind `policy`: what holds for the proxy itself.
pub fn policy(cluster: &Cluster, seat: &Seat) -> v1::Policy {
    let mut policy = v1::Policy { sampling: Some(wire::chain(&merge::own(cluster, seat))), ..mesh_wide(cluster, seat) };
    // The more specific come later, and among equals the older: each part is the last one's that sets it.
    let mut concerning: Vec<_> = cluster
        .spans
        .iter()
        .filter_map(|resource| {
            let targets = resource.spec.target_refs.iter();
            let level = targets.filter_map(|target| concerns(target, &resource.meta.namespace, seat)).max()?;
            Some((level, resource))
        })
        .collect();
    concerning.sort_by(|(level, one), (other, two)| level.cmp(other).then(two.meta.cmp(&one.meta)));
    for (_, resource) in concerning {
        let spec = &resource.spec;
        if let Some(attributes) = &spec.attributes {
            policy.attributes = attributes.iter().map(wire::attribute).collect();
        }
        if let Some(redaction) = &spec.redaction {
            policy.redaction = Some(wire::redaction(redaction));
        }
        if let Some(propagation) = &spec.propagation {
            policy.propagation = Some(wire::propagation(propagation));
        }
        if let Some(destinations) = &spec.destinations {
            policy.destinations = wire::destinations(destinations, seat);
        }
    }
    policy
}

/// Kind `destination`: what decides at the callers of a service, which is `service.namespace`.
pub fn destination(cluster: &Cluster, service: &str) -> Option<v1::Chain> {
    let (service, namespace) = service.split_once('.')?;
    let merged = merge::for_callers(cluster, service, namespace);
    (!merged.is_empty()).then(|| wire::chain(&merged))
}

/// Parts of policies that gave way to older ones, at the proxy itself and at the callers of its service.
pub fn lost(cluster: &Cluster, seat: &Seat) -> Vec<Lost> {
    let own = [seat.service.clone()];
    let services: &[String] = seat.selected_by.as_deref().unwrap_or(&own);
    let callers = services.iter().flat_map(|service| merge::for_callers(cluster, service, &seat.namespace).lost);
    let mut lost: Vec<_> = merge::own(cluster, seat).lost.into_iter().chain(callers).collect();
    lost.sort();
    lost.dedup();
    lost
}

/// Kind `capture`: those of the proxy's namespace.
pub fn captures(cluster: &Cluster, seat: &Seat) -> Vec<(String, v1::Capture)> {
    let here = cluster.captures.iter().filter(|capture| capture.meta.namespace == seat.namespace);
    here.filter(|capture| {
        let target = capture.spec.target_ref.as_ref();
        target.is_none_or(|target| concerns(target, &capture.meta.namespace, seat).is_some())
    })
    .map(|capture| (capture.meta.full_name(), wire::capture(capture)))
    .collect()
}

/// Kind `thresholds`: those of the rules that this proxy has.
pub fn thresholds(cluster: &Cluster, seat: &Seat, services: &BTreeSet<String>, all: &v1::Thresholds) -> v1::Thresholds {
    if all.thresholds.is_empty() {
        return v1::Thresholds::default();
    }
    let own = merge::own(cluster, seat);
    let callees = services.iter().filter_map(|service| service.split_once('.'));
    let callees = callees.map(|(service, namespace)| merge::for_callers(cluster, service, namespace));
    let mut names: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (policy, rule) in std::iter::once(own).chain(callees).flat_map(|merged| merged.measured().collect::<Vec<_>>()) {
        names.entry(policy).or_default().insert(rule);
    }
    let is_mine = |policy: &str, rule: &str| names.get(policy).is_some_and(|rules| rules.contains(rule));
    let thresholds = all.thresholds.iter().filter(|of| is_mine(&of.policy, &of.rule));
    let limits = all.limits.iter().filter(|of| is_mine(&of.policy, &of.rule));
    v1::Thresholds { thresholds: thresholds.cloned().collect(), limits: limits.cloned().collect() }
}

fn mesh_wide(cluster: &Cluster, seat: &Seat) -> v1::Policy {
    let Some(mesh) = &cluster.mesh else { return v1::Policy::default() };
    let spec = &mesh.spec;
    v1::Policy {
        propagation: spec.propagation.as_ref().map(wire::propagation),
        redaction: spec.redaction.as_ref().map(wire::redaction),
        destinations: wire::destinations(&spec.destinations, seat),
        untraced: spec
            .untraced
            .as_ref()
            .map(|kinds| v1::Untraced { kinds: kinds.iter().map(|kind| kind.word().to_owned()).collect() }),
        edge: spec
            .edge
            .as_ref()
            .filter(|_| seat.role == GATEWAY)
            .map(|edge| v1::Edge { trust: edge.trust.word().into() }),
        guard: spec.safety.as_ref().map(wire::guard),
        ..v1::Policy::default()
    }
}
