//! Compiles the conditions of a route once and asks them of every request without allocating.
//!
//! Called through `route` once per request; the patterns of paths are in `path`.

use std::collections::BTreeMap;
use std::fmt;
use std::net::Ipv6Addr;

use http::header::{HOST, HeaderMap, HeaderName, HeaderValue};
use http::method::Method;

use super::path::PathPattern;

/// What a request shows to the matcher.
#[derive(Clone, Copy)]
pub struct RequestFacts<'a> {
    pub method: &'a Method,
    /// The authority as sent: a port and a trailing dot are ignored, and so is the case.
    pub host: &'a str,
    /// Without the query.
    pub path: &'a str,
    pub headers: &'a HeaderMap,
}

/// The conditions of one route as the file spells them. All must hold; none set holds for everything.
#[derive(Clone, Debug, Default)]
pub struct Patterns {
    /// A name, or `*.suffix` for every name below the suffix, at any depth, but not the suffix itself.
    pub host: Option<String>,
    pub path: Option<String>,
    /// On segment borders: `/cart` holds for `/cart` and `/cart/x`, not for `/cartoon`. A slash at its end says
    /// nothing more, and `/` holds for everything, the `*` of OPTIONS included.
    pub path_prefix: Option<String>,
    /// `{name}` is one segment that is not empty; `{name=**}`, at the end, is the rest, which may be nothing.
    pub path_template: Option<String>,
    pub method: Option<String>,
    /// The name a TLS client asks for. Only for connections passed through, where no request can be seen.
    pub sni: Option<String>,
    /// Whole values, compared byte by byte; one line of several is enough.
    pub headers: BTreeMap<String, String>,
}

/// Compiled [`Patterns`].
#[derive(Clone, Debug)]
pub struct Matcher {
    host: Option<HostPattern>,
    path: Option<PathPattern>,
    method: Option<Method>,
    sni: Option<HostPattern>,
    headers: Vec<(HeaderName, HeaderValue)>,
}

/// Which condition cannot be used, and what would be right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PatternError {
    /// As the file spells it, for example `pathPrefix`.
    pub field: &'static str,
    pub value: String,
    pub problem: &'static str,
}

impl Matcher {
    pub fn compile(patterns: &Patterns) -> Result<Matcher, PatternError> {
        let host = patterns.host.as_deref().map(|text| HostPattern::compile("host", text)).transpose()?;
        let sni = patterns.sni.as_deref().map(|text| HostPattern::compile("sni", text)).transpose()?;
        let matcher = Matcher {
            host,
            path: PathPattern::compile(patterns)?,
            method: patterns.method.as_deref().map(compile_method).transpose()?,
            sni,
            headers: patterns.headers.iter().map(compile_header).collect::<Result<_, _>>()?,
        };
        match &patterns.sni {
            Some(text) if matcher.asks_of_requests() => Err(fail("sni", text, SNI_ALONE)),
            _ => Ok(matcher),
        }
    }

    pub fn matches(&self, facts: &RequestFacts<'_>) -> bool {
        self.sni.is_none()
            && self.method.as_ref().is_none_or(|method| method == facts.method)
            && self.host.as_ref().is_none_or(|host| host.matches(facts.host))
            && self.path.as_ref().is_none_or(|path| path.matches(facts.path))
            && self.headers.iter().all(|(name, value)| facts.headers.get_all(name).iter().any(|sent| sent == value))
    }

    /// Whether a TLS connection that is passed through belongs here: the name fits, or nothing at all is asked.
    pub fn matches_sni(&self, name: &str) -> bool {
        match &self.sni {
            Some(pattern) => pattern.matches(name),
            None => !self.asks_of_requests(),
        }
    }

    fn asks_of_requests(&self) -> bool {
        self.host.is_some() || self.path.is_some() || self.method.is_some() || !self.headers.is_empty()
    }
}

/// The host of an authority: without port, without a trailing dot. An address in brackets keeps them.
///
/// What is no host (user information, two colons without brackets) comes back as it is and matches no pattern.
pub fn host_of(authority: &str) -> &str {
    let before_port = authority.trim_end_matches(|byte: char| byte.is_ascii_digit()).strip_suffix(':');
    let host = match before_port {
        Some(host) => {
            let bracketed = host.starts_with('[') && host.ends_with(']');
            if bracketed || !host.bytes().any(|byte| byte == b':') { host } else { authority }
        }
        None => authority,
    };
    host.strip_suffix('.').unwrap_or(host)
}

#[derive(Clone, Debug)]
pub(super) enum HostPattern {
    Exact(String),
    /// The suffix with its leading dot.
    Below(String),
}

