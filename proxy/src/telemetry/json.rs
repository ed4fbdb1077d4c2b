//! Writes JSON into a buffer, field by field, without a tree in between. For log lines and span files.
//!
//! Text may come from the network: control characters are escaped, bytes that are no UTF-8 become U+FFFD, and what is too long
//! is cut. The output is one line, whatever comes in. Keys are ours and need no escape; a key written twice is written twice.

use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use super::{print, timestamp};

/// An open object.
pub struct Object<'a> {
    out: &'a mut Vec<u8>,
    empty: bool,
}

/// An open list.
pub struct List<'a> {
    out: &'a mut Vec<u8>,
    empty: bool,
}

/// Appends one object; `fill` writes its fields.
pub fn object(out: &mut Vec<u8>, fill: impl FnOnce(&mut Object)) {
    out.push(b'{');
    fill(&mut Object { out, empty: true });
    out.push(b'}');
}

/// Appends one list; `fill` writes its items.
pub fn list(out: &mut Vec<u8>, fill: impl FnOnce(&mut List)) {
    out.push(b'[');
    fill(&mut List { out, empty: true });
    out.push(b']');
}

impl Object<'_> {
    pub fn text(&mut self, key: &'static str, value: &str) {
        self.key(key);
        write_text(self.out, value);
    }

    /// Bytes that should be text.
    pub fn bytes(&mut self, key: &'static str, value: &[u8]) {
        self.key(key);
        write_bytes(self.out, value);
    }

    /// As [`bytes`](Object::bytes), but at most about `limit` bytes of it, and then `…`.
    pub fn clipped(&mut self, key: &'static str, value: &[u8], limit: usize) {
        let Some(head) = value.get(..limit).filter(|head| head.len() < value.len()) else {
            return self.bytes(key, value);
        };
        self.key(key);
        write_bytes(self.out, whole_characters(head));
        self.out.pop(); // the closing quote
        self.out.extend_from_slice("…\"".as_bytes());
    }

    pub fn number(&mut self, key: &'static str, value: u64) {
        self.key(key);
        print::number(self.out, value);
    }

    pub fn integer(&mut self, key: &'static str, value: i64) {
        self.key(key);
        print::display(self.out, value);
    }

    /// `null` when it is not finite: JSON has no word for it.
    pub fn float(&mut self, key: &'static str, value: f64) {
        self.key(key);
        if value.is_finite() { print::display(self.out, value) } else { self.out.extend_from_slice(b"null") }
    }

    pub fn boolean(&mut self, key: &'static str, value: bool) {
        self.key(key);
        print::display(self.out, value);
    }

    pub fn null(&mut self, key: &'static str) {
        self.key(key);
        self.out.extend_from_slice(b"null");
    }

    pub fn time(&mut self, key: &'static str, value: SystemTime) {
        self.key(key);
        self.out.push(b'"');
        timestamp::write(self.out, value);
        self.out.push(b'"');
    }

    /// Seconds, to the nanosecond.
    pub fn seconds(&mut self, key: &'static str, value: Duration) {
        self.key(key);
        print::seconds(self.out, value);
    }

    /// An address and its port, as text.
    pub fn address(&mut self, key: &'static str, value: SocketAddr) {
        self.key(key);
        self.out.push(b'"');
        print::address(self.out, value);
        self.out.push(b'"');
    }

    /// A 64-bit number as text, as protobuf's JSON has it.
    pub fn quoted(&mut self, key: &'static str, value: u64) {
        self.key(key);
        self.out.push(b'"');
        print::number(self.out, value);
        self.out.push(b'"');
    }

    /// The digits of an id.
    pub fn id(&mut self, key: &'static str, digits: &[u8]) {
        debug_assert!(is_plain(digits));
        self.key(key);
        self.out.push(b'"');
        self.out.extend_from_slice(digits);
        self.out.push(b'"');
    }

    pub fn object(&mut self, key: &'static str, fill: impl FnOnce(&mut Object)) {
        self.key(key);
        object(self.out, fill);
    }

    pub fn list(&mut self, key: &'static str, fill: impl FnOnce(&mut List)) {
        self.key(key);
        list(self.out, fill);
    }

    fn key(&mut self, key: &'static str) {
        debug_assert!(is_plain(key.as_bytes()), "{key}");
        self.out.extend_from_slice(if std::mem::take(&mut self.empty) { b"\"" } else { b",\"" });
        self.out.extend_from_slice(key.as_bytes());
        self.out.extend_from_slice(b"\":");
    }
}

