//! A receiver of spans that discards them: OTLP over HTTP/1.1 in protobuf. It counts what it was sent, so that a product that
//! drops spans under load is found out; `GET` of any path tells the count.

use std::cell::Cell;

use super::Server;
use super::http1::{head_length, number, value};
use crate::Broken;
use crate::output::Output;

#[derive(Default)]
pub struct Spans {
    input: Vec<u8>,
}

impl Server for Spans {
    fn receive(&mut self, input: &[u8], out: &mut Output) -> Result<(), Broken> {
        self.input.extend_from_slice(input);
        let mut done = 0;
        while let Some(request) = Request::read(&self.input[done..])? {
            done += request.length;
            let body = if request.asks {
                TAKEN.get().to_string()
            } else {
                TAKEN.set(TAKEN.get() + spans(&request.body));
                String::new()
            };
            let head = format!("HTTP/1.1 200 OK\r\nContent-Type: {TYPE}\r\nContent-Length: {}\r\n\r\n", body.len());
            out.bytes().extend_from_slice(head.as_bytes());
            out.bytes().extend_from_slice(body.as_bytes());
        }
        self.input.drain(..done);
        Ok(())
    }
}

/// One whole request.
struct Request {
    asks: bool,
    body: Vec<u8>,
    length: usize,
}

impl Request {
    /// `None`: there is more to come.
    fn read(input: &[u8]) -> Result<Option<Self>, Broken> {
        let Some(head) = head_length(input) else { return Ok(None) };
        let lines = input[..head].split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
        let (mut length, mut chunked) = (0, false);
        for line in lines {
            if let Some(value) = value(line, b"content-length") {
                length = number(value).ok_or("a content-length that is no number")? as usize;
            }
            chunked |= value(line, b"transfer-encoding").is_some();
        }
        let found = match chunked {
            true => chunks(&input[head..])?,
            false => input.get(head..head + length).map(|body| (body.to_vec(), length)),
        };
        Ok(found.map(|(body, length)| Self { asks: input.starts_with(b"GET "), body, length: head + length }))
    }
}

/// A chunked body without trailers, and how long it is on the wire.
fn chunks(input: &[u8]) -> Result<Option<(Vec<u8>, usize)>, Broken> {
    let (mut body, mut at) = (Vec::new(), 0);
    loop {
        let Some(line) = input[at..].windows(2).position(|end| end == b"\r\n") else { return Ok(None) };
        let size =
            std::str::from_utf8(&input[at..at + line]).ok().and_then(|text| usize::from_str_radix(text, 16).ok());
        let size = size.ok_or("a chunk without a size")?;
        at += line + 2;
        let Some(chunk) = input.get(at..at + size + 2) else { return Ok(None) };
        body.extend_from_slice(&chunk[..size]);
        at += size + 2;
        if size == 0 {
            return Ok(Some((body, at)));
        }
    }
}

/// `resource_spans`, in each `scope_spans`, in each `spans`.
fn spans(request: &[u8]) -> u64 {
    let scopes = messages(request, 1).flat_map(|resource| messages(resource, 2));
    scopes.map(|scope| messages(scope, 2).count() as u64).sum()
}

/// The fields of this number that have a length.
fn messages(mut message: &[u8], wanted: u64) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        loop {
            let key = varint(&mut message)?;
            let length = match key & 7 {
                0 => {
                    varint(&mut message)?;
                    continue;
                }
                1 => 8,
                2 => varint(&mut message)? as usize,
                _ => 4,
            };
            let (field, rest) = message.split_at_checked(length)?;
            message = rest;
            if key == wanted << 3 | 2 {
                return Some(field);
            }
        }
    })
}

fn varint(message: &mut &[u8]) -> Option<u64> {
    let (mut value, mut shift) = (0, 0);
    loop {
        let (byte, rest) = message.split_first()?;
        *message = rest;
        value |= u64::from(byte & 0x7f).checked_shl(shift)?;
        shift += 7;
        if *byte < 0x80 {
            return Some(value);
        }
    }
}

thread_local! {
    /// Of all connections; they are served by one thread.
    static TAKEN: Cell<u64> = const { Cell::new(0) };
}

const TYPE: &str = "application/x-protobuf";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_counted_however_their_requests_are_cut() {
        // Two resources; the first has a scope with two spans, the second one with one and a schema.
        let request =
            [&[0x0a, 8, 0x12, 6, 0x12, 1, 0, 0x12, 1, 0][..], &[0x0a, 7, 0x12, 5, 0x12, 0, 0x1a, 1, b'x']].concat();
        assert_eq!(spans(&request), 3);
        assert_eq!(spans(&request[..5]), 0, "what is cut has none that are whole");
        let size = request.len();
        let head = |how: &str| format!("POST /v1/traces HTTP/1.1\r\n{how}\r\n\r\n").into_bytes();
        let known = [&head(&format!("content-length: {size}"))[..], &request].concat();
        let chunked = [
            &head("transfer-encoding: chunked")[..],
            b"4\r\n",
            &request[..4],
            b"\r\n",
            format!("{:x}\r\n", size - 4).as_bytes(),
            &request[4..],
            b"\r\n0\r\n\r\n",
        ]
        .concat();
        let all = [known, chunked, b"GET / HTTP/1.1\r\n\r\n".to_vec()].concat();
        for step in [1, 7, 1000] {
            TAKEN.set(0);
            let (mut server, mut out) = (Spans::default(), Output::default());
            all.chunks(step).for_each(|piece| server.receive(piece, &mut out).unwrap());
            let answers = String::from_utf8(out.take()).unwrap();
            assert_eq!(answers.matches("200 OK").count(), 3);
            assert!(answers.ends_with("\r\n\r\n6"), "{answers}");
        }
    }
}