impl HostPattern {
    pub(super) fn compile(field: &'static str, text: &str) -> Result<HostPattern, PatternError> {
        let (name, wildcard) = match text.strip_prefix("*.") {
            Some(suffix) => (suffix, true),
            None => (text, false),
        };
        let name = name.strip_suffix('.').unwrap_or(name);
        let bracketed = name.strip_prefix('[').and_then(|name| name.strip_suffix(']'));
        let address = !wildcard && bracketed.is_some_and(|address| address.parse::<Ipv6Addr>().is_ok());
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
        let problem = if text == "*" {
            HOST_STAR
        } else if name.contains('*') {
            HOST_WILDCARD
        } else if name.contains('/') || (name.contains(':') && !address) {
            HOST_EXTRA
        } else if !name.is_ascii() {
            HOST_UNICODE
        } else if name.is_empty() || name.split('.').any(str::is_empty) || !(address || name.bytes().all(plain)) {
            HOST_NAME
        } else if wildcard {
            return Ok(HostPattern::Below(format!(".{name}")));
        } else {
            return Ok(HostPattern::Exact(name.to_owned()));
        };
        Err(fail(field, text, problem))
    }

    pub(super) fn matches(&self, authority: &str) -> bool {
        let host = host_of(authority);
        match self {
            HostPattern::Exact(name) => host.eq_ignore_ascii_case(name),
            HostPattern::Below(suffix) => host
                .len()
                .checked_sub(suffix.len())
                .and_then(|border| host.split_at_checked(border))
                .is_some_and(|(labels, end)| !labels.is_empty() && end.eq_ignore_ascii_case(suffix)),
        }
    }
}

pub(super) fn compile_method(text: &str) -> Result<Method, PatternError> {
    let method = Method::from_bytes(text.as_bytes()).map_err(|_| fail("method", text, METHOD_TOKEN))?;
    // Methods are case-sensitive (RFC 9110 §9.1): `get` is legal, matches nothing, and is always a slip.
    match text.bytes().any(|byte| byte.is_ascii_lowercase()) {
        true => Err(fail("method", text, METHOD_CASE)),
        false => Ok(method),
    }
}

fn compile_header((name, value): (&String, &String)) -> Result<(HeaderName, HeaderValue), PatternError> {
    let compiled = HeaderName::from_bytes(name.as_bytes()).map_err(|_| fail("headers", name, HEADER_NAME))?;
    if compiled == HOST {
        return Err(fail("headers", name, HEADER_HOST));
    }
    let value = HeaderValue::from_str(value).map_err(|_| fail("headers", value, HEADER_VALUE))?;
    Ok((compiled, value))
}

pub(super) fn fail(field: &'static str, value: &str, problem: &'static str) -> PatternError {
    PatternError { field, value: value.to_owned(), problem }
}

impl fmt::Display for PatternError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:?}: {}", self.field, self.value, self.problem)
    }
}

impl std::error::Error for PatternError {}

const HOST_STAR: &str = "leave the condition out to match every host";
const HOST_WILDCARD: &str = "a wildcard stands for whole labels at the start, as in `*.shop.example`";
const HOST_EXTRA: &str = "give the name alone, without scheme, port or path (an IPv6 address in brackets)";
const HOST_UNICODE: &str = "spell the name as it is sent, in its `xn--` form";
const HOST_NAME: &str = "this is no host name; write `shop.example` or `*.shop.example`";
const METHOD_TOKEN: &str = "this is no HTTP method; write for example `GET`";
const METHOD_CASE: &str = "methods are case-sensitive; write it in capitals";
const HEADER_NAME: &str = "this is no header name; pseudo headers have conditions of their own (method, host, path)";
const HEADER_HOST: &str = "use the condition `host`, which also holds for HTTP/2";
const HEADER_VALUE: &str = "this cannot be a header's value; it has control characters";
const SNI_ALONE: &str = "sni is for TLS that is passed through, where no request is seen; it stands alone";

