//! An origin may break at any point: the client gets an answer from the table, or a body that is visibly cut, and never
//! half a body that looks whole. The log says what it was, and a neighbour's request is answered as if nothing had been.

mod http1;
mod http2;
mod tls;

use std::cell::Cell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use spanmesh_tests::client::whole;
use spanmesh_tests::frames::{self, DATA, END_HEADERS, END_STREAM, HEADERS, OK, frame, goaway, literal, reset};
use spanmesh_tests::origin::{channel, full};
use spanmesh_tests::streams::read_http1;
use spanmesh_tests::{Authority, Client, Dir, Protocol, Proxy, Wire, beside, eventually, run};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// What an origin does with its connection after its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Close,
    Reset,
    Stay,
}
use End::{Close, Reset, Stay};

thread_local! {
    /// Heads of answers that this test's clients have seen.
    static HEADS: Cell<usize> = const { Cell::new(0) };
}
/// Where there is no head to be seen.
const UNSEEN: Duration = Duration::from_millis(200);

impl End {
    async fn of(self, mut wire: Wire) {
        match self {
            Close => {
                wire.finish().await;
                wire.rest().await;
            }
            Reset => {
                // It would overtake what was written, of which a client's sight of the head is the proof.
                let (before, until) = (HEADS.get(), Instant::now() + UNSEEN);
                while HEADS.get() == before && Instant::now() < until {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                wire.reset();
            }
            Stay => drop(wire.rest().await),
        }
    }
}

/// What a client sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Seen {
    /// An answer of the proxy's own.
    Status(u16),
    /// A head with 200, and a body that breaks off.
    Cut,
    /// This answer, from the origin.
    Whole(&'static str),
    /// No answer: an HTTP/2 stream that the origin reset. Over HTTP/1.1 a 502 stands for it.
    Gone,
}
use Seen::{Cut, Gone, Status, Whole};

async fn assert_seen(proxy: &Proxy, protocol: Protocol, method: &str, expected: Seen, end: End, what: &str) {
    let mut client = Client::connect(protocol, proxy.address("in")).await;
    let body = if method == "POST" { "the body" } else { "" };
    let request = client.request(method, "/").body(full(body)).expect("request");
    let seen = match client.send(request).await {
        Err(error) => format!("{} {error:?}", if protocol == Protocol::Http2 { "Gone" } else { "nothing" }),
        Ok(answer) => {
            HEADS.set(HEADS.get() + 1);
            let status = answer.status().as_u16();
            match whole(answer).await {
                Err(_) if status == 200 => "Cut".to_owned(),
                Err(error) => format!("{status}, broken off: {error}"),
                Ok(answer) if status == 200 => format!("Whole({:?})", String::from_utf8_lossy(&answer.body)),
                Ok(_) => format!("Status({status})"),
            }
        }
    };
    let expected = match (expected, protocol) {
        (Gone, Protocol::Http1) => "Status(502)".to_owned(),
        // The head may be lost with the body that breaks off right behind it: a reset overtakes what waits to be written.
        (Cut, Protocol::Http1) if seen.starts_with("nothing") => "nothing".to_owned(),
        (Cut, Protocol::Http2) if seen.starts_with("Gone") => "Gone".to_owned(),
        (other, _) => format!("{other:?}"),
    };
    assert!(seen.starts_with(&expected), "{what}: expected {expected}, saw {seen}");
    // The end that comes behind a whole answer is not to meet the next request.
    if end != Stay {
        no_connection(proxy).await;
    }
}

/// Short times, so that what is left open must be closed by the proxy. Who waits for an origin that ends has longer: on a
/// busy machine that may take a while.
fn between(address: std::net::SocketAddr, upstream: Protocol, end: End, route: &str) -> Proxy {
    let fields = "idleTimeout: 300ms, http2IdleTimeout: 300ms";
    let wait = if end == Stay { "500ms" } else { "10s" };
    Proxy::routed(&[address], upstream, fields, &format!("idleTimeout: {wait}{route}"), "")
}

async fn nothing_left(proxy: &Proxy) {
    proxy.at_rest().await;
    no_connection(proxy).await;
}

async fn no_connection(proxy: &Proxy) {
    let open = || proxy.metric("spanmesh_proxy_upstream_connections_active", &[]);
    eventually("no connection to the origin is left", || open() == 0.0).await;
}

async fn assert_flag(proxy: &Proxy, lines: usize, flag: &str, what: &str) {
    let lines = proxy.logged(lines).await;
    assert_eq!(lines.last().expect("a line")["flag"], flag, "{what}: {lines:?}");
}

#[test]
fn an_origin_that_leaves_before_it_has_read_anything_is_a_502_and_no_storm_of_connections() {
    for (client, upstream) in Protocol::PAIRS {
        for end in [Close, Reset] {
            run(async move {
                let connections = Rc::new(Cell::new(0));
                let count = connections.clone();
                let address = Wire::serve(move |wire, _| {
                    count.set(count.get() + 1);
                    async move {
                        if end == Reset {
                            wire.reset()
                        }
                    }
                })
                .await;
                let proxy = between(address, upstream, Close, "");
                for method in ["GET", "POST"] {
                    let mut client = Client::connect(client, proxy.address("in")).await;
                    let request = client.request(method, "/").body(full("the body")).expect("request");
                    let status = client.whole(request).await.status.as_u16();
                    assert!([502, 503].contains(&status), "{upstream:?} {end:?} {method}: {status}");
                }
                assert!(connections.get() <= 8, "{} connections for two requests", connections.get());
                for line in proxy.logged(2).await {
                    let flag = line["flag"].as_str().expect("a flag");
                    assert!(["upstream_closed", "upstream_reset", "connect_failed"].contains(&flag), "{line}");
                }
                nothing_left(&proxy).await;
            });
        }
    }
}

#[test]
fn an_origin_that_leaves_while_nothing_is_asked_costs_no_request() {
    for (client, upstream) in Protocol::PAIRS {
        for end in [Close, Reset] {
            run(async move {
                let address = Wire::serve(move |mut wire, _| async move {
                    match upstream {
                        Protocol::Http1 => {
                            read_http1(&mut wire).await;
                            wire.write("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nwhole").await;
                        }
                        Protocol::Http2 => {
                            let Some(stream) = frames::accept(&mut wire).await else { return };
                            let head = frame(HEADERS, END_HEADERS, stream, OK);
                            wire.write([head, frame(DATA, END_STREAM, stream, b"whole")].concat()).await;
                        }
                    }
                    end.of(wire).await;
                })
                .await;
                let proxy = between(address, upstream, Close, "");
                let mut client = Client::connect(client, proxy.address("in")).await;
                for method in ["GET", "POST"].repeat(3) {
                    let request = client.request(method, "/").body(full("")).expect("request");
                    assert_eq!(client.whole(request).await.body, "whole", "{upstream:?} {end:?} {method}");
                    HEADS.set(HEADS.get() + 1);
                    // Only then is it idle, and only then does the origin leave.
                    no_connection(&proxy).await;
                }
                drop(client);
                nothing_left(&proxy).await;
                assert!(proxy.log().iter().all(|line| line["flag"] == "ok"));
            });
        }
    }
}
