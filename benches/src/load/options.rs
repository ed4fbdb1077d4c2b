//! What the command line asks for.

use std::net::SocketAddr;
use std::path::PathBuf;

use super::{Client, http1, http2, tcp};
use crate::watch::Watch;

pub struct Options {
    pub target: SocketAddr,
    pub work: Work,
    pub connections: usize,
    pub streams: usize,
    /// Of one download or upload.
    pub size: u64,
    pub seconds: f64,
    pub warm: f64,
    /// Requests a second; 0: as many as possible.
    pub rate: f64,
    /// So many and no more; 0: as many as the time allows.
    pub requests: u64,
    /// How long connections that do nothing are left alone before memory is read.
    pub settle: f64,
    pub tls: Option<PathBuf>,
    pub watch: Watch,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Work {
    Get,
    Close,
    Post,
    Down,
    Up,
    Idle,
    Http2,
    Unary,
    Streaming,
    TcpPing,
    TcpDown,
    TcpUp,
}

impl Work {
    pub fn named(name: &str) -> Option<Self> {
        NAMES.iter().find(|(_, known)| *known == name).map(|(work, _)| *work)
    }

    pub fn alpn(self) -> &'static [u8] {
        match self {
            Self::Http2 | Self::Unary | Self::Streaming => b"h2",
            _ => b"http/1.1",
        }
    }
}

impl Options {
    pub fn new(target: SocketAddr, work: Work) -> Self {
        Self {
            target,
            work,
            connections: 1,
            streams: 1,
            size: 1 << 30,
            seconds: 1.0,
            warm: 0.5,
            rate: 0.0,
            requests: 0,
            settle: 0.0,
            tls: None,
            watch: Watch::default(),
        }
    }

    pub(super) fn client(&self) -> Box<dyn Client> {
        match self.work {
            Work::Get | Work::Idle => Box::new(http1::Http1::get()),
            Work::Close => Box::new(http1::Http1::close()),
            Work::Post => Box::new(http1::Http1::post()),
            Work::Down => Box::new(http1::Http1::down(self.size)),
            Work::Up => Box::new(http1::Http1::up(self.size)),
            Work::Http2 => Box::new(http2::Http2::new(http2::Shape::Get, self.streams, self.tls.is_some())),
            Work::Unary => Box::new(http2::Http2::new(http2::Shape::Unary, self.streams, self.tls.is_some())),
            Work::Streaming => Box::new(http2::Http2::new(http2::Shape::Streaming, self.streams, self.tls.is_some())),
            Work::TcpPing => Box::new(tcp::Ping::default()),
            Work::TcpDown => Box::new(tcp::Down::new(self.size)),
            Work::TcpUp => Box::new(tcp::Up::new(self.size)),
        }
    }
}

const NAMES: [(Work, &str); 12] = [
    (Work::Get, "get"),
    (Work::Close, "close"),
    (Work::Post, "post"),
    (Work::Down, "down"),
    (Work::Up, "up"),
    (Work::Idle, "idle"),
    (Work::Http2, "http2"),
    (Work::Unary, "unary"),
    (Work::Streaming, "streaming"),
    (Work::TcpPing, "tcp-ping"),
    (Work::TcpDown, "tcp-down"),
    (Work::TcpUp, "tcp-up"),
];
