//! What the proxy writes as HTTP/2, read frame by frame (RFC 9113 §4 to §6): each frame is of its size, comes where it
//! may, and no stream says anything behind its end. Shares no code with the engine.

use std::collections::HashMap;

use super::strict::Wrong;

#[derive(Clone, Copy, Default)]
pub struct Stream {
    /// The sender has said its last.
    ended: bool,
    pub reset: bool,
}

/// The streams on which a head was sent. Behind the last whole frame there may be a part of one.
pub fn read(mut bytes: &[u8]) -> Result<HashMap<u32, Stream>, Wrong> {
    let mut streams = HashMap::<u32, Stream>::new();
    let mut continued = None;
    let mut first = true;
    while let Some((frame, rest)) = frame(bytes) {
        bytes = rest;
        let Frame { kind, flags, stream, payload } = frame;
        let fail =
            |why: &str| Err(format!("{why}: kind {kind}, flags {flags}, stream {stream}, {} bytes", payload.len()));
        if payload.len() > FRAME_MAX {
            return fail("longer than the peer takes");
        }
        if first && (kind != SETTINGS || flags & ACK != 0) {
            return fail("settings come first");
        }
        first = false;
        if continued.is_some_and(|on| kind != CONTINUATION || stream != on)
            || continued.is_none() && kind == CONTINUATION
        {
            return fail("a head is not to be interrupted");
        }
        let known = streams.get(&stream).copied();
        match kind {
            DATA | HEADERS => {
                if stream == 0 || known.is_none() && kind == DATA {
                    return fail("nothing was begun here");
                }
                if known.is_some_and(|stream| stream.ended || stream.reset) {
                    return fail("behind a stream's end");
                }
                streams.entry(stream).or_default().ended = flags & END_STREAM != 0;
                continued = (kind == HEADERS && flags & END_HEADERS == 0).then_some(stream);
            }
            CONTINUATION if flags & END_HEADERS != 0 => continued = None,
            CONTINUATION => {}
            RST_STREAM if stream != 0 && payload.len() == 4 => {
                if let Some(stream) = streams.get_mut(&stream) {
                    stream.reset = true;
                }
            }
            SETTINGS if stream == 0 && payload.len() % 6 == 0 && (flags & ACK == 0 || payload.is_empty()) => {}
            PING if stream == 0 && payload.len() == 8 => {}
            GOAWAY if stream == 0 && payload.len() >= 8 => {}
            WINDOW_UPDATE if payload.len() == 4 && payload.iter().any(|byte| *byte != 0) => {}
            _ => return fail("such a frame may not come"),
        }
    }
    Ok(streams)
}

pub struct Frame<'a> {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: &'a [u8],
}

/// The first frame, if it is there as a whole, and what follows it.
pub fn frame(bytes: &[u8]) -> Option<(Frame<'_>, &[u8])> {
    let ([long, middle, short, kind, flags, stream @ ..], rest) = bytes.split_first_chunk::<9>()?;
    let stream = u32::from_be_bytes(*stream) & 0x7fff_ffff;
    let (payload, rest) = rest.split_at_checked(u32::from_be_bytes([0, *long, *middle, *short]) as usize)?;
    Some((Frame { kind: *kind, flags: *flags, stream, payload }, rest))
}

pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
pub const HEADERS: u8 = 1;
const DATA: u8 = 0;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
const ACK: u8 = 1;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
/// Whoever takes more says so, and no peer here does; one that is fuzzed may.
const FRAME_MAX: usize = (1 << 24) - 1;
