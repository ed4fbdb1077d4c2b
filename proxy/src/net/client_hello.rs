//! What a TLS client says before anything is encrypted: the server it wants and the protocols it offers. Pure; used to
//! pass TLS through by name and to tell other proxies of the mesh from an application's own TLS.
//!
//! It never answers, decrypts or checks a handshake. A hello may be cut over many records and many reads.

use std::borrow::Cow;

/// The part of a ClientHello that routing needs.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Hello {
    /// In lower case, without a final dot, and a well-formed DNS name. `None` also for an IP address, which RFC 6066
    /// does not allow but clients send.
    pub server_name: Option<String>,
    /// In the client's order, at most [`ALPN_MAX`].
    pub alpn: Vec<Vec<u8>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum HelloError {
    /// A beginning. Never said of [`ENOUGH`] bytes.
    Incomplete,
    /// No ClientHello, or one that breaks its own grammar or a limit.
    Invalid,
}

/// Reads the ClientHello at the start of a connection.
pub fn server_name(bytes: &[u8]) -> Result<Hello, HelloError> {
    let message = message(bytes)?;
    body(Reader(message.get(MESSAGE_HEAD..).unwrap_or_default())).ok_or(HelloError::Invalid)
}

/// The handshake message with its head, put together from as many records as it takes (RFC 8446 section 5.1).
fn message(bytes: &[u8]) -> Result<Cow<'_, [u8]>, HelloError> {
    let mut reader = Reader(bytes);
    let mut joined = Cow::Borrowed(&[][..]);
    for _ in 0..RECORDS_MAX {
        let part = record(&mut reader)?;
        match joined.is_empty() {
            true => joined = Cow::Borrowed(part),
            false => joined.to_mut().extend_from_slice(part),
        }
        if let Some(length) = message_length(&joined)?.filter(|length| *length <= joined.len()) {
            match &mut joined {
                Cow::Borrowed(bytes) => *bytes = bytes.get(..length).ok_or(HelloError::Invalid)?,
                Cow::Owned(bytes) => bytes.truncate(length),
            }
            return Ok(joined);
        }
    }
    Err(HelloError::Invalid)
}

/// The content of the next record.
fn record<'a>(reader: &mut Reader<'a>) -> Result<&'a [u8], HelloError> {
    match reader.0.first() {
        Some(0x16) => {}
        Some(_) => return Err(HelloError::Invalid),
        None => return Err(HelloError::Incomplete),
    }
    let (Some(_), Some(major), Some(_)) = (reader.u8(), reader.u8(), reader.u8()) else {
        return Err(HelloError::Incomplete);
    };
    let length = reader.u16().map(usize::from);
    match length {
        _ if major != 3 => Err(HelloError::Invalid),
        None => Err(HelloError::Incomplete),
        // An empty handshake record is forbidden, and this is the longest that is not.
        Some(length) if length == 0 || length > RECORD_MAX => Err(HelloError::Invalid),
        Some(length) => reader.take(length).ok_or(HelloError::Incomplete),
    }
}

/// The length of the whole message, once its head is there.
fn message_length(bytes: &[u8]) -> Result<Option<usize>, HelloError> {
    let mut reader = Reader(bytes);
    match (reader.u8(), reader.u24()) {
        (Some(kind), _) if kind != CLIENT_HELLO => Err(HelloError::Invalid),
        (Some(_), Some(length)) if length > HELLO_MAX - MESSAGE_HEAD => Err(HelloError::Invalid),
        (Some(_), Some(length)) => Ok(Some(length + MESSAGE_HEAD)),
        _ => Ok(None),
    }
}

/// RFC 8446 section 4.1.2. `None`: the grammar is broken.
fn body(mut reader: Reader<'_>) -> Option<Hello> {
    let _version = reader.u16().filter(|version| version >> 8 == 3)?;
    let _random = reader.take(32)?;
    let _session = reader.list8().filter(|session| session.0.len() <= 32)?;
    let _suites = reader.list16().filter(|suites| !suites.0.is_empty() && suites.0.len() % 2 == 0)?;
    let _compression = reader.list8().filter(|methods| !methods.0.is_empty())?;
    let mut hello = Hello::default();
    if reader.0.is_empty() {
        return Some(hello); // No extensions: TLS 1.2 and before.
    }
    let mut extensions = reader.list16()?;
    let (mut named, mut offered) = (false, false);
    while !extensions.0.is_empty() {
        let kind = extensions.u16()?;
        let content = extensions.list16()?;
        match kind {
            // The same extension twice is forbidden, and two parsers could each believe another one.
            SERVER_NAME if named => return None,
            ALPN if offered => return None,
            SERVER_NAME => {
                named = true;
                hello.server_name = name(content)?;
            }
            ALPN => {
                offered = true;
                hello.alpn = protocols(content)?;
            }
            _ => {}
        }
    }
    reader.0.is_empty().then_some(hello)
}

