//! Pieces of a body that are small or empty are not what a shared connection to an origin should carry one by one: the
//! origin may count them, and end the connection with the requests of others.

use std::cell::Cell;
use std::rc::Rc;

use spanmesh_tests::client::whole;
use spanmesh_tests::frames::{self, *};
use spanmesh_tests::origin::empty;
use spanmesh_tests::{Client, Origin, Protocol, Proxy, Wire, run};

/// Each connection of the engine's bears a hundred empty pieces in its life, and many clients share one.
#[test]
fn pieces_that_carry_nothing_are_not_sent_on() {
    run(async {
        let origin = Origin::echo(Protocol::Http2).await;
        let proxy = Proxy::between(origin.address, Protocol::Http2);
        for _ in 0..5 {
            let mut wire = Wire::connect(proxy.address("in")).await;
            let empty = frame(DATA, 0, 1, b"").repeat(60);
            wire.write([hello(), ask(1, false), empty, frame(DATA, END_STREAM, 1, b"end")].concat()).await;
            let mut body = Vec::new();
            while let Some(frame) = frames::read(&mut wire).await {
                assert!(![RST_STREAM, GOAWAY].contains(&frame.kind), "{frame:?}");
                if frame.kind == DATA {
                    body.extend(frame.payload);
                    if frame.flags & END_STREAM != 0 {
                        break;
                    }
                }
            }
            assert_eq!(body, b"end");
        }
        assert_eq!(origin.connections.get(), 1);
    });
}

/// What has come already goes on together.
#[test]
fn small_pieces_that_are_there_go_on_as_one() {
    run(async {
        let pieces = Rc::new(Cell::new(0));
        let count = pieces.clone();
        let address = Wire::serve(move |mut wire, _| {
            let count = count.clone();
            async move {
                let Some(stream) = frames::accept(&mut wire).await else { return };
                let mut bytes = 0;
                while let Some(frame) = frames::read(&mut wire).await {
                    if frame.kind == DATA {
                        count.set(count.get() + 1);
                        bytes += frame.payload.len();
                        if frame.flags & END_STREAM != 0 {
                            break;
                        }
                    }
                }
                let head = frame(HEADERS, END_HEADERS, stream, OK);
                let body = frame(DATA, END_STREAM, stream, bytes.to_string().as_bytes());
                wire.write([head, body].concat()).await;
                wire.rest().await;
            }
        })
        .await;
        let proxy = Proxy::between(address, Protocol::Http2);
        let mut wire = Wire::connect(proxy.address("in")).await;
        let tiny = frame(DATA, 0, 1, b"x").repeat(1000);
        wire.write([hello(), ask(1, false), tiny, frame(DATA, END_STREAM, 1, b"!")].concat()).await;
        let mut body = Vec::new();
        while body != b"1001" {
            let frame = frames::read(&mut wire).await.expect("a frame");
            if frame.kind == DATA {
                body.extend(frame.payload);
            }
        }
        assert!(pieces.get() < 100, "{} pieces", pieces.get());
    });
}

/// Some servers write an empty piece behind each answer, or while they have nothing to say. A connection that many share
/// and that lives for an hour bears them all.
#[test]
fn an_origin_that_writes_empty_pieces_keeps_its_connection() {
    run(async {
        let connections = Rc::new(Cell::new(0));
        let count = connections.clone();
        let address = Wire::serve(move |mut wire, _| {
            count.set(count.get() + 1);
            async move {
                let mut next = frames::accept(&mut wire).await;
                // Stays without an answer's end until the others are through.
                let Some(first) = next else { return };
                wire.write([frame(HEADERS, END_HEADERS, first, OK), frame(DATA, 0, first, b"")].concat()).await;
                for _ in 0..200 {
                    next = frames::head(&mut wire).await;
                    let Some(stream) = next else { return };
                    let empty = [frame(DATA, 0, stream, b""), frame(DATA, 0, first, b"")].concat();
                    let answer = [
                        &frame(HEADERS, END_HEADERS, stream, OK)[..],
                        &empty,
                        &frame(DATA, 0, stream, b"whole"),
                        &empty,
                        &frame(DATA, END_STREAM, stream, b""),
                    ];
                    let answer = answer.concat();
                    // Also where the bytes are cut within a frame's first ones.
                    let (one, other) = answer.split_at(9 + 1 + stream as usize % 20);
                    wire.write(one).await;
                    tokio::task::yield_now().await;
                    wire.write(other).await;
                }
                wire.write(frame(DATA, END_STREAM, first, b"at last")).await;
                wire.rest().await;
            }
        })
        .await;
        let proxy = Proxy::between(address, Protocol::Http2);
        let mut slow = Client::connect(Protocol::Http1, proxy.address("in")).await;
        let first = slow.request("GET", "/").body(empty()).expect("request");
        let first = slow.send(first).await.expect("a head");
        let mut client = Client::connect(Protocol::Http2, proxy.address("in")).await;
        for _ in 0..200 {
            assert_eq!(client.get("/").await.body, "whole");
        }
        assert_eq!(whole(first).await.expect("whole").body, "at last");
        assert_eq!(connections.get(), 1);
    });
}

/// The same of a client's connection, which may carry the requests of many as well.
#[test]
fn a_client_that_writes_empty_pieces_keeps_its_connection() {
    run(async {
        let origin = Origin::echo(Protocol::Http2).await;
        let proxy = Proxy::between(origin.address, Protocol::Http2);
        let mut wire = Wire::connect(proxy.address("in")).await;
        wire.write(hello()).await;
        for turn in 0..100 {
            let id = 2 * turn + 1;
            let empty = frame(DATA, 0, id, b"").repeat(4);
            wire.write([ask(id, false), empty, frame(DATA, END_STREAM, id, b"end")].concat()).await;
            loop {
                let frame = frames::read(&mut wire).await.expect("a frame");
                assert!(![RST_STREAM, GOAWAY].contains(&frame.kind), "{frame:?}");
                if frame.kind == DATA && frame.stream == id && frame.flags & END_STREAM != 0 {
                    break;
                }
            }
        }
    });
}
