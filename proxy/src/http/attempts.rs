//! The attempts of one request: pick an endpoint, lease a connection, send, wait for the head of the answer, and ask
//! the rules whether a failure may be followed by another try. Returns the first answer that stays.

mod limit;
mod missed;
mod supply;

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use http::header::SEC_WEBSOCKET_KEY;
use http::{HeaderValue, Response, Version};
use hyper::body::{Body, Incoming};
use spanmesh_proto::SpanId;
use tokio::time::Instant;

use self::limit::Limit;
pub use self::missed::{Missed, broken};
use self::supply::Supply;
use super::client::{Lease, Wanted};
use super::headers::{Head, Upgrade};
use super::pool::{Age, Pooled, Upstream};
use super::replay::Gate;
use crate::config::{Mode, UpstreamProtocol};
use crate::error::Flag;
use crate::exchange::Exchange;
use crate::rules::balance::{self, Pick};
use crate::rules::retry::{self, Decision, Failure, Policy, Progress, Stop};
use crate::trace::context::{self, TraceContext};

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
    let connection = job.exchange.connection();
    let worker = &connection.worker;
    if connection.is_hasty(job.exchange.opened()) {
        // The engine looks for a reset only when it is told to wait. What was taken back already need not go out, where
        // its reset would count against a connection that others share.
        tokio::task::yield_now().await;
    }
    let _requesting = job.upstream.budget.request();
    let mut supply = Supply::new(job, body);
    let mut tried = Vec::new();
    let mut retries = 0;
    let mut resends = 0;
    let mut retrying = None;
    // The same list for all attempts: what was tried is known by its place.
    let endpoints = job.upstream.endpoints();
    loop {
        let now = Instant::now();
        let pick = balance::pick(&endpoints, &tried, now, &mut *worker.rng.borrow_mut());
        let Pick::Endpoint(index) = pick else {
            return Err(Refused { flag: Flag::NoHealthyEndpoint, reason: None });
        };
        let Some(pooled) = endpoints.get(index) else {
            return Err(Refused { flag: Flag::NoHealthyEndpoint, reason: None });
        };
        let first = retries == 0 && resends == 0;
        let span = span(job, first);
        job.exchange.attempt(pooled.address(), job.upstream.settings.tls.is_some(), span, now);
        let missed = match one(job, pooled, span, &mut supply, now).await {
            Ok(answered) => {
                let status = answered.response.status();
                job.exchange.attempt_answered(status, answered.lease.version());
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
            _ if job.exchange.request_failure().is_some() => Decision::Stop(Stop::BodyGone),
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
        // Without a span of its own it has none to tell of.
        _ if job.exchange.is_untraced() => job.span,
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
        return lease.give_back(true, Instant::now());
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
        lease.give_back(whole, Instant::now());
    });
}

async fn one(
    job: &Job<'_>,
    pooled: &Rc<Pooled>,
    span: SpanId,
    supply: &mut Supply,
    now: Instant,
) -> Result<Answered, Missed> {
    let limit = Limit::new(job, now);
    let mut lease = match pooled.waiting(wanted(job), supply.age, now) {
        Some(lease) => lease,
        None => Box::pin(lease(job, pooled, supply.age, &limit)).await?,
    };
    let (request, gate) = supply.request(job, &lease, span).await?;
    let key = match job.head.upgrade {
        Upgrade::Extended(_) => request.headers().get(SEC_WEBSOCKET_KEY).cloned(),
        _ => None,
    };
    let answer = limit.keep(pin!(lease.send(request))).await.inspect_err(|_| {
        // Who was not answered in time does not try the same connection again: it may lead nowhere.
        supply.age = Age::YoungerThan(Instant::now());
    })?;
    match answer {
        Ok(response) => {
            lease.answered(&response);
            Ok(Answered { response, lease, gate, key })
        }
        Err(mut error) => {
            let message = error.take_message();
            let written = message.is_none();
            if let Some(request) = message {
                supply.unsent = Some(Box::new((request, lease.version())));
            }
            Err(missed::classify(job, &lease, written, error.error()))
        }
    }
}

async fn lease(job: &Job<'_>, pooled: &Rc<Pooled>, age: Age, limit: &Limit<'_>) -> Result<Lease, Missed> {
    let mut leasing = Box::pin(pooled.clone().lease(job.upstream.clone(), wanted(job), age));
    match limit.keep(leasing.as_mut()).await {
        Ok(leased) => {
            let (lease, made) = leased.inspect_err(|failure| job.exchange.explain(failure.text.clone()))?;
            job.exchange.leased(made, Instant::now());
            Ok(lease)
        }
        Err(missed) => {
            // This request waits no longer, but the next ones must learn whether the endpoint can be reached at all:
            // one that never answers would otherwise never be ejected.
            tokio::task::spawn_local(async move {
                if let Ok((lease, _)) = leasing.await {
                    lease.give_back(true, Instant::now());
                }
            });
            Err(Missed { failure: Failure::ConnectTimeout, ..missed })
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

/// An answer that is longer, or takes longer, costs more than a connection.
const DISCARD_MAX: usize = 64 * 1024;
const DISCARD_WAIT: Duration = Duration::from_secs(1);
/// The first on a connection that others may have used since it was made, which may be closing too; the second on one
/// of its own.
const RESENDS: u32 = 2;
