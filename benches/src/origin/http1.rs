//! `GET /small` is 128 bytes, `GET /bytes/N` is N; whatever is sent with a length is compared with the pattern.

use super::Server;
use crate::output::Output;
use crate::{Broken, pattern};

#[derive(Default)]
pub struct Http1 {
    head: Vec<u8>,
    body: Option<Body>,
    closes: bool,
}

struct Body {
    offset: u64,
    left: u64,
    right: bool,
}

impl Server for Http1 {
    fn receive(&mut self, mut input: &[u8], out: &mut Output) -> Result<(), Broken> {
        while !input.is_empty() {
            input = match self.body.take() {
                Some(body) => self.body(body, input, out),
                None => self.heads(input, out)?,
            };
        }
        Ok(())
    }

    fn closes(&self) -> bool {
        self.closes && self.body.is_none()
    }
}

impl Http1 {
    fn heads<'a>(&mut self, input: &'a [u8], out: &mut Output) -> Result<&'a [u8], Broken> {
        if self.head.is_empty()
            && let Some(length) = head_length(input)
        {
            self.answer(&input[..length], out)?;
            return Ok(&input[length..]);
        }
        let before = self.head.len();
        self.head.extend_from_slice(input);
        let Some(length) = head_length(&self.head) else { return Ok(&[]) };
        let head = std::mem::take(&mut self.head);
        self.answer(&head[..length], out)?;
        Ok(&input[length - before..])
    }

    fn answer(&mut self, head: &[u8], out: &mut Output) -> Result<(), Broken> {
        let mut lines = head.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
        let path = lines.next().and_then(|line| line.split(|byte| *byte == b' ').nth(1)).unwrap_or_default();
        let mut length = 0;
        for line in lines {
            if let Some(value) = value(line, b"content-length") {
                length = number(value).ok_or("a content-length that is no number")?;
            } else if value(line, b"transfer-encoding").is_some() {
                return Err("a chunked request: the length that was sent got lost".to_owned());
            } else if value(line, b"connection").is_some_and(|value| value.eq_ignore_ascii_case(b"close")) {
                self.closes = true;
            }
        }
        if length > 0 {
            self.body = Some(Body { offset: 0, left: length, right: true });
        } else if let Some(length) = path.strip_prefix(b"/bytes/").and_then(number) {
            let head = format!("HTTP/1.1 200 OK\r\nContent-Type: {TYPE}\r\nContent-Length: {length}\r\n\r\n");
            out.bytes().extend_from_slice(head.as_bytes());
            out.pattern(length);
        } else {
            small(out);
        }
        Ok(())
    }

    fn body<'a>(&mut self, mut body: Body, input: &'a [u8], out: &mut Output) -> &'a [u8] {
        let (piece, rest) = input.split_at(body.left.min(input.len() as u64) as usize);
        body.right &= pattern::matches(body.offset, piece);
        body.offset += piece.len() as u64;
        body.left -= piece.len() as u64;
        match (body.left, body.right) {
            (0, true) => small(out),
            (0, false) => out.bytes().extend_from_slice(b"HTTP/1.1 500 Wrong body\r\nContent-Length: 0\r\n\r\n"),
            _ => self.body = Some(body),
        }
        rest
    }
}

fn small(out: &mut Output) {
    let bytes = out.bytes();
    bytes.extend_from_slice(SMALL_HEAD);
    bytes.extend_from_slice(pattern::at(0, SMALL));
}

pub fn head_length(input: &[u8]) -> Option<usize> {
    input.windows(4).position(|end| end == b"\r\n\r\n").map(|at| at + 4)
}

pub fn value<'a>(line: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let (before, after) = line.split_at_checked(name.len())?;
    let value = after.strip_prefix(b":")?;
    before.eq_ignore_ascii_case(name).then(|| value.trim_ascii())
}

pub fn number(text: &[u8]) -> Option<u64> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// Bytes of a small body.
pub const SMALL: usize = 128;
const TYPE: &str = "application/octet-stream";
const SMALL_HEAD: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\nContent-Length: 128\r\n\r\n";
