//! The socket of an HTTP/2 connection, its frames counted: what the peer sends that carries nothing has a limit (a flood
//! costs the peer less than us), and a client's head that is under way is seen. Both sides of the proxy read through it.
//!
//! h2 tells nobody of a head that it refuses. So heads are counted here and where the service is called, and what is
//! missing there was refused; `Connection::take_unread` compares. To be compared a head must be settled: h2 has judged it
//! when it reads again, which it does with no whole frame left, and has said so when it has flushed after that.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use crate::connection::{Connection, Seen};
use crate::net::frames::{Frame, Frames, GOAWAY, HEADERS};
use crate::rules::flood::{self, Flood};

pub struct Counted<T> {
    io: T,
    seen: Arc<Seen>,
    theirs: Frames,
    ours: Frames,
    /// At the latest read; when all was flushed after that; and when that was before a read. No answer but h2's own goes
    /// to a stream that is newer than the last.
    judged: Heads,
    flushed: Heads,
    settled: Heads,
    flood: Flood,
    /// What a frame from the peer allows.
    worth: fn(&Frame) -> u32,
}

/// How many the peer has sent, and its newest stream.
#[derive(Clone, Copy, Default)]
struct Heads {
    count: u64,
    newest: u32,
}

impl<T> Counted<T> {
    pub fn client(io: T, connection: &Connection) -> Self {
        let seen = connection.seen();
        seen.reading(true);
        let rate = connection.worker.limits.frames;
        Self::new(io, seen, rate, Frames::of_client(), Frames::of_server(), flood::worth_from_client)
    }

    /// `rate`: frames a second that may carry nothing.
    pub fn upstream(io: T, seen: Arc<Seen>, rate: u32) -> Self {
        Self::new(io, seen, rate, Frames::of_server(), Frames::of_client(), flood::worth)
    }

    fn new(io: T, seen: Arc<Seen>, rate: u32, theirs: Frames, ours: Frames, worth: fn(&Frame) -> u32) -> Self {
        let flood = Flood::new(rate, Instant::now());
        let heads = Heads::default();
        Self { io, seen, theirs, ours, judged: heads, flushed: heads, settled: heads, flood, worth }
    }

    fn came(&mut self, bytes: &[u8]) -> io::Result<()> {
        let Self { seen, theirs, flood, worth, .. } = self;
        let (mut frames, mut calm) = (0, true);
        let reading = theirs.take(bytes, |frame| {
            frames += 1;
            flood.earn(worth(&frame));
            let cost = flood::cost(&frame);
            calm = calm && (cost == 0 || flood.spend(cost, Instant::now));
        });
        seen.read(bytes.len());
        seen.units(frames);
        seen.reading(reading);
        seen.heads(theirs.heads(), theirs.heads_begun());
        if theirs.is_strange() {
            // GOAWAY may be omitted here (RFC 9113 §3.4).
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the first frame is no SETTINGS"));
        }
        if calm {
            return Ok(());
        }
        seen.flood();
        Err(io::Error::other("too many HTTP/2 frames that carry nothing"))
    }

    fn went(&mut self, bytes: &[u8]) {
        let Self { seen, theirs, ours, settled, flood, .. } = self;
        ours.take(bytes, |frame| {
            flood.earn(flood::worth(&frame));
            let unsettled = frame.stream > settled.newest;
            if unsettled && frame.kind == HEADERS && frame.ends_stream() {
                seen.answered_large();
            } else if frame.kind == GOAWAY {
                theirs.leaving();
            } else if unsettled && flood::refuses_stream(&frame) {
                seen.refuse();
                // Whoever goes on beyond the limit that it was told makes us answer each time.
                if !flood.spend(1, Instant::now) {
                    seen.flood();
                }
            }
        });
    }

    /// h2 may flush in the middle of what it has to say, and has not said all.
    fn stuck(&mut self) {
        self.flushed = self.settled;
        self.seen.settled(self.settled.count);
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Counted<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.settled = self.flushed;
        self.judged = Heads { count: self.theirs.heads(), newest: self.theirs.newest() };
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.io).poll_read(cx, buffer);
        let bytes = buffer.filled().get(before..).unwrap_or_default();
        if !bytes.is_empty()
            && let Err(error) = self.came(bytes)
        {
            return Poll::Ready(Err(error));
        }
        polled
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Counted<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.io).poll_write(cx, buffer);
        match polled {
            Poll::Ready(Ok(written)) => self.went(buffer.get(..written).unwrap_or(buffer)),
            Poll::Ready(Err(_)) => {}
            Poll::Pending => self.stuck(),
        }
        polled
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.io).poll_flush(cx);
        if polled.is_ready() {
            self.flushed = self.judged;
            self.seen.settled(self.flushed.count);
        }
        polled
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.io).poll_write_vectored(cx, buffers);
        if let Poll::Ready(Ok(mut left)) = polled {
            for buffer in buffers {
                let written = left.min(buffer.len());
                self.went(buffer.get(..written).unwrap_or(buffer));
                left -= written;
            }
        } else if polled.is_pending() {
            self.stuck();
        }
        polled
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}
