//! HTTP/1.1 requests read as strictly as they can be: whatever two parsers could read differently is a fault here. And an
//! origin that keeps what it reads this way.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    pub line: String,
    pub fields: Vec<(String, String)>,
    pub body: Vec<u8>,
    pub trailers: Vec<(String, String)>,
}

impl Message {
    pub fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }

    /// Method, target and body, as a table has them.
    pub fn short(&self) -> String {
        let line = self.line.strip_suffix(" HTTP/1.1").unwrap_or(&self.line);
        format!("{line} {}", String::from_utf8_lossy(&self.body)).trim_end().to_owned()
    }
}

/// The messages that are whole, and what follows them.
pub fn messages(mut bytes: &[u8]) -> Result<(Vec<Message>, &[u8]), String> {
    let mut all = Vec::new();
    while !bytes.is_empty() {
        match message(bytes)? {
            Some((message, rest)) => {
                all.push(message);
                bytes = rest;
            }
            None => break,
        }
    }
    Ok((all, bytes))
}

fn message(bytes: &[u8]) -> Result<Option<(Message, &[u8])>, String> {
    let Some((line, mut rest)) = line(bytes)? else { return Ok(None) };
    let parts: Vec<_> = line.split(' ').collect();
    if parts.len() != 3
        || parts[2] != "HTTP/1.1"
        || !is_token(parts[0])
        || parts[1].is_empty()
        || parts[1].contains('#')
    {
        return Err(format!("a request line {line:?}"));
    }
    let Some((fields, after)) = fields(rest)? else { return Ok(None) };
    rest = after;
    let all = |name: &str| {
        fields.iter().filter(|(found, _)| found == name).map(|(_, value)| value.as_str()).collect::<Vec<_>>()
    };
    if all("host").len() != 1 {
        return Err(format!("hosts {:?}", all("host")));
    }
    let mut message = Message { line, fields: fields.clone(), body: Vec::new(), trailers: Vec::new() };
    match (&all("content-length")[..], &all("transfer-encoding")[..]) {
        ([], []) => {}
        ([length], []) => {
            let size: usize = match length.parse() {
                Ok(size) if length.bytes().all(|byte| byte.is_ascii_digit()) => size,
                _ => return Err(format!("a length {length:?}")),
            };
            let Some((body, after)) = rest.split_at_checked(size) else { return Ok(None) };
            message.body = body.to_vec();
            rest = after;
        }
        ([], ["chunked"]) => loop {
            let Some((size, after)) = self::line(rest)? else { return Ok(None) };
            let size = match usize::from_str_radix(&size, 16) {
                Ok(value) if size.bytes().all(|byte| byte.is_ascii_hexdigit()) && size.len() <= 16 => value,
                _ => return Err(format!("a chunk's size {size:?}")),
            };
            if size == 0 {
                let Some((trailers, after)) = self::fields(after)? else { return Ok(None) };
                if let Some((name, _)) = trailers.iter().find(|(name, _)| FRAMING.contains(&name.as_str())) {
                    return Err(format!("{name} among the trailers"));
                }
                message.trailers = trailers;
                rest = after;
                break;
            }
            let Some((data, after)) = after.split_at_checked(size + 2) else { return Ok(None) };
            let Some(data) = data.strip_suffix(b"\r\n") else { return Err("a chunk's end".into()) };
            message.body.extend_from_slice(data);
            rest = after;
        },
        (lengths, codings) => return Err(format!("framed by {lengths:?} and {codings:?}")),
    }
    Ok(Some((message, rest)))
}

const FRAMING: [&str; 4] = ["content-length", "transfer-encoding", "host", "connection"];

type Fields = Vec<(String, String)>;

fn fields(mut rest: &[u8]) -> Result<Option<(Fields, &[u8])>, String> {
    let mut all = Vec::new();
    loop {
        let Some((line, after)) = line(rest)? else { return Ok(None) };
        rest = after;
        if line.is_empty() {
            return Ok(Some((all, rest)));
        }
        let (name, value) = line.split_once(':').ok_or_else(|| format!("a line {line:?}"))?;
        if !is_token(name) {
            return Err(format!("a name {name:?}"));
        }
        all.push((name.to_ascii_lowercase(), value.trim_matches([' ', '\t']).to_owned()));
    }
}

fn line(bytes: &[u8]) -> Result<Option<(String, &[u8])>, String> {
    let Some(end) = bytes.iter().position(|byte| *byte == b'\n') else { return Ok(None) };
    let text = bytes[..end].strip_suffix(b"\r").ok_or("a line that ends in a bare LF")?;
    let text: String = text.iter().map(|byte| char::from(*byte)).collect();
    match text.contains(|letter: char| (letter < ' ' && letter != '\t') || letter == '\x7f') {
        true => Err(format!("a control character in {text:?}")),
        false => Ok(Some((text, &bytes[end + 1..]))),
    }
}

fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
}

/// Answers each whole message with 200 and keeps it. The first fault ends its connection, and is kept too.
pub struct Recorder {
    pub address: SocketAddr,
    pub messages: Rc<RefCell<Vec<Message>>>,
    pub faults: Rc<RefCell<Vec<String>>>,
    task: JoinHandle<()>,
}

impl Recorder {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let address = listener.local_addr().expect("address");
        let (messages, faults) = (Rc::new(RefCell::new(Vec::new())), Rc::new(RefCell::new(Vec::new())));
        let (kept, wrong) = (messages.clone(), faults.clone());
        let task = tokio::task::spawn_local(async move {
            loop {
                let Ok((mut stream, _)) = listener.accept().await else { continue };
                let (kept, wrong): (Rc<RefCell<Vec<_>>>, Rc<RefCell<Vec<_>>>) = (kept.clone(), wrong.clone());
                tokio::task::spawn_local(async move {
                    let mut bytes = Vec::new();
                    while stream.read_buf(&mut bytes).await.is_ok_and(|count| count > 0) {
                        match self::messages(&bytes) {
                            Ok((found, rest)) => {
                                let rest = rest.to_vec();
                                let count = found.len();
                                kept.borrow_mut().extend(found);
                                bytes = rest;
                                for _ in 0..count {
                                    let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
                                }
                            }
                            Err(fault) => {
                                let seen = String::from_utf8_lossy(&bytes).into_owned();
                                wrong.borrow_mut().push(format!("{fault} in {seen:?}"));
                                return;
                            }
                        }
                    }
                });
            }
        });
        Self { address, messages, faults, task }
    }

    /// What has come since this was last asked; a fault is a panic.
    pub fn take(&self) -> Vec<Message> {
        assert_eq!(self.faults.borrow().as_slice(), [] as [String; 0], "the origin got what can be read in two ways");
        std::mem::take(&mut *self.messages.borrow_mut())
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.task.abort();
    }
}
