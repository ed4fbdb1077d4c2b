//! Opens a connection to an upstream, marked so that the redirect rules let it pass. Which upstream, how often to try
//! and what to answer instead are decided elsewhere.

use std::{
    fmt, io,
    net::SocketAddr,
    os::fd::AsFd,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    time::Duration,
};

use rustix::io::Errno;
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::net::TcpStream;

use super::{keepalive, own_ends};

/// Connects within `timeout`. The mark needs CAP_NET_ADMIN; without it the proxy's user id must keep its traffic out of
/// the redirect rules.
pub async fn connect(address: SocketAddr, timeout: Duration, mark: Option<u32>) -> Result<TcpStream, ConnectError> {
    let stream = begin(address, mark)?;
    match tokio::time::timeout(timeout, stream.writable()).await {
        Ok(woken) => woken?,
        Err(_) => return Err(ConnectError::Timeout),
    }
    if let Some(error) = stream.take_error()? {
        return Err(error.into());
    }
    match is_own_end(&stream) {
        true => Err(ConnectError::Refused),
        false => Ok(stream),
    }
}

/// A connection under way, noted before this thread could accept it from itself.
fn begin(address: SocketAddr, mark: Option<u32>) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_keepalive(&keepalive())?;
    if let Some(mark) = mark {
        set_mark(&socket, mark)?;
    }
    match socket.connect(&address.into()) {
        Err(error) if Errno::from_io_error(&error) != Some(Errno::INPROGRESS) => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let stream = TcpStream::from_std(socket.into())?;
    own_ends::note(stream.local_addr()?, address);
    Ok(stream)
}

/// The first refusal holds for the life of the process: capabilities do not come back.
fn set_mark(socket: &impl AsFd, mark: u32) -> io::Result<()> {
    if MARK_REFUSED.load(Relaxed) {
        return Ok(());
    }
    match SockRef::from(socket).set_mark(mark) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            MARK_REFUSED.store(true, Relaxed);
            Ok(())
        }
        result => result,
    }
}

/// Whether this process may mark its packets, as far as has been tried.
pub fn may_mark() -> bool {
    !MARK_REFUSED.load(Relaxed)
}

/// TCP connects a socket to itself when nobody listens on a local port that the kernel happens to choose as the source
/// port too (RFC 9293 section 3.5, simultaneous open). Nobody listens, so this is a refusal.
fn is_own_end(stream: &TcpStream) -> bool {
    matches!((stream.local_addr(), stream.peer_addr()), (Ok(local), Ok(peer)) if local == peer)
}

/// The mark of what the redirect rules let pass.
pub const MARK: u32 = 0x14;
static MARK_REFUSED: AtomicBool = AtomicBool::new(false);

/// Why there is no connection. No byte was sent, so another address may always be tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ConnectError {
    /// The host answered that nobody listens.
    Refused,
    Timeout,
    /// No way to the host, or a firewall that says so.
    Unreachable,
    /// This proxy is out of file descriptors.
    Files,
    /// This proxy is out of source ports towards that address.
    Ports,
    Other(io::ErrorKind),
}

impl ConnectError {
    /// The name under which it is counted.
    pub fn name(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::Timeout => "timeout",
            Self::Unreachable => "unreachable",
            Self::Files => "files",
            Self::Ports => "ports",
            Self::Other(_) => "other",
        }
    }

    /// Whether the upstream may be blamed, as opposed to this proxy and its host.
    pub fn is_upstream(self) -> bool {
        match self {
            Self::Refused | Self::Timeout | Self::Unreachable | Self::Other(_) => true,
            Self::Files | Self::Ports => false,
        }
    }
}

impl From<io::Error> for ConnectError {
    fn from(error: io::Error) -> Self {
        match Errno::from_io_error(&error) {
            Some(Errno::CONNREFUSED) => Self::Refused,
            Some(Errno::TIMEDOUT) => Self::Timeout,
            Some(
                Errno::HOSTUNREACH
                | Errno::NETUNREACH
                | Errno::HOSTDOWN
                | Errno::NETDOWN
                | Errno::ACCESS
                | Errno::PERM
                | Errno::AFNOSUPPORT,
            ) => Self::Unreachable,
            Some(Errno::MFILE | Errno::NFILE) => Self::Files,
            Some(Errno::ADDRNOTAVAIL) => Self::Ports,
            _ => Self::Other(error.kind()),
        }
    }
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused => f.write_str("connection refused: nothing listens there, maybe it is starting"),
            Self::Timeout => f.write_str("no answer in time: maybe the host is gone or a NetworkPolicy drops packets"),
            Self::Unreachable => f.write_str("no route to the host, or a firewall rejects it"),
            Self::Files => f.write_str("this proxy has no file descriptor left; raise the limit on open files"),
            Self::Ports => f.write_str("this proxy has no source port left; look at net.ipv4.ip_local_port_range"),
            Self::Other(kind) => write!(f, "cannot connect: {kind}"),
        }
    }
}

impl std::error::Error for ConnectError {}

#[cfg(test)]
mod tests {
    use tokio::net::{TcpListener, TcpSocket};

    use super::*;

    const LONG: Duration = Duration::from_secs(30);

    #[tokio::test(flavor = "local")]
    async fn a_connection_has_no_delay_and_is_kept_alive() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stream = connect(listener.local_addr().unwrap(), LONG, None).await.unwrap();
        assert!(stream.nodelay().unwrap());
        let socket = SockRef::from(&stream);
        assert!(socket.keepalive().unwrap());
        assert_eq!(socket.tcp_keepalive_time().unwrap(), super::super::KEEPALIVE);
    }

    #[tokio::test(flavor = "local")]
    async fn the_mark_is_set_where_permitted_and_forgotten_where_not() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stream = connect(listener.local_addr().unwrap(), LONG, Some(0x14)).await.unwrap();
        let marked = SockRef::from(&stream).mark().unwrap_or_default();
        assert_eq!(marked, if may_mark() { 0x14 } else { 0 });
    }

    #[tokio::test(flavor = "local")]
    async fn failures_have_names() {
        let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        assert_eq!(connect(closed, LONG, None).await.unwrap_err(), ConnectError::Refused);
        let of = |errno: Errno| ConnectError::from(io::Error::from(errno));
        assert_eq!(of(Errno::TIMEDOUT), ConnectError::Timeout);
        assert_eq!(of(Errno::HOSTUNREACH), ConnectError::Unreachable);
        assert_eq!(of(Errno::MFILE), ConnectError::Files);
        assert_eq!(of(Errno::ADDRNOTAVAIL), ConnectError::Ports);
        assert!(!ConnectError::Files.is_upstream());
    }

    #[tokio::test(flavor = "local")]
    async fn no_answer_ends_with_the_timeout() {
        // A listener whose queue is full drops further attempts without a word.
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let listener = socket.listen(0).unwrap();
        let address = listener.local_addr().unwrap();
        let short = Duration::from_millis(200);
        let mut held = Vec::new();
        for _ in 0..8 {
            match connect(address, short, None).await {
                Ok(stream) => held.push(stream),
                Err(error) => return assert_eq!(error, ConnectError::Timeout),
            }
        }
        panic!("the queue never filled");
    }

    #[tokio::test(flavor = "local")]
    async fn a_socket_connected_to_itself_is_recognised() {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let own = socket.local_addr().unwrap();
        let stream = socket.connect(own).await.unwrap();
        assert!(is_own_end(&stream));
    }
}
