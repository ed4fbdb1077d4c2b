//! What a proxy must do to the head of a message: read where it goes, refuse what can be read in two ways, take out
//! what belongs to one connection only, and shape it for the next hop's protocol.

mod noted;

use std::net::SocketAddr;

use http::header::{
    AUTHORIZATION, CACHE_CONTROL, CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, COOKIE,
    EXPECT, HOST, HeaderName, IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, IF_UNMODIFIED_SINCE, LOCATION,
    MAX_FORWARDS, PROXY_AUTHORIZATION, RANGE, SET_COOKIE, TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
};
use http::request::Parts;
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, Version};
use hyper::ext::Protocol;

use self::noted::Noted;
use super::framing::fields;
use crate::config::{Limits, Underscores};
use crate::error::Flag;
use crate::limit::Limit;

/// A request's head, read and cleaned. `headers` holds only what travels from end to end.
pub struct Head {
    pub method: Method,
    pub path: PathAndQuery,
    pub host: Option<HeaderValue>,
    /// The target was given in full, as to a forward proxy.
    pub absolute: Option<Absolute>,
    pub version: Version,
    pub headers: HeaderMap,
    pub upgrade: Upgrade,
    pub expects_continue: bool,
    /// For the next proxy only: taken out of `headers`, and put back where that is who stands behind.
    pub proxy_authorization: Option<HeaderValue>,
    /// The client said that it takes trailers; over HTTP/2 it always does.
    pub takes_trailers: bool,
}

/// A target in full.
#[derive(Clone, Debug)]
pub struct Absolute {
    pub authority: Authority,
    pub scheme: Scheme,
}

impl Absolute {
    /// It asks for https, which a forward proxy reaches through CONNECT only.
    pub fn is_secure(&self) -> bool {
        self.scheme == Scheme::HTTPS
    }
}

/// What the request wants the connection to become.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Upgrade {
    No,
    /// HTTP/1.1's `Upgrade`, with the protocol asked for.
    Http1(HeaderValue),
    /// HTTP/2's extended CONNECT (RFC 8441), with its `:protocol`.
    Extended(Protocol),
    /// Plain CONNECT: a tunnel to an authority.
    Tunnel(Authority),
}

