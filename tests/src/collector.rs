//! A receiver of spans that does what a test tells it: takes them, refuses, lies, hangs, breaks off. It speaks OTLP over
//! HTTP/1.1 or gRPC. Faults of the connection come from a door in front of the server, which passes bytes on otherwise.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderMap, Request, Response};
use http_body_util::BodyExt;
use hyper::body::{Frame, Incoming};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTracePartialSuccess, ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

use crate::origin::{Body, channel, full};
use crate::{Origin, Protocol};

pub struct Collector {
    pub address: SocketAddr,
    pub state: Rc<State>,
    _origin: Origin,
    door: JoinHandle<()>,
}

#[derive(Default)]
pub struct State {
    /// What becomes of the next requests; then they are taken.
    pub acts: RefCell<VecDeque<Act>>,
    /// What becomes of the next connections; then they are served.
    pub conducts: RefCell<VecDeque<Conduct>>,
    /// What becomes of requests for which there is no act.
    pub usual: RefCell<Act>,
    pub requests: RefCell<Vec<Received>>,
    pub connections: Cell<usize>,
    /// Spans of requests that were taken, without those that were rejected.
    pub taken: Cell<u64>,
}

/// A request that came whole.
pub struct Received {
    pub path: String,
    pub headers: HeaderMap,
    pub request: ExportTraceServiceRequest,
    pub bytes: usize,
    pub at: Instant,
}

