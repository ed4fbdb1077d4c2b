//! Bytes without a protocol that a proxy could know; see the origin's half.

use super::{Client, Tally};
use crate::origin::http1::SMALL;
use crate::origin::tcp::{RIGHT, order};
use crate::output::Output;
use crate::{Broken, pattern};

/// One small message to and fro.
#[derive(Default)]
pub struct Ping {
    begun: bool,
    due: Option<u64>,
    got: usize,
}

impl Client for Ping {
    fn free(&self) -> usize {
        usize::from(self.due.is_none())
    }

    fn ask(&mut self, due: u64, out: &mut Output) {
        if !std::mem::replace(&mut self.begun, true) {
            out.bytes().extend_from_slice(&order(b'P', 0));
        }
        out.bytes().extend_from_slice(pattern::at(0, SMALL));
        (self.due, self.got) = (Some(due), 0);
    }

    fn receive(&mut self, input: &[u8], _: &mut Output, tally: &mut Tally) -> Result<(), Broken> {
        let due = self.due.ok_or("bytes that nobody asked for")?;
        if self.got + input.len() > SMALL || !pattern::matches(self.got as u64, input) {
            return Err(format!("wrong bytes after {}", self.got));
        }
        self.got += input.len();
        if self.got == SMALL {
            tally.done(due);
            self.due = None;
        }
        Ok(())
    }
}

pub struct Down {
    size: u64,
    due: Option<u64>,
    got: u64,
}

impl Down {
    pub fn new(size: u64) -> Self {
        Self { size, due: None, got: 0 }
    }
}

impl Client for Down {
    fn free(&self) -> usize {
        usize::from(self.due.is_none())
    }

    fn ask(&mut self, due: u64, out: &mut Output) {
        out.bytes().extend_from_slice(&order(b'D', self.size));
        (self.due, self.got) = (Some(due), 0);
    }

    fn receive(&mut self, input: &[u8], _: &mut Output, tally: &mut Tally) -> Result<(), Broken> {
        let due = self.due.ok_or("bytes that nobody asked for")?;
        if !pattern::matches(self.got, input) {
            return Err(format!("wrong bytes after {}", self.got));
        }
        self.got += input.len() as u64;
        tally.bytes += input.len() as u64;
        if self.got >= self.size {
            tally.done(due);
            self.due = None;
        }
        Ok(())
    }
}

pub struct Up {
    size: u64,
    due: Option<u64>,
}

impl Up {
    pub fn new(size: u64) -> Self {
        Self { size, due: None }
    }
}

impl Client for Up {
    fn free(&self) -> usize {
        usize::from(self.due.is_none())
    }

    fn ask(&mut self, due: u64, out: &mut Output) {
        out.bytes().extend_from_slice(&order(b'U', self.size));
        out.pattern(self.size);
        self.due = Some(due);
    }

    fn receive(&mut self, input: &[u8], _: &mut Output, tally: &mut Tally) -> Result<(), Broken> {
        let due = self.due.take().ok_or("bytes that nobody asked for")?;
        if input != [RIGHT] {
            return Err("the origin got other bytes than were sent".to_owned());
        }
        tally.done(due);
        Ok(())
    }
}
