//! The client's socket, watched: how much goes over it, and whether what came last is the beginning of a head. Over
//! HTTP/1 every byte is, while no request is open; over HTTP/2 the frames tell (RFC 9113 §4.1), of which this reads no
//! more than where they end: what they mean, and whether they may come, the engine knows, but for the first one, which
//! has to be the client's SETTINGS (§3.4): the engine takes any. HTTP/1 is followed for what the engine would hide:
//! `framing` tells, and a body that can be read in two ways ends here.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::client::MIN_BUFFER;
use super::framing::{Ambiguous, Requests};
use crate::connection::{Connection, Seen};

pub struct Watched<T> {
    io: T,
    seen: Arc<Seen>,
    spoken: Spoken,
}

enum Spoken {
    Http1(Requests),
    /// What comes must not reach the engine, and this is why.
    Broken(&'static str),
    Http2(Frames),
}

impl<T> Watched<T> {
    pub fn http1(io: T, connection: &Connection) -> Self {
        let head_line = connection.worker.limits.header_bytes.max(MIN_BUFFER);
        Self { io, seen: connection.seen(), spoken: Spoken::Http1(Requests::new(head_line)) }
    }

    pub fn http2(io: T, connection: &Connection) -> Self {
        let seen = connection.seen();
        seen.reading(true);
        Self { io, seen, spoken: Spoken::Http2(Frames::default()) }
    }
}

impl<T: Unpin> Watched<T> {
    /// How many of these bytes are sound.
    fn read(&mut self, bytes: &[u8]) -> usize {
        match &mut self.spoken {
            Spoken::Http1(requests) => {
                self.seen.reading(true);
                if self.seen.has_switched() {
                    return bytes.len();
                }
                let Some(Ambiguous { number, body_from }) = requests.take(bytes) else { return bytes.len() };
                self.seen.ambiguous(number);
                if body_from.is_some() {
                    self.spoken = Spoken::Broken("the framing of a body is ambiguous");
                }
                body_from.unwrap_or(bytes.len())
            }
            Spoken::Broken(_) => 0,
            Spoken::Http2(frames) => {
                let reading = frames.take(bytes);
                self.seen.reading(reading);
                if frames.strange {
                    // GOAWAY may be omitted here (RFC 9113 §3.4).
                    self.spoken = Spoken::Broken("the first frame is no SETTINGS");
                    return 0;
                }
                bytes.len()
            }
        }
    }

    fn wrote(&mut self, write: impl FnOnce(Pin<&mut T>) -> Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        let polled = write(Pin::new(&mut self.io));
        if let Poll::Ready(Ok(bytes)) = polled {
            self.seen.moved(bytes);
        }
        polled
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Watched<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if let Spoken::Broken(why) = self.spoken {
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, why)));
        }
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.io).poll_read(cx, buffer);
        let bytes = buffer.filled().get(before..).unwrap_or_default();
        if bytes.is_empty() {
            return polled;
        }
        self.seen.moved(bytes.len());
        let (read, sound) = (bytes.len(), self.read(bytes));
        if sound < read {
            buffer.set_filled(before + sound);
            // An empty read would be the connection's end.
            if sound == 0 {
                return self.poll_read(cx, buffer);
            }
        }
        polled
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Watched<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &[u8]) -> Poll<io::Result<usize>> {
        self.wrote(|io| io.poll_write(cx, buffer))
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
        self.wrote(|io| io.poll_write_vectored(cx, buffers))
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}

/// Where an HTTP/2 client is in its bytes.
struct Frames {
    /// Bytes of the preface, or of a frame behind its first nine, that are still to come.
    left: usize,
    /// The latest bytes of a frame's first nine, and how many there are.
    start: u128,
    have: usize,
    data: bool,
    /// A head has begun: HEADERS, and CONTINUATION, up to END_HEADERS.
    head: bool,
    end_headers: bool,
    /// The first frame has come, which is the client's settings.
    settled: bool,
    /// The first frame was another.
    strange: bool,
}

