//! The attempts of one request: pick an endpoint, lease a connection, send, wait for the head of the answer, and ask
//! the rules whether a failure may be followed by another try. Returns the first answer that stays.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_LENGTH, EXPECT, SEC_WEBSOCKET_KEY, TE, TRAILER, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, Version};
use hyper::body::{Body, Incoming};
use spanmesh_proto::SpanId;

use super::body::{RequestBody, Upload, is_reset};
use super::client::{ConnectFailure, Lease, Wanted};
use super::headers::{self, Head, Trailers, Upgrade};
use super::pool::{Age, Pooled, Upstream};
use super::replay::{Gate, Replay};
use super::websocket;
use crate::config::{Mode, UpstreamProtocol};
use crate::error::Flag;
use crate::exchange::Exchange;
use crate::rules::balance::{self, Pick};
use crate::rules::retry::{self, Decision, Failure, Policy, Progress, Stop};
use crate::trace::context::{self, TraceContext};
use crate::trace::w3c;

/// What a request is sent with.
pub struct Job<'a> {
    pub exchange: &'a Rc<Exchange>,
    pub upstream: &'a Rc<Upstream>,
    pub head: &'a Head,
    pub policy: Option<&'a Policy>,
    /// The upstream is a proxy that the client speaks to.
    pub to_proxy: bool,
    pub context: TraceContext,
    /// The request's span: the SERVER span, or on an outbound side that of the first attempt.
    pub span: SpanId,
}

/// An answer's head, with what its body needs.
pub struct Answered {
    pub response: Response<Incoming>,
    pub lease: Lease,
    pub gate: Option<Gate>,
    /// The WebSocket key that the proxy made up for this attempt.
    pub key: Option<HeaderValue>,
}

/// Why no answer stays.
#[derive(Debug)]
pub struct Refused {
    pub flag: Flag,
    /// The upstream reset the stream: an HTTP/2 client sees the same.
    pub reason: Option<h2::Reason>,
}

pub async fn run(job: &Job<'_>, body: Incoming) -> Result<Answered, Refused> {
    let worker = &job.exchange.connection().worker;
    let _requesting = job.upstream.budget.request();
    let mut supply = Supply::new(job, body);
    let mut tried = Vec::new();
    let mut retries = 0;
    let mut resends = 0;
    let mut retrying = None;
    // The same list for all attempts: what was tried is known by its place.
    let endpoints = job.upstream.endpoints();
    loop {
        let pick = balance::pick(&endpoints, &tried, Instant::now(), &mut *worker.rng.borrow_mut());
        let Pick::Endpoint(index) = pick else {
            return Err(Refused { flag: Flag::NoHealthyEndpoint, reason: None });
        };
        let Some(pooled) = endpoints.get(index) else {
            return Err(Refused { flag: Flag::NoHealthyEndpoint, reason: None });
        };
        let first = retries == 0 && resends == 0;
        let span = span(job, first);
        job.exchange.attempt(pooled.address(), span);
        let missed = match one(job, pooled, span, &mut supply).await {
            Ok(answered) => {
                let status = answered.response.status();
                job.exchange.attempt_answered(status);
                match job.policy {
                    Some(policy) if policy.on.contains(&retry::On::Status(status.as_u16())) => Missed {
                        failure: Failure::Status(status.as_u16()),
                        flag: Flag::Ok,
                        reason: None,
                        kept: Some(Box::new(answered)),
                    },
                    _ => {
                        supply.release();
                        return Ok(answered);
                    }
                }
            }
            Err(missed) => missed,
        };
        drop(retrying.take());
        let progress = Progress {
            method: &job.head.method,
            retries,
            resent: resends == RESENDS,
            body_replayable: supply.is_replayable(),
            deadline: job.exchange.deadline(),
        };
        let now = Instant::now();
        let decision = match missed.flag {
            Flag::ClientReset => Decision::Stop(Stop::BodyGone),
            _ => {
                let mut rng = worker.rng.borrow_mut();
                retry::decide(job.policy, missed.failure, &progress, &job.upstream.budget, now, &mut *rng)
            }
        };
        match decision {
            Decision::Resend => {
                job.exchange.attempt_ended(missed.flag);
                supply.next_turn();
                job.upstream.meters.resent();
                resends += 1;
                supply.age = if resends == RESENDS { Age::Own } else { Age::YoungerThan(now) };
            }
            Decision::Retry { after, hold } => {
                job.exchange.attempt_ended(missed.flag);
                supply.next_turn();
                job.upstream.meters.retried(missed.failure);
                tried.push(index);
                retries += 1;
                if let Some(answered) = missed.kept {
                    discard(*answered);
                }
                tokio::time::sleep(after).await;
                retrying = Some(hold);
            }
            Decision::Stop(stop) => {
                if job.policy.is_some() {
                    job.upstream.meters.retry_denied(stop);
                }
                return match missed.kept {
                    Some(answered) => {
                        supply.release();
                        Ok(*answered)
                    }
                    None => {
                        job.exchange.attempt_ended(missed.flag);
                        Err(Refused { flag: missed.flag, reason: missed.reason })
                    }
                };
            }
        }
    }
}

