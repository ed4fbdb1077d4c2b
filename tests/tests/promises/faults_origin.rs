//! An origin may break at any point: the client gets an answer from the table, or a body that is visibly cut, and never
//! half a body that looks whole. The log says what it was, and a neighbour's request is answered as if nothing had been.

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

/// What an HTTP/1.1 origin says to each request, how it goes on, what the client sees, and the flag.
const HTTP1: &[(&str, End, Seen, &str)] = &[
    // Nothing, or less than a head.
    ("", Close, Status(502), "upstream_closed"),
    ("", Reset, Status(502), "upstream_reset"),
    ("", Stay, Status(504), "request_timeout"),
    ("HTT", Close, Status(502), "upstream_closed"),
    ("HTTP/1.1 200 OK\r\ncontent-le", Close, Status(502), "upstream_closed"),
    ("HTTP/1.1 200 OK\r\ncontent-le", Reset, Status(502), "upstream_reset"),
    ("HTTP/1.1 200 OK\r\ncontent-le", Stay, Status(504), "request_timeout"),
    ("HTTP/1.1 103 Early\r\nlink: a\r\n\r\n", Close, Status(502), "upstream_closed"),
    // Half an answer.
    ("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n", Close, Cut, "upstream_closed"),
    ("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n", Reset, Cut, "upstream_reset"),
    ("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf", Close, Cut, "upstream_closed"),
    ("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf", Reset, Cut, "upstream_reset"),
    ("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf", Stay, Cut, "idle_timeout"),
    ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", Close, Cut, "upstream_closed"),
    ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\na", Close, Cut, "upstream_closed"),
    ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\na\r\nhalf", Close, Cut, "upstream_closed"),
    ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\na\r\nhalf", Reset, Cut, "upstream_reset"),
    ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\na\r\nhalf", Stay, Cut, "idle_timeout"),
    ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n", Close, Cut, "upstream_closed"),
    ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n0\r\n", Close, Cut, "upstream_closed"),
    // Up to the connection's end: a quiet one is its end, a reset is not.
    ("HTTP/1.1 200 OK\r\n\r\nto the end", Close, Whole("to the end"), "ok"),
    ("HTTP/1.1 200 OK\r\n\r\nto the end", Reset, Cut, "upstream_reset"),
    // Whole, and then gone.
    ("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nwhole", Reset, Whole("whole"), "ok"),
    ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nwhole\r\n0\r\n\r\n", Reset, Whole("whole"), "ok"),
    // Lies.
    ("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nwhole and more", Stay, Whole("whole"), "ok"),
    ("HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nwhole", Stay, Status(502), "protocol_error"),
    ("HTTP/1.1 200 OK\r\ncontent-length: -5\r\n\r\nwhole", Stay, Status(502), "protocol_error"),
    ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nwhole\r\n", Stay, Cut, "protocol_error"),
    ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nwhole\r\n0\r\n\r\n", Stay, Cut, "protocol_error"),
    ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nfffffffffffffffff\r\n", Stay, Cut, "protocol_error"),
    ("\0\u{1}\u{2} no answer\r\n\r\n", Stay, Status(502), "protocol_error"),
    ("HTTP/1.1 20x OK\r\n\r\n", Stay, Status(502), "protocol_error"),
    ("HTTP/1.1 101 Switching\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n", Stay, Status(502), "protocol_error"),
];