#[derive(Clone, Debug, Default)]
pub enum Act {
    #[default]
    Take,
    /// Taken but for so many.
    Partial(i64, &'static str),
    /// Taken after a while.
    Late(Duration),
    Hang,
    /// Over HTTP: a status, header fields and a body.
    Answer(u16, Vec<(&'static str, String)>, &'static [u8]),
    /// Over gRPC: a status, and the details beside it.
    Status(u32, Vec<u8>),
    /// Over gRPC: OK, with a message that is none.
    Message(&'static [u8]),
}

/// What a connection meets at the door.
#[derive(Clone, Debug)]
pub enum Conduct {
    Serve,
    /// Reads a little, says this, and resets the connection.
    Cut(&'static [u8]),
    /// Takes the connection and does nothing.
    Deaf,
    /// Reads a little, says the first, and then the second again and again with a pause between.
    Endless(&'static [u8], &'static [u8], Duration),
}

impl Collector {
    pub async fn start(protocol: Protocol) -> Self {
        Self::begin(protocol, None).await
    }

    pub async fn secure(acceptor: TlsAcceptor) -> Self {
        Self::begin(Protocol::Http1, Some(acceptor)).await
    }

    async fn begin(protocol: Protocol, acceptor: Option<TlsAcceptor>) -> Self {
        let state = Rc::new(State::default());
        let serving = state.clone();
        let handler = move |request| serve(serving.clone(), request);
        let origin = match acceptor {
            Some(acceptor) => Origin::secure(acceptor, handler).await,
            None => Origin::start(protocol, handler).await,
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let address = listener.local_addr().expect("address");
        let door = tokio::task::spawn_local(door(listener, origin.address, state.clone()));
        Self { address, state, _origin: origin, door }
    }

    /// The field of a destination that leads here.
    pub fn target(&self, protocol: Protocol, fields: &str) -> String {
        match protocol {
            Protocol::Http1 => format!("otlpHttp: {{endpoint: 'http://{}', {fields}}}", self.address),
            Protocol::Http2 => format!("otlpGrpc: {{endpoint: 'http://{}', {fields}}}", self.address),
        }
    }

    pub fn will(&self, acts: impl IntoIterator<Item = Act>) {
        self.state.acts.borrow_mut().extend(acts);
    }

    pub fn meets(&self, conducts: impl IntoIterator<Item = Conduct>) {
        self.state.conducts.borrow_mut().extend(conducts);
    }

    pub fn usually(&self, act: Act) {
        self.state.usual.replace(act);
    }

    /// Spans of all requests, taken or not.
    pub fn spans(&self) -> Vec<Span> {
        let requests = self.state.requests.borrow();
        requests.iter().flat_map(|received| spans(&received.request)).cloned().collect()
    }

    pub fn taken(&self) -> u64 {
        self.state.taken.get()
    }

    pub fn requests(&self) -> usize {
        self.state.requests.borrow().len()
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.door.abort();
    }
}

/// `google.rpc.Status` with a `RetryInfo` of so many milliseconds.
pub fn retry_info(milliseconds: u64) -> Vec<u8> {
    #[derive(prost::Message)]
    struct Status {
        #[prost(int32, tag = "1")]
        code: i32,
        #[prost(message, repeated, tag = "3")]
        details: Vec<Any>,
    }
    #[derive(prost::Message)]
    struct Any {
        #[prost(string, tag = "1")]
        type_url: String,
        #[prost(bytes = "vec", tag = "2")]
        value: Vec<u8>,
    }
    #[derive(prost::Message)]
    struct RetryInfo {
        #[prost(message, optional, tag = "1")]
        retry_delay: Option<Span>,
    }
    #[derive(prost::Message)]
    struct Span {
        #[prost(int64, tag = "1")]
        seconds: i64,
        #[prost(int32, tag = "2")]
        nanos: i32,
    }
    let delay = Span { seconds: (milliseconds / 1000) as i64, nanos: (milliseconds % 1000) as i32 * 1_000_000 };
    let value = RetryInfo { retry_delay: Some(delay) }.encode_to_vec();
    let type_url = "type.googleapis.com/google.rpc.RetryInfo".to_owned();
    Status { code: 8, details: vec![Any { type_url, value }] }.encode_to_vec()
}

fn spans(request: &ExportTraceServiceRequest) -> impl Iterator<Item = &Span> {
    request.resource_spans.iter().flat_map(|entry| &entry.scope_spans).flat_map(|entry| &entry.spans)
}

async fn serve(state: Rc<State>, request: Request<Incoming>) -> Response<Body> {
    let (head, body) = request.into_parts();
    let Ok(body) = body.collect().await else { return Response::new(full("")) };
    let body = body.to_bytes();
    let text = |name: &str| head.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
    let is_grpc = text("content-type").starts_with("application/grpc");
    let is_json = text("content-type") == "application/json";
    let zipped = text("grpc-encoding") == "gzip";
    let body = match is_grpc {
        true => message(&body),
        false if text("content-encoding") == "gzip" => unzip(&body),
        false => body.to_vec(),
    };
    let request = match is_json {
        true => serde_json::from_slice(&body).expect("OTLP/JSON"),
        false => ExportTraceServiceRequest::decode(&body[..]).expect("OTLP/protobuf"),
    };
    let count = spans(&request).count() as u64;
    let received = Received {
        path: head.uri.path().to_owned(),
        headers: head.headers,
        request,
        bytes: body.len(),
        at: Instant::now(),
    };
    state.requests.borrow_mut().push(received);
    let act = state.acts.borrow_mut().pop_front().unwrap_or_else(|| state.usual.borrow().clone());
    let rejected = match act {
        Act::Hang => std::future::pending().await,
        Act::Late(wait) => {
            tokio::time::sleep(wait).await;
            0
        }
        Act::Partial(rejected, _) => rejected,
        Act::Take => 0,
        Act::Answer(status, headers, body) => {
            let mut response = Response::builder().status(status);
            for (name, value) in headers {
                response = response.header(name, value);
            }
            return response.body(full(body)).expect("an answer");
        }
        Act::Status(status, details) => return grpc(None, status, &details),
        Act::Message(message) => return grpc(Some(message), 0, &[]),
    };
    state.taken.set(state.taken.get() + count - rejected.unsigned_abs().min(count));
    let message = if let Act::Partial(_, message) = act { message } else { "" };
    let partial = ExportTracePartialSuccess { rejected_spans: rejected, error_message: message.to_owned() };
    let answer = ExportTraceServiceResponse { partial_success: (rejected > 0).then_some(partial) };
    if is_grpc {
        return grpc_as(zipped, Some(&answer.encode_to_vec()), 0, &[]);
    }
    let (kind, body) = match is_json {
        true => ("application/json", serde_json::to_vec(&answer).expect("JSON")),
        false => ("application/x-protobuf", answer.encode_to_vec()),
    };
    Response::builder().header("content-type", kind).body(full(body)).expect("an answer")
}

/// With its prefix of five bytes, and the status in trailers.
fn grpc(message: Option<&[u8]>, status: u32, details: &[u8]) -> Response<Body> {
    grpc_as(false, message, status, details)
}

/// Some servers compress their answer as the request was.
fn grpc_as(zipped: bool, message: Option<&[u8]>, status: u32, details: &[u8]) -> Response<Body> {
    let (frames, body) = channel();
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", status.into());
    trailers.insert("grpc-message", "as told".parse().expect("a value"));
    if !details.is_empty() {
        trailers.insert("grpc-status-details-bin", base64(details).parse().expect("a value"));
    }
    if let Some(message) = message {
        let message = if zipped { zip(message) } else { message.to_vec() };
        let mut data = BytesMut::new();
        data.put_u8(zipped.into());
        data.put_u32(message.len() as u32);
        data.put_slice(&message);
        frames.try_send(Frame::data(data.freeze())).expect("room");
    }
    frames.try_send(Frame::trailers(trailers)).expect("room");
    let encoding = if zipped { "gzip" } else { "identity" };
    let response = Response::builder().header("content-type", "application/grpc").header("grpc-encoding", encoding);
    response.body(body).expect("an answer")
}

fn message(body: &Bytes) -> Vec<u8> {
    let (prefix, message) = body.split_at(5);
    assert_eq!(u32::from_be_bytes(prefix[1..].try_into().expect("four bytes")) as usize, message.len());
    if prefix[0] == 1 { unzip(message) } else { message.to_vec() }
}

fn zip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).expect("memory");
    encoder.finish().expect("memory")
}

fn unzip(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    flate2::read::GzDecoder::new(bytes).read_to_end(&mut out).expect("gzip");
    out
}

/// Without padding, as gRPC allows.
fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::new();
    for chunk in bytes.chunks(3) {
        let word = chunk.iter().fold(0, |word, byte| word << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for place in 0..=chunk.len() {
            out.push(LETTERS[(word >> (18 - 6 * place)) as usize & 63].into());
        }
    }
    out
}

async fn door(listener: TcpListener, origin: SocketAddr, state: Rc<State>) {
    loop {
        let Ok((mut stream, _)) = listener.accept().await else { continue };
        state.connections.set(state.connections.get() + 1);
        let conduct = state.conducts.borrow_mut().pop_front().unwrap_or(Conduct::Serve);
        tokio::task::spawn_local(async move {
            match conduct {
                Conduct::Serve => {
                    let Ok(mut inside) = TcpStream::connect(origin).await else { return };
                    let _ = tokio::io::copy_bidirectional(&mut stream, &mut inside).await;
                }
                Conduct::Cut(words) => {
                    let _ = stream.read(&mut [0; 64]).await;
                    let _ = stream.write_all(words).await;
                    let _ = stream.set_zero_linger();
                }
                Conduct::Deaf => {
                    let _held = stream;
                    std::future::pending::<()>().await;
                }
                Conduct::Endless(first, again, pause) => {
                    let (mut from, mut to) = stream.into_split();
                    let mut nowhere = tokio::io::sink();
                    let reading = tokio::io::copy(&mut from, &mut nowhere);
                    let saying = async {
                        to.write_all(first).await?;
                        loop {
                            to.write_all(again).await?;
                            tokio::time::sleep(pause).await;
                        }
                    };
                    let _: std::io::Result<u64> = tokio::select! { done = reading => done, gone = saying => gone };
                }
            }
        });
    }
}
