//! To read a trace, decide and write it again allocates nothing: the road's own functions, on a request as it comes,
//! 10,000 times.

// A global allocator can be had in no other way; it counts and hands every call on.
#![deny(unsafe_op_in_unsafe_fn)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use rand::SeedableRng;
use rand::rngs::SmallRng;
use spanmesh_proto::TraceId;
use spanmesh_proxy::config::{Match, PathKind, PathMatch, Propagation, Trust};
use spanmesh_proxy::rules::sampling::{Action, Chain, Engine, Id, Plan, Request, Rule};
use spanmesh_proxy::trace::context;
use spanmesh_proxy::trace::propagate::ink::Ink;
use spanmesh_proxy::trace::propagate::{Decision, Hop};
use spanmesh_proxy::trace::sample::{self, Inputs};
use spanmesh_proxy::trace::trust::{self, Rules};

#[test]
fn an_unsampled_w3c_trace_is_read_and_written_without_allocating() {
    let mut road = Road::new();
    for _ in 0..WARM {
        road.pass();
    }
    let (before, began) = (COUNT.with(Cell::get), Instant::now());
    for _ in 0..TIMES {
        road.pass();
    }
    let allocations = COUNT.with(Cell::get) - before;
    println!("{allocations} allocations, {} ns a request", began.elapsed().as_nanos() / TIMES);
    assert_eq!(allocations, 0, "allocations in {TIMES} requests");
}

#[test]
fn a_hundred_rules_are_asked_without_allocating() {
    let rule = |number: usize| Rule {
        id: Id::new("shop/cart", &number.to_string(), 1),
        match_: Match {
            method: (number % 2 == 0).then(|| "GET".into()),
            path: Some(PathMatch { kind: PathKind::Prefix, value: format!("/service{number}/items") }),
            ..Match::default()
        },
        action: Action::Never,
    };
    let own = Chain { rules: (0..100).map(rule).collect(), ..Chain::default() };
    let engine = Engine::new(&Plan { own, ..Plan::default() });
    let headers = Road::new().request.headers().clone();
    let path = "/service98/items/7";
    let request = Request { method: Some(&http::Method::GET), host: "cart.shop", path, ..Request::NOTHING };
    let decide = || {
        let inputs = Inputs {
            trust: Trust::Continue,
            decision: Decision::Open,
            trace: TraceId::parse(b"0af7651916cd43dd8448eb211c80319c").unwrap(),
            ot: None,
            engine: &engine,
            request: black_box(&request),
            headers: black_box(&headers),
        };
        assert!(!black_box(sample::decide(&inputs)).sampled);
    };
    for _ in 0..WARM {
        decide();
    }
    let (before, began) = (COUNT.with(Cell::get), Instant::now());
    for _ in 0..TIMES {
        decide();
    }
    let allocations = COUNT.with(Cell::get) - before;
    println!("{allocations} allocations, {} ns a decision", began.elapsed().as_nanos() / TIMES);
    assert_eq!(allocations, 0, "allocations in {TIMES} decisions");
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

struct Counting;

fn count() {
    // A thread whose locals are gone already is ending, and is not the one that is counted.
    let _ = COUNT.try_with(|count| count.set(count.get() + 1));
}

// SAFETY: every call goes to the system's allocator with the arguments as they came, so its promises are kept.
// Counting touches a constant-initialised thread local without a destructor, which does not allocate.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: as above.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: as above.
        unsafe { System.realloc(pointer, layout, size) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

thread_local! {
    static COUNT: Cell<u64> = const { Cell::new(0) };
}

const TIMES: u128 = 10_000;
const WARM: u128 = 1000;
