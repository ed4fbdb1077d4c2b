//! Failed requests are tried again as the route says, and never what is not safe to repeat. Each origin counts.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::StatusCode;
use spanmesh_tests::origin::full;
use spanmesh_tests::streams::{Asked, nobody, read_http1};
use spanmesh_tests::{Client, Protocol, Proxy, Scripted, Wire, beside, run};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;

/// What an origin does with every request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Deed {
    Reset,
    Refuse,
    Silence,
    Status(u16),
}

impl Deed {
    async fn done_to(self, asked: Asked) {
        match self {
            Deed::Reset => asked.reset(h2::Reason::INTERNAL_ERROR).await,
            Deed::Refuse => asked.reset(h2::Reason::REFUSED_STREAM).await,
            Deed::Silence => asked.ignore().await,
            Deed::Status(status) => asked.answer(status, "no").await,
        }
    }

    /// The condition that names it, and whether the origin may have acted.
    fn condition(self) -> (&'static str, bool) {
        match self {
            Deed::Reset => ("reset", true),
            Deed::Refuse => ("refusedStream", false),
            Deed::Silence => ("timeout", true),
            Deed::Status(_) => ("'503'", true),
        }
    }
}

type Bodies = Rc<RefCell<Vec<Bytes>>>;

async fn counting(protocol: Protocol, deed: Deed) -> (Scripted, Bodies) {
    let bodies = Bodies::default();
    let seen = bodies.clone();
    let origin = Scripted::start(protocol, move |asked| {
        seen.borrow_mut().push(asked.body.clone());
        deed.done_to(asked)
    })
    .await;
    (origin, bodies)
}

const METHODS: [(&str, bool); 8] = [
    ("GET", true),
    ("HEAD", true),
    ("OPTIONS", true),
    ("PUT", true),
    ("DELETE", true),
    ("POST", false),
    ("PATCH", false),
    ("PURGE", false),
];

#[test]
fn only_what_is_safe_and_named_is_tried_again() {
    let deeds = [Deed::Reset, Deed::Refuse, Deed::Silence, Deed::Status(503), Deed::Status(500)];
    let cases = Protocol::PAIRS.into_iter().flat_map(|pair| deeds.map(|deed| (pair, deed)));
    let cases = cases.filter(|((_, upstream), deed)| (*upstream, *deed) != (Protocol::Http1, Deed::Refuse));
    beside(cases, |((client, upstream), deed)| async move {
        let (origin, bodies) = counting(upstream, deed).await;
        for named in [true, false] {
            let on = if named { "connectFailure, reset, refusedStream, timeout, '503'" } else { "connectFailure" };
            let route = format!("retry: {{attempts: 2, on: [{on}], attemptTimeout: 150ms, backoff: 1ms}}");
            let proxy = Proxy::routed(&[origin.address], upstream, "", &route, "");
            for (method, idempotent) in METHODS {
                let body = if matches!(method, "PUT" | "POST" | "PATCH") { "the body" } else { "" };
                bodies.borrow_mut().clear();
                let mut client = Client::connect(client, proxy.address("in")).await;
                let request = client.request(method, "/").body(full(body)).expect("request");
                // A reset passes through to an HTTP/2 client as a reset.
                if let Ok(answer) = client.send(request).await {
                    assert!(answer.status().is_server_error(), "{deed:?} {method}");
                }
                let seen_by_origin = deed.condition().1;
                let again = named && deed != Deed::Status(500) && (idempotent || !seen_by_origin);
                let expected = if again { 3 } else { 1 };
                let bodies = bodies.borrow();
                let what = format!("{client_and} {deed:?} {method} named: {named}", client_and = upstream.word());
                assert_eq!(bodies.len(), expected, "{what}");
                assert!(bodies.iter().all(|seen| seen == body), "{what}: {bodies:?}");
            }
        }
    });
}

