//! The access log: JSON or a line of one's own, of all requests or of those that went wrong, and the same trace and spans
//! in it as in the spans themselves. Metrics point to traces too.

use http::{Response, StatusCode};
use spanmesh_tests::origin::{empty, full};
use spanmesh_tests::{Client, Origin, Protocol, Proxy, each, eventually, run};

/// Answers with the status that its path names.
async fn origin(protocol: Protocol) -> Origin {
    Origin::start(protocol, |request| async move {
        let mut answer = Response::new(full("x"));
        if let Ok(status) = request.uri().path().trim_start_matches('/').parse::<StatusCode>() {
            *answer.status_mut() = status;
        }
        answer
    })
    .await
}

fn proxy(origin: &Origin, protocol: Protocol, mode: &str, rest: &str) -> Proxy {
    Proxy::start(&format!(
        "listeners:\n- {{name: side, mode: {mode}, address: '127.0.0.1:0', protocol: http, upstream: app, trust: Continue}}\n\
         upstreams:\n- {{name: app, addresses: ['{}'], protocol: {}}}\n{rest}\n",
        origin.address,
        protocol.word()
    ))
}

fn lines(proxy: &Proxy) -> Vec<String> {
    let text = std::fs::read_to_string(proxy.dir.path("access.log")).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

#[test]
fn a_line_of_ones_own_is_written_as_it_is_asked_for() {
    each(|client, upstream| async move {
        let origin = origin(upstream).await;
        let log = "telemetry: {log: warn, accessLog: {to: DIR/access.log, \
                   format: '{method} \"{path}\" {status} {flag} {{{grpcStatus}}} {traceId} {requestId}'}}";
        let proxy = proxy(&origin, upstream, "inbound", log);
        let mut client = Client::connect(client, proxy.address("side")).await;
        let request = client.request("GET", "/404?q=secret").header("x-request-id", "a\"b c\\d");
        client.whole(request.body(empty()).expect("request")).await;
        eventually("a line", || lines(&proxy).len() == 1).await;
        let span = proxy.spanned(1).await.remove(0);
        let trace: String = span.trace_id.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(lines(&proxy), [format!("GET \"/404\" 404 ok {{-}} {trace} a\\\"b c\\\\d")]);
    });
}

#[test]
fn a_gateway_tells_of_what_went_wrong_unless_it_is_asked_for_all() {
    run(async {
        for (role, requests, expected) in [
            ("gateway", "", &["503", "500"][..]),
            ("gateway", ", requests: all", &["200", "503", "404", "500"]),
            ("standalone", "", &["200", "503", "404", "500"]),
            ("standalone", ", requests: errors", &["503", "500"]),
        ] {
            let origin = origin(Protocol::Http1).await;
            let log = format!(
                "role: {role}\ntelemetry: {{log: warn, accessLog: {{to: DIR/access.log, format: '{{status}}'{requests}}}}}"
            );
            let proxy = proxy(&origin, Protocol::Http1, "gateway", &log);
            let mut client = Client::connect(Protocol::Http1, proxy.address("side")).await;
            for path in ["/200", "/503", "/404", "/500"] {
                client.get(path).await;
            }
            eventually("the lines", || lines(&proxy).len() >= expected.len()).await;
            assert_eq!(lines(&proxy), expected, "{role}{requests}");
        }
    });
}

#[test]
fn a_line_names_the_spans_that_were_made() {
    each(|client, upstream| async move {
        for (mode, spans) in [("inbound", 1), ("outbound", 1), ("gateway", 2)] {
            let origin = origin(upstream).await;
            let proxy = proxy(&origin, upstream, mode, "");
            let mut client = Client::connect(client, proxy.address("side")).await;
            let parent = "00-0af7651916cd43dd8448eb211c80319c-00f067aa0ba902b7-01";
            let request = client.request("GET", "/200").header("traceparent", parent);
            client.whole(request.body(empty()).expect("request")).await;
            let line = proxy.logged(1).await.remove(0);
            let spans = proxy.spanned(spans).await;
            let ids: Vec<String> =
                spans.iter().map(|span| span.span_id.iter().map(|byte| format!("{byte:02x}")).collect()).collect();
            assert_eq!(line["traceId"], "0af7651916cd43dd8448eb211c80319c");
            assert_eq!((&line["parentSpanId"], &line["traceFlags"]), (&"00f067aa0ba902b7".into(), &"01".into()));
            assert_eq!(line["spanId"], ids[0]);
            assert_eq!(line.get("attemptSpanId"), ids.get(1).map(|id| id.clone().into()).as_ref());
        }
    });
}

#[test]
fn a_histogram_points_to_traces_that_were_kept() {
    each(|client, upstream| async move {
        let origin = origin(upstream).await;
        let proxy = proxy(&origin, upstream, "gateway", "");
        let mut client = Client::connect(client, proxy.address("side")).await;
        let dropped = "00-0af7651916cd43dd8448eb211c80319c-00f067aa0ba902b7-00";
        let request = client.request("GET", "/200").header("traceparent", dropped);
        client.whole(request.body(empty()).expect("request")).await;
        proxy.logged(1).await;
        assert!(!proxy.status("/metrics").contains("trace_id"), "nobody could look at it");
        for _ in 0..20 {
            client.get("/200").await;
        }
        let spans = proxy.spanned(40).await;
        let text = proxy.status("/metrics");
        let examples: Vec<_> = text.lines().filter(|line| line.contains(" # {trace_id=\"")).collect();
        assert!(!examples.is_empty() && examples.len() <= 17, "{text}");
        for line in examples {
            let (series, example) = line.split_once(" # ").expect("an exemplar");
            assert!(series.starts_with("spanmesh_proxy_request_duration_seconds_bucket{listener=\"side\""), "{line}");
            let id = example.split('"').nth(1).expect("an id");
            let of = |span: &opentelemetry_proto::tonic::trace::v1::Span| {
                span.trace_id.iter().map(|byte| format!("{byte:02x}")).collect::<String>() == id
            };
            let span = spans.iter().find(|span| of(span)).expect("a trace that was kept");
            let seconds: f64 = example.split(' ').nth(1).expect("a value").parse().expect("a number");
            let took = (span.end_time_unix_nano - span.start_time_unix_nano) as f64 / 1e9;
            assert!((seconds - took).abs() < 1e-6, "{line} {took}");
            let bound = series.split("le=\"").nth(1).expect("a bound").split('"').next().expect("a bound");
            assert!(bound == "+Inf" || seconds <= bound.parse::<f64>().expect("a number"), "{line}");
        }
    });
}
