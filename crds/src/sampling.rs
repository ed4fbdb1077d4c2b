//! SamplingPolicy: which traces are kept. The block of it is also in MeshTracing and, as `policy.sampling`, in the
//! configuration of a proxy that has no control plane.

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::says::{self, cel};
use crate::status::PolicyStatus;
use crate::target::TargetRef;
use crate::value::{Empty, Period, Probability, StatusRange};
use crate::words::words;

/// Which traces are kept, and for whom.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[kube(
    group = "spanmesh.io",
    version = "v1alpha1",
    kind = "SamplingPolicy",
    plural = "samplingpolicies",
    shortname = "sampol",
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
    doc = "Which traces are kept, for a namespace, workloads, a service, a gateway or a route."
)]
#[schemars(extend("x-kubernetes-validations" = cel(&[says::SOME_POLICY, says::OVERRIDES])))]
pub struct SamplingPolicySpec {
    /// What it is for: the policy's own namespace, or up to 16 others. A policy for a service or a route also decides at
    /// its callers, because that is where traces begin.
    #[schemars(length(min = 1, max = 16), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["group", "kind", "name", "sectionName"], "x-kubernetes-validations" = cel(&[says::ALONE])))]
    pub target_refs: Vec<TargetRef>,
    #[serde(default)]
    pub strategy: Strategy,
    /// Which traces are kept, where no more specific policy says otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub defaults: Option<Sampling>,
    /// Which traces are kept, whatever more specific policies say: its rules stand before theirs. Only for a namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub overrides: Option<Sampling>,
}

words! {
    /// How `defaults` and those of less specific policies go together.
    pub enum Strategy = AtomicDefaults {
        /// each of `parent`, `head` and `keep` that is set takes the place of the same part of less specific policies.
        AtomicDefaults = "AtomicDefaults",
        /// its rules come first, those of less specific policies follow.
        PatchDefaults = "PatchDefaults",
    }
}

/// Which traces are kept. What is left out is as less specific policies have it.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("x-kubernetes-validations" = cel(&[says::SOME_SAMPLING])))]
pub struct Sampling {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parent: Option<Parent>,
    /// Traces whose decision is made here: those that begin here, and those whose caller's decision does not count.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub head: Option<Head>,
    /// What is kept at the end of a request whose trace is not: only this hop's own spans, those that this proxy made for
    /// this request. An empty list is nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub keep: Option<Vec<Keep>>,
}

words! {
    /// What a caller's decision counts for, where the caller is trusted. Without any policy `Respect`.
    pub enum Parent {
        /// it holds.
        Respect = "Respect",
        /// it is made anew, consistently.
        Ignore = "Ignore",
    }
}

/// The decision where a trace begins.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("x-kubernetes-validations" = cel(&[says::SOME_HEAD])))]
pub struct Head {
    /// The first rule that matches decides. If none does, less specific policies are asked no more and the trace is kept.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 32), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"], "x-kubernetes-validations" = cel(&[says::LAST_RULE])))]
    pub rules: Vec<HeadRule>,
    /// Asked of every request that is not kept so far, also where a caller decided so. One that matches may keep it from
    /// here on, which makes a trace without its beginning.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 16), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub boost: Vec<BoostRule>,
}

/// A rule of `head`.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HeadRule {
    /// What spans, metrics and `explain` call it.
    #[schemars(length(min = 1, max = 63), extend("x-kubernetes-validations" = cel(&[says::NAME])))]
    pub name: String,
    /// Which requests it is for; all that is set must hold. Only the last rule may leave it out: it is for all.
    #[serde(rename = "match", skip_serializing_if = "Option::is_none")]
    pub matching: Option<Match>,
    /// What becomes of their traces; exactly one of its fields.
    pub action: Action,
}

/// What becomes of traces; exactly one.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("x-kubernetes-validations" = cel(&[says::ONE_ACTION])))]
pub struct Action {
    /// None is kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub never: Option<Empty>,
    /// All are kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub always: Option<Empty>,
    /// This part of them is kept, on every hop the same ones: a decimal above 0 and at most 1, such as `"0.05"`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub probability: Option<Probability>,
    /// At most so many a second are kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate_limit: Option<RateLimit>,
    /// As many are kept as a budget of spans has room for; rare operations are not starved by busy ones.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub adaptive: Option<Adaptive>,
}