#[test]
fn each_condition_names_only_its_own_failure() {
    for deed in [Deed::Reset, Deed::Refuse, Deed::Silence, Deed::Status(503)] {
        run(async move {
            let (origin, bodies) = counting(Protocol::Http2, deed).await;
            for on in ["connectFailure", "reset", "refusedStream", "timeout", "'503'", "'502'"] {
                bodies.borrow_mut().clear();
                let route = format!("retry: {{attempts: 1, on: [{on}], attemptTimeout: 100ms, backoff: 1ms}}");
                let proxy = Proxy::routed(&[origin.address], Protocol::Http2, "", &route, "");
                let mut client = Client::connect(Protocol::Http1, proxy.address("in")).await;
                client.get("/").await;
                let expected = if on == deed.condition().0 { 2 } else { 1 };
                assert_eq!(bodies.borrow().len(), expected, "{deed:?} on {on}");
            }
        });
    }
}

#[test]
fn a_connection_that_fails_is_tried_elsewhere_whatever_the_method() {
    for (client, upstream) in Protocol::PAIRS {
        run(async move {
            let (origin, bodies) = counting(upstream, Deed::Status(200)).await;
            // Without ejection the dead one is picked about every other time.
            let route = "retry: {attempts: 1, on: [connectFailure], backoff: 1ms}";
            let dead = nobody().await;
            let proxy = Proxy::routed(&[dead, origin.address], upstream, "ejectTime: 0s", route, "");
            let mut client = Client::connect(client, proxy.address("in")).await;
            for _ in 0..20 {
                for (method, _) in METHODS {
                    let request = client.request(method, "/").body(full("")).expect("request");
                    assert_eq!(client.whole(request).await.status, StatusCode::OK, "{method}");
                }
            }
            assert_eq!(bodies.borrow().len(), 20 * METHODS.len());
            assert!(proxy.metric("spanmesh_proxy_retries_total", &["connect_failed"]) > 0.0);
        });
    }
}

#[test]
fn an_endpoint_that_failed_is_not_tried_again_first() {
    for upstream in [Protocol::Http1, Protocol::Http2] {
        run(async move {
            let (bad, refused) = counting(upstream, Deed::Status(503)).await;
            let (good, _) = counting(upstream, Deed::Status(200)).await;
            let route = "retry: {attempts: 1, on: ['503'], backoff: 1ms}";
            let proxy = Proxy::routed(&[bad.address, good.address], upstream, "", route, "");
            let mut client = Client::connect(Protocol::Http1, proxy.address("in")).await;
            for _ in 0..60 {
                assert_eq!(client.get("/").await.status, StatusCode::OK);
            }
            assert!(!refused.borrow().is_empty());
        });
    }
}

#[test]
fn the_answer_of_a_retried_status_leaves_its_connection_usable() {
    for upstream in [Protocol::Http1, Protocol::Http2] {
        run(async move {
            let count = Rc::new(Cell::new(0));
            let seen = count.clone();
            let origin = Scripted::start(upstream, move |asked| {
                seen.set(seen.get() + 1);
                let status = if seen.get() % 2 == 1 { 503 } else { 200 };
                asked.answer(status, "some words")
            })
            .await;
            let route = "retry: {attempts: 1, on: ['503'], backoff: 50ms}";
            let proxy = Proxy::routed(&[origin.address], upstream, "", route, "");
            let mut client = Client::connect(Protocol::Http1, proxy.address("in")).await;
            for _ in 0..10 {
                let answer = client.get("/").await;
                assert_eq!((answer.status, &answer.body[..]), (StatusCode::OK, &b"some words"[..]));
            }
            // The back-off is random, so the second attempt may now and then come before the first has been read.
            assert!(origin.connections.get() <= 3, "{} connections", origin.connections.get());
        });
    }
}

