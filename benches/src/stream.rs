//! A socket that does not wait, in the clear or as the client of TLS.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::fd::{AsFd, BorrowedFd};

use rustls::ClientConnection;

pub enum Stream {
    Plain(TcpStream),
    Tls(Box<ClientConnection>, TcpStream),
}

impl Stream {
    /// One read of the socket, each piece handed to `each`. `false`: the other side has closed.
    pub fn receive<E>(
        &mut self,
        buffer: &mut [u8],
        mut each: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> io::Result<Result<bool, E>> {
        match self {
            Self::Plain(socket) => match socket.read(buffer) {
                Ok(0) => Ok(Ok(false)),
                Ok(count) => Ok(each(&buffer[..count]).map(|()| true)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(Ok(true)),
                Err(error) => Err(error),
            },
            Self::Tls(tls, socket) => {
                match tls.read_tls(socket) {
                    Ok(0) => return Ok(Ok(false)),
                    Ok(_) => {}
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Ok(true)),
                    Err(error) => return Err(error),
                }
                tls.process_new_packets().map_err(io::Error::other)?;
                loop {
                    match tls.reader().read(buffer) {
                        Ok(0) => return Ok(Ok(false)),
                        Ok(count) => match each(&buffer[..count]) {
                            Ok(()) => {}
                            Err(error) => return Ok(Err(error)),
                        },
                        Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Ok(true)),
                        Err(error) => return Err(error),
                    }
                }
            }
        }
    }

    pub fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.write(bytes),
            Self::Tls(tls, socket) => {
                if tls.wants_write() {
                    Self::flush_tls(tls, socket)?;
                }
                match tls.writer().write(bytes)? {
                    0 => Err(io::ErrorKind::WouldBlock.into()),
                    count => {
                        // What the socket does not take now stays in the session; `wants_write` tells.
                        match Self::flush_tls(tls, socket) {
                            Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(error),
                            _ => Ok(count),
                        }
                    }
                }
            }
        }
    }

    /// Whether the session itself has something to say, as in a handshake.
    pub fn wants_write(&self) -> bool {
        match self {
            Self::Plain(_) => false,
            Self::Tls(tls, _) => tls.wants_write(),
        }
    }

    /// Sends what the session itself has to say.
    pub fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(_) => Ok(()),
            Self::Tls(tls, socket) => match Self::flush_tls(tls, socket) {
                Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(error),
                _ => Ok(()),
            },
        }
    }

    fn flush_tls(tls: &mut ClientConnection, socket: &mut TcpStream) -> io::Result<()> {
        while tls.wants_write() {
            tls.write_tls(socket)?;
        }
        Ok(())
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Plain(socket) | Self::Tls(_, socket) => socket.as_fd(),
        }
    }
}
