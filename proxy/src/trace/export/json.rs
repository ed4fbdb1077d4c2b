//! OTLP/JSON: one `ExportTraceServiceRequest` to a line, as the OpenTelemetry file exporter writes and reads it. Ids
//! are lower-case hexadecimal, 64-bit integers are decimal strings.

use std::borrow::Cow;
use std::net::IpAddr;

use crate::telemetry::json::{self, List, Object};
use crate::telemetry::print;
use crate::trace::attributes::{Fields, Told, moved};
use crate::trace::span::Kind;

/// What all spans of this process have in common.
#[derive(Clone, Debug, Default)]
pub struct Resource(pub Vec<(Cow<'static, str>, String)>);

pub fn encode<'a>(out: &mut Vec<u8>, resource: &Resource, spans: impl Iterator<Item = Told<'a>>) {
    json::object(out, |request| {
        request.list("resourceSpans", |list| {
            list.object(|entry| {
                entry.object("resource", |described| {
                    described.list("attributes", |list| {
                        for (key, value) in resource.0.iter().filter(|(_, value)| !value.is_empty()) {
                            Attributes(list).custom(key, value);
                        }
                    });
                });
                entry.list("scopeSpans", |list| list.object(|entry| scope(entry, spans)));
            });
        });
    });
}

/// One span by itself.
pub fn entry(out: &mut Vec<u8>, told: &Told<'_>) {
    json::object(out, |object| span(object, told));
}

fn scope<'a>(entry: &mut Object, spans: impl Iterator<Item = Told<'a>>) {
    entry.object("scope", |scope| {
        scope.text("name", "spanmesh");
        scope.text("version", env!("CARGO_PKG_VERSION"));
    });
    entry.list("spans", |list| {
        for told in spans {
            list.object(|object| span(object, &told));
        }
    });
}

fn span(object: &mut Object, told: &Told<'_>) {
    let span = told.span;
    object.id("traceId", &span.trace.to_digits());
    object.id("spanId", &span.id.to_digits());
    if !span.context.state.is_empty() {
        object.text("traceState", &told.state());
    }
    if let Some(parent) = span.parent {
        object.id("parentSpanId", &parent.to_digits());
    }
    object.number("flags", u64::from(span.flags));
    object.text("name", &told.name());
    object.number("kind", span.kind as u64);
    object.quoted("startTimeUnixNano", span.start_nanos);
    object.quoted("endTimeUnixNano", span.end_nanos);
    object.list("attributes", |list| told.describe(&mut Attributes(list)));
    if !span.reports.is_empty() && span.kind != Kind::Internal {
        let (gone, reports) = told.reports();
        object.list("events", |list| {
            for report in reports {
                list.object(|event| {
                    event.text("timeUnixNano", &report.unix_nanos.to_string());
                    event.text("name", INTERIM);
                    event.list("attributes", |list| moved(report.sent, report.received, &mut Attributes(list)));
                });
            }
        });
        object.number("droppedEventsCount", gone.into());
    }
    if let Some((trace, id)) = span.context.link {
        object.list("links", |list| {
            list.object(|link| {
                link.id("traceId", &trace.to_digits());
                link.id("spanId", &id.to_digits());
            });
        });
    }
    if told.error().is_some() {
        object.object("status", |status| status.number("code", STATUS_ERROR));
    }
}

struct Attributes<'a, 'b>(&'a mut List<'b>);

impl Attributes<'_, '_> {
    /// The attribute up to its value.
    fn open<const N: usize>(&mut self, key: &'static str, kind: &[u8; N]) -> &mut Vec<u8> {
        let out = self.0.item();
        out.extend_from_slice(b"{\"key\":\"");
        out.extend_from_slice(key.as_bytes());
        out.extend_from_slice(kind);
        out
    }
}

impl Fields for Attributes<'_, '_> {
    fn custom(&mut self, key: &str, value: &str) {
        let out = self.0.item();
        out.extend_from_slice(b"{\"key\":");
        json::write_text(out, key);
        out.extend_from_slice(b",\"value\":{\"stringValue\":");
        json::write_text(out, value);
        out.extend_from_slice(b"}}");
    }

    fn text(&mut self, key: &'static str, value: &str) {
        let out = self.open(key, TEXT);
        json::write_text(out, value);
        out.extend_from_slice(b"}}");
    }

    fn int(&mut self, key: &'static str, value: i64) {
        let out = self.open(key, INT);
        if value < 0 {
            out.push(b'-');
        }
        print::number(out, value.unsigned_abs());
        out.extend_from_slice(b"\"}}");
    }

    fn address(&mut self, key: &'static str, value: IpAddr) {
        let out = self.open(key, TEXT);
        out.push(b'"');
        print::ip(out, value);
        out.extend_from_slice(b"\"}}");
    }

    fn list(&mut self, key: &str, values: &[Cow<'_, str>]) {
        self.0.object(|entry| {
            entry.text("key", key);
            entry.object("value", |field| {
                field.object("arrayValue", |array| {
                    array.list("values", |list| {
                        values.iter().for_each(|value| list.object(|item| item.text("stringValue", value)));
                    });
                });
            });
        });
    }
}

const TEXT: &[u8; 25] = b"\",\"value\":{\"stringValue\":";
/// A 64-bit integer is text in protobuf's JSON.
const INT: &[u8; 23] = b"\",\"value\":{\"intValue\":\"";
/// What an event is called that tells how far a span is.
pub const INTERIM: &str = "spanmesh.interim";
const STATUS_ERROR: u64 = 2;
