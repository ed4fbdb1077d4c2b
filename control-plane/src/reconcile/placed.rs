//! From which picture on each resource is as it is now: a proxy that has that one, or a later one, decides by it.

use std::collections::HashMap;

use crate::cluster::{Meta, Resource};
use crate::picture::Picture;
use crate::source::kube::Kind;
use crate::source::kube::object::Name;

#[derive(Default)]
pub struct Placed {
    at: HashMap<(Kind, Name), (Meta, u64)>,
}

impl Placed {
    /// Pictures may be left out: then it is said later, and never too early.
    pub fn follow(&mut self, picture: &Picture) {
        let cluster = &picture.cluster;
        let mut at = HashMap::with_capacity(self.at.len());
        let mut put = |kind: Kind, meta: &Meta| {
            let key = (kind, Name { namespace: meta.namespace.clone(), name: meta.name.clone() });
            let before = self.at.get(&key).filter(|(before, _)| before == meta).map(|(_, version)| *version);
            at.insert(key, (meta.clone(), before.unwrap_or(picture.version)));
        };
        each(&cluster.sampling, |meta| put(Kind::SamplingPolicy, meta));
        each(&cluster.spans, |meta| put(Kind::SpanPolicy, meta));
        each(&cluster.captures, |meta| put(Kind::TraceCapture, meta));
        each(cluster.mesh.as_slice(), |meta| put(Kind::MeshTracing, meta));
        self.at = at;
    }

    /// The picture, if there is one with this generation.
    pub fn version(&self, kind: Kind, name: &Name, generation: u64) -> Option<u64> {
        let (meta, version) = self.at.get(&(kind, name.clone()))?;
        (meta.generation == generation).then_some(*version)
    }
}

fn each<Spec>(resources: &[Resource<Spec>], mut put: impl FnMut(&Meta)) {
    resources.iter().for_each(|resource| put(&resource.meta));
}
