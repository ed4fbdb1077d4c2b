//! Whatever format a trace comes in, the next hop gets the same trace in every format that is configured, and no header
//! of another format that would tell it of a span that is not its parent.

use std::cell::RefCell;
use std::rc::Rc;

use http::{HeaderMap, Response};
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use spanmesh_tests::client::Whole;
use spanmesh_tests::origin::{empty, full};
use spanmesh_tests::{Client, Origin, Protocol, Proxy, eventually, hex, run};
use tokio::sync::Notify;

/// An origin that keeps each request's headers, and what stands between.
struct Hop {
    origin: Origin,
    seen: Rc<RefCell<Vec<HeaderMap>>>,
}

impl Hop {
    async fn start(protocol: Protocol) -> Self {
        let seen = Rc::<RefCell<Vec<HeaderMap>>>::default();
        let keep = seen.clone();
        let origin = Origin::start(protocol, move |request| {
            keep.borrow_mut().push(request.headers().clone());
            async move {
                let mut answer = Response::new(full("x"));
                answer
                    .headers_mut()
                    .insert("server-timing", "db;dur=5, traceparent;desc=\"lie\"".parse().expect("a value"));
                answer.headers_mut().insert("spanmesh-keep", "1".parse().expect("a value"));
                answer
            }
        })
        .await;
        Self { origin, seen }
    }

    /// A proxy in front, with these fields of its listener and of its policy's propagation.
    fn proxy(&self, protocol: Protocol, mode: &str, fields: &str, propagation: &str) -> Proxy {
        let dir = spanmesh_tests::Dir::new();
        Proxy::start_in(
            dir,
            &format!(
                "listeners:\n- {{name: side, mode: {mode}, address: '127.0.0.1:0', upstream: app, {fields}}}\n\
             upstreams:\n- {{name: app, addresses: ['{}'], protocol: {}}}\n\
             policy: {{propagation: {{{propagation}}}, destinations: [{{name: file, file: {{path: DIR/spans.jsonl}}}}]}}\n",
                self.origin.address,
                protocol.word()
            ),
        )
    }

    fn last(&self) -> HeaderMap {
        self.seen.borrow().last().expect("a request").clone()
    }
}

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const PARENT: &str = "00f067aa0ba902b7";
const W3C: &str = "00-0af7651916cd43dd8448eb211c80319c-00f067aa0ba902b7-01";
const B3: &str = "0af7651916cd43dd8448eb211c80319c-00f067aa0ba902b7-1";
const ALL: &str = "[w3c, b3, b3multi, jaeger, xray, datadog, gcp, skywalking, binary, ottrace]";

async fn ask(client: &mut Client, headers: &[(&str, &str)]) -> Whole {
    let mut request = client.request("GET", "/x");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    client.whole(request.body(empty()).expect("request")).await
}

fn text(headers: &HeaderMap, name: &str) -> String {
    headers.get(name).map(|value| value.to_str().expect("text").to_owned()).unwrap_or_default()
}

