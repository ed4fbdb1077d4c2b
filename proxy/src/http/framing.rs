//! Follows what an HTTP/1.1 peer sends beside the engine, from message to message, and tells what the engine hides: it
//! takes a bare LF for the end of a line, drops `Content-Length` beside `Transfer-Encoding`, folds equal lengths, cuts
//! fragments off targets, and reads over what is strange in a chunk's first line. What two parsers could read differently
//! is marked with the number of its message (`data_path` refuses that request), and a body that turns out to be so while
//! it flows ends at that byte.
//!
//! ```text
//!   Line ──field──▶ Fields ──empty line──▶ Length ──▶ Line          (or at once Line, without a body)
//!                                      └─▶ Size ──▶ Data ──▶ End ──▶ Size … ──0──▶ Trailers ──▶ Line
//!   anything ambiguous ──▶ Lost: nothing is followed any more
//! ```
//!
//! It does not check what the engine refuses by itself, and it knows nothing of fields but those that frame.

pub mod answers;
pub mod fields;
mod lines;

use lines::{Line, Lines};

use crate::limit::Limit;

/// Where an HTTP/1.1 client is in its messages.
#[derive(Debug)]
pub struct Requests {
    place: Place,
    lines: Lines,
    head: Head,
    /// The message that is under way, from 1.
    number: u64,
    /// The first that has asked for another protocol and may yet get it: what follows may be that.
    switch: Option<u64>,
    /// Bytes of chunk extensions in the body under way.
    extensions: usize,
    /// What ended it was too much of something.
    over: Option<Limit>,
    /// How long a line of a head may grow: as long as the engine lets a head be.
    head_line: usize,
}

/// What stands in the way of one reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ambiguous {
    /// The message, from 1.
    pub number: u64,
    /// Where in the bytes; what is before it is sound. `None` where the whole message is to be refused at its head.
    pub body_from: Option<usize>,
    /// It is not ambiguous but too much.
    pub over: Option<Limit>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// Before or in a request line.
    Line {
        empty: u32,
    },
    Fields,
    Length(u64),
    Size,
    Data(u64),
    /// Behind a chunk's data.
    End,
    Trailers,
    Lost,
}

/// What a head says about its body.
#[derive(Debug, Default)]
struct Head {
    length: Option<u64>,
    chunked: bool,
    ambiguous: bool,
    may_switch: bool,
}

impl Requests {
    pub fn new(head_line: usize) -> Self {
        Self {
            place: Place::Line { empty: 0 },
            lines: Lines::default(),
            head: Head::default(),
            number: 1,
            switch: None,
            extensions: 0,
            over: None,
            head_line,
        }
    }

    /// The engine has handed out so many: what they asked for before the last one is decided, and was refused.
    pub fn began(&mut self, requests: u64) {
        self.switch = self.switch.filter(|asked| requests <= *asked);
    }

    /// Takes what came next. After the first ambiguity there is nothing more to tell.
    pub fn take(&mut self, bytes: &[u8]) -> Option<Ambiguous> {
        let mut rest = bytes;
        while !rest.is_empty() {
            let before = rest;
            let sound = match self.place {
                Place::Lost => return None,
                Place::Length(left) => {
                    rest = self.pass(left, rest, Place::Length);
                    true
                }
                Place::Data(left) => {
                    rest = self.pass(left, rest, Place::Data);
                    true
                }
                _ => match self.lines.next(&mut rest, self.limit()) {
                    Line::Whole => {
                        let line = self.lines.take(before, rest);
                        let sound = self.line(&line);
                        self.lines.give_back(line);
                        sound
                    }
                    Line::Partial => true,
                    Line::TooLong => {
                        self.over = match self.place {
                            Place::Size => Some(Limit::ChunkExtensions),
                            Place::Trailers => Some(Limit::Trailers),
                            _ => None,
                        };
                        false
                    }
                },
            };
            if !sound {
                return self.lost(bytes.len() - before.len());
            }
        }
        None
    }

    fn limit(&self) -> usize {
        match self.place {
            Place::Size => SIZE_LINE,
            Place::End => 2,
            _ => self.head_line,
        }
    }

