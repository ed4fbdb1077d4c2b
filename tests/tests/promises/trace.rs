//! Each hop continues the trace as far as its listener believes the caller, and tells the next hop its own span.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use http::{HeaderMap, Response, StatusCode};
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use spanmesh_tests::origin::{empty, full};
use spanmesh_tests::{Client, Origin, Protocol, Proxy, each, hex, run};

/// An origin that keeps each request's headers, and refuses the first so many with 503.
struct Hop {
    origin: Origin,
    seen: Rc<RefCell<Vec<HeaderMap>>>,
}

impl Hop {
    async fn start(protocol: Protocol, refuse: usize) -> Self {
        let seen = Rc::<RefCell<Vec<HeaderMap>>>::default();
        let (keep, left) = (seen.clone(), Cell::new(refuse));
        let origin = Origin::start(protocol, move |request| {
            keep.borrow_mut().push(request.headers().clone());
            let refused = left.get() > 0;
            left.set(left.get().saturating_sub(1));
            async move {
                let mut answer = Response::new(full("x"));
                *answer.status_mut() = if refused { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK };
                answer
            }
        })
        .await;
        Self { origin, seen }
    }

    /// A header of the request of this number, empty if it was not there.
    fn header(&self, number: usize, name: &str) -> String {
        let seen = self.seen.borrow();
        seen[number].get(name).map(|value| value.to_str().expect("text").to_owned()).unwrap_or_default()
    }

    /// Trace, parent and flags of the request of this number.
    fn context(&self, number: usize) -> [String; 3] {
        let header = self.header(number, "traceparent");
        let parts: Vec<&str> = header.split('-').collect();
        let [version, trace, parent, flags] = parts[..] else { panic!("traceparent: {header:?}") };
        assert_eq!((version, trace.len(), parent.len(), flags.len()), ("00", 32, 16, 2));
        [trace, parent, flags].map(str::to_owned)
    }

    /// A proxy in front; `fields` are those of its listener.
    fn proxy(&self, protocol: Protocol, mode: &str, fields: &str) -> Proxy {
        Proxy::start(&format!(
            "listeners:\n- {{name: side, mode: {mode}, address: '127.0.0.1:0', {fields}}}\n\
             upstreams:\n- {{name: app, addresses: ['{}'], protocol: {}}}\n",
            self.origin.address,
            protocol.word()
        ))
    }
}

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const PARENT: &str = "00f067aa0ba902b7";
const RETRIED: &str = "routes: [{name: all, upstream: app, retry: {attempts: 2, on: ['503'], backoff: 1ms}}]";

async fn ask(client: &mut Client, headers: &[(&str, &str)]) {
    let mut request = client.request("GET", "/x");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let answer = client.whole(request.body(empty()).expect("request")).await;
    assert_eq!(answer.status, 200);
}

fn sampled() -> String {
    format!("00-{TRACE}-{PARENT}-01")
}

fn resend_count(span: &Span) -> Option<i64> {
    let attribute = span.attributes.iter().find(|attribute| attribute.key == "http.request.resend_count")?;
    match attribute.value.as_ref()?.value.as_ref()? {
        Value::IntValue(count) => Some(*count),
        other => panic!("{other:?}"),
    }
}

const SERVER: i32 = 2;
const CLIENT: i32 = 3;

#[test]
fn the_application_behind_an_inbound_side_has_the_server_span_as_its_parent() {
    each(|client, upstream| async move {
        let hop = Hop::start(upstream, 0).await;
        let proxy = hop.proxy(upstream, "inbound", "upstream: app");
        let mut client = Client::connect(client, proxy.address("side")).await;
        ask(&mut client, &[("traceparent", &sampled()), ("tracestate", "a=1,b=2")]).await;
        let spans = proxy.spanned(1).await;
        let [span] = &spans[..] else { panic!("{spans:?}") };
        assert_eq!((span.kind, hex(&span.trace_id), hex(&span.parent_span_id)), (SERVER, TRACE.into(), PARENT.into()));
        assert_eq!(hop.context(0), [TRACE.to_owned(), hex(&span.span_id), "01".to_owned()]);
        assert_eq!(hop.header(0, "tracestate"), "a=1,b=2");
        let line = proxy.logged(1).await.remove(0);
        assert_eq!((&line["traceId"], &line["spanId"]), (&TRACE.into(), &hex(&span.span_id).into()));
        assert!(span.start_time_unix_nano <= span.end_time_unix_nano);
    });
}

