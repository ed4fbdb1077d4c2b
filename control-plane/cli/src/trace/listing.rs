//! A trace, or several, for scripts: the same facts as JSON, as YAML and as a table.

use serde_json::{Value, json};
use spanmesh_proto::TraceId;

use super::span::Span;
use super::tree::{Node, Tree};
use super::waterfall::{duration, utc};
use crate::output::aligned;
use crate::terminal::tame;

/// How it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    /// Drawn, for people.
    Waterfall,
    Json,
    Yaml,
    Table,
}

impl Output {
    pub const WORDS: [&str; 4] = ["waterfall", "json", "yaml", "table"];

    pub fn parse(word: &str) -> Option<Self> {
        match word {
            "waterfall" => Some(Self::Waterfall),
            "json" => Some(Self::Json),
            "yaml" => Some(Self::Yaml),
            "table" => Some(Self::Table),
            _ => None,
        }
    }
}

/// One trace with all its spans.
pub fn trace(tree: &Tree) -> Value {
    let trace = tree.nodes.first().map(|node| node.span.trace.to_string());
    json!({
        "traceId": trace,
        "startUnixNano": tree.start,
        "durationNano": tree.duration(),
        "services": tree.services(),
        "spans": tree.nodes.iter().map(|node| span(tree, node)).collect::<Vec<_>>(),
    })
}

fn span(tree: &Tree, node: &Node) -> Value {
    let span = &node.span;
    let critical: u64 = node.critical.iter().map(|(from, to)| to - from).sum();
    json!({
        "spanId": span.id.to_string(),
        "parentSpanId": span.parent.map(|id| id.to_string()),
        "parentMissing": node.orphan,
        "depth": node.depth,
        "service": span.service,
        "name": span.name,
        "kind": span.kind.name(),
        "offsetNano": node.start.saturating_sub(tree.start),
        "durationNano": span.duration(),
        "criticalNano": critical,
        "clockShiftNano": node.shift,
        "error": span.reason(),
        "retry": span.retry(),
        "attributes": span.attributes.iter().cloned().collect::<serde_json::Map<_, _>>(),
    })
}

pub fn table(tree: &Tree) -> String {
    let mut rows = vec![
        ["SPAN", "PARENT", "SERVICE", "KIND", "NAME", "START", "DURATION", "CRITICAL", "RETRY", "ERROR"]
            .map(str::to_owned)
            .to_vec(),
    ];
    for node in &tree.nodes {
        let critical: u64 = node.critical.iter().map(|(from, to)| to - from).sum();
        rows.push(vec![
            node.span.id.to_string(),
            node.span.parent.map_or("-".into(), |id| id.to_string()),
            tame(&node.span.service),
            node.span.kind.name().into(),
            tame(&node.span.name),
            duration(node.start.saturating_sub(tree.start)),
            duration(node.span.duration()),
            if critical == 0 { "-".into() } else { duration(critical) },
            node.span.retry().map_or("-".into(), |count| count.to_string()),
            node.span.reason().map_or("-".into(), |reason| tame(&reason)),
        ]);
    }
    aligned(&rows)
}

/// What there is to say of each of several traces.
pub fn summaries(traces: &[(TraceId, Vec<Span>)]) -> Vec<Value> {
    let summary = |(trace, spans): &(TraceId, Vec<Span>)| {
        let tree = Tree::new(spans.clone());
        let first = tree.nodes.first().map(|node| &node.span);
        json!({
            "traceId": trace.to_string(),
            "startUnixNano": tree.start,
            "durationNano": tree.duration(),
            "service": first.map(|span| span.service.clone()),
            "name": first.map(|span| span.name.clone()),
            "services": tree.services(),
            "spans": tree.nodes.len(),
            "errors": tree.nodes.iter().filter(|node| node.span.failed.is_some()).count(),
        })
    };
    traces.iter().map(summary).collect()
}

pub fn summary_table(summaries: &[Value]) -> String {
    let mut rows = vec![
        ["TRACE", "START", "DURATION", "SERVICE", "NAME", "SERVICES", "SPANS", "ERRORS"].map(str::to_owned).to_vec(),
    ];
    for row in summaries {
        let number = |name: &str| row[name].as_u64().unwrap_or_default();
        let text = |name: &str| tame(row[name].as_str().unwrap_or_default());
        rows.push(vec![
            text("traceId"),
            utc(number("startUnixNano")),
            duration(number("durationNano")),
            text("service"),
            text("name"),
            number("services").to_string(),
            number("spans").to_string(),
            number("errors").to_string(),
        ]);
    }
    aligned(&rows)
}
