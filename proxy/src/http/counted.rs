//! The socket of an HTTP/2 connection, its frames counted: what the peer sends that carries nothing has a limit (a flood
//! costs the peer less than us), and a client's head that is under way is seen. Both sides of the proxy read through it.
//!
//! h2 ends a connection that has brought 100 empty pieces of bodies, however long it took and whoever else is on it: some
//! servers write one behind each answer. Flow control does not know of them (RFC 9113 §6.9.1) and no message is changed by
//! them, so they are made frames of no known kind, which are skipped (§5.5). What they may cost together is `flood`'s.
//! Small pieces that came together become one (`pieces`), and what is still owed for such pieces `debt` knows. What a peer
//! sends on a stream that we have reset h2 drops, but holds its smallness against the connection for ever; it does not if
//! the piece says that it is the stream's last.
//!
//! h2 tells nobody of a head that it refuses. So heads are counted here and where the service is called, and what is
//! missing there was refused; `Connection::take_unread` compares. To be compared a head must be settled: h2 has judged it
//! when it reads again, which it does with no whole frame left, and has said so when it has flushed after that.

mod early;
pub mod pieces;

use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use self::early::Uploads;
use self::pieces::Pieces;
use super::debt::Debt;
use crate::connection::{Connection, Seen};
use crate::net::frames::{DATA, END_STREAM, FRAME_START, Frame, Frames, GOAWAY, HEADERS, RST_STREAM};
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
    /// Bytes that the engine has not been given: from the kind on, those of what may be an empty piece of a body.
    held: Vec<u8>,
    pieces: Pieces,
    debt: Rc<Debt>,
    /// The newest streams that we reset and that the peer may not have ended, in order.
    reset: Vec<u32>,
    /// Of an upstream.
    uploads: Option<Uploads>,
    /// How reading ended, while there is something to tell before.
    failed: Option<io::Error>,
}

/// How many the peer has sent, and its newest stream.
#[derive(Clone, Copy, Default)]
struct Heads {
    count: u64,
    newest: u32,
}

impl<T> Counted<T> {
    pub fn client(io: T, connection: &Connection, debt: Rc<Debt>) -> Self {
        let seen = connection.seen();
        seen.reading(true);
        let rate = connection.worker.limits.frames;
        Self::new(io, seen, debt, rate, Frames::of_client(), Frames::of_server(), flood::worth_from_client)
    }

    /// `rate`: frames a second that may carry nothing.
    pub fn upstream(io: T, seen: Arc<Seen>, debt: Rc<Debt>, rate: u32) -> Self {
        let counted = Self::new(io, seen, debt, rate, Frames::of_server(), Frames::of_client(), flood::worth);
        Self { uploads: Some(Uploads::default()), ..counted }
    }

    fn new(
        io: T,
        seen: Arc<Seen>,
        debt: Rc<Debt>,
        rate: u32,
        theirs: Frames,
        ours: Frames,
        worth: fn(&Frame) -> u32,
    ) -> Self {
        let flood = Flood::new(rate, Instant::now());
        let heads = Heads::default();
        Self {
            io,
            seen,
            theirs,
            ours,
            judged: heads,
            flushed: heads,
            settled: heads,
            flood,
            worth,
            held: Vec::new(),
            pieces: Pieces::default(),
            debt,
            reset: Vec::new(),
            uploads: None,
            failed: None,
        }
    }

    /// Bytes came, behind so many that were held. Returns how many are left of them all.
    fn came(&mut self, bytes: &mut [u8], held: usize) -> io::Result<usize> {
        let Self { seen, theirs, flood, worth, uploads, pieces, reset, .. } = self;
        let (mut frames, mut calm) = (0, true);
        let (mut empty, mut late) = (Vec::new(), Vec::new());
        let (all, mut owed) = (bytes.len(), 0);
        pieces.clear();
        let fresh = bytes.get(held..).unwrap_or_default();
        let reading = theirs.take_placed(fresh, |frame, place| {
            frames += 1;
            flood.earn(worth(&frame));
            let cost = flood::cost(&frame);
            calm = calm && (cost == 0 || flood.spend(cost, Instant::now));
            if let Some(uploads) = uploads {
                uploads.came(&frame);
            }
            let end = held + place.end;
            if frame.is_empty_piece() && place.opened {
                empty.push(end);
            } else if let DATA | RST_STREAM = frame.kind
                && let Ok(place) = reset.binary_search(&frame.stream)
            {
                if frame.kind == DATA && !frame.ends_stream() {
                    late.push(end);
                } else {
                    reset.remove(place);
                }
            } else {
                let at = end.checked_sub(FRAME_START).filter(|_| place.opened);
                owed += pieces.came(&frame, at, end + frame.length as usize <= all);
            }
        });
        seen.read(fresh.len());
        for end in empty {
            if let Some(kind) = end.checked_sub(BEHIND_KIND).and_then(|at| bytes.get_mut(at)) {
                *kind = UNKNOWN;
            }
        }
        for end in late {
            if let Some(flags) = end.checked_sub(BEHIND_FLAGS).and_then(|at| bytes.get_mut(at)) {
                *flags |= END_STREAM;
            }
        }
        seen.units(frames);
        seen.reading(reading);
        seen.heads(theirs.heads(), theirs.heads_begun());
        if theirs.is_strange() {
            // GOAWAY may be omitted here (RFC 9113 §3.4).
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the first frame is no SETTINGS"));
        }
        if calm {
            self.debt.came(owed);
            return Ok(self.pieces.join(bytes));
        }
        seen.flood();
        Err(io::Error::other("too many HTTP/2 frames that carry nothing"))
    }

