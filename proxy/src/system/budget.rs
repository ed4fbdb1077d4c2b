//! A number of bytes that the whole process may hold of one thing, and the leases that hold parts of it. Workers share
//! one: it is touched when a pipe or a connection is made or ends, never by a request.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

#[derive(Debug)]
pub struct Budget {
    all: usize,
    left: AtomicUsize,
}

impl Budget {
    pub fn new(bytes: usize) -> Arc<Self> {
        Arc::new(Self { all: bytes, left: AtomicUsize::new(bytes) })
    }

    pub fn held(&self) -> usize {
        self.all.saturating_sub(self.left.load(Relaxed))
    }

    pub fn all(&self) -> usize {
        self.all
    }

    /// All of `bytes`, or nothing.
    pub fn take(self: &Arc<Self>, bytes: usize) -> Option<Lease> {
        self.take_leaving(bytes, 0)
    }

    /// All of `bytes`, if so much is left behind it.
    pub fn take_leaving(self: &Arc<Self>, bytes: usize, rest: usize) -> Option<Lease> {
        let taken =
            self.left.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(bytes).filter(|left| *left >= rest));
        taken.ok().map(|_| Lease { budget: self.clone(), bytes })
    }
}

/// A part of the budget, which goes back when this is dropped.
#[derive(Debug)]
pub struct Lease {
    budget: Arc<Budget>,
    bytes: usize,
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.budget.left.fetch_add(self.bytes, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_there_is_not_taken_and_what_is_dropped_is_there_again() {
        let budget = Budget::new(10);
        let first = budget.take(6);
        assert!(first.is_some() && budget.take(5).is_none() && budget.held() == 6);
        drop(first);
        assert_eq!(budget.held(), 0);
    }
}
