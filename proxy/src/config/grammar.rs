//! Texts with a grammar: each is parsed here, once, and is a plain value for the rest of the program.
//!
//! A grammar tells three things about itself: its words in the documentation, what would be right, and what is wrong with a text.

mod endpoint;
mod host;
mod network;
mod request;

use std::net::SocketAddr;
use std::time::Duration;

use super::problem::shown;
use super::reader::Reader;
use super::sampling::StatusRange;
use super::schema::{Form, Kind};
use super::tree::Tree;
use host::{address, host, host_pattern, socket_address};
use network::network;
use request::{field_name, header_name, method, path_template, url_path};

pub use endpoint::Endpoint;
pub use host::Address;
pub use network::Network;

/// `4Mi`, `64Ki`, `1024`: bytes.
pub enum Size {}
/// What listeners, routes, upstreams and destinations are called.
pub enum Name {}
/// A key of W3C baggage.
pub enum BaggageKey {}
/// How many of all traces, as a decimal.
pub enum Probability {}
/// How many in a second or a minute.
pub enum Rate {}
/// `500-599`, `429`: statuses of HTTP.
pub enum Statuses {}
/// `cart.shop`: a service and its namespace.
pub enum ServiceName {}
/// A host or `*.` and a domain.
pub enum HostPattern {}
/// The name in a TLS hello or certificate.
pub enum ServerName {}
/// A path or its beginning.
pub enum UrlPath {}
/// A path with `{name}` segments.
pub enum PathTemplate {}
pub enum Method {}
/// The name of a header field that requests to a destination carry.
pub enum FieldName {}
/// The name of a header that is read.
pub enum HeaderName {}
/// What an attribute of spans is called.
pub enum AttributeName {}
/// Header names and the values that they must have.
pub enum Headers {}
/// A log level, or levels by target.
pub enum LogFilter {}

/// What a grammar says about itself; `grammar!` makes the form of it.
macro_rules! grammar {
    ($written:ident $Grammar:ty => $Plain:ty, $words:literal, $right:literal, $parse:path, $show:expr) => {
        impl Form for $Grammar {
            type Plain = $Plain;

            fn read(reader: &mut Reader, tree: &Tree) -> Option<$Plain> {
                let text = $written(reader, tree, $right)?;
                match $parse(&text) {
                    Ok(plain) => Some(plain),
                    Err(wrong) => reader.wrong(format!("`{}` {wrong}", shown(&text)), $right),
                }
            }

            fn write(plain: &$Plain) -> Tree {
                let show: fn(&$Plain) -> String = $show;
                Tree::Text(show(plain))
            }

            fn kind() -> Kind {
                Kind::Plain($words.into())
            }
        }
    };
}

grammar!(number_or_text Duration => Duration, "a duration", "write a whole number and its unit: `500ms`, `10s`, `1m` or `1h`", duration, show_duration);
grammar!(number_or_text Size => usize, "a size", "write bytes: `1024`, `64Ki`, `4Mi` or `1Gi`", size, show_size);
grammar!(only_text SocketAddr => SocketAddr, "IP and port", "write an IP address and a port: `127.0.0.1:8080`, `0.0.0.0:8080` or `[::1]:8080`", socket_address, SocketAddr::to_string);
grammar!(only_text Address => Address, "host and port", "write a host and a port: `10.0.0.1:8080`, `[::1]:8080` or `cart.shop:8080`", address, Address::to_string);
grammar!(only_text Network => Network, "a network", "write a network: `10.0.0.0/8`, `fd00::/8`, or one address", network, Network::to_string);
grammar!(number_or_text Probability => f64, "a probability", "write a decimal above 0 and at most 1, `0.05`, or a power, `1e-5`; for none of them `never: {}`", probability, f64::to_string);
grammar!(number_or_text Rate => f64, "a rate", "write a decimal above 0 and at most 1000000: `5`, `0.5`", rate, f64::to_string);
grammar!(number_or_text Statuses => StatusRange, "statuses of HTTP", "write a status or two with `-` between, in quotes: `\"429\"`, `\"500-599\"`", statuses, show_statuses);
grammar!(only_text ServiceName => String, "a service and its namespace", "write `service.namespace` in small letters: `cart.shop`", service_name, String::clone);
grammar!(only_text BaggageKey => String, "a key of baggage", "write a key as it stands before `=` in the header: `user.id`", baggage_key, String::clone);
grammar!(only_text Name => String, "a name", "write letters, digits, `-`, `_` and `.`, beginning with a letter or digit, at most 128", name, String::clone);
grammar!(only_text HostPattern => String, "a host", "write a host without port, `shop.example`, or all hosts below a domain, `*.shop.example`", host_pattern, String::clone);
grammar!(only_text ServerName => String, "a host", "write a host without port: `cart.shop.example`", host, String::clone);
grammar!(only_text UrlPath => String, "a path of a URL", "write a path that begins with `/`, without `?` and `#`: `/cart`", url_path, String::clone);
grammar!(only_text PathTemplate => String, "a path with `{name}` segments", "write a path such as `/carts/{id}/items` or `/files/{rest=**}`", path_template, String::clone);
grammar!(only_text Method => String, "a method", "write a method as it is sent: `GET`, `POST`", method, String::clone);
grammar!(only_text Endpoint => Endpoint, "a URL", "write `http://` or `https://`, a host, a port and a path: `http://collector:4318`", endpoint::endpoint, Endpoint::to_string);
grammar!(only_text FieldName => String, "a header's name", "write a name such as `authorization`, and none that HTTP itself or OTLP sets", field_name, String::clone);
grammar!(only_text HeaderName => String, "a header's name", "write a name such as `x-tenant`", header_name, String::clone);
grammar!(only_text AttributeName => String, "an attribute's name", "write a name such as `tenant` or `shop.tenant`: small letters, digits, `_` and `-`, in words parted by `.`, and none that the proxy gives itself", attribute_name, String::clone);
grammar!(only_text LogFilter => String, "a log filter", "write `off`, `error`, `warn`, `info`, `debug` or `trace`, or levels by target: `info,spanmesh_proxy::net=debug`", log_filter, String::clone);

