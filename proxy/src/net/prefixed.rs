//! A stream whose first bytes were read already: it gives them again, then it is the stream itself. What sniffing takes
//! from a connection reaches HTTP, TLS or the copy loop this way.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

#[derive(Debug)]
pub struct Prefixed<S> {
    prefix: Bytes,
    stream: S,
}

impl<S> Prefixed<S> {
    pub fn new(stream: S, prefix: impl Into<Bytes>) -> Self {
        Self { prefix: prefix.into(), stream }
    }

    /// What has not been read again yet.
    pub fn prefix(&self) -> &[u8] {
        &self.prefix
    }

    pub fn stream(&self) -> &S {
        &self.stream
    }

    pub fn stream_mut(&mut self) -> &mut S {
        &mut self.stream
    }

    /// The stream, and what must still be given before anything that is read from it.
    pub fn into_parts(self) -> (S, Bytes) {
        (self.stream, self.prefix)
    }
}

impl<S> From<S> for Prefixed<S> {
    fn from(stream: S) -> Self {
        Self::new(stream, Bytes::new())
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Prefixed<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.prefix.is_empty() || buf.remaining() == 0 {
            return Pin::new(&mut self.stream).poll_read(cx, buf);
        }
        let count = self.prefix.len().min(buf.remaining());
        buf.put_slice(&self.prefix.split_to(count));
        if !self.prefix.has_remaining() {
            // An empty slice would keep the sniffed bytes in memory for as long as the connection lives.
            self.prefix = Bytes::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Prefixed<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    #[tokio::test(flavor = "local")]
    async fn the_first_bytes_come_first_and_none_is_lost() {
        for size in 1..8 {
            let (mut far, near) = duplex(64);
            far.write_all(b" and the rest").await.unwrap();
            far.shutdown().await.unwrap();
            let mut stream = Prefixed::new(near, &b"the first"[..]);
            let mut all = Vec::new();
            let mut buf = vec![0; size];
            loop {
                match stream.read(&mut buf).await.unwrap() {
                    0 => break,
                    count => all.extend_from_slice(&buf[..count]),
                }
            }
            assert_eq!(all, b"the first and the rest");
        }
    }

    #[tokio::test(flavor = "local")]
    async fn what_was_not_read_again_is_handed_on() {
        let (_far, near) = duplex(64);
        let mut stream = Prefixed::new(near, &b"abc"[..]);
        assert_eq!(stream.read_u8().await.unwrap(), b'a');
        assert_eq!(stream.prefix(), b"bc");
        assert_eq!(stream.into_parts().1, &b"bc"[..]);
    }

    #[tokio::test(flavor = "local")]
    async fn writes_pass_through_while_bytes_wait_to_be_read() {
        let (mut far, near) = duplex(64);
        let mut stream = Prefixed::new(near, &b"abc"[..]);
        stream.write_all(b"hello").await.unwrap();
        let mut buf = [0; 5];
        far.read_exact(&mut buf).await.unwrap();
        assert_eq!(&buf, b"hello");
    }

    #[test]
    fn a_prefixed_socket_can_go_to_hyper() {
        fn needs<T: Send + 'static>() {}
        needs::<Prefixed<tokio::net::TcpStream>>();
    }
}
