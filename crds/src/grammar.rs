//! The grammars of texts, as the rules in `says` have them and a little beyond, since they are not bound to CEL.

pub fn is_name(text: &str) -> bool {
    text.starts_with(|first: char| first.is_ascii_alphanumeric())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
}

/// RFC 1123, as Kubernetes has it.
pub fn is_object(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let ends = text.bytes().next().is_some_and(plain) && text.bytes().last().is_some_and(plain);
    ends && text.bytes().all(|byte| plain(byte) || byte == b'-' || byte == b'.')
}

pub fn is_method(text: &str) -> bool {
    is_header(text) && !text.bytes().any(|byte| byte.is_ascii_lowercase())
}

/// RFC 9110 5.6.2, without the quotes that nobody uses.
pub fn is_header(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&*+.^_|~-".contains(&byte))
}

pub fn is_host_pattern(text: &str) -> bool {
    let address = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    match address {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => is_host(text.strip_prefix("*.").unwrap_or(text)),
    }
}

pub fn is_host(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    text.split('.').all(|label| {
        (1..=63).contains(&label.len()) && label.bytes().all(plain) && !label.starts_with('-') && !label.ends_with('-')
    })
}

pub fn is_path(text: &str) -> bool {
    text.starts_with('/') && text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'?' && byte != b'#')
}

/// Whole segments that are `{name}`, the last perhaps `{name=**}`; at least one, no name twice.
pub fn is_template(text: &str) -> bool {
    let segments: Vec<&str> = text.split('/').skip(1).collect();
    let mut names = Vec::new();
    for (index, segment) in segments.iter().enumerate() {
        let Some(inside) = segment.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')) else {
            if segment.contains(['{', '}', '*']) {
                return false;
            }
            continue;
        };
        let name = match inside.strip_suffix("=**") {
            Some(_) if index + 1 < segments.len() => return false,
            Some(name) => name,
            None => inside,
        };
        let begins = name.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_');
        let plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        if !begins || !plain || names.contains(&name) {
            return false;
        }
        names.push(name);
    }
    is_path(text) && !names.is_empty()
}

pub fn is_network(text: &str) -> bool {
    use std::net::IpAddr;
    let (address, length) = text.split_once('/').map_or((text, None), |(address, length)| (address, Some(length)));
    let Ok(address) = address.parse::<IpAddr>() else { return false };
    let most = if address.is_ipv4() { 32 } else { 128 };
    let digits = |length: &str| length.bytes().all(|byte| byte.is_ascii_digit());
    let fits = length.is_none_or(|length| digits(length) && length.parse::<u8>().is_ok_and(|bits| bits <= most));
    fits && address == address.to_canonical()
}

/// Host with its port, and path.
fn endpoint(text: &str) -> Option<(&str, &str)> {
    let rest = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://"))?;
    let (host, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    let port = |port: &str| port.parse::<u16>().is_ok_and(|port| port > 0);
    let name = match host.strip_prefix('[') {
        Some(rest) => {
            let (address, rest) = rest.split_once(']')?;
            address.parse::<std::net::Ipv6Addr>().ok()?;
            return (rest.is_empty() || rest.strip_prefix(':').is_some_and(port)).then_some((host, path));
        }
        None => host,
    };
    let good = match name.split_once(':') {
        Some((name, number)) => is_host(name) && port(number),
        None => is_host(name),
    };
    (good && (path.is_empty() || is_path(path))).then_some((host, path))
}

pub fn is_endpoint(text: &str) -> bool {
    endpoint(text).is_some()
}

pub fn is_grpc_endpoint(text: &str) -> bool {
    endpoint(text).is_some_and(|(_, path)| path.is_empty() || path == "/")
}

pub fn is_attribute(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_' || byte == b'-';
    text.split('.').all(|word| word.starts_with(|first: char| first.is_ascii_lowercase()) && word.bytes().all(plain))
}

pub fn is_own_attribute(text: &str) -> bool {
    text.split('.').next().is_some_and(|first| OWN_ATTRIBUTES.contains(&first))
}

pub fn is_own_header(text: &str) -> bool {
    let name = text.to_ascii_lowercase();
    OWN_HEADERS.contains(&name.as_str()) || name.starts_with("content-") || name.starts_with("grpc-")
}

const OWN_ATTRIBUTES: [&str; 10] =
    ["client", "error", "http", "jaeger-debug-id", "network", "rpc", "server", "spanmesh", "url", "user_agent"];
const OWN_HEADERS: [&str; 8] =
    ["host", "connection", "te", "trailer", "transfer-encoding", "upgrade", "expect", "keep-alive"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_template_has_names_for_whole_segments() {
        for text in ["/carts/{id}", "/{rest=**}", "/a/{b}/c/{d=**}"] {
            assert!(is_template(text), "{text}");
        }
        for text in ["/carts", "/{}", "/{a}/{a}", "/{a=**}/b", "/x{a}", "/{a", "carts/{id}", "/{a-b}", "/{9}", "/*"] {
            assert!(!is_template(text), "{text}");
        }
    }

    #[test]
    fn an_endpoint_is_a_place_to_send_to() {
        for text in ["http://collector:4318", "https://a.b/v1", "http://[::1]:4318/a/b", "http://10.0.0.1"] {
            assert!(is_endpoint(text), "{text}");
        }
        for text in [
            "",
            "collector:4317",
            "grpc://a:1",
            "http://",
            "http://a:0",
            "http://u:p@a",
            "http://a/?q",
            "http://[::1]x",
        ] {
            assert!(!is_endpoint(text), "{text}");
        }
        assert!(is_grpc_endpoint("http://a:4317") && !is_grpc_endpoint("http://a:4317/v1"));
    }

    #[test]
    fn a_network_has_a_prefix_that_it_can_have() {
        assert!(["10.0.0.0/8", "fd00::/8", "192.0.2.7", "::1"].iter().all(|text| is_network(text)));
        assert!(
            !["", "10.0.0.0/33", "10.0.0.0/", "10/8", "::/129", "::ffff:10.0.0.0/8"]
                .iter()
                .any(|text| is_network(text))
        );
    }

    #[test]
    fn a_host_has_labels() {
        assert!(
            ["shop.example", "*.shop.example", "[::1]", "cart", "10.0.0.1"].iter().all(|text| is_host_pattern(text))
        );
        assert!(!["*", "shop.example:80", "a..b", "*.*.a", "-a", ""].iter().any(|text| is_host_pattern(text)));
    }
}
