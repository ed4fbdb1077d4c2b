//! Where the road meets the trace: settles a request's context with what its listener, its worker and its client are,
//! writes it for the next hop, and tells it to the client. The decisions themselves are `trace::trust`'s.

use std::net::SocketAddr;
use std::rc::Rc;

use http::{HeaderMap, HeaderName, HeaderValue};
use spanmesh_proto::SpanId;

use crate::config::{AnswerTrace, Mode, Trust};
use crate::connection::Connection;
use crate::destination::To;
use crate::exchange::{Exchange, Open};
use crate::http::headers::{Head, Upgrade};
use crate::rules::sampling::{Request, Service};
use crate::rules::untraced::{self, Facts};
use crate::trace::attributes::rpc_method;
use crate::trace::context::{self, TraceContext};
use crate::trace::propagate::{Hop, baggage, text};
use crate::trace::trust;
use crate::worker::Worker;

/// The trace that a request belongs to, and the span that it has here.
pub fn settle(connection: &Rc<Connection>, open: &Open, head: &mut Head, to: Option<&To>) -> (TraceContext, SpanId) {
    let (worker, listener) = (&connection.worker, &connection.listener);
    let trust = listener.trust_in(connection.peer.ip());
    // What an application sends may come from what it works on.
    let origin = || match (listener.mode, &worker.in_flight) {
        (Mode::Outbound, Some(in_flight)) => Some(in_flight.origin(open.exchange().opened())),
        _ => None,
    };
    let exchange = open.exchange();
    let rules = &exchange.policy().rules;
    let (settled, span) = {
        let (mut rng, mut ink) = (worker.rng.borrow_mut(), worker.ink.borrow_mut());
        let mut services = worker.templates.borrow_mut();
        let path = head.path.path();
        // What a service is not known to have is no operation, or strangers would make up as many as they like.
        let known = to.filter(|_| rules.sampling.adapts()).and_then(|to| services.get_mut(&to.upstream.name));
        let template = known.and_then(|known| match exchange.is_grpc() {
            true => rpc_method(path).filter(|method| known.method(method, false, |_| false)),
            false => known.find(path, false, |_| false),
        });
        let host = head.host.as_ref().and_then(|host| host.to_str().ok()).unwrap_or_default();
        let own = Service { name: &worker.node.service, namespace: &worker.node.namespace };
        let own = Some(own).filter(|own| !own.name.is_empty());
        let (source, destination) = match listener.mode {
            Mode::Inbound => (None, own),
            Mode::Outbound | Mode::Gateway => (own, called(worker, rules.sampling.has_destinations(), to, host)),
        };
        let request = Request {
            side: listener.mode,
            method: Some(&head.method),
            host,
            path,
            route: to.and_then(|to| to.route.as_deref()).map(|route| route.name.as_str()),
            grpc: exchange.is_grpc(),
            source,
            destination,
            template,
            now: worker.clock.unix_nanos(exchange.opened()),
        };
        let settled = trust::settle(&mut head.headers, trust, rules, &request, origin, &mut *rng, &mut ink);
        (settled, context::random_span(&mut *rng))
    };
    worker.meters.settled(&settled);
    let (context, span) = if_traced(exchange, head, settled.context, span);
    if !exchange.is_untraced() {
        exchange.decided(&settled.notes);
    }
    exchange.traced(context, span, settled.notes);
    if context.sampled && !open.exchange().is_untraced() {
        open.exchange().asked(&head.headers);
    }
    if let (Mode::Inbound, Some(in_flight), Upgrade::No) = (listener.mode, &worker.in_flight, &head.upgrade) {
        open.exchange().works(in_flight.enter(context, span, open.exchange().opened()));
    }
    (context, span)
}

/// The service that a request is for, as far as anybody asks.
fn called<'a>(worker: &'a Worker, asked: bool, to: Option<&To>, host: &'a str) -> Option<Service<'a>> {
    let calls = worker.shared.sampler.calls();
    if !asked && calls.is_none() {
        return None;
    }
    let configured = to.and_then(|to| worker.services.get(&*to.upstream.name));
    let service = match configured {
        Some(name) => Service::parse(name),
        None => Service::of_host(host, &worker.node.namespace),
    }?;
    if let Some(calls) = calls {
        worker.callees.borrow_mut().called(service, calls);
    }
    Some(service)
}

/// Bytes tell of no trace: one begins here, and is kept as the policy has it for any other.
pub fn begin(open: &Open) {
    let exchange = open.exchange();
    let worker = &exchange.connection().worker;
    let (mut rng, mut ink) = (worker.rng.borrow_mut(), worker.ink.borrow_mut());
    let rules = &exchange.policy().rules;
    let request = Request {
        side: exchange.connection().listener.mode,
        now: worker.clock.unix_nanos(exchange.opened()),
        ..Request::NOTHING
    };
    let settled = trust::settle(&mut HeaderMap::new(), Trust::Ignore, rules, &request, || None, &mut *rng, &mut ink);
    let notes = trust::Notes { request_id: None, ..settled.notes };
    exchange.decided(&notes);
    exchange.traced(settled.context, context::random_span(&mut *rng), notes);
}

