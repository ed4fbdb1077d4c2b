//! As much of HTTP/2 as both ends need: frames, the windows that a sender keeps, header blocks made in advance.

use std::collections::{HashMap, VecDeque};

use crate::Broken;

pub struct Frame<'a> {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: &'a [u8],
}

impl<'a> Frame<'a> {
    pub fn ends(&self) -> bool {
        self.flags & END_STREAM != 0
    }

    /// The payload without padding and priority (RFC 9113, 6.1 and 6.2).
    pub fn content(&self) -> Result<&'a [u8], Broken> {
        let mut rest = self.payload;
        let mut padding = 0;
        if self.flags & PADDED != 0 {
            let (first, others) = rest.split_first().ok_or("a padded frame without padding")?;
            (padding, rest) = (usize::from(*first), others);
        }
        if self.kind == HEADERS && self.flags & PRIORITY != 0 {
            rest = rest.get(5..).ok_or("a frame without its priority")?;
        }
        rest.get(..rest.len().wrapping_sub(padding)).ok_or_else(|| "more padding than payload".to_owned())
    }

    pub fn number(&self) -> u32 {
        self.payload.first_chunk().map_or(0, |bytes| u32::from_be_bytes(*bytes)) & 0x7fff_ffff
    }
}

/// Cuts what comes into frames; the rest waits for more.
#[derive(Default)]
pub struct Frames {
    rest: Vec<u8>,
}

impl Frames {
    pub fn receive(
        &mut self,
        input: &[u8],
        mut each: impl FnMut(Frame<'_>) -> Result<(), Broken>,
    ) -> Result<(), Broken> {
        if self.rest.is_empty() {
            let left = Self::cut(input, &mut each)?;
            self.rest.extend_from_slice(left);
            return Ok(());
        }
        self.rest.extend_from_slice(input);
        let held = std::mem::take(&mut self.rest);
        let left = Self::cut(&held, &mut each)?.len();
        self.rest = held;
        self.rest.drain(..self.rest.len() - left);
        Ok(())
    }

    fn cut<'a>(
        mut input: &'a [u8],
        each: &mut impl FnMut(Frame<'_>) -> Result<(), Broken>,
    ) -> Result<&'a [u8], Broken> {
        while let Some((head, rest)) = input.split_first_chunk::<9>() {
            let [a, b, c, kind, flags, stream @ ..] = *head;
            let length = u32::from_be_bytes([0, a, b, c]) as usize;
            let Some((payload, after)) = rest.split_at_checked(length) else { break };
            let stream = u32::from_be_bytes(stream) & 0x7fff_ffff;
            each(Frame { kind, flags, stream, payload })?;
            input = after;
        }
        Ok(input)
    }
}

pub fn write(out: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    let [_, a, b, c] = (payload.len() as u32).to_be_bytes();
    out.extend_from_slice(&[a, b, c, kind, flags]);
    out.extend_from_slice(&stream.to_be_bytes());
    out.extend_from_slice(payload);
}

/// SETTINGS and a window for the connection that no benchmark fills between two updates.
pub fn greet(out: &mut Vec<u8>) {
    let mut settings = Vec::new();
    for (name, value) in [(ENABLE_PUSH, 0), (MAX_CONCURRENT_STREAMS, 1000), (INITIAL_WINDOW_SIZE, STREAM_WINDOW)] {
        settings.extend_from_slice(&u16::to_be_bytes(name));
        settings.extend_from_slice(&u32::to_be_bytes(value));
    }
    write(out, SETTINGS, 0, 0, &settings);
    write(out, WINDOW_UPDATE, 0, 0, &CONNECTION_WINDOW.to_be_bytes());
}

/// What both ends do alike: settings, pings, windows of what is sent, updates for what came.
pub struct Flow {
    connection: i64,
    initial: i64,
    open: HashMap<u32, i64>,
    waiting: VecDeque<(u8, u8, u32, Vec<u8>)>,
    unacknowledged: u32,
    /// Whether the other side's settings are known.
    pub greeted: bool,
    /// Whether its table of fields is smaller than [`Requests`] count on. nginx asks an application for no table at all.
    pub small_table: bool,
}

impl Default for Flow {
    fn default() -> Self {
        let waiting = VecDeque::new();
        Self {
            connection: 65_535,
            initial: 65_535,
            open: HashMap::new(),
            waiting,
            unacknowledged: 0,
            greeted: false,
            small_table: false,
        }
    }
}

impl Flow {
    /// A stream on which more than one piece will be sent. All others end with their first.
    pub fn open(&mut self, stream: u32) {
        self.open.insert(stream, self.initial);
    }

    pub fn close(&mut self, stream: u32) {
        self.open.remove(&stream);
    }

    /// DATA, now or when there is room for it.
    pub fn data(&mut self, out: &mut Vec<u8>, stream: u32, payload: &[u8], flags: u8) {
        self.send(out, DATA, flags, stream, payload);
    }

    /// HEADERS that must not overtake DATA.
    pub fn trailers(&mut self, out: &mut Vec<u8>, stream: u32, block: &[u8]) {
        self.send(out, HEADERS, END_HEADERS | END_STREAM, stream, block);
    }

    fn send(&mut self, out: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        if self.waiting.is_empty() && self.fits(kind, stream, payload) {
            self.sent(out, kind, flags, stream, payload);
        } else {
            self.waiting.push_back((kind, flags, stream, payload.to_vec()));
        }
    }

