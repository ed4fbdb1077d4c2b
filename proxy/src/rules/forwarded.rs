//! Whose word a gateway takes about where a request comes from, and what it tells the application.
//!
//! `hops` is the number of proxies in front of the gateway that are known and believed; each has appended the address
//! it saw to X-Forwarded-For. So the last `hops` entries are true, the first of them is the client, and what stands
//! before them is anybody's claim and is removed. With none in front, everything from outside is a stranger's claim.
//! Sidecars do not call this.

use std::net::IpAddr;

use http::HeaderMap;
use http::header::{FORWARDED, HOST, HeaderName, HeaderValue};

/// How a request came to the gateway.
#[derive(Clone, Copy, Debug)]
pub struct Arrival<'a> {
    pub peer: IpAddr,
    /// `https` or `http`, as the connection is.
    pub scheme: &'static str,
    /// As sent; empty if there is none.
    pub authority: &'a str,
}

/// Whom the request is from, and what X-Forwarded-For says from here on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Believed {
    pub client: IpAddr,
    pub forwarded_for: String,
}

/// Rewrites what the request says of its way, and returns the client's address.
///
/// X-Forwarded-Proto and -Host become what this gateway saw, unless a believed proxy has said it. With `hops` 0 the
/// other headers by which frameworks learn the same (`Forwarded`, X-Real-IP, …) are removed; with more they are the
/// believed proxies' affair and stay.
pub fn apply(headers: &mut HeaderMap, arrival: &Arrival<'_>, hops: u32) -> IpAddr {
    let lines = headers.get_all(X_FORWARDED_FOR).iter().map(HeaderValue::as_bytes);
    let believed = believe(lines, arrival.peer, hops);
    set(headers, X_FORWARDED_FOR, &believed.forwarded_for);
    if hops == 0 || !told(headers, &X_FORWARDED_PROTO, is_scheme) {
        set(headers, X_FORWARDED_PROTO, arrival.scheme);
    }
    if hops == 0 || !told(headers, &X_FORWARDED_HOST, is_authority) {
        let host = headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default().to_owned();
        set(headers, X_FORWARDED_HOST, if arrival.authority.is_empty() { &host } else { arrival.authority });
    }
    if hops == 0 {
        for name in CLAIMS {
            headers.remove(name);
        }
    }
    believed.client
}

/// Reads X-Forwarded-For from its end and no further than it believes, so its length costs nothing.
///
/// Empty entries do not count. A port is dropped and brackets are removed. An entry that is no address counts as a
/// hop, is passed on as `unknown`, and cannot be the client: the next nearer address is, at last the peer. If there
/// are fewer entries than `hops` the first one is the client: the request joined the chain half-way.
pub fn believe<'a>(lines: impl DoubleEndedIterator<Item = &'a [u8]>, peer: IpAddr, hops: u32) -> Believed {
    let peer = peer.to_canonical();
    let mut client = peer;
    let mut kept = Vec::new();
    let entries = lines.rev().flat_map(|line| line.rsplit(|byte| *byte == b',')).map(<[u8]>::trim_ascii);
    for entry in entries.filter(|entry| !entry.is_empty()).take(hops as usize) {
        let address = address_of(entry);
        client = address.unwrap_or(client);
        kept.push(address);
    }
    let mut forwarded_for = String::new();
    for address in kept.iter().rev() {
        match address {
            Some(address) => forwarded_for.push_str(&address.to_string()),
            None => forwarded_for.push_str(UNKNOWN),
        }
        forwarded_for.push_str(", ");
    }
    forwarded_for.push_str(&peer.to_string());
    Believed { client, forwarded_for }
}

/// `192.0.2.1`, `192.0.2.1:80`, `2001:db8::1`, `[2001:db8::1]`, `[2001:db8::1]:80`.
fn address_of(entry: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(entry).ok()?;
    let host = match text.strip_prefix('[') {
        Some(rest) => {
            let (address, port) = rest.split_once(']')?;
            let port_is_fine = port.is_empty() || is_port(port.strip_prefix(':')?);
            return port_is_fine.then(|| address.parse().ok()).flatten().map(IpAddr::V6).map(|a| a.to_canonical());
        }
        None => match text.split_once(':') {
            Some((host, port)) if is_port(port) => host,
            _ => text,
        },
    };
    host.parse::<IpAddr>().ok().map(|address| address.to_canonical())
}

fn is_port(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit()) && text.parse::<u16>().is_ok()
}

