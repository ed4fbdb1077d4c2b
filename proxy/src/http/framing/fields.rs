//! Fields and targets that two hops could read in two ways, as far as the engine shows them. All is pure; `headers` asks.

use http::header::{
    ACCEPT_ENCODING, AUTHORIZATION, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE,
    COOKIE, EXPECT, FORWARDED, HOST, HeaderName, PROXY_AUTHORIZATION, RANGE, SEC_WEBSOCKET_ACCEPT,
    SEC_WEBSOCKET_EXTENSIONS, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, SET_COOKIE, TRAILER,
    TRANSFER_ENCODING, VARY, VIA,
};
use http::uri::{PathAndQuery, Scheme};
use http::{HeaderMap, HeaderValue, Method, Uri, Version};

use super::lines;
use crate::config::Underscores;
use crate::error::Flag;

/// The length that a head tells, if it does, put into the one form that everybody reads alike. RFC 9110 §8.6: a list of
/// equal lengths may be taken for one.
pub fn length(headers: &mut HeaderMap) -> Result<Option<u64>, ()> {
    let mut lines = headers.get_all(CONTENT_LENGTH).iter();
    let Some(first) = lines.next() else { return Ok(None) };
    let length = lines::length(first.as_bytes());
    if let (Some(length), None) = (length, lines.next())
        && (length == 0 || !first.as_bytes().starts_with(b"0"))
        && first.len() <= DIGITS
    {
        if length == 0 && first.len() > 1 {
            headers.insert(CONTENT_LENGTH, HeaderValue::from(0));
        }
        return Ok(Some(length));
    }
    let lines = headers.get_all(CONTENT_LENGTH).iter();
    let mut all = lines.flat_map(|line| line.as_bytes().split(|byte| *byte == b',')).map(|value| {
        let value = value.trim_ascii();
        lines::length(value)
    });
    let length = all.next().flatten().ok_or(())?;
    if !all.all(|other| other == Some(length)) {
        return Err(());
    }
    headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
    Ok(Some(length))
}

/// `chunked`, once and alone.
pub fn is_only_chunked(headers: &HeaderMap) -> bool {
    let mut lines = headers.get_all(TRANSFER_ENCODING).iter();
    let first = lines.next().is_some_and(|line| line.as_bytes().trim_ascii().eq_ignore_ascii_case(b"chunked"));
    first && lines.next().is_none()
}

/// RFC 9112 §3.2: each method has its forms of a target. The path as the next hop is to have it.
pub fn path(method: &Method, uri: &Uri, version: Version) -> Result<PathAndQuery, Flag> {
    let whole = uri.scheme().is_some();
    // What is fetched behind here is http, by whatever name a stranger calls it.
    if uri.scheme().is_some_and(|scheme| *scheme != Scheme::HTTP && *scheme != Scheme::HTTPS) {
        return Err(Flag::BadRequest);
    }
    let path = uri.path_and_query();
    let text = path.map_or("", PathAndQuery::as_str);
    let own = || path.cloned().ok_or(Flag::BadRequest);
    // The library cuts a fragment off, calls what is left of nothing but one `/`, and writes nothing.
    let slash = || PathAndQuery::from_static("/");
    let is_lost = text == "/" && path.is_some_and(|path| *path != slash());
    if *method == Method::CONNECT {
        // §3.2.3: a host and a port, and nothing else. RFC 8441 §4 brings a path, over HTTP/2.
        let port = uri.authority().is_some_and(|authority| authority.port_u16().is_some());
        return match version {
            Version::HTTP_2 if whole && text.starts_with('/') && !is_lost => own(),
            _ if !whole && text.is_empty() && port => Ok(PathAndQuery::from_static("/")),
            _ => Err(Flag::BadRequest),
        };
    }
    match text.as_bytes() {
        // RFC 9113 §8.3.1: one without `:path` is malformed. The library calls the path that is not there `/`, and writes
        // none.
        _ if uri.path().is_empty() || is_lost && version == Version::HTTP_2 => Err(Flag::BadRequest),
        _ if is_lost => Ok(slash()),
        [b'/', ..] => own(),
        b"*" if *method == Method::OPTIONS && (!whole || version == Version::HTTP_2) => own(),
        // §3.2.2: an absolute form may leave its path out.
        [b'?', ..] if whole && version != Version::HTTP_2 => {
            PathAndQuery::try_from(format!("/{text}")).map_err(|_| Flag::BadRequest)
        }
        _ => Err(Flag::BadRequest),
    }
}

/// `host[:port]` of RFC 3986 §3.2.2, without user information, and without the comma that would make it a list.
pub fn is_authority(bytes: &[u8]) -> bool {
    let (host, port) = match bytes {
        [b'[', ..] => match bytes.iter().position(|byte| *byte == b']') {
            Some(end) => bytes.split_at(end + 1),
            None => return false,
        },
        _ => bytes.split_at(bytes.iter().position(|byte| *byte == b':').unwrap_or(bytes.len())),
    };
    let port = match port {
        [] | [b':'] => true,
        [b':', digits @ ..] => digits.len() <= 5 && lines::length(digits).is_some_and(|port| port <= 65535),
        _ => false,
    };
    let named = match host {
        [b'[', address @ .., b']'] => {
            !address.is_empty() && address.iter().all(|byte| byte.is_ascii_hexdigit() || b":.".contains(byte))
        }
        _ => host.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-._~%!$&'()*+;=".contains(byte)),
    };
    port && named && !host.is_empty()
}

