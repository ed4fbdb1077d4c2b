//! Attributes that the configuration adds to spans: from headers that it lists, from baggage, from the environment, or as
//! they are written. The road takes down the values of a sampled request (`request`, `answer`), the encoder tells them.
//! Nothing that is not listed is taken down, and not more of it than the limits below.

use std::borrow::Cow;

use http::{HeaderMap, HeaderName};

use super::attributes::Fields;
use super::propagate::baggage;
use super::redact::Redactor;
use super::redact::patterns::{AHEAD, End};
use crate::config;

/// What is added.
#[derive(Clone, Debug, Default)]
pub struct Custom(Vec<Attribute>);

#[derive(Clone, Debug)]
struct Attribute {
    key: Key,
    from: From,
    /// What it says is a secret, whatever it looks like.
    secret: bool,
}

#[derive(Clone, Debug)]
enum Key {
    Named(String),
    /// As the conventions have it: one for HTTP, one for gRPC.
    Header(String, String),
}

#[derive(Clone, Debug)]
enum From {
    Request(HeaderName),
    Answer(HeaderName),
    Baggage(String),
    Always(String),
}

impl Custom {
    pub fn new(written: &[config::Attribute]) -> Self {
        Self(written.iter().filter_map(Attribute::new).collect())
    }

    /// Takes down what a request's head says.
    pub fn request(&self, headers: &HeaderMap, out: &mut Vec<u8>) {
        for (place, attribute) in (0..).zip(&self.0) {
            match &attribute.from {
                From::Request(name) => put_all(out, place, headers, name),
                From::Baggage(key) => {
                    if let Some(value) = baggage::value(headers, key) {
                        put(out, place, &decoded(value));
                    }
                }
                From::Answer(_) | From::Always(_) => {}
            }
        }
    }

    /// Takes down what an answer's head says.
    pub fn answer(&self, headers: &HeaderMap, out: &mut Vec<u8>) {
        for (place, attribute) in (0..).zip(&self.0) {
            if let From::Answer(name) = &attribute.from {
                put_all(out, place, headers, name);
            }
        }
    }

    /// What was taken down, without its secrets.
    pub fn redact(&self, taken: &[u8], redactor: &Redactor) -> Vec<u8> {
        let mut out = Vec::with_capacity(taken.len());
        for (place, value) in entries(taken) {
            let secret = self.0.get(usize::from(place)).is_none_or(|attribute| attribute.secret);
            let end = if value.len() < VALUE + AHEAD { End::Whole } else { End::Cut };
            let told: Cow<'_, [u8]> = if secret { redactor.hidden(value).into() } else { redactor.text(value, end) };
            // A secret may have become shorter: what stood behind the limit stays behind it.
            let behind = value.len().saturating_sub(VALUE);
            let keep = if secret { told.len() } else { told.len().saturating_sub(behind) };
            put_entry(&mut out, place, told.get(..keep).unwrap_or_default());
        }
        out
    }

    pub fn tell(&self, taken: &[u8], grpc: bool, to: &mut impl Fields) {
        for (place, attribute) in (0..).zip(&self.0) {
            if let (Key::Named(key), From::Always(value)) = (&attribute.key, &attribute.from) {
                to.custom(key, value);
                continue;
            }
            let values = entries(taken).filter(|(of, _)| *of == place).map(|(_, value)| String::from_utf8_lossy(value));
            let values: Vec<Cow<'_, str>> = values.collect();
            match (&attribute.key, &values[..]) {
                (_, []) => {}
                (Key::Named(key), [value]) => to.custom(key, value),
                // RFC 9110 section 5.3: lines of one field are one list.
                (Key::Named(key), values) => to.custom(key, &values.join(", ")),
                (Key::Header(http, rpc), values) => to.list(if grpc { rpc } else { http }, values),
            }
        }
    }
}

impl Attribute {
    /// `None` for what was refused where it was read.
    fn new(written: &config::Attribute) -> Option<Self> {
        let config::Attribute { name, request_header, response_header, baggage, variable, value, found } = written;
        let header = |name: &String| HeaderName::try_from(name.as_str()).ok();
        let (side, from) = match (request_header, response_header) {
            (Some(name), _) => ("request", From::Request(header(name)?)),
            (_, Some(name)) => ("response", From::Answer(header(name)?)),
            (None, None) => (
                "",
                baggage.clone().map(From::Baggage).or_else(|| {
                    let said = if variable.is_some() { &found.0 } else { value };
                    let said = said.as_deref().and_then(|said| said.get(..said.floor_char_boundary(SAID)));
                    said.filter(|said| !said.is_empty()).map(|said| From::Always(said.to_owned()))
                })?,
            ),
        };
        let key = match (name, &from) {
            (Some(name), _) => Key::Named(name.clone()),
            (None, From::Request(header) | From::Answer(header)) => {
                Key::Header(format!("http.{side}.header.{header}"), format!("rpc.{side}.metadata.{header}"))
            }
            (None, _) => return None,
        };
        let secret = matches!(&from, From::Request(name) | From::Answer(name) if SECRETS.contains(&name.as_str()));
        Some(Self { key, from, secret })
    }
}

fn put_all(out: &mut Vec<u8>, place: u8, headers: &HeaderMap, name: &HeaderName) {
    for value in headers.get_all(name).iter().take(LINES) {
        put(out, place, value.as_bytes());
    }
}

