//! Makes inputs from inputs. It knows two shapes beside plain bytes: text of lines, and HTTP/2 frames, whose lengths it
//! puts right after a change, since a wrong one hides everything behind it.

use super::frames::{self, Frame, PREFACE};
use super::tokens;

pub struct Mutator {
    random: Random,
    tokens: Vec<&'static [u8]>,
    /// The first byte says how the other side behaves.
    has_manner: bool,
    /// What comes are a server's frames.
    is_server: bool,
}

impl Mutator {
    pub fn new(target: &str, seed: u64) -> Self {
        let whole = matches!(target, "client_http1" | "client_http2" | "origin_http1" | "origin_http2");
        let seed = target.bytes().fold(seed, |seed, byte| seed.wrapping_mul(31).wrapping_add(u64::from(byte)));
        Self {
            random: Random(seed.wrapping_mul(2).wrapping_add(1)),
            tokens: tokens::of(target),
            has_manner: whole,
            is_server: target == "origin_http2",
        }
    }

    /// The next input. The newest of the pool are taken more often: they lead on.
    pub fn next(&mut self, pool: &[Vec<u8>]) -> Vec<u8> {
        let one = self.pick(pool);
        let other = self.pick(pool);
        let manner = usize::from(self.has_manner);
        let (mut first, body) = one.split_at(manner.min(one.len()));
        let changed = [self.random.byte()];
        if self.has_manner && (self.random.one_in(8) || first.is_empty()) {
            first = &changed;
        }
        let other = other.get(manner.min(other.len())..).unwrap_or_default();
        let preface: &[u8] = if body.starts_with(PREFACE) { PREFACE } else { b"" };
        let frames = self.is_server || !preface.is_empty();
        let mut body = match body.strip_prefix(preface) {
            Some(behind) if frames && !self.random.one_in(8) => {
                [preface, &self.frames(behind, other.strip_prefix(preface).unwrap_or(other))].concat()
            }
            _ => self.bytes(body, other),
        };
        body.truncate(INPUT_MAX);
        [first, &body].concat()
    }

