//! OTLP/protobuf: one `ExportTraceServiceRequest`, written straight from the compact records. The message types of
//! opentelemetry-proto own every string, which costs more than the encoding; they read this back in the tests.

use std::borrow::Cow;
use std::net::IpAddr;

use super::json::{INTERIM, Resource};
use crate::telemetry::print;
use crate::trace::attributes::{Fields, Told, moved};
use crate::trace::span::{Batch, Kind};

pub fn encode(out: &mut Vec<u8>, resource: &Resource, batch: &Batch) {
    let (mut head, mut scope, mut spans) = (Vec::new(), Vec::new(), Vec::new());
    self::resource(&mut head, resource);
    self::scope(&mut scope);
    Told::all(batch).for_each(|told| entry(&mut spans, &told));
    request(out, &head, &scope, &spans);
}

/// Puts the parts of a request together, each encoded with its key.
pub fn request(out: &mut Vec<u8>, resource: &[u8], scope: &[u8], spans: &[u8]) {
    let inner = scope.len() + spans.len();
    let mut front = Vec::with_capacity(8);
    key(&mut front, 2, BYTES);
    varint(&mut front, inner as u64);
    key(out, 1, BYTES);
    varint(out, (resource.len() + front.len() + inner) as u64);
    for part in [resource, &front, scope, spans] {
        out.extend_from_slice(part);
    }
}

/// `ResourceSpans.resource`.
pub fn resource(out: &mut Vec<u8>, resource: &Resource) {
    let attributes = resource.0.iter().filter(|(_, value)| !value.is_empty());
    message(out, 1, |out| attributes.for_each(|(key, value)| Attributes(out, 1).custom(key, value)));
}

/// `ScopeSpans.scope`.
pub fn scope(out: &mut Vec<u8>) {
    message(out, 1, |out| {
        bytes(out, 1, b"spanmesh");
        bytes(out, 2, env!("CARGO_PKG_VERSION").as_bytes());
    });
}

/// `ScopeSpans.spans`, one of them.
pub fn entry(out: &mut Vec<u8>, told: &Told<'_>) {
    message(out, 2, |out| span(out, told));
}

fn span(out: &mut Vec<u8>, told: &Told<'_>) {
    let span = told.span;
    bytes(out, 1, &span.trace.to_bytes());
    bytes(out, 2, &span.id.to_bytes());
    if !span.context.state.is_empty() {
        bytes(out, 3, told.state().as_bytes());
    }
    if let Some(parent) = span.parent {
        bytes(out, 4, &parent.to_bytes());
    }
    bytes(out, 5, told.name().as_bytes());
    number(out, 6, span.kind as u64);
    fixed64(out, 7, span.start_nanos);
    fixed64(out, 8, span.end_nanos);
    told.describe(&mut Attributes(out, 9));
    if !span.reports.is_empty() && span.kind != Kind::Internal {
        let (gone, reports) = told.reports();
        for report in reports {
            message(out, 11, |out| {
                fixed64(out, 1, report.unix_nanos);
                bytes(out, 2, INTERIM.as_bytes());
                moved(report.sent, report.received, &mut Attributes(out, 3));
            });
        }
        number(out, 12, gone.into());
    }
    if let Some((trace, id)) = span.context.link {
        message(out, 13, |out| {
            bytes(out, 1, &trace.to_bytes());
            bytes(out, 2, &id.to_bytes());
        });
    }
    if told.error().is_some() {
        message(out, 15, |out| number(out, 3, STATUS_ERROR));
    }
    key(out, 16, FIXED32);
    out.extend_from_slice(&u32::from(span.flags).to_le_bytes());
}

/// Attributes as fields of this number.
struct Attributes<'a>(&'a mut Vec<u8>, u32);

impl Fields for Attributes<'_> {
    fn text(&mut self, key: &'static str, value: &str) {
        self.custom(key, value);
    }

    fn custom(&mut self, key: &str, value: &str) {
        message(self.0, self.1, |out| {
            bytes(out, 1, key.as_bytes());
            message(out, 2, |out| bytes(out, 1, value.as_bytes()));
        });
    }

    fn int(&mut self, key: &'static str, value: i64) {
        message(self.0, self.1, |out| {
            bytes(out, 1, key.as_bytes());
            message(out, 2, |out| number(out, 3, value.cast_unsigned()));
        });
    }

    fn list(&mut self, key: &str, values: &[Cow<'_, str>]) {
        message(self.0, self.1, |out| {
            bytes(out, 1, key.as_bytes());
            message(out, 2, |out| {
                message(out, 5, |out| {
                    values.iter().for_each(|value| message(out, 1, |out| bytes(out, 1, value.as_bytes())));
                });
            });
        });
    }

    fn address(&mut self, key: &'static str, value: IpAddr) {
        message(self.0, self.1, |out| {
            bytes(out, 1, key.as_bytes());
            // A string's wire form is a message's: its length, then what it is.
            message(out, 2, |out| message(out, 1, |out| print::ip(out, value)));
        });
    }
}

/// A message within the message. Its length stands in front, in as many bytes as it needs: mostly one.
fn message(out: &mut Vec<u8>, field: u32, fill: impl FnOnce(&mut Vec<u8>)) {
    key(out, field, BYTES);
    let start = out.len();
    out.push(0);
    fill(out);
    let length = out.len() - start - 1;
    match (u8::try_from(length), out.get_mut(start)) {
        (Ok(short @ ..0x80), Some(place)) => *place = short,
        _ => {
            let mut long = Vec::with_capacity(5);
            varint(&mut long, length as u64);
            out.splice(start..=start, long);
        }
    }
}

fn bytes(out: &mut Vec<u8>, field: u32, value: &[u8]) {
    key(out, field, BYTES);
    varint(out, value.len() as u64);
    out.extend_from_slice(value);
}

fn number(out: &mut Vec<u8>, field: u32, value: u64) {
    key(out, field, VARINT);
    varint(out, value);
}

fn fixed64(out: &mut Vec<u8>, field: u32, value: u64) {
    key(out, field, FIXED64);
    out.extend_from_slice(&value.to_le_bytes());
}

fn key(out: &mut Vec<u8>, field: u32, kind: u32) {
    varint(out, u64::from(field << 3 | kind));
}

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

const VARINT: u32 = 0;
const FIXED64: u32 = 1;
const BYTES: u32 = 2;
const FIXED32: u32 = 5;
const STATUS_ERROR: u64 = 2;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_take_the_bytes_that_they_need() {
        for (length, front) in
            [(0, &[0x0a, 0][..]), (127, &[0x0a, 127]), (128, &[0x0a, 0x80, 1]), (16384, &[0x0a, 0x80, 0x80, 1])]
        {
            let mut out = Vec::new();
            message(&mut out, 1, |out| out.resize(out.len() + length, 7));
            assert_eq!((&out[..front.len()], out.len()), (front, front.len() + length));
        }
    }
}
