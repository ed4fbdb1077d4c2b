//! What must not leave the process in a span, an attribute or a line of the access log: values of queries that the
//! conventions list or that are configured, the users of URLs, and what looks like a secret (`patterns`). A key stays, so
//! that one sees that it was there. Spans are redacted in the background, before any destination has them (`manner`).

pub mod patterns;

use std::borrow::Cow;

use aws_lc_rs::hmac;
use spanmesh_proto::hex_into;

use self::patterns::{End, Found, Patterns};
use crate::config::Redaction;

/// What is taken out, and what is put in its place.
#[derive(Clone, Debug, Default)]
pub struct Redactor {
    query: Vec<String>,
    patterns: Patterns,
    /// With it, the same secret is the same word everywhere, and nobody can try out which it was.
    key: Option<hmac::Key>,
}

impl Redactor {
    pub fn new(rules: &Redaction, key: Option<&[u8]>) -> Self {
        Self {
            query: rules.query.clone(),
            patterns: Patterns::of(&rules.patterns),
            key: key.map(|key| hmac::Key::new(hmac::HMAC_SHA256, key)),
        }
    }

    /// Keys are compared as they are meant, whether or not they are encoded.
    pub fn query<'a>(&self, query: &'a [u8], end: End) -> Cow<'a, [u8]> {
        let mut out = Vec::new();
        // What stands before `same` is written already.
        let (mut same, mut next) = (0, 0);
        for pair in query.split(|byte| *byte == b'&') {
            let start = next;
            next += pair.len() + 1;
            let (from, told) = match self.secret(pair) {
                Some((value, told)) => (start + value, told),
                // Only the last one may be cut.
                None => (start, self.text(pair, if next > query.len() { end } else { End::Whole })),
            };
            if let Cow::Owned(told) = told {
                out.extend_from_slice(query.get(same..from).unwrap_or_default());
                out.extend_from_slice(&told);
                same = start + pair.len();
            }
        }
        if out.is_empty() {
            return query.into();
        }
        out.extend_from_slice(query.get(same..).unwrap_or_default());
        out.into()
    }

    /// Where the value of a key that carries secrets begins, and what is told in its place.
    fn secret(&self, pair: &[u8]) -> Option<(usize, Cow<'static, [u8]>)> {
        let at = pair.iter().position(|byte| *byte == b'=')?;
        let (key, value) = (pair.get(..at)?, pair.get(at + 1..)?);
        let is = |name: &str| is_key(key, name);
        let told = match () {
            () if SECRETS.into_iter().any(is) => REDACTED.to_vec(),
            () if self.query.iter().any(|name| is(name)) => self.hidden(value),
            () => return None,
        };
        Some((at + 1, told.into()))
    }

    /// `user:password@host` is told without its user. One that is cut may be all user.
    pub fn authority<'a>(&self, authority: &'a [u8], end: End) -> Cow<'a, [u8]> {
        match (authority.iter().rposition(|byte| *byte == b'@'), end) {
            (_, End::Cut) => USER.into(),
            (Some(at), End::Whole) => [USER, authority.get(at..).unwrap_or_default()].concat().into(),
            (None, End::Whole) => authority.into(),
        }
    }

    pub fn text<'a>(&self, text: &'a [u8], end: End) -> Cow<'a, [u8]> {
        if text.len() < SHORTEST || is_uuid(text) {
            return text.into();
        }
        let mut out = Vec::new();
        let mut same = 0;
        for found in self.patterns.find(text, end) {
            let (range, told) = match found {
                Found::User(range) => (range, USER.to_vec()),
                Found::Secret(range) => (range.clone(), self.hidden(text.get(range).unwrap_or_default())),
            };
            out.extend_from_slice(text.get(same..range.start).unwrap_or_default());
            out.extend_from_slice(&told);
            same = range.end;
        }
        if same == 0 {
            return text.into();
        }
        out.extend_from_slice(text.get(same..).unwrap_or_default());
        out.into()
    }

    /// In place of a secret: a word that says nothing, or one that says only whether two are the same.
    pub fn hidden(&self, secret: &[u8]) -> Vec<u8> {
        let Some(key) = &self.key else { return REDACTED.to_vec() };
        let mut digits = [0; 2 * HASHED];
        hex_into(&mut digits, hmac::sign(key, secret).as_ref());
        [&b"hmac-"[..], &digits].concat()
    }
}

/// As most ids of requests are. No pattern fits into one: its groups of digits are too many, too long or too short for a
/// card's, and everything else needs a byte that it does not have.
fn is_uuid(text: &[u8]) -> bool {
    let Some(text) = text.as_array::<36>() else { return false };
    let digits: usize = text.iter().map(|byte| usize::from(HEX[usize::from(*byte)])).sum();
    digits == 32 && [text[8], text[13], text[18], text[23]] == *b"----"
}

fn is_key(written: &[u8], name: &str) -> bool {
    let mut rest = written;
    for meant in name.bytes() {
        let (byte, after) = match rest {
            [b'%', high, low, after @ ..] => (hex(*high) << 4 | hex(*low), after),
            [byte, after @ ..] => (*byte, after),
            [] => return false,
        };
        if byte != meant {
            return false;
        }
        rest = after;
    }
    rest.is_empty()
}

fn hex(digit: u8) -> u8 {
    char::from(digit).to_digit(16).map_or(0, |digit| digit as u8)
}

/// Any bytes, as each of the parts that are redacted, with every pattern. What stands in a secret's place is short, and no
/// user is left before a host.
pub fn fuzz_redact(input: &[u8]) {
    let redactor = Redactor::new(&Redaction::default(), input.first_chunk::<4>().map(|key| &key[..]));
    let most = (input.len() + 1) * (USER.len() + 2);
    for end in [End::Whole, End::Cut] {
        for redacted in [redactor.query(input, end), redactor.text(input, end)] {
            assert!(redacted.len() <= most);
        }
        let host = redactor.authority(input, end);
        assert!(!host.contains(&b'@') || host.starts_with(USER));
    }
}