/// A number stands for its digits: `10` without a unit deserves a better answer than "is not text".
fn number_or_text(reader: &mut Reader, tree: &Tree, right: &str) -> Option<String> {
    match tree {
        Tree::Number(number) => Some(number.to_string()),
        Tree::Fraction(number) => Some(number.to_string()),
        _ => only_text(reader, tree, right),
    }
}

/// Without quotes `1.10` would lose its zero and `0x10` become 16 on the way.
fn only_text(reader: &mut Reader, tree: &Tree, right: &str) -> Option<String> {
    match tree {
        Tree::Text(text) | Tree::Word(text) if text.len() > MAX_GRAMMAR => {
            reader.wrong(format!("has {} bytes", text.len()), right)
        }
        Tree::Text(text) | Tree::Word(text) => Some(text.clone()),
        Tree::Bool(_) | Tree::Number(_) | Tree::Fraction(_) => {
            let wrong = format!("is {} without quotes, which is not text", tree.describe());
            reader.wrong(wrong, format!("{right}, in quotes"))
        }
        Tree::Null => reader.wrong("is empty", right),
        Tree::List(_) | Tree::Map(_) => reader.wrong(format!("is {}", tree.describe()), right),
    }
}

/// RFC 9110 §5.6.2: a token.
fn baggage_key(text: &str) -> Result<String, &'static str> {
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    match !text.is_empty() && text.bytes().all(is_token) {
        true => Ok(text.into()),
        false => Err("is no key of baggage"),
    }
}

/// Names of the conventions are theirs: what stands there is what they mean.
fn attribute_name(text: &str) -> Result<String, &'static str> {
    let is_word = |word: &str| {
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'_' | b'-');
        word.bytes().all(plain) && word.starts_with(|first: char| first.is_ascii_lowercase())
    };
    match text.split('.').next() {
        _ if text.len() > 128 => Err("is too long"),
        _ if !text.split('.').all(is_word) => Err("is no attribute's name"),
        Some(first) if OWN.contains(&first) => Err("is a name that the proxy gives itself"),
        _ => Ok(text.into()),
    }
}

fn duration(text: &str) -> Result<Duration, &'static str> {
    let (number, unit) = number_and_unit(text)?;
    let milliseconds: u64 = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" => 60 * 1000,
        "h" => 3600 * 1000,
        "" => return Err("has no unit"),
        _ => return Err("has an unknown unit"),
    };
    match number.checked_mul(milliseconds).map(Duration::from_millis) {
        Some(duration) if duration <= MAX_DURATION => Ok(duration),
        _ => Err("is longer than a year"),
    }
}

