//! What one rule says of another: names, and rules that nothing ever reaches.

use super::{Match, Sampling};
use crate::config::reader::Reader;

pub fn check(reader: &mut Reader, sampling: &Sampling) {
    reader.field("head", |reader| {
        at_most(reader, "rules", sampling.head.rules.len(), RULES);
        at_most(reader, "boost", sampling.head.boost.len(), OTHERS);
        let mut all: Option<usize> = None;
        let mut names = Vec::new();
        reader.each("rules", &sampling.head.rules, |reader, index, rule| {
            if let Some(first) = all {
                let wrong = format!("is never asked: head.rules[{first}] decides on every trace");
                reader.wrong::<()>(wrong, "move it above that one, or give that one a `match`");
            } else if rule.match_.is_empty() {
                all = Some(index);
            }
            named(reader, &mut names, rule.name.as_deref(), &rule.match_);
        });
        reader.each("boost", &sampling.head.boost, |reader, _, boost| {
            named(reader, &mut names, boost.name.as_deref(), &boost.match_);
        });
    });
    at_most(reader, "keep", sampling.keep.len(), OTHERS);
    let mut names = Vec::new();
    reader.each("keep", &sampling.keep, |reader, _, keep| {
        named(reader, &mut names, keep.name.as_deref(), &Match::default());
    });
}

fn at_most(reader: &mut Reader, list: &str, length: usize, most: usize) {
    if length > most {
        reader.wrong_field(list, format!("has {length} of them"), format!("write at most {most}"));
    }
}

/// Whoever reads a name must know which rule it is.
fn named<'a>(reader: &mut Reader, names: &mut Vec<&'a str>, name: Option<&'a str>, matches: &Match) {
    if let Some(name) = name {
        if names.contains(&name) {
            reader.wrong_field("name", format!("`{name}` is the name of a rule above"), "give it a name of its own");
        }
        names.push(name);
    }
    reader.field("match", |reader| {
        at_most(reader, "headers", matches.headers.len(), FIELDS);
        at_most(reader, "baggage", matches.baggage.len(), FIELDS);
        for (party, given) in [("source", &matches.source), ("destination", &matches.destination)] {
            if given.as_ref().is_some_and(|party| party.service.is_none() && party.namespace.is_none()) {
                reader.wrong_field(party, "asks for nothing", "write `service` or `namespace`, or leave it out");
            }
        }
    });
}

/// The bounds of the resource that a control plane reads.
const RULES: usize = 32;
const OTHERS: usize = 16;
const FIELDS: usize = 8;