/// RFC 6066 section 3. The outer `None` is a broken or foreign name, the inner one an IP address.
fn name(mut content: Reader<'_>) -> Option<Option<String>> {
    let mut list = content.list16().filter(|_| content.0.is_empty())?;
    let (0, name) = (list.u8()?, list.list16()?) else { return None };
    // One name of a type, and no other type was ever defined.
    let name = std::str::from_utf8(name.0).ok().filter(|_| list.0.is_empty())?;
    if name.parse::<std::net::IpAddr>().is_ok() {
        return Some(None);
    }
    let name = name.strip_suffix('.').unwrap_or(name);
    is_dns_name(name).then(|| Some(name.to_ascii_lowercase()))
}

/// RFC 1123 section 2.1, with the underscore that Kubernetes and Windows names have.
fn is_dns_name(name: &str) -> bool {
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
    };
    name.len() <= 253 && name.split('.').all(is_label)
}

/// RFC 7301 section 3.1.
fn protocols(mut content: Reader<'_>) -> Option<Vec<Vec<u8>>> {
    let mut list = content.list16().filter(|list| !list.0.is_empty() && content.0.is_empty())?;
    let mut offered = Vec::new();
    while !list.0.is_empty() {
        let protocol = list.list8().filter(|protocol| !protocol.0.is_empty())?;
        if offered.len() < ALPN_MAX {
            offered.push(protocol.0.to_vec());
        }
    }
    Some(offered)
}

/// A cursor: takes from the front or fails, and never looks elsewhere.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn number(&mut self, bytes: usize) -> Option<usize> {
        Some(self.take(bytes)?.iter().fold(0, |number, byte| number << 8 | usize::from(*byte)))
    }

    fn u8(&mut self) -> Option<u8> {
        self.number(1).map(|number| number as u8)
    }

    fn u16(&mut self) -> Option<u16> {
        self.number(2).map(|number| number as u16)
    }

    fn u24(&mut self) -> Option<usize> {
        self.number(3)
    }

    fn list8(&mut self) -> Option<Reader<'a>> {
        let length = self.number(1)?;
        self.take(length).map(Reader)
    }

    fn list16(&mut self) -> Option<Reader<'a>> {
        let length = self.number(2)?;
        self.take(length).map(Reader)
    }
}

/// No more bytes than these are ever needed: the longest hello, begun in as many records as may carry it, and the last
/// of them as long as a record gets.
pub const ENOUGH: usize = HELLO_MAX + RECORD_MAX + RECORDS_MAX * 5;
/// Names that are kept of what a client offers; browsers offer two.
pub const ALPN_MAX: usize = 32;

/// The longest hello with its head. Post-quantum keys make hellos of two kilobytes; a ticket can add several more.
const HELLO_MAX: usize = 16 * 1024 + MESSAGE_HEAD;
const MESSAGE_HEAD: usize = 4;
/// RFC 8446 section 5.1: what an unencrypted record carries at most.
const RECORD_MAX: usize = 1 << 14;
/// A hello needs two records at the most; some clients cut it finer so that middleboxes do not read it. The bound keeps
/// a client that sends single bytes from making each read cost more than the one before.
const RECORDS_MAX: usize = 64;
const CLIENT_HELLO: u8 = 1;
const SERVER_NAME: u16 = 0;
const ALPN: u16 = 16;

/// Whatever the bytes: no panic; a decision by [`ENOUGH`], and one that stays as bytes arrive; names are well-formed.
pub fn fuzz_client_hello(data: &[u8]) {
    let mut decided = None;
    let step = 1 + data.len() / 512;
    for end in (0..=data.len()).filter(|end| end % step == 0 || *end == data.len()) {
        let now = server_name(data.get(..end).unwrap_or_default());
        match &decided {
            Some(before) => assert_eq!(before, &now, "changed its mind"),
            None if now != Err(HelloError::Incomplete) => decided = Some(now),
            None => assert!(end < ENOUGH, "still undecided"),
        }
    }
    if let Some(Ok(hello)) = decided {
        if let Some(name) = hello.server_name {
            assert!(is_dns_name(&name) && name == name.to_ascii_lowercase());
        }
        assert!(hello.alpn.len() <= ALPN_MAX && hello.alpn.iter().all(|protocol| (1..256).contains(&protocol.len())));
    }
}

#[cfg(test)]
mod tests;
