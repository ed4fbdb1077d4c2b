//! Answers that are whole before their requests are. h2 forgets that such an answer is whole when the connection ends
//! behind it, and breaks it off if it has not been read by then. A reset with NO_ERROR, with which a server says that it
//! needs no more of the request (RFC 9113 §8.1), leaves the answer whole: so the connection's end is told in that way.

use crate::net::frames::{DATA, Frame, HEADERS, RST_STREAM};

/// The requests of one upstream connection that have not ended, as the frames on its socket tell.
#[derive(Debug, Default)]
pub struct Uploads(Vec<Upload>);

#[derive(Debug)]
struct Upload {
    stream: u32,
    answered: bool,
}

impl Uploads {
    /// A frame of ours. There are no more of these than the peer allows streams.
    pub fn went(&mut self, frame: &Frame) {
        let ends = frame.kind == RST_STREAM || ends_message(frame);
        if frame.kind == HEADERS && !ends {
            self.0.push(Upload { stream: frame.stream, answered: false });
        } else if ends {
            self.0.retain(|upload| upload.stream != frame.stream);
        }
    }

    /// A frame of the peer's.
    pub fn came(&mut self, frame: &Frame) {
        if frame.kind == RST_STREAM {
            self.0.retain(|upload| upload.stream != frame.stream);
        } else if ends_message(frame) {
            let upload = self.0.iter_mut().find(|upload| upload.stream == frame.stream);
            upload.into_iter().for_each(|upload| upload.answered = true);
        }
    }

    /// The connection has ended: resets for what is answered, as many as there is room for, each told once.
    pub fn resets(&mut self, room: usize) -> Vec<u8> {
        let mut left = room / RESET.len();
        let mut resets = Vec::new();
        self.0.retain(|upload| {
            if upload.answered && left > 0 {
                left -= 1;
                let mut frame = RESET;
                if let Some(place) = frame.get_mut(5..9) {
                    place.copy_from_slice(&upload.stream.to_be_bytes());
                }
                resets.extend_from_slice(&frame);
                return false;
            }
            true
        });
        resets
    }
}

fn ends_message(frame: &Frame) -> bool {
    matches!(frame.kind, DATA | HEADERS) && frame.ends_stream()
}

/// With NO_ERROR; its stream is to be filled in.
const RESET: [u8; 13] = [0, 0, 4, RST_STREAM, 0, 0, 0, 0, 0, 0, 0, 0, 0];

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, stream: u32) -> Frame {
        Frame { kind, flags, length: 0, stream, code: 0 }
    }

    fn uploads() -> Uploads {
        let mut uploads = Uploads::default();
        [1, 3, 5, 7].iter().for_each(|stream| uploads.went(&frame(HEADERS, 4, *stream)));
        uploads.went(&frame(HEADERS, 5, 9));
        uploads
    }

    #[test]
    fn only_what_is_answered_and_not_uploaded_is_reset_and_only_once() {
        let mut uploads = uploads();
        assert!(uploads.resets(1000).is_empty());
        for stream in [1, 3, 5, 9] {
            uploads.came(&frame(HEADERS, 4, stream));
            uploads.came(&frame(DATA, 1, stream));
        }
        uploads.came(&frame(6, 1, 7)); // the answer to a PING has the same flag
        uploads.went(&frame(DATA, 1, 3));
        uploads.went(&frame(RST_STREAM, 0, 5));
        assert_eq!(uploads.resets(1000), [0, 0, 4, 3, 0, 0, 0, 0, 1, 0, 0, 0, 0]);
        assert!(uploads.resets(1000).is_empty());
    }

    #[test]
    fn what_has_no_room_comes_later() {
        let mut uploads = uploads();
        [1, 3, 5].iter().for_each(|stream| uploads.came(&frame(HEADERS, 5, *stream)));
        assert_eq!(uploads.resets(12).len(), 0);
        assert_eq!(uploads.resets(30).len(), 26);
        assert_eq!(uploads.resets(30).len(), 13);
    }

    #[test]
    fn what_the_peer_resets_is_over() {
        let mut uploads = uploads();
        uploads.came(&frame(DATA, 1, 1));
        uploads.came(&frame(RST_STREAM, 0, 1));
        assert!(uploads.resets(1000).is_empty());
    }
}
