//! OTLP/protobuf: one `ExportTraceServiceRequest`, written straight from the compact records. The message types of
//! opentelemetry-proto own every string, which costs more than the encoding; they read this back in the tests.

use std::borrow::Cow;
use std::net::IpAddr;
use std::ops::Range;

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
    // Nearly every span's length takes two bytes, which are kept free; what another takes is moved for.
    key(out, 2, BYTES);
    let start = out.len();
    out.extend_from_slice(&[0, 0]);
    span(out, told);
    let length = out.len() - start - 2;
    match (length, out.get_mut(start..start + 2)) {
        (0x80..0x4000, Some(place)) => place.copy_from_slice(&[length as u8 | 0x80, (length >> 7) as u8]),
        _ => put_length(out, start..start + 2, length),
    }
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
    let (method, space, route) = told.name_in_parts();
    key(out, 5, BYTES);
    varint(out, (method.len() + space.len() + route.len()) as u64);
    for part in [&*method, space, &*route] {
        out.extend_from_slice(part.as_bytes());
    }
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

impl Attributes<'_> {
    /// The attribute up to what is within its value, if all its lengths take one byte: a span has twenty, and each step of
    /// each counts. Keys are known where this is called, so copying them is a move or two.
    #[inline(always)]
    fn open(&mut self, key: &'static str, value: usize) -> Option<&mut Vec<u8>> {
        let (inner, length) = (u8::try_from(value).ok()?, u8::try_from(key.len()).ok()?);
        let all = key.len() + value + 4;
        if all >= 0x80 {
            return None;
        }
        let out = &mut *self.0;
        out.reserve(all + 2);
        out.extend_from_slice(&[(self.1 << 3 | BYTES) as u8, all as u8, 0x0a, length]);
        out.extend_from_slice(key.as_bytes());
        out.extend_from_slice(&[0x12, inner]);
        Some(out)
    }

    #[inline(always)]
    fn string(&mut self, key: &'static str, value: &[u8]) {
        match self.open(key, value.len() + 2) {
            Some(out) => {
                out.extend_from_slice(&[0x0a, value.len() as u8]);
                out.extend_from_slice(value);
            }
            None => self.long(key, value),
        }
    }

    fn long(&mut self, key: &str, value: &[u8]) {
        message(self.0, self.1, |out| {
            bytes(out, 1, key.as_bytes());
            message(out, 2, |out| bytes(out, 1, value));
        });
    }

    #[cold]
    fn long_int(&mut self, key: &str, value: u64) {
        message(self.0, self.1, |out| {
            bytes(out, 1, key.as_bytes());
            message(out, 2, |out| number(out, 3, value));
        });
    }
}

impl Fields for Attributes<'_> {
    #[inline(always)]
    fn text(&mut self, key: &'static str, value: &str) {
        self.string(key, value.as_bytes());
    }

    fn custom(&mut self, key: &str, value: &str) {
        self.long(key, value.as_bytes());
    }

    #[inline(always)]
    fn int(&mut self, key: &'static str, value: i64) {
        let value = value.cast_unsigned();
        // Seven bits to a byte, and at least one byte.
        let length = (70 - (value | 1).leading_zeros() as usize) / 7;
        match self.open(key, length + 1) {
            Some(out) => number(out, 3, value),
            None => self.long_int(key, value),
        }
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

    #[inline(always)]
    fn address(&mut self, key: &'static str, value: IpAddr) {
        match value {
            IpAddr::V4(address) => {
                let (text, length) = print::ipv4(address);
                self.string(key, text.get(..length).unwrap_or_default());
            }
            IpAddr::V6(_) => self.long(key, value.to_string().as_bytes()),
        }
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
        _ => put_length(out, start..start + 1, length),
    }
}

/// In place of bytes that are too few or too many for it.
#[cold]
fn put_length(out: &mut Vec<u8>, place: Range<usize>, length: usize) {
    let mut long = Vec::with_capacity(5);
    varint(&mut long, length as u64);
    out.splice(place, long);
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
    fn attributes_are_the_same_however_they_are_written() {
        for length in [0, 1, 5, 100, 110, 111, 112, 113, 114, 120, 127, 128, 300, 20_000] {
            let value = "x".repeat(length);
            let (mut short, mut long) = (Vec::new(), Vec::new());
            Attributes(&mut short, 9).text("a.key", &value);
            Attributes(&mut long, 9).custom("a.key", &value);
            assert!(short == long, "{length}");
        }
        let numbers = (0..64).flat_map(|bit| [(1i64 << bit).wrapping_sub(1), 1 << bit]).chain([-1, i64::MIN, i64::MAX]);
        for value in numbers {
            let (mut short, mut long) = (Vec::new(), Vec::new());
            Attributes(&mut short, 9).int("a.key", value);
            Attributes(&mut long, 9).long_int("a.key", value.cast_unsigned());
            assert_eq!(short, long, "{value}");
        }
    }

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
