//! Chooses the endpoint of an attempt: power of two choices, the one with fewer requests in flight.
//!
//! In this order: endpoints that are healthy and untried, healthy ones tried before, ejected ones. When every endpoint
//! is ejected the ejections say nothing any more, so all are used as if healthy: a request that may fail beats one that
//! surely does. What ejects an endpoint is in `health`.

use std::borrow::Borrow;
use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::Rc;

use rand::{Rng, RngExt};
use tokio::time::Instant;

/// What one worker knows of one address of an upstream. A re-resolved name keeps the endpoints that stay.
#[derive(Debug)]
pub struct Endpoint {
    pub address: SocketAddr,
    pub(super) in_flight: Cell<u32>,
    pub(super) ejected_until: Cell<Option<Instant>>,
    /// Ejections since the last success.
    pub(super) failures: Cell<u32>,
}

/// One request on an endpoint, counted until this is dropped.
#[derive(Debug)]
pub struct InFlight(Rc<Endpoint>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pick {
    /// The index into the endpoints given.
    Endpoint(usize),
    /// There is no endpoint at all.
    NoneHealthy,
}

impl Endpoint {
    pub fn new(address: SocketAddr) -> Endpoint {
        Endpoint { address, in_flight: Cell::new(0), ejected_until: Cell::new(None), failures: Cell::new(0) }
    }

    pub fn enter(self: &Rc<Self>) -> InFlight {
        self.in_flight.set(self.in_flight.get().saturating_add(1));
        InFlight(self.clone())
    }

    pub fn in_flight(&self) -> u32 {
        self.in_flight.get()
    }

    pub fn is_ejected(&self, now: Instant) -> bool {
        self.ejected_until.get().is_some_and(|until| now < until)
    }
}

impl InFlight {
    pub fn endpoint(&self) -> &Rc<Endpoint> {
        &self.0
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.set(self.0.in_flight.get().saturating_sub(1));
    }
}

/// `excluded` are the indices that this request has tried already.
pub fn pick<E: Borrow<Endpoint>>(endpoints: &[E], excluded: &[usize], now: Instant, rng: &mut impl Rng) -> Pick {
    let healthy = |index: usize| endpoints.get(index).is_some_and(|e| !Borrow::<Endpoint>::borrow(e).is_ejected(now));
    let untried = |index: usize| !excluded.contains(&index);
    let count = endpoints.len();
    let chosen = choose(endpoints, count, rng, |index| healthy(index) && untried(index))
        .or_else(|| choose(endpoints, count, rng, healthy))
        .or_else(|| choose(endpoints, count, rng, untried))
        .or_else(|| choose(endpoints, count, rng, |_| true));
    chosen.map_or(Pick::NoneHealthy, Pick::Endpoint)
}

/// Two different endpoints at random among those that fit; the one with fewer requests.
fn choose<E: Borrow<Endpoint>>(
    endpoints: &[E],
    count: usize,
    rng: &mut impl Rng,
    fits: impl Fn(usize) -> bool,
) -> Option<usize> {
    // Nearly always both of the first draw fit, and the list need not be walked.
    if let Some((a, b)) = two_of(count, rng)
        && fits(a)
        && fits(b)
    {
        return Some(less_loaded(endpoints, a, b));
    }
    let fitting = || (0..count).filter(|&index| fits(index));
    match two_of(fitting().count(), rng) {
        Some((a, b)) => Some(less_loaded(endpoints, fitting().nth(a)?, fitting().nth(b)?)),
        None => fitting().next(),
    }
}

/// Two different numbers below `count`, in random order.
fn two_of(count: usize, rng: &mut impl Rng) -> Option<(usize, usize)> {
    if count < 2 {
        return None;
    }
    let a = rng.random_range(0..count);
    let b = rng.random_range(0..count - 1);
    Some((a, if b < a { b } else { b + 1 }))
}

/// A tie goes to the first, which is random already.
fn less_loaded<E: Borrow<Endpoint>>(endpoints: &[E], a: usize, b: usize) -> usize {
    let load = |index: usize| endpoints.get(index).map_or(u32::MAX, |e| e.borrow().in_flight());
    if load(b) < load(a) { b } else { a }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::*;

    fn endpoints(count: u16) -> Vec<Rc<Endpoint>> {
        (0..count).map(|port| Rc::new(Endpoint::new(([127, 0, 0, 1], port).into()))).collect()
    }

    fn eject(endpoint: &Endpoint, until: Instant) {
        endpoint.ejected_until.set(Some(until));
    }

    #[test]
    fn none_is_said_only_of_an_empty_list() {
        let mut rng = StdRng::seed_from_u64(1);
        assert_eq!(pick::<Endpoint>(&[], &[], Instant::now(), &mut rng), Pick::NoneHealthy);
        assert_eq!(pick(&endpoints(1), &[0], Instant::now(), &mut rng), Pick::Endpoint(0));
    }

    #[test]
    fn the_order_of_preference_holds_for_any_state() {
        let mut rng = StdRng::seed_from_u64(2);
        let now = Instant::now();
        for _ in 0..20_000 {
            let list = endpoints(rng.random_range(1..7));
            for endpoint in &list {
                endpoint.in_flight.set(rng.random_range(0..5));
                if rng.random() {
                    eject(endpoint, now + Duration::from_secs(1));
                }
            }
            let excluded: Vec<usize> = (0..list.len()).filter(|_| rng.random()).collect();
            let rank = |index: usize| match (list[index].is_ejected(now), excluded.contains(&index)) {
                (false, false) => 0,
                (false, true) => 1,
                (true, false) => 2,
                (true, true) => 3,
            };
            let Pick::Endpoint(index) = pick(&list, &excluded, now, &mut rng) else { panic!("the list is not empty") };
            let best = (0..list.len()).map(rank).min().unwrap();
            assert_eq!(rank(index), best, "{list:?} {excluded:?}");
            // Of two choices one is never the most loaded, unless others are as loaded or there is no other.
            let peers: Vec<u32> = (0..list.len()).filter(|&i| rank(i) == best).map(|i| list[i].in_flight()).collect();
            let heaviest = *peers.iter().max().unwrap();
            let alone = peers.iter().filter(|&&load| load == heaviest).count() == 1;
            assert!(peers.len() == 1 || !alone || list[index].in_flight() < heaviest);
        }
    }

    #[test]
    fn equal_endpoints_share_equally() {
        let mut rng = StdRng::seed_from_u64(3);
        let now = Instant::now();
        let list = endpoints(5);
        eject(&list[4], now + Duration::from_secs(1));
        let mut hits = [0_u32; 5];
        for _ in 0..40_000 {
            let Pick::Endpoint(index) = pick(&list, &[], now, &mut rng) else { panic!() };
            hits[index] += 1;
        }
        assert_eq!(hits[4], 0);
        for share in &hits[..4] {
            assert!((9_500..10_500).contains(share), "{hits:?}");
        }
    }

    #[test]
    fn a_slow_endpoint_gets_less() {
        // Three endpoints finish a request in 1 step, one in 10; two requests arrive per step.
        let mut rng = StdRng::seed_from_u64(4);
        let now = Instant::now();
        let list = endpoints(4);
        let mut running: Vec<(u32, InFlight)> = Vec::new();
        let mut hits = [0_u32; 4];
        for step in 0..10_000 {
            running.retain(|(end, _)| *end > step);
            for _ in 0..2 {
                let Pick::Endpoint(index) = pick(&list, &[], now, &mut rng) else { panic!() };
                hits[index] += 1;
                running.push((step + if index == 3 { 10 } else { 1 }, list[index].enter()));
            }
        }
        assert!(hits[3] * 3 < hits[0], "{hits:?}");
        drop(running);
        assert!(list.iter().all(|endpoint| endpoint.in_flight() == 0));
    }

    #[test]
    fn an_ejection_ends_by_itself() {
        let now = Instant::now();
        let endpoint = Endpoint::new(([127, 0, 0, 1], 1).into());
        eject(&endpoint, now + Duration::from_secs(1));
        assert!(endpoint.is_ejected(now));
        assert!(!endpoint.is_ejected(now + Duration::from_secs(1)));
    }
}