/// So many traces a second.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RateLimit {
    /// Traces that are kept in a second, in the whole mesh.
    #[schemars(range(min = 1, max = 1000000))]
    pub traces_per_second: u32,
    /// How many may be kept at once after a while without any. Left out: as many as in a second.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 10000))]
    pub burst: Option<u32>,
    /// Each proxy may keep so many.
    #[serde(default)]
    pub per_proxy: bool,
}

/// A budget of spans.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Adaptive {
    /// Spans of these traces in a second, in the whole mesh.
    #[schemars(range(min = 1, max = 1000000))]
    pub spans_per_second: u32,
    /// Traces of each operation that are kept in a minute, however rare it is.
    #[serde(default = "usual_floor")]
    #[schemars(range(min = 1, max = 1000000))]
    pub min_traces_per_minute: u32,
    /// The part of an operation's traces that is kept at least.
    #[serde(default = "usual_min_probability")]
    pub min_probability: Probability,
}

/// A rule of `boost`.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BoostRule {
    /// What spans, metrics and `explain` call it.
    #[schemars(length(min = 1, max = 63), extend("x-kubernetes-validations" = cel(&[says::NAME])))]
    pub name: String,
    /// Which requests it is for; all that is set must hold. Left out: all.
    #[serde(rename = "match", skip_serializing_if = "Option::is_none")]
    pub matching: Option<Match>,
    /// What becomes of them; exactly one of its fields.
    pub action: BoostAction,
}

/// What becomes of requests that were not kept so far; exactly one.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("x-kubernetes-validations" = cel(&[says::ONE_BOOST])))]
pub struct BoostAction {
    /// All are kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub always: Option<Empty>,
    /// This part of them is kept, on every hop the same ones: a decimal above 0 and at most 1, such as `"0.5"`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub probability: Option<Probability>,
}

/// Requests. All that is set must hold; what a trace's id or flags are cannot be asked, since hops would disagree.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("x-kubernetes-validations" = cel(&[says::SOME_MATCH])))]
pub struct Match {
    /// The method, as it is sent: `GET`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 32), extend("x-kubernetes-validations" = cel(&[says::METHOD])))]
    pub method: Option<String>,
    /// The path, without the query.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<PathMatch>,
    /// The host without its port, or `*.` and a domain for all hosts below it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), extend("x-kubernetes-validations" = cel(&[says::HOST])))]
    pub host: Option<String>,
    /// The name of a route in the proxy's configuration.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128), extend("x-kubernetes-validations" = cel(&[says::NAME])))]
    pub route: Option<String>,
    /// Headers that it has.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 8), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub headers: Vec<ValueMatch>,
    /// The call of gRPC that it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grpc: Option<GrpcMatch>,
    /// Who asks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<Party>,
    /// Who is asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub destination: Option<Party>,
    /// Members of its W3C baggage.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 8), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub baggage: Vec<ValueMatch>,
}

/// A path.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("x-kubernetes-validations" = cel(&[says::PATH, says::TEMPLATE])))]
pub struct PathMatch {
    #[serde(rename = "type", default)]
    pub kind: PathKind,
    /// The path, its beginning, or its template. It begins with `/`.
    #[schemars(length(min = 1, max = 1024))]
    pub value: String,
}

words! {
    /// How paths are compared.
    pub enum PathKind = Prefix {
        /// it is this path.
        Exact = "Exact",
        /// it is this path or one below: `/cart` is the beginning of `/cart/1` and not of `/carts`.
        Prefix = "Prefix",
        /// it is like `/carts/{id}/items`, where `{id}` is any segment.
        Template = "Template",
    }
}

/// A header or a member of the baggage.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ValueMatch {
    /// Its name.
    #[schemars(length(min = 1, max = 256), extend("x-kubernetes-validations" = cel(&[says::HEADER])))]
    pub name: String,
    /// Its value. Left out: any.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub value: Option<String>,
}

/// A call of gRPC; at least one of its fields.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("x-kubernetes-validations" = cel(&[says::SOME_GRPC])))]
pub struct GrpcMatch {
    /// The service with its package: `shop.Cart`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), extend("x-kubernetes-validations" = cel(&[says::NAME])))]
    pub service: Option<String>,
    /// The method: `Get`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128), extend("x-kubernetes-validations" = cel(&[says::NAME])))]
    pub method: Option<String>,
}

/// Who asks or is asked; at least one of its fields.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("x-kubernetes-validations" = cel(&[says::SOME_PARTY])))]
pub struct Party {
    /// The service's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63), extend("x-kubernetes-validations" = cel(&[says::OBJECT])))]
    pub service: Option<String>,
    /// Its namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63), extend("x-kubernetes-validations" = cel(&[says::OBJECT])))]
    pub namespace: Option<String>,
}

