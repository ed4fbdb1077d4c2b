//! Origins that speak HTTP/2.

use super::*;

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
