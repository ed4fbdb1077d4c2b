//! Which traces are kept, as it is written: the `defaults` of a sampling policy. What it means: `trace/sample`.

use super::grammar::Probability;
use super::reader::Reader;
use super::schema::{Form, Kind, section, words};
use super::tree::Tree;

section! {
    /// Which traces are kept.
    pub struct Sampling: Default {
        /// What a caller's decision counts for, where it is believed at all (`listeners[].trust`).
        parent: ParentDecision = ParentDecision::Respect,
        /// Traces that begin here, and all others whose caller's decision does not count.
        head: HeadSampling = HeadSampling::default(),
    }
    later {
        "keep": "leave it out: this version decides where a trace begins" empty;
        "collect": "leave it out: this version decides where a trace begins" empty;
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
        /// The first rule that matches decides. Without a rule all are kept.
        rules: Vec<HeadRule> = Vec::new(),
    }
    later {
        "boost": "leave it out: this version has one rule for all traces" empty;
    }
}

section! {
    /// A rule, which holds for every trace.
    pub struct HeadRule {
        /// What becomes of them.
        action: SamplingAction,
    }
    later {
        "name": "leave it out: this version has one rule for all traces";
        "match": "leave it out: this version has one rule for all traces" empty;
    }
}

/// What becomes of traces.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum SamplingAction {
    Always,
    Never,
    /// Above 0 and at most 1.
    Probability(f64),
}

section! {
    /// One of `always`, `never` and `probability`.
    pub struct WrittenAction {
        /// All are kept.
        always: Option<NoFields>,
        /// None is kept.
        never: Option<NoFields>,
        /// This part of them is kept, on every hop the same ones; what is set with it is told in tracestate as `ot=th:…`.
        probability: Option<f64> as Option<Probability>,
    }
    later {
        "rateLimit": "write `probability: \"0.05\"`";
        "adaptive": "write `probability: \"0.05\"`";
    }
}

section! {
    /// Has no fields.
    pub struct NoFields: Default {}
}

impl Form for SamplingAction {
    type Plain = SamplingAction;

    fn read(reader: &mut Reader, tree: &Tree) -> Option<SamplingAction> {
        let clean = reader.count();
        let written = WrittenAction::read(reader, tree)?;
        match (written.always, written.never, written.probability) {
            (Some(_), None, None) => Some(SamplingAction::Always),
            (None, Some(_), None) => Some(SamplingAction::Never),
            (None, None, Some(probability)) => Some(SamplingAction::Probability(probability)),
            // What is wrong was said already.
            (None, None, None) if reader.count() > clean => None,
            (None, None, None) => {
                reader.wrong("says nothing", "write `always: {}`, `never: {}` or `probability: \"0.05\"`")
            }
            _ => reader.wrong("says several things", "keep one of `always`, `never` and `probability`"),
        }
    }

    fn write(plain: &SamplingAction) -> Tree {
        let (always, never, probability) = match plain {
            SamplingAction::Always => (Some(NoFields {}), None, None),
            SamplingAction::Never => (None, Some(NoFields {}), None),
            SamplingAction::Probability(probability) => (None, None, Some(*probability)),
        };
        WrittenAction::write(&WrittenAction { always, never, probability })
    }

    fn kind() -> Kind {
        WrittenAction::kind()
    }
}
