//! OTLP over gRPC: tonic writes and reads the messages, which are encoded already, over an HTTP/2 connection of ours that
//! is made anew every 5 to 10 minutes.

use std::error::Error;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::{Buf, BufMut, Bytes};
use http::uri::PathAndQuery;
use http::{HeaderMap, Uri};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::task::AbortHandle;
use tonic::Status;
use tonic::client::Grpc as Client;
use tonic::codec::{Codec, CompressionEncoding, DecodeBuf, Decoder, EncodeBuf, Encoder};

use super::answer::{self, Taken};
use super::dial::{Dial, Fields};
use super::parcel::{Envelope, Parcel};
use super::retry::{self, Failure};

pub struct Grpc {
    pub dial: Dial,
    pub origin: Uri,
    pub fields: Fields,
    pub gzip: bool,
    pub connection: Option<Connection>,
}

pub struct Connection {
    send: http2::SendRequest<tonic::body::Body>,
    until: Instant,
    task: AbortHandle,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Grpc {
    pub async fn send(&mut self, parcel: &Parcel, envelope: &Envelope, timeout: Duration) -> Result<Taken, Failure> {
        let connection = self.connected().await?;
        let seen = Arc::new(Seen::default());
        let channel = Channel(connection.send.clone(), seen.clone());
        // Go's servers compress their answers as the request was.
        let mut client = Client::with_origin(channel, self.origin.clone()).accept_compressed(CompressionEncoding::Gzip);
        if self.gzip {
            client = client.send_compressed(CompressionEncoding::Gzip);
        }
        client.ready().await.map_err(|error| Failure::Lost(error.to_string()))?;
        let mut request = tonic::Request::new(envelope.wrap(parcel));
        request.set_timeout(timeout);
        let mut headers = HeaderMap::new();
        self.fields.write(&mut headers, Instant::now());
        headers.entry(http::header::USER_AGENT).or_insert(super::http::AGENT);
        for (name, value) in headers.iter() {
            request.metadata_mut().as_mut().append(name, value.clone());
        }
        let outcome = match client.unary(request, PathAndQuery::from_static(EXPORT), Raw).await {
            Ok(answer) => answer::protobuf(answer.get_ref())
                .ok_or_else(|| Failure::Garbled("answers with a message that is not OTLP's".into())),
            Err(status) => Err(failure(&status, &seen)),
        };
        if !matches!(outcome, Err(Failure::Lost(_))) {
            self.connection = Some(connection);
        }
        outcome
    }

    async fn connected(&mut self) -> Result<Connection, Failure> {
        if let Some(connection) = self.connection.take()
            && Instant::now() < connection.until
            && !connection.send.is_closed()
        {
            return Ok(connection);
        }
        let io = TokioIo::new(self.dial.connect().await?);
        let (send, connection) = http2::Builder::new(Local)
            .timer(TokioTimer::new())
            .keep_alive_interval(PING_INTERVAL)
            .keep_alive_timeout(PING_WAIT)
            .handshake(io)
            .await
            .map_err(|error| Failure::Lost(error.to_string()))?;
        let task = tokio::task::spawn_local(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection for spans ended");
            }
        });
        let until = Instant::now() + retry::lifetime(self.dial.renew, &mut rand::rng());
        Ok(Connection { send, until, task: task.abort_handle() })
    }
}

/// A status that has a cause was made here and not by the receiver, which did not answer then. Others are made here too:
/// of an answer that is not gRPC's, or is too long, and they look like the receiver's.
fn failure(status: &Status, seen: &Seen) -> Failure {
    if let Some(cause) = status.source() {
        let deeper = cause.source().map(|cause| format!(": {cause}")).unwrap_or_default();
        return Failure::Lost(format!("{cause}{deeper}"));
    }
    let text = answer::shown(status.message().as_bytes());
    if seen.refuses.load(Ordering::Relaxed) {
        return Failure::Grpc { code: status.code() as i32, wait: answer::retry_info(status.details()), text };
    }
    // Which statuses of HTTP stand for which of gRPC is settled ("HTTP to gRPC Status Code Mapping"), and 429, 502, 503
    // and 504 may be tried again in either.
    let grpc = |code, status| Failure::Grpc { code, wait: None, text: format!("HTTP's {status} and none of gRPC's") };
    match seen.status.load(Ordering::Relaxed) {
        200..=299 => Failure::Garbled(format!("gives an answer that is not gRPC's ({text})")),
        401 => grpc(UNAUTHENTICATED, 401),
        403 => grpc(PERMISSION_DENIED, 403),
        404 => grpc(UNIMPLEMENTED, 404),
        status => Failure::Http { status, wait: None, text: "and no status of gRPC".into() },
    }
}

/// What there was of an answer.
#[derive(Default)]
struct Seen {
    /// Of HTTP.
    status: AtomicU16,
    /// It has a status of gRPC, and not OK.
    refuses: AtomicBool,
}

impl Seen {
    fn look(&self, fields: &HeaderMap) {
        if fields.get("grpc-status").is_some_and(|status| status != "0") {
            self.refuses.store(true, Ordering::Relaxed);
        }
    }
}

/// The connection as tonic wants it.
struct Channel(http2::SendRequest<tonic::body::Body>, Arc<Seen>);

/// An answer's body, whose trailers are looked at.
struct Watched(Incoming, Arc<Seen>);

type Answer = Pin<Box<dyn Future<Output = Result<http::Response<Watched>, hyper::Error>> + Send>>;

impl tower::Service<http::Request<tonic::body::Body>> for Channel {
    type Response = http::Response<Watched>;
    type Error = hyper::Error;
    type Future = Answer;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), hyper::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: http::Request<tonic::body::Body>) -> Answer {
        let (answer, seen) = (self.0.send_request(request), self.1.clone());
        Box::pin(async move {
            let answer = answer.await?;
            seen.status.store(answer.status().as_u16(), Ordering::Relaxed);
            seen.look(answer.headers());
            Ok(answer.map(|body| Watched(body, seen)))
        })
    }
}

impl Body for Watched {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let frame = ready!(Pin::new(&mut self.0).poll_frame(cx));
        if let Some(Ok(frame)) = &frame
            && let Some(trailers) = frame.trailers_ref()
        {
            self.1.look(trailers);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.0.size_hint()
    }
}

/// Messages as they are.
struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Raw;
    type Decoder = Raw;

    fn encoder(&mut self) -> Raw {
        Raw
    }

    fn decoder(&mut self) -> Raw {
        Raw
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, message: Bytes, out: &mut EncodeBuf<'_>) -> Result<(), Status> {
        out.put(message);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, message: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(message.copy_to_bytes(message.remaining())))
    }
}

/// The tasks of an HTTP/2 connection stay on the thread of the spans.
#[derive(Clone)]
struct Local;

impl<F: Future + 'static> hyper::rt::Executor<F> for Local {
    fn execute(&self, future: F) {
        tokio::task::spawn_local(future);
    }
}

const PERMISSION_DENIED: i32 = 7;
const UNIMPLEMENTED: i32 = 12;
const UNAUTHENTICATED: i32 = 16;
const EXPORT: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";
/// A receiver that vanished sends no reset. Pings go out only while a request is under way.
const PING_INTERVAL: Duration = Duration::from_secs(15);
const PING_WAIT: Duration = Duration::from_secs(10);