    fn pick<'a>(&mut self, pool: &'a [Vec<u8>]) -> &'a [u8] {
        let count = pool.len();
        let newest = count.saturating_sub(count / 8 + 4);
        let place = match self.random.one_in(2) {
            true => newest + self.random.below(count - newest),
            false => self.random.below(count),
        };
        pool.get(place).map(Vec::as_slice).unwrap_or_default()
    }

    fn bytes(&mut self, from: &[u8], other: &[u8]) -> Vec<u8> {
        let mut bytes = from.to_vec();
        for _ in 0..1 << self.random.below(4) {
            self.change(&mut bytes, other);
        }
        bytes
    }

    fn change(&mut self, bytes: &mut Vec<u8>, other: &[u8]) {
        let length = bytes.len();
        let at = self.random.below(length + 1);
        let end = at + self.random.below((length - at).min(64) + 1);
        match self.random.below(13) {
            0 if at < length => bytes[at] ^= 1 << self.random.below(8),
            1 if at < length => bytes[at] = self.random.byte(),
            2 => bytes.insert(at, self.random.byte()),
            3 => drop(bytes.drain(at..end)),
            4 => {
                let again = bytes[at..end].to_vec();
                let to = self.random.below(length + 1);
                bytes.splice(to..to, again);
            }
            5 => bytes.truncate(at),
            6 => {
                let (from, to) = self.range(other.len());
                bytes.splice(at..end, other[from..to].iter().copied());
            }
            7 => self.lines(bytes),
            8 | 9 => self.number(bytes),
            10 => {
                let token = self.token();
                bytes.splice(at..end, token.iter().copied());
            }
            _ => {
                let token = self.token();
                // Where a line begins a token is at home.
                let starts = bytes.iter().enumerate().filter(|(_, byte)| **byte == b'\n').map(|(place, _)| place + 1);
                let starts: Vec<_> = std::iter::once(0).chain(starts).collect();
                let place = if self.random.one_in(2) { at } else { starts[self.random.below(starts.len())] };
                bytes.splice(place..place, token.iter().copied());
            }
        }
    }

    /// Leaves out, doubles or moves a line.
    fn lines(&mut self, bytes: &mut Vec<u8>) {
        let mut lines: Vec<Vec<u8>> = bytes.split_inclusive(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect();
        if lines.is_empty() {
            return;
        }
        let line = lines.remove(self.random.below(lines.len()));
        for _ in 0..self.random.below(3) {
            lines.insert(self.random.below(lines.len() + 1), line.clone());
        }
        *bytes = lines.concat();
    }

    /// A number becomes its neighbour, or one at an edge.
    fn number(&mut self, bytes: &mut Vec<u8>) {
        let digits: Vec<_> = (0..bytes.len()).filter(|place| bytes[*place].is_ascii_digit()).collect();
        if digits.is_empty() {
            return;
        }
        let at = digits[self.random.below(digits.len())];
        let end = at + bytes[at..].iter().take_while(|byte| byte.is_ascii_digit()).count();
        let value = std::str::from_utf8(&bytes[at..end]).ok().and_then(|text| text.parse::<u64>().ok()).unwrap_or(0);
        let text = match self.random.below(8) {
            0 => value.wrapping_sub(1).to_string(),
            1 => value.wrapping_add(1).to_string(),
            2 => format!("0{value}"),
            3 => format!("+{value}"),
            4 => u64::MAX.to_string(),
            5 => "4294967297".into(),
            6 => self.random.below(70_000).to_string(),
            _ => self.random.below(20).to_string(),
        };
        bytes.splice(at..end, text.bytes());
    }

    fn frames(&mut self, from: &[u8], other: &[u8]) -> Vec<u8> {
        let (mut frames, rest) = frames::split(from);
        let (others, _) = frames::split(other);
        for _ in 0..1 << self.random.below(3) {
            let place = self.random.below(frames.len() + 1);
            match self.random.below(10) {
                0 if place < frames.len() => drop(frames.remove(place)),
                1 if place < frames.len() => {
                    let again = frames[place].clone();
                    let times = if self.random.one_in(16) { 100 } else { 1 };
                    frames.splice(place..place, std::iter::repeat_n(again, times));
                }
                2 if frames.len() > 1 => {
                    let to = self.random.below(frames.len());
                    frames.swap(place.min(to), to);
                }
                3 if !others.is_empty() => frames.insert(place, others[self.random.below(others.len())].clone()),
                4 | 5 if place < frames.len() => {
                    let mut payload = std::mem::take(&mut frames[place].payload);
                    self.change(&mut payload, other);
                    frames[place].payload = payload;
                }
                6 if place < frames.len() => self.heading(&mut frames[place]),
                7 if place < frames.len() => self.cut(&mut frames, place),
                _ => {
                    let new = self.frame();
                    frames.insert(place, new);
                }
            }
        }
        let mut out = Vec::new();
        frames.iter().for_each(|frame| frame.write(&mut out));
        if self.random.one_in(16) && !out.is_empty() {
            let place = self.random.below(out.len());
            out[place] = self.random.byte();
        }
        out.extend_from_slice(rest);
        out
    }

    fn heading(&mut self, frame: &mut Frame) {
        match self.random.below(3) {
            0 => frame.kind = self.random.below(11) as u8,
            1 => frame.flags ^= 1 << self.random.below(6),
            _ => frame.stream = self.stream(),
        }
    }

    /// A head in two frames.
    fn cut(&mut self, frames: &mut Vec<Frame>, place: usize) {
        let frame = &mut frames[place];
        let at = self.random.below(frame.payload.len() + 1);
        let behind = frame.payload.split_off(at);
        let flags = frame.flags & 4;
        frame.flags &= !4;
        let stream = frame.stream;
        frames.insert(place + 1, Frame::new(9, flags, stream, behind));
    }

    fn stream(&mut self) -> u32 {
        match self.random.below(8) {
            0 => 0,
            1 => 2,
            2 => 0x7fff_ffff,
            3 => self.random.next() as u32,
            other => other as u32 * 2 - 7,
        }
    }

    fn frame(&mut self) -> Frame {
        let stream = self.stream();
        let number = self.random.next() as u32;
        match self.random.below(12) {
            0 => Frame::new(0, self.random.below(2) as u8, stream, vec![b'd'; self.random.below(20)]),
            1 => Frame::new(2, 0, stream, [0, 0, 0, 1, 5]),
            2 => Frame::new(3, 0, stream, (number % 14).to_be_bytes()),
            3 | 4 => {
                let setting = 1 + number as u16 % 8;
                let value = [0u32, 1, 100, 65_535, 0x7fff_ffff, u32::MAX, 16_384][self.random.below(7)];
                Frame::new(4, 0, 0, [&setting.to_be_bytes()[..], &value.to_be_bytes()].concat())
            }
            5 => Frame::new(6, self.random.below(2) as u8, 0, number.to_be_bytes().repeat(2)),
            6 => Frame::new(7, 0, 0, [stream.to_be_bytes(), (number % 14).to_be_bytes()].concat()),
            7 => Frame::new(8, 0, stream & 7, [1u32, 0, 0x7fff_ffff, 65_535][self.random.below(4)].to_be_bytes()),
            _ => {
                let flags = 4 + self.random.below(2) as u8;
                Frame::new(1, flags, stream, self.block())
            }
        }
    }

    /// A head that would be good, but for a field or two.
    fn block(&mut self) -> Vec<u8> {
        let good: &[(&str, &str)] = match self.is_server {
            true => &[(":status", "200")],
            false => &[(":method", "GET"), (":path", "/a"), (":scheme", "http"), (":authority", "a")],
        };
        let mut fields = good.to_vec();
        for _ in 0..self.random.below(4) {
            let field = tokens::FIELDS[self.random.below(tokens::FIELDS.len())];
            match fields.iter().position(|(name, _)| *name == field.0) {
                Some(place) if !self.random.one_in(4) => fields[place] = field,
                _ => fields.push(field),
            }
        }
        if self.random.one_in(8) {
            fields.remove(self.random.below(fields.len()));
        }
        frames::block(fields.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())))
    }

    fn token(&mut self) -> &'static [u8] {
        self.tokens[self.random.below(self.tokens.len())]
    }

    fn range(&mut self, length: usize) -> (usize, usize) {
        let from = self.random.below(length + 1);
        (from, from + self.random.below(length - from + 1))
    }
}

/// Steele's SplitMix64: small, and the same numbers everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    fn below(&mut self, count: usize) -> usize {
        if count == 0 { 0 } else { (self.next() % count as u64) as usize }
    }

    fn one_in(&mut self, count: usize) -> bool {
        self.below(count) == 0
    }

    fn byte(&mut self) -> u8 {
        self.next() as u8
    }
}

/// Longer inputs find little more and cost their time.
const INPUT_MAX: usize = 8192;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_inputs() {
        let pool = vec![
            b"0GET / HTTP/1.1\r\nhost: a\r\n\r\n".to_vec(),
            [b"0", PREFACE, &[0, 0, 0, 4, 0, 0, 0, 0, 0]].concat(),
        ];
        let inputs = |seed| {
            let mut mutator = Mutator::new("client_http1", seed);
            (0..500).map(|_| mutator.next(&pool)).collect::<Vec<_>>()
        };
        assert_eq!(inputs(1), inputs(1));
        assert_ne!(inputs(1), inputs(2));
    }
}
