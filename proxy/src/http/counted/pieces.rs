//! Small pieces of bodies that came with one read, each stream's made one. h2 holds what a piece lacks of 256 bytes
//! against the whole connection until it is read, so that one reader who stands still before a stream of small messages
//! would end the connection for its neighbours. Bytes count for the windows, not frames (RFC 9113 §6.9.1), and DATA of one
//! stream has no order with that of another (§5): a piece may go up to the one before it, over the DATA of others alone.
//!
//! A piece with padding or with its stream's end, and one that is not all there or whose first bytes went on before,
//! stays as it is.

use std::collections::BTreeMap;

use crate::net::frames::{DATA, FRAME_START, Frame, Frames, RST_STREAM};

/// The small pieces of one read.
#[derive(Debug, Default)]
pub struct Pieces {
    all: Vec<Piece>,
    /// The latest of each stream that another may be joined to.
    open: Vec<Open>,
    joined: bool,
}

#[derive(Debug)]
struct Piece {
    /// Where it begins, with its first bytes.
    at: usize,
    length: usize,
    /// It goes where another is.
    follows: bool,
    next: Option<usize>,
}

#[derive(Debug)]
struct Open {
    stream: u32,
    latest: usize,
    /// Of all that are joined.
    length: usize,
}

/// What h2 holds against the connection for a piece, or forgives it.
pub fn charge(length: usize) -> i64 {
    if length == 0 { 0 } else { SMALL as i64 - length as i64 }
}

impl Pieces {
    /// Another read.
    pub fn clear(&mut self) {
        self.all.clear();
        self.open.clear();
        // A connection that lies still holds little.
        self.all.shrink_to(KEPT);
        self.open.shrink_to(KEPT);
        self.joined = false;
    }

    /// A frame came that begins there, of a stream with a head; it is `whole` if all of it is there. Returns what it costs.
    pub fn came(&mut self, frame: &Frame, at: Option<usize>, whole: bool) -> i64 {
        if frame.kind != DATA {
            self.open.clear();
            return 0;
        }
        if frame.is_empty_piece() {
            return 0;
        }
        let length = frame.length as usize;
        let open = self.open.iter().position(|open| open.stream == frame.stream);
        let Some(at) = at.filter(|_| whole && frame.flags == 0 && length < SMALL) else {
            if let Some(open) = open {
                self.open.swap_remove(open);
            }
            return if frame.flags == 0 { charge(length) } else { 0 };
        };
        let number = self.all.len();
        let open = match open {
            Some(open) => self.open.get_mut(open).filter(|open| open.length + length <= JOINED),
            None if self.open.len() < STREAMS => {
                self.open.push(Open { stream: frame.stream, latest: number, length: 0 });
                None
            }
            None => return charge(length),
        };
        let cost = match open {
            Some(open) => {
                if let Some(before) = self.all.get_mut(open.latest) {
                    before.next = Some(number);
                }
                (open.latest, open.length) = (number, open.length + length);
                self.joined = true;
                charge(open.length) - charge(open.length - length)
            }
            None => {
                // The first of its stream, or of as many as go into one frame.
                let open = self.open.iter_mut().find(|open| open.stream == frame.stream);
                open.into_iter().for_each(|open| (open.latest, open.length) = (number, length));
                self.all.push(Piece { at, length, follows: false, next: None });
                return charge(length);
            }
        };
        self.all.push(Piece { at, length, follows: true, next: None });
        cost
    }

    /// Joins them in place; the bytes end there.
    pub fn join(&self, bytes: &mut [u8]) -> usize {
        let all = bytes.len();
        if !self.joined {
            return all;
        }
        let (mut out, mut from) = (Vec::with_capacity(all), 0);
        for piece in self.all.iter().filter(|piece| piece.follows || piece.next.is_some()) {
            out.extend_from_slice(bytes.get(from..piece.at).unwrap_or_default());
            from = piece.at + FRAME_START + piece.length;
            if piece.follows {
                continue;
            }
            let start = out.len();
            out.extend_from_slice(bytes.get(piece.at..piece.at + FRAME_START).unwrap_or_default());
            let mut next = Some(piece);
            while let Some(piece) = next {
                let payload = piece.at + FRAME_START;
                out.extend_from_slice(bytes.get(payload..payload + piece.length).unwrap_or_default());
                next = piece.next.and_then(|next| self.all.get(next));
            }
            // No longer than `JOINED`, so the first of three bytes stays 0.
            let length = (out.len() - start - FRAME_START).to_be_bytes();
            if let (Some(place), [.., high, low]) = (out.get_mut(start + 1..start + 3), length) {
                place.copy_from_slice(&[high, low]);
            }
        }
        out.extend_from_slice(bytes.get(from..).unwrap_or_default());
        if let Some(place) = bytes.get_mut(..out.len()) {
            place.copy_from_slice(&out);
        }
        out.len()
    }
}

/// h2 holds smaller pieces against their sender.
pub const SMALL: usize = 256;
/// As much becomes one frame: less than the largest that every peer may be sent, §4.2.
const JOINED: usize = 8 * 1024;
/// Streams whose pieces are joined in one read: each small piece is compared with as many.
const STREAMS: usize = 64;
/// Room for as many is kept from one read to the next.
const KEPT: usize = 16;

/// Whatever came, joined it says the same: all frames but small pieces stand as they did, and each stream's bytes.
pub fn fuzz_pieces(bytes: &[u8]) {
    let mut joined = bytes.to_vec();
    let cost = join_all(&mut joined);
    assert!(joined.len() <= bytes.len());
    let (before, after) = (said(bytes), said(&joined));
    assert_eq!(before, after);
    assert_eq!(cost, costs(&joined));
}

