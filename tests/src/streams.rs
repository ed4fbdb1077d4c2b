//! Origins and clients that need what an HTTP server does not offer: to reset, to refuse, to limit, to stall, to close
//! at a chosen point. HTTP/2 is h2's own server; HTTP/1.1 is read from the wire.

use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use h2::RecvStream;
use h2::server::{Connection, SendResponse};
use http::{Request, Response};
use socket2::SockRef;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::JoinHandle;

use crate::{Protocol, Wire};

/// A request as a scripted origin sees it, with the means to answer or to break.
pub struct Asked {
    pub method: String,
    pub path: String,
    pub body: Bytes,
    /// The number of the connection, from 0.
    pub connection: usize,
    reply: Reply,
}

enum Reply {
    Http1(Rc<tokio::sync::Mutex<Option<Wire>>>),
    Http2(SendResponse<Bytes>),
}

/// An origin that reads each request whole and then does what the script says, in HTTP/1.1 or HTTP/2.
pub struct Scripted {
    pub address: SocketAddr,
    pub connections: Rc<Cell<usize>>,
    pub open: Rc<Cell<usize>>,
    task: JoinHandle<()>,
}

impl Drop for Scripted {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Scripted {
    pub async fn start<H, F>(protocol: Protocol, handler: H) -> Self
    where
        H: Fn(Asked) -> F + 'static,
        F: Future<Output = ()> + 'static,
    {
        Self::with(protocol, None, handler).await
    }

    /// With this limit of streams on each HTTP/2 connection.
    pub async fn with<H, F>(protocol: Protocol, streams: Option<u32>, handler: H) -> Self
    where
        H: Fn(Asked) -> F + 'static,
        F: Future<Output = ()> + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
        Self::on(listener, protocol, streams, handler)
    }

    pub fn on<H, F>(listener: TcpListener, protocol: Protocol, streams: Option<u32>, handler: H) -> Self
    where
        H: Fn(Asked) -> F + 'static,
        F: Future<Output = ()> + 'static,
    {
        let address = listener.local_addr().expect("address");
        let (connections, open) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(0)));
        let handler = Rc::new(handler);
        let (count, opened) = (connections.clone(), open.clone());
        let task = tokio::task::spawn_local(async move {
            loop {
                let Ok((stream, _)) = listener.accept().await else { continue };
                stream.set_nodelay(true).expect("nodelay");
                let number = count.replace(count.get() + 1);
                let handler = handler.clone();
                let held = Held::new(&opened);
                tokio::task::spawn_local(async move {
                    match protocol {
                        Protocol::Http1 => serve_http1(stream, number, &*handler).await,
                        Protocol::Http2 => serve_http2(stream, number, streams, &*handler).await,
                    }
                    drop(held);
                });
            }
        });
        Self { address, connections, open, task }
    }
}

impl Asked {
    /// Answers with this status and body, and goes on with the connection.
    pub async fn answer(self, status: u16, body: impl Into<Bytes>) {
        let body = if self.method == "HEAD" { Bytes::new() } else { body.into() };
        match self.reply {
            Reply::Http1(slot) => {
                if let Some(wire) = slot.lock().await.as_mut() {
                    let head = format!("HTTP/1.1 {status} Scripted\r\ncontent-length: {}\r\n\r\n", body.len());
                    let _ = wire.send(&[head.as_bytes(), &body].concat()).await;
                }
            }
            Reply::Http2(mut reply) => {
                let response = Response::builder().status(status).body(()).expect("response");
                if let Ok(mut stream) = reply.send_response(response, body.is_empty())
                    && !body.is_empty()
                {
                    let _ = stream.send_data(body, true);
                }
            }
        }
    }

    /// Answers with a head and a piece of the body, and then never goes on.
    pub async fn begin(self, piece: &'static str) {
        match self.reply {
            Reply::Http1(slot) => {
                if let Some(wire) = slot.lock().await.as_mut() {
                    let head = format!("HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n{piece}");
                    let _ = wire.send(head.as_bytes()).await;
                    wire.rest().await;
                }
            }
            Reply::Http2(mut reply) => {
                if let Ok(mut stream) = reply.send_response(Response::new(()), false) {
                    let _ = stream.send_data(Bytes::from_static(piece.as_bytes()), false);
                    let _ = std::future::poll_fn(|cx| stream.poll_reset(cx)).await;
                }
            }
        }
    }

    /// A head and a piece, and then a reset.
    pub async fn break_off(self, piece: &'static str) {
        match self.reply {
            Reply::Http1(slot) => {
                if let Some(mut wire) = slot.lock().await.take() {
                    let head = format!("HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n{piece}");
                    let _ = wire.send(head.as_bytes()).await;
                    wire.taken().await;
                    wire.reset();
                }
            }
            Reply::Http2(mut reply) => {
                if let Ok(mut stream) = reply.send_response(Response::new(()), false) {
                    let _ = stream.send_data(Bytes::from_static(piece.as_bytes()), false);
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    stream.send_reset(h2::Reason::INTERNAL_ERROR);
                }
            }
        }
    }

    /// Resets the stream with this reason, or the connection in HTTP/1.1.
    pub async fn reset(self, reason: h2::Reason) {
        match self.reply {
            Reply::Http1(slot) => {
                if let Some(wire) = slot.lock().await.take() {
                    wire.reset();
                }
            }
            Reply::Http2(mut reply) => reply.send_reset(reason),
        }
    }

