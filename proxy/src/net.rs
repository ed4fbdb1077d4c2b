//! Sockets and bytes below HTTP: accept, find out where a connection was going, find out what is spoken on it, connect
//! onwards, and move bytes that nobody here reads.
//!
//! Nothing in here knows routes, configuration or metrics: the data path calls it and counts what it answers.

pub mod client_hello;
pub mod connect;
pub mod copy;
pub mod detect;
pub mod frames;
pub mod listen;
pub mod original_dst;
pub mod own_ends;
pub mod prefixed;
pub mod server_first;
pub mod sniff;

use std::{net::SocketAddr, time::Duration};

use socket2::TcpKeepalive;

/// IPv4 peers of a dual-stack socket appear as `::ffff:a.b.c.d`; everywhere else they are what they are.
pub fn canonical(address: SocketAddr) -> SocketAddr {
    match address.ip().to_canonical() {
        ip if ip == address.ip() => address,
        ip => SocketAddr::new(ip, address.port()),
    }
}

/// A peer that vanished without a word is noticed after a minute: 30 s of silence, then three probes 10 s apart. Thirty
/// seconds also keep the connection alive in NAT tables, of which the strictest in use forget after a minute.
fn keepalive() -> TcpKeepalive {
    TcpKeepalive::new().with_time(KEEPALIVE).with_interval(Duration::from_secs(10)).with_retries(3)
}

const KEEPALIVE: Duration = Duration::from_secs(30);