/// As `Counted` does it with what came in one read.
fn join_all(bytes: &mut Vec<u8>) -> i64 {
    let (mut frames, mut pieces, mut cost) = (Frames::of_server(), Pieces::default(), 0);
    let all = bytes.len();
    pieces.clear();
    frames.take_placed(bytes, |frame, place| {
        let at = place.end.checked_sub(FRAME_START).filter(|_| place.opened);
        cost += pieces.came(&frame, at, place.end + frame.length as usize <= all);
    });
    let left = pieces.join(bytes);
    bytes.truncate(left);
    cost
}

/// The frames in order without their DATA, and each stream's DATA with what stands between it.
pub type Said = (Vec<(Frame, Vec<u8>)>, BTreeMap<u32, Vec<Event>>);

#[derive(Debug, PartialEq)]
pub enum Event {
    Bytes(Vec<u8>),
    Other(Frame, Vec<u8>),
}

pub fn said(bytes: &[u8]) -> Said {
    let (mut others, mut streams) = (Vec::new(), BTreeMap::<u32, Vec<Event>>::new());
    Frames::of_server().take_placed(bytes, |frame, place| {
        let start = if frame.kind == RST_STREAM && frame.length == 4 { place.end - 4 } else { place.end };
        let payload = bytes.get(start..bytes.len().min(start + frame.length as usize)).unwrap_or_default().to_vec();
        if frame.kind != DATA {
            others.push((frame, payload.clone()));
        }
        // What is empty or of no known kind says nothing about its stream.
        if frame.kind == u8::MAX || frame.is_empty_piece() {
            return;
        }
        let events = streams.entry(frame.stream).or_default();
        let whole = payload.len() == frame.length as usize;
        match events.last_mut() {
            Some(Event::Bytes(all)) if frame.kind == DATA && frame.flags == 0 && whole => all.extend(payload),
            _ if frame.kind == DATA && frame.flags == 0 && whole => events.push(Event::Bytes(payload)),
            _ => events.push(Event::Other(frame, payload)),
        }
    });
    (others, streams)
}

/// What h2 would hold against the connection for these.
fn costs(bytes: &[u8]) -> i64 {
    let mut cost = 0;
    Frames::of_server().take(bytes, |frame| {
        if frame.kind == DATA && frame.flags == 0 {
            cost += charge(frame.length as usize);
        }
    });
    cost
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::frames::{HEADERS, SETTINGS};

    fn frame(kind: u8, flags: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
        let [.., high, low] = payload.len().to_be_bytes();
        [&[0, high, low, kind, flags, 0, 0, 0, stream], payload].concat()
    }

    fn joined(frames: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = [head(&[1, 3, 5]), frames.concat()].concat();
        fuzz_pieces(&bytes);
        join_all(&mut bytes);
        bytes.split_off(head(&[1, 3, 5]).len())
    }

    fn head(streams: &[u8]) -> Vec<u8> {
        let heads = streams.iter().flat_map(|stream| frame(HEADERS, 4, *stream, &[0x88]));
        frame(SETTINGS, 0, 0, b"").into_iter().chain(heads).collect()
    }

    #[test]
    fn what_one_stream_says_in_small_pieces_becomes_one() {
        let piece = |stream, text: &[u8]| frame(DATA, 0, stream, text);
        assert_eq!(joined(&[piece(1, b"a"), piece(1, b"bc"), piece(1, b"d")]), piece(1, b"abcd"));
        assert_eq!(
            joined(&[piece(1, b"a"), piece(3, b"x"), piece(1, b"b"), piece(3, b"y"), piece(5, b"z")]),
            [piece(1, b"ab"), piece(3, b"xy"), piece(5, b"z")].concat(),
            "over the pieces of others"
        );
    }

    #[test]
    fn what_may_not_move_stays() {
        let piece = |text: &[u8]| frame(DATA, 0, 1, text);
        for between in [
            frame(DATA, 1, 1, b"the last"),
            frame(DATA, 8, 1, b"\x01padded\0"),
            frame(DATA, 0, 1, &[b'x'; 256]),
            frame(HEADERS, 5, 1, &[0x88]),
            frame(HEADERS, 0, 3, &[0x88]),
            frame(SETTINGS, 1, 0, b""),
            frame(RST_STREAM, 0, 3, &[0; 4]),
        ] {
            let frames = [piece(b"a"), between, piece(b"b")];
            assert_eq!(joined(&frames), frames.concat());
        }
        let strange =
            [frame(DATA, 0, 7, b"a"), frame(DATA, 0, 7, b"b"), frame(DATA, 0, 0, b"c"), frame(DATA, 0, 0, b"d")];
        assert_eq!(joined(&strange), strange.concat(), "no head, no stream");
        let part = [piece(b"a"), piece(b"bcd")[..11].to_vec()];
        assert_eq!(joined(&part), part.concat());
    }

    #[test]
    fn no_frame_becomes_larger_than_every_peer_takes() {
        let pieces: Vec<_> = (0..2000).map(|_| frame(DATA, 0, 1, b"1234567890")).collect();
        let mut lengths = Vec::new();
        Frames::of_server().take(&[head(&[1]), joined(&pieces)].concat(), |frame| lengths.push(frame.length as usize));
        assert_eq!(lengths.split_off(2), [8190, 8190, 3620]);
    }

    #[test]
    fn more_streams_than_are_looked_at_lose_nothing() {
        let mut bytes = head(&(0..100).map(|n| 2 * n + 1).collect::<Vec<_>>());
        for _ in 0..3 {
            bytes.extend((0..100).flat_map(|n| frame(DATA, 0, 2 * n + 1, &[n])));
        }
        fuzz_pieces(&bytes);
        let before = bytes.len();
        join_all(&mut bytes);
        assert_eq!(before - bytes.len(), 64 * 2 * FRAME_START);
    }
}
