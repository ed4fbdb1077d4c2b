//! The spans of a closed exchange: an inbound side makes the SERVER span, an outbound side one CLIENT span per attempt, a
//! gateway both. Bytes that are no request have theirs too.

use http::{HeaderValue, StatusCode, Version};
use spanmesh_proto::SpanId;
use tokio::time::Instant;

use super::{Attempt, Exchange, Record};
use crate::config::Mode;
use crate::error::{Fault, Flag};
use crate::rules::sampling::{Ended, Kept};
use crate::trace::attributes::rpc_method;
use crate::trace::context::{self, TraceContext};
use crate::trace::custom;
use crate::trace::sample::{self, By};
use crate::trace::span::{Batch, Cause, Kind, Origin, Protocol, Report, RouteSource, Side, Span, Times, Words, micros};
use crate::trace::trust::Notes;

/// Whether spans are made of it.
pub(super) fn is_made(exchange: &Exchange, record: &Record) -> bool {
    let sampled = record.trace.is_some_and(|(context, _)| context.sampled);
    sampled && !record.untraced && exchange.connection.worker.spans.is_on()
}

/// A span below the one that is still open: what went on since the last report.
pub(super) fn interim(exchange: &Exchange, record: &Record, since: Instant, now: Instant) {
    let Some((context, id)) = record.trace else { return };
    let worker = &exchange.connection.worker;
    let outbound = exchange.connection.listener.mode == Mode::Outbound;
    let open = record.attempts.last().filter(|_| outbound).map_or(id, |attempt| attempt.span);
    let own = context::random_span(&mut *worker.rng.borrow_mut());
    worker.spans.write(&exchange.policy().manner, |batch| {
        let base = base(exchange, record, (context, own), (Flag::Ok, now), batch);
        let (sent, received) = record.reports.kept.back().map_or((0, 0), |(_, sent, received)| (*sent, *received));
        let reports = batch.reports(record.reports.count, std::iter::empty());
        let context = Origin::default();
        let start_nanos = worker.clock.unix_nanos(since);
        batch.push(Span {
            parent: Some(open),
            kind: Kind::Internal,
            start_nanos,
            sent,
            received,
            reports,
            context,
            times: Times::default(),
            ..base
        });
        1
    });
}

pub(super) fn write(exchange: &Exchange, record: &Record, flag: Flag, ended: Instant) {
    let Some(trace) = record.trace else { return };
    let (context, id) = trace;
    let connection = &exchange.connection;
    let worker = &connection.worker;
    let sampled = is_made(exchange, record);
    let kept = kept(exchange, record, flag, ended);
    if !sampled && kept.is_none() {
        if exchange.policy.rules.sampling.adapts() {
            learn(exchange, record);
        }
        return;
    }
    let mode = connection.listener.mode;
    worker.spans.write(&exchange.policy().manner, |batch| {
        let base = base(exchange, record, trace, (flag, ended), batch);
        let origin = told(exchange, record, kept.filter(|_| !sampled), base.context, batch);
        let state = state(record, kept, sampled, origin.state, batch);
        let base = Span { context: Origin { state, ..origin }, ..base };
        let attempts = if mode == Mode::Inbound { 0 } else { record.attempts.len() };
        let mut made = 0;
        let report = |(at, sent, received): &(Instant, u64, u64)| Report {
            unix_nanos: worker.clock.unix_nanos(*at),
            sent: *sent,
            received: *received,
        };
        let reports = batch.reports(record.reports.count, record.reports.kept.iter().map(report));
        if mode != Mode::Outbound {
            batch.push(Span { reports, ..base });
            made += 1;
        }
        let parent = if mode == Mode::Gateway { Some(id) } else { context.parent };
        let mut before: Option<&Attempt> = None;
        for (attempt, resent) in record.attempts.iter().take(attempts).zip(0..) {
            let cause = before.map(|before| match (before.status, before.flag) {
                (_, Some(flag)) if flag != Flag::Ok => Cause::Flag(flag),
                (Some(status), _) => Cause::Status(status.as_u16()),
                (None, flag) => Cause::Flag(flag.unwrap_or(Flag::Ok)),
            });
            let mut attempted = attempted(base, exchange, attempt, flag, ended);
            attempted.times = times(exchange, record, attempt, before);
            if mode == Mode::Gateway {
                // The request's own span has it.
                attempted.context.link = None;
            }
            let last = record.attempts.last().is_some_and(|last| last.span == attempt.span);
            let grpc_status = if last { base.grpc_status } else { None };
            // The answer is the last one's.
            let custom = if last { base.custom } else { base.custom.cut(record.asked) };
            let reports = if last && mode == Mode::Outbound { reports } else { Words::default() };
            batch.push(Span { parent, resent, cause, grpc_status, custom, reports, ..attempted });
            before = Some(attempt);
            made += 1;
        }
        // Refused before there was anybody to ask: the call was made all the same.
        if made == 0 {
            batch.push(Span { kind: Kind::Client, protocol: None, peer: base.server, ..base });
            made += 1;
        }
        exchange.tally().spans(made.into());
        made
    });
}

