//! The rules of a sampling policy on real sockets: what a rule is asked of, what becomes of the trace, and that spans and
//! metrics say which rule it was.

use std::time::Duration;

use http::Response;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use spanmesh_tests::origin::{empty, full};
use spanmesh_tests::{Client, Dir, Origin, Protocol, Proxy, eventually, run};

/// A gateway, which says whether it keeps a trace.
struct Gate {
    proxy: Proxy,
    client: Client,
    _origin: Origin,
}

impl Gate {
    async fn start((client, upstream): (Protocol, Protocol), sampling: &str, mode: &str) -> Self {
        // The path is the status that is asked for.
        let origin = Origin::start(upstream, |request| {
            let status = request.uri().path().rsplit('/').next().and_then(|last| last.parse::<u16>().ok());
            let slow = request.uri().path().starts_with("/slow");
            async move {
                if slow {
                    tokio::time::sleep(Duration::from_millis(300)).await;
                }
                Response::builder().status(status.unwrap_or(200)).body(full("x")).expect("an answer")
            }
        })
        .await;
        let proxy = Proxy::start_in(
            Dir::new(),
            &format!(
                "node: {{service: edge, namespace: shop}}\n\
                 listeners:\n- {{name: in, {mode}, address: '127.0.0.1:0', upstream: app, \
                 routes: [{{name: pay, match: {{path: /pay}}, upstream: named, retry: {{on: [\"503\"], attempts: 2}}}}]}}\n\
                 upstreams:\n- {{name: app, addresses: ['{address}'], protocol: {word}}}\n\
                 - {{name: named, service: pay.bank, addresses: ['{address}'], protocol: {word}}}\n\
                 policy: {{sampling: {{{sampling}}}, destinations: [{{name: file, file: {{path: DIR/spans.jsonl}}}}]}}\n",
                address = origin.address,
                word = upstream.word()
            ),
        );
        let client = Client::connect(client, proxy.address("in")).await;
        Self { proxy, client, _origin: origin }
    }

