//! Which traces are kept, as it is written: the `defaults` of a sampling policy, and what is the proxy's alone. The same
//! plain types are built from the wire. What they mean: `rules/sampling` and `trace/sample`.

mod action;
mod check;
mod keep;
mod matches;

use super::grammar::Name;
use super::reader::Reader;
use super::schema::{Form, Kind, section, words};
use super::tree::Tree;

pub use action::{Adaptive, BoostAction, RateLimit, SamplingAction};
pub(super) use check::check;
pub use keep::{Keep, KeepLimit, KeepOn, StatusRange};
pub use matches::{BaggageMatch, GrpcMatch, HeaderMatch, Match, Party, PathKind, PathMatch};

section! {
    /// Which traces are kept.
    pub struct Sampling: Default {
        /// What a caller's decision counts for, where it is believed at all (`listeners[].trust`).
        parent: ParentDecision = ParentDecision::Respect,
        /// Traces that begin here, and all others whose caller's decision does not count.
        head: HeadSampling = HeadSampling::default(),
        /// Requests that are kept at their end, by what became of them: only the spans of this hop, since the others have decided already. At most 16; each is asked.
        keep: Vec<Keep> = Vec::new(),
        /// How many sampled spans this proxy may make in a second before it raises the thresholds of the traces that begin here; `off` is no bound. What a caller has decided is obeyed beyond it.
        guard: Guard = Guard::default(),
    }
    later {
        "collect": "leave it out: `keep` keeps the spans of this hop" empty;
    }
}

words! {
    /// What a caller's decision counts for.
    pub enum ParentDecision {
        /// It holds.
        Respect = "Respect",
        /// It is made anew, but for traces that somebody forced.
        Ignore = "Ignore",
    }
}

section! {
    /// Traces whose decision is made here.
    pub struct HeadSampling: Default {
        /// The first rule that matches decides. Where none does, all are kept, under the `guard`. At most 32.
        rules: Vec<HeadRule> = Vec::new(),
        /// Asked of every request, also of those whose caller has dropped them: one that matches may keep what was not kept so far, from here on. Such traces lack what went before. At most 16.
        boost: Vec<Boost> = Vec::new(),
    }
}

section! {
    /// A rule: which requests it is for, and what becomes of their traces.
    pub struct HeadRule {
        /// What spans, metrics and logs call it. Left out: its place, `head.rules[0]`.
        name: Option<String> as Option<Name>,
        /// Which requests it is for. Left out: all.
        match_ ("match"): Match = Match::default(),
        /// What becomes of their traces.
        action: SamplingAction,
    }
}

section! {
    /// A rule that only adds.
    pub struct Boost {
        /// What spans, metrics and logs call it. Left out: its place, `head.boost[0]`.
        name: Option<String> as Option<Name>,
        /// Which requests it is for. Left out: all.
        match_ ("match"): Match = Match::default(),
        /// How many of them are kept.
        action: BoostAction,
    }
}

/// Sampled spans in a second; `None` is no bound.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Guard(pub Option<f64>);

impl Default for Guard {
    fn default() -> Self {
        Self(Some(USUAL_GUARD))
    }
}

impl Form for Guard {
    type Plain = Guard;

    fn read(reader: &mut Reader, tree: &Tree) -> Option<Guard> {
        match tree {
            Tree::Text(word) | Tree::Word(word) if word == OFF => Some(Guard(None)),
            // YAML 1.1 reads `off` as no.
            Tree::Bool(false) => Some(Guard(None)),
            _ => super::grammar::Rate::read(reader, tree).map(|rate| Guard(Some(rate))),
        }
    }

    fn write(plain: &Guard) -> Tree {
        plain.0.map_or_else(|| Tree::text(OFF), |rate| super::grammar::Rate::write(&rate))
    }

    fn kind() -> Kind {
        Kind::Plain("spans per second, or `off`".into())
    }
}

const OFF: &str = "off";
/// Below 0.1 of a core for spans that nobody asked for, and far above what a person reads.
const USUAL_GUARD: f64 = 500.0;
