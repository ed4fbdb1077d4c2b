//! Which traces are kept: the policy's rule where a trace begins, the caller's decision where it is believed, and the same
//! answer on every hop.

use std::cell::RefCell;
use std::rc::Rc;

use http::{HeaderMap, Response};
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use spanmesh_tests::origin::{empty, full};
use spanmesh_tests::{Client, Origin, Protocol, Proxy, Wire, eventually, run};

/// Two proxies in a row before an origin that keeps each request's headers.
struct Road {
    seen: Rc<RefCell<Vec<HeaderMap>>>,
    first: Proxy,
    second: Proxy,
    _origin: Origin,
}

impl Road {
    async fn start(protocol: Protocol, first: &str, second: &str) -> Self {
        let seen = Rc::<RefCell<Vec<HeaderMap>>>::default();
        let keep = seen.clone();
        let origin = Origin::start(protocol, move |request| {
            keep.borrow_mut().push(request.headers().clone());
            async { Response::new(full("x")) }
        })
        .await;
        let second = proxy(origin.address, protocol, second);
        let first = proxy(second.address("side"), protocol, first);
        Self { seen, first, second, _origin: origin }
    }

    /// What the origin got of a request with these headers.
    async fn ask(&self, client: &mut Client, headers: &[(&str, &str)]) -> Told {
        let mut request = client.request("GET", "/x");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        assert_eq!(client.whole(request.body(empty()).expect("a request")).await.status, 200);
        Told::of(self.seen.borrow().last().expect("a request"))
    }
}

fn proxy(upstream: std::net::SocketAddr, protocol: Protocol, sampling: &str) -> Proxy {
    listening(upstream, protocol, sampling, "")
}

fn listening(upstream: std::net::SocketAddr, protocol: Protocol, sampling: &str, listener: &str) -> Proxy {
    Proxy::start_in(
        spanmesh_tests::Dir::new(),
        &format!(
            "listeners:\n- {{name: side, mode: inbound, address: '127.0.0.1:0', upstream: app{listener}}}\n\
             upstreams:\n- {{name: app, addresses: ['{upstream}'], protocol: {}}}\n\
             policy: {{propagation: {{extract: [w3c, b3]}}, sampling: {{{sampling}}}, destinations: [{{name: file, file: {{path: DIR/spans.jsonl}}}}]}}\n",
            protocol.word()
        ),
    )
}

/// The trace as the next hop was told.
#[derive(Debug)]
struct Told {
    trace: u128,
    sampled: bool,
    state: String,
}

impl Told {
    fn of(headers: &HeaderMap) -> Self {
        let text = |name| headers.get(name).map_or("", |value| value.to_str().expect("text")).to_owned();
        let parent = text("traceparent");
        let [_, trace, _, flags] = parent.split('-').collect::<Vec<_>>()[..] else { panic!("{parent:?}") };
        let trace = u128::from_str_radix(trace, 16).expect("an id");
        Self { trace, sampled: matches!(flags, "01" | "03"), state: text("tracestate") }
    }
}

const NEVER: &str = "head: {rules: [{action: {never: {}}}]}";
const ALWAYS: &str = "head: {rules: [{action: {always: {}}}]}";
const QUARTER: &str = "head: {rules: [{action: {probability: \"0.25\"}}]}";
const ANEW_NEVER: &str = "parent: Ignore, head: {rules: [{action: {never: {}}}]}";
const ANEW_QUARTER: &str = "parent: Ignore, head: {rules: [{action: {probability: \"0.25\"}}]}";

const SAMPLED: &str = "00-0af7651916cd43dd8448eb211c80319c-00f067aa0ba902b7-01";
const UNSAMPLED: &str = "00-0af7651916cd43dd8448eb211c80319c-00f067aa0ba902b7-00";
/// Of these one quarter is kept, by its randomness.
const KEPT: &str = "00-0af7651916cd43dd84d0000000000000-00f067aa0ba902b7-00";

#[test]
fn connections_of_bytes_are_kept_as_requests_are() {
    run(async {
        for (sampling, least, most) in [(ALWAYS, 200, 200), (NEVER, 0, 0), (QUARTER, 20, 80)] {
            let address = Wire::serve(|mut wire, _| async move {
                wire.write("hello").await;
                wire.finish().await;
                wire.rest().await;
            })
            .await;
            let proxy = listening(address, Protocol::Http1, sampling, ", protocol: opaque");
            for _ in 0..200 {
                let mut wire = Wire::connect(proxy.address("side")).await;
                wire.finish().await;
                assert_eq!(wire.rest().await, b"hello");
            }
            proxy.at_rest().await;
            let lines = proxy.logged(200).await;
            let kept = lines.iter().filter(|line| line["traceFlags"] == "03").count();
            assert!((least..=most).contains(&kept), "{sampling}: {kept}");
            let spans = proxy.spanned(kept).await;
            assert_eq!(spans.len(), kept);
            let state = if sampling == QUARTER { "ot=th:c" } else { "ot=th:0" };
            assert!(spans.iter().all(|span| span.trace_state == state), "{:?}", spans[0]);
        }
    });
}