/// What the rules for the end of a request say of it.
fn kept(exchange: &Exchange, record: &Record, flag: Flag, ended: Instant) -> Option<Kept> {
    let engine = &exchange.policy.rules.sampling;
    let (worker, reason) = (&exchange.connection.worker, record.notes.reason?);
    if !engine.keeps() || record.untraced || record.request.is_none() || !worker.spans.is_on() {
        return None;
    }
    let kind = if exchange.connection.listener.mode == Mode::Outbound { Kind::Client } else { Kind::Server };
    let status = record.status.map(|status| status.as_u16());
    let grpc_error = record.grpc.is_some_and(|grpc| {
        exchange.policy().manner.failures.has(kind, grpc.status.unwrap_or(if flag == Flag::Ok { 0 } else { UNKNOWN }))
    });
    let broke = matches!(flag.meaning().fault, Fault::Proxy | Fault::Upstream);
    let least = if kind == Kind::Client { 400 } else { 500 };
    let http_error = record.grpc.is_none() && status.map_or(broke, |status| status >= least || status < 400 && broke);
    let sampled = record.trace.is_some_and(|(context, _)| context.sampled);
    let kept = engine.keep(
        &Ended {
            status,
            grpc_error,
            error: grpc_error || http_error,
            flag,
            took: ended.duration_since(exchange.opened),
            retries: u32::try_from(record.attempts.len().saturating_sub(1)).unwrap_or(u32::MAX),
            randomness: reason.randomness,
            sampled,
            now: worker.clock.unix_nanos(ended),
        },
        reason.chain,
    )?;
    exchange.tally().count(kept.seat, !sampled);
    Some(kept)
}

/// Who decided, and by what rule.
fn told(exchange: &Exchange, record: &Record, kept: Option<Kept>, context: Origin, batch: &mut Batch) -> Origin {
    let Some(reason) = record.notes.reason else { return context };
    let (seat, trigger) = match (kept, reason.boost) {
        (Some(kept), _) => (kept.seat, Some(kept.trigger)),
        (None, Some((boost, true))) => (boost, None),
        (None, Some((_, false)) | None) => (reason.seat, None),
    };
    let decided = if trigger.is_some() { Some(By::Trigger) } else { context.decided };
    match exchange.policy.rules.sampling.id(seat) {
        Some(id) => Origin {
            decided,
            trigger,
            policy: batch.word(id.policy.as_bytes(), ID),
            rule: batch.word(id.rule.as_bytes(), ID),
            generation: id.generation,
            ..context
        },
        None if decided == Some(By::Head) => Origin { policy: batch.word(b"default", ID), ..context },
        None => context,
    }
}

/// The tracestate of a span that a rule for the end of a request is for: it counts as such requests are kept, and whoever was
/// kept before may count for more than itself no longer.
fn state(record: &Record, kept: Option<Kept>, sampled: bool, before: Words, batch: &mut Batch) -> Words {
    let (Some(kept), Some(reason)) = (kept, record.notes.reason) else { return before };
    match sample::ended(record.notes.state.as_ref(), &reason, sampled, kept.threshold) {
        Some(state) => batch.whole(state.as_bytes(), STATE),
        None => before,
    }
}

/// What a request teaches of its service's operations, though nothing is told of it.
fn learn(exchange: &Exchange, record: &Record) {
    match record.grpc {
        Some(grpc) => {
            names_method(exchange, record, grpc.status);
        }
        None => with_route(exchange, record, |_| ()),
    }
}

