//! One target for each parser of outside bytes, in the form of the proxy's (`spanmesh_proxy::fuzz`). What was read goes on to a
//! terminal, so it is drawn and listed as well.

use spanmesh_proxy::fuzz::Target;

use crate::terminal::steers;
use crate::trace::listing;
use crate::trace::span::{Span, by_trace};
use crate::trace::tree::Tree;
use crate::trace::waterfall::{self, Look};
use crate::trace::{command, proto, read};

pub static TARGETS: &[Target] = &[("trace_json", read::fuzz_read), ("trace_otlp", proto::fuzz_decode)];

/// Spans of any making can be shown in every form: none is lost, JSON is JSON, and no character steers the terminal.
pub(crate) fn show(spans: Vec<Span>) {
    let traces = by_trace(spans);
    let summaries = listing::summaries(&traces);
    check(&listing::summary_table(&summaries));
    check_data(&summaries.into());
    for (_, spans) in traces {
        let told = spans.len();
        let tree = Tree::new(spans);
        assert_eq!(tree.nodes.len() + tree.repeated, told);
        for (width, most) in [(20, 2), (80, 200), (400, usize::MAX)] {
            check(&waterfall::draw(&tree, Look { width, colours: false, most }));
        }
        check(&listing::table(&tree));
        check_data(&listing::trace(&tree));
    }
}

fn check(shown: &str) {
    let found = shown.chars().find(|c| steers(*c) && *c != '\n');
    assert_eq!(found, None, "{shown:?}");
}

fn check_data(value: &serde_json::Value) {
    let text = command::json(value);
    check(&text);
    assert!(serde_json::from_str::<serde_json::Value>(&text).is_ok(), "{text}");
    check(&command::yaml(value).unwrap_or_default());
}
