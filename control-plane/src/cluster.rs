//! The cluster as the control plane sees it: resources that were accepted, in plain structs. Where they come from and how
//! they travel is not known here.

use std::sync::Arc;

use spanmesh_crds::{MeshTracingSpec, SamplingPolicySpec, SpanPolicySpec, TargetKind, TargetRef, TraceCaptureSpec};

use crate::picture::Seat;
use crate::workloads::Workloads;

/// A resource's name and age.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Meta {
    /// When it was made, in seconds since 1970; the older one wins a conflict.
    pub created: i64,
    pub namespace: String,
    pub name: String,
    /// Grows with each change of the resource.
    pub generation: u64,
}

impl Meta {
    /// As spans name it.
    pub fn full_name(&self) -> String {
        if self.namespace.is_empty() { self.name.clone() } else { format!("{}/{}", self.namespace, self.name) }
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct Resource<Spec> {
    pub meta: Meta,
    pub spec: Spec,
}

/// All lists are in the order of age and name.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Cluster {
    pub mesh: Option<Resource<MeshTracingSpec>>,
    pub sampling: Vec<Resource<SamplingPolicySpec>>,
    pub spans: Vec<Resource<SpanPolicySpec>>,
    pub captures: Vec<Resource<TraceCaptureSpec>>,
    pub workloads: Arc<Workloads>,
}

impl Cluster {
    pub fn sort(&mut self) {
        self.sampling.sort_by(|a, b| a.meta.cmp(&b.meta));
        self.spans.sort_by(|a, b| a.meta.cmp(&b.meta));
        self.captures.sort_by(|a, b| a.meta.cmp(&b.meta));
    }
}

/// How specific a policy is for a proxy: the later ones win.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    Namespace,
    /// A workload, its account or its service; a gateway.
    Workload,
    /// Requests of one route.
    Route,
}

/// How a target concerns a proxy, if it does. A policy's targets are all in its own namespace.
pub fn concerns(target: &TargetRef, namespace: &str, seat: &Seat) -> Option<Level> {
    let is = |name: &str, level: Level| (target.name == name).then_some(level);
    if namespace != seat.namespace {
        return None;
    }
    match target.kind {
        TargetKind::Namespace => is(namespace, Level::Namespace),
        TargetKind::Service => seat.is_of(&target.name).then_some(Level::Workload),
        TargetKind::Deployment | TargetKind::StatefulSet => is(&seat.workload, Level::Workload),
        TargetKind::ServiceAccount => is(&seat.service_account, Level::Workload),
        TargetKind::Gateway => (seat.role == GATEWAY).then(|| is(&seat.service, Level::Workload)).flatten(),
        // Only its own proxies know their routes: one that has none of this name never asks.
        TargetKind::HttpRoute | TargetKind::GrpcRoute => Some(Level::Route),
    }
}

pub const GATEWAY: &str = "gateway";
