//! How often the API server was asked, and what came of it: for metrics.

use std::sync::atomic::{AtomicU64, Ordering};

use super::{Failure, Verb};

#[derive(Debug, Default)]
pub struct Counts {
    counts: [[AtomicU64; OUTCOMES.len()]; VERBS.len()],
}

impl Counts {
    pub fn add(&self, verb: Verb, failure: Option<&Failure>) {
        let outcome = failure.map_or(0, place);
        let verb = VERBS.iter().position(|one| *one == verb);
        if let Some(count) = verb.and_then(|verb| self.counts.get(verb)?.get(outcome)) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Verb, outcome and how often, of those that were there at all.
    pub fn all(&self) -> impl Iterator<Item = (String, &'static str, u64)> {
        let of = |(verb, counts): (&Verb, &[AtomicU64; OUTCOMES.len()])| {
            let verb = format!("{verb:?}").to_lowercase();
            let counts: Vec<u64> = counts.iter().map(|count| count.load(Ordering::Relaxed)).collect();
            OUTCOMES.into_iter().zip(counts).map(move |(outcome, count)| (verb.clone(), outcome, count))
        };
        VERBS.iter().zip(&self.counts).flat_map(of).filter(|(_, _, count)| *count > 0)
    }
}

fn place(failure: &Failure) -> usize {
    match failure {
        Failure::Expired => 1,
        Failure::Conflict => 2,
        Failure::Missing => 3,
        Failure::Busy(_) => 4,
        Failure::Forbidden(_) => 5,
        Failure::Refused(_) => 6,
        Failure::Away(_) => 7,
    }
}

const VERBS: [Verb; 6] = [Verb::Get, Verb::List, Verb::Watch, Verb::Create, Verb::Update, Verb::Patch];
const OUTCOMES: [&str; 8] = ["done", "expired", "conflict", "missing", "busy", "forbidden", "refused", "away"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_counted_by_verb_and_outcome() {
        let counts = Counts::default();
        counts.add(Verb::List, None);
        counts.add(Verb::List, None);
        counts.add(Verb::Patch, Some(&Failure::Away("x".into())));
        let all: Vec<_> = counts.all().collect();
        assert_eq!(all, [("list".into(), "done", 2), ("patch".into(), "away", 1)]);
    }
}
