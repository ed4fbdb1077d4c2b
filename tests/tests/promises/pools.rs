//! Connections to upstreams wait for the next request, are shared where the protocol can, and do not outlive their time.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::StatusCode;
use http_body::Frame;
use spanmesh_tests::origin::{channel, full};
use spanmesh_tests::streams::{BlackHole, read_http1};
use spanmesh_tests::{Client, Origin, Protocol, Proxy, Scripted, Wire, eventually, run};
use tokio::task::JoinSet;

#[test]
fn a_connection_is_used_again() {
    for (client, upstream) in Protocol::PAIRS {
        run(async move {
            let origin = Origin::hello(upstream).await;
            let proxy = Proxy::between(origin.address, upstream);
            for _ in 0..3 {
                let mut client = Client::connect(client, proxy.address("in")).await;
                for _ in 0..10 {
                    assert_eq!(client.get("/").await.status, StatusCode::OK);
                }
            }
            assert_eq!((origin.connections.get(), origin.requests.get()), (1, 30), "{client:?} {upstream:?}");
        });
    }
}

#[test]
fn each_worker_has_connections_of_its_own() {
    for upstream in [Protocol::Http1, Protocol::Http2] {
        run(async move {
            let origin = Origin::hello(upstream).await;
            let proxy = Proxy::routed(&[origin.address], upstream, "", "", "workers: 2");
            let mut clients = Vec::new();
            for _ in 0..40 {
                clients.push(Client::connect(Protocol::Http1, proxy.address("in")).await);
            }
            for _ in 0..5 {
                for client in &mut clients {
                    assert_eq!(client.get("/").await.status, StatusCode::OK);
                }
            }
            // The kernel spreads the forty over both.
            assert_eq!(origin.connections.get(), 2, "{upstream:?}");
        });
    }
}

#[test]
fn an_idle_connection_closes_after_its_timeout() {
    for upstream in [Protocol::Http1, Protocol::Http2] {
        run(async move {
            let origin = Scripted::start(upstream, |asked| asked.answer(200, "yes")).await;
            let times = "idleTimeout: 500ms, http2IdleTimeout: 500ms";
            let proxy = Proxy::routed(&[origin.address], upstream, times, "", "");
            let mut client = Client::connect(Protocol::Http1, proxy.address("in")).await;
            client.get("/").await;
            let since = Instant::now();
            assert_eq!(origin.open.get(), 1);
            eventually("the connection closes", || origin.open.get() == 0).await;
            assert!(since.elapsed() >= Duration::from_millis(500), "{:?}", since.elapsed());
            client.get("/").await;
            assert_eq!(origin.connections.get(), 2);
        });
    }
}

