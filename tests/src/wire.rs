//! A peer that speaks raw bytes: the client's end of a connection to the proxy, or an origin that follows a script.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::eventually;

pub struct Wire {
    pub stream: TcpStream,
    buffer: Vec<u8>,
}

impl Wire {
    pub async fn connect(address: SocketAddr) -> Self {
        Self::from(TcpStream::connect(address).await.expect("connect"))
    }

    /// A listener for a scripted origin.
    pub async fn listen() -> (TcpListener, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let address = listener.local_addr().expect("address");
        (listener, address)
    }

    pub async fn accept(listener: &TcpListener) -> Self {
        Self::from(listener.accept().await.expect("accept").0)
    }

    /// An origin, or another server, that does this with each of its connections, which are numbered from 0.
    pub async fn serve<F>(each: impl Fn(Self, usize) -> F + 'static) -> SocketAddr
    where
        F: Future<Output = ()> + 'static,
    {
        let (listener, address) = Self::listen().await;
        tokio::task::spawn_local(async move {
            for number in 0.. {
                let wire = Self::accept(&listener).await;
                tokio::task::spawn_local(each(wire, number));
            }
        });
        address
    }

    pub async fn write(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).await.expect("write");
    }

    /// Reads up to and with this text, and returns it; what follows stays for the next call.
    pub async fn until(&mut self, end: &str) -> String {
        loop {
            let place = self.buffer.windows(end.len()).position(|window| window == end.as_bytes());
            if let Some(place) = place {
                let taken: Vec<u8> = self.buffer.drain(..place + end.len()).collect();
                return String::from_utf8_lossy(&taken).into_owned();
            }
            let mut chunk = [0; 4096];
            let count = self.stream.read(&mut chunk).await.expect("read");
            let so_far = String::from_utf8_lossy(&self.buffer);
            assert!(count > 0, "the end came before {end:?}; so far: {so_far:?}");
            self.buffer.extend_from_slice(&chunk[..count]);
        }
    }

    /// A message's head.
    pub async fn head(&mut self) -> String {
        self.until("\r\n\r\n").await
    }

    /// Exactly so many bytes.
    pub async fn exactly(&mut self, count: usize) -> Vec<u8> {
        while self.buffer.len() < count {
            let mut chunk = [0; 4096];
            let read = self.stream.read(&mut chunk).await.expect("read");
            assert!(read > 0, "the end came {} bytes early", count - self.buffer.len());
            self.buffer.extend_from_slice(&chunk[..read]);
        }
        self.buffer.drain(..count).collect()
    }

    /// Like `until`, but the connection's end is `None`.
    pub async fn try_until(&mut self, end: &str) -> Option<String> {
        loop {
            let place = self.buffer.windows(end.len()).position(|window| window == end.as_bytes());
            if let Some(place) = place {
                let taken: Vec<u8> = self.buffer.drain(..place + end.len()).collect();
                return Some(String::from_utf8_lossy(&taken).into_owned());
            }
            self.more().await?;
        }
    }

    /// Like `exactly`, but the connection's end is `None`.
    pub async fn try_exactly(&mut self, count: usize) -> Option<Vec<u8>> {
        while self.buffer.len() < count {
            self.more().await?;
        }
        Some(self.buffer.drain(..count).collect())
    }

    async fn more(&mut self) -> Option<()> {
        let mut chunk = [0; 16 * 1024];
        let count = self.stream.read(&mut chunk).await.ok()?;
        self.buffer.extend_from_slice(&chunk[..count]);
        (count > 0).then_some(())
    }

    /// Like `write`, for a peer that may be gone.
    pub async fn send(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.stream.write_all(bytes).await
    }

    /// Ends the connection with a reset.
    pub fn reset(self) {
        crate::streams::reset_at_close(&self.stream);
    }

    /// Waits until the peer, on this machine too, has read all that was written: a reset would overtake the rest.
    pub async fn taken(&self) {
        let (local, peer) = (self.stream.local_addr(), self.stream.peer_addr());
        let (Ok(local), Ok(peer)) = (local, peer) else { return };
        eventually("the peer has read everything", || is_read(peer, local) && is_acknowledged(local, peer)).await;
    }

    /// Everything up to the end of the connection; a reset counts as an end.
    pub async fn rest(&mut self) -> Vec<u8> {
        let mut rest = std::mem::take(&mut self.buffer);
        let _ = self.stream.read_to_end(&mut rest).await;
        rest
    }

    /// Nothing more will come from here; the other direction goes on.
    pub async fn finish(&mut self) {
        self.stream.shutdown().await.expect("shutdown");
    }
}

impl From<TcpStream> for Wire {
    fn from(stream: TcpStream) -> Self {
        stream.set_nodelay(true).expect("nodelay");
        Self { stream, buffer: Vec::new() }
    }
}

/// Whether nothing waits to be read in the socket with these ends, as the kernel tells (proc(5)). One that is gone has
/// nothing to read.
fn is_read(local: SocketAddr, peer: SocketAddr) -> bool {
    queues(local, peer).is_none_or(|(_, reading)| reading == "00000000")
}

fn is_acknowledged(local: SocketAddr, peer: SocketAddr) -> bool {
    queues(local, peer).is_none_or(|(writing, _)| writing == "00000000")
}

fn queues(local: SocketAddr, peer: SocketAddr) -> Option<(String, String)> {
    let ends = format!("{} {} ", hexadecimal(local), hexadecimal(peer));
    let table = std::fs::read_to_string("/proc/net/tcp").expect("the table of sockets");
    let line = table.lines().find_map(|line| line.split_once(&ends))?.1;
    let (writing, reading) = line.split_whitespace().nth(1)?.split_once(':')?;
    Some((writing.to_owned(), reading.to_owned()))
}

fn hexadecimal(address: SocketAddr) -> String {
    let SocketAddr::V4(address) = address else { panic!("tests meet on IPv4") };
    format!("{:08X}:{:04X}", u32::from_ne_bytes(address.ip().octets()), address.port())
}