    fn fits(&self, kind: u8, stream: u32, payload: &[u8]) -> bool {
        let window = self.open.get(&stream).copied().unwrap_or(self.initial);
        kind != DATA || self.connection.min(window) >= payload.len() as i64
    }

    fn sent(&mut self, out: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        if kind == DATA {
            self.connection -= payload.len() as i64;
            if let Some(window) = self.open.get_mut(&stream) {
                *window -= payload.len() as i64;
            }
        }
        if flags & END_STREAM != 0 {
            self.open.remove(&stream);
        }
        write(out, kind, flags, stream, payload);
    }

    fn resume(&mut self, out: &mut Vec<u8>) {
        while let Some((kind, flags, stream, payload)) = self.waiting.pop_front() {
            if !self.fits(kind, stream, &payload) {
                self.waiting.push_front((kind, flags, stream, payload));
                return;
            }
            self.sent(out, kind, flags, stream, &payload);
        }
    }

    /// DATA came and is used up.
    pub fn received(&mut self, out: &mut Vec<u8>, length: usize) {
        self.unacknowledged += length as u32;
        if self.unacknowledged > UPDATE {
            write(out, WINDOW_UPDATE, 0, 0, &self.unacknowledged.to_be_bytes());
            self.unacknowledged = 0;
        }
    }

    /// Frames that concern the connection. `false`: it is one of a stream.
    pub fn control(&mut self, out: &mut Vec<u8>, frame: &Frame<'_>) -> Result<bool, Broken> {
        match frame.kind {
            SETTINGS if frame.flags & ACK == 0 => {
                self.settings(frame.payload);
                write(out, SETTINGS, ACK, 0, &[]);
                self.resume(out);
            }
            PING if frame.flags & ACK == 0 => write(out, PING, ACK, 0, frame.payload),
            WINDOW_UPDATE => {
                let more = i64::from(frame.number());
                match frame.stream {
                    0 => self.connection += more,
                    stream => {
                        if let Some(window) = self.open.get_mut(&stream) {
                            *window += more;
                        }
                    }
                }
                self.resume(out);
            }
            GOAWAY => return Err(format!("GOAWAY with code {:?}", frame.payload.get(4..8))),
            SETTINGS | PING | PRIORITY_FRAME => {}
            CONTINUATION | PUSH_PROMISE => return Err("a frame that is not understood here".to_owned()),
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn settings(&mut self, payload: &[u8]) {
        for setting in payload.chunks_exact(6) {
            let value = u32::from_be_bytes([setting[2], setting[3], setting[4], setting[5]]);
            match u16::from_be_bytes([setting[0], setting[1]]) {
                INITIAL_WINDOW_SIZE => {
                    let change = i64::from(value) - self.initial;
                    self.initial = i64::from(value);
                    self.open.values_mut().for_each(|window| *window += change);
                }
                HEADER_TABLE_SIZE => self.small_table = value < DEFAULT_TABLE,
                _ => {}
            }
        }
        self.greeted = true;
    }
}

/// The header block of one request, said often on one connection: the first fills the peer's table, later ones refer
/// to it, as any client does (RFC 7541, 6.2.1).
pub struct Requests {
    pub first: Vec<u8>,
    pub later: Vec<u8>,
}

impl Requests {
    /// `fixed`: indices of the static table; then fields, each a static index of its name or its name, and its value.
    pub fn new(fixed: &[u8], fields: &[(Name<'_>, &str)]) -> Self {
        let mut first: Vec<u8> = fixed.iter().map(|index| 0x80 | index).collect();
        let mut later = first.clone();
        for (place, (name, value)) in fields.iter().enumerate() {
            match name {
                Name::Index(index) => first.push(0x40 | index),
                Name::Text(name) => {
                    first.push(0x40);
                    text(&mut first, name);
                }
            }
            text(&mut first, value);
            // The newest entry is the first after the 61 of the static table.
            later.push(0x80 | (61 + fields.len() - place) as u8);
        }
        Self { first, later }
    }
}

pub enum Name<'a> {
    Index(u8),
    Text(&'a str),
}

/// Text without Huffman coding, shorter than 127 bytes.
pub fn text(block: &mut Vec<u8>, text: &str) {
    assert!(text.len() < 127);
    block.push(text.len() as u8);
    block.extend_from_slice(text.as_bytes());
}

/// Whether a block begins with `:status: 200`, after updates of the table's size.
pub fn is_ok(block: &[u8]) -> bool {
    block.iter().find(|byte| *byte & 0xe0 != 0x20) == Some(&0x88)
}

pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
const PRIORITY_FRAME: u8 = 2;
pub const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PUSH_PROMISE: u8 = 5;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;

pub const END_STREAM: u8 = 1;
const ACK: u8 = 1;
pub const END_HEADERS: u8 = 4;
const PADDED: u8 = 8;
const PRIORITY: u8 = 32;

const HEADER_TABLE_SIZE: u16 = 1;
const DEFAULT_TABLE: u32 = 4096;
const ENABLE_PUSH: u16 = 2;
const MAX_CONCURRENT_STREAMS: u16 = 3;
const INITIAL_WINDOW_SIZE: u16 = 4;

/// More than one stream of a benchmark carries, so streams need no updates.
const STREAM_WINDOW: u32 = 16 << 20;
const CONNECTION_WINDOW: u32 = 1 << 30;
const UPDATE: u32 = 1 << 20;
