//! Keeps retries a small part of the traffic.
//!
//! Both counts are held by guards, so that whatever ends a request gives back what it took. Asked by `retry`.

use std::cell::Cell;
use std::rc::Rc;

/// How many requests may be retrying at the same time: a fifth of those in flight, and three in any case.
///
/// One per upstream and worker. When an upstream is down for everyone, this is what keeps retries from multiplying its
/// load: at most 1.2 times instead of `1 + attempts` times.
#[derive(Debug, Default)]
pub struct Budget {
    requests: Cell<u32>,
    retries: Cell<u32>,
}

/// A request in flight, counted until this is dropped.
#[derive(Debug)]
pub struct Requesting(Rc<Budget>);

/// A retry waiting or in flight, counted until this is dropped.
#[derive(Debug)]
pub struct Retrying(Rc<Budget>);

impl Budget {
    pub fn request(self: &Rc<Self>) -> Requesting {
        self.requests.set(self.requests.get().saturating_add(1));
        Requesting(self.clone())
    }

    pub fn requests(&self) -> u32 {
        self.requests.get()
    }

    pub fn retries(&self) -> u32 {
        self.retries.get()
    }

    pub(super) fn retry(self: &Rc<Self>) -> Option<Retrying> {
        let allowed = (self.requests.get() / REQUESTS_PER_RETRY).max(MIN_RETRIES);
        let retries = self.retries.get();
        (retries < allowed).then(|| {
            self.retries.set(retries + 1);
            Retrying(self.clone())
        })
    }
}

impl Drop for Requesting {
    fn drop(&mut self) {
        self.0.requests.set(self.0.requests.get().saturating_sub(1));
    }
}

impl Drop for Retrying {
    fn drop(&mut self) {
        self.0.retries.set(self.0.retries.get().saturating_sub(1));
    }
}

/// 20 % of the live traffic.
const REQUESTS_PER_RETRY: u32 = 5;
/// So that a route with little traffic has retries at all.
const MIN_RETRIES: u32 = 3;

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};

    use super::*;

    #[test]
    fn the_budget_is_a_fifth_of_the_traffic_and_never_below_three() {
        let mut rng = StdRng::seed_from_u64(4);
        let budget = Rc::new(Budget::default());
        let (mut requests, mut retries) = (Vec::new(), Vec::new());
        for _ in 0..50_000 {
            match rng.random_range(0..5) {
                0 | 1 => requests.push(budget.request()),
                2 => drop((!requests.is_empty()).then(|| requests.swap_remove(rng.random_range(0..requests.len())))),
                3 => {
                    let allowed = 3.max(requests.len() / 5);
                    let retry = budget.retry();
                    assert_eq!(retry.is_some(), retries.len() < allowed);
                    retries.extend(retry);
                }
                _ => drop((!retries.is_empty()).then(|| retries.swap_remove(rng.random_range(0..retries.len())))),
            }
            assert_eq!((budget.requests() as usize, budget.retries() as usize), (requests.len(), retries.len()));
        }
        drop((requests, retries));
        assert_eq!((budget.requests(), budget.retries()), (0, 0));
    }
}