fn attribute(span: &Span, key: &str) -> Option<String> {
    match span.attributes.iter().find(|attribute| attribute.key == key)?.value.as_ref()?.value.as_ref()? {
        Value::StringValue(text) => Some(text.clone()),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_trace_in_any_format_leaves_in_all_that_are_configured() {
    for (client, upstream) in Protocol::PAIRS {
        run(async move {
            let hop = Hop::start(upstream).await;
            let proxy = hop.proxy(upstream, "inbound", "", &format!("extract: {ALL}, inject: {ALL}"));
            let mut client = Client::connect(client, proxy.address("side")).await;
            let given: [&[(&str, &str)]; 9] = [
                &[("traceparent", W3C)],
                &[("b3", B3)],
                &[("X-B3-TraceId", TRACE), ("X-B3-SpanId", PARENT), ("X-B3-Sampled", "1")],
                &[("uber-trace-id", "af7651916cd43dd8448eb211c80319c:f067aa0ba902b7:0:1")],
                &[("x-amzn-trace-id", "Root=1-0af76519-16cd43dd8448eb211c80319c;Parent=00f067aa0ba902b7;Sampled=1")],
                &[
                    ("x-datadog-trace-id", "9532127138774266268"),
                    ("x-datadog-parent-id", "67667974448284343"),
                    ("x-datadog-sampling-priority", "1"),
                    ("x-datadog-tags", "_dd.p.tid=0af7651916cd43dd"),
                ],
                &[("x-cloud-trace-context", "0af7651916cd43dd8448eb211c80319c/67667974448284343;o=1")],
                &[("grpc-trace-bin", "AAAK92UZFs1D3YRI6yEcgDGcAQDwZ6oLqQK3AgE")],
                &[("ot-tracer-traceid", TRACE), ("ot-tracer-spanid", PARENT), ("ot-tracer-sampled", "true")],
            ];
            for lines in given {
                assert_eq!(ask(&mut client, lines).await.status, 200);
            }
            let spans = proxy.spanned(given.len()).await;
            for ((lines, span), seen) in given.into_iter().zip(&spans).zip(hop.seen.borrow().iter()) {
                assert_eq!(
                    (hex(&span.trace_id), hex(&span.parent_span_id)),
                    (TRACE.into(), PARENT.into()),
                    "{lines:?}"
                );
                let ours = hex(&span.span_id);
                let decimal = u64::from_str_radix(&ours, 16).expect("an id").to_string();
                for (name, value) in [
                    ("traceparent", format!("00-{TRACE}-{ours}-01")),
                    ("b3", format!("{TRACE}-{ours}-1")),
                    ("x-b3-spanid", ours.clone()),
                    ("uber-trace-id", format!("{TRACE}:{ours}:0:01")),
                    ("x-amzn-trace-id", format!("Root=1-0af76519-16cd43dd8448eb211c80319c;Parent={ours};Sampled=1")),
                    ("x-datadog-parent-id", decimal.clone()),
                    ("x-datadog-tags", "_dd.p.tid=0af7651916cd43dd".into()),
                    ("x-cloud-trace-context", format!("{TRACE}/{decimal};o=1")),
                    ("ot-tracer-spanid", ours.clone()),
                    ("ot-tracer-traceid", "8448eb211c80319c".into()),
                ] {
                    assert_eq!(text(seen, name), value, "{lines:?}");
                }
                assert!(text(seen, "sw8").starts_with("1-") && text(seen, "grpc-trace-bin").len() == 39);
            }
        });
    }
}

#[test]
fn stale_headers_are_removed_and_a_conflict_is_settled_and_told() {
    for (client, upstream) in Protocol::PAIRS {
        run(async move {
            let hop = Hop::start(upstream).await;
            let proxy = hop.proxy(upstream, "inbound", "", "");
            let mut client = Client::connect(client, proxy.address("side")).await;
            let other = "11111111111111111111111111111111-00f067aa0ba902b7-1";
            let lines = [("traceparent", W3C), ("b3", other), ("x-amzn-trace-id", "Self=1"), ("x-b3-sampled", "1")];
            ask(&mut client, &lines).await;
            let seen = hop.last();
            assert!(text(&seen, "traceparent").contains(TRACE));
            for stale in ["b3", "x-amzn-trace-id", "x-b3-sampled"] {
                assert!(!seen.contains_key(stale), "{stale}");
            }
            let span = proxy.spanned(1).await.remove(0);
            assert_eq!(attribute(&span, "spanmesh.context.source").as_deref(), Some("w3c"));
            assert_eq!(attribute(&span, "spanmesh.context.conflict").as_deref(), Some("b3"));
            let conflicts = |labels: &[&str]| proxy.metric("spanmesh_proxy_context_conflicts_total", labels);
            assert_eq!(conflicts(&["kept=\"w3c\"", "dropped=\"b3\""]), 1.0);
            assert_eq!(conflicts(&[]), 1.0);
            // A decision alone is kept by the trace that begins.
            ask(&mut client, &[("b3", "0")]).await;
            assert!(text(&hop.last(), "traceparent").ends_with("-02"));
        });
    }
}

#[test]
fn what_the_first_format_leaves_open_the_others_fill_in() {
    for (client, upstream) in Protocol::PAIRS {
        run(async move {
            let hop = Hop::start(upstream).await;
            let propagation = "extract: [xray, b3multi, skywalking, w3c], inject: [w3c, skywalking]";
            let proxy = hop.proxy(upstream, "inbound", "", propagation);
            let mut client = Client::connect(client, proxy.address("side")).await;
            let random = "00-0af7651916cd43dd8448eb211c80319c-00f067aa0ba902b7-03";
            for (name, value) in
                [("x-amzn-trace-id", "Root=1-0af76519-16cd43dd8448eb211c80319c"), ("x-b3-sampled", "1")]
            {
                ask(&mut client, &[(name, value), ("traceparent", random), ("tracestate", "a=1")]).await;
                let seen = hop.last();
                assert!(text(&seen, "traceparent").starts_with(&format!("00-{TRACE}-")), "{name}");
                assert!(text(&seen, "traceparent").ends_with("-03") && text(&seen, "tracestate") == "a=1", "{name}");
            }
            for span in proxy.spanned(2).await {
                assert_eq!((hex(&span.trace_id), hex(&span.parent_span_id)), (TRACE.into(), PARENT.into()));
            }
            assert_eq!(proxy.metric("spanmesh_proxy_context_conflicts_total", &[]), 0.0);
            // SkyWalking's extension: its mode goes on with its trace, another hop's time never does.
            let sw8 = text(&hop.last(), "sw8");
            for (lines, mode) in [
                (vec![("sw8", sw8.as_str()), ("sw8-x", "1-1700000000000")], "1-"),
                (vec![("sw8", sw8.as_str()), ("sw8-x", "0-1700000000000")], ""),
                (vec![("traceparent", W3C), ("sw8-x", "1-1700000000000")], ""),
            ] {
                ask(&mut client, &lines).await;
                assert_eq!(text(&hop.last(), "sw8-x"), mode, "{lines:?}");
                assert!(text(&hop.last(), "traceparent").contains(TRACE), "{lines:?}");
            }
        });
    }
}

#[test]
fn who_is_believed_hangs_on_the_client_and_a_restart_links_back() {
    for (client, upstream) in Protocol::PAIRS {
        run(async move {
            let hop = Hop::start(upstream).await;
            for (fields, continued) in [
                ("trustClients: [{clients: ['127.0.0.0/8'], trust: Continue}]", true),
                ("trustClients: [{clients: ['10.0.0.0/8'], trust: Continue}]", false),
                ("", false),
            ] {
                let proxy = hop.proxy(upstream, "gateway", fields, "strangerBaggage: [user]");
                let mut client = Client::connect(client, proxy.address("side")).await;
                let lines = [
                    ("traceparent", W3C),
                    ("tracestate", "spanmesh=x,a=1"),
                    ("baggage", "user=7,admin=1"),
                    ("uberctx-user", "7"),
                    ("uberctx-admin", "1"),
                    ("sw8-correlation", "dXNlcg==:Nw==,YWRtaW4=:MQ=="),
                    ("spanmesh-force-trace", "1"),
                    ("x-request-id", "made by hand"),
                ];
                let answer = ask(&mut client, &lines).await;
                assert!(!answer.headers.contains_key("spanmesh-keep") && !answer.headers.contains_key("x-trace-id"));
                let seen = hop.last();
                assert_eq!(text(&seen, "traceparent").contains(TRACE), continued);
                assert_eq!(text(&seen, "tracestate"), if continued { "a=1" } else { "" });
                assert_eq!(text(&seen, "baggage"), if continued { "user=7,admin=1" } else { "user=7" });
                assert!(seen.contains_key("uberctx-user") && seen.contains_key("uberctx-admin") == continued);
                let correlated = if continued { "dXNlcg==:Nw==,YWRtaW4=:MQ==" } else { "dXNlcg==:Nw==" };
                assert_eq!(text(&seen, "sw8-correlation"), correlated);
                assert!(!seen.contains_key("spanmesh-force-trace"));
                assert_eq!(text(&seen, "x-request-id"), "made by hand");
                let spans = proxy.spanned(2).await;
                for span in &spans {
                    let linked = !continued && span.kind == 2;
                    assert_eq!(span.links.len(), usize::from(linked), "{span:?}");
                    for link in &span.links {
                        assert_eq!((hex(&link.trace_id), hex(&link.span_id)), (TRACE.into(), PARENT.into()));
                    }
                    assert_eq!(attribute(span, "spanmesh.request_id").as_deref(), Some("made by hand"));
                }
                assert_eq!(proxy.logged(1).await[0]["requestId"], "made by hand");
            }
        });
    }
}

#[test]
fn baggage_stays_in_the_mesh() {
    for (client, upstream) in Protocol::PAIRS {
        run(async move {
            let hop = Hop::start(upstream).await;
            for (mode, propagation, stays) in [
                ("outbound", "mesh: ['10.0.0.0/8']", false),
                ("outbound", "mesh: ['10.0.0.0/8'], outsideBaggage: true", true),
                ("outbound", "", true),
                ("inbound", "mesh: ['10.0.0.0/8']", true),
            ] {
                let proxy = hop.proxy(upstream, mode, "", propagation);
                let mut client = Client::connect(client, proxy.address("side")).await;
                ask(&mut client, &[("baggage", "user=7"), ("uberctx-a", "1")]).await;
                let seen = hop.last();
                assert_eq!(seen.contains_key("baggage"), stays, "{mode} {propagation}");
                assert_eq!(seen.contains_key("uberctx-a"), stays, "{mode} {propagation}");
            }
        });
    }
}

#[test]
fn answers_tell_their_trace_if_asked_to_and_own_ones_always() {
    for (client, upstream) in Protocol::PAIRS {
        run(async move {
            let hop = Hop::start(upstream).await;
            let timing = hop.proxy(upstream, "gateway", "answerTrace: serverTiming", "");
            let mut asked = Client::connect(client, timing.address("side")).await;
            let answer = ask(&mut asked, &[]).await;
            let span = timing.spanned(2).await.into_iter().find(|span| span.kind == 2).expect("a SERVER span");
            let lines: Vec<_> = answer.headers.get_all("server-timing").iter().collect();
            let entry = format!("traceparent;desc=\"00-{}-{}-03\"", hex(&span.trace_id), hex(&span.span_id));
            assert_eq!(lines, ["db;dur=5", entry.as_str()]);
            let plain = hop.proxy(upstream, "gateway", "answerTrace: xTraceId", "");
            let mut asked = Client::connect(client, plain.address("side")).await;
            let answer = ask(&mut asked, &[]).await;
            assert_eq!(
                text(&answer.headers, "x-trace-id"),
                plain.logged(1).await[0]["traceId"].as_str().expect("a trace")
            );
            // Nobody was asked for it, and the request got nowhere.
            let own = Proxy::start(
                "listeners:\n- {name: side, mode: gateway, address: '127.0.0.1:0', routes: \
                 [{name: a, match: {path: /a}, upstream: app}]}\nupstreams:\n- {name: app, addresses: ['127.0.0.1:1']}\n",
            );
            let mut asked = Client::connect(client, own.address("side")).await;
            let grpc = [("content-type", "application/grpc"), ("te", "trailers")];
            for (number, lines) in [&[][..], &grpc].into_iter().enumerate() {
                let answer = ask(&mut asked, lines).await;
                let line = own.logged(number + 1).await.remove(number);
                assert_eq!(line["flag"], "no_route");
                assert_eq!(text(&answer.headers, "x-trace-id"), line["traceId"].as_str().expect("a trace"));
            }
        });
    }
}

#[test]
fn what_an_application_sends_without_a_context_is_told_to_come_from_the_only_request_it_works_on() {
    for as_parent in [false, true] {
        run(async move {
            let (go, asked) = (Rc::new(Notify::new()), Rc::new(RefCell::new(0)));
            let (wait, count) = (go.clone(), asked.clone());
            // The application, which works on a request until it is told to go on, and whom it calls.
            let origin = Origin::start(Protocol::Http1, move |request| {
                let wait = wait.clone();
                let works = request.uri().path() == "/work";
                *count.borrow_mut() += 1;
                async move {
                    if works {
                        wait.notified().await;
                    }
                    Response::new(full("x"))
                }
            })
            .await;
            let proxy = Proxy::start_in(
                spanmesh_tests::Dir::new(),
                &format!(
                    "role: sidecar\nlisteners:\n- {{name: in, mode: inbound, address: '127.0.0.1:0', upstream: app}}\n\
                 - {{name: out, mode: outbound, address: '127.0.0.1:0', upstream: app}}\n\
                 upstreams:\n- {{name: app, addresses: ['{}']}}\n\
                 policy: {{propagation: {{inferParent: {as_parent}}}, \
                 destinations: [{{name: file, file: {{path: DIR/spans.jsonl}}}}]}}\n",
                    origin.address
                ),
            );
            let inferred = |outcome: &str| {
                proxy.metric("spanmesh_proxy_context_inferred_total", &[&format!("outcome=\"{outcome}\"")])
            };
            let mut out = Client::connect(Protocol::Http1, proxy.address("out")).await;
            assert_eq!(out.get("/idle").await.status, 200);
            assert_eq!(inferred("nobody"), 1.0);
            let mut works = Vec::new();
            for number in 1..=2 {
                let mut client = Client::connect(Protocol::Http1, proxy.address("in")).await;
                works.push(tokio::task::spawn_local(async move { client.get("/work").await }));
                eventually("it is worked on", || *asked.borrow() == number * 2).await;
                assert_eq!(out.get("/next").await.status, 200);
            }
            assert_eq!(inferred("several"), 1.0);
            assert_eq!(inferred(if as_parent { "parent" } else { "link" }), 1.0);
            go.notify_waiters();
            for work in works {
                assert_eq!(work.await.expect("done").status, 200);
            }
            let spans = proxy.spanned(5).await;
            let word = if as_parent { "parent" } else { "link" };
            let told: Vec<_> = spans
                .iter()
                .filter(|span| attribute(span, "spanmesh.context.inferred").as_deref() == Some(word))
                .collect();
            let [told] = told[..] else { panic!("{spans:?}") };
            let servers = || spans.iter().filter(|span| span.kind == 2);
            if as_parent {
                assert!(servers().any(|span| span.trace_id == told.trace_id && span.span_id == told.parent_span_id));
            } else {
                let link = &told.links[0];
                assert!(servers().any(|span| span.trace_id == link.trace_id && span.span_id == link.span_id));
                assert!(servers().all(|span| span.trace_id != told.trace_id));
            }
        });
    }
}