/// Whether the header is there once and says something usable; said twice, nobody knows who said which.
fn told(headers: &HeaderMap, name: &HeaderName, usable: fn(&str) -> bool) -> bool {
    let mut lines = headers.get_all(name).iter();
    let line = lines.next().and_then(|line| line.to_str().ok());
    lines.next().is_none() && line.is_some_and(usable)
}

fn is_scheme(text: &str) -> bool {
    text.eq_ignore_ascii_case("https") || text.eq_ignore_ascii_case("http")
}

fn is_authority(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~:[]%".contains(&byte))
}

/// What cannot be a header's value is left out rather than passed on from outside.
fn set(headers: &mut HeaderMap, name: HeaderName, text: &str) {
    match HeaderValue::from_str(text) {
        Ok(value) if !text.is_empty() => drop(headers.insert(name, value)),
        _ => drop(headers.remove(name)),
    }
}

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
/// By these, too, common frameworks let a request say where it comes from.
const CLAIMS: [HeaderName; 6] = [
    FORWARDED,
    HeaderName::from_static("x-real-ip"),
    HeaderName::from_static("x-forwarded-port"),
    HeaderName::from_static("x-forwarded-prefix"),
    HeaderName::from_static("x-forwarded-server"),
    HeaderName::from_static("x-forwarded-ssl"),
];
/// RFC 7239 §6.2.
const UNKNOWN: &str = "unknown";

