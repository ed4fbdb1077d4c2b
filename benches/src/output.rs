//! What one connection still has to send: bytes, and after them a run of the pattern that is never held in memory.

use std::io;

use crate::pattern;
use crate::stream::Stream;

#[derive(Default)]
pub struct Output {
    bytes: Vec<u8>,
    sent: usize,
    run: u64,
    offset: u64,
}

impl Output {
    /// Where to append. Nothing may follow a run before it is sent.
    pub fn bytes(&mut self) -> &mut Vec<u8> {
        assert!(self.run == 0, "something follows a run of the pattern");
        &mut self.bytes
    }

    /// A run of the pattern, from its beginning, after all bytes.
    pub fn pattern(&mut self, length: u64) {
        assert!(self.run == 0, "two runs of the pattern");
        (self.run, self.offset) = (length, 0);
    }

    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty() && self.run == 0
    }

    /// Takes what is there as bytes, for those who have no socket.
    pub fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.bytes)
    }

    /// Sends what the socket takes; tells how many bytes of runs went out.
    pub fn send(&mut self, stream: &mut Stream) -> io::Result<u64> {
        while self.sent < self.bytes.len() {
            match stream.write(&self.bytes[self.sent..]) {
                Ok(count) => self.sent += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(0),
                Err(error) => return Err(error),
            }
        }
        self.bytes.clear();
        self.sent = 0;
        let before = self.run;
        while self.run > 0 {
            let most = self.run.min(usize::MAX as u64) as usize;
            match stream.write(pattern::at(self.offset, most)) {
                Ok(count) => {
                    self.offset += count as u64;
                    self.run -= count as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        Ok(before - self.run)
    }
}
