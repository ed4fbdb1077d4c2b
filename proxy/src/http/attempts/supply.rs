//! What an attempt sends: the request's body and headers as far as another attempt can still have them, in the form of
//! the next hop. Owned by the loop of attempts, which asks it for one request after the other.

use std::time::Duration;

use http::header::{CONNECTION, CONTENT_LENGTH, EXPECT, TE, TRAILER, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderMap, HeaderValue, Request, StatusCode, Version};
use hyper::body::{Body, Incoming};
use spanmesh_proto::SpanId;

use super::missed::Missed;
use super::{Job, wanted};
use crate::error::Flag;
use crate::http::body::{RequestBody, Upload};
use crate::http::client::{Lease, Wanted};
use crate::http::headers::{self, Trailers, Upgrade};
use crate::http::pool::Age;
use crate::http::replay::{Gate, Replay};
use crate::http::websocket;
use crate::rules::retry::Failure;
use crate::trail;

/// The request's body and headers, as far as another attempt can still have them.
pub(super) struct Supply {
    pub(super) body: Stock,
    continue_wait: Option<Duration>,
    /// How new the next connection must be.
    pub(super) age: Age,
    /// A request that the engine gave back whole.
    pub(super) unsent: Option<Box<(Request<RequestBody>, Version)>>,
    gate: Option<Gate>,
}

pub(super) enum Stock {
    Empty,
    Once(Option<Upload>),
    Kept(Replay),
}

impl Supply {
    pub(super) fn new(job: &Job<'_>, body: Incoming) -> Self {
        let connection = job.exchange.connection();
        let body = Upload::new(body, job.exchange);
        let worker = &connection.worker;
        let continue_wait = (job.head.expects_continue && !body.is_end_stream()).then_some(worker.limits.continue_wait);
        let may_be_http2 = wanted(job) != Wanted::Http1;
        let body = match (body.is_end_stream(), continue_wait, job.policy) {
            (true, ..) => {
                connection.withholds(false);
                job.exchange.uploaded();
                Stock::Empty
            }
            (_, Some(_), _) => Stock::Once(Some(body)),
            (_, None, Some(policy)) => Stock::Kept(Replay::new(body, policy.body_limit, connection)),
            (_, None, None) if may_be_http2 => Stock::Kept(Replay::new(body, RESEND_CAP, connection)),
            (_, None, None) => Stock::Once(Some(body)),
        };
        let age = if job.head.upgrade == Upgrade::No { Age::Any } else { Age::Unused };
        Self { body, continue_wait, age, unsent: None, gate: None }
    }

    pub(super) fn is_replayable(&self) -> bool {
        self.unsent.is_some()
            || match &self.body {
                Stock::Empty => true,
                Stock::Once(body) => body.is_some(),
                Stock::Kept(replay) => replay.again().is_some(),
            }
    }

    pub(super) fn release(&self) {
        if let Stock::Kept(replay) = &self.body {
            replay.release();
        }
    }

    /// The attempt so far gets no more of the body. A request that came back whole keeps its turn: it goes out again.
    pub(super) fn next_turn(&self) {
        if let (Stock::Kept(replay), None) = (&self.body, &self.unsent) {
            replay.next_turn();
        }
    }

    pub(super) async fn request(
        &mut self,
        job: &Job<'_>,
        lease: &Lease,
        span: SpanId,
    ) -> Result<(Request<RequestBody>, Option<Gate>), Missed> {
        if let Some(unsent) = self.unsent.take()
            && let (mut request, version) = *unsent
            && version == lease.version()
        {
            inject(job, lease, span, &mut request);
            return Ok((request, self.gate.clone()));
        }
        let mut request = shape(job, lease)?;
        switch(job, lease, &mut request, !matches!(self.body, Stock::Empty)).await?;
        inject(job, lease, span, &mut request);
        let mut body = self.body(job, lease, &mut request)?;
        if !body.is_end_stream() {
            let taken = match lease.version() {
                Version::HTTP_2 => Trailers::All,
                _ => Trailers::announced(request.headers()),
            };
            body = body.trailers(taken).upload(lease.upload());
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
                if lease.version() != Version::HTTP_2 {
                    request.headers_mut().insert(EXPECT, HeaderValue::from_static("100-continue"));
                }
                hyper::ext::on_informational(request, move |answer| {
                    if answer.status() == StatusCode::CONTINUE {
                        opener.open();
                    }
                });
                self.gate = Some(gate.clone());
                Ok(RequestBody::gated(body, gate, exchange))
            }
        }
    }
}

fn inject<B>(job: &Job<'_>, lease: &Lease, span: SpanId, request: &mut Request<B>) {
    let address = lease.endpoint().address();
    trail::inject(job.exchange, job.head, address, &job.context, span, request.headers_mut());
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
        // RFC 9110 §10.1.1: there is nothing to wait for.
        headers.remove(EXPECT);
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

/// Bodies up to this are kept for the resend that a GOAWAY or a stale connection asks for.
const RESEND_CAP: usize = 64 * 1024;
