//! What two parsers could read differently reaches no origin: it is refused with 400 and its connection closed. Where the
//! RFC allows a lenient reading, the origin gets the one canonical form. Each row: what, the section, the bytes, the end.

use spanmesh_tests::{Proxy, Recorder, Wire, run};

/// How a row ends.
enum End {
    /// 400, the connection closed, and the origin has seen no whole message.
    Refused,
    /// The origin got these messages, as method, target and body.
    Arrives(&'static [&'static str]),
}
use End::{Arrives, Refused};

type Row = (&'static str, &'static str, &'static str, End);

/// A head with these lines, from its request line on, and what follows it.
macro_rules! head {
    ($line:literal, $fields:literal) => {
        concat!($line, "\r\nHost: a\r\n", $fields, "\r\n")
    };
}

macro_rules! post {
    ($fields:literal, $body:literal) => {
        concat!("POST / HTTP/1.1\r\nHost: a\r\n", $fields, "\r\n", $body)
    };
}

macro_rules! chunked {
    ($body:literal) => {
        concat!("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", $body)
    };
}

/// Follows each row: it must not arrive where the row was refused, and must where it was not.
const NEXT: &str = "GET /next HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";

fn judge(rows: &'static [Row]) {
    judge_with("", rows);
}

fn judge_with(listener: &'static str, rows: &'static [Row]) {
    run(async move {
        let origin = Recorder::start().await;
        let proxy = Proxy::start(&format!(
            "listeners:\n- {{name: in, mode: inbound, address: '127.0.0.1:0', upstream: app, protocol: http{listener}}}\n\
             upstreams:\n- {{name: app, addresses: ['{}'], protocol: http1}}\n",
            origin.address
        ));
        let mut lines = 0;
        for (what, section, bytes, end) in rows {
            for pieces in [1, 2, bytes.len()] {
                let what = format!("{what} ({section}), in {pieces} pieces");
                let mut client = Wire::connect(proxy.address("in")).await;
                let whole = format!("{bytes}{NEXT}");
                for piece in whole.as_bytes().chunks(whole.len().div_ceil(pieces)) {
                    // It may be refused before its end.
                    if client.send(piece).await.is_err() {
                        break;
                    }
                    tokio::task::yield_now().await;
                }
                let answer = String::from_utf8_lossy(&client.rest().await).into_owned();
                let came: Vec<_> = origin.take().iter().map(|message| message.short()).collect();
                match end {
                    Refused => {
                        assert!(answer.starts_with("HTTP/1.1 400 "), "{what}: {answer:?}, {came:?}");
                        assert!(!answer[9..].contains("HTTP/1.1"), "{what}: more than one answer: {answer:?}");
                        assert_eq!(came, [""; 0], "{what}");
                        lines += 1;
                        let log = proxy.logged(lines).await;
                        assert_eq!(log[lines - 1]["flag"], "bad_request", "{what}: {log:?}");
                    }
                    Arrives(expected) => {
                        let expected: Vec<_> = expected.iter().copied().chain(["GET /next"]).collect();
                        assert_eq!(came, expected, "{what}: {answer:?}");
                        assert!(answer.starts_with("HTTP/1.1 200 "), "{what}: {answer:?}");
                        lines += expected.len();
                        proxy.logged(lines).await;
                    }
                }
            }
        }
        proxy.at_rest().await;
        assert_eq!(proxy.log().len(), lines, "each is logged once");
    });
}

#[test]
fn the_length_of_a_message_has_one_reading() {
    judge(&[
        ("one length", "9112 6.2", post!("Content-Length: 5\r\n", "hello"), Arrives(&["POST / hello"])),
        ("zeros in front", "9110 8.6", post!("Content-Length: 005\r\n", "hello"), Arrives(&["POST / hello"])),
        ("none at all", "9112 6.3", post!("Content-Length: 00\r\n", ""), Arrives(&["POST /"])),
        (
            "the same twice",
            "9110 8.6",
            post!("Content-Length: 5\r\nContent-Length: 5\r\n", "hello"),
            Arrives(&["POST / hello"]),
        ),
        ("a GET with content", "9110 9.3.1", head!("GET / HTTP/1.1", "Content-Length: 0\r\n"), Arrives(&["GET /"])),
        ("two that differ", "9112 6.3", post!("Content-Length: 5\r\nContent-Length: 0\r\n", "hello"), Refused),
        ("a list", "9110 8.6", post!("Content-Length: 5, 5\r\n", "hello"), Refused),
        ("a sign", "9110 8.6", post!("Content-Length: +5\r\n", "hello"), Refused),
        ("a minus", "9110 8.6", post!("Content-Length: -5\r\n", "hello"), Refused),
        ("hexadecimal", "9110 8.6", post!("Content-Length: 0x5\r\n", "hello"), Refused),
        ("a fraction", "9110 8.6", post!("Content-Length: 5.0\r\n", "hello"), Refused),
        ("an exponent", "9110 8.6", post!("Content-Length: 5e0\r\n", "hello"), Refused),
        ("quoted", "9110 8.6", post!("Content-Length: \"5\"\r\n", "hello"), Refused),
        ("white space within", "9110 8.6", post!("Content-Length: 5 5\r\n", "hello"), Refused),
        ("nothing", "9110 8.6", post!("Content-Length:\r\n", ""), Refused),
        ("more than 64 bits", "9110 8.6", post!("Content-Length: 18446744073709551621\r\n", "hello"), Refused),
        ("64 bits", "9110 8.6", post!("Content-Length: 18446744073709551613\r\n", "hello"), Refused),
        ("a vertical tab", "9110 5.5", post!("Content-Length: \x0b5\r\n", "hello"), Refused),
        ("behind an underscore", "9110 5.1", post!("Content_Length: 5\r\n", ""), Refused),
        ("a tab before it", "9110 5.5", post!("Content-Length:\t5\t\r\n", "hello"), Arrives(&["POST / hello"])),
        ("a comma behind", "9110 5.6.1", post!("Content-Length: 5,\r\n", "hello"), Refused),
        ("an empty one beside it", "9110 8.6", post!("Content-Length:\r\nContent-Length: 5\r\n", "hello"), Refused),
        ("a bad one behind it", "9110 8.6", post!("Content-Length: 5\r\nContent-Length: 5x\r\n", "hello"), Refused),
        ("other digits", "9110 8.6", post!("Content-Length: \u{665}\r\n", "hello"), Refused),
        ("an octal", "9110 8.6", post!("Content-Length: 0o5\r\n", "hello"), Refused),
        (
            "another in the trailers",
            "9110 6.5.1",
            chunked!("5\r\nhello\r\n0\r\nContent-Length: 0\r\n\r\n"),
            Arrives(&["POST / hello"]),
        ),
    ]);
}

#[test]
fn a_transfer_coding_is_chunked_and_stands_alone() {
    judge(&[
        ("chunked", "9112 7.1", chunked!("5\r\nhello\r\n0\r\n\r\n"), Arrives(&["POST / hello"])),
        ("in capitals", "9112 7", post!("Transfer-Encoding: CHUNKED\r\n", "0\r\n\r\n"), Arrives(&["POST /"])),
        ("tabs around it", "9110 5.5", post!("Transfer-Encoding:\t chunked \t\r\n", "0\r\n\r\n"), Arrives(&["POST /"])),
        (
            "with a length",
            "9112 6.1",
            post!("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"),
            Refused,
        ),
        (
            "before a length",
            "9112 6.1",
            post!("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", "0\r\n\r\n"),
            Refused,
        ),
        (
            "with a bad length",
            "9112 6.1",
            post!("Transfer-Encoding: chunked\r\nContent-Length: x\r\n", "0\r\n\r\n"),
            Refused,
        ),
        (
            "with no length",
            "9112 6.1",
            post!("Content-Length: 0\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"),
            Refused,
        ),
        (
            "with a length, named away",
            "9110 7.6.1",
            post!("Connection: content-length\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"),
            Refused,
        ),
        (
            "twice",
            "9112 7.1",
            post!("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"),
            Refused,
        ),
        ("twice in a list", "9112 7.1", post!("Transfer-Encoding: chunked, chunked\r\n", "0\r\n\r\n"), Refused),
        ("after another", "9112 6.1", post!("Transfer-Encoding: gzip, chunked\r\n", "0\r\n\r\n"), Refused),
        ("before another", "9112 6.1", post!("Transfer-Encoding: chunked, gzip\r\n", "0\r\n\r\n"), Refused),
        (
            "beside another",
            "9112 6.1",
            post!("Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"),
            Refused,
        ),
        ("identity", "9112 7", post!("Transfer-Encoding: identity\r\n", ""), Refused),
        (
            "identity beside it",
            "9112 7",
            post!("Transfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"),
            Refused,
        ),
        ("another name", "9112 7", post!("Transfer-Encoding: xchunked\r\n", "0\r\n\r\n"), Refused),
        ("a longer name", "9112 7", post!("Transfer-Encoding: chunkedx\r\n", "0\r\n\r\n"), Refused),
        ("with a parameter", "9112 7", post!("Transfer-Encoding: chunked;q=1\r\n", "0\r\n\r\n"), Refused),
        ("with a comma", "9110 5.6.1", post!("Transfer-Encoding: chunked,\r\n", "0\r\n\r\n"), Refused),
        ("behind a comma", "9110 5.6.1", post!("Transfer-Encoding: , chunked\r\n", "0\r\n\r\n"), Refused),
        ("quoted", "9112 7", post!("Transfer-Encoding: \"chunked\"\r\n", "0\r\n\r\n"), Refused),
        ("nothing", "9112 6.1", post!("Transfer-Encoding:\r\n", ""), Refused),
        ("a vertical tab", "9110 5.5", post!("Transfer-Encoding: \x0bchunked\r\n", "0\r\n\r\n"), Refused),
        ("a form feed", "9110 5.5", post!("Transfer-Encoding: chunked\x0c\r\n", "0\r\n\r\n"), Refused),
        (
            "in HTTP/1.0",
            "9112 6.1",
            "POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            Refused,
        ),
        ("behind an underscore", "9110 5.1", post!("Transfer_Encoding: chunked\r\n", ""), Refused),
        ("in a folded line", "9112 5.2", post!("Transfer-Encoding:\r\n chunked\r\n", "0\r\n\r\n"), Refused),
        (
            "first and folded",
            "9112 2.2",
            "POST / HTTP/1.1\r\n Transfer-Encoding: chunked\r\nHost: a\r\n\r\n0\r\n\r\n",
            Refused,
        ),
        ("behind a bare CR", "9112 2.2", post!("X: y\rTransfer-Encoding: chunked\r\n", "0\r\n\r\n"), Refused),
        ("behind a bare LF", "9112 2.2", post!("X: y\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"), Refused),
        ("a bare CR behind it", "9110 5.5", post!("Transfer-Encoding: chunked\r\r\n", "0\r\n\r\n"), Refused),
        ("NUL behind it", "9110 5.5", post!("Transfer-Encoding: chunked\0\r\n", "0\r\n\r\n"), Refused),
        ("a space before the colon", "9112 5.1", post!("Transfer-Encoding : chunked\r\n", "0\r\n\r\n"), Refused),
        ("a tab before the colon", "9112 5.1", post!("Transfer-Encoding\t: chunked\r\n", "0\r\n\r\n"), Refused),
        (
            "a vertical tab before the colon",
            "9112 5.1",
            post!("Transfer-Encoding\x0b: chunked\r\n", "0\r\n\r\n"),
            Refused,
        ),
        (
            "an empty one beside it",
            "9112 6.1",
            post!("Transfer-Encoding:\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"),
            Refused,
        ),
        ("in quotes of one", "9112 7", post!("Transfer-Encoding: 'chunked'\r\n", "0\r\n\r\n"), Refused),
        ("of a GET", "9112 6.1", head!("GET / HTTP/1.1", "Transfer-Encoding: xchunked\r\n"), Refused),
        (
            "named away",
            "9110 7.6.1",
            post!("Connection: transfer-encoding\r\nTransfer-Encoding: chunked\r\n", "5\r\nhello\r\n0\r\n\r\n"),
            Arrives(&["POST / hello"]),
        ),
        (
            "in HTTP/1.0 that stays",
            "9112 6.1",
            "POST / HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            Refused,
        ),
    ]);
}

#[test]
fn chunks_have_one_reading() {
    judge(&[
        (
            "a known size in capitals",
            "9112 7.1",
            chunked!("A\r\n0123456789\r\n0\r\n\r\n"),
            Arrives(&["POST / 0123456789"]),
        ),
        ("zeros in front", "9112 7.1", chunked!("0005\r\nhello\r\n000\r\n\r\n"), Arrives(&["POST / hello"])),
        (
            "an extension",
            "9112 7.1.1",
            chunked!("5;a=b;c=\"d;\\\"\"\r\nhello\r\n0;e\r\n\r\n"),
            Arrives(&["POST / hello"]),
        ),
        (
            "white space before an extension",
            "9112 7.1.1",
            chunked!("5 ; a\r\nhello\r\n0\r\n\r\n"),
            Arrives(&["POST / hello"]),
        ),
        (
            "trailers that frame",
            "9110 6.5.1",
            chunked!("0\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\nHost: b\r\n\r\n"),
            Arrives(&["POST /"]),
        ),
        ("a prefix", "9112 7.1", chunked!("0x5\r\nhello\r\n0\r\n\r\n"), Refused),
        ("a sign", "9112 7.1", chunked!("+5\r\nhello\r\n0\r\n\r\n"), Refused),
        ("a minus", "9112 7.1", chunked!("-5\r\nhello\r\n0\r\n\r\n"), Refused),
        ("white space in front", "9112 7.1", chunked!(" 5\r\nhello\r\n0\r\n\r\n"), Refused),
        ("white space behind", "9112 7.1", chunked!("5 \r\nhello\r\n0\r\n\r\n"), Refused),
        ("a tab behind", "9112 7.1", chunked!("5\t\r\nhello\r\n0\r\n\r\n"), Refused),
        ("no size", "9112 7.1", chunked!("\r\nhello\r\n0\r\n\r\n"), Refused),
        ("an extension only", "9112 7.1", chunked!(";a\r\nhello\r\n0\r\n\r\n"), Refused),
        ("seventeen digits", "9112 7.1", chunked!("00000000000000005\r\nhello\r\n0\r\n\r\n"), Refused),
        ("more than 64 bits", "9112 7.1", chunked!("10000000000000005\r\nhello\r\n0\r\n\r\n"), Refused),
        ("an underscore", "9112 7.1", chunked!("5_0\r\nhello\r\n0\r\n\r\n"), Refused),
        ("two sizes", "9112 7.1", chunked!("5 5\r\nhello\r\n0\r\n\r\n"), Refused),
        ("a bare LF behind the size", "9112 2.2", chunked!("5\nhello\r\n0\r\n\r\n"), Refused),
        ("a bare CR behind the size", "9112 2.2", chunked!("5\rhello\r\n0\r\n\r\n"), Refused),
        ("a bare LF in an extension", "9112 7.1.1", chunked!("5;a\nhello\r\n0\r\n\r\n"), Refused),
        ("a bare CR in an extension", "9112 7.1.1", chunked!("5;a\rb\r\nhello\r\n0\r\n\r\n"), Refused),
        ("NUL in an extension", "9112 7.1.1", chunked!("5;a\0\r\nhello\r\n0\r\n\r\n"), Refused),
        ("an open quote", "9112 7.1.1", chunked!("5;a=\"\r\nhello\r\n0\r\n\r\n"), Refused),
        ("a bare LF behind the data", "9112 2.2", chunked!("5\r\nhello\n0\r\n\r\n"), Refused),
        ("nothing behind the data", "9112 7.1", chunked!("5\r\nhello0\r\n\r\n"), Refused),
        ("more data than told", "9112 7.1", chunked!("4\r\nhello\r\n0\r\n\r\n"), Refused),
        ("bare LFs at the end", "9112 7.1", chunked!("0\n\n"), Refused),
        ("a bare LF at the end", "9112 7.1", chunked!("0\r\n\n"), Refused),
        ("a bare LF behind a trailer", "9112 7.1.2", chunked!("0\r\nX: y\n\r\n"), Refused),
        ("a bare LF between trailers", "9112 7.1.2", chunked!("0\r\nX: y\nContent-Length: 5\r\n\r\n"), Refused),
        (
            "an end among the trailers",
            "9112 7.1.2",
            chunked!("0\r\nX: y\n\nGET /in HTTP/1.1\r\nHost: a\r\n\r\n"),
            Refused,
        ),
        ("a folded trailer", "9112 5.2", chunked!("0\r\nX: y\r\n z\r\n\r\n"), Refused),
        ("a trailer without a colon", "9112 7.1.2", chunked!("0\r\nX\r\n\r\n"), Refused),
        ("a space before a trailer's colon", "9112 5.1", chunked!("0\r\nX : y\r\n\r\n"), Refused),
        ("NUL in a trailer", "9110 5.5", chunked!("0\r\nX: \0\r\n\r\n"), Refused),
        ("sixteen digits beyond 63 bits", "9112 7.1", chunked!("FFFFFFFFFFFFFFFB\r\nhello\r\n0\r\n\r\n"), Refused),
        ("an underscore in front", "9112 7.1", chunked!("_5\r\nhello\r\n0\r\n\r\n"), Refused),
        ("a vertical tab behind", "9112 7.1", chunked!("5\x0b\r\nhello\r\n0\r\n\r\n"), Refused),
        ("a comma for an extension", "9112 7.1.1", chunked!("5,a\r\nhello\r\n0\r\n\r\n"), Refused),
        ("a line in a quote", "9112 7.1.1", chunked!("5;a=\"\r\n\"\r\nhello\r\n0\r\n\r\n"), Refused),
        ("a CR in a quote", "9112 7.1.1", chunked!("5;a=\"\\\r\"\r\nhello\r\n0\r\n\r\n"), Refused),
        ("a bare CR behind the data", "9112 2.2", chunked!("5\r\nhello\r0\r\n\r\n"), Refused),
        ("an LF and a CR behind the data", "9112 2.2", chunked!("5\r\nhello\n\r0\r\n\r\n"), Refused),
        ("two ends behind the data", "9112 7.1", chunked!("5\r\nhello\r\n\r\n0\r\n\r\n"), Refused),
        ("a bare LF behind the last size", "9112 2.2", chunked!("0\n\r\n"), Refused),
        ("a sign at the last size", "9112 7.1", chunked!("+0\r\n\r\n"), Refused),
        ("a space in a trailer's name", "9112 5.1", chunked!("0\r\nX Y: z\r\n\r\n"), Refused),
        ("a bare CR in a trailer", "9112 2.2", chunked!("0\r\nX: y\rz\r\n\r\n"), Refused),
    ]);
}

#[test]
fn lines_end_in_one_way() {
    judge(&[
        ("an empty line in front", "9112 2.2", "\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", Arrives(&["GET /"])),
        ("obs-text in a value", "9110 5.5", head!("GET / HTTP/1.1", "X: \u{e9}\r\n"), Arrives(&["GET /"])),
        ("an empty value", "9112 5", head!("GET / HTTP/1.1", "X:\r\n"), Arrives(&["GET /"])),
        ("an empty LF line in front", "9112 2.2", "\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", Refused),
        ("three empty lines in front", "9112 2.2", "\r\n\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", Refused),
        ("a bare LF behind the request line", "9112 2.2", "GET / HTTP/1.1\nHost: a\r\n\r\n", Refused),
        ("a bare LF behind a field", "9112 2.2", "GET / HTTP/1.1\r\nHost: a\nX: y\r\n\r\n", Refused),
        ("a bare LF for the last line", "9112 2.2", "GET / HTTP/1.1\r\nHost: a\r\n\n", Refused),
        ("bare LFs only", "9112 2.2", "GET / HTTP/1.1\nHost: a\n\n", Refused),
        ("a bare CR behind the request line", "9112 2.2", "GET / HTTP/1.1\rHost: a\r\n\r\n", Refused),
        ("a bare CR in a value", "9110 5.5", head!("GET / HTTP/1.1", "X: y\rContent-Length: 5\r\n"), Refused),
        ("two CRs", "9112 2.2", "GET / HTTP/1.1\r\r\nHost: a\r\n\r\n", Refused),
        ("NUL in a value", "9110 5.5", head!("GET / HTTP/1.1", "X: \0y\r\n"), Refused),
        ("NUL in a name", "9110 5.1", head!("GET / HTTP/1.1", "X\0: y\r\n"), Refused),
        ("DEL in a value", "9110 5.5", head!("GET / HTTP/1.1", "X: \x7f\r\n"), Refused),
        ("a folded line", "9112 5.2", head!("GET / HTTP/1.1", "X: y\r\n z\r\n"), Refused),
        ("a line folded by a tab", "9112 5.2", head!("GET / HTTP/1.1", "X: y\r\n\tz\r\n"), Refused),
        ("a folded first line", "9112 2.2", "GET / HTTP/1.1\r\n X: y\r\nHost: a\r\n\r\n", Refused),
        ("a space before a colon", "9112 5.1", head!("GET / HTTP/1.1", "X : y\r\n"), Refused),
        ("a tab before a colon", "9112 5.1", head!("GET / HTTP/1.1", "X\t: y\r\n"), Refused),
        ("a space in a name", "9112 5.1", head!("GET / HTTP/1.1", "X Y: z\r\n"), Refused),
        ("no name", "9112 5", head!("GET / HTTP/1.1", ": y\r\n"), Refused),
        ("no colon", "9112 5", head!("GET / HTTP/1.1", "X\r\n"), Refused),
        ("a name in parentheses", "9110 5.6.2", head!("GET / HTTP/1.1", "(X): y\r\n"), Refused),
        ("a name beyond ASCII", "9110 5.1", head!("GET / HTTP/1.1", "X\u{e9}: y\r\n"), Refused),
        ("a vertical tab in a value", "9110 5.5", head!("GET / HTTP/1.1", "X: \x0by\r\n"), Refused),
        ("an LF and a CR behind a field", "9112 2.2", "GET / HTTP/1.1\r\nHost: a\n\rX: y\r\n\r\n", Refused),
        ("a line of a space", "9112 5.2", "GET / HTTP/1.1\r\nHost: a\r\n \r\nX: y\r\n\r\n", Refused),
        ("a bare CR for the last line", "9112 2.2", "GET / HTTP/1.1\r\nHost: a\r\n\rX: y\r\n\r\n", Refused),
        ("a bare CR in front", "9112 2.2", "\rGET / HTTP/1.1\r\nHost: a\r\n\r\n", Refused),
    ]);
}

#[test]
fn a_request_line_has_one_reading() {
    judge(&[
        ("no version", "9112 2.3", "GET /\r\n", Refused),
        ("no version but fields", "9112 3", "GET /\r\nHost: a\r\n\r\n", Refused),
        ("HTTP/0.9", "9112 2.3", head!("GET / HTTP/0.9", ""), Refused),
        ("HTTP/1.2", "9112 2.3", head!("GET / HTTP/1.2", ""), Refused),
        ("HTTP/1.10", "9112 2.3", head!("GET / HTTP/1.10", ""), Refused),
        ("HTTP/2.0", "9112 2.3", head!("GET / HTTP/2.0", ""), Refused),
        ("HTTP/3", "9112 2.3", head!("GET / HTTP/3", ""), Refused),
        ("a small name", "9112 2.3", head!("GET / http/1.1", ""), Refused),
        ("another name", "9112 2.3", head!("GET / HTTPS/1.1", ""), Refused),
        ("HTTP/1", "9112 2.3", head!("GET / HTTP/1", ""), Refused),
        ("HTTP/01.1", "9112 2.3", head!("GET / HTTP/01.1", ""), Refused),
        ("HTTP/1.01", "9112 2.3", head!("GET / HTTP/1.01", ""), Refused),
        ("HTTP/1.1 and a letter", "9112 2.3", head!("GET / HTTP/1.1x", ""), Refused),
        ("two versions", "9112 3", head!("GET / HTTP/1.1 HTTP/1.0", ""), Refused),
        ("a vertical tab for a space", "9112 3", head!("GET\x0b/ HTTP/1.1", ""), Refused),
        ("a vertical tab in the target", "9112 3.2", head!("GET /a\x0bb HTTP/1.1", ""), Refused),
        ("DEL in the target", "9112 3.2", head!("GET /a\x7fb HTTP/1.1", ""), Refused),
        ("a colon in the method", "9110 9.1", head!("GE:T / HTTP/1.1", ""), Refused),
        ("a method beyond ASCII", "9110 9.1", head!("G\u{c9}T / HTTP/1.1", ""), Refused),
        ("NUL in the method", "9110 9.1", head!("GET\0 / HTTP/1.1", ""), Refused),
        ("a method in small letters", "9110 9.1", head!("get / HTTP/1.1", ""), Arrives(&["get /"])),
        ("nothing but a target", "9112 3", head!("GET HTTP/1.1", ""), Refused),
        ("a full target with a space", "9112 3.2.2", head!("GET http://a /x HTTP/1.1", ""), Refused),
        ("a full target with a bad port", "9112 3.2.2", head!("GET http://a:x/ HTTP/1.1", ""), Refused),
        ("two hosts in a full target", "9112 3.2.2", head!("GET http://a,b/ HTTP/1.1", ""), Refused),
        ("white space in front", "9112 3", head!(" GET / HTTP/1.1", ""), Refused),
        ("two spaces before the target", "9112 3", head!("GET  / HTTP/1.1", ""), Refused),
        ("two spaces before the version", "9112 3", head!("GET /  HTTP/1.1", ""), Refused),
        ("a space behind the version", "9112 3", head!("GET / HTTP/1.1 ", ""), Refused),
        ("a tab for a space", "9112 3", head!("GET\t/ HTTP/1.1", ""), Refused),
        ("a space in the target", "9112 3.2", head!("GET /a b HTTP/1.1", ""), Refused),
        ("a form feed in the target", "9112 3.2", head!("GET /a\x0cb HTTP/1.1", ""), Refused),
        ("NUL in the target", "9112 3.2", head!("GET /a\0b HTTP/1.1", ""), Refused),
        ("no method", "9112 3.1", head!("/ HTTP/1.1", ""), Refused),
        ("a method that is no token", "9110 9.1", head!("GE(T / HTTP/1.1", ""), Refused),
        ("a fragment", "9112 3.2", head!("GET /a#b HTTP/1.1", ""), Refused),
        ("no slash", "9112 3.2.1", head!("GET a HTTP/1.1", ""), Refused),
        ("a host and port", "9112 3.2.3", head!("GET a:80 HTTP/1.1", ""), Refused),
        ("an asterisk", "9112 3.2.4", head!("GET * HTTP/1.1", ""), Refused),
        ("OPTIONS of all", "9112 3.2.4", head!("OPTIONS * HTTP/1.1", ""), Arrives(&["OPTIONS *"])),
        ("two slashes", "9112 3.2.1", head!("GET //b/c HTTP/1.1", ""), Arrives(&["GET //b/c"])),
        ("another scheme", "9112 3.2.2", head!("GET ftp://a/ HTTP/1.1", ""), Refused),
        ("user information", "9110 4.2.4", head!("GET http://u:p@a/ HTTP/1.1", ""), Refused),
        ("no authority", "9112 3.2.2", head!("GET http:///x HTTP/1.1", ""), Refused),
        ("in full", "9112 3.2.2", head!("GET http://a/x?y HTTP/1.1", ""), Arrives(&["GET /x?y"])),
        ("in full without a path", "9112 3.2.2", head!("GET http://a?y HTTP/1.1", ""), Arrives(&["GET /?y"])),
        ("CONNECT to a path", "9112 3.2.3", head!("CONNECT / HTTP/1.1", ""), Refused),
        ("CONNECT without a port", "9110 9.3.6", head!("CONNECT a HTTP/1.1", ""), Refused),
        ("CONNECT to a URL", "9112 3.2.3", head!("CONNECT http://a:80/ HTTP/1.1", ""), Refused),
        (
            "CONNECT with a length",
            "9110 9.3.6",
            "CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\nContent-Length: 5\r\n\r\nhello",
            Refused,
        ),
        (
            "CONNECT in chunks",
            "9110 9.3.6",
            "CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            Refused,
        ),
        ("a preface of HTTP/2 later", "9113 3.4", "GET / HTTP/1.1\r\n\r\nPRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", Refused),
    ]);
}

#[test]
fn a_host_is_one_and_agrees() {
    judge(&[
        ("none", "9112 3.2", "GET / HTTP/1.1\r\n\r\n", Refused),
        ("two", "9112 3.2", "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", Refused),
        ("the same twice", "9112 3.2", "GET / HTTP/1.1\r\nHost: a\r\nhost: a\r\n\r\n", Refused),
        ("a list", "9112 3.2", "GET / HTTP/1.1\r\nHost: a, b\r\n\r\n", Refused),
        ("a list without spaces", "9112 3.2", "GET / HTTP/1.1\r\nHost: a,b\r\n\r\n", Refused),
        ("two in one", "9112 3.2", "GET / HTTP/1.1\r\nHost: a b\r\n\r\n", Refused),
        ("user information", "9110 4.2.4", "GET / HTTP/1.1\r\nHost: u@a\r\n\r\n", Refused),
        ("a path", "9112 3.2", "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", Refused),
        ("a URL", "9112 3.2", "GET / HTTP/1.1\r\nHost: http://a\r\n\r\n", Refused),
        ("a port that is none", "9112 3.2", "GET / HTTP/1.1\r\nHost: a:b\r\n\r\n", Refused),
        ("a port beyond all", "9112 3.2", "GET / HTTP/1.1\r\nHost: a:65536\r\n\r\n", Refused),
        ("two ports", "9112 3.2", "GET / HTTP/1.1\r\nHost: a:1:2\r\n\r\n", Refused),
        ("an open bracket", "9112 3.2", "GET / HTTP/1.1\r\nHost: [::1\r\n\r\n", Refused),
        ("a space before its colon", "9112 5.1", "GET / HTTP/1.1\r\nHost : a\r\n\r\n", Refused),
        ("folded", "9112 5.2", "GET / HTTP/1.1\r\nHost:\r\n a\r\n\r\n", Refused),
        ("an address", "9110 7.2", "GET / HTTP/1.1\r\nHost: [::1]:80\r\n\r\n", Arrives(&["GET /"])),
        (
            "another in the target, which wins",
            "9112 3.2.2",
            "GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n",
            Arrives(&["GET /"]),
        ),
    ]);
}

#[test]
fn expectations_upgrades_and_names_have_one_reading() {
    judge(&[
        (
            "an expectation of nothing",
            "9110 10.1.1",
            head!("GET / HTTP/1.1", "Expect: 100-continue\r\n"),
            Arrives(&["GET /"]),
        ),
        ("another expectation", "9110 10.1.1", post!("Expect: x\r\nContent-Length: 5\r\n", "hello"), Refused),
        (
            "two expectations",
            "9110 10.1.1",
            post!("Expect: 100-continue, x\r\nContent-Length: 5\r\n", "hello"),
            Refused,
        ),
        (
            "two lines of them",
            "9110 10.1.1",
            post!("Expect: 100-continue\r\nExpect: 100-continue\r\nContent-Length: 5\r\n", "hello"),
            Refused,
        ),
        (
            "an expectation in two words",
            "9110 10.1.1",
            post!("Expect: y 100-continue\r\nContent-Length: 5\r\n", "hello"),
            Refused,
        ),
        (
            "h2c",
            "9113 3.1",
            head!(
                "GET / HTTP/1.1",
                "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n"
            ),
            Arrives(&["GET /"]),
        ),
        (
            "h2c in a list",
            "9110 7.8",
            head!("GET / HTTP/1.1", "Connection: Upgrade\r\nUpgrade: websocket, h2c\r\n"),
            Arrives(&["GET /"]),
        ),
        (
            "h2c with content",
            "9110 7.8",
            post!(
                "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AA\r\nContent-Length: 5\r\n",
                "hello"
            ),
            Arrives(&["POST / hello"]),
        ),
        (
            "WebSocket with content",
            "9110 7.8",
            post!("Connection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 5\r\n", "hello"),
            Arrives(&["POST / hello"]),
        ),
        (
            "an upgrade with chunks in two readings",
            "9112 7.1",
            post!(
                "Connection: Upgrade\r\nUpgrade: websocket\r\nTransfer-Encoding: chunked\r\n",
                "5;a\nhello\r\n0\r\n\r\n"
            ),
            Refused,
        ),
        ("a name with an underscore", "9110 5.1", head!("GET / HTTP/1.1", "user_id: 1\r\n"), Arrives(&["GET /"])),
        (
            "a forwarded name with underscores",
            "9110 5.1",
            head!("GET / HTTP/1.1", "X_Forwarded_For: 1.2.3.4\r\n"),
            Refused,
        ),
    ]);
}

#[test]
fn names_with_underscores_are_refused_where_that_is_the_policy() {
    judge_with(
        ", underscores: refuse",
        &[
            ("a name with an underscore", "9110 5.1", head!("GET / HTTP/1.1", "user_id: 1\r\n"), Refused),
            ("a name without", "9110 5.1", head!("GET / HTTP/1.1", "user-id: 1\r\n"), Arrives(&["GET /"])),
        ],
    );
}

/// Sends one request to a recorder, and returns what came.
fn arrives(listener: &'static str, bytes: &'static str) -> spanmesh_tests::strict::Message {
    let (told, came) = std::sync::mpsc::channel();
    run(async move {
        let origin = Recorder::start().await;
        let proxy = Proxy::start(&format!(
            "listeners:\n- {{name: in, mode: inbound, address: '127.0.0.1:0', upstream: app{listener}}}\n\
             upstreams:\n- {{name: app, addresses: ['{}'], protocol: http1}}\n",
            origin.address
        ));
        let mut client = Wire::connect(proxy.address("in")).await;
        client.write(bytes).await;
        let head = client.head().await;
        assert!(head.starts_with("HTTP/1.1 200 "), "{head:?}");
        told.send(origin.take().remove(0)).expect("send");
    });
    came.recv().expect("a message")
}

#[test]
fn names_with_underscores_are_dropped_where_that_is_the_policy() {
    let came = arrives(", underscores: drop", head!("GET / HTTP/1.1", "user_id: 1\r\nuser-id: 2\r\n"));
    assert_eq!((came.field("user_id"), came.field("user-id")), (None, Some("2")));
    let came = arrives("", head!("GET / HTTP/1.1", "user_id: 1\r\nuser-id: 2\r\n"));
    assert_eq!((came.field("user_id"), came.field("user-id")), (Some("1"), Some("2")));
}

/// RFC 9110 §7.6.1.
#[test]
fn connection_names_away_what_belongs_to_the_hop_and_nothing_that_is_relied_on() {
    let came = arrives(
        "",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nX-Hop: 1\r\nX-Forwarded-For: 1.2.3.4\r\nAuthorization: b\r\n\
         Cookie: c\r\ntraceparent: 00-0af7651916cd43dd8448eb211c80319c-00f067aa0ba902b7-01\r\n\
         Connection: close, x-hop, host, Content-Length, X-Forwarded-For, authorization, cookie, traceparent\r\n\r\nhello",
    );
    assert_eq!((came.field("x-hop"), came.field("connection")), (None, None));
    assert_eq!((came.field("host"), came.body.as_slice()), (Some("a"), &b"hello"[..]));
    assert_eq!((came.field("x-forwarded-for"), came.field("authorization")), (Some("1.2.3.4"), Some("b")));
    assert_eq!(came.field("cookie"), Some("c"));
    assert!(came.field("traceparent").is_some_and(|trace| trace.contains("0af7651916cd43dd8448eb211c80319c")));
}

/// RFC 9113 §3.1: with the upgrade of HTTP/1.1 requests would pass that nobody here reads.
#[test]
fn an_upgrade_to_http2_is_not_passed_on() {
    let came = arrives(
        "",
        head!(
            "GET / HTTP/1.1",
            "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n"
        ),
    );
    assert_eq!((came.field("upgrade"), came.field("connection"), came.field("http2-settings")), (None, None, None));
    let came = arrives("", head!("GET / HTTP/1.1", "Expect: 100-continue\r\n"));
    assert_eq!(came.field("expect"), None);
}

/// RFC 9112 §7.1: what an earlier request asked for and did not get is no reason to read the body of a later one twice.
#[test]
fn behind_an_upgrade_that_was_not_made_chunks_have_one_reading_too() {
    run(async {
        let origin = Recorder::start().await;
        let proxy = Proxy::start(&format!(
            "listeners:\n- {{name: in, mode: inbound, address: '127.0.0.1:0', upstream: app, protocol: http}}\n\
             upstreams:\n- {{name: app, addresses: ['{}'], protocol: http1}}\n",
            origin.address
        ));
        for chunk in ["5;a\nhello\r\n0\r\n\r\n", "5 \r\nhello\r\n0\r\n\r\n", "0\r\nX: y\n\r\n"] {
            let mut client = Wire::connect(proxy.address("in")).await;
            client.write("GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n").await;
            assert!(client.head().await.starts_with("HTTP/1.1 200 "));
            client.write("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n").await;
            tokio::task::yield_now().await;
            client.write(format!("{chunk}{NEXT}")).await;
            let answer = String::from_utf8_lossy(&client.rest().await).into_owned();
            assert!(answer.contains("HTTP/1.1 400 "), "{chunk:?}: {answer:?}");
            let came: Vec<_> = origin.take().iter().map(|message| message.short()).collect();
            assert_eq!(came, ["GET /"], "{chunk:?}");
        }
    });
}

/// What was read as a head is not passed on as bytes because its line is wrong: an origin might be lenient.
#[test]
fn a_listener_that_detects_takes_what_claims_to_be_http_for_http() {
    run(async {
        let origin = Recorder::start().await;
        let proxy = Proxy::start(&format!(
            "listeners:\n- {{name: in, mode: inbound, address: '127.0.0.1:0', upstream: app}}\n\
             upstreams:\n- {{name: app, addresses: ['{}'], protocol: http1}}\n",
            origin.address
        ));
        for line in [
            " GET / HTTP/1.1",
            "GET  / HTTP/1.1",
            "GET / HTTP/1.2",
            "GET / HTTP/2.0",
            "GET /\rx HTTP/1.1",
            "GET /\tx HTTP/1.1",
        ] {
            let mut client = Wire::connect(proxy.address("in")).await;
            client.write(format!("{line}\r\nHost: a\r\n\r\n")).await;
            let answer = String::from_utf8_lossy(&client.rest().await).into_owned();
            assert!(answer.starts_with("HTTP/1.1 400 "), "{line:?}: {answer:?}");
            assert_eq!(origin.take(), []);
        }
    });
}