/// Reads a request's head. `Err` is the answer to what breaks the rules.
pub fn read(parts: Parts, policy: Underscores) -> Result<Head, Flag> {
    let Parts { method, uri, version, mut headers, mut extensions, .. } = parts;
    if version == Version::HTTP_2 && headers.values().any(fields::is_padded) {
        return Err(Flag::BadRequest);
    }
    fields::names(&mut headers, policy)?;
    let path = fields::path(&method, &uri, version)?;
    let host = host(&uri, version, &mut headers)?;
    let noted = Noted::of(&headers);
    let length = match noted.has(Noted::LENGTH) {
        true => fields::length(&mut headers).map_err(|()| Flag::BadRequest)?,
        false => None,
    };
    let chunked = noted.has(Noted::CODING);
    if chunked && (length.is_some() || !fields::is_only_chunked(&headers)) {
        return Err(Flag::BadRequest);
    }
    let has_content = chunked || length.is_some_and(|length| length > 0);
    // RFC 9110 §9.3.6: what follows a CONNECT is the tunnel's, so that a content has no place.
    if method == Method::CONNECT && has_content {
        return Err(Flag::BadRequest);
    }
    let expects = noted.has(Noted::EXPECT) && fields::expectation(&headers)?;
    let expects_continue = expects && version == Version::HTTP_11;
    if expects && version < Version::HTTP_11 {
        headers.remove(EXPECT);
    }
    let protocol = extensions.remove::<Protocol>();
    let upgrade = match (&method, protocol) {
        (&Method::CONNECT, Some(protocol)) => Upgrade::Extended(protocol),
        (&Method::CONNECT, None) => Upgrade::Tunnel(uri.authority().cloned().ok_or(Flag::BadRequest)?),
        // RFC 9110 §7.8: asking may be ignored; and behind a content nobody is sure where the new protocol begins.
        _ if has_content || !noted.has(Noted::UPGRADE) => Upgrade::No,
        _ => asked_upgrade(version, &headers),
    };
    let absolute = match version {
        Version::HTTP_2 => None,
        _ if method == Method::CONNECT => None,
        _ => uri
            .authority()
            .cloned()
            .map(|authority| Absolute { authority, scheme: uri.scheme().cloned().unwrap_or(Scheme::HTTP) }),
    };
    let keep_te = noted.has(Noted::TE) && lists(&headers, &TE, b"trailers");
    let takes_trailers = version == Version::HTTP_2 || (version == Version::HTTP_11 && keep_te);
    strip(&mut headers, noted);
    let proxy_authorization = match noted.has(Noted::PROXY_AUTHORIZATION) {
        true => headers.remove(PROXY_AUTHORIZATION),
        false => None,
    };
    if keep_te {
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
    Ok(Head {
        method,
        path,
        host,
        absolute,
        version,
        headers,
        upgrade,
        expects_continue,
        proxy_authorization,
        takes_trailers,
    })
}

/// The limit that a head exceeds. Over HTTP/1 the engine counts the bytes and the lines as they come.
pub fn exceeds(parts: &Parts, limits: &Limits) -> Option<Limit> {
    if parts.version != Version::HTTP_2 {
        return None;
    }
    let target = parts.uri.path().len() + parts.uri.query().map_or(0, str::len);
    let cookies = parts.headers.get_all(COOKIE).iter().count();
    if target + list_size(&parts.headers) > limits.header_bytes {
        return Some(Limit::HeaderBytes);
    }
    // RFC 9113 §8.2.3: one cookie a line, which would be one line together.
    (parts.headers.len() - cookies.saturating_sub(1) > limits.header_count).then_some(Limit::HeaderCount)
}

/// Whether trailers are more than a head may be.
pub fn are_too_many(trailers: &HeaderMap, limits: &Limits) -> bool {
    list_size(trailers) > limits.header_bytes || trailers.len() > limits.header_count
}

/// The size of a list of fields as RFC 9113 §6.5.2 counts it.
fn list_size(fields: &HeaderMap) -> usize {
    fields.iter().fold(0, |size, (name, value)| size + name.as_str().len() + value.len() + FIELD_COST)
}

/// The one authority that a request names. RFC 9112 §3.2: HTTP/1.1 must send one `Host`, and the target's own authority
/// wins over it. RFC 9113 §8.3.1: over HTTP/2 there is one of `:authority` and `Host`, and they must not differ.
fn host(uri: &Uri, version: Version, headers: &mut HeaderMap) -> Result<Option<HeaderValue>, Flag> {
    let mut lines = headers.get_all(HOST).iter();
    let line = lines.next().cloned();
    if lines.next().is_some() {
        return Err(Flag::BadRequest);
    }
    headers.remove(HOST);
    if let Some(line) = &line
        && !line.is_empty()
        && !fields::is_authority(line.as_bytes())
    {
        return Err(Flag::BadRequest);
    }
    let Some(authority) = uri.authority() else {
        return match (version, line) {
            (Version::HTTP_11 | Version::HTTP_2, None) => Err(Flag::BadRequest),
            (Version::HTTP_2, Some(line)) if line.is_empty() => Err(Flag::BadRequest),
            (_, line) => Ok(line),
        };
    };
    if !fields::is_authority(authority.as_str().as_bytes()) {
        return Err(Flag::BadRequest);
    }
    if version == Version::HTTP_2
        && let Some(line) = &line
        && !line.as_bytes().eq_ignore_ascii_case(authority.as_str().as_bytes())
    {
        return Err(Flag::BadRequest);
    }
    match HeaderValue::from_str(authority.as_str()) {
        Ok(value) => Ok(Some(value)),
        Err(_) => Err(Flag::BadRequest),
    }
}

/// HTTP/1.1 alone can upgrade. `h2c` is never passed on: behind it nobody would read the requests but the two ends.
fn asked_upgrade(version: Version, headers: &HeaderMap) -> Upgrade {
    if version != Version::HTTP_11 || !lists(headers, &CONNECTION, b"upgrade") {
        return Upgrade::No;
    }
    match headers.get(UPGRADE) {
        Some(value) if !names_h2c(value) => Upgrade::Http1(value.clone()),
        _ => Upgrade::No,
    }
}

fn names_h2c(value: &HeaderValue) -> bool {
    value.as_bytes().split(|byte| *byte == b',').any(|name| {
        let name = name.trim_ascii();
        name.eq_ignore_ascii_case(b"h2c") || name.eq_ignore_ascii_case(b"h2")
    })
}

/// Whether any line of a comma-separated field lists a token.
fn lists(headers: &HeaderMap, name: &HeaderName, token: &[u8]) -> bool {
    let mut lines = headers.get_all(name).iter();
    lines.any(|line| line.as_bytes().split(|byte| *byte == b',').any(|t| t.trim_ascii().eq_ignore_ascii_case(token)))
}

/// Takes out what belongs to one connection (RFC 9110 §7.6.1), and whatever `Connection` names. `Trailer` stays: it is
/// a promise about the message. What somebody relies on cannot be named away.
fn strip(headers: &mut HeaderMap, noted: Noted) {
    if noted.has(Noted::CONNECTION) {
        while let Some(line) = headers.remove(CONNECTION) {
            line.as_bytes().split(|byte| *byte == b',').for_each(|name| strip_named(headers, name.trim_ascii()));
        }
    }
    if noted.has(Noted::HOP | Noted::TE | Noted::CODING | Noted::UPGRADE) {
        for name in &HOP_BY_HOP {
            headers.remove(name);
        }
    }
    if noted.has(Noted::MESH) {
        strip_mesh(headers);
    }
}

/// Takes out what `Connection` names. Nearly always it names one of these two, which are words and no fields of the
/// message, or fields that go anyway.
fn strip_named(headers: &mut HeaderMap, name: &[u8]) {
    if name.eq_ignore_ascii_case(b"keep-alive") {
        headers.remove(KEEP_ALIVE);
    } else if !name.eq_ignore_ascii_case(b"close")
        && let Ok(name) = HeaderName::from_bytes(name)
        && !fields::is_relied_on(&name)
    {
        headers.remove(name);
    }
}

/// Headers of the mesh are written by proxies from their own knowledge. Nobody else may bring or answer with one.
fn strip_mesh(headers: &mut HeaderMap) {
    // All are found first: to look again after each would take quadratic time.
    let names: Vec<HeaderName> = headers.keys().filter(|name| name.as_str().starts_with(MESH)).cloned().collect();
    for name in names {
        headers.remove(name);
    }
}

/// Cleans the head of an answer, and says whether its connection can go on. What can be read in two ways is refused:
/// RFC 9112 §6.3, a length beside chunks, lengths that differ, a coding that belongs to the hop and that this proxy did
/// not ask for.
pub fn clean_answer(status: StatusCode, headers: &mut HeaderMap) -> Result<Leftover, Flag> {
    if headers.keys().any(fields::is_quoted) {
        return Err(Flag::ProtocolError);
    }
    let noted = Noted::of(headers);
    let length = match noted.has(Noted::LENGTH) {
        true => fields::length(headers).map_err(|()| Flag::ProtocolError)?,
        false => None,
    };
    let chunked = noted.has(Noted::CODING);
    if chunked && (length.is_some() || !fields::is_only_chunked(headers)) {
        return Err(Flag::ProtocolError);
    }
    strip(headers, noted);
    if status != StatusCode::NO_CONTENT && status != StatusCode::SWITCHING_PROTOCOLS {
        return Ok(Leftover::None);
    }
    // RFC 9110 §8.6: these have no content, whatever they say; one who says so all the same may send it.
    headers.remove(CONTENT_LENGTH);
    Ok(if chunked || length.is_some_and(|length| length > 0) { Leftover::Possible } else { Leftover::None })
}

/// Whether an origin may send what nobody waits for: it would be read as the next answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leftover {
    None,
    Possible,
}

