//! One packet of bytes and file descriptors, sent or received whole (SOCK_SEQPACKET). Knows sockets, not the messages'
//! order; both sides use it, the successor with a blocking socket and the predecessor with a non-blocking one.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::{Errno, retry_on_intr};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg, sockopt,
};

use super::HandoverError;
use super::message::{CHUNK, MESSAGE_BYTES, Message};

/// Sends one message; the descriptors must be at most [`CHUNK`].
pub fn send(link: impl AsFd, message: &Message, fds: &[BorrowedFd<'_>]) -> Result<(), Errno> {
    let bytes = message.encode();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(CHUNK))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(Errno::TOOMANYREFS);
    }
    retry_on_intr(|| sendmsg(&link, &[IoSlice::new(&bytes)], &mut control, SendFlags::NOSIGNAL))?;
    Ok(())
}

/// One packet as it came, before anything in it is believed. Dropping it closes the descriptors.
pub struct Packet {
    bytes: Vec<u8>,
    fds: Vec<OwnedFd>,
    flags: ReturnFlags,
}

/// Receives one packet.
pub fn receive(link: impl AsFd) -> Result<Packet, Errno> {
    let mut bytes = vec![0; MESSAGE_BYTES];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(CHUNK))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received =
        retry_on_intr(|| recvmsg(&link, &mut [IoSliceMut::new(&mut bytes)], &mut control, RecvFlags::CMSG_CLOEXEC))?;
    bytes.truncate(received.bytes);
    let mut fds = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            fds.extend(rights);
        }
    }
    Ok(Packet { bytes, fds, flags: received.flags })
}

impl Packet {
    /// The message and the descriptors that belong to it; `waiting` says what the end of the connection would mean.
    pub fn open(self, waiting: &'static str) -> Result<(Message, Vec<OwnedFd>), HandoverError> {
        if self.bytes.is_empty() && self.fds.is_empty() {
            return Err(HandoverError::Closed(waiting));
        }
        if self.flags.contains(ReturnFlags::TRUNC) {
            return Err(HandoverError::Malformed("longer than any message"));
        }
        if self.flags.contains(ReturnFlags::CTRUNC) {
            return Err(HandoverError::Malformed(
                "not all sockets arrived: more than 64 in one message, or this process's limit of open files is reached",
            ));
        }
        let message = Message::decode(&self.bytes)?;
        let expected = match &message {
            Message::Sockets { entries, .. } => entries.len(),
            Message::Hello | Message::Ready | Message::Taken | Message::Refuse => 0,
        };
        if self.fds.len() != expected {
            return Err(HandoverError::Malformed("it names another number of sockets than came with it"));
        }
        Ok((message, self.fds))
    }
}

/// Refuses the other end unless it runs as this process's user or as root.
pub fn check_peer(link: impl AsFd) -> Result<(), HandoverError> {
    let peer = sockopt::socket_peercred(link).map_err(super::call("read the other process's user"))?;
    if peer.uid.is_root() || peer.uid == rustix::process::geteuid() {
        Ok(())
    } else {
        Err(HandoverError::Stranger { uid: peer.uid.as_raw() })
    }
}
