//! Where header values are written: a worker's few chunks of memory, from which each value is split off. A chunk is
//! used again once all values on it are gone, so writing allocates nothing while requests come and go. Chunks are small,
//! because one long request keeps its whole chunk.

use bytes::BytesMut;
use http::HeaderValue;

#[derive(Debug, Default)]
pub struct Ink {
    chunks: Vec<BytesMut>,
    current: usize,
}

impl Ink {
    /// A value of about so many bytes at most; `None` if what was written cannot be one.
    pub fn value(&mut self, most: usize, write: impl FnOnce(&mut BytesMut)) -> Option<HeaderValue> {
        if most > LARGE {
            let mut own = BytesMut::with_capacity(most);
            write(&mut own);
            return HeaderValue::from_maybe_shared(own.freeze()).ok();
        }
        let chunk = self.chunk(most)?;
        write(chunk);
        HeaderValue::from_maybe_shared(chunk.split().freeze()).ok()
    }

    fn chunk(&mut self, most: usize) -> Option<&mut BytesMut> {
        let count = self.chunks.len();
        let next = (0..count)
            .map(|step| (self.current + step) % count)
            .find(|place| self.chunks.get_mut(*place).is_some_and(|chunk| chunk.try_reclaim(most)));
        self.current = match next {
            Some(place) => place,
            None if count < CHUNKS => {
                self.chunks.push(BytesMut::with_capacity(CHUNK));
                count
            }
            None => {
                // All are held by requests in flight. The oldest is left to those.
                let oldest = (self.current + 1) % count;
                if let Some(chunk) = self.chunks.get_mut(oldest) {
                    *chunk = BytesMut::with_capacity(CHUNK);
                }
                oldest
            }
        };
        self.chunks.get_mut(self.current)
    }
}

/// Room for some 70 values of `traceparent`.
const CHUNK: usize = 4 * 1024;
/// With as many as this, about a thousand requests are in flight before one of seventy allocates.
const CHUNKS: usize = 16;
/// What is larger gets memory of its own.
const LARGE: usize = CHUNK / 4;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_stay_as_they_were_written_while_others_follow() {
        let mut ink = Ink::default();
        let mut kept = Vec::new();
        for number in 0..50_000 {
            kept.push(ink.value(16, |text| text.extend_from_slice(number.to_string().as_bytes())).expect("a value"));
        }
        for (number, value) in kept.iter().enumerate() {
            assert_eq!(*value, number.to_string());
        }
        assert_eq!(ink.chunks.len(), CHUNKS);
    }

    #[test]
    fn what_is_large_or_more_than_said_is_whole() {
        let mut ink = Ink::default();
        for length in [LARGE, LARGE + 1, CHUNK * 2] {
            for said in [1, length] {
                let value = ink.value(said, |text| text.resize(length, b'x')).expect("a value");
                assert_eq!(value.len(), length);
            }
        }
        assert_eq!(ink.value(4, |text| text.extend_from_slice(b"a\nb")), None);
        assert_eq!(ink.value(4, |text| text.extend_from_slice(b"c")).expect("a value"), "c");
    }
}
