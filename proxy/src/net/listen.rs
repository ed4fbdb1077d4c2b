//! Listening sockets and the loop around accept. Each worker binds a socket of its own to the same address
//! (SO_REUSEPORT) and the kernel spreads the connections.
//!
//! Accept fails for reasons that pass: no file descriptors, no memory, a client that was gone before its turn. None of
//! them may end the loop or make it spin. What to do with a connection, and when to stop, is the worker's affair.

use std::{
    fmt, io,
    net::{SocketAddr, TcpListener as StdListener},
    os::fd::{AsFd, BorrowedFd},
    time::Duration,
};

use rustix::io::Errno;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::{
    net::{TcpListener, TcpStream},
    time::{Instant, sleep_until},
};

use super::{canonical, keepalive};

/// Binds a listener, which gets no connection before [`listen`]. `[::]` takes IPv6 alone, so that what is written is what is bound and `0.0.0.0` may stand beside
/// it; only a transparent listener on `[::]` takes both families, since the redirect rules of both name one port.
///
/// Redirected connections arrive at an address of this host, so `transparent` needs no privilege here.
pub fn bind(address: SocketAddr, transparent: bool) -> io::Result<StdListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(!(transparent && address.ip().is_unspecified()))?;
    }
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    // Linux gives both to every accepted connection, which saves two system calls for each of them.
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_keepalive(&keepalive())?;
    socket.bind(&address.into())?;
    Ok(socket.into())
}

/// Lets connections come. One that listens already stays as it is.
pub fn listen(listener: &StdListener) -> io::Result<()> {
    Ok(rustix::net::listen(listener, BACKLOG)?)
}

/// A listener that can be asked for the next connection for ever.
#[derive(Debug)]
pub struct Acceptor {
    listener: TcpListener,
    pause: Duration,
    resume: Option<Instant>,
}

impl Acceptor {
    /// Must be called inside the runtime that will accept.
    pub fn new(listener: StdListener) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        Ok(Self { listener: TcpListener::from_std(listener)?, pause: PAUSE_MIN, resume: None })
    }

    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// The next connection and its peer, or why there was none this time: count it and call again. After an error that
    /// a further call would only repeat, that call first waits, 10 ms and then doubling up to 1 s.
    ///
    /// Cancel safe: neither a connection nor the wait is lost when the future is dropped.
    pub async fn accept(&mut self) -> Result<(TcpStream, SocketAddr), AcceptError> {
        if let Some(resume) = self.resume {
            sleep_until(resume).await;
            self.resume = None;
        }
        match self.listener.accept().await {
            Ok((stream, peer)) => {
                self.pause = PAUSE_MIN;
                Ok((stream, canonical(peer)))
            }
            Err(error) => {
                let error = AcceptError::from(&error);
                if error != AcceptError::Gone {
                    self.resume = Some(Instant::now() + self.pause);
                    self.pause = (self.pause * 2).min(PAUSE_MAX);
                }
                Err(error)
            }
        }
    }

    /// As [`drain`].
    pub fn drain(self) -> io::Result<Vec<(TcpStream, SocketAddr)>> {
        Ok(drain(self.listener.into_std()?))
    }
}

impl AsFd for Acceptor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }
}

/// Takes every connection that already waits and closes the listener, for a proxy that leaves without a successor:
/// closing alone would reset them. The socket is asked directly, because the runtime may not have heard of the newest.
pub fn drain(listener: StdListener) -> Vec<(TcpStream, SocketAddr)> {
    let mut waiting = Vec::new();
    while waiting.len() < DRAIN_MAX {
        match listener.accept() {
            Ok((stream, peer)) => {
                if stream.set_nonblocking(true).is_ok()
                    && let Ok(stream) = TcpStream::from_std(stream)
                {
                    waiting.push((stream, canonical(peer)));
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if AcceptError::from(&error) == AcceptError::Gone => {}
            Err(_) => break,
        }
    }
    waiting
}

/// Why accept gave no connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AcceptError {
    /// The client, or the network, took this one connection back; the next may be fine.
    Gone,
    /// This process or this host is out of file descriptors.
    Files,
    /// The kernel is out of memory for sockets.
    Memory,
    /// Nothing that passes by itself, as far as is known.
    Other(io::ErrorKind),
}

impl AcceptError {
    /// The name under which it is counted.
    pub fn name(self) -> &'static str {
        match self {
            Self::Gone => "gone",
            Self::Files => "files",
            Self::Memory => "memory",
            Self::Other(_) => "other",
        }
    }
}

impl From<&io::Error> for AcceptError {
    fn from(error: &io::Error) -> Self {
        match Errno::from_io_error(error) {
            Some(Errno::MFILE | Errno::NFILE) => Self::Files,
            Some(Errno::NOBUFS | Errno::NOMEM) => Self::Memory,
            // accept(2): Linux passes errors that already wait on the new socket; they concern that connection alone.
            Some(
                Errno::CONNABORTED
                | Errno::INTR
                | Errno::PROTO
                | Errno::NOPROTOOPT
                | Errno::NETDOWN
                | Errno::NETUNREACH
                | Errno::HOSTDOWN
                | Errno::HOSTUNREACH
                | Errno::NONET
                | Errno::TIMEDOUT,
            ) => Self::Gone,
            _ => Self::Other(error.kind()),
        }
    }
}

impl fmt::Display for AcceptError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gone => f.write_str("the client was gone before it was accepted"),
            Self::Files => f.write_str("no file descriptor left for a connection; raise the limit on open files"),
            Self::Memory => f.write_str("no kernel memory left for a connection; look at net.ipv4.tcp_mem"),
            Self::Other(kind) => write!(f, "cannot accept: {kind}"),
        }
    }
}