/// RFC 9113 §8.2.3: HTTP/2 splits cookies into fields of their own, HTTP/1 reads only one.
pub fn join_cookies(headers: &mut HeaderMap) {
    let mut lines = headers.get_all(COOKIE).iter();
    let (Some(first), Some(second)) = (lines.next(), lines.next()) else { return };
    let mut joined = first.as_bytes().to_vec();
    for line in std::iter::once(second).chain(lines) {
        joined.extend_from_slice(b"; ");
        joined.extend_from_slice(line.as_bytes());
    }
    if let Ok(mut joined) = HeaderValue::from_bytes(&joined) {
        joined.set_sensitive(first.is_sensitive());
        headers.insert(COOKIE, joined);
    }
}

/// Which trailers the next hop takes; the others are dropped and counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trailers {
    All,
    /// hyper writes towards an HTTP/1.1 peer those that `Trailer` announced, and no others.
    Named(Vec<HeaderName>),
    None,
}

impl Trailers {
    pub fn announced(headers: &HeaderMap) -> Self {
        let lines = headers.get_all(TRAILER).iter();
        let names = lines.flat_map(|line| line.as_bytes().split(|byte| *byte == b','));
        let names: Vec<_> = names.filter_map(|name| HeaderName::from_bytes(name.trim_ascii()).ok()).collect();
        if names.is_empty() { Self::None } else { Self::Named(names) }
    }