#[test]
fn a_body_is_kept_up_to_its_limit_and_not_beyond() {
    for (client, upstream) in Protocol::PAIRS {
        run(async move {
            for (size, expected) in [(0, 3), (1, 3), (65_536, 3), (65_537, 1), (300_000, 1)] {
                let (origin, bodies) = counting(upstream, Deed::Status(503)).await;
                let route = "retry: {attempts: 2, on: ['503'], backoff: 1ms, bodyLimit: 64Ki}";
                let proxy = Proxy::routed(&[origin.address], upstream, "", route, "");
                let mut client = Client::connect(client, proxy.address("in")).await;
                let body = Bytes::from(vec![b'x'; size]);
                let request = client.request("PUT", "/").body(full(body.clone())).expect("request");
                assert_eq!(client.whole(request).await.status, StatusCode::SERVICE_UNAVAILABLE);
                assert_eq!(bodies.borrow().len(), expected, "{size} bytes");
                assert!(bodies.borrow().iter().all(|seen| *seen == body), "{size} bytes");
            }
        });
    }
}

#[test]
fn an_upstream_that_always_fails_sees_a_fifth_more_and_not_a_multiple() {
    for upstream in [Protocol::Http1, Protocol::Http2] {
        run(async move {
            let (origin, bodies) = {
                let bodies = Bodies::default();
                let seen = bodies.clone();
                let origin = Scripted::start(upstream, move |asked: Asked| {
                    seen.borrow_mut().push(asked.body.clone());
                    async move {
                        tokio::time::sleep(Duration::from_millis(20)).await;
                        asked.answer(503, "no").await;
                    }
                })
                .await;
                (origin, bodies)
            };
            let route = "retry: {attempts: 5, on: ['503'], backoff: 1ms}";
            let proxy = Proxy::routed(&[origin.address], upstream, "", route, "");
            let mut asking = JoinSet::new();
            for _ in 0..60 {
                let mut client = Client::connect(Protocol::Http1, proxy.address("in")).await;
                asking.spawn_local(async move {
                    for _ in 0..20 {
                        assert_eq!(client.get("/").await.status, StatusCode::SERVICE_UNAVAILABLE);
                    }
                });
            }
            while let Some(ended) = asking.join_next().await {
                ended.expect("join");
            }
            let factor = bodies.borrow().len() as f64 / 1200.0;
            assert!((1.02..1.35).contains(&factor), "{factor}");
            assert!(proxy.metric("spanmesh_proxy_retries_denied_total", &["over_budget"]) > 0.0);
        });
    }
}

#[test]
fn waits_between_attempts_grow_and_are_random() {
    run(async {
        let times = Rc::new(RefCell::new(Vec::new()));
        let seen = times.clone();
        let origin = Scripted::start(Protocol::Http1, move |asked: Asked| {
            seen.borrow_mut().push(Instant::now());
            asked.answer(503, "no")
        })
        .await;
        let route = "retry: {attempts: 4, on: ['503'], backoff: 40ms, backoffMax: 160ms}";
        let proxy = Proxy::routed(&[origin.address], Protocol::Http1, "", route, "");
        let mut waits = Vec::new();
        for _ in 0..6 {
            times.borrow_mut().clear();
            Client::connect(Protocol::Http1, proxy.address("in")).await.get("/").await;
            let times = times.borrow();
            assert_eq!(times.len(), 5);
            waits.extend(times.windows(2).map(|pair| pair[1] - pair[0]));
        }
        waits.sort_unstable();
        // Of two dozen waits below 40, 80, 160 and 160 ms some are short and some long.
        assert!(waits[0] < Duration::from_millis(40), "{waits:?}");
        assert!(waits[waits.len() - 1] > Duration::from_millis(60), "{waits:?}");
    });
}

#[test]
fn no_retry_begins_that_could_not_end_within_the_routes_time() {
    run(async {
        let (origin, bodies) = counting(Protocol::Http1, Deed::Silence).await;
        let route = "timeout: 400ms, retry: {attempts: 10, on: [timeout], attemptTimeout: 150ms, backoff: 1ms}";
        let proxy = Proxy::routed(&[origin.address], Protocol::Http1, "", route, "");
        let since = Instant::now();
        let answer = Client::connect(Protocol::Http1, proxy.address("in")).await.get("/").await;
        assert_eq!(answer.status, StatusCode::GATEWAY_TIMEOUT);
        assert!(since.elapsed() < Duration::from_secs(5));
        assert!((2..=3).contains(&bodies.borrow().len()), "{} attempts", bodies.borrow().len());
        let line = proxy.logged(1).await.remove(0);
        assert!(line["flag"] == "request_timeout" || line["flag"] == "attempt_timeout", "{line}");
    });
}

