//! The socket of a client that speaks HTTP/1, watched: how much goes over it, and whether what came last is the beginning
//! of a head, which every byte is while no request is open. It is followed for what the engine would hide: `framing`
//! tells, and a body that can be read in two ways ends here. For HTTP/2 see `counted`.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

use super::client::MIN_BUFFER;
use super::framing::{Ambiguous, Requests};
use crate::connection::{Connection, Seen};
use crate::limit::Limit;
use crate::net::prefixed::Prefixed;

pub struct Watched<T: Socket> {
    io: T,
    seen: Arc<Seen>,
    spoken: Spoken,
}

enum Spoken {
    Http1(Requests),
    /// What comes must not reach the engine, and this is why.
    Broken(&'static str),
}

/// Bytes that come from a client's socket, under whatever they come.
pub trait Socket: AsyncRead + AsyncWrite + Send + Unpin + 'static {
    /// Closing it from now on resets it.
    fn close_abruptly(&self) -> io::Result<()>;
}

impl Socket for Prefixed<TcpStream> {
    fn close_abruptly(&self) -> io::Result<()> {
        self.stream().set_zero_linger()
    }
}

impl Socket for TlsStream<TcpStream> {
    fn close_abruptly(&self) -> io::Result<()> {
        self.get_ref().0.set_zero_linger()
    }
}

#[cfg(feature = "fuzzing")]
impl Socket for Prefixed<tokio::io::DuplexStream> {
    fn close_abruptly(&self) -> io::Result<()> {
        Ok(())
    }
}

impl<T: Socket> Drop for Watched<T> {
    fn drop(&mut self) {
        if self.seen.is_abrupt() {
            // A socket that is gone already cannot be told, and need not be.
            let _ = self.io.close_abruptly();
        }
    }
}

impl<T: Socket> Watched<T> {
    pub fn http1(io: T, connection: &Connection) -> Self {
        let head_line = connection.worker.limits.header_bytes.max(MIN_BUFFER);
        Self { io, seen: connection.seen(), spoken: Spoken::Http1(Requests::new(head_line)) }
    }

    /// How many of these bytes are sound.
    fn read(&mut self, bytes: &[u8]) -> usize {
        match &mut self.spoken {
            Spoken::Http1(requests) => {
                self.seen.reading(true);
                if self.seen.has_switched() {
                    return bytes.len();
                }
                requests.began(self.seen.requests());
                let Some(Ambiguous { number, body_from, over }) = requests.take(bytes) else { return bytes.len() };
                // A body that is too much ends by itself, with its own flag.
                if over.is_none() || body_from.is_none() {
                    self.seen.ambiguous(number);
                }
                if body_from.is_some() {
                    self.spoken = Spoken::Broken(match over {
                        Some(Limit::ChunkExtensions) => EXTENSIONS_OVER,
                        Some(_) => TRAILERS_OVER,
                        None => "the framing of a body is ambiguous",
                    });
                }
                body_from.unwrap_or(bytes.len())
            }
            Spoken::Broken(_) => 0,
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

impl<T: Socket> AsyncRead for Watched<T> {
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
        self.seen.read(bytes.len());
        self.seen.units(1);
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

impl<T: Socket> AsyncWrite for Watched<T> {
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

/// In the engine's own words, which may also come first.
pub const EXTENSIONS_OVER: &str = "chunk extensions over limit";
pub const TRAILERS_OVER: &str = "chunk trailers bytes over limit";