#[test]
fn an_http1_origin_that_breaks_anywhere_is_told_apart_and_never_passed_off_as_whole() {
    for protocol in [Protocol::Http1, Protocol::Http2] {
        run(async move {
            let case = Rc::new(Cell::new(0));
            let now = case.clone();
            let address = Wire::serve(move |mut wire, _| {
                let (answer, end, ..) = HTTP1[now.get()];
                async move {
                    if read_http1(&mut wire).await.is_some() {
                        wire.write(answer).await;
                        end.of(wire).await;
                    }
                }
            })
            .await;
            let mut proxies = [Stay, Close].map(|end| (between(address, Protocol::Http1, end, ""), 0));
            for (number, (answer, end, seen, flag)) in HTTP1.iter().enumerate() {
                case.set(number);
                let (proxy, lines) = &mut proxies[usize::from(*end != Stay)];
                // One after the other: what one leaves behind must not reach the next.
                for method in ["GET", "POST"] {
                    let what = format!("{protocol:?} {method} {answer:?} {end:?}");
                    assert_seen(proxy, protocol, method, *seen, *end, &what).await;
                    *lines += 1;
                    assert_flag(proxy, *lines, flag, &what).await;
                }
            }
            for (proxy, _) in &proxies {
                nothing_left(proxy).await;
            }
        });
    }
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

/// The second answer, which nobody asked for, must not become that of the next request.
#[test]
fn an_answer_too_many_reaches_nobody() {
    for protocol in [Protocol::Http1, Protocol::Http2] {
        for extra in ["HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil", "evil"] {
            run(async move {
                let address = Wire::serve(move |mut wire, _| async move {
                    while let Some((_, path, _)) = read_http1(&mut wire).await {
                        let length = path.len();
                        wire.write(format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{path}{extra}")).await;
                    }
                })
                .await;
                let proxy = between(address, Protocol::Http1, Close, "");
                let mut client = Client::connect(protocol, proxy.address("in")).await;
                for turn in 0..200 {
                    let path = format!("/{turn}");
                    assert_eq!(client.get(&path).await.body, path);
                }
                drop(client);
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

/// What an HTTP/2 origin says to the head on this stream.
fn http2(stream: u32) -> Vec<(&'static str, Vec<u8>, End, Seen, &'static str)> {
    let head = frame(HEADERS, END_HEADERS, stream, OK);
    let long = |length| frame(HEADERS, END_HEADERS, stream, &[OK, &literal("content-length", length)].concat());
    let half = frame(DATA, 0, stream, b"half");
    let end = frame(DATA, END_STREAM, stream, b"half");
    let no_error = h2::Reason::NO_ERROR;
    vec![
        ("closes", vec![], Close, Status(502), "upstream_closed"),
        ("resets", vec![], Reset, Status(502), "upstream_reset"),
        ("says nothing", vec![], Stay, Status(504), "request_timeout"),
        ("closes in the head", head[..5].to_vec(), Close, Status(502), "upstream_closed"),
        ("begins a head", frame(HEADERS, 0, stream, OK), Close, Status(502), "upstream_closed"),
        ("closes behind the head", head.clone(), Close, Cut, "upstream_closed"),
        ("closes in the body", [&head[..], &half].concat(), Close, Cut, "upstream_closed"),
        ("resets in the body", [&head[..], &half].concat(), Reset, Cut, "upstream_reset"),
        ("closes in a frame", [&head[..], &half[..11]].concat(), Close, Cut, "upstream_closed"),
        ("stalls in the body", [&head[..], &half].concat(), Stay, Cut, "idle_timeout"),
        ("is whole, then resets", [&head[..], &end].concat(), Reset, Whole("half"), "ok"),
        ("refuses", reset(stream, h2::Reason::REFUSED_STREAM), Stay, Gone, "upstream_reset"),
        (
            "resets the stream in its body",
            [&head[..], &half, &reset(stream, no_error)].concat(),
            Stay,
            Cut,
            "upstream_reset",
        ),
        ("is shorter than it says", [&long("9")[..], &end].concat(), Stay, Cut, "protocol_error"),
        ("is longer than it says", [&long("2")[..], &end].concat(), Stay, Cut, "protocol_error"),
        ("says goodbye and goes on", [&head[..], &goaway(stream, no_error), &end].concat(), Close, Whole("half"), "ok"),
        (
            "says goodbye and leaves",
            [&head[..], &half, &goaway(stream, no_error)].concat(),
            Close,
            Cut,
            "upstream_closed",
        ),
        // Up to the last stream that a GOAWAY names all go on (RFC 9113 §6.8), so what ends this one is the close.
        (
            "fails in the body",
            [&head[..], &half, &goaway(stream, h2::Reason::INTERNAL_ERROR)].concat(),
            Close,
            Cut,
            "upstream_closed",
        ),
        ("fails before the head", goaway(stream, h2::Reason::INTERNAL_ERROR), Close, Status(502), "upstream_closed"),
        ("sends a body without a head", end.clone(), Stay, Status(502), "protocol_error"),
        (
            "sends a head that cannot be read",
            frame(HEADERS, END_HEADERS, stream, &[0xff; 9]),
            Stay,
            Status(502),
            "protocol_error",
        ),
        (
            "sends a head without a status",
            frame(HEADERS, END_HEADERS, stream, &literal("a", "b")),
            Stay,
            Status(502),
            "protocol_error",
        ),
        ("sends another head", [&head[..], &half, &head, &end].concat(), Stay, Cut, "protocol_error"),
        ("sends on a stream of nobody", frame(DATA, 0, 77, b"?"), Stay, Status(502), "protocol_error"),
        ("sends a frame that is too large", frame(DATA, 0, stream, &[0; 40_000]), Stay, Status(502), "protocol_error"),
        ("speaks HTTP/1.1", b"HTTP/1.1 400 Bad\r\n\r\n".to_vec(), Close, Status(502), "protocol_error"),
    ]
}

#[test]
fn an_http2_origin_that_breaks_anywhere_is_told_apart_and_never_passed_off_as_whole() {
    for protocol in [Protocol::Http1, Protocol::Http2] {
        beside(0..http2(1).len(), |number| async move {
            let (name, _, end, seen, flag) = http2(1).swap_remove(number);
            let asked = Rc::new(Cell::new(0));
            let count = asked.clone();
            let address = Wire::serve(move |mut wire, _| {
                let count = count.clone();
                async move {
                    frames::begin(&mut wire).await;
                    // All of it: an end that meets a request on its way makes a whole answer one that breaks off.
                    while let Some(stream) = frames::request(&mut wire).await {
                        count.set(count.get() + 1);
                        wire.write(&http2(stream).swap_remove(number).1).await;
                        if end != Stay {
                            return end.of(wire).await;
                        }
                    }
                }
            })
            .await;
            let proxy = between(address, Protocol::Http2, end, "");
            for (turn, method) in ["GET", "POST"].into_iter().enumerate() {
                let what = format!("{protocol:?} {method}: the origin {name}");
                assert_seen(&proxy, protocol, method, seen, end, &what).await;
                assert_flag(&proxy, turn + 1, flag, &what).await;
                // It may have acted on what it saw.
                assert_eq!(asked.get(), turn + 1, "{what}");
            }
            nothing_left(&proxy).await;
        });
    }
}

/// An origin may answer before it has the whole request, and leave. What it said in full is passed on in full, however
/// late the client reads it.
#[test]
fn an_answer_that_was_whole_before_the_request_survives_the_connection() {
    for protocol in [Protocol::Http1, Protocol::Http2] {
        for end in [Close, Reset] {
            run(async move {
                let size = 8 * 16_000;
                let address = Wire::serve(move |mut wire, _| async move {
                    let Some(stream) = frames::accept(&mut wire).await else { return };
                    wire.write(frame(HEADERS, END_HEADERS, stream, OK)).await;
                    for piece in 1..=8 {
                        let flags = if piece == 8 { END_STREAM } else { 0 };
                        wire.write(frame(DATA, flags, stream, &[b'x'; 16_000])).await;
                    }
                    end.of(wire).await;
                })
                .await;
                let proxy = between(address, Protocol::Http2, Close, "");
                let mut client = Client::connect(protocol, proxy.address("in")).await;
                let (_feed, body) = channel();
                let request = client.request("POST", "/").body(body).expect("request");
                let answer = client.send(request).await.expect("a head");
                no_connection(&proxy).await;
                let answer = whole(answer).await.unwrap_or_else(|error| panic!("{protocol:?} {end:?}: {error:?}"));
                assert_eq!(answer.body.len(), size, "{protocol:?} {end:?}");
                assert_flag(&proxy, 1, "ok", "the answer").await;
                drop(client);
                nothing_left(&proxy).await;
            });
        }
    }
}

/// Beyond the last stream that a GOAWAY names nothing was looked at, so that anything may go out again, and does so
/// before anyone notices; but not for ever.
#[test]
fn a_goodbye_before_the_request_was_looked_at_sends_it_elsewhere_once_and_not_for_ever() {
    for protocol in [Protocol::Http1, Protocol::Http2] {
        for (reason, always) in [
            (h2::Reason::NO_ERROR, false),
            (h2::Reason::NO_ERROR, true),
            (h2::Reason::ENHANCE_YOUR_CALM, false),
            (h2::Reason::ENHANCE_YOUR_CALM, true),
        ] {
            run(async move {
                let connections = Rc::new(Cell::new(0));
                let count = connections.clone();
                let address = Wire::serve(move |mut wire, number| {
                    count.set(number + 1);
                    async move {
                        let Some(stream) = frames::accept(&mut wire).await else { return };
                        if always || number == 0 {
                            wire.write(goaway(0, reason)).await;
                        } else {
                            let head = frame(HEADERS, END_HEADERS, stream, OK);
                            wire.write([head, frame(DATA, END_STREAM, stream, b"whole")].concat()).await;
                        }
                        wire.rest().await;
                    }
                })
                .await;
                let proxy = between(address, Protocol::Http2, Close, "");
                let seen = if always { Gone } else { Whole("whole") };
                let what = format!("{reason:?} always: {always}");
                let mut client = Client::connect(protocol, proxy.address("in")).await;
                let request = client.request("POST", "/").body(full("the body")).expect("request");
                let answer = client.send(request).await.map(|answer| answer.status().as_u16());
                match seen {
                    Gone => assert_eq!(answer.expect("an answer from the table"), 502, "{what}"),
                    _ => assert_eq!(answer.expect("an answer"), 200, "{what}"),
                }
                let tries = if always { 3 } else { 2 };
                assert_eq!(connections.get(), tries, "{what}");
                assert_eq!(proxy.metric("spanmesh_proxy_upstream_resends_total", &[]) as usize, tries - 1, "{what}");
                drop(client);
                nothing_left(&proxy).await;
            });
        }
    }
}

#[test]
fn a_refused_stream_goes_out_again_by_the_routes_policy_and_arrives_once() {
    for protocol in [Protocol::Http1, Protocol::Http2] {
        run(async move {
            let answered = Rc::new(Cell::new(0));
            let count = answered.clone();
            let address = Wire::serve(move |mut wire, _| {
                let count = count.clone();
                async move {
                    let Some(mut stream) = frames::accept(&mut wire).await else { return };
                    wire.write(reset(stream, h2::Reason::REFUSED_STREAM)).await;
                    while let Some(next) = frames::head(&mut wire).await {
                        stream = next;
                        count.set(count.get() + 1);
                        let head = frame(HEADERS, END_HEADERS, stream, OK);
                        wire.write([head, frame(DATA, END_STREAM, stream, b"whole")].concat()).await;
                    }
                }
            })
            .await;
            let retry = ", retry: {attempts: 1, on: [refusedStream], backoff: 1ms}";
            let proxy = between(address, Protocol::Http2, Close, retry);
            assert_seen(&proxy, protocol, "POST", Whole("whole"), Stay, "refused once").await;
            assert_eq!(answered.get(), 1);
            assert_flag(&proxy, 1, "ok", "refused once").await;
            nothing_left(&proxy).await;
        });
    }
}

/// Under TLS a connection's end counts only if it was announced: anyone on the way can close a TCP connection.
#[test]
fn an_end_without_tls_own_goodbye_is_no_end_of_a_body() {
    for protocol in [Protocol::Http1, Protocol::Http2] {
        for (answer, goodbye, seen, flag) in [
            ("HTTP/1.1 200 OK\r\n\r\nto the end", true, Whole("to the end"), "ok"),
            ("HTTP/1.1 200 OK\r\n\r\nto the end", false, Cut, "upstream_closed"),
            ("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf", true, Cut, "upstream_closed"),
            ("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf", false, Cut, "upstream_closed"),
            ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n", false, Cut, "upstream_closed"),
            ("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nwhole", false, Whole("whole"), "ok"),
            ("", false, Status(502), "upstream_closed"),
            ("", true, Status(502), "upstream_closed"),
        ] {
            run(async move {
                let authority = Authority::new();
                let acceptor = authority.leaf(&["a.example"]).server(&["http/1.1"]);
                let address = Wire::serve(move |wire, _| {
                    let acceptor = acceptor.clone();
                    async move {
                        let mut stream = acceptor.accept(wire.stream).await.expect("a handshake");
                        let mut head = vec![0; 4096];
                        let _ = stream.read(&mut head).await;
                        stream.write_all(answer.as_bytes()).await.expect("write");
                        stream.flush().await.expect("flush");
                        if goodbye {
                            let _ = stream.shutdown().await;
                        }
                        let (mut socket, _) = stream.into_inner();
                        let _ = socket.shutdown().await;
                        let _ = socket.read_to_end(&mut head).await;
                    }
                })
                .await;
                let proxy = secure(&authority, address);
                let what = format!("{protocol:?} {answer:?} goodbye: {goodbye}");
                assert_seen(&proxy, protocol, "GET", seen, Close, &what).await;
                assert_flag(&proxy, 1, flag, &what).await;
                nothing_left(&proxy).await;
            });
        }
    }
}

fn secure(authority: &Authority, address: std::net::SocketAddr) -> Proxy {
    let dir = Dir::new();
    dir.write("root.pem", authority.pem());
    Proxy::start_in(
        dir,
        &format!(
            "listeners:\n- {{name: in, mode: inbound, address: '127.0.0.1:0', upstream: app}}\n\
             upstreams:\n- {{name: app, addresses: ['{address}'], idleTimeout: 300ms, http2IdleTimeout: 300ms, \
             connectTimeout: 1s, tls: {{rootFile: DIR/root.pem, serverName: a.example}}}}\n"
        ),
    )
}

#[test]
fn an_origin_that_leaves_during_the_handshake_is_a_503() {
    for protocol in [Protocol::Http1, Protocol::Http2] {
        for (read, answer, end, status, flag) in [
            (0, "", Close, 503, "tls_failed"),
            (0, "", Reset, 503, "tls_failed"),
            (1, "", Reset, 503, "tls_failed"),
            (100, "", Close, 503, "tls_failed"),
            (100, "\u{16}\u{3}\u{3}", Close, 503, "tls_failed"),
            (100, "HTTP/1.1 400 Bad Request\r\n\r\n", Close, 503, "tls_failed"),
            (100, "\u{16}\u{3}\u{3}", Stay, 504, "connect_timeout"),
        ] {
            run(async move {
                let authority = Authority::new();
                let address = Wire::serve(move |mut wire, _| async move {
                    wire.try_exactly(read).await;
                    let _ = wire.send(answer.as_bytes()).await;
                    end.of(wire).await;
                })
                .await;
                let proxy = secure(&authority, address);
                let what = format!("{protocol:?} after {read}: {answer:?} {end:?}");
                assert_seen(&proxy, protocol, "POST", Status(status), end, &what).await;
                assert_flag(&proxy, 1, flag, &what).await;
                nothing_left(&proxy).await;
            });
        }
    }
}

/// A client of HTTP/1.0 knows an answer's end only by the connection's, so a cut answer must not end like a whole one.
#[test]
fn half_an_answer_ends_with_a_reset_where_only_the_connections_end_tells() {
    for end in [Close, Reset] {
        for answer in ["content-length: 10\r\n\r\nhalf", "transfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n"] {
            run(async move {
                let address = Wire::serve(move |mut wire, _| async move {
                    read_http1(&mut wire).await;
                    wire.write(format!("HTTP/1.1 200 OK\r\n{answer}")).await;
                    end.of(wire).await;
                })
                .await;
                let proxy = between(address, Protocol::Http1, Close, "");
                let mut wire = Wire::connect(proxy.address("in")).await;
                wire.write("GET / HTTP/1.0\r\nhost: a\r\n\r\n").await;
                let mut rest = Vec::new();
                let ended = wire.stream.read_to_end(&mut rest).await;
                let text = String::from_utf8_lossy(&rest);
                assert!(
                    ended.is_err() || text.contains("content-length: 10"),
                    "{answer:?} {end:?}: looks whole: {text}"
                );
                nothing_left(&proxy).await;
            });
        }
    }
}
