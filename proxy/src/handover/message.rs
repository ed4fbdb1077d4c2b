//! The messages of a handover as bytes: magic, version, kind, body. Pure; each message is one packet of the socket.

use std::net::SocketAddr;

use super::{HandoverError, VERSION};

#[derive(Debug, PartialEq, Eq)]
pub enum Message {
    /// The successor asks for the sockets.
    Hello,
    /// Some of the sockets, in the order of the file descriptors that come with the message.
    Sockets { entries: Vec<Entry>, last: bool },
    /// The successor accepts connections.
    Ready,
    /// The predecessor will not accept any more.
    Taken,
    /// The predecessor does not speak the successor's version. Its own stands in the head.
    Refuse,
}

#[derive(Debug, PartialEq, Eq)]
pub struct Entry {
    pub name: String,
    pub address: SocketAddr,
}

impl Message {
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend(VERSION.to_be_bytes());
        match self {
            Self::Hello => bytes.push(HELLO),
            Self::Sockets { entries, last } => {
                bytes.push(SOCKETS);
                bytes.push(u8::from(*last));
                bytes.push(entries.len().min(CHUNK) as u8);
                for entry in entries.iter().take(CHUNK) {
                    put(&mut bytes, entry.name.as_bytes());
                    put(&mut bytes, entry.address.to_string().as_bytes());
                }
            }
            Self::Ready => bytes.push(READY),
            Self::Taken => bytes.push(TAKEN),
            Self::Refuse => bytes.push(REFUSE),
        }
        bytes
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, HandoverError> {
        let mut reader = Reader(bytes);
        if reader.take(MAGIC.len())? != MAGIC {
            return Err(HandoverError::Malformed("it does not begin as a handover does"));
        }
        let theirs = u16::from_be_bytes([reader.byte()?, reader.byte()?]);
        if theirs != VERSION {
            return Err(HandoverError::Version { theirs });
        }
        let message = match reader.byte()? {
            HELLO => Self::Hello,
            SOCKETS => reader.sockets()?,
            READY => Self::Ready,
            TAKEN => Self::Taken,
            REFUSE => Self::Refuse,
            _ => return Err(HandoverError::Malformed("an unknown kind")),
        };
        match reader.0 {
            [] => Ok(message),
            _ => Err(HandoverError::Malformed("bytes after its end")),
        }
    }
}

/// Appends a string with its length; what does not fit is cut, which [`check_name`] rules out for names.
fn put(bytes: &mut Vec<u8>, text: &[u8]) {
    let text = text.get(..NAME_BYTES).unwrap_or(text);
    bytes.push(text.len() as u8);
    bytes.extend(text);
}

/// Whether a listener's name fits a message.
pub fn check_name(name: &str) -> Result<(), HandoverError> {
    match name.len() {
        1..=NAME_BYTES => Ok(()),
        _ => Err(HandoverError::Malformed("a listener's name must have 1 to 128 bytes")),
    }
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], HandoverError> {
        let (head, rest) = self.0.split_at_checked(count).ok_or(HandoverError::Malformed("it ends too early"))?;
        self.0 = rest;
        Ok(head)
    }

    fn byte(&mut self) -> Result<u8, HandoverError> {
        match self.take(1)? {
            [byte] => Ok(*byte),
            _ => Err(HandoverError::Malformed("it ends too early")),
        }
    }

    fn text(&mut self) -> Result<&'a str, HandoverError> {
        let count = usize::from(self.byte()?);
        if count > NAME_BYTES {
            return Err(HandoverError::Malformed("a text of more than 128 bytes"));
        }
        std::str::from_utf8(self.take(count)?).map_err(|_| HandoverError::Malformed("a text that is not UTF-8"))
    }

    fn sockets(&mut self) -> Result<Message, HandoverError> {
        let last = match self.byte()? {
            0 => false,
            1 => true,
            _ => return Err(HandoverError::Malformed("a flag that is neither 0 nor 1")),
        };
        let count = usize::from(self.byte()?);
        if count > CHUNK {
            return Err(HandoverError::Malformed("more than 64 sockets in one message"));
        }
        let mut entries = Vec::with_capacity(count);
        for _ in 0..count {
            let name = self.text()?.to_owned();
            check_name(&name)?;
            let address = self.text()?.parse().map_err(|_| HandoverError::Malformed("an address that is none"))?;
            entries.push(Entry { name, address });
        }
        Ok(Message::Sockets { entries, last })
    }
}

const MAGIC: &[u8] = b"spanmesh-handover";
const HELLO: u8 = 1;
const SOCKETS: u8 = 2;
const READY: u8 = 3;
const TAKEN: u8 = 4;
const REFUSE: u8 = 5;
/// Sockets in one message; the kernel allows 253 (SCM_MAX_FD).
pub const CHUNK: usize = 64;
/// Of a name or an address.
const NAME_BYTES: usize = 128;
/// Of one message: the head and 64 entries of two full texts.
pub const MESSAGE_BYTES: usize = 64 + CHUNK * 2 * (NAME_BYTES + 1);

/// Any bytes: no panic, within the limits, and what is understood is written back as it was understood.
pub fn fuzz_handover(data: &[u8]) {
    let Ok(message) = Message::decode(data) else { return };
    if let Message::Sockets { entries, .. } = &message {
        assert!(entries.len() <= CHUNK);
    }
    let bytes = message.encode();
    assert!(bytes.len() <= MESSAGE_BYTES);
    assert_eq!(Message::decode(&bytes).expect("decodes what it wrote"), message);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sockets(count: usize) -> Message {
        let entry = |i| Entry { name: format!("in{i}"), address: ([127, 0, 0, 1], i as u16).into() };
        Message::Sockets { entries: (0..count).map(entry).collect(), last: true }
    }

    #[test]
    fn every_message_is_read_as_it_was_written() {
        for message in [Message::Hello, sockets(0), sockets(1), sockets(64), Message::Ready, Message::Taken] {
            assert_eq!(Message::decode(&message.encode()).unwrap(), message);
        }
    }

    #[test]
    fn every_cut_and_every_changed_byte_is_survived() {
        let bytes = sockets(3).encode();
        for end in 0..bytes.len() {
            assert!(Message::decode(&bytes[..end]).is_err(), "cut at {end}");
        }
        for at in 0..bytes.len() {
            for value in [0, 1, 0x7f, 0xff] {
                let mut changed = bytes.clone();
                changed[at] = value;
                fuzz_handover(&changed);
            }
        }
        let mut longer = bytes;
        longer.push(0);
        assert!(matches!(Message::decode(&longer), Err(HandoverError::Malformed(_))));
    }

    #[test]
    fn another_version_is_named_before_anything_else_is_read() {
        let mut bytes = Message::Hello.encode();
        bytes[MAGIC.len() + 1] = 9;
        bytes.truncate(MAGIC.len() + 2);
        assert!(matches!(Message::decode(&bytes), Err(HandoverError::Version { theirs: 9 })));
    }

    #[test]
    fn the_longest_message_fits() {
        let entry =
            || Entry { name: "n".repeat(NAME_BYTES), address: "[ffff:ffff::1%4294967295]:65535".parse().unwrap() };
        let message = Message::Sockets { entries: (0..CHUNK).map(|_| entry()).collect(), last: false };
        assert!(message.encode().len() <= MESSAGE_BYTES);
        assert_eq!(Message::decode(&message.encode()).unwrap(), message);
    }
}
