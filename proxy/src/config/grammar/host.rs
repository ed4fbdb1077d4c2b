//! Hosts and addresses: what a listener binds, where an upstream is, which host a request asks for.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Where an upstream listens: an IP address (IPv6 without brackets here) or a DNS name, and the port.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Address {
    pub host: String,
    pub port: u16,
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

pub fn socket_address(text: &str) -> Result<SocketAddr, &'static str> {
    if let Ok(address) = text.parse() {
        return Ok(address);
    }
    if text.parse::<IpAddr>().is_ok() {
        return Err("has no port");
    }
    match address(text) {
        Ok(_) => Err("has a name where an IP address is needed"),
        Err(wrong) => Err(wrong),
    }
}

pub fn address(text: &str) -> Result<Address, &'static str> {
    if text.parse::<Ipv6Addr>().is_ok() {
        return Err("is an IPv6 address without brackets and port");
    }
    let (written, port) = text.rsplit_once(':').ok_or("has no port")?;
    if !port.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err("has a port that is no number");
    }
    let port = match port.parse() {
        Ok(0) => return Err("has port 0"),
        Ok(port) => port,
        Err(_) if port.is_empty() => return Err("has no port"),
        Err(_) => return Err("has a port above 65535"),
    };
    Ok(Address { host: host(written)?, port })
}

/// An IP address (an IPv6 one in brackets) or a DNS name; without brackets and in lower case afterwards.
pub fn host(text: &str) -> Result<String, &'static str> {
    if let Some(inside) = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        return inside
            .parse::<Ipv6Addr>()
            .map(|ip| ip.to_string())
            .map_err(|_| "has no IPv6 address between its brackets");
    }
    if text.contains(':') {
        return Err("has a `:` in its host; an IPv6 address needs brackets");
    }
    if text.parse::<Ipv4Addr>().is_ok() {
        return Ok(text.into());
    }
    let name = text.strip_suffix('.').unwrap_or(text);
    if name.is_empty() {
        return Err("has no host");
    }
    if name.len() > 253 || !name.split('.').all(is_label) {
        return Err("is neither an IP address nor a DNS name");
    }
    // RFC 1123 2.1: the last label of a name is not a number, so that this is an IPv4 address gone wrong.
    if name.rsplit('.').next().is_some_and(|last| last.bytes().all(|byte| byte.is_ascii_digit())) {
        return Err("is not an IPv4 address");
    }
    Ok(text.to_ascii_lowercase())
}

pub fn host_pattern(text: &str) -> Result<String, &'static str> {
    if text == "*" {
        return Err("means every host, as no `host` does");
    }
    match text.strip_prefix("*.") {
        Some(domain) if domain.starts_with('[') || domain.parse::<IpAddr>().is_ok() => Err("has no domain after `*.`"),
        Some(domain) => host(domain).map(|domain| format!("*.{domain}")),
        None if text.contains('*') => Err("has a `*` elsewhere than in front"),
        None => bare_host(text),
    }
}

/// A request's `Host` keeps the brackets of an IPv6 address, so the pattern does.
fn bare_host(text: &str) -> Result<String, &'static str> {
    let host = host(text)?;
    Ok(if host.contains(':') { format!("[{host}]") } else { host })
}

fn is_label(label: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    (1..=63).contains(&label.len()) && label.bytes().all(plain) && !label.starts_with('-') && !label.ends_with('-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_host_and_a_port() {
        for (text, host, port) in [
            ("10.0.0.1:80", "10.0.0.1", 80),
            ("[::1]:8080", "::1", 8080),
            ("Cart.shop:443", "cart.shop", 443),
            ("a_b:1", "a_b", 1),
        ] {
            assert_eq!(address(text), Ok(Address { host: host.into(), port }));
        }
        for text in [
            "cart",
            "::1",
            "cart:",
            "cart:0",
            "cart:65536",
            ":80",
            "a b:80",
            "10.0.0.256:80",
            "[::g]:80",
            "1:2:3",
            "c:+8",
        ] {
            assert!(address(text).is_err(), "{text}");
        }
        assert_eq!(Address { host: "::1".into(), port: 80 }.to_string(), "[::1]:80");
    }

    #[test]
    fn a_listener_needs_an_ip_address() {
        assert!(socket_address("127.0.0.1:0").is_ok());
        assert_eq!(socket_address("127.0.0.1"), Err("has no port"));
        assert_eq!(socket_address("localhost:80"), Err("has a name where an IP address is needed"));
    }

    #[test]
    fn hosts_are_lower_case_and_stars_stand_in_front() {
        assert_eq!(host_pattern("Shop.Example"), Ok("shop.example".into()));
        assert_eq!(host_pattern("*.Shop.Example"), Ok("*.shop.example".into()));
        assert_eq!(host_pattern("[::1]"), Ok("[::1]".into()));
        for text in ["*", "a.*.b", "*shop", "shop:80", "", "*.", "*.10.0.0.1"] {
            assert!(host_pattern(text).is_err(), "{text}");
        }
    }
}
