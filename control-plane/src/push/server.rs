//! Accepts proxies: TCP, TLS where it is configured, HTTP/2, and one call of `Follow` each.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_core::Stream;
use hyper::server::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use spanmesh_proto::v1;
use spanmesh_proto::v1::discovery_server::{Discovery, DiscoveryServer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tonic::{Request, Response, Status, Streaming};

use super::registry::Counts;
use super::{Hub, stream};

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
            if let Err(error) = connection(socket, peer, tls, &handshakes, hub).await {
                tracing::debug!(%peer, %error, "a proxy's connection ended");
            }
        });
    }
}

async fn connection(
    socket: TcpStream,
    peer: SocketAddr,
    tls: Option<TlsAcceptor>,
    handshakes: &Semaphore,
    hub: Hub,
) -> io::Result<()> {
    socket.set_nodelay(true)?;
    let Some(tls) = tls else { return carry(socket, peer, hub).await };
    let secured = async {
        // A storm of them is worked off in order and not all at once.
        let _turn = handshakes.acquire().await.map_err(io::Error::other)?;
        tls.accept(socket).await
    };
    let secured = timeout(HANDSHAKE, secured).await.map_err(|_| io::ErrorKind::TimedOut)??;
    carry(secured, peer, hub).await
}

async fn carry<Io>(io: Io, peer: SocketAddr, hub: Hub) -> io::Result<()>
where
    Io: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = DiscoveryServer::new(Follower { hub, peer })
        .max_decoding_message_size(LARGEST)
        .max_encoding_message_size(LARGEST_PUSH);
    http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .keep_alive_interval(PING)
        .keep_alive_timeout(PONG)
        .max_concurrent_streams(STREAMS)
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(WINDOW)
        .max_send_buf_size(SEND)
        .max_header_list_size(HEADERS)
        .serve_connection(TokioIo::new(io), TowerToHyperService::new(service))
        .await
        .map_err(io::Error::other)
}

struct Follower {
    hub: Hub,
    peer: SocketAddr,
}

#[tonic::async_trait]
impl Discovery for Follower {
    type FollowStream = Answers;

    async fn follow(&self, request: Request<Streaming<v1::FromProxy>>) -> Result<Response<Answers>, Status> {
        let (out, answers) = mpsc::channel(ANSWERS);
        let task = tokio::spawn(stream::run(self.hub.clone(), request.into_inner(), out, self.peer.to_string()));
        Ok(Response::new(Answers { messages: answers, task }))
    }
}

/// What goes to the proxy. The stream's task ends with it.
pub struct Answers {
    messages: mpsc::Receiver<Result<v1::ToProxy, Status>>,
    task: tokio::task::JoinHandle<()>,
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
    }
}

const CONNECTIONS: usize = 20_000;
/// A handshake takes a millisecond of a core; more at once than a few only wait for each other.
const HANDSHAKES: usize = 64;
const HANDSHAKE: Duration = Duration::from_secs(30);
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
