//! MeshTracing: what holds for the whole mesh.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::destination::Destination;
use crate::propagation::Propagation;
use crate::redaction::Redaction;
use crate::sampling::Sampling;
use crate::says::{self, cel};
use crate::words::words;

/// What holds for the whole mesh, where no policy says otherwise.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[kube(
    group = "spanmesh.io",
    version = "v1alpha1",
    kind = "MeshTracing",
    plural = "meshtracings",
    shortname = "mt",
    category = "spanmesh",
    status = "MeshTracingStatus",
    derive = "PartialEq",
    printcolumn(
        name = "Proxies",
        type_ = "integer",
        json_path = ".status.observedProxies",
        description = "Proxies that are connected."
    ),
    printcolumn(
        name = "Converged",
        type_ = "integer",
        json_path = ".status.convergedProxies",
        description = "Proxies that decide by this generation."
    ),
    printcolumn(
        name = "Accepted",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Accepted\")].status",
        description = "Whether it is valid and in force."
    ),
    printcolumn(
        name = "Programmed",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Programmed\")].status",
        description = "Whether it was given to proxies."
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp",
        description = "Since when it is there."
    ),
    doc = "How the mesh is traced, where no policy says otherwise. The one that is named `default` counts."
)]
pub struct MeshTracingSpec {
    /// Where spans go. Left out: where each proxy's own configuration or environment says.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 4), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub destinations: Vec<Destination>,
    /// Which headers carry the trace. Left out: as each proxy's own configuration has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub propagation: Option<Propagation>,
    /// What is believed at the edge of the mesh.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub edge: Option<Edge>,
    /// How many spans there may be. Adaptive rules share it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub budgets: Option<Budgets>,
    /// What is taken out of spans and of the access log, where no SpanPolicy says otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub redaction: Option<Redaction>,
    /// Requests that make no spans. They are carried, counted and logged like all others. Left out: as each proxy's own
    /// configuration has it; an empty list is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 3), extend("x-kubernetes-list-type" = "set"))]
    pub untraced: Option<Vec<Untraced>>,
    /// What protects applications and the collector from too many spans, whatever policies say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub safety: Option<Safety>,
    /// Which traces are kept, where no policy says otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub defaults: Option<Sampling>,
    /// Which traces are kept, whatever policies say: its rules stand before all others.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub overrides: Option<Sampling>,
}

/// The edge of the mesh.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Edge {
    #[serde(default)]
    pub trust: Trust,
}

words! {
    /// What gateways believe of a stranger's trace.
    pub enum Trust = Restart {
        /// all of it: it goes on, and its decision holds.
        Continue = "Continue",
        /// its id; whether it is kept is decided anew.
        Downgrade = "Downgrade",
        /// nothing: a new trace begins, with a link to the stranger's.
        Restart = "Restart",
        /// nothing, and it is not mentioned.
        Ignore = "Ignore",
    }
}

/// How many spans there may be.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("x-kubernetes-validations" = cel(&[says::SOME_BUDGET])))]
pub struct Budgets {
    /// Spans per second of the whole mesh, which adaptive rules share. Left out: each of them has its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1000000))]
    pub spans_per_second: Option<u32>,
    /// Spans per second of the adaptive rules for one service, for the services that are named.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 256), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["namespace", "service"]))]
    pub services: Vec<ServiceBudget>,
}

/// How many spans there may be of one service.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ServiceBudget {
    /// The service's name.
    #[schemars(length(min = 1, max = 63), extend("x-kubernetes-validations" = cel(&[says::OBJECT])))]
    pub service: String,
    /// Its namespace.
    #[schemars(length(min = 1, max = 63), extend("x-kubernetes-validations" = cel(&[says::OBJECT])))]
    pub namespace: String,
    /// Its spans per second.
    #[schemars(range(min = 1, max = 1000000))]
    pub spans_per_second: u32,
}

words! {
    /// Requests that make no spans.
    pub enum Untraced {
        /// Kubernetes' probes.
        Probes = "probes",
        /// Prometheus' scrapes.
        Scrapes = "scrapes",
        /// what applications report: OTLP, Zipkin, Jaeger, StatsD over HTTP.
        Exports = "exports",
    }
}

/// Limits that hold whatever policies say.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Safety {
    /// Spans per second of one proxy, beyond which it keeps fewer of the traces that begin there. 0: no limit.
    #[serde(default = "usual_guard")]
    #[schemars(range(min = 0, max = 1000000))]
    pub guard_spans_per_second: u32,
}

/// What became of it.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MeshTracingStatus {
    /// The generation that this was said of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// What is so: Accepted, Programmed, Converged and others.
    #[serde(default)]
    #[schemars(schema_with = "crate::shapes::conditions")]
    pub conditions: Vec<Condition>,
    /// Proxies that are connected.
    #[serde(default)]
    #[schemars(range(min = 0, max = 10000000))]
    pub observed_proxies: u32,
    /// Proxies of them that decide by this generation.
    #[serde(default)]
    #[schemars(range(min = 0, max = 10000000))]
    pub converged_proxies: u32,
}

impl Default for Safety {
    fn default() -> Safety {
        Safety { guard_spans_per_second: usual_guard() }
    }
}

fn usual_guard() -> u32 {
    500
}
