//! HTTP/2 that has no one form in HTTP/1.1 reaches no origin that speaks it. Frames by hand, with field blocks that no
//! library would write. Each row: what, the section, the fields, the content, the end.

use spanmesh_tests::{Protocol, Proxy, Recorder, Wire, run};

enum End {
    /// The stream is reset or answered with 400, and the origin has seen no whole message.
    Refused,
    /// The origin got this, as method, target and body.
    Arrives(&'static str),
}
use End::{Arrives, Refused};

type Field = (&'static str, &'static str);
type Row = (&'static str, &'static str, &'static [Field], Content, End);

enum Content {
    None,
    Data(&'static str),
    Trailers(&'static [Field]),
}
use Content::{Data, None as Empty, Trailers};

const METHOD: Field = (":method", "GET");
const POST: Field = (":method", "POST");
const SCHEME: Field = (":scheme", "http");
const PATH: Field = (":path", "/");
const AUTHORITY: Field = (":authority", "a");

/// Literal fields without indexing (RFC 7541 §6.2.2), without Huffman.
fn block(fields: &[Field]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for text in [name, value] {
            assert!(text.len() < 127);
            block.push(text.len() as u8);
            block.extend_from_slice(text.as_bytes());
        }
    }
    block
}

fn frame(kind: u8, flags: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
    [&[0, 0, payload.len() as u8, kind, flags, 0, 0, 0, stream], payload].concat()
}

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RESET: u8 = 3;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
/// `:status` in HPACK's static table (RFC 7541 §A), as an indexed field.
const STATUS_200: u8 = 0x88;
const STATUS_400: u8 = 0x8c;

fn bytes(fields: &[Field], content: &Content) -> Vec<u8> {
    let end = if matches!(content, Empty) { END_STREAM } else { 0 };
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    bytes.extend(frame(SETTINGS, 0, 0, &[]));
    bytes.extend(frame(HEADERS, END_HEADERS | end, 1, &block(fields)));
    match content {
        Empty => {}
        Data(text) => bytes.extend(frame(DATA, END_STREAM, 1, text.as_bytes())),
        Trailers(fields) => bytes.extend(frame(HEADERS, END_HEADERS | END_STREAM, 1, &block(fields))),
    }
    bytes
}

/// Whether the stream was answered with 200. Everything but 400, a reset and the connection's end is a panic.
async fn is_served(client: &mut Wire) -> bool {
    loop {
        let Some(start) = client.try_exactly(9).await else { return false };
        let size = u32::from_be_bytes([0, start[0], start[1], start[2]]) as usize;
        let Some(payload) = client.try_exactly(size).await else { return false };
        match (start[3], payload.first()) {
            (HEADERS, Some(&STATUS_200)) => return true,
            (HEADERS, Some(&STATUS_400)) | (RESET | GOAWAY, _) => return false,
            (HEADERS, _) => panic!("an answer {payload:?}"),
            _ => {}
        }
    }
}

fn judge(rows: &'static [Row]) {
    run(async move {
        let origin = Recorder::start().await;
        let proxy = Proxy::between(origin.address, Protocol::Http1);
        for (what, section, fields, content, end) in rows {
            let mut client = Wire::connect(proxy.address("in")).await;
            client.write(bytes(fields, content)).await;
            let served = is_served(&mut client).await;
            // Whatever else might still be on its way comes before this.
            let mut after = Wire::connect(proxy.address("in")).await;
            after.write("GET /after HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
            after.rest().await;
            let came: Vec<_> = origin.take().iter().map(|message| message.short()).collect();
            let expected = match end {
                Refused => vec!["GET /after"],
                Arrives(message) => vec![*message, "GET /after"],
            };
            assert_eq!(came, expected, "{what} ({section})");
            assert_eq!(served, matches!(end, Arrives(_)), "{what} ({section})");
        }
        proxy.at_rest().await;
    });
}

#[test]
fn pseudo_fields_have_one_reading() {
    judge(&[
        ("a request", "9113 8.3.1", &[METHOD, SCHEME, PATH, AUTHORITY], Empty, Arrives("GET /")),
        (
            "OPTIONS of all",
            "9113 8.3.1",
            &[(":method", "OPTIONS"), SCHEME, (":path", "*"), AUTHORITY],
            Empty,
            Arrives("OPTIONS *"),
        ),
        ("no method", "9113 8.3.1", &[SCHEME, PATH, AUTHORITY], Empty, Refused),
        ("no scheme", "9113 8.3.1", &[METHOD, PATH, AUTHORITY], Empty, Refused),
        ("no path", "9113 8.3.1", &[METHOD, SCHEME, AUTHORITY], Empty, Refused),
        ("a scheme and neither path nor host", "9113 8.3.1", &[METHOD, (":scheme", "h-tp")], Empty, Refused),
        ("an empty path", "9113 8.3.1", &[METHOD, SCHEME, (":path", ""), AUTHORITY], Empty, Refused),
        ("an empty method", "9113 8.3.1", &[(":method", ""), SCHEME, PATH, AUTHORITY], Empty, Refused),
        ("a path without a slash", "9113 8.3.1", &[METHOD, SCHEME, (":path", "x"), AUTHORITY], Empty, Refused),
        ("a path that is a query", "9113 8.3.1", &[METHOD, SCHEME, (":path", "?x"), AUTHORITY], Empty, Refused),
        ("a path that is a fragment", "9113 8.3.1", &[POST, SCHEME, (":path", "#x"), AUTHORITY], Empty, Refused),
        (
            "a path of a WebSocket that is a fragment",
            "8441 4",
            &[(":method", "CONNECT"), (":protocol", "websocket"), SCHEME, (":path", "#x"), AUTHORITY],
            Empty,
            Refused,
        ),
        ("a path that is a host", "9113 8.3.1", &[METHOD, SCHEME, (":path", "b:80"), AUTHORITY], Empty, Refused),
        ("a path that is a URL", "9113 8.3.1", &[METHOD, SCHEME, (":path", "http://b/"), AUTHORITY], Empty, Refused),
        ("an asterisk for GET", "9113 8.3.1", &[METHOD, SCHEME, (":path", "*"), AUTHORITY], Empty, Refused),
        ("a space in the path", "9113 8.3.1", &[METHOD, SCHEME, (":path", "/ HTTP/1.1"), AUTHORITY], Empty, Refused),
        (
            "lines in the path",
            "9113 10.3",
            &[METHOD, SCHEME, (":path", "/ HTTP/1.1\r\nHost: b\r\n\r\n"), AUTHORITY],
            Empty,
            Refused,
        ),
        ("a bare LF in the path", "9113 10.3", &[METHOD, SCHEME, (":path", "/a\nb"), AUTHORITY], Empty, Refused),
        ("NUL in the path", "9113 10.3", &[METHOD, SCHEME, (":path", "/a\0b"), AUTHORITY], Empty, Refused),
        ("a tab in the path", "9113 10.3", &[METHOD, SCHEME, (":path", "/a\tb"), AUTHORITY], Empty, Refused),
        (
            "a space in the method",
            "9113 10.3",
            &[(":method", "GET /x HTTP/1.1"), SCHEME, PATH, AUTHORITY],
            Empty,
            Refused,
        ),
        ("lines in the method", "9113 10.3", &[(":method", "GET\r\n"), SCHEME, PATH, AUTHORITY], Empty, Refused),
        ("another scheme", "9113 8.3.1", &[METHOD, (":scheme", "ftp"), PATH, AUTHORITY], Empty, Refused),
        ("a scheme with a host", "9113 10.3", &[METHOD, (":scheme", "http://b/?"), PATH, AUTHORITY], Empty, Refused),
        ("lines in the scheme", "9113 10.3", &[METHOD, (":scheme", "http\r\nx: y"), PATH, AUTHORITY], Empty, Refused),
        ("two methods", "9113 8.3", &[METHOD, POST, SCHEME, PATH, AUTHORITY], Empty, Refused),
        ("two paths", "9113 8.3", &[METHOD, SCHEME, PATH, (":path", "/b"), AUTHORITY], Empty, Refused),
        ("two authorities", "9113 8.3", &[METHOD, SCHEME, PATH, AUTHORITY, (":authority", "b")], Empty, Refused),
        ("an unknown one", "9113 8.3", &[METHOD, SCHEME, PATH, AUTHORITY, (":x", "y")], Empty, Refused),
        ("an answer's", "9113 8.3.1", &[METHOD, SCHEME, PATH, AUTHORITY, (":status", "200")], Empty, Refused),
        ("one behind a field", "9113 8.3", &[METHOD, SCHEME, ("x", "y"), PATH, AUTHORITY], Empty, Refused),
        (
            "an extended CONNECT of GET",
            "8441 4",
            &[METHOD, SCHEME, PATH, AUTHORITY, (":protocol", "websocket")],
            Empty,
            Refused,
        ),
        ("CONNECT with a path", "9113 8.5", &[(":method", "CONNECT"), PATH, (":authority", "a:80")], Empty, Refused),
        ("CONNECT without a port", "9110 9.3.6", &[(":method", "CONNECT"), AUTHORITY], Empty, Refused),
        ("CONNECT to nobody", "9113 8.5", &[(":method", "CONNECT")], Empty, Refused),
        (
            "CONNECT with a scheme",
            "9113 8.5",
            &[(":method", "CONNECT"), SCHEME, (":authority", "a:80")],
            Empty,
            Refused,
        ),
        ("two schemes", "9113 8.3", &[METHOD, SCHEME, SCHEME, PATH, AUTHORITY], Empty, Refused),
        ("a space before the path", "9113 8.3.1", &[METHOD, SCHEME, (":path", " /"), AUTHORITY], Empty, Refused),
        ("a space behind the path", "9113 8.3.1", &[METHOD, SCHEME, (":path", "/ "), AUTHORITY], Empty, Refused),
        ("DEL in the path", "9113 10.3", &[METHOD, SCHEME, (":path", "/a\x7fb"), AUTHORITY], Empty, Refused),
        ("a method with a colon", "9113 10.3", &[(":method", "GE:T"), SCHEME, PATH, AUTHORITY], Empty, Refused),
        ("one in capitals", "9113 8.3", &[METHOD, SCHEME, PATH, AUTHORITY, (":Path", "/b")], Empty, Refused),
    ]);
}

#[test]
fn a_host_agrees_with_the_authority() {
    judge(&[
        ("the same", "9113 8.3.1", &[METHOD, SCHEME, PATH, AUTHORITY, ("host", "a")], Empty, Arrives("GET /")),
        ("a host only", "9113 8.3.1", &[METHOD, SCHEME, PATH, ("host", "a")], Empty, Arrives("GET /")),
        ("another", "9113 8.3.1", &[METHOD, SCHEME, PATH, AUTHORITY, ("host", "b")], Empty, Refused),
        ("two hosts", "9112 3.2", &[METHOD, SCHEME, PATH, AUTHORITY, ("host", "a"), ("host", "a")], Empty, Refused),
        ("user information", "9113 8.3.1", &[METHOD, SCHEME, PATH, (":authority", "u@a")], Empty, Refused),
        ("a path", "9113 8.3.1", &[METHOD, SCHEME, PATH, (":authority", "a/b")], Empty, Refused),
        ("a list", "9113 8.3.1", &[METHOD, SCHEME, PATH, (":authority", "a,b")], Empty, Refused),
        ("a space", "9113 8.3.1", &[METHOD, SCHEME, PATH, (":authority", "a b")], Empty, Refused),
        ("lines", "9113 10.3", &[METHOD, SCHEME, PATH, (":authority", "a\r\nx: y")], Empty, Refused),
        ("an empty authority", "9113 8.3.1", &[METHOD, SCHEME, PATH, (":authority", "")], Empty, Refused),
        ("an empty host beside it", "9113 8.3.1", &[METHOD, SCHEME, PATH, AUTHORITY, ("host", "")], Empty, Refused),
        ("neither", "9113 8.3.1", &[METHOD, SCHEME, PATH], Empty, Refused),
        ("an empty host alone", "9113 8.3.1", &[METHOD, SCHEME, PATH, ("host", "")], Empty, Refused),
        ("a port beyond all", "9113 8.3.1", &[METHOD, SCHEME, PATH, (":authority", "a:65536")], Empty, Refused),
        ("lines in a host", "9113 10.3", &[METHOD, SCHEME, PATH, ("host", "a\r\nx: y")], Empty, Refused),
    ]);
}

#[test]
fn fields_have_one_reading() {
    judge(&[
        ("a capital", "9113 8.2.1", &[METHOD, SCHEME, PATH, AUTHORITY, ("X", "y")], Empty, Refused),
        ("a colon in a name", "9113 8.2.1", &[METHOD, SCHEME, PATH, AUTHORITY, ("x:y", "z")], Empty, Refused),
        ("a space in a name", "9113 8.2.1", &[METHOD, SCHEME, PATH, AUTHORITY, ("x y", "z")], Empty, Refused),
        ("lines in a name", "9113 10.3", &[METHOD, SCHEME, PATH, AUTHORITY, ("x: y\r\nz", "z")], Empty, Refused),
        ("no name", "9113 8.2.1", &[METHOD, SCHEME, PATH, AUTHORITY, ("", "z")], Empty, Refused),
        ("lines in a value", "9113 8.2.1", &[METHOD, SCHEME, PATH, AUTHORITY, ("x", "y\r\nz: 1")], Empty, Refused),
        (
            "a message in a value",
            "9113 10.3",
            &[METHOD, SCHEME, PATH, AUTHORITY, ("x", "y\r\n\r\nGET /in HTTP/1.1\r\nHost: a\r\n\r\n")],
            Empty,
            Refused,
        ),
        ("a bare LF in a value", "9113 8.2.1", &[METHOD, SCHEME, PATH, AUTHORITY, ("x", "y\nz: 1")], Empty, Refused),
        ("a bare CR in a value", "9113 8.2.1", &[METHOD, SCHEME, PATH, AUTHORITY, ("x", "y\rz: 1")], Empty, Refused),
        ("NUL in a value", "9113 8.2.1", &[METHOD, SCHEME, PATH, AUTHORITY, ("x", "y\0")], Empty, Refused),
        ("a space before a value", "9113 8.2.1", &[METHOD, SCHEME, PATH, AUTHORITY, ("x", " y")], Empty, Refused),
        ("a tab behind a value", "9113 8.2.1", &[METHOD, SCHEME, PATH, AUTHORITY, ("x", "y\t")], Empty, Refused),
        (
            "chunks",
            "9113 8.2.2",
            &[POST, SCHEME, PATH, AUTHORITY, ("transfer-encoding", "chunked")],
            Data("0\r\n\r\n"),
            Refused,
        ),
        ("connection", "9113 8.2.2", &[METHOD, SCHEME, PATH, AUTHORITY, ("connection", "close")], Empty, Refused),
        ("keep-alive", "9113 8.2.2", &[METHOD, SCHEME, PATH, AUTHORITY, ("keep-alive", "1")], Empty, Refused),
        (
            "proxy-connection",
            "9113 8.2.2",
            &[METHOD, SCHEME, PATH, AUTHORITY, ("proxy-connection", "close")],
            Empty,
            Refused,
        ),
        ("an upgrade", "9113 8.2.2", &[METHOD, SCHEME, PATH, AUTHORITY, ("upgrade", "h2c")], Empty, Refused),
        ("te", "9113 8.2.2", &[METHOD, SCHEME, PATH, AUTHORITY, ("te", "chunked")], Empty, Refused),
        (
            "chunks of nothing",
            "9113 8.2.2",
            &[POST, SCHEME, PATH, AUTHORITY, ("transfer-encoding", "")],
            Data("hello"),
            Refused,
        ),
        (
            "chunks in quotes of one",
            "9110 5.1",
            &[POST, SCHEME, PATH, AUTHORITY, ("transfer-encoding'", "chunked")],
            Data("0\r\n\r\n"),
            Refused,
        ),
        ("DEL in a value", "9110 5.5", &[METHOD, SCHEME, PATH, AUTHORITY, ("x", "\x7f")], Empty, Refused),
        ("a vertical tab in a value", "9110 5.5", &[METHOD, SCHEME, PATH, AUTHORITY, ("x", "\x0by")], Empty, Refused),
        ("NUL in a name", "9113 8.2.1", &[METHOD, SCHEME, PATH, AUTHORITY, ("x\0", "y")], Empty, Refused),
        ("a name beyond ASCII", "9113 8.2.1", &[METHOD, SCHEME, PATH, AUTHORITY, ("x\u{e9}", "y")], Empty, Refused),
        (
            "te with more than trailers",
            "9113 8.2.2",
            &[METHOD, SCHEME, PATH, AUTHORITY, ("te", "trailers, gzip")],
            Empty,
            Refused,
        ),
        (
            "te for trailers",
            "9113 8.2.2",
            &[METHOD, SCHEME, PATH, AUTHORITY, ("te", "trailers")],
            Empty,
            Arrives("GET /"),
        ),
        (
            "chunks behind underscores",
            "9110 5.1",
            &[POST, SCHEME, PATH, AUTHORITY, ("transfer_encoding", "chunked")],
            Empty,
            Refused,
        ),
        (
            "another expectation",
            "9110 10.1.1",
            &[POST, SCHEME, PATH, AUTHORITY, ("expect", "x")],
            Data("hello"),
            Refused,
        ),
    ]);
}

#[test]
fn a_length_is_that_of_the_data() {
    judge(&[
        (
            "the same",
            "9113 8.1.1",
            &[POST, SCHEME, PATH, AUTHORITY, ("content-length", "5")],
            Data("hello"),
            Arrives("POST / hello"),
        ),
        (
            "zeros in front",
            "9110 8.6",
            &[POST, SCHEME, PATH, AUTHORITY, ("content-length", "05")],
            Data("hello"),
            Arrives("POST / hello"),
        ),
        ("none", "9113 8.1.1", &[POST, SCHEME, PATH, AUTHORITY], Data("hello"), Arrives("POST / hello")),
        (
            "more than the data",
            "9113 8.1.1",
            &[POST, SCHEME, PATH, AUTHORITY, ("content-length", "6")],
            Data("hello"),
            Refused,
        ),
        (
            "less than the data",
            "9113 8.1.1",
            &[POST, SCHEME, PATH, AUTHORITY, ("content-length", "4")],
            Data("hello"),
            Refused,
        ),
        (
            "of trailers alone",
            "9113 8.1.1",
            &[POST, SCHEME, PATH, AUTHORITY, ("content-length", "5")],
            Trailers(&[("x", "y")]),
            Refused,
        ),
        (
            "none beside data",
            "9113 8.1.1",
            &[POST, SCHEME, PATH, AUTHORITY, ("content-length", "")],
            Data("hello"),
            Refused,
        ),
        (
            "beyond 63 bits",
            "9110 8.6",
            &[POST, SCHEME, PATH, AUTHORITY, ("content-length", "18446744073709551621")],
            Data("hello"),
            Refused,
        ),
        ("of no data", "9113 8.1.1", &[POST, SCHEME, PATH, AUTHORITY, ("content-length", "5")], Empty, Refused),
        (
            "two that differ",
            "9110 8.6",
            &[POST, SCHEME, PATH, AUTHORITY, ("content-length", "5"), ("content-length", "0")],
            Data("hello"),
            Refused,
        ),
        ("a sign", "9110 8.6", &[POST, SCHEME, PATH, AUTHORITY, ("content-length", "+5")], Data("hello"), Refused),
        ("a list", "9110 8.6", &[POST, SCHEME, PATH, AUTHORITY, ("content-length", "5, 5")], Data("hello"), Refused),
        (
            "a message in the data of a GET",
            "9113 8.1",
            &[METHOD, SCHEME, PATH, AUTHORITY],
            Data("GET /in HTTP/1.1\r\nHost: a\r\n\r\n"),
            Arrives("GET / GET /in HTTP/1.1\r\nHost: a"),
        ),
        (
            "trailers that frame",
            "9110 6.5.1",
            &[POST, SCHEME, PATH, AUTHORITY, ("trailer", "x")],
            Trailers(&[("content-length", "5"), ("x", "y")]),
            Arrives("POST /"),
        ),
        (
            "chunks in trailers",
            "9113 8.2.2",
            &[POST, SCHEME, PATH, AUTHORITY],
            Trailers(&[("transfer-encoding", "chunked")]),
            Refused,
        ),
        (
            "lines in trailers",
            "9113 8.2.1",
            &[POST, SCHEME, PATH, AUTHORITY, ("trailer", "x")],
            Trailers(&[("x", "y\r\nz: 1")]),
            Refused,
        ),
    ]);
}