impl Default for Frames {
    fn default() -> Self {
        let left = PREFACE;
        Self { left, start: 0, have: 0, data: false, head: false, end_headers: false, settled: false, strange: false }
    }
}

impl Frames {
    /// Whether, after these bytes, something has begun and not ended that must not take long: anything but a body.
    fn take(&mut self, mut bytes: &[u8]) -> bool {
        while let Some((first, rest)) = bytes.split_first() {
            if self.left > 0 {
                let passed = self.left.min(bytes.len());
                self.left -= passed;
                bytes = bytes.get(passed..).unwrap_or_default();
            } else {
                self.start = self.start << 8 | u128::from(*first);
                self.have += 1;
                bytes = rest;
                if self.have < FRAME_START {
                    continue;
                }
                self.begin();
            }
            if self.left == 0 && self.end_headers {
                (self.head, self.end_headers) = (false, false);
            }
        }
        !self.settled || self.have > 0 || self.head || self.left > 0 && !self.data
    }

    fn begin(&mut self) {
        let [.., long, middle, short, kind, flags, _, _, _, _] = self.start.to_be_bytes();
        self.left = u32::from_be_bytes([0, long, middle, short]) as usize;
        self.have = 0;
        self.strange |= !self.settled && (kind != SETTINGS || flags & ACK != 0);
        self.settled = true;
        self.data = kind == DATA;
        if matches!(kind, HEADERS | CONTINUATION) {
            self.head = true;
            self.end_headers = flags & END_HEADERS != 0;
        }
    }
}

const PREFACE: usize = 24;
const FRAME_START: usize = 9;
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const CONTINUATION: u8 = 9;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;

/// However the bytes are cut, they tell the same.
pub fn fuzz_frames(bytes: &[u8]) {
    let (mut whole, mut piecewise) = (Frames::default(), Frames::default());
    let at_once = whole.take(bytes);
    let in_bytes = bytes.chunks(1).map(|byte| piecewise.take(byte)).last();
    assert_eq!(at_once, in_bytes.unwrap_or(true));
    assert_eq!(whole.strange, piecewise.strange);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        [&[0, 0, payload.len() as u8, kind, flags, 0, 0, 0, 1], payload].concat()
    }

    fn settled() -> Frames {
        let mut frames = Frames::default();
        assert!(frames.take(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"));
        assert!(!frames.take(&frame(4, 0, b"")));
        frames
    }

    #[test]
    fn only_settings_may_come_first() {
        for (first, strange) in
            [(frame(SETTINGS, 0, b""), false), (frame(SETTINGS, ACK, b""), true), (frame(6, 0, &[0; 8]), true)]
        {
            let mut frames = Frames::default();
            frames.take(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
            frames.take(&first);
            frames.take(&frame(6, 0, &[0; 8]));
            assert_eq!(frames.strange, strange, "{first:?}");
        }
    }

    #[test]
    fn a_head_is_under_way_until_its_last_byte() {
        let mut frames = settled();
        let head = [frame(HEADERS, 0, b"abc"), frame(CONTINUATION, 0, b""), frame(CONTINUATION, 4, b"de")].concat();
        let (last, before) = head.split_last().unwrap();
        for byte in before {
            assert!(frames.take(&[*byte]));
        }
        assert!(!frames.take(&[*last]));
        assert!(!frames.take(&frame(HEADERS, 5, b"abc")));
    }

    #[test]
    fn a_piece_of_a_body_may_take_its_time_and_a_ping_is_over_at_once() {
        let mut frames = settled();
        let data = frame(DATA, 0, b"hello");
        assert!(frames.take(&data[..5]));
        assert!(!frames.take(&data[5..11]));
        assert!(!frames.take(&data[11..]));
        assert!(!frames.take(&frame(6, 0, &[0; 8])));
    }
}