    /// Takes out what may not stand in trailers. False when something is lost, by that or because the next hop does not
    /// take it.
    pub fn clean(&self, trailers: &mut HeaderMap) -> bool {
        let count = trailers.len();
        for name in HOP_BY_HOP.iter().chain(&HEAD_ONLY) {
            trailers.remove(name);
        }
        strip_mesh(trailers);
        let quoted: Vec<HeaderName> = trailers.keys().filter(|name| fields::is_quoted(name)).cloned().collect();
        for name in quoted {
            trailers.remove(name);
        }
        let whole = trailers.len() == count;
        whole
            && match self {
                Self::All => true,
                Self::Named(names) => trailers.keys().all(|name| names.contains(name)),
                Self::None => false,
            }
    }
}

/// The target and the headers for the next hop. The caller has put everything else into `headers`.
pub fn target(head: &Head, version: Version, tls: bool, fallback: SocketAddr, headers: &mut HeaderMap) -> Option<Uri> {
    if version != Version::HTTP_2 {
        let host = head.host.clone().or_else(|| HeaderValue::from_str(&fallback.to_string()).ok())?;
        headers.insert(HOST, host);
        return Some(Uri::from(head.path.clone()));
    }
    let authority = match &head.host {
        Some(host) if !host.is_empty() => Authority::try_from(host.as_bytes()).ok()?,
        _ => Authority::try_from(fallback.to_string()).ok()?,
    };
    let scheme = if tls { Scheme::HTTPS } else { Scheme::HTTP };
    Uri::builder().scheme(scheme).authority(authority).path_and_query(head.path.clone()).build().ok()
}

/// The same for a proxy that the client meant: the target in the form that it came in, and the client's right to use it.
pub fn proxy_target(head: &Head, headers: &mut HeaderMap) -> Option<Uri> {
    headers.insert(HOST, head.host.clone()?);
    if let Some(authorization) = &head.proxy_authorization {
        headers.insert(PROXY_AUTHORIZATION, authorization.clone());
    }
    if let Upgrade::Tunnel(authority) = &head.upgrade {
        return Some(Uri::from(authority.clone()));
    }
    let Absolute { authority, scheme } = head.absolute.clone()?;
    Uri::builder().scheme(scheme).authority(authority).path_and_query(head.path.clone()).build().ok()
}

/// What a field costs beside its bytes.
const FIELD_COST: usize = 32;
const MESH: &str = "spanmesh-";
const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
const HTTP2_SETTINGS: HeaderName = HeaderName::from_static("http2-settings");

static HOP_BY_HOP: [HeaderName; 6] = [KEEP_ALIVE, PROXY_CONNECTION, HTTP2_SETTINGS, TE, TRANSFER_ENCODING, UPGRADE];