fn show_duration(duration: &Duration) -> String {
    let milliseconds = duration.as_millis();
    for (unit, length) in [("h", 3_600_000), ("m", 60_000), ("s", 1000)] {
        if milliseconds >= length && milliseconds.is_multiple_of(length) {
            return format!("{}{unit}", milliseconds / length);
        }
    }
    if milliseconds == 0 { "0s".into() } else { format!("{milliseconds}ms") }
}

fn size(text: &str) -> Result<usize, &'static str> {
    let (number, unit) = number_and_unit(text)?;
    let shift = match unit {
        "" => 0,
        "Ki" => 10,
        "Mi" => 20,
        "Gi" => 30,
        _ => return Err("has an unknown unit"),
    };
    let bytes = number.checked_mul(1 << shift).ok_or("is too large")?;
    usize::try_from(bytes).map_err(|_| "is too large")
}

fn show_size(bytes: &usize) -> String {
    for (unit, length) in [("Gi", 1 << 30), ("Mi", 1 << 20), ("Ki", 1 << 10)] {
        if *bytes >= length && bytes.is_multiple_of(length) {
            return format!("{}{unit}", bytes / length);
        }
    }
    bytes.to_string()
}

fn number_and_unit(text: &str) -> Result<(u64, &str), &'static str> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at_checked(digits).ok_or("is not a number")?;
    match number {
        "" => Err("does not begin with a whole number"),
        _ if unit.starts_with('.') => Err("is not a whole number"),
        _ => Ok((number.parse().map_err(|_| "is too large")?, unit)),
    }
}

fn probability(text: &str) -> Result<f64, &'static str> {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let plain = match (text.split_once("e-"), text.split_once('.')) {
        (Some((number, power)), None) => digits(number) && digits(power),
        (Some(_), Some(_)) => false,
        (None, Some((whole, part))) => digits(whole) && digits(part),
        (None, None) => digits(text),
    };
    match text.parse::<f64>() {
        Ok(number) if plain && (SMALLEST_PROBABILITY..=1.0).contains(&number) => Ok(number),
        Ok(number) if plain && number > 1.0 => Err("is more than all"),
        Ok(number) if plain && number > 0.0 => Err("is too small: of 2^56 traces not one would be kept"),
        Ok(_) if plain => Err("is nothing"),
        Ok(_) | Err(_) => Err("is no decimal"),
    }
}

fn rate(text: &str) -> Result<f64, &'static str> {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let (whole, part) = text.split_once('.').map_or((text, None), |(whole, part)| (whole, Some(part)));
    match text.parse::<f64>() {
        Ok(number) if digits(whole) && part.is_none_or(digits) => match number {
            _ if number <= 0.0 => Err("is nothing"),
            _ if number > MAX_RATE => Err("is too much"),
            _ => Ok(number),
        },
        Ok(_) | Err(_) => Err("is no decimal"),
    }
}

fn statuses(text: &str) -> Result<StatusRange, &'static str> {
    let status = |text: &str| match (text.len(), text.parse::<u16>()) {
        (3, Ok(status)) if (100..=599).contains(&status) => Ok(status),
        _ => Err("is no status of HTTP"),
    };
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let range = StatusRange { first: status(first)?, last: status(last)? };
    if range.first > range.last { Err("ends before it begins") } else { Ok(range) }
}

fn show_statuses(range: &StatusRange) -> String {
    match range {
        StatusRange { first, last } if first == last => first.to_string(),
        StatusRange { first, last } => format!("{first}-{last}"),
    }
}

/// Two labels of DNS (RFC 1123).
fn service_name(text: &str) -> Result<String, &'static str> {
    let is_label = |label: &str| {
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        !label.is_empty()
            && label.len() <= 63
            && label.bytes().all(plain)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    match text.split_once('.') {
        Some((service, namespace)) if is_label(service) && is_label(namespace) => Ok(text.into()),
        Some(_) | None => Err("is no service with its namespace"),
    }
}

fn name(text: &str) -> Result<String, &'static str> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    match text.as_bytes().first() {
        None => Err("is empty"),
        Some(first) if !first.is_ascii_alphanumeric() => Err("begins with neither a letter nor a digit"),
        _ if text.len() > 128 => Err("is too long"),
        _ if !text.bytes().all(plain) => Err("has a character that no name has"),
        _ => Ok(text.into()),
    }
}

