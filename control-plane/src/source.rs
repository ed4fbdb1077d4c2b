//! Where resources come from. A source is the only reader of its kind of store; what it makes is a [`Cluster`], and a
//! verdict for each resource that it found.

pub mod dir;
mod document;
pub mod kube;

use std::sync::Arc;

use crate::cluster::Cluster;

/// A cluster, and what became of each resource in it.
#[derive(Clone, Debug, Default)]
pub struct Reading {
    pub cluster: Arc<Cluster>,
    pub verdicts: Arc<Vec<Verdict>>,
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
