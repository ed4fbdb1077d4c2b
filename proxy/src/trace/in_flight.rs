//! Requests that an application is working on, so that one which it sends without a context can be told to belong to
//! the only one it can come from. Upgrades are never entered, and what lasts longer than five seconds counts no more:
//! a stream is always there, and says nothing. Shared by the workers of a sidecar, whose inbound and outbound sides may
//! be on different ones.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use spanmesh_proto::SpanId;
use tokio::time::Instant;

use super::context::TraceContext;

/// Clones share.
#[derive(Clone, Default)]
pub struct InFlight(Arc<Mutex<Table>>);

/// A request, until this is dropped.
pub struct Ticket {
    number: u64,
    owner: InFlight,
}

/// Whom a request without a context can come from.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Origin {
    Nobody,
    One(TraceContext, SpanId),
    Several,
}

#[derive(Default)]
struct Table {
    /// In the order of their numbers, and so of their beginnings.
    entries: VecDeque<Entry>,
    next: u64,
    /// When one found no room.
    overflowed: Option<Instant>,
}

struct Entry {
    number: u64,
    began: Instant,
    context: TraceContext,
    span: SpanId,
}

impl InFlight {
    pub fn enter(&self, context: TraceContext, span: SpanId, now: Instant) -> Ticket {
        let mut table = self.table();
        table.prune(now);
        let number = table.next;
        table.next += 1;
        match table.entries.len() < MOST {
            true => table.entries.push_back(Entry { number, began: now, context, span }),
            false => table.overflowed = Some(now),
        }
        Ticket { number, owner: self.clone() }
    }

    pub fn origin(&self, now: Instant) -> Origin {
        let mut table = self.table();
        table.prune(now);
        if table.overflowed.is_some_and(|at| now.duration_since(at) <= LONGEST) {
            return Origin::Several;
        }
        match (table.entries.front(), table.entries.len()) {
            (Some(entry), 1) => Origin::One(entry.context, entry.span),
            (None, _) => Origin::Nobody,
            (Some(_), _) => Origin::Several,
        }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    fn prune(&mut self, now: Instant) {
        while self.entries.front().is_some_and(|entry| now.duration_since(entry.began) > LONGEST) {
            self.entries.pop_front();
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut table = self.owner.table();
        if let Ok(place) = table.entries.binary_search_by_key(&self.number, |entry| entry.number) {
            table.entries.remove(place);
        }
    }
}

/// A request that takes longer counts no more.
const LONGEST: Duration = Duration::from_secs(5);
/// Requests that are remembered; with more, nobody can be told from the others anyway.
const MOST: usize = 1024;

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::SmallRng;

    use super::*;
    use crate::trace::context;

    #[test]
    fn only_one_that_is_alone_and_young_is_told() {
        let mut rng = SmallRng::seed_from_u64(1);
        let (context, span) = (TraceContext::root(&mut rng), context::random_span(&mut rng));
        let (all, now) = (InFlight::default(), Instant::now());
        let at = |millis| now + Duration::from_millis(millis);
        assert_eq!(all.origin(now), Origin::Nobody);
        let stream = all.enter(context, span, now);
        assert_eq!(all.origin(at(5000)), Origin::One(context, span));
        assert_eq!(all.origin(at(5001)), Origin::Nobody);
        let first = all.enter(context, span, at(6000));
        let second = all.enter(context, span, at(6000));
        assert_eq!(all.origin(at(6001)), Origin::Several);
        drop(first);
        drop(stream);
        assert_eq!(all.origin(at(6001)), Origin::One(context, span));
        drop(second);
        assert_eq!(all.origin(at(6001)), Origin::Nobody);
        let many: Vec<_> = (0..=MOST).map(|_| all.enter(context, span, at(7000))).collect();
        drop(many);
        assert_eq!(all.origin(at(12000)), Origin::Several);
        assert_eq!(all.origin(at(12001)), Origin::Nobody);
    }
}
