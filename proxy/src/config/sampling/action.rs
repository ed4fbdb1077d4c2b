//! What becomes of traces: exactly one of several actions.

use crate::config::grammar::{Probability, Rate};
use crate::config::reader::Reader;
use crate::config::schema::{Form, Kind, section};
use crate::config::tree::Tree;

/// What becomes of traces.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum SamplingAction {
    Always,
    Never,
    /// Above 0 and at most 1.
    Probability(f64),
    RateLimit(RateLimit),
    Adaptive(Adaptive),
}

/// How many a boost keeps.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum BoostAction {
    Always,
    /// Above 0 and at most 1.
    Probability(f64),
}

section! {
    /// As many of the traces as fit a rate, evenly chosen: the threshold follows the requests.
    pub struct RateLimit: Copy {
        /// Traces in a second. Of the whole mesh, where a control plane shares them out; else of this proxy.
        traces_per_second: f64 as Rate,
        /// Traces that may be kept beyond it after a quiet time.
        burst: u32 [1u32 ..= 10_000u32] = 10,
        /// Each proxy has the whole rate.
        per_proxy: bool = false,
    }
}

section! {
    /// As many of the traces as fit a budget of spans. Each operation (route, method of gRPC, or method and template of the path) has a threshold of its own, so that a rare one is not starved by a busy one.
    pub struct Adaptive: Copy {
        /// Spans in a second. Of the whole mesh, where a control plane shares them out; else of this proxy.
        spans_per_second: f64 as Rate,
        /// Traces in a minute that each operation has whatever the budget.
        min_traces_per_minute: f64 as Rate = 1.0,
        /// No operation's share is below it.
        min_probability: f64 as Probability = 0.00001,
    }
}

section! {
    /// One of `always`, `never`, `probability`, `rateLimit` and `adaptive`.
    pub struct WrittenAction {
        /// All are kept.
        always: Option<NoFields>,
        /// None is kept.
        never: Option<NoFields>,
        /// This part of them is kept, on every hop the same ones; what is set with it is told in tracestate as `ot=th:…`.
        probability: Option<f64> as Option<Probability>,
        /// As many are kept as fit a rate of traces.
        rate_limit: Option<RateLimit>,
        /// As many are kept as fit a budget of spans.
        adaptive: Option<Adaptive>,
    }
}

section! {
    /// One of `always` and `probability`.
    pub struct WrittenBoost {
        /// All are kept.
        always: Option<NoFields>,
        /// This part of them is kept.
        probability: Option<f64> as Option<Probability>,
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
        let said = [
            written.always.map(|_| SamplingAction::Always),
            written.never.map(|_| SamplingAction::Never),
            written.probability.map(SamplingAction::Probability),
            written.rate_limit.map(SamplingAction::RateLimit),
            written.adaptive.map(SamplingAction::Adaptive),
        ];
        let right = "write `always: {}`, `never: {}`, `probability: \"0.05\"`, `rateLimit: {tracesPerSecond: 5}` or `adaptive: {spansPerSecond: 100}`";
        one_of(reader, clean, said, right)
    }

    fn write(plain: &SamplingAction) -> Tree {
        let mut written =
            WrittenAction { always: None, never: None, probability: None, rate_limit: None, adaptive: None };
        match *plain {
            SamplingAction::Always => written.always = Some(NoFields {}),
            SamplingAction::Never => written.never = Some(NoFields {}),
            SamplingAction::Probability(part) => written.probability = Some(part),
            SamplingAction::RateLimit(limit) => written.rate_limit = Some(limit),
            SamplingAction::Adaptive(adaptive) => written.adaptive = Some(adaptive),
        }
        WrittenAction::write(&written)
    }

    fn kind() -> Kind {
        WrittenAction::kind()
    }
}

impl Form for BoostAction {
    type Plain = BoostAction;

    fn read(reader: &mut Reader, tree: &Tree) -> Option<BoostAction> {
        let clean = reader.count();
        let written = WrittenBoost::read(reader, tree)?;
        let said = [written.always.map(|_| BoostAction::Always), written.probability.map(BoostAction::Probability)];
        one_of(reader, clean, said, "write `always: {}` or `probability: \"0.5\"`")
    }

    fn write(plain: &BoostAction) -> Tree {
        let (always, probability) = match *plain {
            BoostAction::Always => (Some(NoFields {}), None),
            BoostAction::Probability(part) => (None, Some(part)),
        };
        WrittenBoost::write(&WrittenBoost { always, probability })
    }

    fn kind() -> Kind {
        WrittenBoost::kind()
    }
}

/// The one thing that is said. What is wrong with others was told already if there is more in the reader than `clean`.
pub(super) fn one_of<T, const N: usize>(
    reader: &mut Reader,
    clean: usize,
    said: [Option<T>; N],
    right: &str,
) -> Option<T> {
    let mut said = said.into_iter().flatten();
    match (said.next(), said.next()) {
        (Some(one), None) => Some(one),
        (None, _) if reader.count() > clean => None,
        (None, _) => reader.wrong("says nothing", right),
        (Some(_), Some(_)) => reader.wrong("says several things", "keep one of them"),
    }
}
