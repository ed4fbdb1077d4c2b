//! Which headers carry the trace.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::says::{self, cel};
use crate::words::words;

/// Which headers carry the trace.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Propagation {
    /// Formats that are read; the first that can be read wins.
    #[serde(default = "usual_extract")]
    #[schemars(length(min = 1, max = 10), extend("x-kubernetes-list-type" = "set"))]
    pub extract: Vec<Format>,
    /// Formats that are written, all of them with the same trace.
    #[serde(default = "usual_inject")]
    #[schemars(length(max = 10), extend("x-kubernetes-list-type" = "set"))]
    pub inject: Vec<Format>,
    /// Formats whose headers are taken out. Of use where `normalise` is off.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 10), extend("x-kubernetes-list-type" = "set"))]
    pub clear: Vec<Format>,
    /// The headers of all formats that are not written are taken out: they would tell the next hop of a span that is not
    /// its parent.
    #[serde(default = "yes")]
    pub normalise: bool,
    /// Baggage is passed on, in `baggage` and in the headers that other formats have for it.
    #[serde(default = "yes")]
    pub baggage: bool,
    /// Keys of the `baggage` that is passed on from callers whose trace is not believed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 32), inner(length(min = 1, max = 128)), extend("x-kubernetes-list-type" = "set", "x-kubernetes-validations" = cel(&[says::BAGGAGES])))]
    pub stranger_baggage: Vec<String>,
    /// Baggage is passed on to addresses outside of `mesh` too.
    #[serde(default)]
    pub outside_baggage: bool,
    /// The networks of the mesh, as `10.0.0.0/8`. Left out: loopback, link-local, private and shared addresses.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 49)), extend("x-kubernetes-list-type" = "set", "x-kubernetes-validations" = cel(&[says::NETWORKS])))]
    pub mesh: Option<Vec<String>>,
    /// A request that a sidecar's application sends without a context while it works on exactly one other gets that one as
    /// its parent, and not only a link to it.
    #[serde(default)]
    pub infer_parent: bool,
    /// `x-request-id` is made where it is missing.
    #[serde(default = "yes")]
    pub request_id: bool,
}

words! {
    /// A family of headers that carry a trace.
    pub enum Format {
        /// `traceparent` and `tracestate`.
        W3c = "w3c",
        /// Zipkin's `b3`.
        B3 = "b3",
        /// Zipkin's `x-b3-*`.
        B3Multi = "b3multi",
        /// `uber-trace-id`, `jaeger-debug-id`.
        Jaeger = "jaeger",
        /// AWS X-Ray's `x-amzn-trace-id`.
        Xray = "xray",
        /// `x-datadog-*`.
        Datadog = "datadog",
        /// Google Cloud's `x-cloud-trace-context`.
        Gcp = "gcp",
        /// `sw8`.
        Skywalking = "skywalking",
        /// OpenCensus' `grpc-trace-bin`.
        Binary = "binary",
        /// OpenTracing's `ot-tracer-*`.
        Ottrace = "ottrace",
    }
}

impl Default for Propagation {
    fn default() -> Propagation {
        Propagation {
            extract: usual_extract(),
            inject: usual_inject(),
            clear: Vec::new(),
            normalise: true,
            baggage: true,
            stranger_baggage: Vec::new(),
            outside_baggage: false,
            mesh: None,
            infer_parent: false,
            request_id: true,
        }
    }
}

fn usual_extract() -> Vec<Format> {
    vec![Format::W3c, Format::B3, Format::B3Multi, Format::Jaeger]
}

fn usual_inject() -> Vec<Format> {
    vec![Format::W3c]
}

fn yes() -> bool {
    true
}