impl List<'_> {
    pub fn text(&mut self, value: &str) {
        self.next();
        write_text(self.out, value);
    }

    pub fn bytes(&mut self, value: &[u8]) {
        self.next();
        write_bytes(self.out, value);
    }

    pub fn number(&mut self, value: u64) {
        self.next();
        print::number(self.out, value);
    }

    pub fn object(&mut self, fill: impl FnOnce(&mut Object)) {
        self.next();
        object(self.out, fill);
    }

    /// The next item, for a caller who writes all of it: what stands in every span is written in as few pieces as can be.
    pub fn item(&mut self) -> &mut Vec<u8> {
        self.next();
        self.out
    }

    pub fn list(&mut self, fill: impl FnOnce(&mut List)) {
        self.next();
        list(self.out, fill);
    }

    fn next(&mut self) {
        if !std::mem::take(&mut self.empty) {
            self.out.push(b',');
        }
    }
}

/// Appends one text, with its quotes.
pub fn write_text(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    escape(out, text);
    out.push(b'"');
}

fn write_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    if let Ok(text) = std::str::from_utf8(bytes) {
        return write_text(out, text);
    }
    out.push(b'"');
    for chunk in bytes.utf8_chunks() {
        escape(out, chunk.valid());
        if !chunk.invalid().is_empty() {
            out.extend_from_slice("\u{FFFD}".as_bytes());
        }
    }
    out.push(b'"');
}

/// Copies stretches that need no escape in one piece. DEL and U+2028/2029 go escaped too: terminals and old readers.
fn escape(out: &mut Vec<u8>, text: &str) {
    let bytes = text.as_bytes();
    if is_plain(bytes) {
        return out.extend_from_slice(bytes);
    }
    let mut plain = 0;
    for (at, byte) in bytes.iter().enumerate() {
        let special = match byte {
            b'"' | b'\\' | 0..0x20 | 0x7F => 1,
            0xE2 if matches!(bytes.get(at + 1..at + 3), Some([0x80, 0xA8 | 0xA9])) => 3,
            _ => continue,
        };
        out.extend_from_slice(bytes.get(plain..at).unwrap_or_default());
        plain = at + special;
        match byte {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            0xE2 if bytes.get(at + 2) == Some(&0xA8) => out.extend_from_slice(b"\\u2028"),
            0xE2 => out.extend_from_slice(b"\\u2029"),
            control => {
                let digit = |nibble: u8| HEX.get(usize::from(nibble)).copied().unwrap_or(b'0');
                out.extend_from_slice(&[b'\\', b'u', b'0', b'0', digit(control >> 4), digit(control & 0xF)]);
            }
        }
    }
    out.extend_from_slice(bytes.get(plain..).unwrap_or_default());
}

/// Printable ASCII that needs no escape, as nearly all text is: eight bytes at a time, since most texts are short keys.
fn is_plain(bytes: &[u8]) -> bool {
    let (words, rest) = bytes.as_chunks();
    let found = words.iter().fold(0, |found, word| found | special(*word));
    let last = match (rest, bytes.last_chunk(), rest.first_chunk::<4>(), rest.last_chunk::<4>()) {
        ([], ..) => 0,
        // What is read twice is found twice.
        (_, Some(last), ..) => special(*last),
        (_, None, Some(&[a, b, c, d]), Some(&[w, x, y, z])) => special([a, b, c, d, w, x, y, z]),
        _ => rest.iter().fold(0, |found, &byte| found | special([byte; 8])),
    };
    (found | last) & (ONES << 7) == 0
}

/// The high bit of some byte is set if any of the eight is no ASCII, a control character, DEL, `"` or `\`. A byte that makes
/// the one after it borrow or carry is itself such a one, so the answer for all of them together is exact.
fn special(bytes: [u8; 8]) -> u64 {
    let word = u64::from_le_bytes(bytes);
    let control = word.wrapping_sub(ONES * 0x20);
    let delete = word.wrapping_add(ONES);
    let quote = (word ^ (ONES * u64::from(b'"'))).wrapping_sub(ONES);
    let backslash = (word ^ (ONES * u64::from(b'\\'))).wrapping_sub(ONES);
    word | control | delete | quote | backslash
}

/// Without the first bytes of a character that the cut went through. A character has at most three bytes after its first.
fn whole_characters(bytes: &[u8]) -> &[u8] {
    let first = bytes.iter().rev().take(4).position(|byte| byte & 0xC0 != 0x80);
    let Some(at) = first.map(|back| bytes.len() - 1 - back) else { return bytes };
    match bytes.split_at(at) {
        (head, tail) if std::str::from_utf8(tail).is_err_and(|error| error.error_len().is_none()) => head,
        _ => bytes,
    }
}

/// One in each byte of a word.
const ONES: u64 = u64::MAX / 0xFF;
const HEX: &[u8; 16] = b"0123456789abcdef";

