//! The application behind the proxies: one thread that answers from prepared bytes and checks what it is sent.

pub mod http1;
mod http2;
mod spans;
pub mod tcp;

use std::io;
use std::net::{SocketAddr, TcpListener};

use crate::Broken;
use crate::output::Output;
use crate::poll::Poll;
use crate::stream::Stream;

/// What is spoken on one connection.
pub trait Server {
    fn receive(&mut self, input: &[u8], out: &mut Output) -> Result<(), Broken>;

    /// Whether the connection ends once all is sent.
    fn closes(&self) -> bool {
        false
    }
}

#[derive(Clone, Copy)]
pub enum Speaks {
    Http1,
    Http2,
    Tcp,
    /// A receiver of spans.
    Spans,
}

/// The sockets, bound and listening.
pub struct Origin {
    listeners: Vec<(TcpListener, Speaks)>,
}

impl Origin {
    pub fn bind(addresses: &[(SocketAddr, Speaks)]) -> io::Result<Self> {
        let mut listeners = Vec::new();
        for (address, speaks) in addresses {
            let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)?;
            socket.set_reuse_address(true)?;
            socket.set_nonblocking(true)?;
            socket.bind(&(*address).into())?;
            socket.listen(4096)?;
            listeners.push((TcpListener::from(socket), *speaks));
        }
        Ok(Self { listeners })
    }

    pub fn addresses(&self) -> io::Result<Vec<SocketAddr>> {
        self.listeners.iter().map(|(listener, _)| listener.local_addr()).collect()
    }

    /// Serves for ever.
    pub fn run(self) -> io::Result<()> {
        let mut poll = Poll::new()?;
        for (index, (listener, _)) in self.listeners.iter().enumerate() {
            poll.add(listener, LISTENER + index as u64, false)?;
        }
        let mut connections: Vec<Option<Connection>> = Vec::new();
        let mut free = Vec::new();
        let mut buffer = vec![0; 256 * 1024];
        loop {
            for index in 0..poll.wait(None)? {
                let (token, writable) = poll.event(index);
                if token >= LISTENER {
                    let Some((listener, speaks)) = self.listeners.get((token - LISTENER) as usize) else { continue };
                    while let Ok((socket, _)) = listener.accept() {
                        socket.set_nonblocking(true)?;
                        socket.set_nodelay(true)?;
                        let place = free.pop().unwrap_or_else(|| {
                            connections.push(None);
                            connections.len() - 1
                        });
                        poll.add(&socket, place as u64, false)?;
                        connections[place] = Some(Connection::new(Stream::Plain(socket), *speaks));
                    }
                    continue;
                }
                let place = token as usize;
                let Some(connection) = connections.get_mut(place).and_then(Option::as_mut) else { continue };
                match connection.turn(&mut buffer, writable) {
                    Ok(true) => {
                        let writes = !connection.out.is_empty();
                        if writes != connection.writes {
                            connection.writes = writes;
                            poll.change(&connection.stream, token, writes)?;
                        }
                    }
                    ended => {
                        if let Err(error) = ended {
                            eprintln!("origin: {error}");
                        }
                        connections[place] = None;
                        free.push(place);
                    }
                }
            }
        }
    }
}

struct Connection {
    stream: Stream,
    server: Box<dyn Server>,
    out: Output,
    writes: bool,
}

impl Connection {
    fn new(stream: Stream, speaks: Speaks) -> Self {
        let server: Box<dyn Server> = match speaks {
            Speaks::Http1 => Box::<http1::Http1>::default(),
            Speaks::Http2 => Box::<http2::Http2>::default(),
            Speaks::Tcp => Box::<tcp::Tcp>::default(),
            Speaks::Spans => Box::<spans::Spans>::default(),
        };
        Self { stream, server, out: Output::default(), writes: false }
    }

    /// Reads, answers, sends. `false`: it is over.
    fn turn(&mut self, buffer: &mut [u8], writable: bool) -> Result<bool, Broken> {
        // What is still to be sent comes first: the other side may be waiting for it and send nothing.
        if writable && self.out.send(&mut self.stream).is_err() {
            return Ok(false);
        }
        let (server, out) = (&mut self.server, &mut self.out);
        // One that was reset is as gone as one that was closed: the products end their connections as they like.
        match self.stream.receive(buffer, |bytes| server.receive(bytes, out)) {
            Ok(Ok(true)) => {}
            Ok(Err(broken)) => return Err(broken),
            Ok(Ok(false)) | Err(_) => return Ok(false),
        }
        Ok(self.out.send(&mut self.stream).is_ok() && !(self.server.closes() && self.out.is_empty()))
    }
}

const LISTENER: u64 = 1 << 32;
