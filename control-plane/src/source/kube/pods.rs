//! Pods and services as the API server has them, cut down to what says whose pod is whose.

use std::collections::HashMap;

use serde::Deserialize;

use super::follow::Change;
use super::object::{Name, Named};
use crate::workloads::{Labels, Pod, Workloads};

/// A pod's `metadata`; more of it is not asked for.
#[derive(Clone, Debug, Deserialize)]
pub struct PodObject {
    metadata: PodMetadata,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct PodMetadata {
    name: String,
    namespace: String,
    labels: Labels,
    owner_references: Vec<Owner>,
}

#[derive(Clone, Debug, Deserialize)]
struct Owner {
    kind: String,
    name: String,
    #[serde(default)]
    controller: bool,
}

#[derive(Clone, Debug, Deserialize)]
pub struct ServiceObject {
    metadata: ServiceMetadata,
    #[serde(default)]
    spec: ServiceSpec,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct ServiceMetadata {
    name: String,
    namespace: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct ServiceSpec {
    selector: Option<Labels>,
    r#type: String,
}

impl Named for PodObject {
    fn name(&self) -> Name {
        Name { namespace: self.metadata.namespace.clone(), name: self.metadata.name.clone() }
    }
}

impl Named for ServiceObject {
    fn name(&self) -> Name {
        Name { namespace: self.metadata.namespace.clone(), name: self.metadata.name.clone() }
    }
}

impl PodObject {
    fn kept(self) -> Pod {
        Pod { workload: self.workload(), labels: self.metadata.labels }
    }

    /// A Deployment's pods are its ReplicaSet's, which is called after it and its template:
    /// <https://kubernetes.io/docs/concepts/workloads/controllers/deployment/#pod-template-hash-label>
    fn workload(&self) -> String {
        let Some(owner) = self.metadata.owner_references.iter().find(|owner| owner.controller) else {
            return String::new();
        };
        let hash = self.metadata.labels.get("pod-template-hash");
        let deployment = hash.and_then(|hash| owner.name.strip_suffix(hash.as_str())?.strip_suffix('-'));
        match owner.kind.as_str() {
            "ReplicaSet" => deployment.unwrap_or(&owner.name).to_owned(),
            _ => owner.name.clone(),
        }
    }
}

impl ServiceObject {
    /// What it selects. <https://kubernetes.io/docs/concepts/services-networking/service/#externalname>: those select nothing.
    fn kept(self) -> Option<Labels> {
        self.spec.selector.filter(|_| self.spec.r#type != "ExternalName")
    }
}

/// All of them.
#[derive(Default)]
pub struct Pods {
    pods: HashMap<Name, Pod>,
    services: HashMap<Name, Option<Labels>>,
    /// Pods and services, each.
    listed: (bool, bool),
}

impl Pods {
    /// Whether it makes a difference.
    pub fn take_pods(&mut self, change: Change<PodObject>) -> bool {
        self.listed.0 = true;
        put(&mut self.pods, change, PodObject::kept)
    }

    pub fn take_services(&mut self, change: Change<ServiceObject>) -> bool {
        self.listed.1 = true;
        put(&mut self.services, change, ServiceObject::kept)
    }

    pub fn is_whole(&self) -> bool {
        self.listed == (true, true)
    }

    pub fn workloads(&self) -> Workloads {
        let pods = self.pods.iter().map(|(name, pod)| (name.namespace.as_str(), name.name.as_str(), pod));
        let services = self.services.iter();
        let services =
            services.map(|(name, selector)| (name.namespace.as_str(), name.name.as_str(), selector.as_ref()));
        Workloads::new(pods, services)
    }
}

/// A pod's status changes more often than all else, and is none of our business.
fn put<T: Named, Kept: PartialEq>(map: &mut HashMap<Name, Kept>, change: Change<T>, kept: fn(T) -> Kept) -> bool {
    match change {
        Change::All(list) => {
            *map = list.into_iter().map(|object| (object.name(), kept(object))).collect();
            true
        }
        Change::Set(object) => {
            let (name, fresh) = (object.name(), kept(object));
            let is_same = map.get(&name) == Some(&fresh);
            if !is_same {
                map.insert(name, fresh);
            }
            !is_same
        }
        Change::Gone(name) => map.remove(&name).is_some(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pod(owner: Value, labels: Value) -> PodObject {
        let metadata = json!({"name": "p", "namespace": "shop", "labels": labels, "ownerReferences": [owner]});
        serde_json::from_value(json!({"metadata": metadata})).unwrap()
    }

    #[test]
    fn a_deployment_is_known_by_its_replica_set() {
        let owner = |kind: &str, name: &str| json!({"kind": kind, "name": name, "controller": true});
        let hashed = json!({"pod-template-hash": "7d9f"});
        assert_eq!(pod(owner("ReplicaSet", "cart-api-7d9f"), hashed.clone()).workload(), "cart-api");
        assert_eq!(pod(owner("ReplicaSet", "alone"), hashed.clone()).workload(), "alone");
        assert_eq!(pod(owner("StatefulSet", "orders"), json!({})).workload(), "orders");
        assert_eq!(pod(json!({"kind": "ReplicaSet", "name": "x"}), hashed).workload(), "");
    }

    #[test]
    fn what_makes_no_difference_is_no_news() {
        let mut pods = Pods::default();
        let one = || pod(json!({"kind": "StatefulSet", "name": "a", "controller": true}), json!({"app": "a"}));
        assert!(pods.take_pods(Change::All(vec![one()])));
        assert!(!pods.take_pods(Change::Set(one())));
        assert!(
            pods.take_pods(Change::Set(pod(
                json!({"kind": "StatefulSet", "name": "b", "controller": true}),
                json!({})
            )))
        );
        assert!(!pods.is_whole());
        let external: ServiceObject = serde_json::from_value(json!({
            "metadata": {"name": "s", "namespace": "shop"}, "spec": {"type": "ExternalName", "selector": {"app": "a"}},
        }))
        .unwrap();
        assert!(pods.take_services(Change::All(vec![external])));
        assert!(pods.is_whole());
        assert!(!pods.workloads().lacks("shop", "s"));
        assert!(pods.take_pods(Change::Gone(one().name())));
        assert!(!pods.take_pods(Change::Gone(one().name())));
    }
}