/// The span that an attempt's callee has as its parent. An inbound side has one span for all attempts, an outbound side
/// one for each; a gateway has both, so that none of its attempts is the request's own span.
fn span(job: &Job<'_>, first: bool) -> SpanId {
    let connection = job.exchange.connection();
    match connection.listener.mode {
        Mode::Inbound => job.span,
        Mode::Outbound if first => job.span,
        Mode::Outbound | Mode::Gateway => context::random_span(&mut *connection.worker.rng.borrow_mut()),
    }
}

/// An answer that nobody wants. A short one is read to its end, because an upstream in trouble should not have to
/// accept a new connection for each of its refusals; else the connection closes.
fn discard(answered: Answered) {
    let Answered { response, lease, gate, .. } = answered;
    if let Some(gate) = gate {
        gate.refuse();
    }
    let mut body = response.into_body();
    if body.is_end_stream() {
        return lease.give_back(true);
    }
    tokio::task::spawn_local(async move {
        let mut left = DISCARD_MAX;
        let read = async {
            while let Some(frame) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
                let size = frame.ok()?.data_ref().map_or(0, Bytes::len);
                left = left.checked_sub(size)?;
            }
            Some(())
        };
        let whole = tokio::time::timeout(DISCARD_WAIT, read).await.is_ok_and(|read| read.is_some());
        lease.give_back(whole);
    });
}

/// A failed attempt.
pub struct Missed {
    failure: Failure,
    flag: Flag,
    reason: Option<h2::Reason>,
    /// An answer that the policy would rather not have; it is what the client gets if there is no other.
    kept: Option<Box<Answered>>,
}

impl Missed {
    pub fn new(failure: Failure, flag: Flag) -> Self {
        Self { failure, flag, reason: None, kept: None }
    }
}

impl From<ConnectFailure> for Missed {
    fn from(failure: ConnectFailure) -> Self {
        tracing::debug!(flag = failure.flag.name(), "{}", failure.text);
        let kind = match failure.flag {
            Flag::ConnectTimeout => Failure::ConnectTimeout,
            _ => Failure::ConnectFailed,
        };
        Self::new(kind, failure.flag)
    }
}

async fn one(job: &Job<'_>, pooled: &Rc<Pooled>, span: SpanId, supply: &mut Supply) -> Result<Answered, Missed> {
    let limit = Limit::new(job, matches!(supply.body, Stock::Empty));
    let mut lease = lease(job, pooled, supply.age, &limit).await?;
    let (request, gate) = supply.request(job, &lease, span).await?;
    let key = match job.head.upgrade {
        Upgrade::Extended(_) => request.headers().get(SEC_WEBSOCKET_KEY).cloned(),
        _ => None,
    };
    let answer = limit.keep(lease.send(request)).await.inspect_err(|_| {
        // Who was not answered in time does not try the same connection again: it may lead nowhere.
        supply.age = Age::YoungerThan(Instant::now());
    })?;
    match answer {
        Ok(response) => Ok(Answered { response, lease, gate, key }),
        Err(mut error) => {
            let message = error.take_message();
            let written = message.is_none();
            if let Some(request) = message {
                supply.unsent = Some((request, lease.version()));
            }
            Err(classify(job, &lease, written, error.error()))
        }
    }
}

async fn lease(job: &Job<'_>, pooled: &Rc<Pooled>, age: Age, limit: &Limit<'_>) -> Result<Lease, Missed> {
    if let Some(lease) = pooled.waiting(wanted(job), age) {
        return Ok(lease);
    }
    let mut leasing = Box::pin(pooled.clone().lease(job.upstream.clone(), wanted(job), age));
    match limit.keep(leasing.as_mut()).await {
        Ok(leased) => Ok(leased.inspect_err(|failure| job.exchange.explain(failure.text.clone()))?),
        Err(missed) => {
            // This request waits no longer, but the next ones must learn whether the endpoint can be reached at all:
            // one that never answers would otherwise never be ejected.
            tokio::task::spawn_local(async move {
                if let Ok(lease) = leasing.await {
                    lease.give_back(true);
                }
            });
            Err(Missed { failure: Failure::ConnectTimeout, ..missed })
        }
    }
}

