//! HTTP/2 frames as bytes (RFC 9113 §4.1), for peers that send what no library would.

use crate::Wire;

/// What a client says first, with its settings; an origin says only the settings.
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const PRIORITY: u8 = 2;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;

pub const ACK: u8 = 1;
pub const END_STREAM: u8 = 1;
pub const END_HEADERS: u8 = 4;

/// `:method: GET`, `:scheme: http`, `:path: /` and `:authority: a`, in HPACK's static table.
pub const GET: &[u8] = &[0x82, 0x86, 0x84, 0x41, 1, b'a'];
/// `:status: 200`.
pub const OK: &[u8] = &[0x88];

#[derive(Debug)]
pub struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a short payload").to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// A head's fields that the static table does not have, each as a literal that is not indexed.
pub fn literal(name: &str, value: &str) -> Vec<u8> {
    let text = |text: &str| [&[u8::try_from(text.len()).expect("short")], text.as_bytes()].concat();
    [vec![0], text(name), text(value)].concat()
}

/// A GET of this path, of up to 127 bytes.
pub fn get(path: &str) -> Vec<u8> {
    let length = u8::try_from(path.len()).expect("a short path");
    [&[0x82, 0x86, 0x44, length], path.as_bytes(), &[0x41, 1, b'a']].concat()
}

pub fn reset(stream: u32, reason: h2::Reason) -> Vec<u8> {
    frame(RST_STREAM, 0, stream, &u32::from(reason).to_be_bytes())
}

pub fn goaway(last: u32, reason: h2::Reason) -> Vec<u8> {
    frame(GOAWAY, 0, 0, &[last.to_be_bytes(), u32::from(reason).to_be_bytes()].concat())
}

/// The next frame, or `None` at the connection's end.
pub async fn read(wire: &mut Wire) -> Option<Frame> {
    let start = wire.try_exactly(9).await?;
    let number = |bytes: &[u8]| bytes.iter().fold(0, |number: u32, byte| number << 8 | u32::from(*byte));
    let payload = wire.try_exactly(number(&start[..3]) as usize).await?;
    Some(Frame { kind: start[3], flags: start[4], stream: number(&start[5..]) & 0x7fff_ffff, payload })
}

/// An origin's side of the beginning of a connection: both settings, then the head of the first request, whose stream is
/// returned.
pub async fn accept(wire: &mut Wire) -> Option<u32> {
    begin(wire).await?;
    head(wire).await
}

/// The same without a request.
pub async fn begin(wire: &mut Wire) -> Option<()> {
    wire.try_exactly(PREFACE.len()).await?;
    wire.send(&frame(SETTINGS, 0, 0, &[])).await.ok()
}

/// The stream of the next head.
pub async fn head(wire: &mut Wire) -> Option<u32> {
    next(wire, |frame| frame.kind == HEADERS).await
}

/// The stream of the next request of which all has come.
pub async fn request(wire: &mut Wire) -> Option<u32> {
    next(wire, |frame| [HEADERS, DATA].contains(&frame.kind) && frame.flags & END_STREAM != 0).await
}

async fn next(wire: &mut Wire, is_it: impl Fn(&Frame) -> bool) -> Option<u32> {
    loop {
        let frame = read(wire).await?;
        if frame.kind == SETTINGS && frame.flags & ACK == 0 {
            wire.send(&self::frame(SETTINGS, ACK, 0, &[])).await.ok()?;
        } else if is_it(&frame) {
            return Some(frame.stream);
        }
    }
}

/// A client's side of the beginning.
pub fn hello() -> Vec<u8> {
    [PREFACE, &frame(SETTINGS, 0, 0, &[])].concat()
}

/// `GET /` or, with a body to come, `POST /`, for the authority `a`.
pub fn ask(stream: u32, ends: bool) -> Vec<u8> {
    let flags = END_HEADERS | if ends { END_STREAM } else { 0 };
    frame(HEADERS, flags, stream, if ends { GET } else { POST })
}

/// A field of any length that is not to be remembered (RFC 7541 §6.2.2).
pub fn field(name: &str, value: &str) -> Vec<u8> {
    let mut field = vec![0];
    for text in [name, value] {
        length(&mut field, text.len());
        field.extend(text.as_bytes());
    }
    field
}

/// An integer of seven bits (RFC 7541 §5.1).
pub fn length(to: &mut Vec<u8>, length: usize) {
    if length < 127 {
        return to.push(length as u8);
    }
    to.push(127);
    let mut left = length - 127;
    while left >= 128 {
        to.push((left % 128) as u8 | 128);
        left /= 128;
    }
    to.push(left as u8);
}

const POST: &[u8] = &[0x83, 0x86, 0x84, 0x41, 1, b'a'];
