//! The resources that say how a mesh is traced: group `spanmesh.io`, version `v1alpha1`.
//!
//! A kind is a type here and nothing else: whoever reads one from a folder or from an API server asks `problems` what is
//! wrong with it, and turns it into what proxies understand. Neither files nor the wire are known here.

// Columns of one type are no repetition.
#![allow(clippy::duplicated_attributes)]

mod bounds;
mod capture;
mod definition;
mod destination;
mod grammar;
mod mesh;
mod problem;
pub mod problems;
mod propagation;
mod redaction;
mod reference;
mod sampling;
mod says;
mod shapes;
mod span;
mod status;
mod target;
mod value;
mod words;

pub use capture::{CapturePhase, TraceCapture, TraceCaptureSpec, TraceCaptureStatus};
pub use definition::{definitions, schema};
pub use destination::{
    Compression, Destination, FileTarget, Header, Only, OtlpEncoding, OtlpGrpc, OtlpHttp, Tls, Zipkin,
};
pub use mesh::{
    Budgets, Edge, MeshTracing, MeshTracingSpec, MeshTracingStatus, Safety, ServiceBudget, Trust, Untraced,
};
pub use problem::Problem;
pub use propagation::{Format, Propagation};
pub use redaction::{Attribute, Pattern, Redaction};
pub use reference::reference;
pub use sampling::{
    Action, Adaptive, BoostAction, BoostRule, GrpcMatch, GrpcStatus, Head, HeadRule, Keep, KeepLimit, KeepOn, Latency,
    Match, Parent, Party, PathKind, PathMatch, RateLimit, ResponseFlag, Retries, Sampling, SamplingPolicy,
    SamplingPolicySpec, Strategy, ValueMatch,
};
pub use span::{SpanPolicy, SpanPolicySpec};
pub use status::{AncestorRef, AncestorStatus, PolicyStatus};
pub use target::{TargetKind, TargetRef};
pub use value::{Empty, Period, Probability, StatusRange};

pub const GROUP: &str = "spanmesh.io";
pub const VERSION: &str = "v1alpha1";
pub const CONTROLLER: &str = "spanmesh.io/controller";
