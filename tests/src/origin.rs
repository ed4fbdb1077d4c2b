//! An HTTP server behind the proxy, with a handler that the test gives. It speaks HTTP/1.1 or HTTP/2 with prior
//! knowledge, counts its connections and requests, and lives as long as the value.

use std::cell::Cell;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::rc::Rc;

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::{HttpService, service_fn};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

use crate::Protocol;

pub type Body = UnsyncBoxBody<Bytes, Infallible>;

pub struct Origin {
    pub address: SocketAddr,
    pub connections: Rc<Cell<usize>>,
    pub requests: Rc<Cell<usize>>,
    task: JoinHandle<()>,
}

#[derive(Clone, Copy, Debug)]
pub struct Local;

impl<F: Future + 'static> hyper::rt::Executor<F> for Local {
    fn execute(&self, future: F) {
        tokio::task::spawn_local(future);
    }
}

impl Origin {
    pub async fn start<H, F>(protocol: Protocol, handler: H) -> Self
    where
        H: Fn(Request<Incoming>) -> F + 'static,
        F: Future<Output = Response<Body>> + 'static,
    {
        Self::begin(protocol, None, handler).await
    }

    /// Speaks TLS, and in it what was negotiated: HTTP/2 if that is `h2`, else HTTP/1.1.
    pub async fn secure<H, F>(acceptor: TlsAcceptor, handler: H) -> Self
    where
        H: Fn(Request<Incoming>) -> F + 'static,
        F: Future<Output = Response<Body>> + 'static,
    {
        Self::begin(Protocol::Http1, Some(acceptor), handler).await
    }

    async fn begin<H, F>(protocol: Protocol, acceptor: Option<TlsAcceptor>, handler: H) -> Self
    where
        H: Fn(Request<Incoming>) -> F + 'static,
        F: Future<Output = Response<Body>> + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let address = listener.local_addr().expect("address");
        let (connections, requests) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(0)));
        let handler = Rc::new(handler);
        let (seen, asked) = (connections.clone(), requests.clone());
        let task = tokio::task::spawn_local(async move {
            loop {
                let Ok((stream, _)) = listener.accept().await else { continue };
                stream.set_nodelay(true).expect("nodelay");
                seen.set(seen.get() + 1);
                let (handler, asked) = (handler.clone(), asked.clone());
                let service = service_fn(move |request| {
                    asked.set(asked.get() + 1);
                    let answer = handler(request);
                    async move { Ok::<_, Infallible>(answer.await) }
                });
                let acceptor = acceptor.clone();
                tokio::task::spawn_local(async move {
                    let Some(acceptor) = acceptor else { return serve(protocol, stream, service).await };
                    // A handshake that fails is seen from the other side.
                    let Ok(stream) = acceptor.accept(stream).await else { return };
                    match stream.get_ref().1.alpn_protocol() {
                        Some(b"h2") => serve(Protocol::Http2, stream, service).await,
                        _ => serve(Protocol::Http1, stream, service).await,
                    }
                });
            }
        });
        Self { address, connections, requests, task }
    }

    /// Answers every request with its own body.
    pub async fn echo(protocol: Protocol) -> Self {
        Self::start(
            protocol,
            |request| async move { Response::new(request.into_body().map_err(broken).boxed_unsync()) },
        )
        .await
    }

    /// Answers every request with this text.
    pub async fn hello(protocol: Protocol) -> Self {
        Self::start(protocol, |_| async { Response::new(full("hello")) }).await
    }
}

/// How a connection ends is seen from the other side.
async fn serve<IO, S>(protocol: Protocol, io: IO, service: S)
where
    IO: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    S: HttpService<Incoming, ResBody = Body, Error = Infallible> + 'static,
    S::Future: 'static,
{
    let io = TokioIo::new(io);
    let _ = match protocol {
        Protocol::Http1 => {
            hyper::server::conn::http1::Builder::new()
                .auto_date_header(false)
                .serve_connection(io, service)
                .with_upgrades()
                .await
        }
        Protocol::Http2 => {
            hyper::server::conn::http2::Builder::new(Local)
                .auto_date_header(false)
                .enable_connect_protocol()
                .serve_connection(io, service)
                .await
        }
    };
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.task.abort();
    }
}

pub fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).boxed_unsync()
}

pub fn empty() -> Body {
    full(Bytes::new())
}

/// A body in these pieces, with these trailers at its end.
pub fn with_trailers(pieces: &[&'static str], trailers: HeaderMap) -> Body {
    let mut frames: Vec<Result<Frame<Bytes>, Infallible>> =
        pieces.iter().map(|piece| Ok(Frame::data(Bytes::from_static(piece.as_bytes())))).collect();
    frames.push(Ok(Frame::trailers(trailers)));
    StreamBody::new(Frames(frames.into_iter())).boxed_unsync()
}

/// A body that is fed while it flows.
pub fn channel() -> (tokio::sync::mpsc::Sender<Frame<Bytes>>, Body) {
    let (sender, receiver) = tokio::sync::mpsc::channel(16);
    (sender, Fed(receiver).boxed_unsync())
}

fn broken(error: hyper::Error) -> Infallible {
    panic!("the proxy broke a request off: {error}")
}

struct Frames<I>(I);

impl<I: Iterator + Unpin> futures_core::Stream for Frames<I> {
    type Item = I::Item;

    fn poll_next(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<I::Item>> {
        std::task::Poll::Ready(self.0.next())
    }
}

struct Fed(tokio::sync::mpsc::Receiver<Frame<Bytes>>);

impl http_body::Body for Fed {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.poll_recv(cx).map(|frame| frame.map(Ok))
    }
}
