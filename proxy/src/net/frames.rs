//! Where one side of an HTTP/2 connection is in its bytes, and which frames pass (RFC 9113 §4.1). Of a frame this reads no
//! more than its first bytes: what it means, and whether it may come, the engine knows. `http::counted` feeds it.

/// One frame's first bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub length: u32,
    pub stream: u32,
    /// Of RST_STREAM.
    pub code: u32,
}

impl Frame {
    pub fn ends_stream(&self) -> bool {
        self.flags & END_STREAM != 0
    }

    /// A piece of a body in which nothing is and that is not the last.
    pub fn is_empty_piece(&self) -> bool {
        self.kind == DATA && self.length == 0 && self.flags & (END_STREAM | PADDED) == 0
    }
}

/// Where a frame stands.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    /// How many of the bytes that were taken there are up to the end of its first ones.
    pub end: usize,
    /// A head has begun on this stream or on a newer one, from the same side.
    pub opened: bool,
}

/// Where a peer is in its bytes.
pub struct Frames {
    /// Bytes of the preface, or of a frame behind its first ones, that are still to come.
    left: usize,
    /// The latest bytes of a frame's first ones, how many there are and how many there must be.
    start: u128,
    have: usize,
    want: usize,
    data: bool,
    /// A head has begun: HEADERS, and CONTINUATION, up to END_HEADERS.
    head: bool,
    end_headers: bool,
    /// Heads that opened a stream, with the one that has not ended; beyond which stream the next does; the newest stream
    /// whose head has ended.
    heads: u64,
    opening: bool,
    beyond: u32,
    newest: u32,
    /// We said goodbye.
    leaving: bool,
    /// The first frame has come, which is the peer's settings.
    settled: bool,
    /// The first frame was another.
    strange: bool,
}

impl Frames {
    pub fn of_client() -> Self {
        Self { left: PREFACE, ..Self::of_server() }
    }

    pub fn of_server() -> Self {
        Self {
            left: 0,
            start: 0,
            have: 0,
            want: FRAME_START,
            data: false,
            head: false,
            end_headers: false,
            heads: 0,
            opening: false,
            beyond: 0,
            newest: 0,
            leaving: false,
            settled: false,
            strange: false,
        }
    }

    /// Whether the first frame was anything but settings, which must come first (§3.4); the engine takes any.
    pub fn is_strange(&self) -> bool {
        self.strange
    }

    /// Heads that opened a stream.
    pub fn heads(&self) -> u64 {
        self.heads - u64::from(self.opening)
    }

    /// The same with one that has begun and not ended.
    pub fn heads_begun(&self) -> u64 {
        self.heads
    }

    /// The newest stream whose head has ended.
    pub fn newest(&self) -> u32 {
        self.newest
    }

    /// We said goodbye: with the peer's answer to the PING behind it, h2 goes deaf to new streams.
    pub fn leaving(&mut self) {
        self.leaving = true;
    }

    /// No frame, and no head, has begun that has not ended.
    pub fn is_between(&self) -> bool {
        self.have == 0 && self.left == 0 && !self.head
    }

    /// How many of the latest bytes, from its kind on, are of what may become an empty piece: its first bytes will tell.
    pub fn undecided(&self) -> usize {
        let has_kind = self.left == 0 && (KIND_END..FRAME_START).contains(&self.have);
        let kind = self.start >> (8 * self.have.saturating_sub(KIND_END));
        if has_kind && kind as u32 == u32::from(DATA) { self.have - KIND } else { 0 }
    }

    /// Tells each frame that these bytes bring, and returns whether, after them, something has begun and not ended that
    /// must not take long: anything but a body.
    pub fn take(&mut self, bytes: &[u8], mut passes: impl FnMut(Frame)) -> bool {
        self.take_placed(bytes, |frame, _| passes(frame))
    }

