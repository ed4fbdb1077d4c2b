//! An origin's answer that two parsers could read differently reaches no client: 502, and the origin's connection closes.
//! Each row: what, the section, the origin's bytes, the end.

use std::cell::RefCell;
use std::rc::Rc;

use spanmesh_tests::{Client, Protocol, Proxy, Wire, each, run};

enum End {
    /// 502, and nothing of the answer.
    Refused,
    /// The client has this status, this length (if any) and this body; the connection is used again or not.
    Arrives(u16, Option<&'static str>, &'static str, Reused),
    /// It breaks off, behind its head at the latest.
    Breaks,
}
use End::{Arrives, Breaks, Refused};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Reused {
    Yes,
    No,
}
use Reused::{No, Yes};

type Row = (&'static str, &'static str, &'static str, End);

macro_rules! ok {
    ($fields:literal, $body:literal) => {
        concat!("HTTP/1.1 200 OK\r\n", $fields, "\r\n", $body)
    };
}

macro_rules! chunked {
    ($body:literal) => {
        concat!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", $body)
    };
}

const GOOD: &str = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ngood";

/// Answers each connection's requests: `/row` with the bytes, anything else well. Tells the number of connections.
async fn origin(bytes: &'static str) -> (std::net::SocketAddr, Rc<RefCell<usize>>) {
    let (listener, address) = Wire::listen().await;
    let connections = Rc::new(RefCell::new(0));
    let count = connections.clone();
    tokio::task::spawn_local(async move {
        loop {
            let mut peer = Wire::accept(&listener).await;
            *count.borrow_mut() += 1;
            tokio::task::spawn_local(async move {
                while let Some(head) = peer.try_until("\r\n\r\n").await {
                    let row = head.contains(" /row ");
                    if peer.send(if row { bytes } else { GOOD }.as_bytes()).await.is_err() {
                        return;
                    }
                    if row
                        && !bytes.contains("Content-Length")
                        && !bytes.contains("Transfer-Encoding")
                        && !bytes.contains(" 204")
                    {
                        return;
                    }
                }
            });
        }
    });
    (address, connections)
}

fn judge(method: &'static str, rows: &'static [Row]) {
    for (what, section, bytes, end) in rows {
        let judged = |client: Protocol, _upstream| async move {
            let what = format!("{what} ({section})");
            let (address, connections) = origin(bytes).await;
            let proxy = Proxy::between(address, Protocol::Http1);
            let mut client = Client::connect(client, proxy.address("in")).await;
            let request = client.request(method, "/row").body(spanmesh_tests::origin::empty()).expect("request");
            let answer = client.send(request).await;
            if let (Breaks, Err(_)) = (end, &answer) {
                assert_eq!(proxy.logged(1).await[0]["flag"], "protocol_error", "{what}");
                return;
            }
            let answer = answer.expect("an answer");
            let status = answer.status().as_u16();
            let length = answer.headers().get("content-length").map(|value| value.to_str().expect("text").to_owned());
            assert_eq!(
                answer.headers().get_all("content-length").iter().count(),
                usize::from(length.is_some()),
                "{what}"
            );
            assert!(!answer.headers().contains_key("x-in"), "{what}");
            let body = http_body_util::BodyExt::collect(answer.into_body()).await;
            let reused = match end {
                Refused => {
                    assert_eq!(status, 502, "{what}");
                    let log = proxy.logged(1).await;
                    assert_eq!(log[0]["flag"], "protocol_error", "{what}: {log:?}");
                    No
                }
                Arrives(expected, told, content, reused) => {
                    assert_eq!(status, *expected, "{what}");
                    assert_eq!(length.as_deref(), *told, "{what}");
                    assert_eq!(body.expect("the body").to_bytes(), content.as_bytes(), "{what}");
                    *reused
                }
                Breaks => {
                    assert_eq!(status, 200, "{what}");
                    assert!(body.is_err(), "{what}: {body:?}");
                    assert_eq!(proxy.logged(1).await[0]["flag"], "protocol_error", "{what}");
                    No
                }
            };
            // What the origin has left behind is nobody's answer.
            let mut client = Client::connect(Protocol::Http2, proxy.address("in")).await;
            let request = client.request("GET", "/good").body(spanmesh_tests::origin::empty()).expect("request");
            let answer = client.send(request).await.expect("an answer");
            let body = http_body_util::BodyExt::collect(answer.into_body()).await.expect("the body").to_bytes();
            assert_eq!(body, "good", "{what}");
            assert_eq!(*connections.borrow(), if reused == Yes { 1 } else { 2 }, "{what}: connections");
        };
        for client in [Protocol::Http1, Protocol::Http2] {
            run(judged(client, Protocol::Http1));
        }
    }
}

#[test]
fn an_answers_length_has_one_reading() {
    judge(
        "GET",
        &[
            ("one length", "9112 6.3", ok!("Content-Length: 5\r\n", "hello"), Arrives(200, Some("5"), "hello", Yes)),
            (
                "the same twice",
                "9110 8.6",
                ok!("Content-Length: 5\r\nContent-Length: 5\r\n", "hello"),
                Arrives(200, Some("5"), "hello", Yes),
            ),
            (
                "a list of the same",
                "9110 8.6",
                ok!("Content-Length: 5, 5\r\n", "hello"),
                Arrives(200, Some("5"), "hello", Yes),
            ),
            (
                "zeros in front",
                "9110 8.6",
                ok!("Content-Length: 005\r\n", "hello"),
                Arrives(200, Some("5"), "hello", Yes),
            ),
            ("up to the end", "9112 6.3", ok!("", "hello"), Arrives(200, None, "hello", No)),
            ("two that differ", "9112 6.3", ok!("Content-Length: 5\r\nContent-Length: 6\r\n", "hello"), Refused),
            ("a list that differs", "9112 6.3", ok!("Content-Length: 5, 6\r\n", "hello"), Refused),
            ("a sign", "9110 8.6", ok!("Content-Length: +5\r\n", "hello"), Refused),
            ("64 bits", "9110 8.6", ok!("Content-Length: 18446744073709551613\r\n", "hello"), Refused),
            ("nothing", "9110 8.6", ok!("Content-Length: \r\n", "hello"), Refused),
            (
                "beside chunks",
                "9112 6.3",
                ok!("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"),
                Refused,
            ),
            (
                "behind chunks",
                "9112 6.3",
                ok!("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", "0\r\n\r\n"),
                Refused,
            ),
            ("another coding", "9112 6.1", ok!("Transfer-Encoding: gzip, chunked\r\n", "0\r\n\r\n"), Refused),
            ("chunked twice", "9112 7.1", ok!("Transfer-Encoding: chunked, chunked\r\n", "0\r\n\r\n"), Refused),
            ("a coding nobody knows", "9112 6.3", ok!("Transfer-Encoding: xchunked\r\n", "0\r\n\r\n"), Refused),
            (
                "chunks in HTTP/1.0",
                "9112 6.1",
                "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
                Refused,
            ),
            (
                "more than told",
                "9112 6.3",
                ok!("Content-Length: 5\r\n", "helloHTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-In: 1\r\n\r\nin"),
                Arrives(200, Some("5"), "hello", No),
            ),
            (
                "a second answer behind chunks",
                "9112 9.2",
                chunked!("5\r\nhello\r\n0\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-In: 1\r\n\r\nin"),
                Arrives(200, None, "hello", No),
            ),
        ],
    );
}

#[test]
fn an_answers_lines_end_in_one_way() {
    judge(
        "GET",
        &[
            ("a bare LF behind the status", "9112 2.2", "HTTP/1.1 200 OK\nContent-Length: 0\r\n\r\n", Refused),
            ("a bare LF behind a field", "9112 2.2", ok!("X: y\nX-In: 1\r\nContent-Length: 0\r\n", ""), Refused),
            ("a bare LF for the last line", "9112 2.2", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\n", Refused),
            ("a bare CR in a value", "9110 5.5", ok!("X: y\rX-In: 1\r\nContent-Length: 0\r\n", ""), Refused),
            ("NUL in a value", "9110 5.5", ok!("X: \0\r\nContent-Length: 0\r\n", ""), Refused),
            ("a folded line", "9112 5.2", ok!("X: y\r\n z\r\nContent-Length: 0\r\n", ""), Refused),
            ("a space before a colon", "9112 5.1", ok!("X : y\r\nContent-Length: 0\r\n", ""), Refused),
            ("an empty line in front", "9112 2.2", "\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", Refused),
            ("white space in front", "9112 4", " HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", Refused),
            ("HTTP/0.9", "9112 2.3", "hello Content-Length: 0", Refused),
            ("another version", "9112 2.3", "HTTP/1.2 200 OK\r\nContent-Length: 0\r\n\r\n", Refused),
            ("a status of two digits", "9112 4", "HTTP/1.1 20 OK\r\nContent-Length: 0\r\n\r\n", Refused),
            ("a status of four digits", "9112 4", "HTTP/1.1 2000 OK\r\nContent-Length: 0\r\n\r\n", Refused),
            ("no reason", "9112 4", "HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n", Arrives(200, Some("0"), "", Yes)),
            (
                "interim answers",
                "9110 15.2",
                "HTTP/1.1 103 Early Hints\r\nX-In: 1\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
                Arrives(200, Some("0"), "", Yes),
            ),
            (
                "a bare LF in an interim answer",
                "9112 2.2",
                "HTTP/1.1 103 Early Hints\nX: y\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
                Refused,
            ),
            (
                "a switch that nobody asked for",
                "9110 15.2.2",
                "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\nContent-Length: 0\r\n\r\n",
                Refused,
            ),
        ],
    );
}

#[test]
fn an_answers_chunks_have_one_reading() {
    judge(
        "GET",
        &[
            ("chunks", "9112 7.1", chunked!("5\r\nhello\r\n0\r\n\r\n"), Arrives(200, None, "hello", Yes)),
            ("an extension", "9112 7.1.1", chunked!("5;a=b\r\nhello\r\n0\r\n\r\n"), Arrives(200, None, "hello", Yes)),
            ("a prefix", "9112 7.1", chunked!("0x5\r\nhello\r\n0\r\n\r\n"), Breaks),
            ("a sign", "9112 7.1", chunked!("+5\r\nhello\r\n0\r\n\r\n"), Breaks),
            ("white space in front", "9112 7.1", chunked!(" 5\r\nhello\r\n0\r\n\r\n"), Breaks),
            ("no size", "9112 7.1", chunked!("\r\nhello\r\n0\r\n\r\n"), Breaks),
            ("more than 64 bits", "9112 7.1", chunked!("10000000000000005\r\nhello\r\n0\r\n\r\n"), Breaks),
            ("a bare LF behind the size", "9112 2.2", chunked!("5\nhello\r\n0\r\n\r\n"), Breaks),
            ("a bare LF in an extension", "9112 7.1.1", chunked!("5;a\nhello\r\n0\r\n\r\n"), Breaks),
            ("a bare LF behind the data", "9112 2.2", chunked!("5\r\nhello\n0\r\n\r\n"), Breaks),
            ("more data than told", "9112 7.1", chunked!("4\r\nhello\r\n0\r\n\r\n"), Breaks),
        ],
    );
}

#[test]
fn an_answer_without_content_leaves_nothing_for_the_next() {
    judge(
        "GET",
        &[
            ("204", "9110 15.3.5", "HTTP/1.1 204 No Content\r\n\r\n", Arrives(204, None, "", Yes)),
            (
                "204 of no length",
                "9110 8.6",
                "HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n",
                Arrives(204, None, "", Yes),
            ),
            (
                "204 with a length",
                "9110 8.6",
                "HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n",
                Arrives(204, None, "", No),
            ),
            (
                "204 with content",
                "9110 8.6",
                "HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\nhello",
                Arrives(204, None, "", No),
            ),
            (
                "204 in chunks",
                "9112 6.1",
                "HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
                Arrives(204, None, "", No),
            ),
            (
                "204 with two lengths",
                "9110 8.6",
                "HTTP/1.1 204 No Content\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
                Refused,
            ),
        ],
    );
    judge(
        "HEAD",
        &[
            ("a length", "9110 9.3.2", ok!("Content-Length: 5\r\n", ""), Arrives(200, Some("5"), "", Yes)),
            ("content", "9110 9.3.2", ok!("Content-Length: 5\r\n", "hello"), Arrives(200, Some("5"), "", No)),
            ("two lengths", "9110 8.6", ok!("Content-Length: 5\r\nContent-Length: 6\r\n", ""), Refused),
            ("a length that is none", "9110 8.6", ok!("Content-Length: x\r\n", ""), Refused),
            (
                "a length beside chunks",
                "9112 6.3",
                ok!("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", ""),
                Refused,
            ),
        ],
    );
}

/// The connection of a refused answer is not used again, whatever the client speaks.
#[test]
fn a_refused_answer_costs_its_connection() {
    each(|client, _upstream| async move {
        let (address, connections) =
            origin(ok!("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n")).await;
        let proxy = Proxy::between(address, Protocol::Http1);
        let mut client = Client::connect(client, proxy.address("in")).await;
        for _ in 0..2 {
            let request = client.request("GET", "/row").body(spanmesh_tests::origin::empty()).expect("request");
            assert_eq!(client.send(request).await.expect("an answer").status(), 502);
        }
        assert_eq!(*connections.borrow(), 2);
        drop(client);
        proxy.at_rest().await;
    });
}