/// As strict as the log itself, which reads it again.
fn log_filter(text: &str) -> Result<String, &'static str> {
    let is_level = |level: &str| ["off", "error", "warn", "info", "debug", "trace"].contains(&level);
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b':' | b'-');
    let is_target = |target: &str| !target.is_empty() && target.bytes().all(plain);
    let mut rest = 0;
    for part in text.split(',').map(str::trim) {
        match part.split_once('=') {
            Some((target, level)) if is_target(target.trim()) && is_level(level.trim()) => {}
            None if is_level(part) => rest += 1,
            Some(_) | None => return Err("is not a log filter"),
        }
    }
    match rest {
        0 | 1 if text.len() <= MAX_LOG_FILTER => Ok(text.into()),
        0 | 1 => Err("is too long"),
        _ => Err("has two levels for the targets that it does not name"),
    }
}

const OWN: [&str; 10] =
    ["client", "error", "http", "jaeger-debug-id", "network", "rpc", "server", "spanmesh", "url", "user_agent"];
const MAX_DURATION: Duration = Duration::from_secs(365 * 24 * 3600);
/// More than any proxy carries.
const MAX_RATE: f64 = 1_000_000.0;
/// 2^-56: a trace has 56 random bits.
const SMALLEST_PROBABILITY: f64 = 1.0 / (1u64 << 56) as f64;
/// A path is the longest of these texts; a request line that a proxy takes is not longer.
const MAX_GRAMMAR: usize = 4096;
/// Dozens of targets.
const MAX_LOG_FILTER: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_a_whole_number_and_a_unit() {
        for (text, milliseconds) in [("500ms", 500), ("10s", 10_000), ("1m", 60_000), ("1h", 3_600_000), ("0s", 0)] {
            assert_eq!(duration(text), Ok(Duration::from_millis(milliseconds)));
            assert_eq!(show_duration(&Duration::from_millis(milliseconds)), text);
        }
        assert_eq!(show_duration(&Duration::from_millis(1500)), "1500ms");
        for text in ["", "10", "s", "1.5s", "-1s", "1 s", "10x", "99999999999999999999s", "9999999h", "1s1", "１s"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_size_is_bytes_or_powers_of_1024() {
        for (text, bytes) in [("1000", 1000), ("64Ki", 65536), ("4Mi", 4 << 20), ("1Gi", 1 << 30)] {
            assert_eq!(size(text), Ok(bytes));
            assert_eq!(show_size(&bytes), text);
        }
        for text in ["", "Ki", "4MB", "4M", "4mi", "-1", "1.5Mi", "99999999999999Gi"] {
            assert!(size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_probability_is_a_decimal_above_zero() {
        for (text, number) in [("1", 1.0), ("1.0", 1.0), ("0.05", 0.05), ("1e-5", 1e-5), ("0.00001", 1e-5)] {
            assert_eq!(probability(text), Ok(number));
            assert_eq!(probability(&number.to_string()), Ok(number));
        }
        for text in ["", "0", "0.0", "-0.1", "+0.1", "1.1", ".5", "5.", "5%", "inf", "nan", "1e5", "1.5e-3", "1e-20"] {
            assert!(probability(text).is_err(), "{text}");
        }
    }

    #[test]
    fn rates_statuses_and_services_have_their_grammars() {
        for (text, number) in [("5", 5.0), ("0.5", 0.5), ("1000000", 1e6)] {
            assert_eq!(rate(text), Ok(number));
            assert_eq!(rate(&number.to_string()), Ok(number));
        }
        for text in ["", "0", "-1", ".5", "5.", "1e3", "1000001", "inf"] {
            assert!(rate(text).is_err(), "{text}");
        }
        for (text, first, last) in [("429", 429, 429), ("500-599", 500, 599)] {
            assert_eq!(statuses(text), Ok(StatusRange { first, last }));
            assert_eq!(show_statuses(&StatusRange { first, last }), text);
        }
        for text in ["", "5xx", "42", "600", "599-500", "+50", "500-", "-500"] {
            assert!(statuses(text).is_err(), "{text}");
        }
        assert!(service_name("cart.shop").is_ok() && service_name("a-1.b2").is_ok());
        for text in ["cart", "cart.shop.svc", "Cart.shop", ".shop", "cart.", "-a.b", "a-.b"] {
            assert!(service_name(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_log_filter_names_levels() {
        assert!(log_filter("info").is_ok() && log_filter("warn,spanmesh_proxy::net=debug").is_ok());
        assert!(log_filter("info,debug").is_err() && log_filter("info,").is_err());
        assert!(log_filter("").is_err() && log_filter("loud").is_err() && log_filter("a=b").is_err());
    }
}
