//! SpanPolicy: what spans say and where they go.

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::destination::Destination;
use crate::propagation::Propagation;
use crate::redaction::{Attribute, Redaction};
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
    doc = "What spans say and where they go, for a namespace, workloads, a service, a gateway or a route."
)]
pub struct SpanPolicySpec {
    /// What it is for.
    pub target_refs: Vec<TargetRef>,
    /// Attributes that spans have besides.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attributes: Option<Vec<Attribute>>,
    /// What is taken out of spans and of the access log.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub redaction: Option<Redaction>,
    /// Templates of paths, such as `/carts/{id}/items`: a request whose path is like one has its span named so. The first
    /// that matches names it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub templates: Option<Vec<String>>,
    /// Which headers carry the trace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub propagation: Option<Propagation>,
    /// Where spans go.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub destinations: Option<Vec<Destination>>,
}
