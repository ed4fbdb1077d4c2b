//! HTTP in its smallest form, for what runs on loopback and for query APIs: one request on one connection, and a server
//! whose handler gets whole requests. Sizes and times are bounded.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Body, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

pub type Answer = Response<UnsyncBoxBody<Bytes, Infallible>>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    Http1,
    /// In clear text, without asking.
    Http2,
}

/// An answer that came whole.
pub struct Whole {
    pub head: http::response::Parts,
    pub body: Bytes,
    pub trailers: HeaderMap,
}

#[derive(Clone, Copy, Debug)]
struct Local;

impl<F: Future + 'static> hyper::rt::Executor<F> for Local {
    fn execute(&self, future: F) {
        tokio::task::spawn_local(future);
    }
}

/// Asks once, on a connection of its own.
pub async fn ask<B>(address: SocketAddr, version: Version, request: Request<B>, patience: Duration) -> io::Result<Whole>
where
    B: Body<Data = Bytes, Error = Infallible> + Unpin + 'static,
{
    let asked = async { converse(TcpStream::connect(address).await?, version, request).await };
    timeout(patience, asked).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

/// Asks once under TLS, in HTTP/1.1. The server has to show a certificate for this name that this machine trusts.
pub async fn ask_securely<B>(
    address: SocketAddr,
    name: &str,
    request: Request<B>,
    patience: Duration,
) -> io::Result<Whole>
where
    B: Body<Data = Bytes, Error = Infallible> + Unpin + 'static,
{
    let name = ServerName::try_from(name.to_owned()).map_err(io::Error::other)?;
    let connector = TlsConnector::from(Arc::new(trust()?));
    let asked = async {
        let stream = connector.connect(name, TcpStream::connect(address).await?).await?;
        converse(stream, Version::Http1, request).await
    };
    timeout(patience, asked).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

/// The roots of this machine.
fn trust() -> io::Result<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        return Err(io::Error::other("this machine has no root certificates; SSL_CERT_FILE can name a file of them"));
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    Ok(builder.map_err(io::Error::other)?.with_root_certificates(roots).with_no_client_auth())
}

async fn converse<IO, B>(stream: IO, version: Version, request: Request<B>) -> io::Result<Whole>
where
    IO: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    B: Body<Data = Bytes, Error = Infallible> + Unpin + 'static,
{
    let io = TokioIo::new(stream);
    let response = match version {
        Version::Http1 => {
            let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.map_err(io::Error::other)?;
            tokio::task::spawn_local(connection);
            sender.send_request(request).await.map_err(io::Error::other)?
        }
        Version::Http2 => {
            let handshake = hyper::client::conn::http2::handshake(Local, io).await;
            let (mut sender, connection) = handshake.map_err(io::Error::other)?;
            tokio::task::spawn_local(connection);
            sender.send_request(request).await.map_err(io::Error::other)?
        }
    };
    let (head, body) = response.into_parts();
    let collected = Limited::new(body, LARGEST).collect().await.map_err(io::Error::other)?;
    let trailers = collected.trailers().cloned().unwrap_or_default();
    Ok(Whole { head, body: collected.to_bytes(), trailers })
}

/// Serves until dropped. `handler` gets whole requests; one that is too large is answered with 413.
pub async fn serve<H, F>(listener: TcpListener, version: Version, handler: H)
where
    H: Fn(Request<Bytes>) -> F + Clone + 'static,
    F: Future<Output = Answer> + 'static,
{
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            // Out of descriptors, most likely: to try again at once would only burn time.
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        // It only costs a little time where this fails.
        let _ = stream.set_nodelay(true);
        let handler = handler.clone();
        let service = service_fn(move |request: Request<Incoming>| {
            let handler = handler.clone();
            async move {
                let (head, body) = request.into_parts();
                Ok::<_, Infallible>(match Limited::new(body, LARGEST).collect().await {
                    Ok(body) => handler(Request::from_parts(head, body.to_bytes())).await,
                    Err(_) => answer(413, "text/plain", "the request is too large or broke off\n"),
                })
            }
        });
        let io = TokioIo::new(stream);
        tokio::task::spawn_local(async move {
            // How a connection ends is the other side's business.
            let _ = match version {
                Version::Http1 => hyper::server::conn::http1::Builder::new().serve_connection(io, service).await,
                Version::Http2 => hyper::server::conn::http2::Builder::new(Local).serve_connection(io, service).await,
            };
        });
    }
}

pub fn answer(status: u16, kind: &'static str, body: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(full(body));
    *answer.status_mut() = http::StatusCode::from_u16(status).unwrap_or(http::StatusCode::INTERNAL_SERVER_ERROR);
    answer.headers_mut().insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static(kind));
    answer
}

pub fn full(body: impl Into<Bytes>) -> UnsyncBoxBody<Bytes, Infallible> {
    Full::new(body.into()).boxed_unsync()
}

/// OTLP allows requests of 64 MiB; a trace in JSON may be as large.
const LARGEST: usize = 64 << 20;
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
