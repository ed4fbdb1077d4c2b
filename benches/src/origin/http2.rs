//! A request without a body gets 128 bytes; one with a body is taken for gRPC and gets each message back, then
//! `grpc-status: 0`. It never looks into a header block: the proxies write those, and reading them is not measured.

use super::Server;
use super::http1::SMALL;
use crate::frames::{self, DATA, END_HEADERS, END_STREAM, Flow, Frame, Frames, HEADERS, PREFACE, RST_STREAM};
use crate::output::Output;
use crate::{Broken, pattern};

#[derive(Default)]
pub struct Http2 {
    preface: Vec<u8>,
    begun: bool,
    frames: Frames,
    flow: Flow,
}

impl Server for Http2 {
    fn receive(&mut self, mut input: &[u8], out: &mut Output) -> Result<(), Broken> {
        if !self.begun {
            let wanted = PREFACE.len() - self.preface.len();
            let (piece, rest) = input.split_at(wanted.min(input.len()));
            self.preface.extend_from_slice(piece);
            input = rest;
            if self.preface.len() < PREFACE.len() {
                return Ok(());
            }
            if self.preface != PREFACE {
                return Err("what came is not HTTP/2".to_owned());
            }
            self.begun = true;
            frames::greet(out.bytes());
        }
        let flow = &mut self.flow;
        self.frames.receive(input, |frame| answer(flow, frame, out.bytes()))
    }
}

fn answer(flow: &mut Flow, frame: Frame<'_>, out: &mut Vec<u8>) -> Result<(), Broken> {
    let stream = frame.stream;
    match frame.kind {
        HEADERS if frame.ends() => {
            frames::write(out, HEADERS, END_HEADERS, stream, PLAIN);
            flow.data(out, stream, pattern::at(0, SMALL), END_STREAM);
        }
        HEADERS => {
            flow.open(stream);
            frames::write(out, HEADERS, END_HEADERS, stream, GRPC);
        }
        DATA => {
            let content = frame.content()?;
            if !content.is_empty() {
                flow.data(out, stream, content, 0);
            }
            if frame.ends() {
                flow.trailers(out, stream, GRPC_END);
            }
            flow.received(out, frame.payload.len());
        }
        RST_STREAM => flow.close(stream),
        _ => {
            flow.control(out, &frame)?;
        }
    }
    Ok(())
}

// `:status: 200` from the static table, then literals that are not indexed: name index, length, value.
const PLAIN: &[u8] = b"\x88\x0f\x10\x18application/octet-stream\x0f\x0d\x03128";
const GRPC: &[u8] = b"\x88\x0f\x10\x10application/grpc";
const GRPC_END: &[u8] = b"\x00\x0bgrpc-status\x010";
