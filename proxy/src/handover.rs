//! Replacing a running proxy: the successor takes over its listening sockets, and what waits in their accept queues,
//! over a Unix socket (SCM_RIGHTS). `take` is called by a starting proxy before its workers, `serve` by a running one.
//!
//! ```text
//!   successor                                predecessor
//!   connect PATH        ── both check the other's uid ──
//!   hello               ──────────────────▶
//!                       ◀──────────────────  sockets (at most 64 a message, the last one says so)
//!   adopts, accepts; both accept for a while
//!   ready               ──────────────────▶
//!                       ◀──────────────────  taken: from here on the sockets are the successor's
//!   listens on PATH                          stops accepting, drains
//! ```
//! Whatever fails before `taken` leaves the predecessor as it was. Not here: what is done with a socket, and draining.

mod assign;
mod message;
mod predecessor;
mod successor;
#[cfg(test)]
mod tests;
mod wire;

use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::time::Duration;

pub use assign::{Assignment, Bind, assign, pick};
pub use message::fuzz_handover;
pub use predecessor::serve;
pub use successor::{Confirm, Inheritance, take};

/// A listening socket that came from the predecessor.
#[derive(Debug)]
pub struct Socket {
    pub name: String,
    /// The address that it is bound to.
    pub address: SocketAddr,
    pub listener: TcpListener,
}

/// Why a handover did not happen. The predecessor serves on, whichever it is.
#[derive(Debug)]
pub enum HandoverError {
    /// A call on the handover socket failed.
    Call(&'static str, io::Error),
    /// Something that is not a socket stands at the configured path.
    Occupied(PathBuf),
    /// The process at the other end runs as another user.
    Stranger { uid: u32 },
    /// The process at the other end speaks another version of this protocol.
    Version { theirs: u16 },
    /// The other end sent what this protocol has no place for.
    Malformed(&'static str),
    /// The other end did not do this in time.
    TimedOut(&'static str),
    /// The other end closed the connection while this was awaited.
    Closed(&'static str),
}

impl fmt::Display for HandoverError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Call(what, cause) => write!(f, "handover: cannot {what}: {cause}"),
            Self::Occupied(path) => {
                write!(f, "handover: {} exists and is no socket; remove it or configure another path", path.display())
            }
            Self::Stranger { uid } => write!(
                f,
                "handover: the process at the other end runs as uid {uid}; only the same user and root may take part"
            ),
            Self::Version { theirs } => write!(
                f,
                "handover: the other proxy speaks version {theirs} of the protocol, this one {VERSION}; \
                 stop the old one before the new one starts"
            ),
            Self::Malformed(what) => write!(f, "handover: malformed message: {what}"),
            Self::TimedOut(what) => write!(f, "handover: timed out: {what}"),
            Self::Closed(what) => write!(f, "handover: the other proxy closed the connection: {what}"),
        }
    }
}

impl std::error::Error for HandoverError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Call(_, cause) => Some(cause),
            Self::Occupied(_)
            | Self::Stranger { .. }
            | Self::Version { .. }
            | Self::Malformed(_)
            | Self::TimedOut(_)
            | Self::Closed(_) => None,
        }
    }
}

/// Names a call for [`HandoverError::Call`].
fn call(what: &'static str) -> impl Fn(rustix::io::Errno) -> HandoverError {
    move |errno| HandoverError::Call(what, errno.into())
}

/// Raised whenever a message changes. The head of a message and [`message::Message::Refuse`] never change.
const VERSION: u16 = 1;
/// Sockets in all. More than any machine has workers × listeners; bounds what a broken peer makes this process hold.
const SOCKETS: usize = 4096;
/// The wait for a message that the other end has no work to do for.
const ANSWER_WAIT: Duration = Duration::from_secs(5);
/// The wait for `ready`: a successor starts its workers first.
const READY_WAIT: Duration = Duration::from_secs(60);
