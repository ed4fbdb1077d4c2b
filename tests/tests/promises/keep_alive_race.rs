//! An origin may close an idle connection just when a request is on its way to it. What can be repeated is, what may
//! have been seen is not: GETs never fail, POSTs never arrive twice.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use http::{Response, StatusCode};
use spanmesh_tests::origin::full;
use spanmesh_tests::streams::{read_http1, read_http2, reset_at_close};
use spanmesh_tests::{Client, Protocol, Proxy, Wire, run};
use tokio::sync::Notify;
use tokio::task::JoinSet;

/// How an idle connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Closing {
    Quiet,
    Reset,
    /// HTTP/2's own way.
    GoAway,
}

type Bodies = Rc<RefCell<HashMap<Bytes, usize>>>;

/// Answers each request, and closes each connection when it has been idle for a moment between 0 and 3 ms.
async fn restless(protocol: Protocol, closing: Closing) -> (SocketAddr, Bodies, Rc<Cell<usize>>) {
    let (listener, address) = Wire::listen().await;
    let bodies = Bodies::default();
    let connections = Rc::new(Cell::new(0));
    let (seen, count) = (bodies.clone(), connections.clone());
    tokio::task::spawn_local(async move {
        loop {
            let wire = Wire::accept(&listener).await;
            count.set(count.get() + 1);
            let mut dice = Dice(count.get() as u64);
            let seen = seen.clone();
            tokio::task::spawn_local(async move {
                match protocol {
                    Protocol::Http1 => http1(wire, closing, &seen, &mut dice).await,
                    Protocol::Http2 => http2(wire, closing, &seen, &mut dice).await,
                }
            });
        }
    });
    (address, bodies, connections)
}

async fn http1(mut wire: Wire, closing: Closing, seen: &Bodies, dice: &mut Dice) {
    let mut first = true;
    loop {
        let patience = if first { Duration::from_secs(30) } else { dice.pause() };
        let Ok(Some((_, _, body))) = tokio::time::timeout(patience, read_http1(&mut wire)).await else { break };
        first = false;
        *seen.borrow_mut().entry(body).or_default() += 1;
        if wire.send(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await.is_err() {
            break;
        }
    }
    if closing == Closing::Reset {
        wire.reset();
    }
}

async fn http2(wire: Wire, closing: Closing, seen: &Bodies, dice: &mut Dice) {
    if closing == Closing::Reset {
        reset_at_close(&wire.stream);
    }
    let Ok(mut connection) = h2::server::handshake(wire.stream).await else { return };
    let (open, ended) = (Rc::new(Cell::new(0)), Rc::new(Notify::new()));
    let mut first = true;
    loop {
        let idle = open.get() == 0 && !first;
        let accepted = tokio::select! {
            biased;
            accepted = connection.accept() => accepted,
            () = ended.notified() => continue,
            () = tokio::time::sleep(dice.pause()), if idle => match closing {
                // What comes before the client has heard of it is still served.
                Closing::GoAway => {
                    connection.graceful_shutdown();
                    first = true;
                    continue;
                }
                Closing::Quiet | Closing::Reset => return,
            },
        };
        let Some(Ok((request, mut reply))) = accepted else { return };
        first = false;
        open.set(open.get() + 1);
        let (open, ended, seen) = (open.clone(), ended.clone(), seen.clone());
        tokio::task::spawn_local(async move {
            if let Some(body) = read_http2(request.into_body()).await {
                *seen.borrow_mut().entry(body).or_default() += 1;
                if let Ok(mut stream) = reply.send_response(Response::new(()), false) {
                    let _ = stream.send_data(Bytes::from_static(b"ok"), true);
                }
            }
            open.set(open.get() - 1);
            ended.notify_one();
        });
    }
}

/// Enough chance for a test, the same in each run.
struct Dice(u64);

impl Dice {
    fn pause(&mut self) -> Duration {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        Duration::from_micros((self.0 >> 33) % 3000)
    }
}

const CASES: [(Protocol, Closing); 5] = [
    (Protocol::Http1, Closing::Quiet),
    (Protocol::Http1, Closing::Reset),
    (Protocol::Http2, Closing::Quiet),
    (Protocol::Http2, Closing::Reset),
    (Protocol::Http2, Closing::GoAway),
];

/// So many clients send so many requests each, with pauses like the origin's; the statuses come back.
async fn load(proxy: &Proxy, method: &'static str, upstream: Protocol) -> HashMap<StatusCode, usize> {
    // A shared connection is idle only when few use it.
    let (clients, requests) = if upstream == Protocol::Http1 { (8, 250) } else { (2, 1000) };
    let mut asking = JoinSet::new();
    for number in 0..clients {
        let mut client = Client::connect(Protocol::Http1, proxy.address("in")).await;
        asking.spawn_local(async move {
            let mut dice = Dice(number + 1000);
            let mut statuses = Vec::new();
            for turn in 0..requests {
                let body = if method == "POST" { format!("{number}-{turn}") } else { String::new() };
                let request = client.request(method, "/").body(full(body)).expect("request");
                statuses.push(client.whole(request).await.status);
                tokio::time::sleep(dice.pause()).await;
            }
            statuses
        });
    }
    let mut counts = HashMap::new();
    while let Some(statuses) = asking.join_next().await {
        for status in statuses.expect("join") {
            *counts.entry(status).or_default() += 1;
        }
    }
    counts
}

#[test]
fn no_get_fails_when_an_origin_closes_idle_connections() {
    for (upstream, closing) in CASES {
        run(async move {
            let (address, _, connections) = restless(upstream, closing).await;
            let proxy = Proxy::between(address, upstream);
            let counts = load(&proxy, "GET", upstream).await;
            let failed: Vec<_> = proxy.logged(2000).await.into_iter().filter(|line| line["flag"] != "ok").collect();
            assert!(failed.is_empty(), "{upstream:?} {closing:?}: {failed:?}");
            assert_eq!(counts, HashMap::from([(StatusCode::OK, 2000)]), "{upstream:?} {closing:?}");
            assert!(connections.get() > 20, "{upstream:?} {closing:?}: the origin closed too little");
        });
    }
}

#[test]
fn no_post_arrives_twice_when_an_origin_closes_idle_connections() {
    for (upstream, closing) in CASES {
        run(async move {
            let (address, bodies, connections) = restless(upstream, closing).await;
            let proxy = Proxy::between(address, upstream);
            let counts = load(&proxy, "POST", upstream).await;
            let twice = bodies.borrow().values().filter(|count| **count > 1).count();
            assert_eq!(twice, 0, "{upstream:?} {closing:?}");
            assert!(connections.get() > 20, "{upstream:?} {closing:?}: the origin closed too little");
            // What was written cannot go out again, and is answered as such; most is not caught by the race at all.
            let ok = counts.get(&StatusCode::OK).copied().unwrap_or_default();
            let lost = counts.get(&StatusCode::BAD_GATEWAY).copied().unwrap_or_default();
            assert!(proxy.metric("spanmesh_proxy_upstream_resends_total", &[]) > 0.0, "{upstream:?} {closing:?}");
            assert_eq!(ok + lost, 2000, "{upstream:?} {closing:?}: {counts:?}");
            assert!(bodies.borrow().len() >= ok);
        });
    }
}
