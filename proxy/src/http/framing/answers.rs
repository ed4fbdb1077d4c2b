//! The heads of an HTTP/1.1 origin's answers, read beside the engine, which takes a bare LF for the end of a line and
//! skips empty ones. An origin's bytes are looked at from when a request goes out to the end of its answer's head: what
//! follows is a body, which the engine reads strictly, or another protocol.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::lines::{Line, Lines};
use crate::meters::Informed;

/// Shared with who sends requests on the connection.
#[derive(Clone, Debug, Default)]
pub struct Awaited(Arc<AtomicBool>);

impl Awaited {
    /// A request goes out: the next bytes are a head.
    pub fn await_head(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    fn is_awaited(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    fn came(&self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

/// An origin's socket. Reading from it fails with `InvalidData` where an answer's head can be read in two ways. Interim
/// answers, which are not forwarded, are counted here.
pub struct Answering<T> {
    io: T,
    awaited: Awaited,
    heads: Heads,
    informed: Informed,
}

impl<T> Answering<T> {
    /// `head_line`: as long as the engine lets a head be.
    pub fn new(io: T, awaited: Awaited, head_line: usize, informed: Informed) -> Self {
        Self { io, awaited, heads: Heads::new(head_line), informed }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Answering<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.io).poll_read(cx, buffer);
        let bytes = buffer.filled().get(before..).unwrap_or_default();
        if bytes.is_empty() || !self.awaited.is_awaited() {
            return polled;
        }
        let this = &mut *self;
        match this.heads.take(bytes, |interim| match interim {
            Interim::EarlyHints => this.informed.early_hints(),
            Interim::Other => this.informed.others(),
            Interim::Continue => {}
        }) {
            Heard::More => polled,
            Heard::Head => {
                self.awaited.came();
                polled
            }
            Heard::Ambiguous => {
                buffer.set_filled(before);
                Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, "the head of an answer is ambiguous")))
            }
        }
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Answering<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, buffers)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}

/// The heads that answer one request: interim ones, and the last.
#[derive(Debug)]
struct Heads {
    lines: Lines,
    head_line: usize,
    /// The status line has come; of an interim head, which.
    status: Option<Option<Interim>>,
}

/// A head before the last. The switch to another protocol is none: it ends what is read here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Interim {
    /// The client is told, if it waits for that.
    Continue,
    EarlyHints,
    Other,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Heard {
    More,
    /// The last head is over.
    Head,
    Ambiguous,
}

impl Heads {
    fn new(head_line: usize) -> Self {
        Self { lines: Lines::default(), head_line, status: None }
    }

    fn take(&mut self, bytes: &[u8], mut tell: impl FnMut(Interim)) -> Heard {
        let mut rest = bytes;
        while !rest.is_empty() {
            let before = rest;
            match self.lines.next(&mut rest, self.head_line) {
                Line::Whole => {}
                Line::Partial => return Heard::More,
                Line::TooLong => return Heard::Ambiguous,
            }
            let line = self.lines.take(before, rest);
            let Some(text) = line.strip_suffix(b"\r\n") else { return Heard::Ambiguous };
            match (self.status, text.first()) {
                // RFC 9112 §2.2 forgives empty lines to clients only: here one is what is left of an earlier answer.
                (None, None) => return Heard::Ambiguous,
                (None, Some(_)) => self.status = Some(interim(text)),
                (Some(interim), None) => {
                    self.status = None;
                    self.lines.free();
                    let Some(interim) = interim else { return Heard::Head };
                    tell(interim);
                    continue;
                }
                (Some(_), Some(b' ' | b'\t')) => return Heard::Ambiguous,
                (Some(_), Some(_)) => {}
            }
            self.lines.give_back(line);
        }
        Heard::More
    }
}

/// Of `HTTP/1.1 1xx`.
fn interim(line: &[u8]) -> Option<Interim> {
    match line.get(VERSION..)?.first_chunk()? {
        b"100" => Some(Interim::Continue),
        b"101" => None,
        b"103" => Some(Interim::EarlyHints),
        [b'1', ..] => Some(Interim::Other),
        [_, _, _] => None,
    }
}

const VERSION: usize = b"HTTP/1.1 ".len();

const FUZZED: usize = 256;

/// However the bytes are cut, they tell the same.
pub fn fuzz_answers(bytes: &[u8]) {
    let (mut whole, mut piecewise) = (Heads::new(FUZZED), Heads::new(FUZZED));
    let (mut told, mut told_in_bytes) = (Vec::new(), Vec::new());
    let at_once = whole.take(bytes, |interim| told.push(interim));
    let mut one_by_one =
        bytes.iter().map(|byte| piecewise.take(std::slice::from_ref(byte), |interim| told_in_bytes.push(interim)));
    let in_bytes = one_by_one.find(|heard| *heard != Heard::More).unwrap_or(Heard::More);
    assert_eq!((at_once, told), (in_bytes, told_in_bytes));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(bytes: &str) -> Heard {
        fuzz_answers(bytes.as_bytes());
        Heads::new(FUZZED).take(bytes.as_bytes(), |_| {})
    }

    #[test]
    fn an_answer_is_heard_to_the_end_of_its_head() {
        assert_eq!(heard("HTTP/1.1 200 OK\r\nA: b\r\n"), Heard::More);
        assert_eq!(heard("HTTP/1.1 200 OK\r\nA: b\r\n\r\n\n\n"), Heard::Head);
        assert_eq!(heard("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early\r\nA: b\r\n\r\n"), Heard::More);
        assert_eq!(heard("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204\r\n\r\n"), Heard::Head);
        assert_eq!(heard("HTTP/1.1 101 Switching\r\n\r\n\n"), Heard::Head);
    }

    #[test]
    fn interim_heads_are_told_by_their_kind() {
        let mut told = Vec::new();
        let bytes =
            "HTTP/1.1 103 Early\r\nA: b\r\n\r\nHTTP/1.1 102 \r\n\r\nHTTP/1.1 100 \r\n\r\nHTTP/1.1 200 OK\r\n\r\n";
        assert_eq!(Heads::new(FUZZED).take(bytes.as_bytes(), |interim| told.push(interim)), Heard::Head);
        assert_eq!(told, [Interim::EarlyHints, Interim::Other, Interim::Continue]);
        assert_eq!((interim(b"HTTP/1.1 1"), interim(b"HTTP/1.1"), interim(b"HTTP/1.1 200")), (None, None, None));
    }

    #[test]
    fn what_could_end_elsewhere_is_ambiguous() {
        for bytes in [
            "HTTP/1.1 200 OK\nA: b\r\n\r\n",
            "HTTP/1.1 200 OK\r\nA: b\n\r\n",
            "HTTP/1.1 200 OK\r\nA: b\r\n\n",
            "HTTP/1.1 200 OK\r\nA: b\r\n c\r\n\r\n",
            "\r\nHTTP/1.1 200 OK\r\n\r\n",
            "HTTP/1.1 100 Continue\r\n\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
        ] {
            assert_eq!(heard(bytes), Heard::Ambiguous, "{bytes:?}");
        }
    }
}