#[test]
fn without_a_callers_trace_a_new_one_begins() {
    each(|client, upstream| async move {
        let hop = Hop::start(upstream, 0).await;
        let proxy = hop.proxy(upstream, "inbound", "upstream: app");
        let mut client = Client::connect(client, proxy.address("side")).await;
        // A state without a trace says nothing.
        ask(&mut client, &[("tracestate", "a=1")]).await;
        let span = proxy.spanned(1).await.remove(0);
        assert_eq!(hex(&span.parent_span_id), "");
        let [trace, parent, flags] = hop.context(0);
        assert_eq!((trace, parent), (hex(&span.trace_id), hex(&span.span_id)));
        // Sampled, and random by our own doing.
        assert_eq!(flags, "03");
        assert_eq!(hop.header(0, "tracestate"), "");
    });
}

#[test]
fn an_inbound_side_tells_the_application_one_parent_however_often_it_tries() {
    run(async {
        let hop = Hop::start(Protocol::Http1, 2).await;
        let proxy = hop.proxy(Protocol::Http1, "inbound", RETRIED);
        let mut client = Client::connect(Protocol::Http1, proxy.address("side")).await;
        ask(&mut client, &[("traceparent", &sampled())]).await;
        let spans = proxy.spanned(1).await;
        assert_eq!(spans.len(), 1);
        for number in 0..3 {
            assert_eq!(hop.context(number), [TRACE.to_owned(), hex(&spans[0].span_id), "01".to_owned()]);
        }
    });
}

#[test]
fn an_outbound_side_makes_one_client_span_for_each_attempt() {
    each(|client, upstream| async move {
        let hop = Hop::start(upstream, 2).await;
        let proxy = hop.proxy(upstream, "outbound", RETRIED);
        let mut client = Client::connect(client, proxy.address("side")).await;
        ask(&mut client, &[("traceparent", &sampled())]).await;
        let mut spans = proxy.spanned(3).await;
        assert_eq!(spans.len(), 3);
        spans.sort_by_key(resend_count);
        for (number, span) in spans.iter().enumerate() {
            // Side by side below what the application sent.
            assert_eq!((span.kind, hex(&span.parent_span_id)), (CLIENT, PARENT.into()));
            assert_eq!(hop.context(number), [TRACE.to_owned(), hex(&span.span_id), "01".to_owned()]);
            assert_eq!(resend_count(span), (number > 0).then_some(number as i64));
        }
    });
}

#[test]
fn a_gateway_makes_both_and_its_own_trace() {
    each(|client, upstream| async move {
        let hop = Hop::start(upstream, 1).await;
        let proxy = hop.proxy(upstream, "gateway", RETRIED);
        let mut client = Client::connect(client, proxy.address("side")).await;
        ask(&mut client, &[("traceparent", &sampled()), ("tracestate", "a=1")]).await;
        let spans = proxy.spanned(3).await;
        assert_eq!(spans.len(), 3);
        let server = spans.iter().find(|span| span.kind == SERVER).expect("a SERVER span");
        assert_ne!(hex(&server.trace_id), TRACE);
        assert_eq!(hex(&server.parent_span_id), "");
        let mut attempts: Vec<_> = spans.iter().filter(|span| span.kind == CLIENT).collect();
        attempts.sort_by_key(|span| resend_count(span));
        assert_eq!(attempts.len(), 2);
        for (number, attempt) in attempts.iter().enumerate() {
            assert_eq!(attempt.parent_span_id, server.span_id);
            assert_ne!(attempt.span_id, server.span_id);
            assert!(attempt.start_time_unix_nano >= server.start_time_unix_nano);
            assert!(attempt.end_time_unix_nano <= server.end_time_unix_nano);
            let [trace, parent, _] = hop.context(number);
            assert_eq!((trace, parent), (hex(&server.trace_id), hex(&attempt.span_id)));
            assert_eq!(hop.header(number, "tracestate"), "");
        }
    });
}