/// Hosts and paths are outside bytes: nothing may panic, and a host must not depend on port, dot or case.
pub fn fuzz_matcher(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let (host, path) = text.split_once(' ').unwrap_or((&text, ""));
    assert!(host.starts_with(host_of(host)));
    let (method, headers) = (Method::GET, HeaderMap::new());
    let facts = RequestFacts { method: &method, host, path, headers: &headers };
    let patterns = [
        Patterns { host: Some("*.a".into()), ..Patterns::default() },
        Patterns { path_prefix: Some("/a/b".into()), ..Patterns::default() },
        Patterns { path_template: Some("/{x}/b/{y=**}".into()), ..Patterns::default() },
        Patterns { host: Some(host.into()), ..Patterns::default() },
        Patterns { path_template: Some(path.into()), ..Patterns::default() },
        Patterns { path: Some(path.into()), ..Patterns::default() },
    ];
    for patterns in &patterns {
        let Ok(matcher) = Matcher::compile(patterns) else { continue };
        let held = matcher.matches(&facts);
        assert_eq!(held, matcher.matches(&RequestFacts { host: &host.to_ascii_uppercase(), ..facts }));
        if !host.contains(':') {
            assert_eq!(held, matcher.matches(&RequestFacts { host: &format!("{host}:80"), ..facts }));
        }
        if patterns.path.is_some() {
            assert!(held);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holds(patterns: Patterns, host: &str) -> bool {
        let headers = HeaderMap::new();
        let facts = RequestFacts { method: &Method::GET, host, path: "/", headers: &headers };
        Matcher::compile(&patterns).unwrap().matches(&facts)
    }

    fn host(pattern: &str) -> Patterns {
        Patterns { host: Some(pattern.into()), ..Patterns::default() }
    }

    #[test]
    fn hosts_match_without_port_dot_and_case() {
        for (pattern, sent, expected) in [
            ("shop.example", "shop.example", true),
            ("Shop.Example.", "SHOP.example", true),
            ("shop.example", "shop.example:8443", true),
            ("shop.example", "shop.example.:8443", true),
            ("shop.example", "shop.example:", true),
            ("shop.example", "www.shop.example", false),
            ("shop.example", "shop.example:http", false),
            ("shop.example", "user@shop.example", false),
            ("shop.example", "", false),
            ("*.shop.example", "a.shop.example", true),
            ("*.shop.example", "a.B.shop.EXAMPLE:80", true),
            ("*.shop.example", "shop.example", false),
            ("*.shop.example", ".shop.example", false),
            ("*.shop.example", "evilshop.example", false),
            ("*.a", "\u{20ac}a", false),
            ("[::1]", "[::1]:80", true),
            ("[::1]", "[::1]", true),
            ("[::1]", "::1", false),
            ("10.0.0.1", "10.0.0.1:80", true),
        ] {
            assert_eq!(holds(host(pattern), sent), expected, "{pattern} {sent}");
        }
    }

    #[test]
    fn methods_and_headers_match_exactly() {
        let patterns = Patterns {
            method: Some("POST".into()),
            headers: [("X-Canary".to_owned(), "yes".to_owned())].into(),
            ..Patterns::default()
        };
        let matcher = Matcher::compile(&patterns).unwrap();
        let mut headers = HeaderMap::new();
        let ask = |method: &Method, headers: &HeaderMap| {
            matcher.matches(&RequestFacts { method, host: "h", path: "/", headers })
        };
        assert!(!ask(&Method::POST, &headers));
        headers.append("x-canary", "no".parse().unwrap());
        assert!(!ask(&Method::POST, &headers));
        headers.append("x-canary", "yes".parse().unwrap());
        assert!(ask(&Method::POST, &headers), "one line of several is enough");
        assert!(!ask(&Method::GET, &headers));
    }

    #[test]
    fn names_of_passed_through_tls_are_a_world_of_their_own() {
        let sni = Matcher::compile(&Patterns { sni: Some("*.db.example".into()), ..Patterns::default() }).unwrap();
        let headers = HeaderMap::new();
        let facts = RequestFacts { method: &Method::GET, host: "a.db.example", path: "/", headers: &headers };
        assert!(sni.matches_sni("A.db.example"));
        assert!(!sni.matches_sni("db.example"));
        assert!(!sni.matches(&facts), "a request never takes a route for passed-through TLS");
        let everything = Matcher::compile(&Patterns::default()).unwrap();
        assert!(everything.matches_sni("x") && everything.matches(&facts));
        assert!(!Matcher::compile(&host("x")).unwrap().matches_sni("x"));
    }

    #[test]
    fn bad_patterns_are_refused_by_name() {
        let header = |name: &str, value: &str| Patterns {
            headers: [(name.to_owned(), value.to_owned())].into(),
            ..Patterns::default()
        };
        let method = |text: &str| Patterns { method: Some(text.into()), ..Patterns::default() };
        for (patterns, field, problem) in [
            (host(""), "host", HOST_NAME),
            (host("*"), "host", HOST_STAR),
            (host("*.*.x"), "host", HOST_WILDCARD),
            (host("a*.x"), "host", HOST_WILDCARD),
            (host("*."), "host", HOST_NAME),
            (host("a..b"), "host", HOST_NAME),
            (host("a b"), "host", HOST_NAME),
            (host("x:80"), "host", HOST_EXTRA),
            (host("https://x"), "host", HOST_EXTRA),
            (host("b\u{fc}cher.example"), "host", HOST_UNICODE),
            (method("G T"), "method", METHOD_TOKEN),
            (method("get"), "method", METHOD_CASE),
            (header(":path", "/"), "headers", HEADER_NAME),
            (header("Host", "x"), "headers", HEADER_HOST),
            (header("x", "a\nb"), "headers", HEADER_VALUE),
            (Patterns { sni: Some("x".into()), ..host("y") }, "sni", SNI_ALONE),
        ] {
            let error = Matcher::compile(&patterns).unwrap_err();
            assert_eq!((error.field, error.problem), (field, problem), "{error}");
        }
    }

    #[test]
    fn hostile_hosts_and_paths_do_no_harm() {
        for data in ["", " ", "[", "[]:", ":", "::", "a:1:2", ". /", "\u{20ac}:1 /{a", "*.a /a/b/", "h //"] {
            fuzz_matcher(data.as_bytes());
        }
        fuzz_matcher(&[0xff, 0xfe, b' ', 0x80]);
    }
}
