//! One request after the other on an HTTP/1.1 connection; status, length and every byte of the answer are checked.

use super::{Client, Tally};
use crate::origin::http1::{SMALL, head_length, number, value};
use crate::output::Output;
use crate::{Broken, pattern};

pub struct Http1 {
    request: Vec<u8>,
    /// A body that is made while it is sent.
    run: u64,
    /// How long the answer must be.
    wanted: u64,
    /// Whether the bytes of the answer are counted, and not only the answers.
    counts: bool,
    closes: bool,
    head: Vec<u8>,
    state: State,
}

enum State {
    Free,
    Head { due: u64 },
    Body { due: u64, offset: u64 },
    Over,
}

impl Http1 {
    pub fn get() -> Self {
        Self::new("GET /small", "")
    }

    pub fn close() -> Self {
        Self { closes: true, ..Self::new("GET /small", "Connection: close\r\n") }
    }

    pub fn post() -> Self {
        let mut post = Self::new("POST /post", &format!("Content-Length: {POST}\r\n"));
        post.request.extend_from_slice(pattern::at(0, POST));
        post
    }

    pub fn down(size: u64) -> Self {
        Self { wanted: size, counts: true, ..Self::new(&format!("GET /bytes/{size}"), "") }
    }

    pub fn up(size: u64) -> Self {
        Self { run: size, ..Self::new("POST /up", &format!("Content-Length: {size}\r\n")) }
    }

    fn new(line: &str, fields: &str) -> Self {
        let request = format!("{line} HTTP/1.1\r\nHost: localhost\r\nUser-Agent: bench\r\nAccept: */*\r\n{fields}\r\n");
        Self {
            request: request.into_bytes(),
            run: 0,
            wanted: SMALL as u64,
            counts: false,
            closes: false,
            head: Vec::new(),
            state: State::Free,
        }
    }

    /// The head of an answer: its status and its length must be what was asked for.
    fn check(&self, head: &[u8]) -> Result<(), Broken> {
        let mut lines = head.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
        let first = lines.next().unwrap_or_default();
        if !first.starts_with(b"HTTP/1.1 200") {
            return Err(format!("answered {}", String::from_utf8_lossy(first)));
        }
        match lines.find_map(|line| value(line, b"content-length")).and_then(number) {
            Some(length) if length == self.wanted => Ok(()),
            other => Err(format!("a content-length of {other:?}")),
        }
    }
}

impl Client for Http1 {
    fn free(&self) -> usize {
        usize::from(matches!(self.state, State::Free))
    }

    fn ask(&mut self, due: u64, out: &mut Output) {
        out.bytes().extend_from_slice(&self.request);
        if self.run > 0 {
            out.pattern(self.run);
        }
        self.state = State::Head { due };
    }

    fn receive(&mut self, mut input: &[u8], _: &mut Output, tally: &mut Tally) -> Result<(), Broken> {
        while !input.is_empty() {
            match self.state {
                State::Free | State::Over => return Err("bytes that nobody asked for".to_owned()),
                State::Head { due } => {
                    let before = self.head.len();
                    let length = if before == 0 {
                        head_length(input).map(|length| self.check(&input[..length]).map(|()| length))
                    } else {
                        None
                    };
                    input = match length {
                        Some(length) => &input[length?..],
                        None => {
                            self.head.extend_from_slice(input);
                            let Some(length) = head_length(&self.head) else { return Ok(()) };
                            let head = std::mem::take(&mut self.head);
                            self.check(&head[..length])?;
                            &input[length - before..]
                        }
                    };
                    self.state = State::Body { due, offset: 0 };
                }
                State::Body { due, offset } => {
                    let (piece, rest) = input.split_at((self.wanted - offset).min(input.len() as u64) as usize);
                    if !pattern::matches(offset, piece) {
                        return Err(format!("wrong bytes after {offset}"));
                    }
                    input = rest;
                    let offset = offset + piece.len() as u64;
                    if self.counts {
                        tally.bytes += piece.len() as u64;
                    }
                    self.state = State::Body { due, offset };
                    if offset == self.wanted {
                        tally.done(due);
                        self.state = if self.closes { State::Over } else { State::Free };
                    }
                }
            }
        }
        Ok(())
    }

    fn is_over(&self) -> bool {
        matches!(self.state, State::Over)
    }
}

const POST: usize = 16 * 1024;
