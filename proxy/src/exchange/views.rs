//! The views of a closed exchange: metrics, the access log's line, and the spans. All read the same record.

use std::time::{Duration, UNIX_EPOCH};

use tokio::time::Instant;

use super::{Exchange, Record, spans};
use crate::config::LogField as Field;
use crate::error::Flag;
use crate::telemetry::access_log::{Line, Value};
use crate::trace::context::TraceContext;
use crate::trace::redact::patterns::End;
use crate::trace::span::Kind;

pub(super) fn write(exchange: &Exchange, flag: Flag, ended: Instant) {
    let worker = &exchange.connection.worker;
    let record = exchange.record.borrow();
    let (sent, received) = (exchange.sent.get(), exchange.received.get());
    let duration = ended.duration_since(exchange.opened);
    exchange.connection.listener.meters.ended(&record, flag, duration, sent, received);
    if let Some((context, _)) = record.trace
        && context.sampled
        && record.request.is_some()
        && !record.untraced
        && worker.spans.is_on()
    {
        exchange.connection.listener.meters.example(duration, context.trace, worker.clock.unix_nanos(ended));
    }
    if worker.access_log.wants(failed(exchange, &record, flag)) {
        worker.access_log.write(|line| fill(line, exchange, &record, flag, ended));
    }
    spans::write(exchange, &record, flag, ended);
    #[cfg(feature = "fuzzing")]
    crate::fuzz::seen::closed(&record, flag, (sent, received));
}

/// What the access log calls an error: it ended otherwise than well, or the server could not do what it was asked.
fn failed(exchange: &Exchange, record: &Record, flag: Flag) -> bool {
    let grpc = record.grpc.and_then(|grpc| grpc.status);
    flag != Flag::Ok
        || record.status.is_some_and(|status| status.is_server_error())
        || grpc.is_some_and(|status| exchange.policy().manner.failures.has(Kind::Server, status))
}

fn fill(line: &mut Line, exchange: &Exchange, record: &Record, flag: Flag, ended: Instant) {
    let connection = &exchange.connection;
    let clock = &connection.worker.clock;
    let redactor = &exchange.policy().manner.redactor;
    let opened = Duration::from_nanos(clock.unix_nanos(exchange.opened));
    line.put(Field::Time, Value::Time(UNIX_EPOCH + opened));
    line.put(Field::Listener, Value::Text(&connection.listener.name));
    line.put(Field::Peer, Value::Address(connection.peer));
    if let Some(original) = connection.original {
        line.put(Field::OriginalDestination, Value::Address(original));
    }
    match &record.request {
        Some(request) => {
            line.put(Field::Protocol, Value::Text(protocol(request.version)));
            if let Some(method) = &request.method {
                line.put(Field::Method, Value::Text(method.as_str()));
            }
            if let Some(path) = &request.path {
                line.put(Field::Path, Value::Bytes(&redactor.text(path.path().as_bytes(), End::Whole)));
            }
            if let Some(host) = &request.host {
                line.put(Field::Host, Value::Bytes(&redactor.authority(host.as_bytes(), End::Whole)));
            }
        }
        None => line.put(Field::Protocol, Value::Text("TCP")),
    }
    if let Some(status) = record.status {
        line.put(Field::Status, Value::Number(u64::from(status.as_u16())));
    }
    if let Some(status) = record.grpc.and_then(|grpc| grpc.status) {
        line.put(Field::GrpcStatus, Value::Number(u64::from(status)));
    }
    line.put(Field::Flag, Value::Text(flag.name()));
    if let Some(detail) = &record.detail {
        line.put(Field::Detail, Value::Text(detail));
    }
    if let Some(route) = &record.route {
        line.put(Field::Route, Value::Text(route));
    }
    if let Some(upstream) = &record.upstream {
        line.put(Field::Upstream, Value::Text(upstream));
    }
    if let Some(attempt) = record.attempts.last() {
        line.put(Field::Endpoint, Value::Address(attempt.endpoint));
        line.put(Field::Attempts, Value::Number(record.attempts.len() as u64));
    }
    line.put(Field::RequestBytes, Value::Number(exchange.sent.get()));
    line.put(Field::ResponseBytes, Value::Number(exchange.received.get()));
    line.put(Field::Duration, Value::Seconds(ended.duration_since(exchange.opened)));
    if let Some(first) = record.first_byte {
        line.put(Field::FirstByte, Value::Seconds(first.duration_since(exchange.opened)));
    }
    if let Some((context, span)) = &record.trace {
        line.put(Field::TraceId, Value::Id(&context.trace.to_digits()));
        line.put(Field::SpanId, Value::Id(&span.to_digits()));
        if let Some(attempt) = record.attempts.last().filter(|attempt| attempt.span != *span) {
            line.put(Field::AttemptSpanId, Value::Id(&attempt.span.to_digits()));
        }
        if let Some(parent) = &context.parent {
            line.put(Field::ParentSpanId, Value::Id(&parent.to_digits()));
        }
        line.put(Field::TraceFlags, Value::Text(flags(context)));
    }
    if let Some(id) = &record.notes.request_id {
        line.put(Field::RequestId, Value::Bytes(&redactor.text(id.as_bytes(), End::Whole)));
    }
}

/// As W3C writes them.
fn flags(context: &TraceContext) -> &'static str {
    match (context.random, context.sampled) {
        (false, false) => "00",
        (false, true) => "01",
        (true, false) => "02",
        (true, true) => "03",
    }
}

fn protocol(version: http::Version) -> &'static str {
    match version {
        http::Version::HTTP_10 => "HTTP/1.0",
        http::Version::HTTP_2 => "HTTP/2",
        _ => "HTTP/1.1",
    }
}
