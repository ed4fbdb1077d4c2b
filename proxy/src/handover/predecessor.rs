//! The predecessor's side: listen at the path, offer the sockets to one successor at a time, and let go of them once
//! one has said that it serves. Runs on the background runtime.

use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener as StdListener;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::time::Duration;
use std::{fs, io};

use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, listen, socket_with};
use tokio::io::Interest;
use tokio::net::{UnixListener, UnixStream};
use tokio::time::{Instant, sleep, timeout};

use super::message::{CHUNK, Entry, Message, check_name};
use super::wire::{check_peer, receive, send};
use super::{ANSWER_WAIT, HandoverError, READY_WAIT, SOCKETS, call};

/// Listens on `path` and returns once a successor has taken the sockets; a successor that fails changes nothing.
/// `sockets` is asked anew for each successor; `on_taken` must make this process stop accepting. After `enough` no
/// conversation begins, and one that is under way comes to its end.
pub async fn serve<S, T>(
    path: &Path,
    sockets: S,
    on_taken: T,
    enough: impl Future<Output = ()>,
) -> Result<(), HandoverError>
where
    S: Fn() -> Vec<(String, SocketAddr, OwnedFd)>,
    T: FnOnce(),
{
    let door = Door::open(path)?;
    let mut enough = pin!(enough);
    loop {
        let accepted = tokio::select! {
            accepted = door.socket.accept() => accepted,
            () = &mut enough => return Ok(()),
        };
        let link = match accepted {
            Ok((link, _)) => link,
            Err(error) => {
                tracing::warn!(%error, "handover: cannot accept a successor");
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        match offer(&link, sockets()).await {
            Ok(()) => break,
            Err(error) => tracing::warn!(%error, "handover: the successor failed, this proxy serves on"),
        }
    }
    on_taken();
    door.outlive().await;
    Ok(())
}

/// One conversation. Returns when the successor has the sockets for good.
async fn offer(link: &UnixStream, sockets: Vec<(String, SocketAddr, OwnedFd)>) -> Result<(), HandoverError> {
    check_peer(link)?;
    match hear(link, ANSWER_WAIT, "the successor's hello").await {
        Ok(Message::Hello) => {}
        Ok(_) => return Err(HandoverError::Malformed("another message in place of `hello`")),
        Err(error) => {
            if let HandoverError::Version { .. } = error {
                tell(link, &Message::Refuse, &[]).await?;
            }
            return Err(error);
        }
    }
    if sockets.len() > SOCKETS {
        return Err(HandoverError::Malformed("more sockets than a handover carries"));
    }
    let count = sockets.len().div_ceil(CHUNK).max(1);
    for index in 0..count {
        let chunk = sockets.iter().skip(index * CHUNK).take(CHUNK);
        let mut entries = Vec::new();
        let mut fds: Vec<BorrowedFd<'_>> = Vec::new();
        for (name, address, fd) in chunk {
            check_name(name)?;
            entries.push(Entry { name: name.clone(), address: *address });
            fds.push(fd.as_fd());
        }
        tell(link, &Message::Sockets { entries, last: index + 1 == count }, &fds).await?;
    }
    drop(sockets);
    match hear(link, READY_WAIT, "the successor's readiness").await? {
        Message::Ready => tell(link, &Message::Taken, &[]).await,
        _ => Err(HandoverError::Malformed("another message in place of `ready`")),
    }
}

async fn tell(link: &UnixStream, message: &Message, fds: &[BorrowedFd<'_>]) -> Result<(), HandoverError> {
    let sent = link.async_io(Interest::WRITABLE, || Ok(send(link, message, fds)?));
    match timeout(ANSWER_WAIT, sent).await {
        Err(_) => Err(HandoverError::TimedOut("the successor's reading")),
        Ok(sent) => sent.map_err(|cause| ended(cause, "the successor's reading", "send to the successor")),
    }
}

async fn hear(link: &UnixStream, wait: Duration, waiting: &'static str) -> Result<Message, HandoverError> {
    let packet = link.async_io(Interest::READABLE, || Ok(receive(link)?));
    match timeout(wait, packet).await {
        Err(_) => Err(HandoverError::TimedOut(waiting)),
        Ok(Err(cause)) => Err(ended(cause, waiting, "receive from the successor")),
        // What a successor sends along is dropped, and so closed.
        Ok(Ok(packet)) => packet.open(waiting).map(|(message, _)| message),
    }
}

fn ended(cause: io::Error, waiting: &'static str, what: &'static str) -> HandoverError {
    match cause.kind() {
        io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => HandoverError::Closed(waiting),
        _ => HandoverError::Call(what, cause),
    }
}

/// The listening Unix socket and the file that it is known by. It carries packets; the types' names notwithstanding,
/// the runtime treats them as streams, and only [`send`] and [`receive`] read and write.
struct Door {
    socket: UnixListener,
    path: PathBuf,
    file: Option<(u64, u64)>,
}

impl Door {
    /// Binds a name of its own and renames it over `path`, so that at no time nobody listens there.
    fn open(path: &Path) -> Result<Self, HandoverError> {
        match fs::symlink_metadata(path) {
            Ok(found) if !found.file_type().is_socket() => return Err(HandoverError::Occupied(path.to_owned())),
            _ => {}
        }
        let mut name = path.as_os_str().to_owned();
        name.push(format!(".{}", rustix::process::getpid().as_raw_nonzero()));
        let name = PathBuf::from(name);
        let _ = fs::remove_file(&name); // left by a process that had this id and died here
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)
            .map_err(call("make the handover socket"))?;
        let address = SocketAddrUnix::new(&name).map_err(call("use the handover path"))?;
        bind(&socket, &address).map_err(call("bind the handover socket"))?;
        let shown = || {
            fs::set_permissions(&name, fs::Permissions::from_mode(0o600))?;
            listen(&socket, QUEUE)?;
            let file = identity(&name);
            fs::rename(&name, path)?;
            let socket = UnixListener::from_std(StdListener::from(socket))?;
            Ok(Self { socket, path: path.to_owned(), file })
        };
        shown().map_err(|cause| {
            let _ = fs::remove_file(&name);
            HandoverError::Call("listen on the handover socket", cause)
        })
    }

    /// Keeps the queue until the successor listens at the path: who connects in between waits, sees the queue closed,
    /// and finds the successor at the second try. With nobody here it would think that it is the first.
    async fn outlive(self) {
        let deadline = Instant::now() + ANSWER_WAIT;
        while identity(&self.path) == self.file && Instant::now() < deadline {
            sleep(RENAME_PAUSE).await;
        }
    }
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    fs::symlink_metadata(path).ok().map(|found| (found.dev(), found.ino()))
}

/// Successors that wait for the one before them to fail.
const QUEUE: i32 = 8;
/// After a failed accept (no file descriptors left), so that it does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Between two looks at who listens at the path.
const RENAME_PAUSE: Duration = Duration::from_millis(20);