/// The request as this side received it.
fn base(
    exchange: &Exchange,
    record: &Record,
    (context, id): (TraceContext, SpanId),
    (flag, ended): (Flag, Instant),
    batch: &mut Batch,
) -> Span {
    let connection = &exchange.connection;
    let clock = &connection.worker.clock;
    let request = record.request.as_ref();
    let path = request.and_then(|request| request.path.as_ref());
    let host = request.and_then(|request| request.host.as_ref());
    let method = request.and_then(|request| request.method.as_ref());
    let written = path.map_or(Words::default(), |path| batch.word(path.path().as_bytes(), PATH));
    let (route, route_source) = match record.grpc {
        Some(grpc) => {
            (if names_method(exchange, record, grpc.status) { written.skip(1) } else { Words::default() }, None)
        }
        None => route(exchange, record, batch),
    };
    Span {
        trace: context.trace,
        id,
        parent: context.parent,
        flags: u8::from(context.sampled) | u8::from(context.random) << 1,
        kind: Kind::Server,
        side: match connection.listener.mode {
            Mode::Inbound => Side::Server,
            Mode::Outbound => Side::Client,
            Mode::Gateway => Side::Gateway,
        },
        start_nanos: clock.unix_nanos(exchange.opened),
        end_nanos: clock.unix_nanos(ended),
        protocol: Some(request.map_or(Protocol::Bytes, |request| protocol(request.version))),
        grpc: record.grpc.is_some(),
        secure: connection.tls.get(),
        peer: connection.peer,
        client: record.client.unwrap_or(connection.peer.ip()),
        server: connection.original.unwrap_or(connection.local),
        status: record.status.map(|status| status.as_u16()),
        grpc_status: record.grpc.and_then(|grpc| grpc.status),
        flag,
        resent: 0,
        cause: None,
        sent: exchange.sent.get(),
        received: exchange.received.get(),
        method: method.map_or(Words::default(), |method| batch.word(method.as_str().as_bytes(), METHOD)),
        host: host.map_or(Words::default(), |host| batch.word(host.as_bytes(), HOST)),
        path: written,
        query: path.and_then(|path| path.query()).map_or(Words::default(), |query| batch.word(query.as_bytes(), QUERY)),
        route,
        route_source,
        context: origin(&record.notes, batch),
        times: whole(exchange, record),
        agent: record.agent.as_ref().map_or(Words::default(), |agent| batch.word(agent.as_bytes(), AGENT)),
        reports: Words::default(),
        custom: batch.whole(&record.custom, custom::MOST),
    }
}

/// The template of a path: as its route has it, else as its like have taught. What was refused teaches nothing, or a
/// stranger who tries paths would use the room up.
fn route(exchange: &Exchange, record: &Record, batch: &mut Batch) -> (Words, Option<RouteSource>) {
    with_route(exchange, record, |route| match route {
        Some((template, source)) => (batch.word(template.as_bytes(), PATH), Some(source)),
        None => (Words::default(), None),
    })
}

fn with_route<T>(exchange: &Exchange, record: &Record, tell: impl FnOnce(Option<(&str, RouteSource)>) -> T) -> T {
    if let Some(template) = &record.template {
        return tell(Some((template, RouteSource::Configured)));
    }
    let path = record.request.as_ref().and_then(|request| request.path.as_ref());
    let (Some(path), Some(upstream)) = (path, &record.upstream) else { return tell(None) };
    let names = &exchange.connection.worker.shared.names;
    let mut services = exchange.connection.worker.templates.borrow_mut();
    let known = record.status.is_some_and(|status| status.as_u16() < 400);
    let admit = |new: &str| names.admit(upstream, new);
    let found = match services.get_mut(upstream) {
        Some(templates) => templates.find(path.path(), known, admit),
        None => services.entry(upstream.clone()).or_default().find(path.path(), known, admit),
    };
    tell(found.map(|template| (template, RouteSource::Learned)))
}

