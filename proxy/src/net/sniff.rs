//! Reads the first bytes of a connection until a pure function knows what they are, and no longer than it may take.
//! What was read is given back whole; [`Prefixed`](super::prefixed::Prefixed) puts it in front of the stream again.

use std::{io, time::Duration};

use bytes::{BufMut, BytesMut};
use tokio::{
    io::{AsyncRead, AsyncReadExt},
    task::yield_now,
    time::{Instant, timeout_at},
};

/// Why reading stopped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome<T> {
    Decided(T),
    /// The wait ran out without a byte: the client waits for the server to speak.
    Silent,
    /// The wait ran out, and what came did not suffice.
    Partial,
    /// The client closed its side before it was clear; what it sent stands.
    Eof,
    /// As much as may be buffered was not enough.
    Full,
}

/// Reads up to `cap` bytes for up to `wait` in all, until `until` gives an answer for what has come so far. With no
/// wait at all it still takes what is there.
///
/// An error is the stream's own, and then there is nobody left to whom the bytes would matter.
pub async fn read<S, T>(
    stream: &mut S,
    mut until: impl FnMut(&[u8]) -> Option<T>,
    wait: Duration,
    cap: usize,
) -> io::Result<(BytesMut, Outcome<T>)>
where
    S: AsyncRead + Unpin,
{
    if wait.is_zero() {
        // A socket fresh from accept counts as empty until the runtime has asked the kernel once.
        yield_now().await;
    }
    let deadline = Instant::now() + wait;
    let mut buffer = BytesMut::new();
    loop {
        if buffer.len() >= cap {
            return Ok((buffer, Outcome::Full));
        }
        buffer.reserve(FIRST_READ);
        let room = cap - buffer.len();
        let outcome = match timeout_at(deadline, stream.read_buf(&mut (&mut buffer).limit(room))).await {
            Err(_) if buffer.is_empty() => Outcome::Silent,
            Err(_) => Outcome::Partial,
            Ok(Err(error)) => return Err(error),
            Ok(Ok(0)) => Outcome::Eof,
            Ok(Ok(_)) => match until(&buffer) {
                Some(answer) => Outcome::Decided(answer),
                None => continue,
            },
        };
        if buffer.is_empty() {
            buffer = BytesMut::new();
        }
        return Ok((buffer, outcome));
    }
}

/// Holds nearly every request head and ClientHello, so that one read is enough.
const FIRST_READ: usize = 2048;

#[cfg(test)]
mod tests {
    use tokio::{
        io::AsyncWriteExt,
        net::{TcpListener, TcpStream},
        time::sleep,
    };

    use super::*;
    use crate::net::{
        client_hello::{self, HelloError},
        detect::{self, Sniffed},
    };

    const LONG: Duration = Duration::from_secs(30);
    const SHORT: Duration = Duration::from_millis(50);

    async fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        client.set_nodelay(true).unwrap();
        (client, listener.accept().await.unwrap().0)
    }

    fn protocol(bytes: &[u8]) -> Option<Sniffed> {
        Some(detect::sniff(bytes)).filter(|sniffed| *sniffed != Sniffed::NeedMore)
    }

    #[tokio::test(flavor = "local")]
    async fn reading_stops_when_the_bytes_are_known() {
        let (mut client, mut server) = pair().await;
        client.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
        let (bytes, outcome) = read(&mut server, protocol, LONG, 4096).await.unwrap();
        assert_eq!(outcome, Outcome::Decided(Sniffed::Http1));
        assert_eq!(&bytes[..], b"GET / HTTP/1.1\r\n\r\n");
    }

    #[tokio::test(flavor = "local")]
    async fn a_client_that_waits_for_the_server_is_silent() {
        let (_client, mut server) = pair().await;
        let (bytes, outcome) = read(&mut server, protocol, SHORT, 4096).await.unwrap();
        assert_eq!((bytes.capacity(), outcome), (0, Outcome::Silent));
    }

    #[tokio::test(flavor = "local")]
    async fn the_wait_is_one_for_all_reads() {
        let (mut client, mut server) = pair().await;
        let typing = tokio::task::spawn_local(async move {
            for byte in b"hello".iter().cycle() {
                if client.write_all(&[*byte]).await.is_err() {
                    break;
                }
                sleep(SHORT / 5).await;
            }
        });
        let never = |_: &[u8]| None::<()>;
        let start = Instant::now();
        let (bytes, outcome) = read(&mut server, never, SHORT * 4, 4096).await.unwrap();
        assert_eq!(outcome, Outcome::Partial);
        assert!(bytes.starts_with(b"he"));
        assert!(start.elapsed() < Duration::from_secs(20));
        typing.abort();
    }

    #[tokio::test(flavor = "local")]
    async fn what_is_there_is_taken_even_without_a_wait() {
        let (mut client, mut server) = pair().await;
        client.write_all(b"GET / HTTP/1.1\r\n").await.unwrap();
        let (_, outcome) = read(&mut server, protocol, Duration::ZERO, 4096).await.unwrap();
        assert_eq!(outcome, Outcome::Decided(Sniffed::Http1));
    }

    #[tokio::test(flavor = "local")]
    async fn the_end_and_the_cap_give_back_what_came() {
        let (mut client, mut server) = pair().await;
        client.write_all(b"GE").await.unwrap();
        client.shutdown().await.unwrap();
        let (bytes, outcome) = read(&mut server, protocol, LONG, 4096).await.unwrap();
        assert_eq!((&bytes[..], outcome), (&b"GE"[..], Outcome::Eof));

        let (mut client, mut server) = pair().await;
        client.write_all(&[b'A'; 100]).await.unwrap();
        let (bytes, outcome) = read(&mut server, |_| None::<()>, LONG, 64).await.unwrap();
        assert_eq!((bytes.len(), outcome), (64, Outcome::Full));
        let mut rest = [0; 36];
        server.read_exact(&mut rest).await.unwrap();
    }

    #[tokio::test(flavor = "local")]
    async fn a_hello_in_single_byte_segments_is_read() {
        // A ClientHello with one extension, the name a.example.
        let body = [
            &[3, 3],
            [7; 32].as_slice(),
            &[0, 0, 2, 0x13, 1, 1, 0],
            &[0, 18, 0, 0, 0, 14, 0, 12, 0, 0, 9],
            b"a.example",
        ]
        .concat();
        let hello = [&[0x16, 3, 1, 0, body.len() as u8 + 4, 1, 0, 0, body.len() as u8], body.as_slice()].concat();
        let (mut client, mut server) = pair().await;
        let expected = hello.clone();
        tokio::task::spawn_local(async move {
            for byte in hello {
                client.write_all(&[byte]).await.unwrap();
                tokio::task::yield_now().await;
            }
            sleep(LONG).await;
        });
        let name = |bytes: &[u8]| Some(client_hello::server_name(bytes)).filter(|r| *r != Err(HelloError::Incomplete));
        let (bytes, outcome) = read(&mut server, name, LONG, client_hello::ENOUGH).await.unwrap();
        let Outcome::Decided(Ok(hello)) = outcome else { panic!("{outcome:?}") };
        assert_eq!(hello.server_name.as_deref(), Some("a.example"));
        assert_eq!(&bytes[..], expected);
    }
}
