//! A head that the HTTP/2 engine refuses by itself is a request too: one line, one number, one flag. And no line comes
//! from anything else that happens to streams. Frames by hand, since no library would send these.

use std::collections::BTreeMap;

use http::{Request, Response};
use serde_json::Value;
use spanmesh_tests::by_hand::{self, StreamOrigin};
use spanmesh_tests::frames::{
    self, ACK, CONTINUATION, DATA, END_HEADERS, END_STREAM, GET, GOAWAY, HEADERS, PING, RST_STREAM, SETTINGS, ask,
    field, frame, hello, reset,
};
use spanmesh_tests::origin::full;
use spanmesh_tests::{Origin, Protocol, Proxy, Wire, eventually, run};

const ENDS: u8 = END_HEADERS | END_STREAM;
const PRIORITY: u8 = 0x20;

type Field = (&'static str, &'static str);
const METHOD: Field = (":method", "GET");
const SCHEME: Field = (":scheme", "http");
const PATH: Field = (":path", "/");
const AUTHORITY: Field = (":authority", "a");

fn block(fields: &[Field]) -> Vec<u8> {
    fields.iter().flat_map(|(name, value)| field(name, value)).collect()
}

/// How many lines there are of each flag, when no connection is left.
async fn flags(proxy: &Proxy, lines: usize) -> BTreeMap<String, usize> {
    proxy.at_rest().await;
    // Whatever was closed until now is written before this.
    let mut last = Wire::connect(proxy.address("in")).await;
    last.write("GET /last HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await;
    last.rest().await;
    eventually("the last line", || proxy.log().iter().any(|line| line["path"] == "/last")).await;
    let mut flags = BTreeMap::new();
    let log: Vec<Value> = proxy.log().into_iter().filter(|line| line["path"] != "/last").collect();
    for line in &log {
        *flags.entry(line["flag"].as_str().expect("a flag").to_owned()).or_default() += 1;
    }
    assert_eq!(log.len(), lines, "{flags:?}");
    assert_eq!(proxy.metric("spanmesh_proxy_requests_total", &[]) as usize, lines + 1);
    flags
}

fn counts(expected: &[(&str, usize)]) -> BTreeMap<String, usize> {
    expected.iter().map(|(flag, count)| ((*flag).to_owned(), *count)).collect()
}

/// The end of this stream, which others may come before; `None` if the connection ends first.
async fn end_of(wire: &mut Wire, stream: u32) -> Option<frames::Frame> {
    loop {
        let frame = frames::read(wire).await?;
        let ends = frame.kind == RST_STREAM || matches!(frame.kind, HEADERS | DATA) && frame.flags & END_STREAM != 0;
        if frame.stream == stream && ends {
            return Some(frame);
        }
    }
}

fn malformed() -> Vec<(&'static str, Vec<u8>)> {
    let head = |fields: &[Field]| frame(HEADERS, ENDS, 3, &block(fields));
    let all = [METHOD, SCHEME, PATH, AUTHORITY];
    let with = |field: Field| head(&[&all[..], &[field]].concat());
    let long = block(&[SCHEME, PATH, AUTHORITY]);
    vec![
        ("no method", head(&[SCHEME, PATH, AUTHORITY])),
        ("no scheme", head(&[METHOD, PATH, AUTHORITY])),
        ("an empty path", head(&[METHOD, SCHEME, (":path", ""), AUTHORITY])),
        ("a bad authority", head(&[METHOD, SCHEME, PATH, (":authority", "a b")])),
        ("two paths", with(PATH)),
        ("a status", with((":status", "200"))),
        ("one behind a field", head(&[METHOD, SCHEME, ("x", "y"), PATH, AUTHORITY])),
        ("a protocol for GET", with((":protocol", "websocket"))),
        ("connection", with(("connection", "close"))),
        ("te", with(("te", "gzip"))),
        ("a length of nothing", with(("content-length", "5"))),
        ("a length that is none", with(("content-length", "x"))),
        ("a stream that depends on itself", frame(HEADERS, ENDS | PRIORITY, 3, &[&[0, 0, 0, 3, 0], GET].concat())),
        (
            "in pieces",
            [
                frame(HEADERS, END_STREAM, 3, &long[..5]),
                frame(CONTINUATION, 0, 3, &long[5..9]),
                frame(CONTINUATION, END_HEADERS, 3, &long[9..]),
            ]
            .concat(),
        ),
    ]
}

#[test]
fn each_malformed_head_leaves_one_line_and_its_connection_goes_on() {
    run(async {
        let origin = Origin::hello(Protocol::Http1).await;
        for (what, head) in malformed() {
            let proxy = Proxy::between(origin.address, Protocol::Http1);
            let mut wire = Wire::connect(proxy.address("in")).await;
            wire.write([hello(), ask(1, true), head, ask(5, true)].concat()).await;
            assert_eq!(end_of(&mut wire, 5).await.map(|frame| frame.kind), Some(DATA), "{what}");
            let line = proxy.logged(3).await.into_iter().find(|line| line["flag"] != "ok").expect("its line");
            assert_eq!(line["flag"], "bad_request", "{what}");
            assert_eq!((&line["protocol"], line.get("status")), (&Value::from("HTTP/2"), None), "{what}");
            drop(wire);
            assert_eq!(flags(&proxy, 3).await, counts(&[("bad_request", 1), ("ok", 2)]), "{what}");
        }
    });
}

#[test]
fn a_head_that_ends_its_connection_leaves_one_line() {
    let all = block(&[METHOD, SCHEME, PATH, AUTHORITY]);
    let rows = [
        ("a capital", frame(HEADERS, ENDS, 3, &block(&[METHOD, SCHEME, PATH, AUTHORITY, ("X", "y")])), "bad_request"),
        ("an index of nothing", frame(HEADERS, ENDS, 3, &[0x80]), "bad_request"),
        ("half an integer", frame(HEADERS, ENDS, 3, &[0xff]), "bad_request"),
        ("broken before its end", frame(HEADERS, 0, 3, &[0x80]), "bad_request"),
        ("an even stream", frame(HEADERS, ENDS, 4, &all), "bad_request"),
        ("padding beyond the frame", frame(HEADERS, ENDS | 8, 3, &[200, 0x82]), "bad_request"),
        ("a frame between its pieces", [frame(HEADERS, 0, 3, GET), frame(PING, 0, 0, &[0; 8])].concat(), "bad_request"),
    ];
    run(async move {
        let origin = Origin::hello(Protocol::Http1).await;
        for (what, head, flag) in rows {
            let proxy = Proxy::between(origin.address, Protocol::Http1);
            let mut wire = Wire::connect(proxy.address("in")).await;
            wire.write([hello(), ask(1, true)].concat()).await;
            assert!(end_of(&mut wire, 1).await.is_some(), "{what}");
            wire.write(head).await;
            wire.rest().await;
            drop(wire);
            assert_eq!(flags(&proxy, 2).await, counts(&[(flag, 1), ("ok", 1)]), "{what}");
        }
    });
}

#[test]
fn a_connection_that_breaks_outside_of_a_head_leaves_no_line() {
    run(async {
        let origin = Origin::hello(Protocol::Http1).await;
        for bytes in [frame(DATA, 0, 9, b"x"), frame(PING, 0, 0, b"short"), frame(SETTINGS, ACK, 0, b"x")] {
            let proxy = Proxy::between(origin.address, Protocol::Http1);
            let mut wire = Wire::connect(proxy.address("in")).await;
            wire.write([hello(), ask(1, true)].concat()).await;
            assert!(end_of(&mut wire, 1).await.is_some());
            wire.write(bytes).await;
            wire.rest().await;
            drop(wire);
            assert_eq!(flags(&proxy, 1).await, counts(&[("ok", 1)]));
        }
    });
}

#[test]
fn a_head_that_the_engine_finds_too_large_is_one_too_large() {
    run(async {
        let origin = Origin::hello(Protocol::Http1).await;
        // The engine has four times the room.
        for (size, status) in [(2000, true), (5000, true), (10_000, true)] {
            for ends in [0, END_STREAM] {
                let proxy = Proxy::limited("inbound", &origin, "headerBytes: 1Ki");
                let mut wire = Wire::connect(proxy.address("in")).await;
                let large = [GET, &field("x", &"y".repeat(size))].concat();
                let head = frame(HEADERS, END_HEADERS | ends, 3, &large);
                wire.write([hello(), ask(1, true), head, ask(5, true)].concat()).await;
                assert_eq!(end_of(&mut wire, 5).await.map(|frame| frame.kind), Some(DATA), "{size}");
                eventually("it is counted", || proxy.reached("header_bytes") == 1.0).await;
                let line = proxy.logged(3).await.into_iter().find(|line| line["flag"] != "ok").expect("its line");
                assert_eq!((&line["flag"], line["status"] == 431), (&"too_large".into(), status), "{size}: {line}");
                drop(wire);
                assert_eq!(flags(&proxy, 3).await, counts(&[("too_large", 1), ("ok", 2)]), "{size}");
            }
        }
    });
}

/// All in one piece, one byte at a time, and in pieces of any length.
#[test]
fn heads_that_are_refused_among_heads_that_are_not_leave_as_many_lines() {
    run(async {
        let origin = Origin::hello(Protocol::Http1).await;
        for piece in [usize::MAX, 1, 7, 100] {
            let proxy = Proxy::limited("inbound", &origin, "headerBytes: 1Ki");
            let mut wire = Wire::connect(proxy.address("in")).await;
            let large = [GET, &field("x", &"y".repeat(5000))].concat();
            let mut bytes = hello();
            for number in 0..100 {
                let stream = 2 * number + 1;
                bytes.extend(match number % 10 {
                    3 | 8 => frame(HEADERS, ENDS, stream, &block(&[SCHEME, PATH, AUTHORITY])),
                    5 if piece > 1 => frame(HEADERS, ENDS, stream, &large),
                    _ => ask(stream, true),
                });
            }
            for piece in bytes.chunks(piece.min(bytes.len())) {
                wire.write(piece).await;
            }
            for _ in 0..100 {
                loop {
                    let frame = frames::read(&mut wire).await.expect("the connection goes on");
                    if frame.kind == RST_STREAM || frame.stream > 0 && frame.flags & END_STREAM != 0 {
                        break;
                    }
                }
            }
            drop(wire);
            let large = if piece > 1 { 10 } else { 0 };
            let mut expected = counts(&[("bad_request", 20), ("ok", 80 - large)]);
            if large > 0 {
                expected.insert("too_large".to_owned(), large);
            }
            assert_eq!(flags(&proxy, 100).await, expected, "{piece}");
        }
    });
}

/// Streams of every fate: taken back before anybody looked, refused because there are too many, reset by the engine for
/// what follows their head, answered.
#[test]
fn streams_that_end_otherwise_leave_no_line_too_many() {
    run(async {
        let origin = Origin::start(Protocol::Http1, |request| async move {
            if request.uri().path() == "/wait" {
                std::future::pending::<()>().await;
            }
            Response::new(full("hello"))
        })
        .await;
        let proxy = Proxy::limited("inbound", &origin, "streams: 100");
        // A hundred at once.
        let mut wire = Wire::connect(proxy.address("in")).await;
        let heads: Vec<u8> = (0..100).flat_map(|number| ask(2 * number + 1, true)).collect();
        wire.write([hello(), heads].concat()).await;
        for _ in 0..100 {
            while frames::read(&mut wire).await.expect("a frame").flags & END_STREAM == 0 {}
        }
        drop(wire);
        assert_eq!(flags(&proxy, 100).await, counts(&[("ok", 100)]));

        // Fifty, each taken back in the same breath.
        let mut wire = Wire::connect(proxy.address("in")).await;
        let heads = (0..50).map(|number| 2 * number + 1);
        let bytes: Vec<u8> =
            heads.flat_map(|stream| [ask(stream, true), reset(stream, h2::Reason::CANCEL)].concat()).collect();
        wire.write([hello(), bytes, ask(101, true)].concat()).await;
        assert!(end_of(&mut wire, 101).await.is_some());
        drop(wire);
        assert_eq!(proxy.logged(152).await.len(), 152, "with the one before");
        proxy.at_rest().await;
        let lines = proxy.log().iter().filter(|line| line["flag"] == "bad_request").count();
        assert_eq!((proxy.log().len(), lines), (152, 0));

        // A hundred that wait and twenty more.
        let mut wire = Wire::connect(proxy.address("in")).await;
        let heads: Vec<u8> =
            (0..120).flat_map(|number| frame(HEADERS, ENDS, 2 * number + 1, &frames::get("/wait"))).collect();
        wire.write([hello(), heads].concat()).await;
        assert!(end_of(&mut wire, 239).await.is_some());
        eventually("they are counted", || proxy.reached("streams") == 20.0).await;
        drop(wire);
        proxy.at_rest().await;
        assert_eq!(proxy.logged(252).await.len(), 252);

        // A body that is longer than was said.
        let mut wire = Wire::connect(proxy.address("in")).await;
        let head = block(&[(":method", "POST"), SCHEME, PATH, AUTHORITY, ("content-length", "1")]);
        let long = [frame(HEADERS, END_HEADERS, 1, &head), frame(DATA, 0, 1, b"hello")].concat();
        wire.write([hello(), long, ask(3, true)].concat()).await;
        assert!(end_of(&mut wire, 3).await.is_some());
        drop(wire);
        proxy.at_rest().await;
        proxy.logged(254).await;
        assert_eq!(proxy.metric("spanmesh_proxy_requests_total", &[]), 254.0);
        assert_eq!(proxy.log().len(), 254);
    });
}

/// An origin's REFUSED_STREAM, passed on, is no refusal of ours.
#[test]
fn an_origin_that_refuses_streams_hides_no_head_and_reaches_no_limit() {
    run(async {
        let origin = StreamOrigin::start(|_, mut respond| async move {
            respond.send_reset(h2::Reason::REFUSED_STREAM);
        })
        .await;
        let proxy = Proxy::between(origin.address, Protocol::Http2);
        let mut wire = Wire::connect(proxy.address("in")).await;
        wire.write([hello(), ask(1, true)].concat()).await;
        let refused = end_of(&mut wire, 1).await.expect("a reset");
        assert_eq!((refused.kind, refused.payload[3]), (RST_STREAM, 7));
        wire.write(frame(HEADERS, ENDS, 3, &block(&[METHOD]))).await;
        assert!(end_of(&mut wire, 3).await.is_some());
        let log = proxy.logged(2).await;
        assert_eq!((&log[0]["flag"], &log[1]["flag"]), (&"upstream_reset".into(), &"bad_request".into()));
        assert_eq!(proxy.reached("streams"), 0.0);
    });
}

/// Behind the answer to the PING that comes with GOAWAY a new stream is nobody's (RFC 9113 §6.8); before it, one is served.
#[test]
fn a_drain_leaves_as_many_lines_as_requests() {
    run(async {
        let origin = Origin::hello(Protocol::Http1).await;
        let mut proxy = Proxy::between(origin.address, Protocol::Http1);
        let mut wire = Wire::connect(proxy.address("in")).await;
        wire.write([hello(), ask(1, true)].concat()).await;
        assert!(end_of(&mut wire, 1).await.is_some());
        proxy.drain();
        let ping = loop {
            let frame = frames::read(&mut wire).await.expect("a frame");
            if frame.kind == PING && frame.flags & ACK == 0 {
                break frame.payload;
            }
            assert!(matches!(frame.kind, GOAWAY | SETTINGS | PING), "{frame:?}");
        };
        let late: Vec<u8> = (0..20).flat_map(|number| ask(2 * number + 5, true)).collect();
        let bad = frame(HEADERS, ENDS, 101, &block(&[METHOD]));
        wire.write([ask(3, true), frame(PING, ACK, 0, &ping), late, bad].concat()).await;
        wire.rest().await;
        proxy.ended().await;
        let log = proxy.log();
        assert_eq!(log.iter().filter(|line| line["flag"] == "ok").count(), log.len());
        assert_eq!(log.len(), 2, "{log:?}");
    });
}

/// The engine drops a head that came with the connection's end.
#[test]
fn a_client_that_asks_and_is_gone_leaves_one_line() {
    run(async {
        let origin = Origin::hello(Protocol::Http1).await;
        for count in [1, 5] {
            let proxy = Proxy::between(origin.address, Protocol::Http1);
            for _ in 0..20 {
                let mut wire = Wire::connect(proxy.address("in")).await;
                let heads: Vec<u8> = (0..count).flat_map(|number| ask(2 * number + 1, true)).collect();
                wire.write([hello(), heads].concat()).await;
            }
            let seen = flags(&proxy, 20 * count as usize).await;
            assert!(seen.keys().all(|flag| flag == "client_reset" || flag == "ok"), "{seen:?}");
        }
    });
}

/// What the engine says waits behind bodies that the client does not read.
#[test]
fn a_client_that_does_not_read_is_counted_as_well() {
    run(async {
        let origin = Origin::start(Protocol::Http1, |_| async { Response::new(full(vec![b'x'; 200_000])) }).await;
        let proxy = Proxy::limited("inbound", &origin, "streams: 100");
        let mut wire = Wire::connect(proxy.address("in")).await;
        let window = [&[0, 4][..], &(1u32 << 30).to_be_bytes()].concat();
        let more = frame(frames::WINDOW_UPDATE, 0, 0, &(1u32 << 30).to_be_bytes());
        let mut bytes = [frames::PREFACE.to_vec(), frame(SETTINGS, 0, 0, &window), more].concat();
        bytes.extend((0..40).flat_map(|number| ask(2 * number + 1, true)));
        wire.write(bytes).await;
        // The socket is full before these come.
        eventually("all are asked", || origin.requests.get() == 40).await;
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        let mut bytes = Vec::new();
        for number in 40..60 {
            let stream = 2 * number + 1;
            let bad = number % 2 == 0;
            bytes.extend(if bad { frame(HEADERS, ENDS, stream, &block(&[METHOD])) } else { ask(stream, true) });
        }
        wire.write(bytes).await;
        let (mut served, mut broken) = (0, 0);
        while served + broken < 60 {
            let frame = frames::read(&mut wire).await.expect("the connection goes on");
            match frame.kind {
                RST_STREAM => broken += 1,
                DATA if frame.flags & END_STREAM != 0 => served += 1,
                _ => {}
            }
        }
        drop(wire);
        assert_eq!(flags(&proxy, 60).await, counts(&[("bad_request", 10), ("ok", 50)]));
    });
}

/// The same beside a library's client, whose hundred requests go on.
#[test]
fn a_librarys_hundred_streams_leave_a_hundred_lines() {
    run(async {
        let origin = Origin::hello(Protocol::Http1).await;
        let proxy = Proxy::between(origin.address, Protocol::Http1);
        let mut client = by_hand::connect(proxy.address("in")).await;
        let mut answers = Vec::new();
        for _ in 0..100 {
            client = client.ready().await.expect("ready");
            let (answer, _) =
                client.send_request(Request::get("http://a/").body(()).expect("request"), true).expect("send");
            answers.push(answer);
        }
        for answer in answers {
            let mut body = answer.await.expect("an answer").into_body();
            while let Some(data) = body.data().await {
                let size = data.expect("data").len();
                let _ = body.flow_control().release_capacity(size);
            }
        }
        assert_eq!(proxy.logged(100).await.len(), 100);
        assert_eq!(proxy.metric("spanmesh_proxy_requests_total", &[]), 100.0);
    });
}
