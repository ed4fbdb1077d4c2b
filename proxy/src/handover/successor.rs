//! The successor's side: ask for the sockets, check each, and say when they are served. Blocking; used before the
//! workers start, and once more for `ready`, which is answered at once.

use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::thread;
use std::time::Duration;

use tokio::time::Instant;

use rustix::io::Errno;
use rustix::net::sockopt::{self, Timeout};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};

use super::message::{Entry, Message};
use super::wire::{check_peer, receive, send};
use super::{ANSWER_WAIT, HandoverError, SOCKETS, Socket, call};

/// Everything that a running proxy listened on.
#[derive(Debug)]
pub struct Inheritance {
    pub sockets: Vec<Socket>,
    pub confirm: Confirm,
}

/// The predecessor's wait. Dropped without [`ready`](Confirm::ready), it tells the predecessor to go on as before.
#[derive(Debug)]
pub struct Confirm {
    link: OwnedFd,
}

/// Takes the sockets of the proxy that listens on `path`; `None` when there is none, as on a first start.
pub fn take(path: &Path, timeout: Duration) -> Result<Option<Inheritance>, HandoverError> {
    let deadline = Instant::now() + timeout;
    loop {
        let Some(link) = open(path, deadline)? else { return Ok(None) };
        match receive_sockets(&link, deadline) {
            Ok(sockets) => return Ok(Some(Inheritance { sockets, confirm: Confirm { link } })),
            // A predecessor that was just replaced closes its queue: its successor listens at the same path.
            Err(HandoverError::Closed(_)) if Instant::now() + RETRY_PAUSE < deadline => thread::sleep(RETRY_PAUSE),
            Err(error) => return Err(error),
        }
    }
}

impl Confirm {
    /// Says that the sockets are served here, and waits until the predecessor has let go of them. After an error the
    /// predecessor serves on: this process should not.
    pub fn ready(self) -> Result<(), HandoverError> {
        let deadline = Instant::now() + ANSWER_WAIT;
        tell(&self.link, &Message::Ready, deadline)?;
        match hear(&self.link, deadline, "the predecessor's word that the sockets are taken")? {
            (Message::Taken, _) => Ok(()),
            _ => Err(HandoverError::Malformed("another message in place of `taken`")),
        }
    }
}

fn open(path: &Path, deadline: Instant) -> Result<Option<OwnedFd>, HandoverError> {
    let address = SocketAddrUnix::new(path).map_err(call("use the handover path"))?;
    let link = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
        .map_err(call("make the handover socket"))?;
    limit(&link, Timeout::Send, deadline, CONNECTING)?;
    match connect(&link, &address) {
        Ok(()) => {}
        Err(Errno::NOENT | Errno::CONNREFUSED) => return Ok(None),
        Err(Errno::AGAIN) => return Err(HandoverError::TimedOut(CONNECTING)),
        Err(errno) => return Err(HandoverError::Call("connect to the predecessor", errno.into())),
    }
    check_peer(&link)?;
    Ok(Some(link))
}

fn receive_sockets(link: &OwnedFd, deadline: Instant) -> Result<Vec<Socket>, HandoverError> {
    tell(link, &Message::Hello, deadline)?;
    let mut sockets = Vec::new();
    loop {
        let (message, fds) = hear(link, deadline, "the predecessor's sockets")?;
        let Message::Sockets { entries, last } = message else {
            return Err(HandoverError::Malformed("another message in place of the sockets"));
        };
        if entries.is_empty() && !last || sockets.len() + entries.len() > SOCKETS {
            return Err(HandoverError::Malformed("too many sockets, or a message with none"));
        }
        for (entry, fd) in entries.into_iter().zip(fds) {
            sockets.push(adopt(entry, fd)?);
        }
        if last {
            return Ok(sockets);
        }
    }
}

/// Believes of a descriptor only what the kernel says of it.
fn adopt(entry: Entry, fd: OwnedFd) -> Result<Socket, HandoverError> {
    const NO_LISTENER: HandoverError = HandoverError::Malformed("a descriptor that is no listening TCP socket");
    let kind = (sockopt::socket_type(&fd), sockopt::socket_domain(&fd), sockopt::socket_acceptconn(&fd));
    let (Ok(SocketType::STREAM), Ok(AddressFamily::INET | AddressFamily::INET6), Ok(true)) = kind else {
        return Err(NO_LISTENER);
    };
    let listener = TcpListener::from(fd);
    let address = listener.local_addr().map_err(|_| NO_LISTENER)?;
    if !same(entry.address, address) {
        return Err(HandoverError::Malformed("a socket that is bound to another address than it says"));
    }
    listener.set_nonblocking(true).map_err(|cause| HandoverError::Call("make a socket non-blocking", cause))?;
    Ok(Socket { name: entry.name, address, listener })
}

/// Whether a configured address, whose port may be 0, is the one that is bound.
pub fn same(configured: SocketAddr, bound: SocketAddr) -> bool {
    configured.ip() == bound.ip() && (configured.port() == 0 || configured.port() == bound.port())
}

fn tell(link: &OwnedFd, message: &Message, deadline: Instant) -> Result<(), HandoverError> {
    const WHAT: &str = "the predecessor's reading";
    limit(link, Timeout::Send, deadline, WHAT)?;
    match send(link, message, &[]) {
        Ok(()) => Ok(()),
        Err(Errno::AGAIN) => Err(HandoverError::TimedOut(WHAT)),
        Err(Errno::PIPE | Errno::CONNRESET) => Err(HandoverError::Closed(WHAT)),
        Err(errno) => Err(HandoverError::Call("send to the predecessor", errno.into())),
    }
}

fn hear(link: &OwnedFd, deadline: Instant, waiting: &'static str) -> Result<(Message, Vec<OwnedFd>), HandoverError> {
    limit(link, Timeout::Recv, deadline, waiting)?;
    match receive(link) {
        Ok(packet) => packet.open(waiting),
        Err(Errno::AGAIN) => Err(HandoverError::TimedOut(waiting)),
        Err(Errno::CONNRESET) => Err(HandoverError::Closed(waiting)),
        Err(errno) => Err(HandoverError::Call("receive from the predecessor", errno.into())),
    }
}

fn limit(link: impl AsFd, which: Timeout, deadline: Instant, waiting: &'static str) -> Result<(), HandoverError> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() {
        return Err(HandoverError::TimedOut(waiting));
    }
    // Below a microsecond the kernel would read "for ever".
    let left = left.max(Duration::from_millis(1));
    sockopt::set_socket_timeout(link, which, Some(left)).map_err(call("limit the wait on the handover socket"))
}

const CONNECTING: &str = "the connection to the predecessor";
/// Between two tries while one predecessor makes way for the next.
const RETRY_PAUSE: Duration = Duration::from_millis(10);
