//! Origins that speak HTTP/1.1.

use super::*;

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