/// Whether a method of gRPC is one that its service may have names of. An application calls what somebody has written; what
/// others ask for must exist.
fn names_method(exchange: &Exchange, record: &Record, status: Option<u32>) -> bool {
    let path = record.request.as_ref().and_then(|request| request.path.as_ref());
    let method = path.and_then(|path| rpc_method(path.path())).filter(|method| method.len() < PATH);
    let (Some(method), Some(upstream)) = (method, &record.upstream) else { return false };
    let connection = &exchange.connection;
    let names = &connection.worker.shared.names;
    // Of a stream that goes on there is no status yet; who knows no such method says so at once.
    let works = status.map_or(record.status == Some(StatusCode::OK), |status| status != UNIMPLEMENTED);
    let learn = connection.listener.mode == Mode::Outbound || works;
    let mut services = connection.worker.templates.borrow_mut();
    let admit = |new: &str| names.admit(upstream, new);
    match services.get_mut(upstream) {
        Some(templates) => templates.method(method, learn, admit),
        None => services.entry(upstream.clone()).or_default().method(method, learn, admit),
    }
}

fn origin(notes: &Notes, batch: &mut Batch) -> Origin {
    let mut word =
        |value: &Option<HeaderValue>| value.as_ref().map_or(Words::default(), |value| batch.word(value.as_bytes(), ID));
    Origin {
        source: notes.source,
        disagreed: notes.disagreed,
        inferred: notes.inferred,
        decided: notes.decided,
        link: notes.link,
        request_id: word(&notes.request_id),
        debug_id: word(&notes.debug_id),
        state: match &notes.state {
            // It is a list, and what is cut is none.
            Some(state) => batch.whole(state.as_bytes(), STATE),
            None => Words::default(),
        },
        policy: Words::default(),
        rule: Words::default(),
        generation: 0,
        trigger: None,
    }
}

/// The same request as it was tried at one endpoint.
fn attempted(base: Span, exchange: &Exchange, attempt: &Attempt, flag: Flag, ended: Instant) -> Span {
    let clock = &exchange.connection.worker.clock;
    Span {
        id: attempt.span,
        kind: Kind::Client,
        start_nanos: clock.unix_nanos(attempt.started),
        end_nanos: clock.unix_nanos(attempt.ended.unwrap_or(ended)),
        protocol: match base.protocol {
            Some(Protocol::Bytes) => base.protocol,
            _ => attempt.version.map(protocol),
        },
        secure: attempt.secure,
        peer: attempt.endpoint,
        server: attempt.endpoint,
        status: attempt.status.map(|status| status.as_u16()),
        flag: attempt.flag.unwrap_or(flag),
        ..base
    }
}

/// Of the request as a whole. An inbound side has one span, and tells there of the attempt that stayed too.
fn whole(exchange: &Exchange, record: &Record) -> Times {
    let since = |instant: Instant| micros(instant.duration_since(exchange.opened));
    let alone = exchange.connection.listener.mode == Mode::Inbound;
    let last = record.attempts.last().filter(|_| alone);
    Times {
        queue: record.attempts.iter().next().map(|attempt| since(attempt.started)),
        pool: last.and_then(|attempt| attempt.waited),
        connect: last.and_then(|attempt| Some(attempt.made?.connect)),
        tls: last.and_then(|attempt| attempt.made?.tls),
        first_byte: record.first_byte.map(since),
    }
}

/// Of one attempt. One that was not the last and was answered all the same ended with the head of its answer.
fn times(exchange: &Exchange, record: &Record, attempt: &Attempt, before: Option<&Attempt>) -> Times {
    let since = before.map_or(Some(exchange.opened), |before| before.ended);
    let last = record.attempts.last().is_some_and(|last| last.span == attempt.span);
    let first_byte = if last { record.first_byte } else { attempt.ended }.filter(|_| attempt.status.is_some());
    Times {
        queue: since.map(|since| micros(attempt.started.duration_since(since))),
        pool: attempt.waited,
        connect: attempt.made.map(|made| made.connect),
        tls: attempt.made.and_then(|made| made.tls),
        first_byte: first_byte.map(|first| micros(first.duration_since(attempt.started))),
    }
}

fn protocol(version: Version) -> Protocol {
    match version {
        Version::HTTP_10 => Protocol::Http10,
        Version::HTTP_2 => Protocol::Http2,
        _ => Protocol::Http11,
    }
}

/// What of a word stands in a span. Nobody reads more, and a batch is handed over by its size.
const METHOD: usize = 32;
const HOST: usize = 256;
const PATH: usize = 1024;
const QUERY: usize = 1024;
const AGENT: usize = 256;
const ID: usize = 256;
const STATE: usize = 4096;
/// gRPC's, of what ended without a status.
const UNKNOWN: u32 = 2;
/// gRPC's: nobody knows the method.
const UNIMPLEMENTED: u32 = 12;
