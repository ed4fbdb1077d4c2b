//! Accepts proxies: TCP, TLS where it is configured, HTTP/2, and one call of `Follow` each.

use std::error::Error;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_core::Stream;
use hyper::server::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use rustls::server::Acceptor;
use spanmesh_proto::v1;
use spanmesh_proto::v1::discovery_server::{Discovery, DiscoveryServer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::timeout;
use tokio_rustls::server::TlsStream;
use tokio_rustls::{LazyConfigAcceptor, TlsAcceptor};
use tonic::{Request, Response, Status, Streaming};

use super::registry::Counts;
use super::{Hub, PATIENCE, stream};

/// Serves until dropped.
pub async fn serve(listener: TcpListener, tls: Option<TlsAcceptor>, hub: Hub) {
    let handshakes = Arc::new(Semaphore::new(HANDSHAKES));
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let (socket, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of file descriptors, as a rule: wait for one instead of spinning.
                tracing::warn!(%error, "cannot accept a proxy");
                tokio::time::sleep(REST).await;
                continue;
            }
        };
        let Ok(place) = places.clone().try_acquire_owned() else {
            Counts::add(&hub.registry.counts.turned_away, 1);
            continue;
        };
        let (tls, hub, handshakes) = (tls.clone(), hub.clone(), handshakes.clone());
        tokio::spawn(async move {
            let _place = place;
            let registry = hub.registry.clone();
            match connection(socket, peer, tls, &handshakes, hub).await {
                Ok(()) => {}
                Err(Ended::Unserved(reason)) => {
                    Counts::add(&registry.counts.failed, 1);
                    registry.complaints.say(peer, reason);
                }
                // Such as a probe that only looks whether somebody listens.
                Err(Ended::Gone) => {}
                Err(Ended::Served(error)) => tracing::debug!(%peer, %error, "a proxy's connection ended"),
            }
        });
    }
}

/// How a connection ended.
enum Ended {
    /// Before there was a stream, and why.
    Unserved(String),
    /// As before, but it was the peer who left.
    Gone,
    Served(hyper::Error),
}

impl Ended {
    fn unserved(error: &(dyn Error + 'static)) -> Self {
        let causes = || std::iter::successors(Some(error), |&error| error.source());
        let mut kinds = causes().filter_map(|cause| cause.downcast_ref::<io::Error>()).map(io::Error::kind);
        if kinds
            .any(|kind| matches!(kind, ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset | ErrorKind::BrokenPipe))
        {
            return Self::Gone;
        }
        let mut said: Vec<String> = causes().map(ToString::to_string).collect();
        said.dedup();
        Self::Unserved(said.join(": "))
    }
}

async fn connection(
    socket: TcpStream,
    peer: SocketAddr,
    tls: Option<TlsAcceptor>,
    handshakes: &Semaphore,
    hub: Hub,
) -> Result<(), Ended> {
    // It fails where the peer has gone already; that is seen soon.
    let _ = socket.set_nodelay(true);
    let Some(tls) = tls else { return carry(socket, peer, hub).await };
    let secured = timeout(HANDSHAKE, secure(socket, &tls, handshakes)).await;
    let secured = secured.unwrap_or_else(|_| Err(io::Error::other("the TLS handshake did not end in time")));
    carry(secured.map_err(|error| Ended::unserved(&error))?, peer, hub).await
}

/// A storm of handshakes is worked off in order and not all at once. Whoever has not spoken has no turn yet, and whoever
/// stands still loses it.
async fn secure(socket: TcpStream, tls: &TlsAcceptor, handshakes: &Semaphore) -> io::Result<TlsStream<TcpStream>> {
    let hello = timeout(PATIENCE, LazyConfigAcceptor::new(Acceptor::default(), socket)).await;
    let hello = hello.map_err(|_| io::Error::other("did not begin a TLS handshake in time"))?;
    let hello = hello.map_err(|error| io::Error::new(error.kind(), format!("is no client of TLS: {error}")))?;
    let turn = handshakes.acquire().await.map_err(io::Error::other)?;
    let mut rest = std::pin::pin!(hello.into_stream(tls.config().clone()));
    let secured = match timeout(TURN, &mut rest).await {
        Ok(secured) => secured,
        Err(_) => {
            drop(turn);
            rest.await
        }
    };
    secured.map_err(|error| {
        let hint =
            "; does the proxy trust the authority of this control plane's certificate, by controlPlane.rootFile?";
        let hint = if error.kind() == ErrorKind::InvalidData { hint } else { "" };
        io::Error::new(error.kind(), format!("the TLS handshake failed: {error}{hint}"))
    })
}

async fn carry<Io>(io: Io, peer: SocketAddr, hub: Hub) -> Result<(), Ended>
where
    Io: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let streams = Arc::new(Streams::default());
    let service = DiscoveryServer::new(Follower { hub, peer, streams: streams.clone() })
        .max_decoding_message_size(LARGEST)
        .max_encoding_message_size(LARGEST_PUSH);
    let connection = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .keep_alive_interval(PING)
        .keep_alive_timeout(PONG)
        .max_concurrent_streams(STREAMS)
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(WINDOW)
        .max_send_buf_size(SEND)
        .max_header_list_size(HEADERS)
        .serve_connection(TokioIo::new(io), TowerToHyperService::new(service));
    let mut connection = std::pin::pin!(connection);
    loop {
        tokio::select! {
            ended = &mut connection => return match ended {
                Err(error) if streams.ever.load(Relaxed) == 0 => Err(Ended::unserved(&error)),
                ended => ended.map_err(Ended::Served),
            },
            // Who stands still takes a place from others.
            () = tokio::time::sleep(PATIENCE) => match (streams.open.load(Relaxed), streams.ever.load(Relaxed)) {
                (0, 0) => return Err(Ended::Unserved("did not begin a stream in time".into())),
                (0, _) => return Ok(()),
                _ => {}
            },
        }
    }
}