/// The first connection says GOAWAY with the request beyond its last stream, without a policy of any kind.
#[test]
fn a_request_beyond_a_goaway_goes_out_again_once() {
    for (client, method) in [(Protocol::Http1, "POST"), (Protocol::Http2, "POST"), (Protocol::Http2, "GET")] {
        run(async move {
            let (listener, address) = Wire::listen().await;
            let proxy = Proxy::between(address, Protocol::Http2);
            let mut client = Client::connect(client, proxy.address("in")).await;
            let body = if method == "POST" { "once" } else { "" };
            let request = client.request(method, "/").body(full(body)).expect("request");
            let asking = tokio::task::spawn_local(async move { client.whole(request).await });

            let mut first = Wire::accept(&listener).await.stream;
            // Settings, then read until the request's HEADERS (type 1) have come, then GOAWAY with last stream 0.
            first.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).await.expect("settings");
            let mut bytes = vec![0; 24];
            first.read_exact(&mut bytes).await.expect("preface");
            loop {
                let mut head = [0; 9];
                first.read_exact(&mut head).await.expect("frame");
                let length = usize::from(head[1]) << 8 | usize::from(head[2]);
                let mut payload = vec![0; length];
                first.read_exact(&mut payload).await.expect("payload");
                if head[3] == 1 {
                    break;
                }
            }
            first.write_all(&[0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]).await.expect("goaway");

            let (origin, bodies) = {
                let bodies = Bodies::default();
                let seen = bodies.clone();
                let handler = move |asked: Asked| {
                    seen.borrow_mut().push(asked.body.clone());
                    asked.answer(200, "yes")
                };
                (Scripted::on(listener, Protocol::Http2, None, handler), bodies)
            };
            assert_eq!(asking.await.expect("join").status, StatusCode::OK);
            assert_eq!(*bodies.borrow(), [Bytes::from_static(body.as_bytes())]);
            assert_eq!(origin.connections.get(), 1);
        });
    }
}

/// A peer that breaks the protocol makes the proxy end the connection with a GOAWAY of its own, which says nothing about
/// what the peer has done.
#[test]
fn a_post_is_not_sent_again_when_the_peer_breaks_the_protocol() {
    run(async {
        let (listener, address) = Wire::listen().await;
        let route = "retry: {attempts: 3, on: [reset, refusedStream, connectFailure], backoff: 1ms}";
        let proxy = Proxy::routed(&[address], Protocol::Http2, "", route, "");
        let mut client = Client::connect(Protocol::Http1, proxy.address("in")).await;
        let request = client.request("POST", "/").body(full("once")).expect("request");
        let asking = tokio::task::spawn_local(async move { client.whole(request).await.status });
        let mut first = Wire::accept(&listener).await.stream;
        first.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).await.expect("settings");
        let mut bytes = vec![0; 24];
        first.read_exact(&mut bytes).await.expect("preface");
        loop {
            let mut head = [0; 9];
            first.read_exact(&mut head).await.expect("frame");
            let mut payload = vec![0; usize::from(head[1]) << 8 | usize::from(head[2])];
            first.read_exact(&mut payload).await.expect("payload");
            if head[3] == 0 {
                break;
            }
        }
        // DATA on stream 0 is an error of the connection (RFC 9113 §6.1).
        first.write_all(&[0, 0, 1, 0, 0, 0, 0, 0, 0, 0]).await.expect("data");
        let mut again = tokio::task::spawn_local(async move {
            let mut second = Wire::accept(&listener).await;
            let _ = read_http1(&mut second).await;
        });
        let status = tokio::select! {
            status = asking => status.expect("join"),
            _ = &mut again => panic!("the request went out again"),
        };
        assert_eq!(status, StatusCode::BAD_GATEWAY);
    });
}