/// The list is outside bytes: nothing may panic, no more is kept than is believed, the peer is always told last.
pub fn fuzz_forwarded(data: &[u8]) {
    let peer = IpAddr::from([192, 0, 2, 9]);
    for hops in [0, 1, 3, u32::MAX] {
        let believed = believe(data.split(|byte| *byte == b'\n'), peer, hops);
        let entries: Vec<&str> = believed.forwarded_for.split(", ").collect();
        assert!(entries.len() as u64 <= u64::from(hops) + 1);
        assert_eq!(entries.last(), Some(&"192.0.2.9"));
        assert!(entries.iter().all(|entry| *entry == UNKNOWN || entry.parse::<IpAddr>().is_ok()));
        assert!(entries.contains(&believed.client.to_string().as_str()));
        if hops == 0 {
            assert_eq!(believed.client, peer);
        }
    }
}

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};

    use super::*;

    fn believe_in(lines: &[&str], hops: u32) -> (String, String) {
        let peer = "198.51.100.7".parse().unwrap();
        let believed = believe(lines.iter().map(|line| line.as_bytes()), peer, hops);
        (believed.client.to_string(), believed.forwarded_for)
    }

    #[test]
    fn only_the_last_hops_are_believed() {
        for (lines, hops, client, value) in [
            (&[][..], 0, "198.51.100.7", "198.51.100.7"),
            (&["1.1.1.1, 2.2.2.2"], 0, "198.51.100.7", "198.51.100.7"),
            (&["1.1.1.1, 2.2.2.2"], 1, "2.2.2.2", "2.2.2.2, 198.51.100.7"),
            (&["1.1.1.1, 2.2.2.2"], 2, "1.1.1.1", "1.1.1.1, 2.2.2.2, 198.51.100.7"),
            (&["1.1.1.1", "2.2.2.2"], 1, "2.2.2.2", "2.2.2.2, 198.51.100.7"),
            (&["1.1.1.1, 2.2.2.2", "3.3.3.3"], 2, "2.2.2.2", "2.2.2.2, 3.3.3.3, 198.51.100.7"),
            (&["1.1.1.1"], 5, "1.1.1.1", "1.1.1.1, 198.51.100.7"),
            (&[], 5, "198.51.100.7", "198.51.100.7"),
            (&["9.9.9.9,, 2.2.2.2, ,"], 1, "2.2.2.2", "2.2.2.2, 198.51.100.7"),
            (&["", " "], 2, "198.51.100.7", "198.51.100.7"),
        ] {
            assert_eq!(believe_in(lines, hops), (client.into(), value.into()), "{lines:?} {hops}");
        }
    }

    #[test]
    fn entries_come_in_many_shapes() {
        for (entry, expected) in [
            ("192.0.2.1:8080", Some("192.0.2.1")),
            ("2001:db8::1", Some("2001:db8::1")),
            ("[2001:DB8::1]", Some("2001:db8::1")),
            ("[2001:db8::1]:443", Some("2001:db8::1")),
            ("::ffff:192.0.2.1", Some("192.0.2.1")),
            ("[::ffff:192.0.2.1]:1", Some("192.0.2.1")),
            ("unknown", None),
            ("_hidden", None),
            ("192.0.2.1:", None),
            ("192.0.2.1:x", None),
            ("192.0.2.1:99999", None),
            ("192.0.2.1:+80", None),
            ("192.0.2.256", None),
            ("[192.0.2.1]", None),
            ("[2001:db8::1", None),
            ("[2001:db8::1]443", None),
            ("fe80::1%eth0", None),
            ("<script>", None),
        ] {
            assert_eq!(address_of(entry.as_bytes()).map(|a| a.to_string()).as_deref(), expected, "{entry}");
        }
        assert_eq!(address_of(&[0xff, b'1']), None);
    }

    #[test]
    fn an_unreadable_client_is_the_next_nearer_address() {
        let (client, value) = believe_in(&["unknown, 2.2.2.2"], 2);
        assert_eq!((client.as_str(), value.as_str()), ("2.2.2.2", "unknown, 2.2.2.2, 198.51.100.7"));
        let (client, value) = believe_in(&["1.1.1.1, <b>"], 1);
        assert_eq!((client.as_str(), value.as_str()), ("198.51.100.7", "unknown, 198.51.100.7"));
    }

    #[test]
    fn a_long_list_is_read_only_as_far_as_it_is_believed() {
        let line = vec!["10.0.0.1"; 10_000].join(", ");
        let (client, value) = believe_in(&[&line, "2.2.2.2"], 2);
        assert_eq!((client.as_str(), value.as_str()), ("10.0.0.1", "10.0.0.1, 2.2.2.2, 198.51.100.7"));
        assert_eq!(believe_in(&[&line], 0).1, "198.51.100.7");
    }

    fn headers(list: &[(&'static str, &str)]) -> HeaderMap {
        list.iter().map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap())).collect()
    }

    fn arrival() -> Arrival<'static> {
        Arrival { peer: IpAddr::from([198, 51, 100, 7]), scheme: "https", authority: "shop.example" }
    }

    #[test]
    fn a_stranger_is_believed_nothing() {
        let mut sent = headers(&[
            ("x-forwarded-for", "1.1.1.1"),
            ("x-forwarded-for", "2.2.2.2"),
            ("x-forwarded-proto", "http"),
            ("x-forwarded-host", "admin.internal"),
            ("x-forwarded-port", "80"),
            ("x-real-ip", "127.0.0.1"),
            ("forwarded", "for=127.0.0.1"),
            ("accept", "*/*"),
        ]);
        assert_eq!(apply(&mut sent, &arrival(), 0).to_string(), "198.51.100.7");
        let expected = headers(&[
            ("x-forwarded-for", "198.51.100.7"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-host", "shop.example"),
            ("accept", "*/*"),
        ]);
        assert_eq!(sent, expected);
    }

    #[test]
    fn a_believed_proxy_is_taken_at_its_word_if_it_is_clear() {
        let mut sent = headers(&[
            ("x-forwarded-for", "9.9.9.9, 1.1.1.1"),
            ("x-forwarded-proto", "http"),
            ("x-forwarded-host", "www.shop.example:8443"),
            ("forwarded", "for=1.1.1.1"),
        ]);
        assert_eq!(apply(&mut sent, &arrival(), 1).to_string(), "1.1.1.1");
        let expected = headers(&[
            ("x-forwarded-for", "1.1.1.1, 198.51.100.7"),
            ("x-forwarded-proto", "http"),
            ("x-forwarded-host", "www.shop.example:8443"),
            ("forwarded", "for=1.1.1.1"),
        ]);
        assert_eq!(sent, expected);

        for (proto, host) in [("https, http", "a, b"), ("ftp", "a b"), ("", ""), ("javascript:", "a/b")] {
            let mut sent = headers(&[("x-forwarded-proto", proto), ("x-forwarded-host", host)]);
            apply(&mut sent, &arrival(), 1);
            assert_eq!(
                (&sent["x-forwarded-proto"], &sent["x-forwarded-host"]),
                (&"https".parse().unwrap(), &"shop.example".parse().unwrap())
            );
        }
        let mut twice = headers(&[("x-forwarded-proto", "http"), ("x-forwarded-proto", "https")]);
        apply(&mut twice, &Arrival { scheme: "http", ..arrival() }, 1);
        assert_eq!(twice.get_all("x-forwarded-proto").iter().count(), 1);
        assert_eq!(twice["x-forwarded-proto"], "http");
    }

    #[test]
    fn hostile_lists_do_no_harm() {
        let mut rng = StdRng::seed_from_u64(1);
        let letters = b"1.9:[]a,, \n\xff";
        for _ in 0..20_000 {
            let data: Vec<u8> =
                (0..rng.random_range(0..40)).map(|_| letters[rng.random_range(0..letters.len())]).collect();
            fuzz_forwarded(&data);
        }
    }
}
