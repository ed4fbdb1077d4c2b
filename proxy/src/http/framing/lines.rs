//! Lines of HTTP/1.1, put together over the pieces that they come in, and the few grammars that frame messages.

use std::borrow::Cow;

/// Holds a line's beginning while its end has not come.
#[derive(Debug, Default)]
pub struct Lines {
    begun: Vec<u8>,
}

pub enum Line {
    /// Its LF has come: take it.
    Whole,
    Partial,
    TooLong,
}

impl Lines {
    /// Moves `rest` behind the next line, or to its own end.
    pub fn next(&mut self, rest: &mut &[u8], limit: usize) -> Line {
        let bytes = *rest;
        let room = limit.saturating_sub(self.begun.len());
        match memchr::memchr(b'\n', bytes.get(..room).unwrap_or(bytes)) {
            Some(at) => {
                *rest = bytes.get(at + 1..).unwrap_or_default();
                Line::Whole
            }
            None if bytes.len() >= room => Line::TooLong,
            None => {
                self.begun.extend_from_slice(bytes);
                *rest = &[];
                Line::Partial
            }
        }
    }

    /// The line that was found: what had begun, and `before` up to `rest`.
    pub fn take<'a>(&mut self, before: &'a [u8], rest: &[u8]) -> Cow<'a, [u8]> {
        let end = before.get(..before.len() - rest.len()).unwrap_or_default();
        if self.begun.is_empty() {
            return Cow::Borrowed(end);
        }
        self.begun.extend_from_slice(end);
        Cow::Owned(std::mem::take(&mut self.begun))
    }

    /// A line's memory, for the next one.
    pub fn give_back(&mut self, line: Cow<'_, [u8]>) {
        if let Cow::Owned(mut line) = line {
            line.clear();
            self.begun = line;
        }
    }

    /// An idle connection holds nothing.
    pub fn free(&mut self) {
        self.begun = Vec::new();
    }
}

/// The value of a line if it is a field of this name, without the white space around it.
pub fn value<'a>(line: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let (found, rest) = line.split_at_checked(name.len())?;
    match rest.split_first() {
        Some((b':', value)) if found.eq_ignore_ascii_case(name) => Some(trim(value)),
        _ => None,
    }
}

fn trim(mut bytes: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = bytes {
        bytes = rest;
    }
    bytes
}

/// RFC 9110 §8.6: digits, and nothing else. §8.6 also asks to expect lengths that overflow: many readers, the engine's
/// HTTP/2 among them, take no more than 63 bits.
pub fn length(value: &[u8]) -> Option<u64> {
    let digits = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
    let length: u64 = digits.then(|| std::str::from_utf8(value).ok()?.parse().ok()).flatten()?;
    i64::try_from(length).is_ok().then_some(length)
}

/// RFC 9112 §7.1: a chunk's first line without its end, as its size and how long its extensions are. §7.1 asks to expect
/// sizes that overflow, which for a reader with a sign begins at 63 bits.
pub fn chunk_size(line: &[u8]) -> Option<(u64, usize)> {
    let digits = line.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
    let (size, extensions) = line.split_at_checked(digits)?;
    if digits == 0 || digits > SIZE_DIGITS {
        return None;
    }
    let size = u64::from_str_radix(std::str::from_utf8(size).ok()?, 16).ok()?;
    i64::try_from(size).ok()?;
    (extensions.is_empty() || is_extensions(extensions)).then_some((size, extensions.len()))
}

/// §7.1.1. Read no further than that nobody could see another end of the line in it: visible text, and quotes that close.
fn is_extensions(bytes: &[u8]) -> bool {
    let mut quoted = false;
    let mut escaped = false;
    for byte in bytes {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            _ => {}
        }
        if (*byte < b' ' && *byte != b'\t') || *byte == 0x7f {
            return false;
        }
    }
    !quoted && trim(bytes).starts_with(b";")
}

/// RFC 9112 §5: a name, a colon without anything before it, and visible text.
pub fn is_field(line: &[u8]) -> bool {
    let name = line.iter().take_while(|byte| is_token(**byte)).count();
    match line.split_at_checked(name) {
        Some((_, [b':', value @ ..])) if name > 0 => {
            value.iter().all(|byte| (*byte >= b' ' && *byte != 0x7f) || *byte == b'\t')
        }
        _ => false,
    }
}

/// RFC 9110 §5.6.2.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// Sixteen fill 64 bits; more are read differently by who counts digits and by who counts value.
const SIZE_DIGITS: usize = 16;