/// Digits of ids.
static HEX: [bool; 256] = {
    let mut hex = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        hex[byte] = (byte as u8).is_ascii_hexdigit();
        byte += 1;
    }
    hex
};

const REDACTED: &[u8] = b"REDACTED";
/// `://u@`: what is shorter is no secret.
const SHORTEST: usize = 5;
const USER: &[u8] = b"REDACTED:REDACTED";
/// Bytes of a hash that are told: enough to tell one secret from another.
const HASHED: usize = 8;
/// The list of OpenTelemetry's conventions for `url.full` and `url.query`.
const SECRETS: [&str; 7] = [
    "X-Amz-Signature",
    "X-Amz-Credential",
    "X-Amz-Security-Token",
    "AWSAccessKeyId",
    "Signature",
    "sig",
    "X-Goog-Signature",
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Pattern;

    fn redactor(query: &[&str], patterns: &[Pattern], key: Option<&[u8]>) -> Redactor {
        let query = query.iter().map(|name| name.to_string()).collect();
        Redactor::new(&Redaction { query, patterns: patterns.to_vec(), ..Redaction::default() }, key)
    }

    fn text(told: Cow<'_, [u8]>) -> String {
        String::from_utf8(told.into_owned()).expect("text")
    }

    #[test]
    fn signatures_go_and_their_keys_stay() {
        let plain = Redactor::default();
        let redacted = |query: &'static str| text(plain.query(query.as_bytes(), End::Whole));
        assert_eq!(redacted("a=1&sig=abc=d&b&Signature=&sig"), "a=1&sig=REDACTED&b&Signature=REDACTED&sig");
        assert_eq!(redacted("Sig=x&signature=y&&=z"), "Sig=x&signature=y&&=z");
        assert_eq!(redacted("s%69g=x&X%2DAmz%2dSignature=y&"), "s%69g=REDACTED&X%2DAmz%2dSignature=REDACTED&");
        assert!(matches!(plain.query(b"a=1&b", End::Whole), Cow::Borrowed(_)));
    }

    #[test]
    fn configured_keys_go_too() {
        let redactor = redactor(&["password"], &[], None);
        let query = b"password=x&Password=y&to=a@b.example";
        assert_eq!(text(redactor.query(query, End::Whole)), "password=REDACTED&Password=y&to=a@b.example");
    }

    #[test]
    fn patterns_go_wherever_they_stand() {
        let redactor = Redactor::new(&Redaction::default(), None);
        let query = b"a=1&n=4111-1111-1111-1111&to=bob%40example.org&sig=x&k=v";
        assert_eq!(text(redactor.query(query, End::Whole)), "a=1&n=REDACTED&to=REDACTED&sig=REDACTED&k=v");
        assert_eq!(text(redactor.text(b"/a/bob@example.org/b", End::Whole)), "/a/REDACTED/b");
        assert_eq!(text(redactor.text(b"/a/https://u:p@h/b", End::Whole)), "/a/https://REDACTED:REDACTED@h/b");
        assert_eq!(text(redactor.text(b"4111111111111111", End::Whole)), "REDACTED");
        let none = self::redactor(&[], &[], None);
        assert_eq!(text(none.text(b"/a/bob@example.org/b", End::Whole)), "/a/bob@example.org/b");
    }

    #[test]
    fn no_pattern_fits_into_a_uuid() {
        let patterns = Patterns::of(&[Pattern::Cards, Pattern::Emails, Pattern::Bearers, Pattern::Jwts]);
        for id in [
            "41111111-1111-1111-1111-111111111111",
            "00000000-4111-1111-1111-111100000000",
            "aaaaaaaa-aaaa-aaaa-4242-424242424242",
            "bea2e2bb-bbbb-4bbb-8bbb-bebebebebebe",
        ] {
            assert!(is_uuid(id.as_bytes()) && patterns.find(id.as_bytes(), End::Whole).next().is_none(), "{id}");
        }
        for other in
            ["41111111111111111111111111111111----", "", "-41111111-1111-1111-1111-11111111111", "4111-1111-1111-1111"]
        {
            assert!(!is_uuid(other.as_bytes()), "{other}");
        }
    }

    #[test]
    fn a_user_is_not_told() {
        let redactor = Redactor::default();
        assert_eq!(text(redactor.authority(b"shop:80", End::Whole)), "shop:80");
        assert_eq!(text(redactor.authority(b"bob:secret@shop:80", End::Whole)), "REDACTED:REDACTED@shop:80");
        assert_eq!(text(redactor.authority(b"bob@x@shop", End::Whole)), "REDACTED:REDACTED@shop");
        assert_eq!(text(redactor.authority(b"bob:secr", End::Cut)), "REDACTED:REDACTED");
    }

    #[test]
    fn a_hash_tells_who_is_the_same_and_not_who_it_is() {
        let one = redactor(&["user"], &[Pattern::Emails], Some(b"one"));
        let other = redactor(&["user"], &[Pattern::Emails], Some(b"other"));
        let (a, b) = (
            text(one.text(b"bob@example.org", End::Whole)),
            text(one.query(b"user=bob@example.org&x&sig=y", End::Whole)),
        );
        // HMAC-SHA256 of `bob@example.org` with the key `one`, by another program.
        assert_eq!(a, "hmac-9a07d0191ef9fa19");
        assert_eq!(b, format!("user={a}&x&sig=REDACTED"));
        assert_ne!(a, text(other.text(b"bob@example.org", End::Whole)));
    }
}
