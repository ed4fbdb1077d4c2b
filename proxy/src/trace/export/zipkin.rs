//! Zipkin's JSON of version 2, as OpenTelemetry's specification maps spans to it (`sdk_exporters/zipkin.md`): attributes are
//! tags, times are in microseconds, and the service of the resource is the local endpoint.

use std::borrow::Cow;
use std::net::IpAddr;

use super::json::Resource;
use crate::telemetry::json::{self, Object};
use crate::trace::attributes::{Fields, Told};
use crate::trace::span::Kind;

/// What every span says of the service: its endpoint, an object.
pub fn service(out: &mut Vec<u8>, resource: &Resource) {
    let name = resource.0.iter().find(|(key, _)| key == "service.name");
    json::object(out, |endpoint| endpoint.text("serviceName", name.map_or("unknown_service", |(_, name)| name)));
}

pub fn entry(out: &mut Vec<u8>, service: &[u8], told: &Told<'_>) {
    json::object(out, |object| span(object, service, told));
}

fn span(object: &mut Object, service: &[u8], told: &Told<'_>) {
    let span = told.span;
    object.id("traceId", &span.trace.to_digits());
    object.id("id", &span.id.to_digits());
    if let Some(parent) = span.parent {
        object.id("parentId", &parent.to_digits());
    }
    object.text("name", &told.name());
    // Zipkin has no word for what is internal.
    match span.kind {
        Kind::Server => object.text("kind", "SERVER"),
        Kind::Client => object.text("kind", "CLIENT"),
        Kind::Internal => {}
    }
    let (start, end) = (span.start_nanos / 1000, span.end_nanos / 1000);
    object.number("timestamp", start);
    // Zipkin takes nothing for a time that is not known.
    object.number("duration", end.saturating_sub(start).max(1));
    object.raw("localEndpoint", service);
    object.object("remoteEndpoint", |endpoint| {
        let ip = span.peer.ip().to_canonical();
        let key = match ip {
            IpAddr::V4(_) => "ipv4",
            IpAddr::V6(_) => "ipv6",
        };
        endpoint.text(key, &ip.to_string());
        endpoint.number("port", span.peer.port().into());
    });
    object.object("tags", |tags| {
        told.describe(&mut Tags(tags));
        if let Some(error) = told.error() {
            tags.text("otel.status_code", "ERROR");
            tags.text("error", &error);
        }
        tags.text("otel.scope.name", "spanmesh");
        tags.text("otel.scope.version", env!("CARGO_PKG_VERSION"));
    });
}

struct Tags<'a, 'b>(&'a mut Object<'b>);

impl Fields for Tags<'_, '_> {
    fn custom(&mut self, key: &str, value: &str) {
        self.0.custom(key, value);
    }

    /// As the text of a JSON list: a tag has one value.
    fn list(&mut self, key: &str, values: &[Cow<'_, str>]) {
        let mut text = Vec::new();
        json::list(&mut text, |list| values.iter().for_each(|value| list.text(value)));
        self.0.custom(key, &String::from_utf8_lossy(&text));
    }

    fn text(&mut self, key: &'static str, value: &str) {
        self.0.text(key, value);
    }

    fn int(&mut self, key: &'static str, value: i64) {
        self.0.text(key, &value.to_string());
    }
}