/// The time that an attempt has: the request's deadline or the policy's own limit, and in any case the idle timeout
/// while no byte moves.
struct Limit<'a> {
    exchange: &'a Exchange,
    due: Option<(Instant, Flag)>,
    /// Whose silence it is when nothing moves: the client's, while it still has something to send.
    still: Flag,
}

impl<'a> Limit<'a> {
    fn new(job: &'a Job<'_>, sent: bool) -> Self {
        let still = if sent { Flag::RequestTimeout } else { Flag::IdleTimeout };
        let own = job.policy.and_then(|policy| policy.attempt_timeout).map(|timeout| Instant::now() + timeout);
        let due = match (own, job.exchange.deadline()) {
            (Some(own), deadline) if deadline.is_none_or(|deadline| own < deadline) => {
                Some((own, Flag::AttemptTimeout))
            }
            (_, deadline) => deadline.map(|deadline| (deadline, Flag::RequestTimeout)),
        };
        Self { exchange: job.exchange, due, still }
    }

    async fn keep<T>(&self, future: impl Future<Output = T>) -> Result<T, Missed> {
        let mut future = pin!(future);
        loop {
            let moved = self.exchange.moved();
            let idle = Instant::now() + self.exchange.idle_timeout();
            let limit = self.due.filter(|(due, _)| *due <= idle);
            let (due, flag) = limit.unwrap_or((idle, self.still));
            match tokio::time::timeout_at(due.into(), future.as_mut()).await {
                Ok(value) => return Ok(value),
                // A long body is on its way: it does not lie still.
                Err(_) if limit.is_none() && self.exchange.moved() != moved => {}
                Err(_) => return Err(Missed::new(Failure::AttemptTimeout, flag)),
            }
        }
    }
}

fn wanted(job: &Job<'_>) -> Wanted {
    match (job.upstream.protocol, &job.upstream.settings.tls) {
        (UpstreamProtocol::Http1, _) => Wanted::Http1,
        (UpstreamProtocol::Http2, _) => Wanted::Http2,
        // An upgrade of HTTP/1.1 is safest where HTTP/1.1 is spoken.
        (UpstreamProtocol::Auto, Some(_)) if matches!(job.head.upgrade, Upgrade::Http1(_)) => Wanted::Http1,
        (UpstreamProtocol::Auto, Some(_)) => Wanted::Negotiated,
        // A client that has to know beforehand that its peer takes HTTP/2 knows the application. One that negotiated it
        // with this proxy knows nothing of what stands behind; but gRPC is spoken in HTTP/2 alone.
        (UpstreamProtocol::Auto, None) if job.head.version == Version::HTTP_2 => {
            let negotiated = job.exchange.connection().tls.get();
            if negotiated && !job.exchange.is_grpc() { Wanted::Http1 } else { Wanted::Http2 }
        }
        (UpstreamProtocol::Auto, None) => Wanted::Http1,
    }
}

/// What an error of the engine means for the request.
fn classify(job: &Job<'_>, lease: &Lease, written: bool, error: &hyper::Error) -> Missed {
    tracing::debug!(%error, written, reused = lease.reused, "attempt failed");
    if job.exchange.has_request_failed() {
        return Missed::new(Failure::Reset, Flag::ClientReset);
    }
    if let Some(h2) = h2_error(error) {
        return match h2.reason() {
            Some(reason @ h2::Reason::REFUSED_STREAM) if h2.is_remote() => {
                let reason = h2.is_reset().then_some(reason);
                Missed { reason, ..Missed::new(Failure::RefusedStream, Flag::UpstreamReset) }
            }
            // Only the peer's own GOAWAY says which streams it has not looked at; one of ours ends them all.
            _ if h2.is_go_away() && h2.is_remote() => Missed::new(Failure::GoAway, Flag::UpstreamReset),
            _ if !written => Missed::new(Failure::NotWritten, Flag::UpstreamClosed),
            reason => {
                let reason = if h2.is_reset() && h2.is_remote() { reason } else { None };
                Missed { reason, ..Missed::new(Failure::Reset, Flag::UpstreamReset) }
            }
        };
    }
    let closed = error.is_incomplete_message() || error.is_canceled() || error.is_closed() || is_io(error);
    if !written {
        return Missed::new(Failure::NotWritten, Flag::UpstreamClosed);
    }
    // The origin closed an idle connection while the request was on its way: a safe method may go out again.
    if closed && lease.reused && job.head.method.is_safe() {
        return Missed::new(Failure::NotWritten, Flag::UpstreamClosed);
    }
    match (closed, is_reset(error)) {
        (_, true) => Missed::new(Failure::Reset, Flag::UpstreamReset),
        (true, false) => Missed::new(Failure::Reset, Flag::UpstreamClosed),
        (false, false) => Missed::new(Failure::Reset, Flag::ProtocolError),
    }
}

