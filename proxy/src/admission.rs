//! Who may come in. An inbound listener is no open proxy: it forwards only to an address of its own pod. Nothing is
//! forwarded to a listener of this proxy, which would go round in circles. What is turned away opens and closes an
//! exchange like everything else, so that it is counted and logged. Limits of connections, heads and requests are asked here.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;
use std::rc::Rc;

use http::request::Parts;
use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::config::Mode;
use crate::connection::Connection;
use crate::error::Flag;
use crate::exchange::Open;
use crate::http::headers::{self, Head};
use crate::limit::Limit;
use crate::net;
use crate::net::original_dst::original_dst;
use crate::net::own_ends;
use crate::rules::forwarded::{self, Arrival};
use crate::worker::Worker;
use crate::worker::listener::Listener;

pub fn admit(
    worker: Rc<Worker>,
    listener: Rc<Listener>,
    stream: &TcpStream,
    peer: SocketAddr,
) -> Option<Rc<Connection>> {
    let local = net::canonical(stream.local_addr().ok()?);
    let peer = net::canonical(peer);
    let original = if listener.transparent { original_dst(stream).ok().flatten() } else { None };
    listener.opened();
    let connection = Rc::new(Connection::new(worker, listener, peer, local, original));
    let refused = over(&connection, stream).map(|limit| limited(&connection, limit)).or_else(|| refusal(&connection));
    match refused {
        None => Some(connection),
        Some(flag) => {
            connection.listener.meters.refused(flag.name());
            Open::bytes(connection).fail(flag);
            None
        }
    }
}

/// The limit that one connection more would exceed.
fn over(connection: &Connection, stream: &TcpStream) -> Option<Limit> {
    let Connection { worker, listener, peer, .. } = connection;
    if worker.shared.is_overloaded() {
        return Some(Limit::Memory);
    }
    if listener.is_full() {
        return Some(Limit::Connections);
    }
    if worker.descriptors.is_scarce(stream.as_fd()) {
        return Some(Limit::Descriptors);
    }
    if let Some(most) = listener.per_client {
        match worker.shared.clients.admit(peer.ip(), most) {
            Some(place) => connection.counted(place),
            None => return Some(Limit::ConnectionsPerClient),
        }
    }
    None
}

fn limited(connection: &Connection, limit: Limit) -> Flag {
    connection.worker.meters.limited(limit);
    limit.flag().unwrap_or(Flag::Overload)
}

fn refusal(connection: &Connection) -> Option<Flag> {
    let Connection { worker, listener, original, .. } = connection;
    let Some(original) = original else {
        // Straight to a transparent listener: there is nowhere to send it, unless the configuration says so.
        return (listener.transparent && listener.upstream.is_none() && listener.routes.is_empty())
            .then_some(Flag::Denied);
    };
    if worker.is_own(*original) {
        return Some(Flag::Denied);
    }
    // Only on the way out: a pod that calls itself comes in from its own outbound side.
    if listener.mode == Mode::Outbound && own_ends::is_own(connection.peer, *original) {
        tracing::debug!(%original, "this proxy's own connection came back; the redirect rules must let its user pass");
        return Some(Flag::Denied);
    }
    if listener.mode == Mode::Inbound && !worker.addresses.borrow_mut().contains(original.ip(), Instant::now()) {
        return Some(Flag::Denied);
    }
    None
}

/// Whether a head is more than may be read.
pub fn too_large(connection: &Connection, parts: &Parts) -> Option<Flag> {
    headers::exceeds(parts, &connection.worker.limits).map(|limit| limited(connection, limit))
}

/// Whether new requests are turned away, also on connections that were let in earlier.
pub fn refuses_work(connection: &Connection) -> Option<Flag> {
    let worker = &connection.worker;
    if worker.shared.is_overloaded() {
        return Some(limited(connection, Limit::Memory));
    }
    let ahead = !connection.http2.get() && connection.ahead() > worker.limits.pipelined;
    ahead.then(|| limited(connection, Limit::Pipelined))
}

/// A gateway tells the application where a request came from, and takes away what strangers claim about it. Returns whom
/// the request is from.
pub fn forwarded(connection: &Connection, head: &mut Head) -> Option<IpAddr> {
    if connection.listener.mode != Mode::Gateway {
        return None;
    }
    let arrival = Arrival {
        peer: connection.peer.ip(),
        scheme: if connection.tls.get() { "https" } else { "http" },
        authority: head.host.as_ref().and_then(|host| host.to_str().ok()).unwrap_or_default(),
    };
    Some(forwarded::apply(&mut head.headers, &arrival, connection.listener.trusted_hops))
}
