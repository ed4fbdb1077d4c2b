//! Policy that a control plane pushes: a saved file decides at the proxies within a second, a bad one changes nothing, and
//! when the control plane is away the last good policy goes on, also over a restart of the proxy.

use std::time::{Duration, Instant};

use spanmesh_tests::control_plane::{NAMESPACE, put, remove, sampling};
use spanmesh_tests::{Client, ControlPlane, Dir, Origin, Protocol, Proxy, eventually, run};

const ALWAYS: &str = "{name: all, action: {always: {}}}";
const NEVER: &str = "{name: none, action: {never: {}}}";

/// A gateway of the service `edge` in the namespace `shop`, in front of the origin.
fn gateway(dir: Dir, control_plane: &str, origin: &Origin) -> Proxy {
    Proxy::start_in(
        dir,
        &format!(
            "node: {{service: edge, namespace: shop}}\nrole: gateway\n{control_plane}\
             listeners:\n- {{name: in, mode: gateway, address: '127.0.0.1:0', upstream: app, answerTrace: serverTiming}}\n\
             upstreams:\n- {{name: app, service: cart.shop, addresses: ['{}'], protocol: http1}}\n",
            origin.address
        ),
    )
}

/// Whether the proxy keeps the trace of a request, as it tells its client.
async fn keeps(proxy: &Proxy, path: &str) -> bool {
    let mut client = Client::connect(Protocol::Http1, proxy.address("in")).await;
    let answer = client.get(path).await;
    assert_eq!(answer.status, 200);
    let timing = answer.headers["server-timing"].to_str().expect("text").to_owned();
    timing.trim_end_matches('"').ends_with(['1', '3'])
}

