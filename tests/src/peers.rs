//! Peers of the push protocol that do as a test says, to the byte where it wants: a proxy that follows a control plane, and
//! a control plane that a proxy follows. gRPC by hand over h2, so that both can lie.

use std::net::SocketAddr;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use h2::{RecvStream, SendStream};
use http::{HeaderMap, Request, Response};
use prost::Message;
use spanmesh_proto::v1;
use spanmesh_proto::v1::from_proxy::Message as From;
use spanmesh_proto::v1::to_proxy::Message as To;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::PATIENCE;
use crate::certificates::handshake;

/// How a stream ended, as gRPC says it; -1 where it does not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    pub code: i32,
    pub message: String,
}

/// A proxy.
pub struct Follower {
    out: SendStream<Bytes>,
    answer: Option<h2::client::ResponseFuture>,
    messages: Option<Messages>,
    connection: JoinHandle<()>,
}

impl Follower {
    /// Over a connection in clear text.
    pub async fn connect(address: SocketAddr) -> Self {
        Self::over(TcpStream::connect(address).await.expect("connect")).await.expect("a stream")
    }

    pub async fn secured(address: SocketAddr, connector: &TlsConnector) -> Self {
        let stream = TcpStream::connect(address).await.expect("connect");
        Self::over(handshake(connector, "localhost", stream).await.expect("a handshake")).await.expect("a stream")
    }

    pub async fn over<Io: AsyncRead + AsyncWrite + Send + Unpin + 'static>(io: Io) -> Result<Self, h2::Error> {
        let (client, connection) = h2::client::handshake(io).await?;
        let connection = tokio::spawn(async move { drop(connection.await) });
        let request = Request::post("http://control-plane/spanmesh.v1.Discovery/Follow")
            .header("content-type", "application/grpc")
            .header("te", "trailers");
        let mut client = client.ready().await?;
        let (answer, out) = client.send_request(request.body(()).expect("a request"), false)?;
        Ok(Self { out, answer: Some(answer), messages: None, connection })
    }

    /// As a proxy of this version begins.
    pub async fn greeted(address: SocketAddr, pod: &str) -> Self {
        let mut follower = Self::connect(address).await;
        follower.send(From::Hello(hello(pod)));
        follower
    }

    pub fn send(&mut self, message: From) {
        self.send_message(&v1::FromProxy { message: Some(message) }.encode_to_vec());
    }

    /// A message whose bytes may be anything.
    pub fn send_message(&mut self, body: &[u8]) {
        self.send_bytes(framed(body));
    }

    /// Bytes of the stream, as they are. What has ended is not told here.
    pub fn send_bytes(&mut self, bytes: Bytes) {
        let _ = self.out.send_data(bytes, false);
    }

    /// No message comes after this.
    pub fn end(&mut self) {
        let _ = self.out.send_data(Bytes::new(), true);
    }

    pub async fn next(&mut self) -> Result<To, Status> {
        timeout(PATIENCE, self.listen()).await.expect("the control plane says something")
    }

    /// As long as it takes.
    pub async fn listen(&mut self) -> Result<To, Status> {
        loop {
            if let Some(answer) = self.answer.take() {
                let (head, body) = answer.await.map_err(|error| lost(&error))?.into_parts();
                if head.headers.contains_key("grpc-status") {
                    return Err(status(&head.headers));
                }
                self.messages = Some(Messages::new(body));
            }
            let messages = self.messages.as_mut().expect("an answer");
            let bytes = messages.next().await?;
            if let Some(message) = v1::ToProxy::decode(bytes).expect("a message").message {
                return Ok(message);
            }
        }
    }

    /// The next push, which is not answered yet.
    pub async fn push(&mut self) -> v1::Push {
        loop {
            match self.next().await {
                Ok(To::Push(push)) => return push,
                Ok(To::Permit(_) | To::Leave(_)) => {}
                Err(status) => panic!("{status:?}"),
            }
        }
    }

    /// The next push, acknowledged.
    pub async fn take(&mut self) -> v1::Push {
        let push = self.push().await;
        self.send(From::Ack(v1::Ack { nonce: push.nonce, version: push.version }));
        push
    }

    /// How it ends, whatever comes before.
    pub async fn ended(&mut self) -> Status {
        loop {
            if let Err(status) = self.next().await {
                return status;
            }
        }
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

/// What a proxy of the namespace `shop` says first.
pub fn hello(pod: &str) -> v1::Hello {
    v1::Hello {
        version: "scripted".into(),
        node: Some(v1::Node {
            service: "cart".into(),
            namespace: "shop".into(),
            pod: pod.into(),
            role: "sidecar".into(),
            ..v1::Node::default()
        }),
        kinds: ["policy", "destination", "thresholds", "capture"].map(str::to_owned).into(),
        ..v1::Hello::default()
    }
}

/// A control plane. Proxies that come are given out in their order.
pub struct Pulpit {
    pub address: SocketAddr,
    streams: mpsc::UnboundedReceiver<Followed>,
    task: JoinHandle<()>,
}

/// One proxy's stream, at the control plane.
pub struct Followed {
    messages: Messages,
    out: SendStream<Bytes>,
}

impl Pulpit {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("its address");
        let (tell, streams) = mpsc::unbounded_channel();
        let task = tokio::spawn(async move {
            loop {
                let Ok((socket, _)) = listener.accept().await else { return };
                let tell = tell.clone();
                tokio::spawn(async move {
                    let Ok(mut connection) = h2::server::handshake(socket).await else { return };
                    while let Some(Ok((request, mut answer))) = connection.accept().await {
                        let head = Response::builder().header("content-type", "application/grpc");
                        let Ok(out) = answer.send_response(head.body(()).expect("an answer"), false) else { return };
                        let _ = tell.send(Followed { messages: Messages::new(request.into_body()), out });
                    }
                });
            }
        });
        Self { address, streams, task }
    }

    /// The next proxy, and what it says first.
    pub async fn next(&mut self) -> (Followed, v1::Hello) {
        let mut followed = self.accept().await;
        match followed.next().await {
            Ok(From::Hello(hello)) => (followed, hello),
            other => panic!("no Hello but {other:?}"),
        }
    }

    pub async fn accept(&mut self) -> Followed {
        timeout(PATIENCE, self.streams.recv()).await.expect("a proxy comes").expect("it serves")
    }
}

