//! Streams on an HTTP/2 connection: plain requests, gRPC calls of one message, gRPC calls of many. That an answer
//! begins with `:status: 200`, its length, each byte, and its end are checked; other fields are not read.

use super::{Client, Tally};
use crate::frames::{
    DATA, END_HEADERS, END_STREAM, Flow, Frame, Frames, HEADERS, Name, PREFACE, RST_STREAM, Requests, greet, is_ok,
    write,
};
use crate::origin::http1::SMALL;
use crate::output::Output;
use crate::{Broken, pattern};

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    Get,
    Unary,
    Streaming,
}

pub struct Http2 {
    frames: Frames,
    rest: Calls,
}

/// All but the cutting into frames.
struct Calls {
    shape: Shape,
    slots: Vec<Slot>,
    flow: Flow,
    requests: Requests,
    asked: bool,
    next: u32,
    /// What an answer, or a message of it, must be.
    wanted: Vec<u8>,
}

#[derive(Default)]
struct Slot {
    stream: u32,
    due: u64,
    got: usize,
    headed: bool,
    busy: bool,
    /// Messages that were sent.
    sent: u32,
}

impl Http2 {
    pub fn new(shape: Shape, streams: usize, tls: bool) -> Self {
        let scheme = if tls { 7 } else { 6 };
        let small = pattern::at(0, SMALL);
        let (requests, wanted) = match shape {
            Shape::Get => {
                let fields = [(Name::Index(4), "/small"), (Name::Index(1), "localhost"), (Name::Index(58), "bench")];
                (Requests::new(&[2, scheme], &fields), small.to_vec())
            }
            Shape::Unary | Shape::Streaming => {
                let fields = [
                    (Name::Index(4), "/bench.Echo/Call"),
                    (Name::Index(1), "localhost"),
                    (Name::Index(58), "bench"),
                    (Name::Index(31), "application/grpc"),
                    (Name::Text("te"), "trailers"),
                ];
                let message = [&[0, 0, 0, 0, SMALL as u8], small].concat();
                (Requests::new(&[3, scheme], &fields), message)
            }
        };
        let slots = (0..streams).map(|_| Slot::default()).collect();
        let rest = Calls { shape, slots, flow: Flow::default(), requests, asked: false, next: 1, wanted };
        Self { frames: Frames::default(), rest }
    }
}

impl Client for Http2 {
    fn begin(&mut self, out: &mut Output) {
        out.bytes().extend_from_slice(PREFACE);
        greet(out.bytes());
    }

    fn free(&self) -> usize {
        if self.rest.flow.greeted { self.rest.slots.iter().filter(|slot| !slot.busy).count() } else { 0 }
    }

    fn ask(&mut self, due: u64, out: &mut Output) {
        self.rest.ask(due, out.bytes());
    }

    fn receive(&mut self, input: &[u8], out: &mut Output, tally: &mut Tally) -> Result<(), Broken> {
        let rest = &mut self.rest;
        self.frames.receive(input, |frame| rest.receive(frame, out.bytes(), tally))
    }
}

impl Calls {
    fn ask(&mut self, due: u64, out: &mut Vec<u8>) {
        let Some(slot) = self.slots.iter_mut().find(|slot| !slot.busy) else { return };
        (slot.busy, slot.due, slot.got) = (true, due, 0);
        if slot.stream == 0 {
            slot.stream = self.next;
            self.next += 2;
            let ends = if self.shape == Shape::Get { END_STREAM } else { 0 };
            let block = if self.asked { &self.requests.later } else { &self.requests.first };
            self.asked = true;
            write(out, HEADERS, END_HEADERS | ends, slot.stream, block);
            if self.shape == Shape::Streaming {
                self.flow.open(slot.stream);
            }
        }
        slot.sent += 1;
        match self.shape {
            Shape::Get => {}
            Shape::Unary => self.flow.data(out, slot.stream, &self.wanted, END_STREAM),
            Shape::Streaming => {
                let ends = if slot.sent == MESSAGES { END_STREAM } else { 0 };
                self.flow.data(out, slot.stream, &self.wanted, ends);
            }
        }
    }

    fn receive(&mut self, frame: Frame<'_>, out: &mut Vec<u8>, tally: &mut Tally) -> Result<(), Broken> {
        let index = self.slots.iter().position(|slot| slot.stream == frame.stream && frame.stream != 0);
        match (frame.kind, index) {
            (HEADERS, Some(index)) => {
                let slot = &mut self.slots[index];
                if !slot.headed && !is_ok(frame.content()?) {
                    return Err("an answer that is not 200".to_owned());
                }
                slot.headed = true;
                if frame.ends() {
                    self.end(index, tally)?;
                }
            }
            (DATA, Some(index)) => {
                let content = frame.content()?;
                self.flow.received(out, frame.payload.len());
                self.data(index, content, tally)?;
                if frame.ends() {
                    self.end(index, tally)?;
                }
            }
            (RST_STREAM, Some(_)) => return Err(format!("a reset with code {}", frame.number())),
            (HEADERS | DATA, None) => return Err("a frame on a stream that is over".to_owned()),
            _ => {
                self.flow.control(out, &frame)?;
                if self.flow.small_table {
                    return Err("the proxy's table of fields is smaller than the default".to_owned());
                }
            }
        }
        Ok(())
    }

    fn data(&mut self, index: usize, content: &[u8], tally: &mut Tally) -> Result<(), Broken> {
        let slot = &mut self.slots[index];
        if self.wanted.get(slot.got..slot.got + content.len()) != Some(content) {
            return Err(format!("wrong bytes after {}", slot.got));
        }
        slot.got += content.len();
        // The last message of a call is complete with its trailers.
        if self.shape == Shape::Streaming && slot.got == self.wanted.len() && slot.sent < MESSAGES {
            slot.got = 0;
            slot.busy = false;
            tally.done(slot.due);
        }
        Ok(())
    }

    fn end(&mut self, index: usize, tally: &mut Tally) -> Result<(), Broken> {
        let slot = std::mem::take(&mut self.slots[index]);
        if !slot.busy || slot.got != self.wanted.len() {
            return Err(format!("an answer that ends after {} bytes", slot.got));
        }
        tally.done(slot.due);
        Ok(())
    }
}

/// In one streaming call.
const MESSAGES: u32 = 1000;