fn h2_error(error: &hyper::Error) -> Option<&h2::Error> {
    find(error)
}

fn is_io(error: &hyper::Error) -> bool {
    find::<std::io::Error>(error).is_some()
}

fn find<'a, E: std::error::Error + 'static>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a E> {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(found) = error.downcast_ref::<E>() {
            return Some(found);
        }
        cause = error.source();
    }
    None
}

/// The request's body and headers, as far as another attempt can still have them.
struct Supply {
    body: Stock,
    continue_wait: Option<Duration>,
    /// How new the next connection must be.
    age: Age,
    /// A request that the engine gave back whole.
    unsent: Option<(Request<RequestBody>, Version)>,
    gate: Option<Gate>,
}

enum Stock {
    Empty,
    Once(Option<Upload>),
    Kept(Replay),
}

impl Supply {
    fn new(job: &Job<'_>, body: Incoming) -> Self {
        let connection = job.exchange.connection();
        let body = Upload::new(body, connection);
        let worker = &connection.worker;
        let continue_wait = (job.head.expects_continue && !body.is_end_stream()).then_some(worker.limits.continue_wait);
        let may_be_http2 = wanted(job) != Wanted::Http1;
        let body = match (body.is_end_stream(), continue_wait, job.policy) {
            (true, ..) => Stock::Empty,
            (_, Some(_), _) => Stock::Once(Some(body)),
            (_, None, Some(policy)) => Stock::Kept(Replay::new(body, policy.body_limit)),
            (_, None, None) if may_be_http2 => Stock::Kept(Replay::new(body, RESEND_CAP)),
            (_, None, None) => Stock::Once(Some(body)),
        };
        let age = if job.head.upgrade == Upgrade::No { Age::Any } else { Age::Unused };
        Self { body, continue_wait, age, unsent: None, gate: None }
    }

    fn is_replayable(&self) -> bool {
        self.unsent.is_some()
            || match &self.body {
                Stock::Empty => true,
                Stock::Once(body) => body.is_some(),
                Stock::Kept(replay) => replay.again().is_some(),
            }
    }

    fn release(&self) {
        if let Stock::Kept(replay) = &self.body {
            replay.release();
        }
    }

    /// The attempt so far gets no more of the body. A request that came back whole keeps its turn: it goes out again.
    fn next_turn(&self) {
        if let (Stock::Kept(replay), None) = (&self.body, &self.unsent) {
            replay.next_turn();
        }
    }

    async fn request(
        &mut self,
        job: &Job<'_>,
        lease: &Lease,
        span: SpanId,
    ) -> Result<(Request<RequestBody>, Option<Gate>), Missed> {
        if let Some((mut request, version)) = self.unsent.take()
            && version == lease.version()
        {
            w3c::inject(request.headers_mut(), &job.context, span);
            return Ok((request, self.gate.clone()));
        }
        let mut request = shape(job, lease)?;
        switch(job, lease, &mut request, !matches!(self.body, Stock::Empty)).await?;
        w3c::inject(request.headers_mut(), &job.context, span);
        let taken = match lease.version() {
            Version::HTTP_2 => Trailers::All,
            _ => Trailers::announced(request.headers()),
        };
        let mut body = self.body(job, lease, &mut request)?.trailers(taken);
        if !body.is_end_stream() {
            body = body.upload(lease.upload());
        }
        if lease.version() != Version::HTTP_2 {
            frame(job.head.version, request.headers_mut(), &body);
        }
        Ok((request.map(|()| body), self.gate.clone()))
    }