impl std::error::Error for AcceptError {}

/// Connections that may wait for a worker; the kernel cuts it to net.core.somaxconn.
const BACKLOG: i32 = 4096;
/// More than two full backlogs do not wait, they arrive: clients that keep coming must not hold up the end.
const DRAIN_MAX: usize = 2 * BACKLOG as usize;
/// The first wait after a failure: short enough not to be felt when one descriptor was missing for a moment.
const PAUSE_MIN: Duration = Duration::from_millis(10);
/// The longest wait: at one try a second a lasting shortage costs nothing and its end is seen soon.
const PAUSE_MAX: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    fn any() -> SocketAddr {
        "127.0.0.1:0".parse().unwrap()
    }

    fn listening(address: SocketAddr, transparent: bool) -> StdListener {
        let listener = bind(address, transparent).unwrap();
        listen(&listener).unwrap();
        listener
    }

    #[tokio::test(flavor = "local")]
    async fn what_is_only_bound_takes_no_connection_from_what_listens() {
        let first = listening(any(), false);
        let address = first.local_addr().unwrap();
        let others: Vec<_> = (0..8).map(|_| bind(address, false).unwrap()).collect();
        let clients: Vec<_> = (0..50).map(|_| std::net::TcpStream::connect(address).unwrap()).collect();
        drop(others);
        assert_eq!(Acceptor::new(first).unwrap().drain().unwrap().len(), clients.len());
    }

    #[test]
    fn two_workers_bind_the_same_address() {
        let first = listening(any(), false);
        listening(first.local_addr().unwrap(), false);
    }

    #[test]
    fn only_a_transparent_unspecified_listener_takes_both_families() {
        let reached = |transparent| {
            let listener = listening("[::]:0".parse().unwrap(), transparent);
            let port = listener.local_addr().unwrap().port();
            std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()
        };
        assert!(reached(true));
        assert!(!reached(false));
    }

    #[tokio::test(flavor = "local")]
    async fn accepted_connections_inherit_the_options() {
        let mut acceptor = Acceptor::new(listening(any(), false)).unwrap();
        let address = acceptor.local_addr().unwrap();
        let client = TcpStream::connect(address).await.unwrap();
        let (stream, peer) = acceptor.accept().await.unwrap();
        assert_eq!(peer, client.local_addr().unwrap());
        assert!(stream.nodelay().unwrap());
        let socket = socket2::SockRef::from(&stream);
        assert!(socket.keepalive().unwrap());
        assert_eq!(socket.tcp_keepalive_time().unwrap(), super::super::KEEPALIVE);
    }

    #[tokio::test(flavor = "local")]
    async fn a_mapped_peer_is_an_ipv4_peer() {
        let mut acceptor = Acceptor::new(listening("[::]:0".parse().unwrap(), true)).unwrap();
        let address = SocketAddr::new([127, 0, 0, 1].into(), acceptor.local_addr().unwrap().port());
        let _client = TcpStream::connect(address).await.unwrap();
        assert!(acceptor.accept().await.unwrap().1.is_ipv4());
    }

    #[tokio::test(flavor = "local")]
    async fn what_waits_is_served_when_the_listener_closes() {
        let listener = listening(any(), false);
        let address = listener.local_addr().unwrap();
        let mut clients = Vec::new();
        for _ in 0..100 {
            clients.push(TcpStream::connect(address).await.unwrap());
        }
        let mut waiting = Acceptor::new(listener).unwrap().drain().unwrap();
        assert_eq!(waiting.len(), 100);
        assert!(TcpStream::connect(address).await.is_err(), "the listener is closed");
        for (stream, _) in &mut waiting {
            stream.write_all(b"x").await.unwrap();
        }
        for client in &mut clients {
            assert_eq!(client.read_u8().await.unwrap(), b'x');
        }
    }

    #[tokio::test(flavor = "local")]
    async fn an_accept_that_fails_is_not_repeated_at_once() {
        // A socket that does not listen fails as a shortage does: at every call.
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind(any()).unwrap();
        let owned: std::os::fd::OwnedFd = socket2::SockRef::from(&socket).try_clone().unwrap().into();
        let mut acceptor = Acceptor::new(owned.into()).unwrap();
        let start = Instant::now();
        let mut waits = Vec::new();
        for _ in 0..5 {
            assert!(matches!(acceptor.accept().await, Err(AcceptError::Other(_))));
            waits.push(start.elapsed());
        }
        assert!(waits[1] >= PAUSE_MIN && waits[4] >= PAUSE_MIN * (1 + 2 + 4 + 8), "{waits:?}");
        assert!(acceptor.pause <= PAUSE_MAX);
    }

    #[test]
    fn a_shortage_is_told_from_a_client_that_left() {
        let of = |errno: Errno| AcceptError::from(&io::Error::from(errno));
        assert_eq!(of(Errno::MFILE), AcceptError::Files);
        assert_eq!(of(Errno::NFILE), AcceptError::Files);
        assert_eq!(of(Errno::NOBUFS), AcceptError::Memory);
        assert_eq!(of(Errno::NOMEM), AcceptError::Memory);
        assert_eq!(of(Errno::CONNABORTED), AcceptError::Gone);
        // Also what a security module answers to every call: it must not be asked again at once.
        assert!(matches!(of(Errno::PERM), AcceptError::Other(_)));
    }
}