    async fn ask(&mut self, method: &str, path: &str, headers: &[(&str, &str)]) -> bool {
        let mut request = self.client.request(method, path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let answer = self.client.whole(request.body(empty()).expect("a request")).await;
        let told = answer.headers["server-timing"].to_str().expect("text").to_owned();
        told.trim_end_matches('"').ends_with(['1', '3'])
    }
}

fn told(span: &Span, key: &str) -> String {
    let key = format!("spanmesh.sampling.{key}");
    let attribute = span.attributes.iter().find(|attribute| attribute.key == key);
    match attribute.and_then(|attribute| attribute.value.clone()?.value) {
        Some(Value::StringValue(text)) => text,
        _ => String::new(),
    }
}

const GATEWAY: &str = "mode: gateway, answerTrace: serverTiming";
const TRUSTING: &str = "mode: gateway, trust: Continue, answerTrace: serverTiming";

#[test]
fn the_first_rule_that_matches_decides_whatever_it_asks_for() {
    for protocols in Protocol::PAIRS {
        run(async move {
            let rules = "guard: off, head: {rules: [\
                {name: health, match: {path: {type: Exact, value: /healthz}}, action: {never: {}}},\
                {name: users, match: {path: {type: Template, value: '/users/{id}'}}, action: {never: {}}},\
                {name: mesh, match: {headers: [{name: spanmesh-x}]}, action: {never: {}}},\
                {name: gold, match: {headers: [{name: x-tier, value: gold}]}, action: {always: {}}},\
                {name: route, match: {route: pay}, action: {never: {}}},\
                {name: deletes, match: {method: DELETE}, action: {never: {}}},\
                {name: cart, match: {path: {value: /cart}, host: '*.shop.example'}, action: {never: {}}},\
                {name: source, match: {path: {value: /from}, source: {service: edge}}, action: {never: {}}},\
                {name: rest, action: {always: {}}}]}";
            let mut gate = Gate::start(protocols, rules, GATEWAY).await;
            for (method, path, headers, kept) in [
                ("GET", "/healthz", &[][..], false),
                ("GET", "/healthz/x", &[], true),
                ("GET", "/users/7", &[], false),
                ("GET", "/users/7/x", &[], true),
                ("GET", "/pay", &[], false),
                ("GET", "/pay", &[("x-tier", "gold")], true),
                ("GET", "/pay", &[("x-tier", "lead")], false),
                ("DELETE", "/x", &[], false),
                ("GET", "/cart/7", &[], true),
                ("GET", "/from", &[], false),
                // A stranger's word for a proxy's.
                ("GET", "/x", &[("spanmesh-x", "1")], true),
            ] {
                assert_eq!(gate.ask(method, path, headers).await, kept, "{method} {path} {headers:?}");
            }
            let count = |rule: &str, kept: &str| {
                let labels = [r#"policy="file""#.into(), format!("rule=\"{rule}\""), format!("kept=\"{kept}\"")];
                let labels: Vec<&str> = labels.iter().map(String::as_str).collect();
                gate.proxy.metric("spanmesh_proxy_sampling_decisions_total", &labels)
            };
            eventually("decisions are counted", || count("rest", "true") == 4.0 && count("route", "false") == 2.0)
                .await;
            assert_eq!((count("gold", "true"), count("health", "false")), (1.0, 1.0));
        });
    }
}

#[test]
fn a_rule_for_a_destination_holds_where_the_call_begins() {
    for protocols in Protocol::PAIRS {
        run(async move {
            let rules = "head: {rules: [\
                {name: rest, match: {path: {value: /pay}}, action: {always: {}}},\
                {name: bank, match: {destination: {service: pay, namespace: bank}}, action: {never: {}}}]}";
            let mut gate = Gate::start(protocols, rules, GATEWAY).await;
            // The first in the list decides where a destination has no rules of its own.
            assert!(gate.ask("GET", "/pay", &[]).await);
            let rules = "head: {rules: [{name: bank, match: {destination: {namespace: bank}}, action: {never: {}}}]}";
            let mut gate = Gate::start(protocols, rules, GATEWAY).await;
            assert!(!gate.ask("GET", "/pay", &[]).await && gate.ask("GET", "/other", &[]).await);
        });
    }
}

#[test]
fn a_boost_keeps_what_the_caller_has_dropped() {
    for protocols in Protocol::PAIRS {
        run(async move {
            let rules = "head: {boost: [{name: debug, match: {headers: [{name: x-debug}]}, action: {always: {}}}]}";
            let mut gate = Gate::start(protocols, rules, TRUSTING).await;
            let parent = ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-00f067aa0ba902b7-00");
            assert!(!gate.ask("GET", "/x", &[parent]).await);
            assert!(gate.ask("GET", "/x", &[parent, ("x-debug", "1")]).await);
            let spans = gate.proxy.spanned(2).await;
            let said = ["decision", "policy", "rule"].map(|key| told(&spans[0], key));
            assert_eq!(said, ["boost", "file", "debug"]);
        });
    }
}

#[test]
fn what_ended_badly_is_kept_after_all_as_far_as_its_limit_goes() {
    for protocols in Protocol::PAIRS {
        run(async move {
            let rules = "head: {rules: [{action: {never: {}}}]}, keep: [\
                {name: retried, when: {retries: {}}},\
                {name: teapots, when: {httpStatus: ['418', '420-421']}},\
                {name: errors, when: {errors: {}}, limit: {tracesPerSecond: 0.001, burst: 2}},\
                {name: slow, when: {latency: {threshold: 200ms}}}]";
            let mut gate = Gate::start(protocols, rules, GATEWAY).await;
            for path in ["/x", "/418", "/slow", "/500", "/500", "/500", "/404"] {
                assert!(!gate.ask("GET", path, &[]).await, "others are told that it is not kept");
            }
            // A gateway makes two spans of each: its own, and that of the one attempt.
            let spans = gate.proxy.spanned(8).await;
            let rule = |name: &str| spans.iter().filter(|span| told(span, "rule") == name).count();
            assert_eq!([rule("teapots"), rule("slow"), rule("errors")], [2, 2, 4]);
            for span in &spans {
                assert_eq!(told(span, "decision"), "trigger");
                assert_eq!(told(span, "policy"), "file");
            }
            let trigger = |name: &str| spans.iter().filter(|span| told(span, "trigger") == name).count();
            assert_eq!([trigger("status"), trigger("latency"), trigger("error")], [2, 2, 4]);
            assert!(spans.iter().all(|span| span.trace_state == "ot=th:0"), "{:?}", spans[0].trace_state);
        });
    }
}

#[test]
fn what_is_kept_anyway_and_would_have_been_at_its_end_counts_once() {
    run(async {
        let rules = "head: {rules: [{action: {probability: '0.5'}}]}, keep: [{when: {errors: {}}}]";
        let mut gate = Gate::start((Protocol::Http1, Protocol::Http1), rules, GATEWAY).await;
        let mut heads = 0;
        for _ in 0..40 {
            heads += usize::from(gate.ask("GET", "/500", &[]).await);
        }
        assert!(heads > 0 && heads < 40);
        let spans = gate.proxy.spanned(80).await;
        assert!(spans.iter().all(|span| span.trace_state == "ot=th:0"));
        assert_eq!(spans.iter().filter(|span| told(span, "decision") == "head").count(), heads * 2);
    });
}

#[test]
fn a_rate_and_the_guard_bound_what_is_kept() {
    run(async {
        for sampling in [
            "guard: off, head: {rules: [{action: {rateLimit: {tracesPerSecond: 20, burst: 1}}}]}",
            "guard: off, head: {rules: [{action: {adaptive: {spansPerSecond: 40}}}]}",
            "guard: 40",
        ] {
            let mut gate = Gate::start((Protocol::Http1, Protocol::Http1), sampling, GATEWAY).await;
            let begun = std::time::Instant::now();
            let (mut all, mut kept) = (0u32, 0u32);
            while begun.elapsed() < Duration::from_secs(4) {
                let is_kept = gate.ask("GET", "/x", &[]).await;
                // The guard lets two seconds of its budget pass first.
                if begun.elapsed() > Duration::from_millis(2500) {
                    all += 1;
                    kept += u32::from(is_kept);
                }
            }
            // 20 a second for a second and a half are 30; the machine may be slow, and chance has its part.
            assert!(kept <= 75, "{sampling}: {kept} of {all}");
            assert!(kept >= 5 || all < 60, "{sampling}: {kept} of {all}");
        }
    });
}

#[test]
fn a_caller_that_is_believed_is_asked_nothing_but_where_the_policy_says_so() {
    for protocols in Protocol::PAIRS {
        run(async move {
            let parent = ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-00f067aa0ba902b7-01");
            for (parenthood, kept) in [("Respect", true), ("Ignore", false)] {
                let rules = format!(
                    "parent: {parenthood}, head: {{rules: [{{match: {{path: {{value: /x}}}}, action: {{never: {{}}}}}}]}}"
                );
                let mut gate = Gate::start(protocols, &rules, TRUSTING).await;
                assert_eq!(gate.ask("GET", "/x", &[parent]).await, kept, "{parenthood}");
                assert!(gate.ask("GET", "/y", &[parent]).await, "no rule is for it");
            }
        });
    }
}