    fn body(&mut self, job: &Job<'_>, lease: &Lease, request: &mut Request<()>) -> Result<RequestBody, Missed> {
        let exchange = job.exchange.clone();
        let gone = || Missed::new(Failure::Reset, Flag::UpstreamClosed);
        match &mut self.body {
            Stock::Empty => Ok(RequestBody::empty(exchange)),
            Stock::Kept(replay) => Ok(RequestBody::replayed(replay.again().ok_or_else(gone)?, exchange)),
            Stock::Once(body) => {
                let body = body.take().ok_or_else(gone)?;
                let Some(wait) = self.continue_wait else { return Ok(RequestBody::direct(body, exchange)) };
                let gate = Gate::new(wait);
                let opener = gate.opener();
                let informed = exchange.connection().worker.meters.informational();
                if lease.version() != Version::HTTP_2 {
                    request.headers_mut().insert(EXPECT, HeaderValue::from_static("100-continue"));
                }
                hyper::ext::on_informational(request, move |answer| match answer.status() {
                    StatusCode::CONTINUE => opener.open(),
                    other => informed.dropped(other),
                });
                self.gate = Some(gate.clone());
                Ok(RequestBody::gated(body, gate, exchange))
            }
        }
    }
}

/// The head for the next hop.
fn shape(job: &Job<'_>, lease: &Lease) -> Result<Request<()>, Missed> {
    let head = job.head;
    let tls = job.upstream.settings.tls.is_some();
    let mut request = Request::new(());
    let mut fields = head.headers.clone();
    let address = lease.endpoint().address();
    let unusable = || Missed::new(Failure::Reset, Flag::BadRequest);
    let target = match job.to_proxy {
        true => headers::proxy_target(head, &mut fields),
        false => headers::target(head, lease.version(), tls, address, &mut fields),
    };
    *request.uri_mut() = target.ok_or_else(unusable)?;
    *request.method_mut() = head.method.clone();
    *request.version_mut() = if lease.version() == Version::HTTP_2 { Version::HTTP_2 } else { Version::HTTP_11 };
    *request.headers_mut() = fields;
    if lease.version() != Version::HTTP_2 {
        *request.extensions_mut() = job.exchange.connection().worker.meters.counts_informational();
        headers::join_cookies(request.headers_mut());
        if request.headers().contains_key(TE) {
            request.headers_mut().insert(CONNECTION, HeaderValue::from_static("te"));
        }
    }
    Ok(request)
}

/// Asks the next hop for the switch of protocols that the client asked for, in the form that this hop has for it.
async fn switch(job: &Job<'_>, lease: &Lease, request: &mut Request<()>, has_body: bool) -> Result<(), Missed> {
    let http2 = lease.version() == Version::HTTP_2;
    match &job.head.upgrade {
        Upgrade::No | Upgrade::Tunnel(_) => {}
        Upgrade::Http1(protocol) if http2 => {
            Box::pin(websocket::to_http2(request, protocol, has_body, lease)).await?;
        }
        Upgrade::Http1(protocol) => {
            request.headers_mut().insert(CONNECTION, HeaderValue::from_static("upgrade"));
            request.headers_mut().insert(UPGRADE, protocol.clone());
        }
        Upgrade::Extended(protocol) if http2 => {
            if !Box::pin(lease.extended_connect()).await {
                return Err(Missed::new(Failure::ConnectFailed, Flag::ProtocolError));
            }
            request.extensions_mut().insert(protocol.clone());
        }
        Upgrade::Extended(protocol) => {
            websocket::to_http1(request, protocol, &mut *job.exchange.connection().worker.rng.borrow_mut());
        }
    }
    Ok(())
}

/// Says how long the body is, in the one way that HTTP/1.1 reads without doubt.
fn frame(from: Version, headers: &mut HeaderMap, body: &RequestBody) {
    headers.remove(TRANSFER_ENCODING);
    if body.is_end_stream() {
        return;
    }
    // HTTP/2 may announce trailers behind a body of known length; HTTP/1.1 has room for them only behind chunks.
    if from == Version::HTTP_2 && headers.contains_key(TRAILER) {
        headers.remove(CONTENT_LENGTH);
        headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
        return;
    }
    match body.size_hint().exact() {
        Some(length) => headers.insert(CONTENT_LENGTH, HeaderValue::from(length)),
        None => headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked")),
    };
}

/// An answer that is longer, or takes longer, costs more than a connection.
const DISCARD_MAX: usize = 64 * 1024;
const DISCARD_WAIT: Duration = Duration::from_secs(1);
/// The first on a connection that others may have used since it was made, which may be closing too; the second on one
/// of its own.
const RESENDS: u32 = 2;
/// Bodies up to this are kept for the resend that a GOAWAY or a stale connection asks for.
const RESEND_CAP: usize = 64 * 1024;