impl Drop for Pulpit {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Followed {
    pub fn send(&mut self, message: To) {
        self.send_message(&v1::ToProxy { message: Some(message) }.encode_to_vec());
    }

    pub fn send_message(&mut self, body: &[u8]) {
        self.send_bytes(framed(body));
    }

    pub fn send_bytes(&mut self, bytes: Bytes) {
        let _ = self.out.send_data(bytes, false);
    }

    pub fn end(mut self, code: i32, message: &str) {
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", code.into());
        trailers.insert("grpc-message", message.parse().expect("a message"));
        let _ = self.out.send_trailers(trailers);
    }

    pub async fn next(&mut self) -> Result<From, Status> {
        loop {
            let bytes = timeout(PATIENCE, self.messages.next()).await.expect("the proxy says something")?;
            if let Some(message) = v1::FromProxy::decode(bytes).expect("a message").message {
                return Ok(message);
            }
        }
    }

    /// The answer to a push, whatever is reported meanwhile.
    pub async fn answer(&mut self) -> From {
        loop {
            match self.next().await.expect("an answer") {
                From::Report(_) | From::Interest(_) | From::Captured(_) => {}
                answer => return answer,
            }
        }
    }

    pub async fn report(&mut self) -> v1::Report {
        loop {
            if let From::Report(report) = self.next().await.expect("a report") {
                return report;
            }
        }
    }
}

/// Messages of a stream.
struct Messages {
    body: RecvStream,
    buffer: BytesMut,
}

impl Messages {
    fn new(body: RecvStream) -> Self {
        Self { body, buffer: BytesMut::new() }
    }

    async fn next(&mut self) -> Result<Bytes, Status> {
        loop {
            let length = self.buffer.get(1..HEAD).map(|mut bytes| bytes.get_u32() as usize);
            if let Some(length) = length.filter(|length| self.buffer.len() >= HEAD + length) {
                self.buffer.advance(HEAD);
                return Ok(self.buffer.split_to(length).freeze());
            }
            match self.body.data().await {
                Some(Ok(data)) => {
                    let _ = self.body.flow_control().release_capacity(data.len());
                    self.buffer.extend_from_slice(&data);
                }
                Some(Err(error)) => return Err(lost(&error)),
                None => {
                    let trailers = self.body.trailers().await.map_err(|error| lost(&error))?;
                    return Err(status(&trailers.unwrap_or_default()));
                }
            }
        }
    }
}

fn framed(body: &[u8]) -> Bytes {
    let mut bytes = BytesMut::with_capacity(HEAD + body.len());
    bytes.put_u8(0);
    bytes.put_u32(body.len() as u32);
    bytes.extend_from_slice(body);
    bytes.freeze()
}

fn status(headers: &HeaderMap) -> Status {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    Status { code: text("grpc-status").parse().unwrap_or(-1), message: text("grpc-message").replace("%20", " ") }
}

fn lost(error: &h2::Error) -> Status {
    Status { code: -1, message: error.to_string() }
}

/// Of a message of gRPC: whether it is compressed, and its length.
const HEAD: usize = 5;