#[test]
fn trust_decides_what_of_a_callers_trace_is_believed() {
    for (client, upstream) in Protocol::PAIRS {
        for (trust, same_trace, flags, state) in [
            ("Continue", true, "00", "a=1"),
            ("Downgrade", true, "01", ""),
            ("Restart", false, "03", ""),
            ("Ignore", false, "03", ""),
        ] {
            run(async move {
                let hop = Hop::start(upstream, 0).await;
                for mode in ["inbound", "outbound", "gateway"] {
                    let proxy = hop.proxy(upstream, mode, &format!("upstream: app, trust: {trust}"));
                    let mut client = Client::connect(client, proxy.address("side")).await;
                    let unsampled = format!("00-{TRACE}-{PARENT}-00");
                    ask(&mut client, &[("traceparent", &unsampled), ("tracestate", "a=1")]).await;
                    let last = hop.seen.borrow().len() - 1;
                    let [trace, parent, seen] = hop.context(last);
                    assert_eq!((trace == TRACE, seen.as_str()), (same_trace, flags), "{trust} {mode}");
                    assert_ne!(parent, PARENT);
                    assert_eq!(hop.header(last, "tracestate"), state, "{trust} {mode}");
                }
            });
        }
    }
}

#[test]
fn what_is_not_sampled_leaves_no_span_and_carries_on() {
    each(|client, upstream| async move {
        let hop = Hop::start(upstream, 0).await;
        for mode in ["inbound", "outbound"] {
            let proxy = hop.proxy(upstream, mode, "upstream: app");
            let mut client = Client::connect(client, proxy.address("side")).await;
            ask(&mut client, &[("traceparent", "00-11111111111111111111111111111111-00f067aa0ba902b7-00")]).await;
            let [trace, parent, flags] = hop.context(hop.seen.borrow().len() - 1);
            assert_eq!((trace.as_str(), flags.as_str()), ("11111111111111111111111111111111", "00"));
            assert_ne!(parent, "00f067aa0ba902b7");
            // A span of a later request is written, so that one of the first would have been too.
            ask(&mut client, &[("traceparent", &sampled())]).await;
            let spans = proxy.spanned(1).await;
            assert_eq!(spans.iter().map(|span| hex(&span.trace_id)).collect::<Vec<_>>(), [TRACE]);
            assert_eq!(proxy.metric("spanmesh_proxy_spans_created_total", &[]), 1.0);
            assert_eq!(proxy.logged(2).await[0]["traceId"], "11111111111111111111111111111111");
        }
    });
}

#[test]
fn a_context_that_cannot_be_read_is_counted_and_begins_anew() {
    let zeros = "0".repeat(55);
    let bad = [
        zeros.as_str(),
        "00-0af7651916cd43dd8448eb211c80319c-00f067aa0ba902b7-",
        "00-0AF7651916CD43DD8448EB211C80319C-00f067aa0ba902b7-01",
        "ff-0af7651916cd43dd8448eb211c80319c-00f067aa0ba902b7-01",
        "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
        "garbage",
    ];
    for (client, upstream) in Protocol::PAIRS {
        let bad: Vec<String> = bad.iter().map(|&text| text.to_owned()).collect();
        run(async move {
            let hop = Hop::start(upstream, 0).await;
            let proxy = hop.proxy(upstream, "inbound", "upstream: app");
            let mut client = Client::connect(client, proxy.address("side")).await;
            for (number, header) in bad.iter().enumerate() {
                ask(&mut client, &[("traceparent", header)]).await;
                assert_ne!(hop.context(number)[0], TRACE, "{header}");
            }
            // Said twice, nobody knows which.
            ask(&mut client, &[("traceparent", &sampled()), ("traceparent", &sampled())]).await;
            assert_ne!(hop.context(bad.len())[0], TRACE);
            let malformed = proxy.metric("spanmesh_proxy_context_malformed_total", &["format=\"w3c\""]);
            assert_eq!(malformed, bad.len() as f64 + 1.0);
        });
    }
}

#[test]
fn baggage_travels_on_unless_the_policy_says_no() {
    for (client, upstream) in Protocol::PAIRS {
        for travels in [true, false] {
            run(async move {
                let hop = Hop::start(upstream, 0).await;
                let proxy = Proxy::start(&format!(
                    "listeners:\n- {{name: side, mode: inbound, address: '127.0.0.1:0', upstream: app}}\n\
                     upstreams:\n- {{name: app, addresses: ['{}'], protocol: {}}}\n\
                     policy: {{propagation: {{baggage: {travels}}}}}\n",
                    hop.origin.address,
                    upstream.word()
                ));
                let mut client = Client::connect(client, proxy.address("side")).await;
                ask(&mut client, &[("traceparent", &sampled()), ("baggage", "user=7")]).await;
                assert_eq!(hop.header(0, "baggage"), if travels { "user=7" } else { "" });
                assert_eq!(hop.context(0)[0], TRACE);
            });
        }
    }
}