/// A request that makes no spans begins no trace that is kept. Where its caller traces it, that goes on as if no proxy stood
/// here; and whoever has forced a trace gets all of it.
fn if_traced(exchange: &Exchange, head: &Head, context: TraceContext, span: SpanId) -> (TraceContext, SpanId) {
    let worker = &exchange.connection().worker;
    let facts = Facts { method: &head.method, path: head.path.path(), headers: &head.headers };
    let Some(kind) = untraced::kind(&facts).filter(|kind| exchange.policy().untraced.contains(kind) && !context.debug)
    else {
        return (context, span);
    };
    exchange.untraced();
    worker.meters.untraced(kind);
    match context.parent {
        Some(parent) => (context, parent),
        None => (TraceContext { sampled: false, ..context }, span),
    }
}

/// Tells the next hop. Baggage is for the mesh; an inbound side's application belongs to it wherever it listens.
pub fn inject(
    exchange: &Exchange,
    head: &Head,
    address: SocketAddr,
    context: &TraceContext,
    span: SpanId,
    headers: &mut HeaderMap,
) {
    let connection = exchange.connection();
    let (worker, listener) = (&connection.worker, &connection.listener);
    let rules = &exchange.policy().rules;
    let propagation = &rules.propagation;
    if listener.mode != Mode::Inbound
        && !propagation.outside_baggage
        && !propagation.mesh.iter().any(|network| network.contains(address.ip()))
    {
        baggage::clear(headers);
    }
    let node = &worker.node;
    let hop = Hop { service: &node.service, instance: &node.pod, path: head.path.path(), address };
    let unsaid = trust::inject(headers, rules, context, span, &hop, &mut worker.ink.borrow_mut());
    if !unsaid.is_empty() {
        worker.meters.not_propagated(unsaid);
    }
}

/// Tells the client, where the listener is asked to. `own` answers always say it: whoever gets one has nothing else.
pub fn tell(exchange: &Exchange, headers: &mut HeaderMap, own: bool) {
    let connection = exchange.connection();
    let wanted = connection.listener.answer_trace;
    if wanted == AnswerTrace::None && !own {
        return;
    }
    let Some((context, span)) = exchange.trace() else { return };
    let mut ink = connection.worker.ink.borrow_mut();
    if own || wanted == AnswerTrace::TraceId {
        let value = ink.value(32, |out| text::put_hex(out, &context.trace.to_bytes()));
        value.map(|value| headers.insert(X_TRACE_ID, value));
    }
    if wanted == AnswerTrace::ServerTiming {
        let flags = u8::from(context.sampled) | u8::from(context.random) << 1;
        let value = ink.value(80, |out| {
            out.extend_from_slice(b"traceparent;desc=\"00-");
            text::put_hex(out, &context.trace.to_bytes());
            out.extend_from_slice(b"-");
            text::put_hex(out, &span.to_bytes());
            out.extend_from_slice(b"-");
            text::put_hex(out, &[flags]);
            out.extend_from_slice(b"\"");
        });
        // Beside what the application has to say of its times, but never beside another trace's entry.
        let others: Vec<HeaderValue> = headers.get_all(SERVER_TIMING).iter().filter_map(without_trace).collect();
        headers.remove(SERVER_TIMING);
        for other in others.into_iter().chain(value) {
            headers.append(SERVER_TIMING, other);
        }
    }
}

/// An answer to a request that was refused before its trace was settled gets one all the same, of which no span is made.
pub fn name(exchange: &Exchange) {
    if exchange.trace().is_none() {
        let worker = &exchange.connection().worker;
        let mut rng = worker.rng.borrow_mut();
        let context = TraceContext { sampled: false, ..TraceContext::root(&mut *rng) };
        exchange.traced(context, context::random_span(&mut *rng), trust::Notes::default());
    }
}

/// The line without entries of that name. A comma in quotes parts entries too, which at worst cuts one that imitates ours.
fn without_trace(line: &HeaderValue) -> Option<HeaderValue> {
    let is_trace = |entry: &[u8]| {
        let name = entry.trim_ascii_start();
        name.get(..11).is_some_and(|name| name.eq_ignore_ascii_case(b"traceparent"))
    };
    let bytes = line.as_bytes();
    if !bytes.split(|byte| *byte == b',').any(is_trace) {
        return Some(line.clone());
    }
    let kept: Vec<&[u8]> = bytes.split(|byte| *byte == b',').filter(|entry| !is_trace(entry)).collect();
    HeaderValue::from_bytes(&kept.join(&b',')).ok().filter(|value| !value.as_bytes().trim_ascii().is_empty())
}

const X_TRACE_ID: HeaderName = HeaderName::from_static("x-trace-id");
const SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");