#[test]
fn as_many_traces_are_kept_as_the_probability_says_and_the_same_ones_on_each_hop() {
    for (client, upstream) in Protocol::PAIRS {
        run(async move {
            let road = Road::start(upstream, QUARTER, ANEW_QUARTER).await;
            let mut client = Client::connect(client, road.first.address("side")).await;
            let mut kept = 0;
            for _ in 0..TRACES {
                let told = road.ask(&mut client, &[]).await;
                let randomness = told.trace as u64 & ((1 << 56) - 1);
                assert_eq!(told.sampled, randomness >= 0xc0 << 48, "{told:?}");
                assert_eq!(told.state, if told.sampled { "ot=th:c" } else { "" }, "{told:?}");
                kept += usize::from(told.sampled);
            }
            // Five standard deviations of 600 at a quarter are 53.
            assert!((TRACES / 4 - 53..=TRACES / 4 + 53).contains(&kept), "{kept} of {TRACES}");
            for proxy in [&road.first, &road.second] {
                assert_eq!(proxy.spanned(kept).await.len(), kept);
            }
        });
    }
}

#[test]
fn a_callers_decision_holds_unless_the_policy_says_otherwise() {
    for (client, upstream) in Protocol::PAIRS {
        run(async move {
            for (sampling, given, sampled) in [
                ("", None, true),
                ("", Some(UNSAMPLED), false),
                (ALWAYS, None, true),
                (ALWAYS, Some(UNSAMPLED), false),
                (NEVER, None, false),
                (NEVER, Some(SAMPLED), true),
                ("parent: Respect", Some(UNSAMPLED), false),
                ("parent: Ignore", Some(UNSAMPLED), true),
                (ANEW_NEVER, Some(SAMPLED), false),
                (ANEW_NEVER, None, false),
                (ANEW_QUARTER, Some(SAMPLED), false),
                (ANEW_QUARTER, Some(KEPT), true),
            ] {
                let road = Road::start(upstream, sampling, "").await;
                let mut client = Client::connect(client, road.first.address("side")).await;
                let given: Vec<_> = given.into_iter().map(|value| ("traceparent", value)).collect();
                let told = road.ask(&mut client, &given).await;
                assert_eq!(told.sampled, sampled, "{sampling} {given:?} {told:?}");
                for proxy in [&road.first, &road.second] {
                    proxy.logged(1).await;
                    let made = || proxy.metric("spanmesh_proxy_spans_created_total", &[]);
                    eventually("the spans of this request", || made() == f64::from(u8::from(sampled))).await;
                }
            }
        });
    }
}

#[test]
fn spans_say_which_policy_decided_where_their_trace_began() {
    run(async {
        for (sampling, parent, expected) in [
            ("", None, ["head", "default", ""]),
            ("head: {rules: [{action: {always: {}}}]}", None, ["head", "file", "head.rules[0]"]),
            ("head: {rules: [{action: {always: {}}}]}", Some(SAMPLED), ["context", "", ""]),
        ] {
            let road = Road::start(Protocol::Http1, sampling, "").await;
            let mut client = Client::connect(Protocol::Http1, road.first.address("side")).await;
            let headers: Vec<_> = parent.map(|parent| ("traceparent", parent)).into_iter().collect();
            road.ask(&mut client, &headers).await;
            let (first, second) = (road.first.spanned(1).await.remove(0), road.second.spanned(1).await.remove(0));
            let told = |span: &Span| {
                ["decision", "policy", "rule"].map(|key| {
                    let key = format!("spanmesh.sampling.{key}");
                    let attribute = span.attributes.iter().find(|attribute| attribute.key == key);
                    match attribute.and_then(|attribute| attribute.value.clone()?.value) {
                        Some(Value::StringValue(text)) => text,
                        _ => String::new(),
                    }
                })
            };
            assert_eq!(told(&first), expected, "{sampling} {parent:?}");
            assert_eq!(told(&second), ["context", "", ""], "whoever is called follows");
        }
    });
}

#[test]
fn a_trace_that_somebody_forced_is_kept_whatever_the_policy() {
    for (client, upstream) in Protocol::PAIRS {
        run(async move {
            let road = Road::start(upstream, ANEW_NEVER, "").await;
            let mut client = Client::connect(client, road.first.address("side")).await;
            let forced = "0af7651916cd43dd8448eb211c80319c-00f067aa0ba902b7-d";
            assert!(road.ask(&mut client, &[("b3", forced)]).await.sampled);
            let accepted = "0af7651916cd43dd8448eb211c80319c-00f067aa0ba902b7-1";
            assert!(!road.ask(&mut client, &[("b3", accepted)]).await.sampled);
        });
    }
}

#[test]
fn thresholds_of_others_are_told_on_only_where_they_still_hold() {
    for (client, upstream) in Protocol::PAIRS {
        run(async move {
            for (sampling, parent, state, told) in [
                // The trace's randomness is 48eb…: kept at th:4, not at th:8.
                ("", SAMPLED, "a=1,ot=th:4;x:y", "a=1,ot=th:4;x:y"),
                ("", SAMPLED, "a=1,ot=th:8;x:y", "ot=x:y,a=1"),
                ("", UNSAMPLED, "ot=th:8,a=1", "ot=th:8,a=1"),
                ("", UNSAMPLED, "ot=th:4,a=1", "a=1"),
                (ANEW_QUARTER, UNSAMPLED, "a=1,ot=th:4;rv:f0000000000000", "ot=th:c;rv:f0000000000000,a=1"),
                (ANEW_NEVER, SAMPLED, "a=1,ot=th:4", "a=1"),
            ] {
                let road = Road::start(upstream, sampling, "").await;
                let mut client = Client::connect(client, road.first.address("side")).await;
                let seen = road.ask(&mut client, &[("traceparent", parent), ("tracestate", state)]).await;
                assert_eq!(seen.state, told, "{sampling} {parent} {state}");
                if seen.sampled {
                    let span = road.first.spanned(1).await.remove(0);
                    assert_eq!(span.trace_state, told, "a span says what the next hop is told");
                }
            }
        });
    }
}

const TRACES: usize = 600;
