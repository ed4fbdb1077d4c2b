//! The resources that say how a mesh is traced: group `spanmesh.io`, version `v1alpha1`.
//!
//! A kind is a type here and nothing else: whoever reads one from a folder or from an API server asks `problems` what is
//! wrong with it, and turns it into what proxies understand. Neither files nor the wire are known here.

mod capture;
mod destination;
mod mesh;
mod propagation;
mod redaction;
mod sampling;
mod schema;
mod span;
mod status;
mod target;
mod value;
mod words;

pub use capture::{CapturePhase, TraceCapture, TraceCaptureSpec, TraceCaptureStatus};
pub use destination::{
    Compression, Destination, FileTarget, Header, Only, OtlpEncoding, OtlpGrpc, OtlpHttp, Tls, Zipkin,
};
pub use mesh::{
    AccessLog, Budgets, Edge, LoggedRequests, MeshTracing, MeshTracingSpec, MeshTracingStatus, Safety, ServiceBudget,
    Trust, Untraced,
};
pub use propagation::{Format, Propagation};
pub use redaction::{Attribute, Pattern, Redaction};
pub use sampling::{
    Action, Adaptive, BoostAction, BoostRule, GrpcMatch, Head, HeadRule, Keep, KeepLimit, KeepOn, Latency, Match,
    Parent, Party, PathKind, PathMatch, RateLimit, ResponseFlag, Retries, Sampling, SamplingPolicy, SamplingPolicySpec,
    Strategy, ValueMatch,
};
pub use span::{SpanPolicy, SpanPolicySpec};
pub use status::{AncestorRef, AncestorStatus, PolicyStatus};
pub use target::{TargetKind, TargetRef};
pub use value::{Empty, Period, Probability, StatusRange};

pub const GROUP: &str = "spanmesh.io";
pub const VERSION: &str = "v1alpha1";
pub const CONTROLLER: &str = "spanmesh.io/controller";