/// RFC 9113 §8.2.1: no white space around a value; HTTP/1 behind would lose it.
pub fn is_padded(value: &HeaderValue) -> bool {
    let bytes = value.as_bytes();
    matches!(bytes.first(), Some(b' ' | b'\t')) || matches!(bytes.last(), Some(b' ' | b'\t'))
}

/// RFC 9110 §10.1.1: there is one expectation.
pub fn expectation(headers: &HeaderMap) -> Result<bool, Flag> {
    let mut lines = headers.get_all(EXPECT).iter();
    match (lines.next(), lines.next()) {
        (None, _) => Ok(false),
        (Some(line), None) if line.as_bytes().eq_ignore_ascii_case(b"100-continue") => Ok(true),
        _ => Err(Flag::BadRequest),
    }
}

/// Applications behind CGI and its heirs read `_` and `-` alike. Whatever the policy, no name may pass for a field that
/// frames the message, or that a proxy writes.
pub fn names(headers: &mut HeaderMap, policy: Underscores) -> Result<(), Flag> {
    let mut dropped = Vec::new();
    for name in headers.keys() {
        if passes_for_framing(name) || is_quoted(name) {
            return Err(Flag::BadRequest);
        }
        if !name.as_str().contains('_') {
            continue;
        }
        if policy == Underscores::Refuse || imitates(name.as_str()) {
            return Err(Flag::BadRequest);
        }
        if policy == Underscores::Drop {
            dropped.push(name.clone());
        }
    }
    for name in dropped {
        headers.remove(name);
    }
    Ok(())
}

/// `Transfer--Encoding`, `'Content-Length`: nobody means anything by them but to be misread.
fn passes_for_framing(name: &HeaderName) -> bool {
    // Nearly no name begins like one of the two and is as long.
    let first = name.as_str().bytes().find(u8::is_ascii_alphanumeric);
    if name.as_str().len() < LETTERS || !matches!(first, Some(b'c' | b't')) {
        return false;
    }
    let letters = || name.as_str().bytes().filter(u8::is_ascii_alphanumeric);
    letters().eq(*b"transferencoding") && *name != TRANSFER_ENCODING
        || letters().eq(*b"contentlength") && *name != CONTENT_LENGTH
}

/// RFC 9110 §5.1: a name is a token. The engine takes a quote for a part of one, over HTTP/2.
pub fn is_quoted(name: &HeaderName) -> bool {
    name.as_str().contains('"')
}

fn imitates(name: &str) -> bool {
    // Behind these the name is the application's own: a key of its baggage, such as `user_id`.
    if KEYED_PREFIXES.iter().any(|prefix| name.starts_with(prefix)) {
        return false;
    }
    HeaderName::try_from(name.replace('_', "-"))
        .is_ok_and(|name| is_relied_on(&name) || FRAMING.contains(&name.as_str()))
}

/// Fields that travel from end to end and that somebody relies on: naming one in `Connection` takes nothing away.
/// RFC 9110 §7.6.1 forbids to name fields that are for everyone.
pub fn is_relied_on(name: &HeaderName) -> bool {
    let text = name.as_str();
    RELIED_ON.contains(name)
        || WRITTEN.contains(&text)
        || WRITTEN_PREFIXES.iter().any(|prefix| text.starts_with(prefix))
}

/// Longer is written with zeros in front, or is none.
const DIGITS: usize = 20;

/// Of `contentlength`, the shorter of the two.
const LETTERS: usize = 13;

const FRAMING: [&str; 2] = ["connection", "upgrade"];

static RELIED_ON: [HeaderName; 22] = [
    HOST,
    CONTENT_LENGTH,
    TRAILER,
    EXPECT,
    ACCEPT_ENCODING,
    AUTHORIZATION,
    CACHE_CONTROL,
    CONTENT_ENCODING,
    CONTENT_RANGE,
    CONTENT_TYPE,
    COOKIE,
    FORWARDED,
    PROXY_AUTHORIZATION,
    RANGE,
    SEC_WEBSOCKET_ACCEPT,
    SEC_WEBSOCKET_EXTENSIONS,
    SEC_WEBSOCKET_KEY,
    SEC_WEBSOCKET_PROTOCOL,
    SEC_WEBSOCKET_VERSION,
    SET_COOKIE,
    VARY,
    VIA,
];

