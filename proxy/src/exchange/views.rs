//! The views of a closed exchange: metrics, the access log's line, and the spans. All read the same record.

use std::borrow::Cow;
use std::time::{Duration, UNIX_EPOCH};

use http::HeaderValue;
use tokio::time::Instant;

use super::{Attempt, Exchange, Record};
use crate::config::{Format, Mode};
use crate::error::{Fault, Flag};
use crate::telemetry::json::Object;
use crate::trace::span::{Kind, Span, Value};
use crate::trace::trust::{Inferred, Notes};

pub(super) fn write(exchange: &Exchange, flag: Flag, ended: Instant) {
    let worker = &exchange.connection.worker;
    let record = exchange.record.borrow();
    let (sent, received) = (exchange.sent.get(), exchange.received.get());
    let duration = ended.duration_since(exchange.opened);
    exchange.connection.listener.meters.ended(&record, flag, duration, sent, received);
    worker.access_log.write(|line| fill(line, exchange, &record, flag, ended));
    spans(exchange, &record, flag, ended);
    #[cfg(feature = "fuzzing")]
    crate::fuzz::seen::closed(&record, flag, (sent, received));
}

fn fill(line: &mut Object, exchange: &Exchange, record: &Record, flag: Flag, ended: Instant) {
    let connection = &exchange.connection;
    let clock = &connection.worker.clock;
    line.time("time", UNIX_EPOCH + Duration::from_nanos(clock.unix_nanos(exchange.opened)));
    line.text("listener", &connection.listener.name);
    line.text("peer", &connection.peer.to_string());
    if let Some(original) = &connection.original {
        line.text("originalDestination", &original.to_string());
    }
    match &record.request {
        Some(request) => {
            line.text("protocol", protocol(request.version));
            if let Some(method) = &request.method {
                line.text("method", method.as_str());
            }
            if let Some(path) = &request.path {
                line.text("path", path.path());
            }
            if let Some(host) = &request.host {
                line.bytes("host", host.as_bytes());
            }
        }
        None => line.text("protocol", "TCP"),
    }
    if let Some(status) = record.status {
        line.number("status", u64::from(status.as_u16()));
    }
    if let Some(status) = record.grpc.and_then(|grpc| grpc.status) {
        line.number("grpcStatus", u64::from(status));
    }
    line.text("flag", flag.name());
    if let Some(detail) = &record.detail {
        line.text("detail", detail);
    }
    if let Some(route) = &record.route {
        line.text("route", route);
    }
    if let Some(upstream) = &record.upstream {
        line.text("upstream", upstream);
    }
    if let Some(attempt) = record.attempts.last() {
        line.text("endpoint", &attempt.endpoint.to_string());
        line.number("attempts", record.attempts.len() as u64);
    }
    line.number("requestBytes", exchange.sent.get());
    line.number("responseBytes", exchange.received.get());
    line.float("duration", ended.duration_since(exchange.opened).as_secs_f64());
    if let Some(first) = record.first_byte {
        line.float("firstByte", first.duration_since(exchange.opened).as_secs_f64());
    }
    if let Some((context, span)) = &record.trace {
        line.text("traceId", &context.trace.to_string());
        line.text("spanId", &span.to_string());
    }
    if let Some(id) = &record.notes.request_id {
        line.bytes("requestId", id.as_bytes());
    }
}

fn protocol(version: http::Version) -> &'static str {
    match version {
        http::Version::HTTP_10 => "HTTP/1.0",
        http::Version::HTTP_2 => "HTTP/2",
        _ => "HTTP/1.1",
    }
}

/// An inbound side makes the SERVER span, an outbound side one CLIENT span per attempt, a gateway both.
fn spans(exchange: &Exchange, record: &Record, flag: Flag, ended: Instant) {
    let Some((context, span)) = record.trace else { return };
    let worker = &exchange.connection.worker;
    if !context.sampled || !worker.spans.is_on() {
        return;
    }
    let clock = &worker.clock;
    let flags = u8::from(context.sampled) | u8::from(context.random) << 1;
    let mode = exchange.connection.listener.mode;
    let server = matches!(mode, Mode::Inbound | Mode::Gateway);
    if server {
        worker.spans.push(Span {
            trace: context.trace,
            id: span,
            parent: context.parent,
            kind: Kind::Server,
            name: name(record),
            start_nanos: clock.unix_nanos(exchange.opened),
            end_nanos: clock.unix_nanos(ended),
            attributes: attributes(exchange, record, flag, None, mode),
            link: record.notes.link,
            error: record.status.is_some_and(|status| status.is_server_error())
                || !matches!(flag.meaning().fault, Fault::Nobody | Fault::Client),
            flags,
        });
    }
    if mode == Mode::Inbound {
        return;
    }
    for (number, attempt) in record.attempts.iter().enumerate() {
        let status = attempt.status;
        let ended_with = attempt.flag.unwrap_or(flag);
        let mut attributes = attributes(exchange, record, ended_with, Some(attempt), mode);
        if number > 0 {
            attributes.push(("http.request.resend_count", Value::Int(i64::try_from(number).unwrap_or(i64::MAX))));
        }
        worker.spans.push(Span {
            trace: context.trace,
            id: attempt.span,
            parent: if server { Some(span) } else { context.parent },
            kind: Kind::Client,
            name: name(record),
            start_nanos: clock.unix_nanos(attempt.started),
            end_nanos: clock.unix_nanos(attempt.ended.unwrap_or(ended)),
            attributes,
            link: if server { None } else { record.notes.link },
            error: status.is_some_and(|status| status.is_client_error() || status.is_server_error())
                || !matches!(ended_with.meaning().fault, Fault::Nobody | Fault::Client),
            flags,
        });
    }
}

