//! Requests go where there is room, around what is dead, and back when it lives again.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use http::{Response, StatusCode};
use spanmesh_tests::origin::full;
use spanmesh_tests::streams::{BlackHole, nobody};
use spanmesh_tests::{Client, Origin, Protocol, Proxy, Scripted, eventually, run};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

#[test]
fn a_slow_endpoint_gets_less() {
    for upstream in [Protocol::Http1, Protocol::Http2] {
        run(async move {
            let mut origins = Vec::new();
            for wait in [5, 5, 100] {
                let answer = move |_| async move {
                    tokio::time::sleep(Duration::from_millis(wait)).await;
                    Response::new(full("hello"))
                };
                origins.push(Origin::start(upstream, answer).await);
            }
            let addresses: Vec<_> = origins.iter().map(|origin| origin.address).collect();
            let proxy = Proxy::routed(&addresses, upstream, "", "", "");
            load(&proxy, 12, 50).await;
            let counts: Vec<_> = origins.iter().map(|origin| origin.requests.get()).collect();
            assert_eq!(counts.iter().sum::<usize>(), 600);
            assert!(counts[2] * 2 < counts[0] && counts[2] * 2 < counts[1], "{counts:?}");
            assert!(counts[0] * 2 > counts[1] && counts[1] * 2 > counts[0], "{counts:?}");
        });
    }
}

#[test]
fn a_dead_address_costs_no_request_and_comes_back() {
    for upstream in [Protocol::Http1, Protocol::Http2] {
        run(async move {
            let (first, second) = (Origin::hello(upstream).await, Origin::hello(upstream).await);
            let dead = nobody().await;
            let addresses = [first.address, dead, second.address];
            let retry = "retry: {attempts: 2, on: [connectFailure], backoff: 1ms}";
            let proxy = Proxy::routed(&addresses, upstream, "ejectTime: 500ms", retry, "");
            load(&proxy, 4, 50).await;
            assert!(proxy.metric("spanmesh_proxy_endpoints_ejected_total", &[]) >= 1.0);
            let tries = proxy.metric("spanmesh_proxy_upstream_connect_failures_total", &[]);
            assert!(tries < 40.0, "{tries} connects to an ejected address");

            let count = Rc::new(Cell::new(0));
            let seen = count.clone();
            let listener = TcpListener::bind(dead).await.expect("the port is free again");
            let _back = Scripted::on(listener, upstream, None, move |asked| {
                seen.set(seen.get() + 1);
                asked.answer(200, "back")
            });
            let mut client = Client::connect(Protocol::Http1, proxy.address("in")).await;
            for _ in 0..2000 {
                assert_eq!(client.get("/").await.status, StatusCode::OK);
                if count.get() > 3 {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            panic!("the address was never used again");
        });
    }
}

/// Each request has less time than the connect: the endpoint must be found out all the same.
#[test]
fn an_address_that_swallows_connects_is_ejected() {
    for upstream in [Protocol::Http1, Protocol::Http2] {
        run(async move {
            let good = Origin::hello(upstream).await;
            let hole = BlackHole::new().await;
            let route = "timeout: 10s, retry: {attempts: 1, on: [timeout], attemptTimeout: 200ms, backoff: 1ms}";
            let upstream_fields = "connectTimeout: 800ms, ejectTime: 60s";
            let proxy = Proxy::routed(&[good.address, hole.address], upstream, upstream_fields, route, "");
            let mut client = Client::connect(Protocol::Http1, proxy.address("in")).await;
            for turn in 0..500 {
                // Also what is not safe to repeat, because it was never sent.
                let request = client.request("POST", "/").body(full("x")).expect("request");
                assert_eq!(client.whole(request).await.status, StatusCode::OK, "{turn}");
                if proxy.metric("spanmesh_proxy_endpoints_ejected_total", &[]) > 0.0 {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            panic!("never ejected");
        });
    }
}

#[test]
fn a_name_is_resolved_to_all_its_addresses_and_again() {
    run(async {
        let origin = Origin::hello(Protocol::Http1).await;
        // `localhost` may also be ::1, where nobody listens: that address is left out or tried over.
        let proxy = Proxy::start(&format!(
            "listeners:\n- {{name: in, mode: gateway, address: '127.0.0.1:0', routes: [{{name: all, upstream: app, \
             retry: {{attempts: 2, on: [connectFailure], backoff: 1ms}}}}]}}\n\
             upstreams:\n- {{name: app, addresses: ['localhost:{}'], protocol: http1, dnsRefresh: 1s}}\n",
            origin.address.port()
        ));
        let mut client = Client::connect(Protocol::Http1, proxy.address("in")).await;
        let lookups = || proxy.metric("spanmesh_proxy_name_lookups_total", &["outcome=\"ok\""]);
        for _ in 0..50 {
            assert_eq!(client.get("/").await.status, StatusCode::OK);
        }
        eventually("it is looked up again and again", || lookups() >= 3.0).await;
        for _ in 0..50 {
            assert_eq!(client.get("/").await.status, StatusCode::OK);
        }
        assert!(origin.connections.get() <= 2, "an endpoint that stays keeps its connections");
    });
}

async fn load(proxy: &Proxy, clients: usize, requests: usize) {
    let mut asking = JoinSet::new();
    for _ in 0..clients {
        let mut client = Client::connect(Protocol::Http1, proxy.address("in")).await;
        asking.spawn_local(async move {
            for _ in 0..requests {
                assert_eq!(client.get("/").await.status, StatusCode::OK);
            }
        });
    }
    while let Some(ended) = asking.join_next().await {
        ended.expect("join");
    }
}
