//! Where a receiver of spans is, as a URL tells it: its scheme, its host and port, and the path there.

use std::fmt;

use super::host::{Address, address, host};

/// The port is that of the scheme where none was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    pub secure: bool,
    pub address: Address,
    /// Begins with `/`, or is empty.
    pub path: String,
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}{}", if self.secure { "https" } else { "http" }, self.address, self.path)
    }
}

pub fn endpoint(text: &str) -> Result<Endpoint, &'static str> {
    let (scheme, rest) = text.split_once("://").ok_or("has no scheme")?;
    let secure = match scheme.to_ascii_lowercase().as_str() {
        "http" => false,
        "https" => true,
        _ => return Err("has a scheme that is neither http nor https"),
    };
    let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    if authority.contains('@') {
        return Err("has a user in it; send a header field instead");
    }
    if !path.bytes().all(|byte| byte.is_ascii_graphic() && !b"?#\"<>\\^`{|}".contains(&byte)) {
        return Err("has a path with characters that a path does not have");
    }
    let has_port = authority.rsplit_once(':').is_some_and(|(_, port)| !port.contains(']'));
    let address = match has_port {
        true => address(authority)?,
        false => Address { host: host(authority)?, port: if secure { 443 } else { 80 } },
    };
    Ok(Endpoint { secure, address, path: path.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_taken_apart_and_put_together() {
        for (text, shown) in [
            ("http://collector:4318", "http://collector:4318"),
            ("HTTPS://Collector/", "https://collector:443/"),
            ("http://[::1]", "http://[::1]:80"),
            ("http://[::1]:4318/a/b", "http://[::1]:4318/a/b"),
        ] {
            assert_eq!(endpoint(text).unwrap().to_string(), shown);
            assert_eq!(endpoint(shown).unwrap().to_string(), shown);
        }
    }

    #[test]
    fn what_is_no_place_to_send_to_is_refused() {
        for text in
            ["", "collector:4317", "grpc://a:1", "http://", "http://a:0", "http://u:p@a", "http://a/?q", "http://a/ b"]
        {
            assert!(endpoint(text).is_err(), "{text}");
        }
    }
}
