//! The views of a closed exchange: metrics, the access log's line, and the spans. All read the same record.

use std::time::{Duration, UNIX_EPOCH};

use tokio::time::Instant;

use super::{Exchange, Record, spans};
use crate::error::Flag;
use crate::telemetry::json::Object;

pub(super) fn write(exchange: &Exchange, flag: Flag, ended: Instant) {
    let worker = &exchange.connection.worker;
    let record = exchange.record.borrow();
    let (sent, received) = (exchange.sent.get(), exchange.received.get());
    let duration = ended.duration_since(exchange.opened);
    exchange.connection.listener.meters.ended(&record, flag, duration, sent, received);
    worker.access_log.write(|line| fill(line, exchange, &record, flag, ended));
    spans::write(exchange, &record, flag, ended);
    #[cfg(feature = "fuzzing")]
    crate::fuzz::seen::closed(&record, flag, (sent, received));
}

fn fill(line: &mut Object, exchange: &Exchange, record: &Record, flag: Flag, ended: Instant) {
    let connection = &exchange.connection;
    let clock = &connection.worker.clock;
    let redactor = connection.worker.access_log.redactor();
    line.time("time", UNIX_EPOCH + Duration::from_nanos(clock.unix_nanos(exchange.opened)));
    line.text("listener", &connection.listener.name);
    line.address("peer", connection.peer);
    if let Some(original) = connection.original {
        line.address("originalDestination", original);
    }
    match &record.request {
        Some(request) => {
            line.text("protocol", protocol(request.version));
            if let Some(method) = &request.method {
                line.text("method", method.as_str());
            }
            if let Some(path) = &request.path {
                line.bytes("path", &redactor.text(path.path().as_bytes()));
            }
            if let Some(host) = &request.host {
                line.bytes("host", &redactor.authority(host.as_bytes()));
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
        line.address("endpoint", attempt.endpoint);
        line.number("attempts", record.attempts.len() as u64);
    }
    line.number("requestBytes", exchange.sent.get());
    line.number("responseBytes", exchange.received.get());
    line.seconds("duration", ended.duration_since(exchange.opened));
    if let Some(first) = record.first_byte {
        line.seconds("firstByte", first.duration_since(exchange.opened));
    }
    if let Some((context, span)) = &record.trace {
        line.id("traceId", context.trace);
        line.id("spanId", span);
    }
    if let Some(id) = &record.notes.request_id {
        line.bytes("requestId", &redactor.text(id.as_bytes()));
    }
}

fn protocol(version: http::Version) -> &'static str {
    match version {
        http::Version::HTTP_10 => "HTTP/1.0",
        http::Version::HTTP_2 => "HTTP/2",
        _ => "HTTP/1.1",
    }
}