    /// Never answers; ends when the proxy gives up.
    pub async fn ignore(self) {
        match self.reply {
            Reply::Http1(slot) => {
                if let Some(wire) = slot.lock().await.as_mut() {
                    wire.rest().await;
                }
            }
            Reply::Http2(mut reply) => {
                let _ = std::future::poll_fn(|cx| reply.poll_reset(cx)).await;
            }
        }
    }
}

async fn serve_http1<H, F>(stream: TcpStream, connection: usize, handler: &H)
where
    H: Fn(Asked) -> F,
    F: Future<Output = ()> + 'static,
{
    let slot = Rc::new(tokio::sync::Mutex::new(Some(Wire::from(stream))));
    loop {
        let asked = {
            let mut guard = slot.lock().await;
            let Some(wire) = guard.as_mut() else { return };
            let Some((method, path, body)) = read_http1(wire).await else { return };
            drop(guard);
            Asked { method, path, body, connection, reply: Reply::Http1(slot.clone()) }
        };
        handler(asked).await;
    }
}

/// A whole request with its body, or `None` at the connection's end.
pub async fn read_http1(wire: &mut Wire) -> Option<(String, String, Bytes)> {
    let head = wire.try_until("\r\n\r\n").await?;
    let mut words = head.split(' ');
    let (method, path) = (words.next()?.to_owned(), words.next()?.to_owned());
    let field = |name: &str| {
        head.lines().find_map(|line| {
            let (field, value) = line.split_once(':')?;
            field.eq_ignore_ascii_case(name).then(|| value.trim().to_owned())
        })
    };
    let mut body = Vec::new();
    if let Some(length) = field("content-length") {
        body = wire.try_exactly(length.parse().ok()?).await?;
    } else if field("transfer-encoding").is_some() {
        loop {
            let line = wire.try_until("\r\n").await?;
            let size = usize::from_str_radix(line.trim(), 16).ok()?;
            body.extend(wire.try_exactly(size).await?);
            wire.try_exactly(2).await?;
            if size == 0 {
                break;
            }
        }
    }
    Some((method, path, body.into()))
}

async fn serve_http2<H, F>(stream: TcpStream, number: usize, streams: Option<u32>, handler: &H)
where
    H: Fn(Asked) -> F,
    F: Future<Output = ()> + 'static,
{
    let mut builder = h2::server::Builder::new();
    if let Some(streams) = streams {
        builder.max_concurrent_streams(streams);
    }
    let Ok(mut connection): Result<Connection<TcpStream, Bytes>, _> = builder.handshake(stream).await else { return };
    let (finished, mut finish) = tokio::sync::mpsc::unbounded_channel::<(Request<Bytes>, SendResponse<Bytes>)>();
    loop {
        tokio::select! {
            accepted = connection.accept() => {
                let Some(Ok((request, reply))) = accepted else { return };
                let finished = finished.clone();
                tokio::task::spawn_local(async move {
                    let (parts, body) = request.into_parts();
                    if let Some(body) = read_http2(body).await {
                        let _ = finished.send((Request::from_parts(parts, body), reply));
                    }
                });
            }
            Some((request, reply)) = finish.recv() => {
                let asked = Asked {
                    method: request.method().to_string(),
                    path: request.uri().path().to_owned(),
                    body: request.into_body(),
                    connection: number,
                    reply: Reply::Http2(reply),
                };
                tokio::task::spawn_local(handler(asked));
            }
        }
    }
}

/// A body to its end, giving back the window as it comes.
pub async fn read_http2(mut body: RecvStream) -> Option<Bytes> {
    let mut whole = Vec::new();
    while let Some(data) = body.data().await {
        let data = data.ok()?;
        let _ = body.flow_control().release_capacity(data.len());
        whole.extend_from_slice(&data);
    }
    Some(whole.into())
}

/// An address that neither accepts nor refuses: a listener whose queue is full.
pub struct BlackHole {
    pub address: SocketAddr,
    _listener: TcpListener,
    _queued: Vec<TcpStream>,
}

impl BlackHole {
    pub async fn new() -> Self {
        let socket = TcpSocket::new_v4().expect("socket");
        socket.bind("127.0.0.1:0".parse().expect("address")).expect("bind");
        let listener = socket.listen(0).expect("listen");
        let address = listener.local_addr().expect("address");
        let mut queued = Vec::new();
        while let Ok(Ok(stream)) = tokio::time::timeout(Duration::from_millis(200), TcpStream::connect(address)).await {
            queued.push(stream);
            assert!(queued.len() < 16, "the queue never fills");
        }
        Self { address, _listener: listener, _queued: queued }
    }
}

/// An address where nobody listens.
pub async fn nobody() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").await.expect("bind").local_addr().expect("address")
}

/// Makes the end of a connection a reset.
pub fn reset_at_close(stream: &TcpStream) {
    SockRef::from(stream).set_linger(Some(Duration::ZERO)).expect("linger");
}

/// One up now, one down when dropped.
struct Held(Rc<Cell<usize>>);

impl Held {
    fn new(count: &Rc<Cell<usize>>) -> Self {
        count.set(count.get() + 1);
        Self(count.clone())
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}