    fn pass<'a>(&mut self, left: u64, bytes: &'a [u8], place: fn(u64) -> Place) -> &'a [u8] {
        let passed = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
        let left = left - passed as u64;
        match (left, self.place) {
            (0, Place::Data(_)) => self.place = Place::End,
            (0, _) => self.next_message(),
            _ => self.place = place(left),
        }
        bytes.get(passed..).unwrap_or_default()
    }

    /// One line with its end. False when it can be read in two ways.
    fn line(&mut self, line: &[u8]) -> bool {
        let Some(line) = line.strip_suffix(b"\r\n") else { return false };
        match self.place {
            Place::Line { empty } if line.is_empty() => {
                self.place = Place::Line { empty: empty + 1 };
                empty < EMPTY_LINES
            }
            Place::Line { .. } => {
                self.place = Place::Fields;
                self.head = Head { may_switch: line.starts_with(b"CONNECT "), ..Head::default() };
                // RFC 9112 §3.2: no form of a target has a fragment; the engine would cut it off.
                !line.contains(&b'#')
            }
            Place::Fields if line.is_empty() => self.head_over(),
            Place::Fields => {
                self.head.field(line);
                true
            }
            Place::Size => {
                let Some((size, extensions)) = lines::chunk_size(line) else { return false };
                self.extensions += extensions;
                self.place = if size == 0 { Place::Trailers } else { Place::Data(size) };
                if self.extensions > EXTENSIONS {
                    self.over = Some(Limit::ChunkExtensions);
                }
                self.over.is_none()
            }
            Place::End => {
                self.place = Place::Size;
                line.is_empty()
            }
            Place::Trailers if line.is_empty() => {
                self.next_message();
                true
            }
            Place::Trailers => lines::is_field(line),
            Place::Length(_) | Place::Data(_) | Place::Lost => true,
        }
    }

    fn head_over(&mut self) -> bool {
        let Head { length, chunked, ambiguous, may_switch } = self.head;
        // RFC 9112 §6.1: chunks and a length in one message are an attack until proven otherwise.
        if ambiguous || chunked && length.is_some() {
            return false;
        }
        match length {
            _ if chunked => self.place = Place::Size,
            Some(left) if left > 0 => self.place = Place::Length(left),
            _ => {
                // With a content nothing is switched (`headers`).
                self.switch = self.switch.or(may_switch.then_some(self.number));
                self.next_message();
            }
        }
        true
    }

    fn next_message(&mut self) {
        self.place = Place::Line { empty: 0 };
        self.extensions = 0;
        self.number += 1;
        self.lines.free();
    }

    fn lost(&mut self, at: usize) -> Option<Ambiguous> {
        let in_head = matches!(self.place, Place::Line { .. } | Place::Fields);
        self.place = Place::Lost;
        self.lines.free();
        let over = self.over;
        // What looks strange behind a request for another protocol may be that protocol. If the switch was refused,
        // it is a request, and is met at its head.
        let body_from = (!in_head && self.switch.is_none()).then_some(at);
        Some(Ambiguous { number: self.number, body_from, over })
    }
}

impl Head {
    fn field(&mut self, line: &[u8]) {
        // Most lines are told by their first byte.
        match line.first().map(u8::to_ascii_lowercase) {
            Some(b'c') => {
                if let Some(value) = lines::value(line, b"content-length") {
                    match lines::length(value) {
                        Some(length) if self.length.is_none_or(|known| known == length) => self.length = Some(length),
                        _ => self.ambiguous = true,
                    }
                }
            }
            Some(b't') => {
                if let Some(value) = lines::value(line, b"transfer-encoding") {
                    // RFC 9112 §7.1: chunked is applied once, and a coding that is unknown here cannot be passed on.
                    self.ambiguous |= self.chunked || !value.eq_ignore_ascii_case(b"chunked");
                    self.chunked = true;
                }
            }
            Some(b'u') => self.may_switch |= lines::value(line, b"upgrade").is_some(),
            // RFC 9112 §5.2: a line that goes on from the last one.
            Some(b' ' | b'\t') => self.ambiguous = true,
            _ => {}
        }
    }
}

/// RFC 9112 §2.2 forgives one before a request line; two have been seen behind a body of old browsers.
const EMPTY_LINES: u32 = 2;
/// A chunk's first line, and all extensions of a body together. Nobody is known to use them for anything but attacks.
const SIZE_LINE: usize = 1024;
const EXTENSIONS: usize = 4096;

const FUZZED: usize = 256;

