//! The latest traces, in memory and bounded: the oldest go first.

use std::collections::{HashMap, HashSet, VecDeque};

use spanmesh_proto::{SpanId, TraceId};

use super::mesh;
use crate::trace::span::{Kind, Span};

#[derive(Default)]
pub struct Store {
    traces: HashMap<TraceId, Vec<Span>>,
    order: VecDeque<TraceId>,
    /// All that ever came.
    pub spans: u64,
    /// Of traces that were too long.
    pub dropped: u64,
}

impl Store {
    pub fn add(&mut self, spans: Vec<Span>) {
        for span in spans {
            self.spans += 1;
            let trace = span.trace;
            let held = self.traces.entry(trace).or_insert_with(|| {
                self.order.push_back(trace);
                Vec::new()
            });
            match held.len() < SPANS {
                true => held.push(span),
                false => self.dropped += 1,
            }
        }
        while self.order.len() > TRACES {
            if let Some(oldest) = self.order.pop_front() {
                self.traces.remove(&oldest);
            }
        }
    }

    pub fn trace(&self, trace: TraceId) -> Option<&Vec<Span>> {
        self.traces.get(&trace)
    }

    /// The newest last.
    pub fn latest(&self, count: usize) -> impl Iterator<Item = &Vec<Span>> {
        let skipped = self.order.len().saturating_sub(count);
        self.order.iter().skip(skipped).filter_map(|trace| self.traces.get(trace))
    }

    pub fn all(&self) -> impl Iterator<Item = &Vec<Span>> {
        self.latest(TRACES)
    }

    /// The first trace that came in whole.
    pub fn whole(&self) -> Option<&Vec<Span>> {
        self.all().find(|spans| whole(spans))
    }

    /// The services that spans came from.
    pub fn services(&self) -> HashSet<&str> {
        self.all().flatten().map(|span| span.service.as_str()).collect()
    }
}

/// One root, no parent that is missing, each call seen from both sides, and every service in it.
fn whole(spans: &[Span]) -> bool {
    let ids: HashSet<SpanId> = spans.iter().map(|span| span.id).collect();
    let answered: HashSet<SpanId> =
        spans.iter().filter(|span| span.kind == Kind::Server).filter_map(|span| span.parent).collect();
    let served = |name: &str| spans.iter().any(|span| span.kind == Kind::Server && span.service == name);
    let calls = |name: &str| spans.iter().filter(|span| span.kind == Kind::Client && span.service == name).count();
    let roots = spans.iter().filter(|span| span.parent.is_none()).count();
    roots == 1
        && spans.iter().filter_map(|span| span.parent).all(|parent| ids.contains(&parent))
        && spans.iter().filter(|span| span.kind == Kind::Client).all(|span| answered.contains(&span.id))
        && mesh::NAMES.iter().chain([&mesh::EDGE]).all(|name| served(name))
        && mesh::SERVICES.iter().all(|service| calls(service.name) >= service.calls.len())
}

const TRACES: usize = 1000;
const SPANS: usize = 1000;
