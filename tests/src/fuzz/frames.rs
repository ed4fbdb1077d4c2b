//! HTTP/2 frames as a mutator sees them: taken apart, changed, put together again with lengths that are right.

#[derive(Clone, Debug)]
pub struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

impl Frame {
    pub fn new(kind: u8, flags: u8, stream: u32, payload: impl Into<Vec<u8>>) -> Self {
        Self { kind, flags, stream, payload: payload.into() }
    }

    pub fn write(&self, out: &mut Vec<u8>) {
        let length = u32::try_from(self.payload.len()).unwrap_or(u32::MAX).to_be_bytes();
        out.extend_from_slice(&length[1..]);
        out.extend_from_slice(&[self.kind, self.flags]);
        out.extend_from_slice(&self.stream.to_be_bytes());
        out.extend_from_slice(&self.payload);
    }
}

/// The whole frames, and the bytes behind them.
pub fn split(mut bytes: &[u8]) -> (Vec<Frame>, &[u8]) {
    let mut frames = Vec::new();
    while let Some(([long, middle, short, kind, flags, stream @ ..], rest)) = bytes.split_first_chunk::<9>() {
        let length = u32::from_be_bytes([0, *long, *middle, *short]) as usize;
        let Some((payload, rest)) = rest.split_at_checked(length) else { break };
        frames.push(Frame::new(*kind, *flags, u32::from_be_bytes(*stream), payload));
        bytes = rest;
    }
    (frames, bytes)
}

/// A header block of literals that no table remembers (RFC 7541 §6.2.2), without Huffman coding.
pub fn block<'a>(fields: impl IntoIterator<Item = (&'a [u8], &'a [u8])>) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, value) in fields {
        out.push(0);
        for text in [name, value] {
            let text = text.get(..126).unwrap_or(text);
            out.push(text.len() as u8);
            out.extend_from_slice(text);
        }
    }
    out
}

pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