#[test]
fn a_connection_takes_no_request_beyond_its_age() {
    for upstream in [Protocol::Http1, Protocol::Http2] {
        run(async move {
            let origin = Scripted::start(upstream, |asked| asked.answer(200, "yes")).await;
            let proxy = Proxy::routed(&[origin.address], upstream, "maxAge: 1s", "", "");
            let mut client = Client::connect(Protocol::Http1, proxy.address("in")).await;
            let since = Instant::now();
            while since.elapsed() < Duration::from_millis(2500) {
                assert_eq!(client.get("/").await.status, StatusCode::OK);
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            let made = origin.connections.get();
            assert!((2..=4).contains(&made), "{upstream:?}: {made} connections");
            eventually("the old ones close", || origin.open.get() <= 1).await;
        });
    }
}

#[test]
fn a_burst_to_a_fresh_upstream_opens_one_shared_connection() {
    for client in [Protocol::Http1, Protocol::Http2] {
        run(async move {
            let origin = Origin::start(Protocol::Http2, |_| async {
                tokio::time::sleep(Duration::from_millis(100)).await;
                http::Response::new(full("hello"))
            })
            .await;
            let proxy = Proxy::between(origin.address, Protocol::Http2);
            let mut asking = JoinSet::new();
            for _ in 0..100 {
                let mut client = Client::connect(client, proxy.address("in")).await;
                asking.spawn_local(async move { client.get("/").await.status });
            }
            while let Some(status) = asking.join_next().await {
                assert_eq!(status.expect("join"), StatusCode::OK);
            }
            assert_eq!((origin.connections.get(), origin.requests.get()), (1, 100), "{client:?}");
        });
    }
}

#[test]
fn another_connection_is_opened_at_the_peers_stream_limit() {
    run(async {
        // Nobody is answered before all have come: a request that queued behind the limit would never come.
        let waiting = Rc::new(RefCell::new(Vec::new()));
        let seen = waiting.clone();
        let origin = Scripted::with(Protocol::Http2, Some(3), move |asked| {
            seen.borrow_mut().push(asked);
            async {}
        })
        .await;
        let proxy = Proxy::between(origin.address, Protocol::Http2);
        let mut asking = JoinSet::new();
        for _ in 0..12 {
            let mut client = Client::connect(Protocol::Http1, proxy.address("in")).await;
            asking.spawn_local(async move { client.get("/").await.status });
        }
        eventually("all twelve reach the origin", || waiting.borrow().len() == 12).await;
        assert_eq!(origin.connections.get(), 4);
        let asked: Vec<_> = waiting.borrow_mut().drain(..).collect();
        for asked in asked {
            asked.answer(200, "yes").await;
        }
        while let Some(status) = asking.join_next().await {
            assert_eq!(status.expect("join"), StatusCode::OK);
        }
    });
}

#[test]
fn connections_that_close_at_once_are_not_made_again_and_again() {
    run(async {
        let (listener, address) = Wire::listen().await;
        let made = Rc::new(Cell::new(0));
        let count = made.clone();
        let origin = tokio::task::spawn_local(async move {
            loop {
                let wire = Wire::accept(&listener).await;
                count.set(count.get() + 1);
                tokio::task::spawn_local(async move {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    drop(wire);
                });
            }
        });
        let proxy = Proxy::between(address, Protocol::Http2);
        let mut asking = JoinSet::new();
        for _ in 0..50 {
            let mut client = Client::connect(Protocol::Http1, proxy.address("in")).await;
            asking.spawn_local(async move { client.get("/").await.status });
        }
        while let Some(status) = asking.join_next().await {
            assert!(status.expect("join").is_server_error());
        }
        // Each that is first on a connection is sent three times, and who waits begins three at most. How many are first
        // is a matter of timing; without an end to the rounds it is all fifty, with 150 connections.
        assert!(made.get() <= 100, "{} connections", made.get());
        let failed = proxy.logged(50).await.iter().filter(|line| line["flag"] == "connect_failed").count();
        assert!(failed >= 10, "{failed}");
        origin.abort();
    });
}

#[test]
fn an_endpoint_that_closes_its_connections_at_once_is_left_out() {
    run(async {
        let (listener, broken) = Wire::listen().await;
        let origin = tokio::task::spawn_local(async move {
            loop {
                drop(Wire::accept(&listener).await);
            }
        });
        let good = Origin::hello(Protocol::Http2).await;
        let proxy = Proxy::routed(&[broken, good.address], Protocol::Http2, "", "", "");
        let mut asking = JoinSet::new();
        for _ in 0..50 {
            let mut client = Client::connect(Protocol::Http1, proxy.address("in")).await;
            asking.spawn_local(async move {
                client.get("/").await;
            });
        }
        asking.join_all().await;
        eventually("the endpoint is left out", || proxy.metric("spanmesh_proxy_endpoints_ejected_total", &[]) >= 1.0)
            .await;
        let mut client = Client::connect(Protocol::Http1, proxy.address("in")).await;
        for _ in 0..20 {
            assert_eq!(client.get("/").await.status, StatusCode::OK);
        }
        origin.abort();
    });
}

#[test]
fn when_the_connection_fails_all_who_wait_fail_with_it() {
    for upstream in [Protocol::Http1, Protocol::Http2] {
        run(async move {
            let hole = BlackHole::new().await;
            let proxy = Proxy::routed(&[hole.address], upstream, "connectTimeout: 1s", "", "");
            let mut asking = JoinSet::new();
            let since = Instant::now();
            for _ in 0..30 {
                let mut client = Client::connect(Protocol::Http1, proxy.address("in")).await;
                asking.spawn_local(async move { client.get("/").await.status });
            }
            while let Some(status) = asking.join_next().await {
                assert_eq!(status.expect("join"), StatusCode::GATEWAY_TIMEOUT);
            }
            // One after the other it would take half a minute.
            assert!(since.elapsed() < Duration::from_secs(10), "{upstream:?}: {:?}", since.elapsed());
            let lines = proxy.logged(30).await;
            assert!(lines.iter().all(|line| line["flag"] == "connect_timeout"), "{lines:?}");
        });
    }
}

#[test]
fn the_one_who_began_a_shared_connection_may_leave() {
    run(async {
        let hole = BlackHole::new().await;
        let proxy = Proxy::routed(&[hole.address], Protocol::Http2, "connectTimeout: 2s", "", "");
        let mut first = Wire::connect(proxy.address("in")).await;
        first.write("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
        eventually("it waits", || proxy.metric("spanmesh_proxy_requests_in_flight", &[]) == 1.0).await;
        let mut second = Client::connect(Protocol::Http1, proxy.address("in")).await;
        let asking = tokio::task::spawn_local(async move { second.get("/").await.status });
        eventually("both wait", || proxy.metric("spanmesh_proxy_requests_in_flight", &[]) == 2.0).await;
        first.reset();
        assert_eq!(asking.await.expect("join"), StatusCode::GATEWAY_TIMEOUT);
        let lines = proxy.logged(2).await;
        assert_eq!((&lines[0]["flag"], &lines[1]["flag"]), (&"client_reset".into(), &"connect_timeout".into()));
    });
}

/// An origin that answers before the request's body is there: the connection is still taken.
#[test]
fn a_connection_whose_request_is_unfinished_is_not_used_again() {
    run(async {
        let (listener, address) = Wire::listen().await;
        let proxy = Proxy::between(address, Protocol::Http1);
        let mut client = Client::connect(Protocol::Http2, proxy.address("in")).await;
        let (body, unfinished) = channel();
        let request = client.request("POST", "/early").body(unfinished).expect("request");
        let asking = tokio::task::spawn_local(async move { (client.whole(request).await.status, client) });
        let mut first = Wire::accept(&listener).await;
        assert!(first.head().await.starts_with("POST /early"));
        first.write("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nno").await;
        let (status, mut client) = asking.await.expect("join");
        assert_eq!(status, StatusCode::OK);

        let asking = tokio::task::spawn_local(async move { (client.get("/next").await.body, client) });
        let mut second = Wire::accept(&listener).await;
        let (_, path, _) = read_http1(&mut second).await.expect("a request of its own");
        assert_eq!(path, "/next");
        second.write("HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nyes").await;
        assert_eq!(asking.await.expect("join").0, Bytes::from_static(b"yes"));
        drop(body.send(Frame::data(Bytes::from_static(b"late"))).await);
    });
}
