//! OTLP over gRPC: tonic writes and reads the messages, which are encoded already, over an HTTP/2 connection of ours that
//! is made anew every 5 to 10 minutes.

use std::error::Error;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::{Buf, BufMut, Bytes};
use http::Uri;
use http::uri::PathAndQuery;
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
        // Go's servers compress their answers as the request was.
        let mut client = Client::with_origin(Channel(connection.send.clone()), self.origin.clone())
            .accept_compressed(CompressionEncoding::Gzip);
        if self.gzip {
            client = client.send_compressed(CompressionEncoding::Gzip);
        }
        client.ready().await.map_err(|error| Failure::Lost(error.to_string()))?;
        let mut request = tonic::Request::new(envelope.wrap(parcel));
        request.set_timeout(timeout);
        let mut headers = http::HeaderMap::new();
        self.fields.write(&mut headers, Instant::now());
        headers.entry(http::header::USER_AGENT).or_insert(super::http::AGENT);
        for (name, value) in headers.iter() {
            request.metadata_mut().as_mut().append(name, value.clone());
        }
        let outcome = match client.unary(request, PathAndQuery::from_static(EXPORT), Raw).await {
            Ok(answer) => answer::protobuf(answer.get_ref())
                .ok_or_else(|| Failure::Garbled("answers with a message that is not OTLP's".into())),
            Err(status) => Err(failure(&status)),
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

/// A status that has a cause was made here and not by the receiver, which did not answer then.
fn failure(status: &Status) -> Failure {
    if let Some(cause) = status.source() {
        let deeper = cause.source().map(|cause| format!(": {cause}")).unwrap_or_default();
        return Failure::Lost(format!("{cause}{deeper}"));
    }
    let text = answer::shown(status.message().as_bytes());
    Failure::Grpc { code: status.code() as i32, wait: answer::retry_info(status.details()), text }
}

/// The connection as tonic wants it.
struct Channel(http2::SendRequest<tonic::body::Body>);

type Answer = Pin<Box<dyn Future<Output = Result<http::Response<Incoming>, hyper::Error>> + Send>>;

impl tower::Service<http::Request<tonic::body::Body>> for Channel {
    type Response = http::Response<Incoming>;
    type Error = hyper::Error;
    type Future = Answer;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), hyper::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: http::Request<tonic::body::Body>) -> Answer {
        Box::pin(self.0.send_request(request))
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

const EXPORT: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";
/// A receiver that vanished sends no reset. Pings go out only while a request is under way.
const PING_INTERVAL: Duration = Duration::from_secs(15);
const PING_WAIT: Duration = Duration::from_secs(10);
