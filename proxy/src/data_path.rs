//! ★ The life of a connection and of a request, as numbered calls. It decides nothing: every decision is in the call.
//! Inbound, outbound and gateway differ in their listener's data, not in this path.

use std::net::SocketAddr;
use std::rc::Rc;

use http::header::USER_AGENT;
use http::{Request, Response};
use hyper::body::Incoming;
use tokio::net::TcpStream;

use crate::admission;
use crate::connection::Connection;
use crate::destination::{self, Destination};
use crate::exchange::{Open, RequestFacts};
use crate::http::attempts::{self, Job};
use crate::http::body::ResponseBody;
use crate::http::serve::{self, Reset};
use crate::http::{finish, grpc, headers};
use crate::sniffing::{self, Sniffed};
use crate::trail;
use crate::tunnel;
use crate::worker::Worker;
use crate::worker::listener::Listener;

/// One accepted connection, from its first byte to its last.
pub async fn connection(worker: Rc<Worker>, listener: Rc<Listener>, stream: TcpStream, peer: SocketAddr) {
    // 1. Where it wanted to go, and whether it may come in at all.
    let Some(connection) = admission::admit(worker, listener, &stream, peer) else { return };

    // 2. What it speaks. At a gateway TLS ends here.
    // Each is boxed, so that a connection takes the room of its own kind and not that of the largest.
    match Box::pin(sniffing::protocol(&connection, stream)).await {
        Sniffed::Http1(io) => Box::pin(serve::http1(connection, io)).await,
        Sniffed::Http2(io) => Box::pin(serve::http2(connection, io)).await,
        Sniffed::Secure1(io) => Box::pin(serve::http1(connection, io)).await,
        Sniffed::Secure2(io) => Box::pin(serve::http2(connection, io)).await,
        Sniffed::Opaque { io, server_name } => Box::pin(tunnel::opaque(connection, io, server_name)).await,
        Sniffed::Gone => {}
    }
}

/// One request, from its head to the head of its answer. The answer's body carries the exchange to its last byte.
pub async fn request(connection: Rc<Connection>, request: Request<Incoming>) -> Result<Response<ResponseBody>, Reset> {
    // 3. One snapshot for the whole request.
    let listener = connection.listener.clone();

    // 4. The exchange opens: clock, peer, counters.
    let open = Open::request(connection.clone(), RequestFacts::of(&request), grpc::is_grpc(request.headers()));
    let (mut parts, body) = request.into_parts();
    let upgrade = finish::take_upgrade(&mut parts);

    // 5. The head is read and cleaned; what is ambiguous is refused.
    let method = parts.method.clone();
    if let Some(flag) = admission::too_large(&connection, &parts) {
        return finish::refused(open, &method, flag, &connection);
    }
    let mut head = match connection.sound().and_then(|()| headers::read(parts, listener.underscores)) {
        Ok(head) => head,
        Err(flag) => return finish::refused(open, &method, flag, &connection),
    };
    if let Some(flag) = admission::refuses_work(&connection) {
        return finish::refused(open, &method, flag, &connection);
    }
    let client = admission::forwarded(&connection, &mut head);
    connection.withholds(head.expects_continue);

    // 6. Where it goes.
    let way = destination::of(&connection, &head);

    // 7. The trace that it belongs to, as far as this listener believes it, and whether it is kept. A name is looked up then.
    let (context, span) = trail::settle(&connection, &open, &mut head, way.to());
    if context.sampled || open.exchange().may_be_kept() {
        open.exchange().called_by(client, head.headers.get(USER_AGENT));
    }
    let to = match way.found(&connection).await {
        Destination::To(to) => to,
        Destination::Redirect(location) => return finish::redirected(open, &location, &connection),
        Destination::Refuse(flag) => return finish::refused(open, &method, flag, &connection),
    };
    to.record(&open);
    if to.is_tunnel(&head) {
        return Box::pin(tunnel::connect(open, &connection, &to, upgrade, &head)).await;
    }

    // 8. Attempts, until an answer stays.
    let job = Job {
        exchange: open.exchange(),
        upstream: &to.upstream,
        head: &head,
        policy: to.policy(),
        to_proxy: to.proxy,
        context,
        span,
    };
    let outcome = attempts::run(&job, body).await;

    // 9. The answer goes out; its last byte closes the exchange (10).
    match outcome {
        Ok(answered) => finish::answered(open, &connection, &head, answered, upgrade),
        Err(refused) => finish::failed(open, &connection, &head, refused),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::prefixed::Prefixed;

    fn size<A, B, F>(_: impl FnOnce(A, B) -> F) -> usize {
        size_of::<F>()
    }

    /// Every request in flight holds one of these; what is awaited in them must not creep in unseen.
    #[test]
    fn a_request_in_flight_stays_small() {
        let size = size(request);
        assert!(size <= 4352, "{size} bytes");
    }

    /// Ten thousand connections may lie idle, most of them in the clear and of HTTP/1.
    #[test]
    fn a_connection_that_lies_still_stays_small() {
        let task = size(|(worker, listener, stream), peer| connection(worker, listener, stream, peer));
        assert!(task <= 1536, "{task} bytes");
        let plain = size(|connection, io: Prefixed<TcpStream>| serve::http1(connection, io));
        assert!(plain <= 4096, "{plain} bytes");
    }
}
