//! Where resources come from. A source is the only reader of its kind of store; what it makes is a [`Cluster`], and a
//! verdict for each resource that it found.

pub mod dir;
mod document;
pub mod kube;

use std::sync::Arc;

use serde_json::Value;

use crate::cluster::{Cluster, Meta, Resource};
use document::Spec;
pub use document::written;

/// A cluster, and what became of each resource in it.
#[derive(Clone, Debug, Default)]
pub struct Reading {
    pub cluster: Arc<Cluster>,
    pub verdicts: Arc<Vec<Verdict>>,
}

impl Reading {
    /// What a control plane shows on its page `/sampling`. What a newer one has and this version does not know is refused.
    pub fn shown(page: &Value) -> Option<Self> {
        let (mut cluster, mut verdicts) = (Cluster::default(), Vec::new());
        for item in page["items"].as_array()? {
            for found in document::read(&item.to_string()) {
                let document::Identity { kind, namespace, name } = found.identity;
                let generation = item["metadata"]["generation"].as_u64().unwrap_or_default();
                let meta = Meta { created: found.created, namespace, name, generation };
                match found.spec {
                    Some(Ok(spec)) => cluster.add(meta, spec),
                    Some(Err(problems)) => verdicts.push(Verdict {
                        kind,
                        namespace: meta.namespace,
                        name: meta.name,
                        generation,
                        place: "/sampling".into(),
                        accepted: false,
                        problems,
                        before: false,
                    }),
                    None => {}
                }
            }
        }
        cluster.sort();
        Some(Self { cluster: Arc::new(cluster), verdicts: Arc::new(verdicts) })
    }
}

impl Cluster {
    fn add(&mut self, meta: Meta, spec: Spec) {
        match spec {
            Spec::MeshTracing(spec) => self.mesh = Some(Resource { meta, spec }),
            Spec::SamplingPolicy(spec) => self.sampling.push(Resource { meta, spec }),
            Spec::SpanPolicy(spec) => self.spans.push(Resource { meta, spec }),
            Spec::TraceCapture(spec) => self.captures.push(Resource { meta, spec }),
        }
    }
}

/// What became of one resource, or of a file that holds none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    pub kind: String,
    pub namespace: String,
    pub name: String,
    pub generation: u64,
    /// Where it stands: a file and a line, or an object of an API server.
    pub place: String,
    pub accepted: bool,
    /// For people: what is wrong and what to do. Of an accepted one: what of it does not count.
    pub problems: Vec<String>,
    /// It is refused, and what was there before goes on in its place.
    pub before: bool,
}
