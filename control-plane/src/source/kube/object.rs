//! An object as the API server has it, as far as anybody here wants to know, and what it says if it is one of ours.

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use spanmesh_crds::{self as crds, Problem};

use super::Kind;
use crate::cluster::Meta;
use crate::source::document::{Spec, seconds};

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub struct Object {
    pub metadata: Metadata,
    #[serde(default)]
    pub spec: Value,
    #[serde(default)]
    pub status: Value,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Metadata {
    pub name: String,
    pub namespace: String,
    pub uid: String,
    pub resource_version: String,
    pub generation: u64,
    pub creation_timestamp: String,
}

/// What tells objects of one kind apart.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name {
    pub namespace: String,
    pub name: String,
}

/// Has a name.
pub trait Named {
    fn name(&self) -> Name;
}

impl Named for Object {
    fn name(&self) -> Name {
        self.metadata.full()
    }
}

impl Metadata {
    pub fn full(&self) -> Name {
        Name { namespace: self.namespace.clone(), name: self.name.clone() }
    }

    pub fn meta(&self) -> Meta {
        Meta {
            created: seconds(&self.creation_timestamp),
            namespace: self.namespace.clone(),
            name: self.name.clone(),
            generation: self.generation,
        }
    }
}

impl Object {
    /// Asked in the same way as of a document in a folder.
    pub fn says(&self, kind: Kind) -> Result<Spec, Vec<String>> {
        let Metadata { name, namespace, .. } = &self.metadata;
        match kind {
            Kind::MeshTracing => self.judged(Spec::MeshTracing, |spec| crds::problems::mesh_tracing(name, spec)),
            Kind::SamplingPolicy => {
                self.judged(Spec::SamplingPolicy, |spec| crds::problems::sampling_policy(namespace, spec))
            }
            Kind::SpanPolicy => self.judged(Spec::SpanPolicy, |spec| crds::problems::span_policy(namespace, spec)),
            Kind::TraceCapture => {
                self.judged(Spec::TraceCapture, |spec| crds::problems::trace_capture(namespace, spec))
            }
        }
    }

    fn judged<S: DeserializeOwned>(
        &self,
        wrap: fn(S) -> Spec,
        problems: impl FnOnce(&S) -> Vec<Problem>,
    ) -> Result<Spec, Vec<String>> {
        let spec: S = serde_json::from_value(self.spec.clone()).map_err(|error| vec![format!("spec: {error}")])?;
        let problems = problems(&spec);
        if problems.is_empty() { Ok(wrap(spec)) } else { Err(problems.iter().map(Problem::to_string).collect()) }
    }
}