/// What proxies tell of a request's way, and of its trace.
const WRITTEN: [&str; 15] = [
    "x-real-ip",
    "x-request-id",
    "traceparent",
    "tracestate",
    "baggage",
    "b3",
    "uber-trace-id",
    "x-amzn-trace-id",
    "x-cloud-trace-context",
    "sw8",
    "sw8-x",
    "sw8-correlation",
    "grpc-trace-bin",
    "jaeger-debug-id",
    "jaeger-baggage",
];
const WRITTEN_PREFIXES: [&str; 6] = ["x-forwarded-", "x-b3-", "x-datadog-", "uberctx-", "ot-", "spanmesh-"];
const KEYED_PREFIXES: [&str; 2] = ["uberctx-", "ot-baggage-"];

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        let pair = |(name, value): &(&'static str, &'static str)| {
            (HeaderName::from_static(name), HeaderValue::from_static(value))
        };
        lines.iter().map(pair).collect()
    }

    #[test]
    fn a_length_has_one_form() {
        for (lines, expected) in [
            (&["5"][..], Some("5")),
            (&["0"], Some("0")),
            (&["005"], Some("5")),
            (&["00"], Some("0")),
            (&["5", "5"], Some("5")),
            (&["5, 5"], Some("5")),
            (&["5", "6"], None),
            (&["5, 6"], None),
            (&["5,"], None),
            (&["+5"], None),
            (&["0x5"], None),
            (&["5 5"], None),
            (&[""], None),
            (&["99999999999999999999"], None),
        ] {
            let mut map = HeaderMap::new();
            for line in lines {
                map.append(CONTENT_LENGTH, HeaderValue::from_static(line));
            }
            let told = length(&mut map);
            assert_eq!(told.is_ok(), expected.is_some(), "{lines:?}");
            if let Some(expected) = expected {
                assert_eq!(told, Ok(expected.parse().ok()));
                assert_eq!(map.get_all(CONTENT_LENGTH).iter().collect::<Vec<_>>(), [expected]);
            }
        }
    }

    #[test]
    fn an_authority_is_one_host_and_maybe_a_port() {
        for good in ["a", "a:1", "a:", "1.2.3.4:65535", "[::1]:80", "[::1]", "a_b.c", "x%20y", "a.b."] {
            assert!(is_authority(good.as_bytes()), "{good}");
        }
        for bad in [
            "", ":80", "a b", "a,b", "u@a", "a/b", "a?b", "a#b", "a\\b", "a:b", "a:65536", "a:1:2", "[::1", "[]",
            "[a]x", "a\"", "é",
        ] {
            assert!(!is_authority(bad.as_bytes()), "{bad}");
        }
    }

    #[test]
    fn each_method_has_its_targets() {
        let read = |method: &str, target: &str| {
            let uri = target.parse::<Uri>().ok()?;
            path(&method.parse().ok()?, &uri, Version::HTTP_11).ok().map(|path| path.to_string())
        };
        let is = |path: &str| Some(path.to_owned());
        assert_eq!(read("GET", "/a?b"), is("/a?b"));
        assert_eq!(read("GET", "//a"), is("//a"));
        assert_eq!(read("GET", "http://a"), is("/"));
        assert_eq!(read("GET", "http://a?b"), is("/?b"));
        assert_eq!(read("OPTIONS", "*"), is("*"));
        assert_eq!(read("CONNECT", "a:80"), is("/"));
        let fragment = Uri::builder().scheme("http").authority("a").path_and_query("#x").build().expect("a target");
        for method in [Method::GET, Method::CONNECT] {
            assert_eq!(path(&method, &fragment, Version::HTTP_2), Err(Flag::BadRequest));
        }
        for (method, target) in [
            ("GET", "a"),
            ("GET", "a:80"),
            ("GET", "*"),
            ("GET", "ftp://a/"),
            ("CONNECT", "a"),
            ("CONNECT", "/"),
            ("CONNECT", "http://a:80/"),
            ("CONNECT", "*"),
        ] {
            assert_eq!(read(method, target), None, "{method} {target}");
        }
    }

    #[test]
    fn an_underscore_passes_for_nothing_that_is_relied_on() {
        for (name, kept) in [
            ("user_id", true),
            ("content_length", false),
            ("transfer_encoding", false),
            ("transfer-encodin_g", false),
            ("transfer--encoding", false),
            ("'content-length", false),
            ("x_forwarded_for", false),
            ("x-forwarded_for", false),
            ("x_b3_traceid", false),
            ("spanmesh_keep", false),
            ("uberctx-user_id", true),
            ("uberctx_user-id", false),
            ("ot-baggage-user_id", true),
            ("ot_baggage-user-id", false),
            ("ot-tracer_traceid", false),
        ] {
            let mut map = headers(&[("a-b", "1")]);
            map.insert(HeaderName::from_static(name), HeaderValue::from_static("1"));
            assert_eq!(names(&mut map.clone(), Underscores::Keep).is_ok(), kept, "{name}");
            assert!(names(&mut map.clone(), Underscores::Refuse).is_err());
            if kept {
                assert!(names(&mut map, Underscores::Drop).is_ok());
                assert_eq!(map, headers(&[("a-b", "1")]));
            }
        }
    }
}
