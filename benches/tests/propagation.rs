//! To read a trace, decide and write it again allocates nothing: the road's own functions, on a request as it comes,
//! 10,000 times.

// A global allocator can be had in no other way; it counts and hands every call on.
#![deny(unsafe_op_in_unsafe_fn)]

mod counting;

use std::hint::black_box;
use std::sync::Arc;

use rand::SeedableRng;
use rand::rngs::SmallRng;
use spanmesh_proxy::config::{Propagation, Trust};
use spanmesh_proxy::rules::sampling::{Engine, Plan, Request};
use spanmesh_proxy::trace::context;
use spanmesh_proxy::trace::propagate::Hop;
use spanmesh_proxy::trace::propagate::ink::Ink;
use spanmesh_proxy::trace::trust::{self, Rules};

#[test]
fn an_unsampled_w3c_trace_is_read_and_written_without_allocating() {
    let mut road = Road::new();
    let (allocations, nanoseconds) = counting::times(TIMES, || road.pass());
    println!("{allocations} allocations, {nanoseconds} ns a request");
    assert_eq!(allocations, 0, "allocations in {TIMES} requests");
}

struct Road {
    request: http::Request<()>,
    rules: Rules,
    rng: SmallRng,
    ink: Ink,
}

impl Road {
    fn new() -> Self {
        let request = http::Request::get("http://cart.shop/items?id=7")
            .header("host", "cart.shop")
            .header("user-agent", "curl/8.5.0")
            .header("accept", "*/*")
            .header("accept-encoding", "gzip")
            .header("content-type", "application/json")
            .header("authorization", "Bearer 0123456789abcdef")
            .header("x-request-id", "made before")
            .header("traceparent", "00-0af7651916cd43dd8448eb211c80319c-00f067aa0ba902b7-00")
            .header("tracestate", "a=1,b=2")
            .header("baggage", "user=7")
            .body(())
            .unwrap();
        let rules = Rules { propagation: Propagation::default(), sampling: Arc::new(Engine::new(&Plan::default())) };
        Self { request, rules, rng: SmallRng::seed_from_u64(1), ink: Ink::default() }
    }

    /// What is done for each request: what it brought is settled, and written for the next hop.
    fn pass(&mut self) {
        let Self { request, rules, rng, ink } = self;
        let headers = request.headers_mut();
        let settled = trust::settle(headers, Trust::Continue, rules, &Request::NOTHING, || None, rng, ink);
        let span = context::random_span(rng);
        let hop = Hop { service: "", instance: "", path: "/items", address: ([127, 0, 0, 1], 80).into() };
        assert!(trust::inject(headers, rules, &settled.context, span, &hop, ink).is_empty());
        assert!(!settled.context.sampled && settled.context.parent.is_some());
        black_box(headers);
    }
}

const TIMES: u32 = 10_000;