fn put(out: &mut Vec<u8>, place: u8, value: &[u8]) {
    let value = value.get(..VALUE + AHEAD).unwrap_or(value);
    if out.len() + ENTRY + value.len() <= MOST {
        put_entry(out, place, value);
    }
}

/// Which attribute, how many bytes, and the bytes.
fn put_entry(out: &mut Vec<u8>, place: u8, value: &[u8]) {
    let Ok(length) = u16::try_from(value.len()) else { return };
    out.push(place);
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(value);
}

fn entries(mut taken: &[u8]) -> impl Iterator<Item = (u8, &[u8])> {
    std::iter::from_fn(move || {
        let [place, high, low, rest @ ..] = taken else { return None };
        let (value, rest) = rest.split_at_checked(u16::from_be_bytes([*high, *low]).into())?;
        taken = rest;
        Some((*place, value))
    })
}

/// Escapes of a member of baggage. What is none stays.
fn decoded(value: &[u8]) -> Cow<'_, [u8]> {
    if !value.contains(&b'%') {
        return value.into();
    }
    let mut out = Vec::with_capacity(value.len());
    let mut rest = value;
    loop {
        rest = match rest {
            [b'%', high, low, after @ ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
                let digit = |byte: u8| char::from(byte).to_digit(16).unwrap_or_default() as u8;
                out.push(digit(*high) << 4 | digit(*low));
                after
            }
            [byte, after @ ..] => {
                out.push(*byte);
                after
            }
            [] => return out.into(),
        };
    }
}

/// Values of one header, bytes of one value, and bytes of all that a request has, with what they are looked at by. A span is
/// read by people.
const LINES: usize = 8;
const VALUE: usize = 256;
pub const MOST: usize = 4096;
/// Of what the configuration says itself.
const SAID: usize = 1024;
/// What stands before a value.
const ENTRY: usize = 3;
/// Who lists one of these wants to know that it was there, or with a key whether it was the same.
const SECRETS: [&str; 6] =
    ["authorization", "cookie", "proxy-authorization", "set-cookie", "x-api-key", "x-amz-security-token"];

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;
    use crate::config::{Found, Redaction};
    use crate::trace::attributes::tests::Lines;

    fn written() -> config::Attribute {
        config::Attribute {
            name: None,
            request_header: None,
            response_header: None,
            baggage: None,
            variable: None,
            value: None,
            found: Found::default(),
        }
    }

    fn text(text: &str) -> Option<String> {
        Some(text.into())
    }

    fn custom() -> Custom {
        Custom::new(&[
            config::Attribute { request_header: text("x-a"), ..written() },
            config::Attribute { name: text("a"), request_header: text("x-a"), ..written() },
            config::Attribute { request_header: text("authorization"), ..written() },
            config::Attribute { name: text("user"), baggage: text("user.id"), ..written() },
            config::Attribute { name: text("region"), variable: text("R"), found: Found(text("eu")), ..written() },
            config::Attribute { name: text("gone"), variable: text("G"), ..written() },
            config::Attribute { name: text("team"), value: text("cart"), ..written() },
            config::Attribute { response_header: text("x-b"), ..written() },
        ])
    }

    fn told(headers: &[(&'static str, &str)], answer: &[(&'static str, &str)], grpc: bool) -> Vec<String> {
        let map = |lines: &[(&'static str, &str)]| {
            let mut headers = HeaderMap::new();
            for (name, value) in lines {
                headers.append(*name, HeaderValue::from_str(value).expect("a value"));
            }
            headers
        };
        let (custom, mut taken) = (custom(), Vec::new());
        custom.request(&map(headers), &mut taken);
        custom.answer(&map(answer), &mut taken);
        let taken = custom.redact(&taken, &Redactor::new(&Redaction::default(), None));
        let mut lines = Lines::default();
        custom.tell(&taken, grpc, &mut lines);
        lines.0
    }

    #[test]
    fn what_is_listed_is_told_and_nothing_else() {
        let headers = [
            ("x-a", "1"),
            ("x-a", "bob@example.org"),
            ("x-c", "2"),
            ("authorization", "Basic abc"),
            ("baggage", "other=1, user.id=J%C3%B6rg;secret, user.id=2"),
        ];
        let answer = [("x-b", "3"), ("x-a", "4")];
        assert_eq!(
            told(&headers, &answer, false),
            [
                "http.request.header.x-a=[1|REDACTED]",
                "a=1, REDACTED",
                "http.request.header.authorization=[REDACTED]",
                "user=Jörg",
                "region=eu",
                "team=cart",
                "http.response.header.x-b=[3]"
            ]
        );
        assert_eq!(told(&[], &answer, true), ["region=eu", "team=cart", "rpc.response.metadata.x-b=[3]"]);
    }

    #[test]
    fn long_values_and_many_of_them_are_cut() {
        let long = "x".repeat(1000);
        let lines = told(&[("x-a", &long)], &[], false);
        assert_eq!(lines[1].len(), "a=".len() + VALUE);
        let lines = told(&[("x-a", "y"); 100], &[], false);
        assert_eq!(lines[0].matches('y').count(), LINES);
        let mut out = Vec::new();
        (0..100).for_each(|place| put(&mut out, place, &[b'z'; VALUE]));
        assert!(out.len() <= MOST && entries(&out).count() == 15);
        assert_eq!(entries(&[1, 0, 9, b'x']).count(), 0, "what is cut off is no value");
    }
}