/// What is kept at the end of a request.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Keep {
    /// What spans, metrics and `explain` call it.
    #[schemars(length(min = 1, max = 63), extend("x-kubernetes-validations" = cel(&[says::NAME])))]
    pub name: String,
    /// Which requests; exactly one of its fields. Several conditions are several entries.
    pub when: KeepOn,
    /// The part of them that is kept, on every hop the same ones.
    #[serde(default = "all")]
    pub fraction: Probability,
    /// How many of them each proxy keeps.
    #[serde(default)]
    pub limit: KeepLimit,
}

/// How a request ended; exactly one.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("x-kubernetes-validations" = cel(&[says::ONE_ENDING])))]
pub struct KeepOn {
    /// Its span is an error by OpenTelemetry's conventions: for who was asked from 500 on, for who asked from 400 on, and
    /// the statuses of gRPC that the conventions list.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub errors: Option<Empty>,
    /// Its status is one of these: `"429"`, or a range, `"500-599"`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 16), extend("x-kubernetes-list-type" = "set"))]
    pub http_status: Option<Vec<StatusRange>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grpc_status: Option<GrpcStatus>,
    /// Why the proxy itself failed it; it is one of these.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 21), extend("x-kubernetes-list-type" = "set"))]
    pub response_flags: Option<Vec<ResponseFlag>>,
    /// It took long.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub latency: Option<Latency>,
    /// It was tried again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retries: Option<Retries>,
}

words! {
    /// Its status of gRPC is one of these.
    pub enum GrpcStatus {
        /// those that make its span an error by OpenTelemetry's conventions.
        Default = "Default",
    }
}

/// A request that took long.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Latency {
    /// How long, from its first byte to the last of its answer: at least `1ms`.
    #[schemars(extend("x-kubernetes-validations" = cel(&[says::LATENCY])))]
    pub threshold: Period,
}

/// A request that was tried again.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Retries {
    /// How often at least.
    #[serde(default = "one")]
    #[schemars(range(min = 1, max = 100))]
    pub min: u32,
}

/// How many each proxy keeps.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct KeepLimit {
    /// So many a second.
    #[serde(default = "usual_keep_rate")]
    #[schemars(range(min = 1, max = 1000000))]
    pub traces_per_second: u32,
    /// So many at once after a while without any.
    #[serde(default = "usual_keep_burst")]
    #[schemars(range(min = 1, max = 10000))]
    pub burst: u32,
}

words! {
    /// Why the proxy itself failed a request.
    pub enum ResponseFlag {
        /// no route for it.
        NoRoute = "no_route",
        /// no connection to the upstream.
        ConnectFailed = "connect_failed",
        /// none in time.
        ConnectTimeout = "connect_timeout",
        /// TLS to the upstream failed.
        TlsFailed = "tls_failed",
        /// the upstream is somebody else.
        IdentityMismatch = "identity_mismatch",
        /// the upstream reset it.
        UpstreamReset = "upstream_reset",
        /// the upstream closed the connection.
        UpstreamClosed = "upstream_closed",
        /// it took too long.
        RequestTimeout = "request_timeout",
        /// its last try took too long.
        AttemptTimeout = "attempt_timeout",
        /// nothing came for too long.
        IdleTimeout = "idle_timeout",
        /// the client gave up.
        ClientReset = "client_reset",
        /// it is no good HTTP.
        BadRequest = "bad_request",
        /// it is too large.
        TooLarge = "too_large",
        /// the proxy has too much to do.
        Overload = "overload",
        /// the proxy is about to end.
        Draining = "draining",
        /// it is not permitted.
        Denied = "denied",
        /// there were too many.
        RateLimited = "rate_limited",
        /// the upstream is not asked at present.
        CircuitOpen = "circuit_open",
        /// the upstream has no address that works.
        NoHealthyEndpoint = "no_healthy_endpoint",
        /// it was made to fail.
        FaultInjected = "fault_injected",
        /// the upstream's answer is no good HTTP.
        ProtocolError = "protocol_error",
    }
}

impl Default for KeepLimit {
    fn default() -> KeepLimit {
        KeepLimit { traces_per_second: usual_keep_rate(), burst: usual_keep_burst() }
    }
}

fn usual_floor() -> u32 {
    1
}

fn usual_min_probability() -> Probability {
    Probability("0.00001".into())
}

fn all() -> Probability {
    Probability("1".into())
}

fn one() -> u32 {
    1
}

fn usual_keep_rate() -> u32 {
    10
}

fn usual_keep_burst() -> u32 {
    100
}
