//! One direction of a copy as a state machine:
//!
//! ```text
//!           bytes                    all written
//!   Read ───────────▶ write the rest ───────────▶ Read
//!    │ ╲ full reads after 64 KiB
//!    │  ╲─────────▶ Splice: fill pipe ⇄ empty pipe ──(source has no more)──▶ Read
//!    │ end of the source
//!    ▼
//!   Close (shut down the sink) ──▶ Stopped          a failure of either side ──▶ Stopped
//! ```
//!
//! A pipe is filled only when it is empty, so EAGAIN while filling always means the source and while emptying always
//! the sink, and there is never more in it than was taken at once.

use std::{
    cell::Cell,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use rustix::io::Errno;
use tokio::{
    io::{AsyncRead, AsyncWrite, Interest, ReadBuf},
    net::TcpStream,
};

use super::{
    CopyWatch, Ended, Side,
    pipe::{Pipe, Pipes},
};
use crate::net::prefixed::Prefixed;

/// A stream as this loop sees it.
pub(super) trait End: AsyncRead + AsyncWrite + Unpin {
    /// The socket, when reading from it and writing to it is all there is to this stream.
    fn socket(&self) -> Option<&TcpStream>;
}

impl End for Prefixed<TcpStream> {
    fn socket(&self) -> Option<&TcpStream> {
        self.prefix().is_empty().then(|| self.stream())
    }
}

/// A stream that has its own idea of bytes.
pub(super) struct Foreign<S>(pub(super) S);

impl<S: AsyncRead + AsyncWrite + Unpin> End for Foreign<S> {
    fn socket(&self) -> Option<&TcpStream> {
        None
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Foreign<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Foreign<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

/// The end of a direction.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stop {
    pub(super) ended: Ended,
    /// The side that closed or failed.
    pub(super) by: Side,
}

pub(super) struct Direction {
    source: Side,
    stage: Stage,
    /// Something was written that the sink may still hold back.
    unflushed: bool,
    /// The source broke off while it was written to. The kernel says so once, and to the writer; the reader then sees
    /// the bytes that had arrived and a plain end, which must not be passed on as one.
    source_broke: bool,
    moved: u64,
    /// Bytes to have moved before a pipe is asked for.
    splice_at: u64,
}

enum Stage {
    Read,
    Write { rest: Vec<u8>, written: usize },
    Splice(Pipe),
    Close,
    Stopped(Ended),
}

/// What a step came to: further steps are due, or the direction is over.
enum Step {
    Further,
    Over(Stop),
}

impl Direction {
    pub(super) fn new(source: Side) -> Self {
        Self { source, stage: Stage::Read, unflushed: false, source_broke: false, moved: 0, splice_at: SPLICE_AFTER }
    }

    pub(super) fn ended(&self) -> Option<Ended> {
        match self.stage {
            Stage::Stopped(ended) => Some(ended),
            Stage::Read | Stage::Write { .. } | Stage::Splice(_) | Stage::Close => None,
        }
    }

    /// Ready once, when this direction has ended.
    pub(super) fn poll<A: End, B: End>(
        &mut self,
        cx: &mut Context<'_>,
        source: &mut A,
        sink: &mut B,
        watch: &CopyWatch,
        pipes: Option<&Pipes>,
    ) -> Poll<Stop> {
        if self.ended().is_some() {
            return Poll::Pending;
        }
        for _ in 0..STEPS {
            match ready!(self.step(cx, source, sink, watch, pipes)) {
                Step::Further => {}
                Step::Over(stop) => {
                    self.stage = Stage::Stopped(stop.ended);
                    return Poll::Ready(stop);
                }
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// The other direction has ended; `stop.by` says whose doing it was.
    pub(super) fn opposite_stopped(&mut self, stop: Stop) {
        let broke = !matches!(stop.ended, Ended::Eof);
        if broke && self.ended().is_none() {
            match stop.by == self.source {
                // It failed to write to our source: what that source had sent before can still be delivered.
                true => self.source_broke = true,
                // It failed to read from our sink: nobody is left to write to.
                false => self.stage = Stage::Stopped(Ended::Cut),
            }
        }
    }

    fn step<A: End, B: End>(
        &mut self,
        cx: &mut Context<'_>,
        source: &mut A,
        sink: &mut B,
        watch: &CopyWatch,
        pipes: Option<&Pipes>,
    ) -> Poll<Step> {
        match &mut self.stage {
            Stage::Read => self.read(cx, source, sink, watch, pipes),
            Stage::Write { rest, written } => {
                let left = rest.get(*written..).unwrap_or_default();
                if left.is_empty() {
                    self.stage = Stage::Read;
                    return Poll::Ready(Step::Further);
                }
                match ready!(Pin::new(sink).poll_write(cx, left)) {
                    Ok(0) => Poll::Ready(self.sink_failed(io::ErrorKind::WriteZero.into())),
                    Ok(count) => {
                        *written += count;
                        self.count(watch, count, false);
                        Poll::Ready(Step::Further)
                    }
                    Err(error) => Poll::Ready(self.sink_failed(error)),
                }
            }
            Stage::Splice(_) => self.splice(cx, source, sink, watch, pipes),
            Stage::Close => {
                // When this fails the sink is gone, and the other direction finds out how.
                let _ = ready!(Pin::new(sink).poll_shutdown(cx));
                Poll::Ready(Step::Over(Stop { ended: Ended::Eof, by: self.source }))
            }
            Stage::Stopped(ended) => Poll::Ready(Step::Over(Stop { ended: *ended, by: self.source })),
        }
    }

    /// Reads into the thread's scratch buffer and writes from there; only what the sink does not take is kept.
    fn read<A: End, B: End>(
        &mut self,
        cx: &mut Context<'_>,
        source: &mut A,
        sink: &mut B,
        watch: &CopyWatch,
        pipes: Option<&Pipes>,
    ) -> Poll<Step> {
        with_scratch(|scratch| {
            let mut buffer = ReadBuf::new(scratch);
            match Pin::new(&mut *source).poll_read(cx, &mut buffer) {
                Poll::Pending => {
                    if self.unflushed {
                        match ready!(Pin::new(sink).poll_flush(cx)) {
                            Ok(()) => self.unflushed = false,
                            Err(error) => return Poll::Ready(self.sink_failed(error)),
                        }
                    }
                    return Poll::Pending;
                }
                Poll::Ready(Err(error)) => return Poll::Ready(self.source_failed(error)),
                Poll::Ready(Ok(())) => {}
            }
            let bytes = buffer.filled();
            if bytes.is_empty() {
                return Poll::Ready(self.source_ended());
            }
            self.unflushed = true;
            let written = match Pin::new(&mut *sink).poll_write(cx, bytes) {
                Poll::Pending => 0,
                Poll::Ready(Ok(0)) => return Poll::Ready(self.sink_failed(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(count)) => count,
                Poll::Ready(Err(error)) => return Poll::Ready(self.sink_failed(error)),
            };
            if written > 0 {
                self.count(watch, written, false);
            }
            let rest = bytes.get(written..).unwrap_or_default();
            if !rest.is_empty() {
                self.stage = Stage::Write { rest: rest.to_vec(), written: 0 };
            } else if bytes.len() == SCRATCH
                && self.moved >= self.splice_at
                && let Some(pipes) = pipes
                && source.socket().is_some()
                && sink.socket().is_some()
            {
                match pipes.take() {
                    Some(pipe) => self.stage = Stage::Splice(pipe),
                    None => self.splice_at = self.moved + SPLICE_RETRY,
                }
            }
            Poll::Ready(Step::Further)
        })
    }

    fn splice<A: End, B: End>(
        &mut self,
        cx: &mut Context<'_>,
        source: &mut A,
        sink: &mut B,
        watch: &CopyWatch,
        pipes: Option<&Pipes>,
    ) -> Poll<Step> {
        let (Stage::Splice(pipe), Some(from), Some(to)) = (&mut self.stage, source.socket(), sink.socket()) else {
            // Never so: a stream that is a plain socket stays one.
            return Poll::Ready(self.source_failed(io::ErrorKind::Unsupported.into()));
        };
        if !pipe.is_empty() {
            if let Err(error) = ready!(to.poll_write_ready(cx)) {
                return Poll::Ready(self.sink_failed(error));
            }
            return Poll::Ready(match to.try_io(Interest::WRITABLE, || pipe.empty_into(to)) {
                Ok(0) => self.sink_failed(io::ErrorKind::WriteZero.into()),
                Ok(count) => {
                    self.count(watch, count, true);
                    Step::Further
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => Step::Further,
                Err(error) => self.sink_failed(error),
            });
        }
        let Poll::Ready(ready) = from.poll_read_ready(cx) else {
            // The source has no more for now: a quiet connection holds no pipe.
            self.give_back(pipes);
            return Poll::Pending;
        };
        if let Err(error) = ready {
            return Poll::Ready(self.source_failed(error));
        }
        Poll::Ready(match from.try_io(Interest::READABLE, || pipe.fill_from(from)) {
            Ok(0) => {
                self.give_back(pipes);
                self.source_ended()
            }
            Ok(_) => Step::Further,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Step::Further,
            Err(error) if is_unsupported(&error) => {
                self.give_back(pipes);
                self.splice_at = u64::MAX;
                Step::Further
            }
            Err(error) => self.source_failed(error),
        })
    }

    /// Leaves the pipe, which is empty, to others.
    fn give_back(&mut self, pipes: Option<&Pipes>) {
        if let (Stage::Splice(pipe), Some(pipes)) = (std::mem::replace(&mut self.stage, Stage::Read), pipes) {
            pipes.give(pipe);
        }
    }

    fn count(&mut self, watch: &CopyWatch, bytes: usize, spliced: bool) {
        self.moved += bytes as u64;
        watch.count(self.source, bytes as u64, spliced);
    }

    fn source_ended(&mut self) -> Step {
        if self.source_broke {
            return Step::Over(Stop { ended: Ended::Reset, by: self.source });
        }
        self.stage = Stage::Close;
        Step::Further
    }

    fn source_failed(&self, error: io::Error) -> Step {
        Step::Over(Stop { ended: ended(&error), by: self.source })
    }

    fn sink_failed(&self, error: io::Error) -> Step {
        Step::Over(Stop { ended: ended(&error), by: self.source.other() })
    }
}

fn ended(error: &io::Error) -> Ended {
    match error.kind() {
        io::ErrorKind::ConnectionReset
        | io::ErrorKind::ConnectionAborted
        | io::ErrorKind::BrokenPipe
        | io::ErrorKind::NotConnected => Ended::Reset,
        kind => Ended::Error(kind),
    }
}

/// A sandbox or an odd socket that does not splice: not a failure of the connection, nothing was moved yet.
fn is_unsupported(error: &io::Error) -> bool {
    matches!(
        Errno::from_io_error(error),
        Some(Errno::INVAL | Errno::NOSYS | Errno::PERM | Errno::OPNOTSUPP | Errno::NOMEM | Errno::NOBUFS)
    )
}

/// Lends the thread's buffer. No read keeps it over a wait, so all connections of a worker share one.
fn with_scratch<T>(read: impl FnOnce(&mut [u8]) -> T) -> T {
    thread_local!(static SPARE: Cell<Option<Box<[u8]>>> = const { Cell::new(None) });
    let mut scratch = SPARE.take().unwrap_or_else(|| vec![0; SCRATCH].into_boxed_slice());
    let result = read(&mut scratch);
    SPARE.set(Some(scratch));
    result
}

/// What is read at once, and so what a direction holds at most for a reader that stalls. A TLS record is as long.
pub(super) const SCRATCH: usize = 16 * 1024;
/// A direction is spliced when it has moved this much and its source is ahead of it: a pipe is two descriptors and
/// several system calls, which a short answer does not earn back.
const SPLICE_AFTER: u64 = 64 * 1024;
/// When there was no pipe to be had, this much moves before another is asked for.
const SPLICE_RETRY: u64 = 1024 * 1024;
/// Steps, of 16 KiB or of a pipe, before other connections of the worker have their turn.
const STEPS: usize = 32;
