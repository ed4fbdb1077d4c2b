//! OTLP/JSON: one `ExportTraceServiceRequest` to a line, as the OpenTelemetry file exporter writes and reads it. Ids
//! are lower-case hexadecimal, 64-bit integers are decimal strings.

use std::borrow::Cow;

use crate::telemetry::json::{self, List, Object};
use crate::trace::attributes::{Fields, Told};
use crate::trace::span::Batch;

/// What all spans of this process have in common.
#[derive(Clone, Debug, Default)]
pub struct Resource(pub Vec<(Cow<'static, str>, String)>);

pub fn encode(out: &mut Vec<u8>, resource: &Resource, batch: &Batch) {
    json::object(out, |request| {
        request.list("resourceSpans", |list| {
            list.object(|entry| {
                entry.object("resource", |described| {
                    described.list("attributes", |list| {
                        for (key, value) in resource.0.iter().filter(|(_, value)| !value.is_empty()) {
                            attribute(list, key, |field| field.text("stringValue", value));
                        }
                    });
                });
                entry.list("scopeSpans", |list| list.object(|entry| scope(entry, batch)));
            });
        });
    });
}

/// One span by itself.
pub fn entry(out: &mut Vec<u8>, told: &Told<'_>) {
    json::object(out, |object| span(object, told));
}

fn scope(entry: &mut Object, batch: &Batch) {
    entry.object("scope", |scope| {
        scope.text("name", "spanmesh");
        scope.text("version", env!("CARGO_PKG_VERSION"));
    });
    entry.list("spans", |list| {
        for told in Told::all(batch) {
            list.object(|object| span(object, &told));
        }
    });
}

fn span(object: &mut Object, told: &Told<'_>) {
    let span = told.span;
    object.text("traceId", &span.trace.to_string());
    object.text("spanId", &span.id.to_string());
    if !span.context.state.is_empty() {
        object.text("traceState", &told.state());
    }
    if let Some(parent) = span.parent {
        object.text("parentSpanId", &parent.to_string());
    }
    object.number("flags", u64::from(span.flags));
    object.text("name", &told.name());
    object.number("kind", span.kind as u64);
    object.text("startTimeUnixNano", &span.start_nanos.to_string());
    object.text("endTimeUnixNano", &span.end_nanos.to_string());
    object.list("attributes", |list| told.describe(&mut Attributes(list)));
    if let Some((trace, id)) = span.context.link {
        object.list("links", |list| {
            list.object(|link| {
                link.text("traceId", &trace.to_string());
                link.text("spanId", &id.to_string());
            });
        });
    }
    if told.error().is_some() {
        object.object("status", |status| status.number("code", STATUS_ERROR));
    }
}

struct Attributes<'a, 'b>(&'a mut List<'b>);

impl Fields for Attributes<'_, '_> {
    fn text(&mut self, key: &str, value: &str) {
        attribute(self.0, key, |field| field.text("stringValue", value));
    }

    fn int(&mut self, key: &str, value: i64) {
        attribute(self.0, key, |field| field.text("intValue", &value.to_string()));
    }

    fn list(&mut self, key: &str, values: &[Cow<'_, str>]) {
        attribute(self.0, key, |field| {
            field.object("arrayValue", |array| {
                array.list("values", |list| {
                    values.iter().for_each(|value| list.object(|item| item.text("stringValue", value)));
                });
            });
        });
    }
}

fn attribute(list: &mut List, key: &str, fill: impl FnOnce(&mut Object)) {
    list.object(|entry| {
        entry.text("key", key);
        entry.object("value", fill);
    });
}

const STATUS_ERROR: u64 = 2;