    /// The same, with the place of each.
    pub fn take_placed(&mut self, mut bytes: &[u8], mut passes: impl FnMut(Frame, Place)) -> bool {
        let all = bytes.len();
        while let Some((first, rest)) = bytes.split_first() {
            if self.left > 0 {
                let passed = self.left.min(bytes.len());
                self.left -= passed;
                bytes = bytes.get(passed..).unwrap_or_default();
            } else {
                self.start = self.start << 8 | u128::from(*first);
                self.have += 1;
                bytes = rest;
                if self.have < self.want {
                    continue;
                }
                match self.begin() {
                    Some(frame) => {
                        let opened = 0 < frame.stream && frame.stream <= self.beyond;
                        passes(frame, Place { end: all - bytes.len(), opened });
                    }
                    None => continue,
                }
            }
            if self.left == 0 && self.end_headers {
                if self.opening {
                    (self.opening, self.newest) = (false, self.beyond);
                }
                (self.head, self.end_headers) = (false, false);
            }
        }
        !self.settled || self.have > 0 || self.head || self.left > 0 && !self.data
    }

    /// `None` when a few bytes more are wanted.
    fn begin(&mut self) -> Option<Frame> {
        let code = if self.want == RESET_LENGTH + FRAME_START { self.start as u32 } else { 0 };
        let start = self.start >> (8 * (self.want - FRAME_START));
        let [.., long, middle, short, kind, flags, a, b, c, d] = start.to_be_bytes();
        let length = u32::from_be_bytes([0, long, middle, short]);
        if kind == RST_STREAM && length as usize == RESET_LENGTH && self.want == FRAME_START {
            self.want += RESET_LENGTH;
            return None;
        }
        let stream = u32::from_be_bytes([a, b, c, d]) & STREAM;
        self.left = length as usize - (self.want - FRAME_START);
        (self.have, self.want) = (0, FRAME_START);
        self.strange |= !self.settled && (kind != SETTINGS || flags & ACK != 0);
        self.settled = true;
        self.data = kind == DATA;
        if matches!(kind, HEADERS | CONTINUATION) {
            self.head = true;
            self.end_headers = flags & END_HEADERS != 0;
            if kind == HEADERS && stream > self.beyond {
                self.heads += 1;
                (self.opening, self.beyond) = (true, stream);
            }
        } else if self.leaving && kind == PING && flags & ACK != 0 {
            self.beyond = u32::MAX;
        }
        Some(Frame { kind, flags, length, stream, code })
    }
}

const PREFACE: usize = 24;
pub const FRAME_START: usize = 9;
const RESET_LENGTH: usize = 4;
/// Behind three bytes of length.
const KIND: usize = 3;
const KIND_END: usize = KIND + 1;
/// Without the reserved bit.
const STREAM: u32 = u32::MAX >> 1;
pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
const CONTINUATION: u8 = 9;
const ACK: u8 = 1;
pub const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const PADDED: u8 = 8;