    fn went(&mut self, bytes: &[u8]) {
        let Self { seen, theirs, ours, settled, flood, uploads, reset, .. } = self;
        ours.take(bytes, |frame| {
            if let Some(uploads) = uploads {
                uploads.went(&frame);
            }
            flood.earn(flood::worth(&frame));
            if frame.kind == RST_STREAM
                && let Err(place) = reset.binary_search(&frame.stream)
            {
                reset.insert(place, frame.stream);
                if reset.len() > RESET_STREAMS {
                    reset.remove(0);
                }
            }
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

    /// Nothing more comes. Whether there is something to be read before that.
    fn ended(&mut self, buffer: &mut ReadBuf<'_>) -> bool {
        let Some(uploads) = self.uploads.as_mut().filter(|_| self.theirs.is_between()) else { return false };
        let resets = uploads.resets(buffer.remaining());
        buffer.put_slice(&resets);
        !resets.is_empty()
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
        if let Some(error) = self.failed.take() {
            return Poll::Ready(Err(error));
        }
        loop {
            let held = self.held.len();
            if held > 0 && buffer.remaining() <= held {
                // No room for anything behind them: they go as they are.
                let room = buffer.remaining();
                buffer.put_slice(&self.held.drain(..room).collect::<Vec<_>>());
                return Poll::Ready(Ok(()));
            }
            buffer.put_slice(&self.held);
            let polled = Pin::new(&mut self.io).poll_read(cx, buffer);
            match polled {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(error)) => {
                    buffer.set_filled(before);
                    if self.ended(buffer) {
                        self.failed = Some(error);
                        return Poll::Ready(Ok(()));
                    }
                    return Poll::Ready(Err(error));
                }
                Poll::Pending => {
                    self.debt.paused();
                    buffer.set_filled(before);
                    return Poll::Pending;
                }
            }
            self.held.clear();
            let bytes = buffer.filled_mut().get_mut(before..).unwrap_or_default();
            if bytes.len() == held {
                self.ended(buffer);
                return polled;
            }
            let left = match self.came(bytes, held) {
                Ok(left) => left,
                Err(error) => return Poll::Ready(Err(error)),
            };
            let at = left.checked_sub(self.theirs.undecided()).unwrap_or(left);
            self.held.extend_from_slice(bytes.get(at..left).unwrap_or_default());
            buffer.set_filled(before + at);
            if buffer.filled().len() > before {
                return polled;
            }
        }
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

/// How far the end of a frame's first bytes is behind the place of its kind.
const BEHIND_KIND: usize = 6;
const BEHIND_FLAGS: usize = 5;
/// Streams that are remembered after their reset, as many as h2 is told to remember: 4 KiB. What comes for others costs a
/// connection a little of its budget.
pub const RESET_STREAMS: usize = 1024;
/// No kind of frame has this number.
const UNKNOWN: u8 = 0xff;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;
    use crate::net::frames::{DATA, SETTINGS};

    fn frame(kind: u8, flags: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
        [&[0, 0, payload.len() as u8, kind, flags, 0, 0, 0, stream], payload].concat()
    }

    /// What the engine reads of these bytes that come in pieces of this size, into a buffer with so much room.
    async fn read(bytes: &[u8], size: usize, room: usize) -> Vec<u8> {
        let (mut far, near) = duplex(size);
        let bytes = bytes.to_vec();
        let sending = tokio::task::spawn_local(async move { far.write_all(&bytes).await });
        let mut near = Counted::upstream(near, Arc::default(), Debt::new(0), 100);
        let (mut all, mut buffer) = (Vec::new(), vec![0; room]);
        while let count @ 1.. = near.read(&mut buffer).await.unwrap() {
            all.extend_from_slice(&buffer[..count]);
        }
        sending.await.unwrap().unwrap();
        all
    }

    #[tokio::test(flavor = "local")]
    async fn empty_pieces_are_skipped_however_the_bytes_are_cut() {
        let head = [frame(SETTINGS, 0, 0, b""), frame(HEADERS, 4, 3, &[0x88])].concat();
        let before = [
            frame(DATA, 0, 3, b""),
            frame(DATA, 0, 3, b"text"),
            frame(DATA, 0, 3, b""),
            frame(DATA, 0, 3, b""),
            // Padded: its bytes count for the windows.
            frame(DATA, 8, 3, b"\0"),
            // Of streams without a head: what they are is the engine's to say.
            frame(DATA, 0, 0, b""),
            frame(DATA, 0, 5, b""),
            frame(DATA, 1, 3, b""),
        ];
        let mut after = before.clone();
        for empty in [0, 2, 3] {
            after[empty][3] = UNKNOWN;
        }
        let whole = |pieces: [Vec<u8>; 8]| [&head[..], &pieces.concat(), b"\0\0\0\0"].concat();
        let (before, after) = (whole(before), whole(after));
        for size in 1..40 {
            for room in [6, 7, 100] {
                assert_eq!(read(&before, size, room).await, after, "{size} {room}");
            }
            // With less room than it takes to decide, they go as they are.
            for room in 1..6 {
                assert_eq!(read(&before, size, room).await, before, "{size} {room}");
            }
        }
    }

    #[tokio::test(flavor = "local")]
    async fn joined_pieces_say_the_same_however_the_bytes_are_cut() {
        let data = |stream, text: &[u8]| frame(DATA, 0, stream, text);
        let bytes = [
            frame(SETTINGS, 0, 0, b""),
            frame(HEADERS, 4, 3, &[0x88]),
            frame(HEADERS, 4, 5, &[0x88]),
            data(3, b"a"),
            data(3, b"bc"),
            data(5, b"x"),
            data(3, b""),
            data(3, b"d"),
            data(5, b"y"),
            frame(DATA, 8, 3, b"\x01p\0"),
            data(3, b"e"),
            frame(DATA, 1, 5, b"z"),
            data(3, b"f"),
            frame(HEADERS, 5, 3, &[0x88]),
            data(5, b"late"),
            b"\0\0\0\0".to_vec(),
        ];
        let expected = pieces::said(&empty_as_unknown(&bytes.concat()));
        let mut shortest = usize::MAX;
        for size in 1..150 {
            for room in [1, 5, 6, 9, 10, 14, 23, 200] {
                let read = read(&bytes.concat(), size, room).await;
                shortest = shortest.min(read.len());
                assert_eq!(pieces::said(&empty_as_unknown(&read)), expected, "{size} {room}");
            }
        }
        assert_eq!(bytes.concat().len() - shortest, 4 * FRAME_START, "four of them are joined to others");
    }

    /// Where there is little room an empty piece stays one.
    fn empty_as_unknown(bytes: &[u8]) -> Vec<u8> {
        let mut bytes = bytes.to_vec();
        let mut ends = Vec::new();
        Frames::of_server()
            .take_placed(&bytes, |frame, place| ends.extend(frame.is_empty_piece().then_some(place.end)));
        ends.into_iter().for_each(|end| bytes[end - BEHIND_KIND] = UNKNOWN);
        bytes
    }

    #[tokio::test(flavor = "local")]
    async fn what_comes_on_a_stream_that_we_reset_says_that_it_is_the_last() {
        let head = [frame(SETTINGS, 0, 0, b""), frame(HEADERS, 4, 3, &[0x88]), frame(HEADERS, 4, 5, &[0x88])].concat();
        let pieces = [
            frame(DATA, 0, 3, b"a"),
            frame(DATA, 0, 5, b"b"),
            frame(DATA, 0, 3, b"c"),
            frame(RST_STREAM, 0, 3, &[0; 4]),
        ];
        let after = [
            frame(DATA, 1, 3, b"a"),
            frame(DATA, 0, 5, b"b"),
            frame(DATA, 1, 3, b"c"),
            frame(RST_STREAM, 0, 3, &[0; 4]),
        ];
        for size in (1..60).chain([200]) {
            let (mut far, near) = duplex(1000);
            let mut near = Counted::upstream(near, Arc::default(), Debt::new(0), 100);
            near.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
            near.write_all(&frame(SETTINGS, 0, 0, b"")).await.unwrap();
            near.write_all(&frame(RST_STREAM, 0, 3, &[0; 4])).await.unwrap();
            let (mut all, mut buffer) = (Vec::new(), [0; 200]);
            for piece in [&head[..], &pieces.concat()].concat().chunks(size) {
                far.write_all(piece).await.unwrap();
                // What is held back comes with what follows.
                if let Ok(count) = tokio::time::timeout(Duration::from_millis(1), near.read(&mut buffer)).await {
                    all.extend_from_slice(&buffer[..count.unwrap()]);
                }
            }
            // A frame whose first bytes were passed on before its last ones came is as the peer has made it.
            let cut = size < 200;
            for at in [head.len() + 4, head.len() + 24].into_iter().filter(|_| cut) {
                all[at] |= END_STREAM;
            }
            assert_eq!(all, [&head[..], &after.concat()].concat(), "{size}");
        }
    }
}
