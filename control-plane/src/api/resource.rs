//! What is asked of the API server: the kinds, and of each the verbs. `rbac.yaml` allows exactly this.

/// A kind, or a part of one.
#[derive(Debug, PartialEq, Eq)]
pub struct Resource {
    pub group: &'static str,
    pub version: &'static str,
    pub kind: &'static str,
    pub plural: &'static str,
    /// As `status`.
    pub part: &'static str,
    pub is_namespaced: bool,
    /// Only its `metadata` is wanted.
    pub is_partial: bool,
    pub verbs: &'static [Verb],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verb {
    Get,
    List,
    Watch,
    Create,
    Update,
    Patch,
}

impl Resource {
    /// Those of all namespaces.
    pub fn all(&self) -> String {
        match self.group {
            "" => format!("/api/{}/{}", self.version, self.plural),
            group => format!("/apis/{group}/{}/{}", self.version, self.plural),
        }
    }

    pub fn all_of(&self, namespace: &str) -> String {
        if !self.is_namespaced {
            return self.all();
        }
        let all = self.all();
        let root = all.strip_suffix(self.plural).unwrap_or_default();
        format!("{root}namespaces/{namespace}/{}", self.plural)
    }

    pub fn one(&self, namespace: &str, name: &str) -> String {
        let part = if self.part.is_empty() { String::new() } else { format!("/{}", self.part) };
        format!("{}/{name}{part}", self.all_of(namespace))
    }

    pub fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.to_owned() } else { format!("{}/{}", self.group, self.version) }
    }

    /// <https://kubernetes.io/docs/reference/using-api/api-concepts/#metadata-only-fetches>
    pub fn accept(&self, verb: Verb) -> &'static str {
        match (self.is_partial, verb) {
            (true, Verb::List) => "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1",
            (true, _) => "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1",
            (false, _) => "application/json",
        }
    }
}

const fn ours(kind: &'static str, plural: &'static str, is_namespaced: bool) -> Resource {
    let (group, version) = (spanmesh_crds::GROUP, spanmesh_crds::VERSION);
    Resource { group, version, kind, plural, part: "", is_namespaced, is_partial: false, verbs: FOLLOWED }
}

const fn status(of: &Resource) -> Resource {
    let Resource { group, version, kind, plural, is_namespaced, .. } = *of;
    Resource { group, version, kind, plural, part: "status", is_namespaced, is_partial: false, verbs: &[Verb::Patch] }
}

const FOLLOWED: &[Verb] = &[Verb::List, Verb::Watch];

pub static MESH_TRACING: Resource = ours("MeshTracing", "meshtracings", false);
pub static SAMPLING_POLICY: Resource = ours("SamplingPolicy", "samplingpolicies", true);
pub static SPAN_POLICY: Resource = ours("SpanPolicy", "spanpolicies", true);
pub static TRACE_CAPTURE: Resource = ours("TraceCapture", "tracecaptures", true);
pub static MESH_TRACING_STATUS: Resource = status(&MESH_TRACING);
pub static SAMPLING_POLICY_STATUS: Resource = status(&SAMPLING_POLICY);
pub static SPAN_POLICY_STATUS: Resource = status(&SPAN_POLICY);
pub static TRACE_CAPTURE_STATUS: Resource = status(&TRACE_CAPTURE);

const CORE: Resource = Resource {
    group: "",
    version: "v1",
    kind: "Pod",
    plural: "pods",
    part: "",
    is_namespaced: true,
    is_partial: false,
    verbs: FOLLOWED,
};

pub static POD: Resource = Resource { is_partial: true, ..CORE };
pub static SERVICE: Resource = Resource { kind: "Service", plural: "services", ..CORE };
pub static EVENT: Resource =
    Resource { group: "events.k8s.io", kind: "Event", plural: "events", verbs: &[Verb::Create], ..CORE };
/// In the control plane's own namespace only.
pub static LEASE: Resource = Resource {
    group: "coordination.k8s.io",
    kind: "Lease",
    plural: "leases",
    verbs: &[Verb::Get, Verb::Create, Verb::Update],
    ..CORE
};

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde::Deserialize;
    use serde_yaml::Value;

    use super::*;

    static ALL: [&Resource; 12] = [
        &MESH_TRACING,
        &SAMPLING_POLICY,
        &SPAN_POLICY,
        &TRACE_CAPTURE,
        &MESH_TRACING_STATUS,
        &SAMPLING_POLICY_STATUS,
        &SPAN_POLICY_STATUS,
        &TRACE_CAPTURE_STATUS,
        &POD,
        &SERVICE,
        &EVENT,
        &LEASE,
    ];

    #[test]
    fn paths_are_those_of_the_api() {
        assert_eq!(POD.all(), "/api/v1/pods");
        assert_eq!(SAMPLING_POLICY.all(), "/apis/spanmesh.io/v1alpha1/samplingpolicies");
        assert_eq!(LEASE.one("a", "b"), "/apis/coordination.k8s.io/v1/namespaces/a/leases/b");
        assert_eq!(MESH_TRACING_STATUS.one("", "default"), "/apis/spanmesh.io/v1alpha1/meshtracings/default/status");
    }

    /// Group, resource with its part, verb, and whether it is for all namespaces.
    type Allowed = BTreeSet<(String, String, String, bool)>;

    #[test]
    fn the_manifest_allows_what_is_asked_and_nothing_else() {
        let mut asked = Allowed::new();
        for resource in ALL {
            let part = if resource.part.is_empty() { "" } else { "/" };
            for verb in resource.verbs {
                let name = format!("{}{part}{}", resource.plural, resource.part);
                let verb = format!("{verb:?}").to_lowercase();
                let is_wide = !std::ptr::eq(resource, &LEASE);
                asked.insert((resource.group.into(), name, verb, is_wide));
            }
        }
        let mut allowed = Allowed::new();
        for document in serde_yaml::Deserializer::from_str(include_str!("../../rbac.yaml")) {
            let document = Value::deserialize(document).expect("it is YAML");
            let is_wide = match document["kind"].as_str() {
                Some("ClusterRole") => true,
                Some("Role") => false,
                _ => continue,
            };
            for rule in document["rules"].as_sequence().expect("rules") {
                let words = |name: &str| -> Vec<String> { serde_yaml::from_value(rule[name].clone()).expect("words") };
                for group in words("apiGroups") {
                    for resource in words("resources") {
                        for verb in words("verbs") {
                            allowed.insert((group.clone(), resource.clone(), verb, is_wide));
                        }
                    }
                }
            }
        }
        assert_eq!(asked, allowed);
        assert!(!allowed.iter().any(|(_, resource, _, _)| resource == "secrets" || resource == "*"));
    }
}