/// However the bytes are cut, they tell the same; and nothing is told twice.
pub fn fuzz_requests(bytes: &[u8]) {
    let (mut whole, mut piecewise) = (Requests::new(FUZZED), Requests::new(FUZZED));
    let at_once = whole.take(bytes);
    assert_eq!(whole.take(bytes).and(at_once), None, "told twice");
    let mut in_bytes = None;
    for (at, byte) in bytes.iter().enumerate() {
        let told = piecewise.take(std::slice::from_ref(byte));
        assert!(told.is_none() || in_bytes.is_none(), "told twice");
        in_bytes = in_bytes.or(told.map(|told| (at, told)));
    }
    assert_eq!(at_once.map(|told| told.number), in_bytes.map(|(_, told)| told.number));
    assert_eq!(at_once.map(|told| told.body_from.is_some()), in_bytes.map(|(_, told)| told.body_from.is_some()));
    if let (Some(told), Some((at, _))) = (at_once, in_bytes) {
        assert!(told.body_from.is_none_or(|from| from <= at), "a sound byte is not let through");
    }
    answers::fuzz_answers(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The number of the first message that is ambiguous; in one piece, and byte by byte.
    fn first(bytes: &str) -> Option<u64> {
        fuzz_requests(bytes.as_bytes());
        Requests::new(FUZZED).take(bytes.as_bytes()).map(|told| told.number)
    }

    #[test]
    fn messages_are_counted_over_their_bodies() {
        let sound = "\r\nPOST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\n\n\n\n\
                     POST / HTTP/1.1\r\ntransfer-encoding:  Chunked \r\n\r\n\
                     5;a=\"b;\\\"c\" ; d\r\n\n\n\n\n\n\r\n000\r\nX: y\r\n\r\n\
                     GET / HTTP/1.1\r\ncontent-length: 0\r\n\r\n";
        assert_eq!(first(sound), None);
        assert_eq!(first(&format!("{sound}GET / HTTP/1.1\n\n")), Some(4));
    }

    #[test]
    fn what_frames_a_message_twice_is_ambiguous() {
        for fields in [
            "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n",
            "Transfer-Encoding: chunked\r\nContent-Length: 3\r\n",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
            "Transfer-Encoding: gzip, chunked\r\n",
            "Transfer-Encoding: \r\n",
            "Content-Length: 3\r\nContent-Length: 4\r\n",
            "Content-Length: 3, 3\r\n",
            "Content-Length: +3\r\n",
            "Content-Length:\r\n",
            "Content-Length: 18446744073709551616\r\n",
            "Content-Length: 9223372036854775808\r\n",
            "X: y\r\n z\r\n",
            "X: y\n",
        ] {
            assert_eq!(first(&format!("POST / HTTP/1.1\r\n{fields}\r\n")), Some(1), "{fields:?}");
        }
        assert_eq!(first("POST / HTTP/1.1\r\nContent-Length: 3\r\nContent-Length: 03\r\n\r\n"), None);
        assert_eq!(first("GET /#x HTTP/1.1\r\n\r\n"), Some(1));
        assert_eq!(first("\r\n\r\n\r\nGET / HTTP/1.1\r\n\r\n"), Some(1));
    }

    #[test]
    fn a_body_ends_where_its_chunks_become_ambiguous() {
        let head = "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n";
        for (sound, rest) in [
            ("", "5 \r\nhello\r\n"),
            ("", " 5\r\nhello\r\n"),
            ("", "0x5\r\nhello\r\n"),
            ("", "+5\r\nhello\r\n"),
            ("", "-5\r\nhello\r\n"),
            ("", "\r\nhello\r\n"),
            ("", "5\nhello\r\n"),
            ("", "5;a\nhello\r\n"),
            ("", "5;a=\"b\r\nhello\r\n"),
            ("", "5;a\0\r\nhello\r\n"),
            ("", "00000000000000005\r\nhello\r\n"),
            ("5\r\nhello", "0\r\n\r\n"),
            ("5\r\nhello", "\n0\r\n\r\n"),
            ("0\r\n", "X: y\n\r\n"),
            ("0\r\n", " X: y\r\n\r\n"),
            ("0\r\n", "X : y\r\n\r\n"),
            ("0\r\n", "no colon\r\n\r\n"),
        ] {
            let bytes = format!("{head}{sound}{rest}");
            fuzz_requests(bytes.as_bytes());
            let told = Requests::new(FUZZED).take(bytes.as_bytes());
            let body_from = Some(head.len() + sound.len());
            assert_eq!(told, Some(Ambiguous { number: 1, body_from, over: None }), "{sound:?} {rest:?}");
        }
    }

    #[test]
    fn extensions_have_their_limit() {
        let chunk = |extension: usize| format!("1;{}\r\nx\r\n", "e".repeat(extension));
        let body = |chunks: &str| first(&format!("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}"));
        assert_eq!(body(&chunk(SIZE_LINE - 4)), None);
        assert_eq!(body(&chunk(SIZE_LINE)), Some(1));
        assert_eq!(body(&chunk(500).repeat(8)), None);
        assert_eq!(body(&chunk(500).repeat(9)), Some(1));
    }

    #[test]
    fn what_follows_a_request_for_another_protocol_breaks_nothing() {
        for head in ["CONNECT a:1 HTTP/1.1\r\n\r\n", "GET / HTTP/1.1\r\nUpgrade: x\r\n\r\n"] {
            let tunnelled = format!("{head}POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5 \r\n");
            let told = Requests::new(FUZZED).take(tunnelled.as_bytes());
            assert_eq!(told, Some(Ambiguous { number: 2, body_from: None, over: None }));
        }
    }

    #[test]
    fn a_switch_that_was_refused_or_cannot_be_made_hides_no_body() {
        let post = "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n";
        let mut requests = Requests::new(FUZZED);
        assert_eq!(requests.take(b"GET / HTTP/1.1\r\nUpgrade: x\r\n\r\n"), None);
        requests.began(1);
        assert_eq!(requests.take(format!("{post}\r\n").as_bytes()), None);
        requests.began(2);
        let told = requests.take(b"5;a\nhello\r\n");
        assert_eq!(told, Some(Ambiguous { number: 2, body_from: Some(0), over: None }));
        let head = format!("{post}Upgrade: x\r\n\r\n");
        let told = Requests::new(FUZZED).take(format!("{head}5;a\nhello\r\n").as_bytes());
        assert_eq!(told, Some(Ambiguous { number: 1, body_from: Some(head.len()), over: None }));
    }
}
