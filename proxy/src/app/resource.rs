//! What all spans of this process have in common: the service, its pod and the proxy, from the configuration and the
//! environment. Nobody is asked: in Kubernetes the downward API and the injector fill in `node`.

use std::borrow::Cow;

use crate::config::{Config, Node, OwnerKind};
use crate::trace::export::json::Resource;

pub fn of(config: &Config) -> Resource {
    let node = &config.node;
    let owner = node.owner_kind.map(|kind| (owner_key(kind), node.owner_name.clone()));
    let mut resource: Vec<(Cow<'static, str>, String)> = vec![
        ("service.name".into(), node.service.clone()),
        ("service.namespace".into(), node.namespace.clone()),
        ("service.version".into(), node.service_version.clone()),
        ("k8s.namespace.name".into(), node.namespace.clone()),
        ("k8s.pod.name".into(), node.pod.clone()),
        ("k8s.pod.uid".into(), node.pod_uid.clone()),
        ("k8s.pod.ip".into(), node.pod_ip.clone()),
        ("k8s.node.name".into(), node.node_name.clone()),
        ("k8s.container.name".into(), node.container.clone()),
        ("k8s.cluster.name".into(), node.cluster.clone()),
    ];
    resource.extend(owner.map(|(key, name)| (key.into(), name)));
    // What the environment adds gives way to what the file says, and comes before what is made up here.
    let others = config.resource.iter().cloned();
    let made_up = [
        ("service.name", service(node)),
        ("service.instance.id", instance(node)),
        ("telemetry.sdk.name", "spanmesh".to_owned()),
        ("telemetry.sdk.language", "rust".to_owned()),
        ("telemetry.sdk.version", env!("CARGO_PKG_VERSION").to_owned()),
    ];
    let made_up = made_up.map(|(key, value)| (key.to_owned(), value));
    for (key, value) in others.chain(made_up) {
        match resource.iter_mut().find(|(known, _)| *known == key) {
            Some((_, known)) if known.is_empty() => *known = value,
            Some(_) => {}
            None => resource.push((key.into(), value)),
        }
    }
    Resource(resource)
}

/// For one that nobody named: what made the pod, the pod, the container, as the conventions for Kubernetes have it.
pub fn service(node: &Node) -> String {
    let names = [&node.owner_name, &node.pod, &node.container];
    let name = names.into_iter().find(|name| !name.is_empty());
    name.map_or("unknown_service:spanmesh-proxy", |name| name).to_owned()
}

/// The pod and the container tell one instance from all others; without them it is a UUID.
fn instance(node: &Node) -> String {
    let Node { namespace, pod, container, .. } = node;
    match [namespace, pod, container].iter().any(|part| part.is_empty()) {
        true => uuid(rand::random()),
        false => format!("{namespace}.{pod}.{container}"),
    }
}

fn owner_key(kind: OwnerKind) -> &'static str {
    match kind {
        OwnerKind::Deployment => "k8s.deployment.name",
        OwnerKind::Replicaset => "k8s.replicaset.name",
        OwnerKind::Statefulset => "k8s.statefulset.name",
        OwnerKind::Daemonset => "k8s.daemonset.name",
        OwnerKind::Cronjob => "k8s.cronjob.name",
        OwnerKind::Job => "k8s.job.name",
    }
}

/// A UUID of version 4 (RFC 9562 section 5.4).
fn uuid(random: u128) -> String {
    let bits = random & !(0xf << 76 | 0x3 << 62) | 0x4 << 76 | 0x2 << 62;
    let hex = format!("{bits:032x}");
    let mut id = String::with_capacity(36);
    for (place, digit) in hex.chars().enumerate() {
        if matches!(place, 8 | 12 | 16 | 20) {
            id.push('-');
        }
        id.push(digit);
    }
    id
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instance_id_has_its_version_and_variant() {
        assert_eq!(uuid(0), "00000000-0000-4000-8000-000000000000");
        assert_eq!(uuid(u128::MAX), "ffffffff-ffff-4fff-bfff-ffffffffffff");
    }
}
