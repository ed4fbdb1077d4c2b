//! The places that a run comes through, as far as they speak: each event of `tracing`, in the engine and in the proxy, is
//! a place, and how often it spoke is a sign. What instrumentation would tell, coarsely, and on stable Rust.

use std::cell::RefCell;
use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Once;

use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

/// From now on places are written down.
pub fn follow() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // A test that has set one of its own loses these signs and nothing else.
        let _ = tracing::subscriber::set_global_default(Places);
    });
}

/// The signs of this thread since the last call.
pub fn visited() -> Vec<u64> {
    let visited = VISITED.with_borrow_mut(std::mem::take);
    let sign = |(place, count): (usize, u32)| {
        let mut hasher = DefaultHasher::new();
        (place, count.ilog2()).hash(&mut hasher);
        hasher.finish()
    };
    visited.into_iter().map(sign).collect()
}

thread_local! {
    static VISITED: RefCell<HashMap<usize, u32>> = RefCell::default();
}

struct Places;

impl Places {
    fn visit(metadata: &'static Metadata<'static>) {
        VISITED.with_borrow_mut(|visited| *visited.entry(std::ptr::from_ref(metadata).addr()).or_default() += 1);
    }
}

impl Subscriber for Places {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        Self::visit(span.metadata());
        Id::from_u64(1)
    }

    fn event(&self, event: &Event<'_>) {
        Self::visit(event.metadata());
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}