/// Of one connection.
#[derive(Default)]
struct Streams {
    open: AtomicU32,
    ever: AtomicU32,
}

struct Follower {
    hub: Hub,
    peer: SocketAddr,
    streams: Arc<Streams>,
}

#[tonic::async_trait]
impl Discovery for Follower {
    type FollowStream = Answers;

    async fn follow(&self, request: Request<Streaming<v1::FromProxy>>) -> Result<Response<Answers>, Status> {
        let (out, answers) = mpsc::channel(ANSWERS);
        let task = tokio::spawn(stream::run(self.hub.clone(), request.into_inner(), out, self.peer.to_string()));
        self.streams.ever.fetch_add(1, Relaxed);
        self.streams.open.fetch_add(1, Relaxed);
        Ok(Response::new(Answers { messages: answers, task, streams: self.streams.clone() }))
    }
}

/// What goes to the proxy. The stream's task ends with it.
pub struct Answers {
    messages: mpsc::Receiver<Result<v1::ToProxy, Status>>,
    task: tokio::task::JoinHandle<()>,
    streams: Arc<Streams>,
}

impl Stream for Answers {
    type Item = Result<v1::ToProxy, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.messages.poll_recv(context)
    }
}

impl Drop for Answers {
    fn drop(&mut self) {
        self.task.abort();
        self.streams.open.fetch_sub(1, Relaxed);
    }
}

const CONNECTIONS: usize = 20_000;
/// A handshake takes a millisecond of a core; more at once than a few only wait for each other.
const HANDSHAKES: usize = 64;
const HANDSHAKE: Duration = Duration::from_secs(30);
/// A client that is there answers within it, also from another continent.
const TURN: Duration = Duration::from_millis(250);
const REST: Duration = Duration::from_millis(100);
const PING: Duration = Duration::from_secs(20);
const PONG: Duration = Duration::from_secs(20);
const STREAMS: u32 = 4;
const WINDOW: u32 = 64 * 1024;
const SEND: usize = 64 * 1024;
const HEADERS: u32 = 16 * 1024;
const ANSWERS: usize = 4;
/// A report of all rules and operations has some hundred KiB.
const LARGEST: usize = 1024 * 1024;
const LARGEST_PUSH: usize = 16 * 1024 * 1024;
