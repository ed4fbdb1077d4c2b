//! What a policy is for: references as GEP-713 has them, always within the policy's own namespace.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::says::{self, cel};
use crate::words::words;

/// What a policy is for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("x-kubernetes-validations" = cel(&[says::GROUP, says::SECTION])))]
pub struct TargetRef {
    /// The group of its kind: empty for Namespace, Service and ServiceAccount, `apps` for Deployment and StatefulSet,
    /// `gateway.networking.k8s.io` for Gateway, HTTPRoute and GRPCRoute.
    #[serde(default)]
    #[schemars(length(max = 63))]
    pub group: String,
    pub kind: TargetKind,
    /// Its name. It is in the policy's own namespace, or is that namespace.
    #[schemars(length(min = 1, max = 253), extend("x-kubernetes-validations" = cel(&[says::OBJECT])))]
    pub name: String,
    /// A part of it: a Gateway's listener, or a rule of an HTTPRoute or GRPCRoute. Empty: all of it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 253), extend("default" = ""))]
    pub section_name: String,
}

words! {
    /// What it is.
    pub enum TargetKind {
        /// the policy's own namespace, and all that is in it.
        Namespace = "Namespace",
        /// the service, and its callers' calls to it.
        Service = "Service",
        /// the workload's proxies.
        Deployment = "Deployment",
        /// the workload's proxies.
        StatefulSet = "StatefulSet",
        /// the proxies of the pods that run as it.
        ServiceAccount = "ServiceAccount",
        /// the gateway's proxies.
        Gateway = "Gateway",
        /// the requests of the route, and its callers' calls.
        HttpRoute = "HTTPRoute",
        /// the calls of the route, and its callers' calls.
        GrpcRoute = "GRPCRoute",
    }
}

impl TargetKind {
    pub fn group(self) -> &'static str {
        match self {
            TargetKind::Namespace | TargetKind::Service | TargetKind::ServiceAccount => "",
            TargetKind::Deployment | TargetKind::StatefulSet => "apps",
            TargetKind::Gateway | TargetKind::HttpRoute | TargetKind::GrpcRoute => "gateway.networking.k8s.io",
        }
    }

    pub fn has_sections(self) -> bool {
        matches!(self, TargetKind::Gateway | TargetKind::HttpRoute | TargetKind::GrpcRoute)
    }
}