/// Fields that say how long a message is, where it goes, who sends it and how it is read: behind the content they come
/// too late to be heeded, and one who merged them into the head would be misled (RFC 9110 §6.5.1).
static HEAD_ONLY: [HeaderName; 21] = [
    CONNECTION,
    CONTENT_LENGTH,
    TRAILER,
    HOST,
    MAX_FORWARDS,
    EXPECT,
    RANGE,
    IF_MATCH,
    IF_NONE_MATCH,
    IF_MODIFIED_SINCE,
    IF_UNMODIFIED_SINCE,
    IF_RANGE,
    CACHE_CONTROL,
    AUTHORIZATION,
    PROXY_AUTHORIZATION,
    COOKIE,
    SET_COOKIE,
    LOCATION,
    CONTENT_ENCODING,
    CONTENT_TYPE,
    CONTENT_RANGE,
];

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn request(uri: &str, version: Version, headers: &[(&str, &str)]) -> Result<Head, Flag> {
        let mut builder = Request::builder().uri(uri).version(version);
        for (name, value) in headers {
            builder = builder.header(*name, *value);
        }
        read(builder.body(()).expect("request").into_parts().0, Underscores::Keep)
    }

    #[test]
    fn one_host_and_only_one() {
        assert_eq!(request("/", Version::HTTP_11, &[]).err(), Some(Flag::BadRequest));
        assert_eq!(request("/", Version::HTTP_11, &[("host", "a"), ("host", "a")]).err(), Some(Flag::BadRequest));
        assert_eq!(request("/", Version::HTTP_11, &[("host", "user@a")]).err(), Some(Flag::BadRequest));
        assert_eq!(request("/", Version::HTTP_11, &[("host", "a b")]).err(), Some(Flag::BadRequest));
        assert!(request("/", Version::HTTP_10, &[]).is_ok_and(|head| head.host.is_none()));
    }

    #[test]
    fn the_targets_own_authority_wins() {
        let head = request("http://b/x", Version::HTTP_11, &[("host", "a")]).expect("accepted");
        assert_eq!(head.host.expect("host"), "b");
        assert_eq!(head.absolute.expect("a full target").authority.as_str(), "b");
        assert_eq!(head.path, "/x");
    }

    #[test]
    fn a_proxy_gets_the_target_as_it_came_and_nobody_else_the_right_to_use_it() {
        let lines = [("host", "a"), ("proxy-authorization", "Basic eA=="), ("x", "1")];
        let head = request("http://b:81/x?y", Version::HTTP_11, &lines).expect("accepted");
        let mut headers = head.headers.clone();
        let next = ([10, 0, 0, 5], 3128).into();
        assert_eq!(target(&head, Version::HTTP_11, false, next, &mut headers).expect("a target"), "/x?y");
        assert!(!headers.contains_key("proxy-authorization"));
        assert_eq!(proxy_target(&head, &mut headers).expect("a target"), "http://b:81/x?y");
        assert_eq!(
            (&headers["host"], &headers["proxy-authorization"]),
            (&"b:81".parse().expect("v"), &lines[1].1.parse().expect("v"))
        );

        let connect = Request::connect("b:443").header("host", "b:443").body(()).expect("request");
        let head = read(connect.into_parts().0, Underscores::Keep).expect("accepted");
        let mut headers = head.headers.clone();
        assert_eq!(proxy_target(&head, &mut headers).expect("a target"), "b:443");
        assert_eq!(headers["host"], "b:443");
    }

    #[test]
    fn http2_authority_and_host_must_agree() {
        assert!(request("http://a/", Version::HTTP_2, &[("host", "a")]).is_ok());
        assert_eq!(request("http://a/", Version::HTTP_2, &[("host", "b")]).err(), Some(Flag::BadRequest));
    }

    #[test]
    fn what_connection_names_is_removed_but_not_what_frames_or_addresses() {
        let head = request(
            "/",
            Version::HTTP_11,
            &[
                ("host", "a"),
                ("connection", "x-secret, host, content-length, close"),
                ("connection", "keep-alive"),
                ("x-secret", "1"),
                ("keep-alive", "5"),
                ("content-length", "0"),
                ("proxy-connection", "x"),
                ("x-stays", "1"),
            ],
        )
        .expect("accepted");
        let mut names: Vec<_> = head.headers.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, ["content-length", "x-stays"]);
        assert_eq!(head.host.expect("host"), "a");
    }

    #[test]
    fn an_upgrade_needs_connection_and_http2_is_no_upgrade() {
        let with = |extra: &[(&str, &str)]| {
            let headers: Vec<_> = [("host", "a")].into_iter().chain(extra.iter().copied()).collect();
            request("/", Version::HTTP_11, &headers).expect("accepted").upgrade
        };
        assert_eq!(with(&[("upgrade", "websocket")]), Upgrade::No);
        assert_eq!(with(&[("upgrade", "h2c"), ("connection", "upgrade, http2-settings")]), Upgrade::No);
        assert_eq!(
            with(&[("upgrade", "websocket"), ("connection", "keep-alive, Upgrade")]),
            Upgrade::Http1(HeaderValue::from_static("websocket"))
        );
    }

    #[test]
    fn headers_of_the_mesh_are_nobodys_to_bring() {
        let head = request("/", Version::HTTP_11, &[("host", "a"), ("spanmesh-keep", "1"), ("spanmeshed", "1")]);
        let head = head.expect("accepted");
        assert_eq!(head.headers.keys().map(HeaderName::as_str).collect::<Vec<_>>(), ["spanmeshed"]);
    }

    #[test]
    fn a_head_beyond_the_limit_is_too_large_over_http2() {
        let limits = Limits { header_bytes: 4096, header_count: 20, ..Limits::default() };
        let exceeded = |headers: &[(&str, &str)]| {
            let mut request = Request::builder().uri("http://a/").version(Version::HTTP_2);
            for (name, value) in headers {
                request = request.header(*name, *value);
            }
            exceeds(&request.body(()).expect("request").into_parts().0, &limits)
        };
        let value = "v".repeat(3000);
        assert_eq!(exceeded(&[("x", &value)]), None);
        assert_eq!(exceeded(&[("x", &value), ("y", &value)]), Some(Limit::HeaderBytes));
        assert_eq!(exceeded(&[("x", "y"); 21]), Some(Limit::HeaderCount));
        assert_eq!(exceeded(&[("cookie", "y"); 60]), None);
    }

    #[test]
    fn a_coding_other_than_chunked_is_refused() {
        for (coding, accepted) in [("chunked", true), ("Chunked", true), ("gzip, chunked", false), ("gzip", false)] {
            let head = request("/", Version::HTTP_11, &[("host", "a"), ("transfer-encoding", coding)]);
            assert_eq!(head.is_ok(), accepted, "{coding}");
            let mut answer = HeaderMap::from_iter([(TRANSFER_ENCODING, HeaderValue::from_static(coding))]);
            assert_eq!(clean_answer(StatusCode::OK, &mut answer.clone()).is_ok(), accepted, "{coding}");
            answer.insert(CONTENT_LENGTH, HeaderValue::from_static("5"));
            assert_eq!(clean_answer(StatusCode::OK, &mut answer), Err(Flag::ProtocolError), "{coding}");
        }
    }

    #[test]
    fn a_quote_is_no_part_of_a_name() {
        // So the engine reads names over HTTP/2.
        let quoted = HeaderName::from_lowercase(b"\"ontent-length").expect("a name to the engine");
        let five = HeaderValue::from_static("5");
        let mut parts = Request::get("http://a/").version(Version::HTTP_2).body(()).expect("request").into_parts().0;
        parts.headers.insert(quoted.clone(), five.clone());
        assert_eq!(read(parts, Underscores::Keep).err(), Some(Flag::BadRequest));
        let mut headers = HeaderMap::from_iter([(quoted, five)]);
        assert_eq!(clean_answer(StatusCode::OK, &mut headers.clone()), Err(Flag::ProtocolError));
        assert!(!Trailers::All.clean(&mut headers) && headers.is_empty());
    }

    #[test]
    fn an_answer_without_content_leaves_nothing_behind() {
        for (lines, expected) in [
            (&[][..], Leftover::None),
            (&[(CONTENT_LENGTH, "0")], Leftover::None),
            (&[(CONTENT_LENGTH, "5")], Leftover::Possible),
            (&[(TRANSFER_ENCODING, "chunked")], Leftover::Possible),
        ] {
            let pair = |(name, value): &(HeaderName, &'static str)| (name.clone(), HeaderValue::from_static(value));
            let mut answer: HeaderMap = lines.iter().map(pair).collect();
            assert_eq!(clean_answer(StatusCode::NO_CONTENT, &mut answer), Ok(expected));
            assert!(answer.is_empty());
        }
    }

    #[test]
    fn te_keeps_trailers_only() {
        let head = request("/", Version::HTTP_11, &[("host", "a"), ("te", "gzip, trailers"), ("connection", "te")]);
        let head = head.expect("accepted");
        assert!(head.takes_trailers);
        assert_eq!(head.headers.get(TE).expect("te"), "trailers");
    }
}
