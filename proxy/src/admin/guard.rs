//! Keeps browsers from using the admin server on behalf of a page they show.
//!
//! A page can make the browser send requests to loopback. It reads the answers only if it shares the origin, which DNS
//! rebinding fakes: the name of the page is pointed at 127.0.0.1, and `Host` still carries that name. So `Host` must name
//! loopback. And whatever a browser marks as coming from another site is refused: `Origin`, `Sec-Fetch-Site`.

use http::header::{HOST, HeaderMap, HeaderName, ORIGIN};
use http::{Method, Uri};

/// Why a request to the admin server is refused, if it is.
pub(super) fn refusal(method: &Method, uri: &Uri, headers: &HeaderMap) -> Option<&'static str> {
    let mut hosts = headers.get_all(HOST).iter();
    let (Some(host), None) = (hosts.next().and_then(|host| host.to_str().ok()), hosts.next()) else {
        return Some("one Host header is needed");
    };
    if !is_loopback(host) || uri.authority().is_some_and(|authority| !is_loopback(authority.as_str())) {
        return Some("Host must be localhost or a loopback address; use a port-forward to reach the admin server");
    }
    let own = |origin: &str| origin.strip_prefix("http://").is_some_and(|name| name.eq_ignore_ascii_case(host));
    if headers.get_all(ORIGIN).iter().any(|origin| !origin.to_str().is_ok_and(own)) {
        return Some("a page of another origin may not use the admin server");
    }
    // `none` is a human who typed the address; a human cannot type a POST.
    let fair = |site: &[u8]| site == b"same-origin" || (site == b"none" && *method != Method::POST);
    if headers.get_all(&SEC_FETCH_SITE).iter().any(|site| !fair(site.as_bytes())) {
        return Some("a page of another site may not use the admin server");
    }
    None
}

/// `localhost`, an address of 127.0.0.0/8 or `[::1]`, with or without a port.
fn is_loopback(host: &str) -> bool {
    let (name, port) = match host.rsplit_once(':') {
        Some((name, port)) if !port.contains(']') => (name, Some(port)),
        _ => (host, None),
    };
    if port.is_some_and(|port| port.parse::<u16>().is_err() || !port.bytes().all(|b| b.is_ascii_digit())) {
        return false;
    }
    if let Some(address) = name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        return address.parse::<std::net::Ipv6Addr>().is_ok_and(|address| address.is_loopback());
    }
    name.eq_ignore_ascii_case("localhost")
        || name.parse::<std::net::Ipv4Addr>().is_ok_and(|address| address.is_loopback())
}

static SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// A name that passes holds nothing but loopback, whatever surrounds it.
pub fn fuzz_guard(data: &[u8]) {
    let Ok(host) = std::str::from_utf8(data) else { return };
    if is_loopback(host) {
        let name = host.to_ascii_lowercase();
        assert!(name.starts_with("localhost") || name.starts_with("127.") || name.starts_with('['));
        assert!(name.bytes().all(|b| b.is_ascii_alphanumeric() || b".:[]".contains(&b)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(method: Method, headers: &[(&'static str, &str)]) -> Option<&'static str> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, value.parse().expect("a value"));
        }
        refusal(&method, &Uri::from_static("/drain"), &map)
    }

    #[test]
    fn loopback_by_any_of_its_names() {
        for host in
            ["localhost", "LOCALHOST:14000", "127.0.0.1", "127.0.0.1:14000", "127.8.7.6:1", "[::1]", "[::1]:14000"]
        {
            assert_eq!(ask(Method::POST, &[("host", host)]), None, "{host}");
        }
    }

    #[test]
    fn a_name_that_someone_else_may_point_here_is_refused() {
        for host in [
            "",
            "evil.example",
            "evil.example:14000",
            "localhost.evil.example",
            "127.0.0.1.nip.io",
            "localhost.",
            "localhost@evil",
            "evil@localhost:1",
            "10.0.0.1:14000",
            "[::]:1",
            "[::ffff:10.0.0.1]",
            "::1",
            "[::1",
            "127.1",
            "0x7f.0.0.1",
            "2130706433",
            "localhost:",
            "localhost:99999",
            "localhost:+80",
            "localhost:80:80",
            "[::1%lo]",
        ] {
            assert!(ask(Method::GET, &[("host", host)]).is_some(), "{host}");
        }
        assert!(ask(Method::GET, &[]).is_some(), "no Host");
        assert!(ask(Method::GET, &[("host", "localhost"), ("host", "localhost")]).is_some(), "two Hosts");
    }

    #[test]
    fn an_absolute_target_is_looked_at_too() {
        let headers: HeaderMap = [(HOST, "localhost".parse().expect("a value"))].into_iter().collect();
        assert!(refusal(&Method::GET, &Uri::from_static("http://evil.example/config"), &headers).is_some());
        assert_eq!(refusal(&Method::GET, &Uri::from_static("http://localhost/config"), &headers), None);
    }

    #[test]
    fn pages_of_others_are_refused() {
        const HERE: (&str, &str) = ("host", "localhost:14000");
        for method in [Method::GET, Method::POST] {
            for origin in
                ["http://evil.example", "null", "https://localhost:14000", "http://localhost:1", "http://localhost"]
            {
                assert!(ask(method.clone(), &[HERE, ("origin", origin)]).is_some(), "{origin}");
            }
            for site in ["cross-site", "same-site", "", "SAME-ORIGIN"] {
                assert!(ask(method.clone(), &[HERE, ("sec-fetch-site", site)]).is_some(), "{site}");
            }
            let own = [HERE, ("origin", "http://localhost:14000"), ("sec-fetch-site", "same-origin")];
            assert_eq!(ask(method, &own), None);
        }
        assert_eq!(ask(Method::GET, &[HERE, ("sec-fetch-site", "none")]), None);
        assert!(ask(Method::POST, &[HERE, ("sec-fetch-site", "none")]).is_some());
    }

    #[test]
    fn any_host_is_judged() {
        for host in ["localhost:1", "[::1]:2", "127.0.0.1", "é", "[]", ":", "]:1"] {
            fuzz_guard(host.as_bytes());
        }
    }
}