fn name(record: &Record) -> Cow<'static, str> {
    match &record.request {
        Some(request) => match request.method.as_ref().map_or("", |method| method.as_str()) {
            "GET" => "GET".into(),
            "POST" => "POST".into(),
            "PUT" => "PUT".into(),
            "DELETE" => "DELETE".into(),
            "HEAD" => "HEAD".into(),
            "PATCH" => "PATCH".into(),
            "OPTIONS" => "OPTIONS".into(),
            "CONNECT" => "CONNECT".into(),
            "TRACE" => "TRACE".into(),
            _ => "HTTP".into(),
        },
        None => "TCP".into(),
    }
}

fn attributes(
    exchange: &Exchange,
    record: &Record,
    flag: Flag,
    attempt: Option<&Attempt>,
    mode: Mode,
) -> Vec<(&'static str, Value)> {
    let mut list = Vec::with_capacity(16);
    let connection = &exchange.connection;
    if let Some(request) = &record.request {
        list.push(("http.request.method", Value::Text(name(record))));
        if name(record) == "HTTP"
            && let Some(method) = &request.method
        {
            list.push(("http.request.method_original", Value::from(method.as_str().to_owned())));
        }
        let path = request.path.as_ref();
        let scheme = if connection.tls.get() { "https" } else { "http" };
        let host = request.host.as_ref().map(|host| String::from_utf8_lossy(host.as_bytes()).into_owned());
        if attempt.is_some() {
            let target = path.map_or("/", |path| path.as_str());
            list.push(("url.full", format!("{scheme}://{}{target}", host.as_deref().unwrap_or_default()).into()));
        } else {
            list.push(("url.path", path.map_or("/", |path| path.path()).to_owned().into()));
            if let Some(query) = path.and_then(|path| path.query()) {
                list.push(("url.query", query.to_owned().into()));
            }
            list.push(("url.scheme", scheme.into()));
        }
        if let Some(host) = host {
            list.push(("server.address", host.into()));
        }
        list.push(("network.protocol.version", version(request.version).into()));
    }
    let status = attempt.map_or(record.status, |attempt| attempt.status);
    if let Some(status) = status {
        list.push(("http.response.status_code", Value::Int(i64::from(status.as_u16()))));
    }
    let peer = attempt.map_or(connection.peer, |attempt| attempt.endpoint);
    list.push(("network.peer.address", peer.ip().to_string().into()));
    list.push(("network.peer.port", Value::Int(i64::from(peer.port()))));
    let side = match (mode, attempt) {
        (Mode::Gateway, _) => "gateway",
        (_, Some(_)) => "client",
        (_, None) => "server",
    };
    list.push(("spanmesh.side", side.into()));
    list.push(("spanmesh.response.flag", flag.name().into()));
    noted(&record.notes, &mut list);
    list
}

/// How the trace came about.
fn noted(notes: &Notes, list: &mut Vec<(&'static str, Value)>) {
    let text = |value: &HeaderValue| Value::from(String::from_utf8_lossy(value.as_bytes()).into_owned());
    if let Some(decided) = notes.decided {
        list.push(("spanmesh.sampling.decision", decided.name().into()));
    }
    if let Some(source) = notes.source {
        list.push(("spanmesh.context.source", source.name().into()));
    }
    if !notes.disagreed.is_empty() {
        let names: Vec<_> = notes.disagreed.iter().map(Format::name).collect();
        list.push(("spanmesh.context.conflict", names.join(",").into()));
    }
    if let Some(inferred @ (Inferred::Link | Inferred::Parent)) = notes.inferred {
        list.push(("spanmesh.context.inferred", inferred.name().into()));
    }
    if let Some(id) = &notes.request_id {
        list.push(("spanmesh.request_id", text(id)));
    }
    if let Some(id) = &notes.debug_id {
        list.push(("jaeger-debug-id", text(id)));
    }
}

fn version(version: http::Version) -> &'static str {
    match version {
        http::Version::HTTP_10 => "1.0",
        http::Version::HTTP_2 => "2",
        _ => "1.1",
    }
}