/// However the bytes are cut, they tell the same.
pub fn fuzz_frames(bytes: &[u8]) {
    let (mut whole, mut piecewise) = (Frames::of_client(), Frames::of_client());
    let (mut these, mut those) = (Vec::new(), Vec::new());
    let at_once = whole.take(bytes, |frame| these.push(frame));
    let in_bytes = bytes.chunks(1).map(|byte| piecewise.take(byte, |frame| those.push(frame))).last();
    assert_eq!((at_once, these), (in_bytes.unwrap_or(true), those));
    assert_eq!(whole.strange, piecewise.strange);
    assert_eq!((whole.heads, whole.opening, whole.newest), (piecewise.heads, piecewise.opening, piecewise.newest));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        [&[0, 0, payload.len() as u8, kind, flags, 0, 0, 0, 1], payload].concat()
    }

    fn settled() -> Frames {
        let mut frames = Frames::of_client();
        assert!(frames.take(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", |_| {}));
        assert!(!frames.take(&frame(SETTINGS, 0, b""), |_| {}));
        frames
    }

    #[test]
    fn only_settings_may_come_first() {
        for (first, strange) in
            [(frame(SETTINGS, 0, b""), false), (frame(SETTINGS, ACK, b""), true), (frame(6, 0, &[0; 8]), true)]
        {
            let mut frames = Frames::of_client();
            frames.take(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", |_| {});
            frames.take(&first, |_| {});
            frames.take(&frame(6, 0, &[0; 8]), |_| {});
            assert_eq!(frames.is_strange(), strange, "{first:?}");
        }
    }

    #[test]
    fn a_head_is_under_way_until_its_last_byte() {
        let mut frames = settled();
        let head = [frame(HEADERS, 0, b"abc"), frame(CONTINUATION, 0, b""), frame(CONTINUATION, 4, b"de")].concat();
        let (last, before) = head.split_last().unwrap();
        for byte in before {
            assert!(frames.take(&[*byte], |_| {}));
        }
        assert!(!frames.take(&[*last], |_| {}));
        assert!(!frames.take(&frame(HEADERS, 5, b"abc"), |_| {}));
    }

    #[test]
    fn a_piece_of_a_body_may_take_its_time_and_a_ping_is_over_at_once() {
        let mut frames = settled();
        let data = frame(DATA, 0, b"hello");
        assert!(frames.take(&data[..5], |_| {}));
        assert!(!frames.take(&data[5..11], |_| {}));
        assert!(!frames.take(&data[11..], |_| {}));
        assert!(!frames.take(&frame(6, 0, &[0; 8]), |_| {}));
    }

    #[test]
    fn a_reset_tells_its_reason_and_one_of_a_wrong_length_does_not_lead_astray() {
        let mut frames = settled();
        let mut seen = Vec::new();
        let bytes = [
            frame(RST_STREAM, 0, &[0, 0, 0, 7]),
            frame(RST_STREAM, 0, &[0, 0, 0, 7, 9]),
            frame(RST_STREAM, 0, &[0, 0]),
            frame(DATA, 1, b"x"),
        ];
        assert!(!frames.take(&bytes.concat(), |frame| seen.push((frame.kind, frame.length, frame.code))));
        assert_eq!(seen, [(RST_STREAM, 4, 7), (RST_STREAM, 5, 0), (RST_STREAM, 2, 0), (DATA, 1, 0)]);
    }

    #[test]
    fn a_head_that_opens_a_stream_counts_once_it_has_ended() {
        let on = |stream: u8, kind, flags| [&[0, 0, 1, kind, flags, 0, 0, 0, stream], &[0x82][..]].concat();
        let mut frames = settled();
        let mut take = |bytes: Vec<u8>| {
            frames.take(&bytes, |_| {});
            (frames.heads_begun(), frames.heads(), frames.newest())
        };
        assert_eq!(take(on(3, HEADERS, 0)), (1, 0, 0));
        assert_eq!(take(on(3, CONTINUATION, END_HEADERS)[..9].to_vec()), (1, 0, 0));
        assert_eq!(take(vec![0x82]), (1, 1, 3));
        assert_eq!(take(on(3, HEADERS, END_HEADERS)), (1, 1, 3), "trailers");
        assert_eq!(take(on(1, HEADERS, END_HEADERS)), (1, 1, 3), "an old stream");
        assert_eq!(take([on(5, HEADERS, END_HEADERS), on(9, HEADERS, END_HEADERS)].concat()), (3, 3, 9));
    }

    #[test]
    fn behind_the_answer_to_our_goodbye_no_stream_opens() {
        let head = |stream: u8| [0, 0, 0, HEADERS, END_HEADERS, 0, 0, 0, stream];
        let pong = frame(PING, ACK, &[0; 8]);
        let mut frames = settled();
        frames.take(&pong, |_| {});
        frames.take(&head(1), |_| {});
        frames.leaving();
        frames.take(&head(3), |_| {});
        frames.take(&pong, |_| {});
        frames.take(&head(5), |_| {});
        assert_eq!(frames.heads(), 2);
    }
}
