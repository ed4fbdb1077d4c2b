//! SpanPolicy: what spans say and where they go.

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::destination::Destination;
use crate::propagation::Propagation;
use crate::redaction::{Attribute, Redaction};
use crate::says::{self, cel};
use crate::status::PolicyStatus;
use crate::target::TargetRef;

/// What spans say and where they go. Each part that is set takes the place of the same part of less specific policies.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[kube(
    group = "spanmesh.io",
    version = "v1alpha1",
    kind = "SpanPolicy",
    plural = "spanpolicies",
    shortname = "spanpol",
    category = "spanmesh",
    namespaced,
    status = "PolicyStatus",
    derive = "PartialEq",
    printcolumn(
        name = "Target",
        type_ = "string",
        json_path = ".spec.targetRefs[0].kind",
        description = "Kind of the first target."
    ),
    printcolumn(
        name = "Name of target",
        type_ = "string",
        json_path = ".spec.targetRefs[0].name",
        description = "Name of the first target."
    ),
    printcolumn(
        name = "Accepted",
        type_ = "string",
        json_path = ".status.ancestors[0].conditions[?(@.type==\"Accepted\")].status",
        description = "Whether it is valid and in force."
    ),
    printcolumn(
        name = "Programmed",
        type_ = "string",
        json_path = ".status.ancestors[0].conditions[?(@.type==\"Programmed\")].status",
        description = "Whether it was given to proxies."
    ),
    printcolumn(
        name = "Converged",
        type_ = "string",
        json_path = ".status.ancestors[0].conditions[?(@.type==\"Converged\")].status",
        description = "Whether they decide by it."
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp",
        description = "Since when it is there."
    ),
    label("gateway.networking.k8s.io/policy", "Inherited"),
    doc = "What spans say and where they go, for a namespace, workloads, a service, a gateway or a route."
)]
#[schemars(extend("x-kubernetes-validations" = cel(&[says::SOME_SPAN])))]
pub struct SpanPolicySpec {
    /// What it is for.
    #[schemars(length(min = 1, max = 16), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["group", "kind", "name", "sectionName"], "x-kubernetes-validations" = cel(&[says::ALONE])))]
    pub target_refs: Vec<TargetRef>,
    /// Attributes that spans have besides.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32), extend("x-kubernetes-list-type" = "atomic"))]
    pub attributes: Option<Vec<Attribute>>,
    /// What is taken out of spans and of the access log.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub redaction: Option<Redaction>,
    /// Which headers carry the trace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub propagation: Option<Propagation>,
    /// Where spans go.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 4), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub destinations: Option<Vec<Destination>>,
}