/// Whatever the bytes, the line is one line of JSON, and says the same as a lossy conversion.
pub fn fuzz_json(data: &[u8]) {
    let mut out = Vec::new();
    object(&mut out, |line| {
        line.bytes("whole", data);
        line.clipped("part", data, data.len() / 2);
    });
    assert!(!out.iter().any(u8::is_ascii_control));
    assert!(std::str::from_utf8(&out).is_ok());
    assert!(whole_characters(data).len() + 3 >= data.len());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(fill: impl FnOnce(&mut Object)) -> String {
        let mut out = Vec::new();
        object(&mut out, fill);
        String::from_utf8(out).expect("UTF-8")
    }

    /// A JSON reader that no one here wrote: YAML is a superset of JSON for what we write, `\u` escapes included.
    fn read_back(text: &str) -> serde_yaml::Value {
        serde_yaml::from_str(text).unwrap_or_else(|why| panic!("{why}: {text}"))
    }

    #[test]
    fn all_kinds_of_values() {
        let text = line(|line| {
            line.text("a", "b");
            line.number("n", u64::MAX);
            line.integer("i", -1);
            line.float("f", 0.25);
            line.float("nan", f64::NAN);
            line.boolean("t", true);
            line.null("z");
            line.time("time", std::time::UNIX_EPOCH);
            line.object("o", |inner| inner.text("x", ""));
            line.list("l", |items| {
                items.number(1);
                items.text("2");
                items.bytes(b"3");
                items.list(|_| {});
                items.object(|_| {});
            });
        });
        assert_eq!(
            text,
            "{\"a\":\"b\",\"n\":18446744073709551615,\"i\":-1,\"f\":0.25,\"nan\":null,\"t\":true,\"z\":null,\
             \"time\":\"1970-01-01T00:00:00.000000Z\",\"o\":{\"x\":\"\"},\"l\":[1,\"2\",\"3\",[],{}]}"
        );
    }

    #[test]
    fn hostile_text_stays_one_line_and_one_value() {
        let hostile = "\"},\n\r\t\\\u{0}\u{1b}[31m\u{7f}\u{2028}\u{2029}é😀";
        let text = line(|line| line.text("text", hostile));
        assert!(text.is_ascii() || text.chars().all(|char| !char.is_control()));
        assert_eq!(text.lines().count(), 1);
        let value = read_back(&text);
        assert_eq!(value.as_mapping().and_then(|map| map.get("text")).and_then(|value| value.as_str()), Some(hostile));
        assert!(text.contains("\\u0000\\u001b[31m\\u007f\\u2028\\u2029é😀"));
    }

    #[test]
    fn what_needs_an_escape_is_found_wherever_it_stands() {
        for byte in 0..=u8::MAX {
            let plain = (0x20..0x7F).contains(&byte) && byte != b'"' && byte != b'\\';
            for length in 1..20 {
                for at in 0..length {
                    for around in [b' ', b'!', b'#', b'[', b']', b'~'] {
                        let mut text = vec![around; length];
                        text[at] = byte;
                        assert_eq!(is_plain(&text), plain, "{byte} at {at} of {length}");
                    }
                }
            }
        }
        assert!(is_plain(b""));
    }

    #[test]
    fn bytes_that_are_no_text_become_replacement_characters() {
        let text = line(|line| line.bytes("path", b"/a\xff\xc3/b\xe2\x80"));
        assert_eq!(text, "{\"path\":\"/a\u{FFFD}\u{FFFD}/b\u{FFFD}\"}");
    }

    #[test]
    fn long_text_is_cut_between_characters() {
        assert_eq!(line(|line| line.clipped("p", b"abcdef", 3)), "{\"p\":\"abc…\"}");
        assert_eq!(line(|line| line.clipped("p", b"abc", 3)), "{\"p\":\"abc\"}");
        assert_eq!(line(|line| line.clipped("p", "aé".as_bytes(), 2)), "{\"p\":\"a…\"}");
        assert_eq!(line(|line| line.clipped("p", "é😀x".as_bytes(), 5)), "{\"p\":\"é…\"}");
        assert_eq!(line(|line| line.clipped("p", "é😀x".as_bytes(), 6)), "{\"p\":\"é😀…\"}");
        assert_eq!(line(|line| line.clipped("p", b"\x80\x80\x80\x80\x80\x80", 5)).matches('\u{FFFD}').count(), 5);
        assert_eq!(line(|line| line.clipped("p", b"x", 0)), "{\"p\":\"…\"}");
    }

    #[test]
    fn any_bytes_give_one_line() {
        for first in 0..=255u8 {
            for second in [0, b'"', b'\\', 0x80, 0xA8, 0xE2, 0xFF] {
                fuzz_json(&[first, second]);
                fuzz_json(&[0xE2, 0x80, first, second]);
                fuzz_json(&[b'a', first, second, 0xF0, 0x9F]);
            }
        }
        fuzz_json(b"");
    }
}
