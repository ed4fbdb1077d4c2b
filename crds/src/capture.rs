//! TraceCapture: the next so many traces, and then it is over.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::sampling::Match;
use crate::says::{self, cel};
use crate::target::TargetRef;
use crate::value::Period;
use crate::words::words;

/// Which requests, how many, how fast, how long.
#[derive(CustomResource, Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[kube(
    group = "spanmesh.io",
    version = "v1alpha1",
    kind = "TraceCapture",
    plural = "tracecaptures",
    shortname = "tcap",
    category = "spanmesh",
    namespaced,
    status = "TraceCaptureStatus",
    derive = "PartialEq",
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase", description = "How far it is."),
    printcolumn(
        name = "Collected",
        type_ = "integer",
        json_path = ".status.collected",
        description = "Traces that were collected."
    ),
    printcolumn(
        name = "Wanted",
        type_ = "integer",
        json_path = ".spec.traces",
        description = "Traces that are wanted."
    ),
    printcolumn(name = "Started", type_ = "date", json_path = ".status.startTime", description = "When it began."),
    printcolumn(name = "Ended", type_ = "date", json_path = ".status.endTime", description = "When it ended."),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp",
        description = "Since when it is there."
    ),
    doc = "Traces the next requests that match, whatever policies say of them. It ends by itself."
)]
#[schemars(extend("x-kubernetes-validations" = cel(&[says::IMMUTABLE])))]
pub struct TraceCaptureSpec {
    /// Where requests are looked for. Left out: at all proxies of the namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target_ref: Option<TargetRef>,
    /// Which requests are traced; all that is set must hold. Left out: all.
    #[serde(rename = "match", skip_serializing_if = "Option::is_none")]
    pub matching: Option<Match>,
    /// How many traces are collected. When proxies see the last ones at the same moment there are a few more, at most one
    /// for each connected proxy.
    #[schemars(range(min = 1, max = 1000))]
    pub traces: u32,
    /// How many traces a second are begun at most.
    #[serde(default = "usual_rate")]
    #[schemars(range(min = 1, max = 1000))]
    pub traces_per_second: u32,
    /// How long it waits for them: at least `1s` and at most `1h`.
    #[serde(default = "usual_duration")]
    #[schemars(extend("x-kubernetes-validations" = cel(&[says::CAPTURE_TIME])))]
    pub duration: Period,
}

/// What it has found.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TraceCaptureStatus {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub phase: Option<CapturePhase>,
    /// How many traces were collected.
    #[serde(default)]
    #[schemars(range(min = 0, max = 10000000))]
    pub collected: u32,
    /// Their ids, 32 hexadecimal digits each; at most the first 1,000.
    #[serde(default)]
    #[schemars(length(max = 1000), inner(length(min = 1, max = 32)), extend("x-kubernetes-list-type" = "atomic"))]
    pub trace_ids: Vec<String>,
    /// When it began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::shapes::time")]
    pub start_time: Option<Time>,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::shapes::time")]
    pub end_time: Option<Time>,
    /// What is so: Accepted, or why not.
    #[serde(default)]
    #[schemars(schema_with = "crate::shapes::conditions")]
    pub conditions: Vec<Condition>,
}

words! {
    /// How far it is.
    pub enum CapturePhase {
        /// it collects.
        Running = "Running",
        /// it has as many traces as were asked for.
        Done = "Done",
        /// its time was over before that.
        Expired = "Expired",
    }
}

fn usual_rate() -> u32 {
    10
}

fn usual_duration() -> Period {
    Period("10m".into())
}
