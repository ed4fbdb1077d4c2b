//! OTLP/JSON: one `ExportTraceServiceRequest` to a line, as the OpenTelemetry file exporter writes and reads it. Ids
//! are lower-case hexadecimal, 64-bit integers are decimal strings.

use crate::telemetry::json::{self, List, Object};
use crate::trace::span::{Span, Value};

/// What all spans of this process have in common.
#[derive(Clone, Debug, Default)]
pub struct Resource(pub Vec<(&'static str, String)>);

pub fn encode(out: &mut Vec<u8>, resource: &Resource, spans: &[Span]) {
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
                entry.list("scopeSpans", |list| list.object(|entry| scope(entry, spans)));
            });
        });
    });
}

fn scope(entry: &mut Object, spans: &[Span]) {
    entry.object("scope", |scope| {
        scope.text("name", "spanmesh");
        scope.text("version", env!("CARGO_PKG_VERSION"));
    });
    entry.list("spans", |list| {
        for item in spans {
            list.object(|object| span(object, item));
        }
    });
}

fn span(object: &mut Object, span: &Span) {
    object.text("traceId", &span.trace.to_string());
    object.text("spanId", &span.id.to_string());
    if let Some(parent) = span.parent {
        object.text("parentSpanId", &parent.to_string());
    }
    object.number("flags", u64::from(span.flags));
    object.text("name", &span.name);
    object.number("kind", span.kind as u64);
    object.text("startTimeUnixNano", &span.start_nanos.to_string());
    object.text("endTimeUnixNano", &span.end_nanos.to_string());
    object.list("attributes", |list| {
        for (key, value) in &span.attributes {
            attribute(list, key, |field| match value {
                Value::Text(text) => field.text("stringValue", text),
                Value::Int(number) => field.text("intValue", &number.to_string()),
            });
        }
    });
    if let Some((trace, id)) = span.link {
        object.list("links", |list| {
            list.object(|link| {
                link.text("traceId", &trace.to_string());
                link.text("spanId", &id.to_string());
            });
        });
    }
    if span.error {
        object.object("status", |status| status.number("code", STATUS_ERROR));
    }
}

fn attribute(list: &mut List, key: &str, fill: impl FnOnce(&mut Object)) {
    list.object(|entry| {
        entry.text("key", key);
        entry.object("value", fill);
    });
}

const STATUS_ERROR: u64 = 2;
