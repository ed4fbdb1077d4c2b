//! HTTP/2 spoken by hand: a client and an origin that choose their own resets, interim heads and pieces.

use std::net::SocketAddr;
use std::rc::Rc;

use bytes::Bytes;
use h2::RecvStream;
use h2::client::SendRequest;
use h2::server::SendResponse;
use http::Request;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// A client's connection; its task ends with the runtime.
pub async fn connect(address: SocketAddr) -> SendRequest<Bytes> {
    let stream = TcpStream::connect(address).await.expect("connect");
    stream.set_nodelay(true).expect("nodelay");
    let (send, connection) = h2::client::handshake(stream).await.expect("handshake");
    tokio::task::spawn_local(async move { drop(connection.await) });
    send.ready().await.expect("ready")
}

/// An origin whose handler has each stream to itself.
pub struct StreamOrigin {
    pub address: SocketAddr,
    task: JoinHandle<()>,
}

impl StreamOrigin {
    pub async fn start<H, F>(handler: H) -> Self
    where
        H: Fn(Request<RecvStream>, SendResponse<Bytes>) -> F + 'static,
        F: Future<Output = ()> + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let address = listener.local_addr().expect("address");
        let handler = Rc::new(handler);
        let task = tokio::task::spawn_local(async move {
            loop {
                let Ok((stream, _)) = listener.accept().await else { continue };
                stream.set_nodelay(true).expect("nodelay");
                let handler = handler.clone();
                tokio::task::spawn_local(async move {
                    let mut builder = h2::server::Builder::new();
                    builder.enable_connect_protocol();
                    let Ok(mut connection) = builder.handshake::<_, Bytes>(stream).await else { return };
                    while let Some(Ok((request, respond))) = connection.accept().await {
                        tokio::task::spawn_local(handler(request, respond));
                    }
                });
            }
        });
        Self { address, task }
    }
}

impl Drop for StreamOrigin {
    fn drop(&mut self) {
        self.task.abort();
    }
}
