//! A receiver that is dead, deaf or hangs changes nothing for the application, and the memory that its spans hold is
//! bounded.

use std::time::{Duration, Instant};

use spanmesh_tests::collector::{Act, Conduct};
use spanmesh_tests::{Client, Collector, Origin, Protocol, Proxy, eventually, free_port, run};

fn proxy(origin: &Origin, target: &str, queue: &str) -> Proxy {
    Proxy::start(&format!(
        "listeners:\n- {{name: in, mode: gateway, address: '127.0.0.1:0', upstream: app}}\n\
         upstreams:\n- {{name: app, addresses: ['{}'], protocol: http1}}\n\
         policy: {{destinations: [{{name: there, {target}, delivery: {{age: 20ms, queue: {queue}, spans: 50, backoff: 10ms, timeout: 5s}}}}]}}\n",
        origin.address
    ))
}

/// Requests at a fixed rate; all are answered. The longest that one took.
async fn steady(proxy: &Proxy, requests: u32) -> Duration {
    let mut client = Client::connect(Protocol::Http1, proxy.address("in")).await;
    let (begun, mut longest) = (Instant::now(), Duration::ZERO);
    for number in 0..requests {
        tokio::time::sleep_until((begun + number * Duration::from_millis(2)).into()).await;
        let asked = Instant::now();
        assert_eq!(client.get("/x").await.status, 200);
        longest = longest.max(asked.elapsed());
    }
    longest
}

#[test]
fn requests_are_answered_as_if_there_were_no_receiver() {
    for protocol in [Protocol::Http1, Protocol::Http2] {
        for way in ["dead", "deaf", "hangs", "slow", "healthy"] {
            run(async move {
                let (origin, collector) = (Origin::hello(Protocol::Http1).await, Collector::start(protocol).await);
                let mut target = collector.target(protocol, "");
                match way {
                    "dead" => target = target.replace(&collector.address.port().to_string(), &free_port().to_string()),
                    "deaf" => collector.meets(vec![Conduct::Deaf; 100]),
                    "hangs" => collector.usually(Act::Hang),
                    "slow" => collector.usually(Act::Late(Duration::from_millis(400))),
                    _ => {}
                }
                let proxy = proxy(&origin, &target, if way == "healthy" { "16Mi" } else { "128Ki" });
                let longest = steady(&proxy, 700).await;
                assert!(longest < Duration::from_secs(1), "{way}: one request took {longest:?}");
                let metric = |name: &str| proxy.metric(&format!("spanmesh_proxy_spans_{name}"), &[]);
                eventually("1400 spans", || metric("created_total") == 1400.0).await;
                if way == "healthy" {
                    eventually(&format!("all exported over {protocol:?}"), || metric("exported_total") == 1400.0).await;
                    assert_eq!(metric("dropped_total"), 0.0);
                } else {
                    // A span has some 400 bytes; those of the open batch and of the open request come on top.
                    eventually("the oldest go", || metric("in_flight") < 700.0).await;
                    assert!(metric("dropped_total") > 300.0, "{way}");
                }
                // Three looks, between which spans move on.
                let accounted = || metric("exported_total") + metric("dropped_total") + metric("in_flight");
                eventually("every span is accounted for", || accounted() == 1400.0).await;
            });
        }
    }
}