async fn will_keep(proxy: &Proxy, path: &str, expected: bool) {
    let begun = Instant::now();
    while keeps(proxy, path).await != expected {
        assert!(begun.elapsed() < Duration::from_secs(10), "the policy does not come into force");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[test]
fn the_control_plane_says_how_many_requests_each_rule_has_decided() {
    run(async {
        let (origin, policies) = (Origin::echo(Protocol::Http1).await, Dir::new());
        put(&policies, "a.yaml", &sampling("all", NAMESPACE, NEVER));
        let control_plane = ControlPlane::start(&policies);
        let proxy = gateway(Dir::new(), &control_plane.section(), &origin);
        control_plane.in_step(1).await;
        will_keep(&proxy, "/", false).await;
        for _ in 0..9 {
            assert!(!keeps(&proxy, "/").await);
        }
        eventually("ten requests are told", || {
            let page = control_plane.page("/proxies");
            let decided = &page["proxies"][0]["decided"];
            let rule = &decided["rules"][0];
            rule["policy"] == "shop/all" && rule["rule"] == "none" && rule["seen"] == 10 && rule["kept"] == 0
        })
        .await;
    });
}

#[test]
fn a_saved_file_decides_at_the_proxy_and_a_removed_one_no_longer() {
    run(async {
        let (origin, policies) = (Origin::echo(Protocol::Http1).await, Dir::new());
        put(&policies, "a.yaml", &sampling("all", NAMESPACE, NEVER));
        let control_plane = ControlPlane::start(&policies);
        let proxy = gateway(Dir::new(), &control_plane.section(), &origin);
        control_plane.in_step(1).await;
        will_keep(&proxy, "/", false).await;
        put(
            &policies,
            "a.yaml",
            &sampling(
                "all",
                NAMESPACE,
                &format!(
                    "{{name: some, match: {{path: {{type: Prefix, value: /kept}}}}, action: {{always: {{}}}}}}\n{NEVER}"
                ),
            ),
        );
        will_keep(&proxy, "/kept/x", true).await;
        assert!(!keeps(&proxy, "/other").await);
        remove(&policies, "a.yaml");
        will_keep(&proxy, "/other", true).await;
        assert_eq!(proxy.metric("spanmesh_proxy_policy_pushes_total", &["outcome=\"refused\""]), 0.0);
    });
}

#[test]
fn a_bad_document_is_named_and_the_policy_before_goes_on() {
    run(async {
        let (origin, policies) = (Origin::echo(Protocol::Http1).await, Dir::new());
        put(&policies, "a.yaml", &sampling("all", NAMESPACE, NEVER));
        let control_plane = ControlPlane::start(&policies);
        let proxy = gateway(Dir::new(), &control_plane.section(), &origin);
        will_keep(&proxy, "/", false).await;
        put(&policies, "a.yaml", &sampling("all", NAMESPACE, "{name: all, action: {probability: \"7\"}}"));
        let refused = || {
            let page = control_plane.page("/resources");
            let list = page["resources"].as_array().cloned().unwrap_or_default();
            list.into_iter().find(|resource| resource["accepted"] == false)
        };
        eventually("the resource is refused", || refused().is_some()).await;
        let refused = refused().expect("refused");
        assert_eq!((refused["name"].as_str(), refused["goesOnAsBefore"].as_bool()), (Some("all"), Some(true)));
        assert!(refused["problems"][0].as_str().expect("text").starts_with("line 9: spec.defaults"), "{refused}");
        // What is right beside it holds all the same.
        let other = sampling("other", "{kind: Service, name: edge}", ALWAYS);
        put(&policies, "b.yaml", &other);
        will_keep(&proxy, "/", true).await;
        remove(&policies, "b.yaml");
        will_keep(&proxy, "/", false).await;
    });
}

#[test]
fn a_control_plane_that_goes_and_comes_back_costs_no_request_and_no_decision() {
    run(async {
        let (origin, policies) = (Origin::echo(Protocol::Http1).await, Dir::new());
        put(&policies, "a.yaml", &sampling("all", NAMESPACE, NEVER));
        let mut control_plane = ControlPlane::start(&policies);
        let (address, section) = (control_plane.bound.push, control_plane.section());
        let proxy = gateway(Dir::new(), &section, &origin);
        will_keep(&proxy, "/", false).await;
        for _ in 0..3 {
            control_plane.stop();
            for _ in 0..50 {
                assert!(!keeps(&proxy, "/").await, "the last good policy goes on");
            }
            control_plane = ControlPlane::start_at(&policies, address);
            while control_plane.page("/proxies")["converged"] != 1 {
                assert!(!keeps(&proxy, "/").await, "nor does its return change anything");
            }
        }
        put(&policies, "a.yaml", &sampling("all", NAMESPACE, ALWAYS));
        will_keep(&proxy, "/", true).await;
    });
}

#[test]
fn a_proxy_that_starts_while_the_control_plane_is_away_decides_by_what_it_kept() {
    run(async {
        let (origin, policies, dir) = (Origin::echo(Protocol::Http1).await, Dir::new(), Dir::new());
        put(&policies, "a.yaml", &sampling("all", NAMESPACE, NEVER));
        let mut control_plane = ControlPlane::start(&policies);
        let section = control_plane.section().replace("DIR", &dir.as_ref().display().to_string());
        let mut first = gateway(Dir::new(), &section, &origin);
        control_plane.in_step(1).await;
        will_keep(&first, "/", false).await;
        let kept = dir.path("state").join("policy.snapshot");
        eventually("the policy is on disk", || kept.exists()).await;
        control_plane.stop();
        first.drain();
        first.ended().await;
        let second = gateway(Dir::new(), &section, &origin);
        will_keep(&second, "/", false).await;
        for _ in 0..20 {
            assert!(!keeps(&second, "/").await);
        }
        // One that is torn is as good as none, and no reason not to start.
        let bytes = std::fs::read(&kept).expect("the policy");
        std::fs::write(&kept, &bytes[..bytes.len() / 2]).expect("tear it");
        let third = gateway(Dir::new(), &section, &origin);
        assert!(keeps(&third, "/").await);
    });
}

#[test]
fn a_policy_for_a_service_decides_at_its_callers() {
    run(async {
        let (origin, policies) = (Origin::echo(Protocol::Http1).await, Dir::new());
        put(&policies, "a.yaml", &sampling("cart", "{kind: Service, name: cart}", NEVER));
        let control_plane = ControlPlane::start(&policies);
        // The caller is the service `edge`; the policy is for whom it calls.
        let proxy = gateway(Dir::new(), &control_plane.section(), &origin);
        control_plane.in_step(1).await;
        will_keep(&proxy, "/", false).await;
        // Its own policy for its calls to that service wins.
        let own = "{name: calls, match: {destination: {service: cart}}, action: {always: {}}}";
        put(&policies, "b.yaml", &sampling("edge", "{kind: Service, name: edge}", own));
        will_keep(&proxy, "/", true).await;
    });
}

#[test]
fn destinations_and_what_spans_say_are_pushed_too() {
    run(async {
        let (origin, policies, dir) = (Origin::echo(Protocol::Http1).await, Dir::new(), Dir::new());
        let folder = dir.as_ref().display().to_string();
        let control_plane = ControlPlane::start(&policies);
        let proxy = gateway(dir, &control_plane.section(), &origin);
        control_plane.in_step(1).await;
        assert!(keeps(&proxy, "/").await);
        let nowhere = || proxy.metric("spanmesh_proxy_spans_dropped_total", &["reason=\"no_destination\""]);
        eventually("there is no place for its span yet", || nowhere() >= 1.0).await;
        put(
            &policies,
            "mesh.yaml",
            &format!(
                "apiVersion: spanmesh.io/v1alpha1\nkind: MeshTracing\nmetadata: {{name: default}}\nspec:\n  \
                 destinations: [{{name: file, file: {{path: {folder}/spans.jsonl}}}}]\n\
                 ---\napiVersion: spanmesh.io/v1alpha1\nkind: SpanPolicy\nmetadata: {{name: tenant, namespace: shop}}\n\
                 spec:\n  targetRefs: [{NAMESPACE}]\n  attributes: [{{name: test.tenant, value: acme}}]\n"
            ),
        );
        let accepted = || control_plane.metric("resources_accepted");
        eventually("both are accepted", || accepted() == 2.0).await;
        control_plane.in_step(1).await;
        let begun = Instant::now();
        while proxy.spans().iter().all(|span| spanmesh_tests::proxy::text(span, "test.tenant") != "acme") {
            assert!(begun.elapsed() < Duration::from_secs(10), "no span has the new attribute");
            keeps(&proxy, "/").await;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
}

#[test]
fn a_capture_keeps_so_many_traces_and_ends() {
    run(async {
        let (origin, policies) = (Origin::echo(Protocol::Http1).await, Dir::new());
        put(&policies, "a.yaml", &sampling("all", NAMESPACE, NEVER));
        let control_plane = ControlPlane::start(&policies);
        let proxies = [
            gateway(Dir::new(), &control_plane.section(), &origin),
            gateway(Dir::new(), &control_plane.section(), &origin),
        ];
        control_plane.in_step(2).await;
        will_keep(&proxies[0], "/", false).await;
        will_keep(&proxies[1], "/", false).await;
        put(
            &policies,
            "capture.yaml",
            "apiVersion: spanmesh.io/v1alpha1\nkind: TraceCapture\nmetadata: {name: look, namespace: shop}\nspec:\n  \
             match: {path: {type: Prefix, value: /look}}\n  traces: 5\n  tracesPerSecond: 100\n  duration: 60s\n",
        );
        let begun = Instant::now();
        let mut kept = 0;
        let phase = || control_plane.page("/captures")["captures"][0]["phase"].as_str().unwrap_or_default().to_owned();
        while phase() != "Done" {
            assert!(
                begun.elapsed() < Duration::from_secs(20),
                "the capture does not end: {}",
                control_plane.page("/captures")
            );
            for proxy in &proxies {
                assert!(!keeps(proxy, "/other").await, "a request that does not match");
                kept += u64::from(keeps(proxy, "/look/at").await);
            }
        }
        let told = || {
            let page = control_plane.page("/captures");
            let ids = page["captures"][0]["traceIds"].as_array().cloned().unwrap_or_default();
            assert_eq!(page["captures"][0]["collected"].as_u64(), Some(ids.len() as u64));
            ids.len() as u64
        };
        eventually("all that was kept is told", || told() == kept).await;
        assert!((5..=7).contains(&kept), "{kept} of 5 and two proxies");
        control_plane.in_step(2).await;
        for proxy in &proxies {
            will_keep(proxy, "/look/at", false).await;
        }
    });
}

#[test]
fn when_one_address_is_dead_the_other_one_is_asked() {
    run(async {
        let (origin, policies) = (Origin::echo(Protocol::Http1).await, Dir::new());
        put(&policies, "a.yaml", &sampling("all", NAMESPACE, NEVER));
        let control_plane = ControlPlane::start(&policies);
        let dead = {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
            listener.local_addr().expect("its address")
        };
        let section =
            format!("controlPlane: {{addresses: ['http://{dead}', 'http://{}']}}\n", control_plane.bound.push);
        let proxy = gateway(Dir::new(), &section, &origin);
        will_keep(&proxy, "/", false).await;
    });
}
