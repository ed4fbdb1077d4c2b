//! Which of a hundred rules decides is found without allocating: the road's own function on a request as it comes, 10,000
//! times. Instructions for each decision, of an optimised build:
//!
//!     valgrind --tool=callgrind --toggle-collect='*trace::sample::decide*' target/…/decision-… --test-threads=1 the_first

// A global allocator can be had in no other way; it counts and hands every call on.
#![deny(unsafe_op_in_unsafe_fn)]

mod counting;

use std::hint::black_box;

use http::{HeaderMap, Method};
use spanmesh_proto::TraceId;
use spanmesh_proxy::config::{BaggageMatch, GrpcMatch, HeaderMatch, Match, Mode, Party, PathKind, PathMatch, Trust};
use spanmesh_proxy::rules::sampling::{Action, Chain, Engine, Id, Plan, Request, Rule, Service, Threshold};
use spanmesh_proxy::trace::propagate::Decision;
use spanmesh_proxy::trace::sample::{self, By, Inputs};

#[test]
fn the_first_of_a_hundred_rules_is_found_without_allocating() {
    found(Some(0));
}

#[test]
fn the_fiftieth_of_a_hundred_rules_is_found_without_allocating() {
    found(Some(49));
}

#[test]
fn the_last_of_a_hundred_rules_is_found_without_allocating() {
    found(Some(99));
}

#[test]
fn that_none_of_a_hundred_rules_matches_is_found_without_allocating() {
    found(None);
}

/// What rules ask for.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Asks {
    Method,
    Path,
    Template,
    Host,
    Header,
    Call,
    Source,
    Destination,
    Baggage,
}

/// Once for each thing that a rule may ask for, the rule at this place being the first that matches.
fn found(place: Option<usize>) {
    let mut all = 0;
    for shift in 0..ASKS.len() {
        let asks = |number: usize| ASKS[(number + shift) % ASKS.len()];
        let own = Chain { rules: (0..RULES).map(|number| rule(asks(number), number)).collect(), ..Chain::default() };
        let engine = Engine::new(&Plan { own, ..Plan::default() });
        let wanted = place.map(asks);
        let asked = Asked::new(wanted, place.unwrap_or(UNKNOWN));
        let (allocations, nanoseconds) = counting::times(TIMES, || asked.decide(&engine, place));
        println!("{place:?} by {wanted:?}: {allocations} allocations, {nanoseconds} ns a decision");
        all += allocations;
    }
    assert_eq!(all, 0, "allocations in {} decisions", TIMES as usize * ASKS.len());
}

fn rule(asks: Asks, number: usize) -> Rule {
    let path = |kind, value: String| Some(PathMatch { kind, value });
    let party = || Some(Party { service: Some(format!("service{number}")), namespace: Some("shop".into()) });
    let match_ = match asks {
        Asks::Method => {
            let path = path(PathKind::Exact, format!("/only/{number}"));
            Match { method: Some("POST".into()), path, ..Match::default() }
        }
        Asks::Path => Match { path: path(PathKind::Prefix, format!("/api/{number}")), ..Match::default() },
        Asks::Template => {
            Match { path: path(PathKind::Template, format!("/users/{{id}}/of/{number}")), ..Match::default() }
        }
        Asks::Host => Match { host: Some(format!("host{number}.shop.example")), ..Match::default() },
        Asks::Header => Match {
            headers: vec![HeaderMatch { name: "x-tenant".into(), value: Some(format!("tenant-{number}")) }],
            ..Match::default()
        },
        Asks::Call => Match {
            grpc: Some(GrpcMatch { service: Some(format!("shop.v1.Service{number}")), method: Some("Get".into()) }),
            ..Match::default()
        },
        Asks::Source => Match { source: party(), ..Match::default() },
        Asks::Destination => Match { destination: party(), ..Match::default() },
        Asks::Baggage => Match {
            baggage: vec![BaggageMatch { name: format!("member{number}"), value: Some("yes".into()) }],
            ..Match::default()
        },
    };
    // Each tells by its threshold that it was the one.
    let action = Action::Threshold(Threshold::new(number as u64 + 1).unwrap());
    Rule { id: Id::new("shop/cart", &number.to_string(), 1), match_, action }
}

/// A request that fits one rule, and has all that rules may ask for.
struct Asked {
    method: Method,
    host: String,
    path: String,
    grpc: bool,
    source: String,
    destination: String,
    headers: HeaderMap,
}

impl Asked {
    fn new(wanted: Option<Asks>, number: usize) -> Self {
        let of = |asks: Asks| if wanted == Some(asks) { number } else { UNKNOWN };
        let path = match wanted {
            Some(Asks::Method) => format!("/only/{number}"),
            Some(Asks::Template) => format!("/users/7/of/{number}"),
            Some(Asks::Call) => format!("/shop.v1.Service{number}/Get"),
            _ => format!("/api/{}", of(Asks::Path)),
        };
        let headers = http::Request::get("/")
            .header("host", "cart.shop")
            .header("user-agent", "curl/8.5.0")
            .header("accept", "*/*")
            .header("accept-encoding", "gzip")
            .header("content-type", "application/json")
            .header("authorization", "Bearer 0123456789abcdef")
            .header("x-request-id", "made before")
            .header("x-tenant", format!("tenant-{}", of(Asks::Header)))
            .header("tracestate", "a=1,b=2")
            .header("baggage", format!("user=7,member{}=yes", of(Asks::Baggage)))
            .body(())
            .unwrap();
        Self {
            method: Method::POST,
            host: format!("host{}.shop.example:8080", of(Asks::Host)),
            path,
            grpc: wanted == Some(Asks::Call),
            source: format!("service{}", of(Asks::Source)),
            destination: format!("service{}", of(Asks::Destination)),
            headers: headers.into_parts().0.headers,
        }
    }

    fn decide(&self, engine: &Engine, place: Option<usize>) {
        let party = |name| Some(Service { name, namespace: "shop" });
        let request = Request {
            side: Mode::Outbound,
            method: Some(&self.method),
            host: &self.host,
            path: &self.path,
            grpc: self.grpc,
            source: party(&self.source),
            destination: party(&self.destination),
            ..Request::NOTHING
        };
        let verdict = sample::decide(black_box(&Inputs {
            trust: Trust::Continue,
            decision: Decision::Open,
            trace: TraceId::parse(b"0af7651916cd43dd8048eb211c80319c").unwrap(),
            ot: None,
            engine,
            request: &request,
            headers: &self.headers,
        }));
        assert!(verdict.sampled && verdict.by == By::Head);
        let told = place.map(|place| sample::Told::Set(Threshold::new(place as u64 + 1).unwrap()));
        assert_eq!(verdict.threshold, told.unwrap_or(sample::Told::Unchanged));
    }
}

const ASKS: [Asks; 9] = [
    Asks::Method,
    Asks::Path,
    Asks::Template,
    Asks::Host,
    Asks::Header,
    Asks::Call,
    Asks::Source,
    Asks::Destination,
    Asks::Baggage,
];
const RULES: usize = 100;
/// Of no rule.
const UNKNOWN: usize = 1_000;
const TIMES: u32 = 10_000;
