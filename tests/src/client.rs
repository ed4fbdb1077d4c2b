//! A client's connection to the proxy, in HTTP/1.1 or HTTP/2.

use std::net::SocketAddr;

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use crate::Protocol;
use crate::origin::{Body, Local, empty};

pub enum Client {
    Http1(http1::SendRequest<Body>, SocketAddr),
    Http2(http2::SendRequest<Body>, SocketAddr),
}

/// An answer that was read to its end.
#[derive(Debug)]
pub struct Whole {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
    pub trailers: Option<HeaderMap>,
}

impl Client {
    pub async fn connect(protocol: Protocol, address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.expect("connect to the proxy");
        stream.set_nodelay(true).expect("nodelay");
        Self::over(protocol, stream, address).await
    }

    /// Over a connection that is there already, such as one of TLS.
    pub async fn over<IO>(protocol: Protocol, stream: IO, address: SocketAddr) -> Self
    where
        IO: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let io = TokioIo::new(stream);
        match protocol {
            Protocol::Http1 => {
                let (send, connection) = http1::handshake(io).await.expect("handshake");
                tokio::task::spawn_local(async move { drop(connection.with_upgrades().await) });
                Self::Http1(send, address)
            }
            Protocol::Http2 => {
                let (send, connection) = http2::handshake(Local, io).await.expect("handshake");
                tokio::task::spawn_local(async move { drop(connection.await) });
                Self::Http2(send, address)
            }
        }
    }

    /// A request in this connection's form: the path is enough for the target.
    pub fn request(&self, method: &str, path: &str) -> http::request::Builder {
        let builder = Request::builder().method(method);
        match self {
            Self::Http1(_, address) => builder.uri(path).header("host", address.to_string()),
            Self::Http2(_, address) => builder.uri(format!("http://{address}{path}")),
        }
    }

    pub async fn send(&mut self, request: Request<Body>) -> Result<Response<Incoming>, hyper::Error> {
        match self {
            Self::Http1(send, _) => {
                send.ready().await?;
                send.send_request(request).await
            }
            Self::Http2(send, _) => {
                send.ready().await?;
                send.send_request(request).await
            }
        }
    }

    /// Whether the connection takes no more requests.
    pub fn is_closed(&self) -> bool {
        match self {
            Self::Http1(send, _) => send.is_closed(),
            Self::Http2(send, _) => send.is_closed(),
        }
    }

    pub async fn get(&mut self, path: &str) -> Whole {
        let request = self.request("GET", path).body(empty()).expect("request");
        whole(self.send(request).await.expect("an answer")).await.expect("a whole answer")
    }

    pub async fn whole(&mut self, request: Request<Body>) -> Whole {
        whole(self.send(request).await.expect("an answer")).await.expect("a whole answer")
    }
}

/// Reads an answer to its end.
pub async fn whole(response: Response<Incoming>) -> Result<Whole, hyper::Error> {
    let (parts, body) = response.into_parts();
    let collected = body.collect().await?;
    let trailers = collected.trailers().cloned();
    Ok(Whole { status: parts.status, headers: parts.headers, body: collected.to_bytes(), trailers })
}
