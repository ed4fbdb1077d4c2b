//! Bytes that nobody here reads: opaque connections, CONNECT, and what follows a switch of protocols. A tunnel carries
//! an exchange like a request does, and ends by an end of file each way, a reset, silence, or the drain's deadline.

use std::io;
use std::pin::pin;
use std::rc::Rc;

use http::{Response, StatusCode, Version};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep};

use crate::config::Mode;
use crate::connection::Connection;
use crate::destination::{self, Destination, To};
use crate::error::Flag;
use crate::exchange::Open;
use crate::http::body::ResponseBody;
use crate::http::client::{self, ConnectFailure, Lease, Raw};
use crate::http::finish;
use crate::http::headers::Head;
use crate::http::serve::Reset;
use crate::net::copy::{self, CopyEnd, CopyWatch, Ended, Side};
use crate::net::prefixed::Prefixed;
use crate::rules::balance::{self, InFlight, Pick};
use crate::rules::health;
use crate::telemetry::metrics::Held;
use crate::trace::context;
use crate::trail;

/// A connection that is no HTTP.
pub async fn opaque(connection: Rc<Connection>, io: Prefixed<TcpStream>, server_name: Option<String>) {
    let open = Open::bytes(connection.clone());
    trail::begin(&open);
    let to = match destination::of_bytes(&connection, server_name.as_deref()) {
        Destination::To(to) => to,
        Destination::Redirect(_) => return open.fail(Flag::NoRoute),
        Destination::Refuse(flag) => return open.fail(flag),
    };
    to.record(&open);
    let (upstream, _in_flight) = match reach(&open, &to).await {
        Ok(reached) => reached,
        Err(failure) => {
            tracing::debug!(flag = failure.flag.name(), "{}", failure.text);
            return open.fail(failure.flag);
        }
    };
    let mut watch = CopyWatch::new(open.exchange().idle_timeout());
    if io.prefix().is_empty() {
        // Handed on before the client had said anything: who speaks first is worth remembering.
        let told = connection.clone();
        let target = connection.original.unwrap_or(connection.local);
        watch = watch.on_first(move |side: Side| {
            told.worker.shared.spoke_first(target, side, Instant::now());
        });
    }
    match upstream {
        Raw::Plain(stream) => {
            let pipes = &connection.worker.pipes;
            carry(open, &connection, &watch, copy::copy_tcp(io, stream, &watch, pipes)).await;
        }
        Raw::Secure(stream) => {
            let mut io = io;
            let copied = async {
                let end = copy::copy(&mut io, *stream, &watch).await;
                if end.is_abrupt() {
                    // A socket that is gone already cannot be told, and need not be.
                    let _ = io.stream().set_zero_linger();
                }
                end
            };
            carry(open, &connection, &watch, copied).await;
        }
    }
}

/// CONNECT: the tunnel begins when the upstream is reached.
pub async fn connect(
    open: Open,
    connection: &Rc<Connection>,
    to: &To,
    upgrade: Option<OnUpgrade>,
    head: &Head,
) -> Result<Response<ResponseBody>, Reset> {
    let (upstream, in_flight) = match reach(&open, to).await {
        Ok(reached) => reached,
        Err(failure) => return finish::refused(open, &head.method, failure.flag, connection),
    };
    let Some(upgrade) = upgrade else {
        return finish::refused(open, &head.method, Flag::BadRequest, connection);
    };
    open.exchange().answered(StatusCode::OK, None);
    connection.switched();
    let connection = connection.clone();
    tokio::task::spawn_local(async move {
        let _in_flight = in_flight;
        let Ok(client) = upgrade.await else { return drop(open) };
        let client = TokioIo::new(client);
        let watch = CopyWatch::new(open.exchange().idle_timeout());
        match upstream {
            Raw::Plain(stream) => carry(open, &connection, &watch, copy::copy(client, stream, &watch)).await,
            Raw::Secure(stream) => carry(open, &connection, &watch, copy::copy(client, *stream, &watch)).await,
        }
    });
    Ok(Response::new(ResponseBody::none()))
}

/// Both sides have switched protocols. The lease keeps the upstream's connection counted until the end.
pub fn upgraded(open: Open, connection: &Rc<Connection>, lease: Lease, ours: OnUpgrade, theirs: OnUpgrade) {
    let connection = connection.clone();
    tokio::task::spawn_local(async move {
        let _connection = (lease.version() != Version::HTTP_2).then(|| lease.endpoint().meters.connection());
        let _lease = lease;
        let (Ok(client), Ok(upstream)) = (ours.await, theirs.await) else { return drop(open) };
        let watch = CopyWatch::new(open.exchange().idle_timeout());
        let copied = copy::copy(TokioIo::new(client), TokioIo::new(upstream), &watch);
        carry(open, &connection, &watch, copied).await;
    });
}

/// Copies to the end, or to the drain's deadline, and closes the exchange with what it saw.
async fn carry(open: Open, connection: &Connection, watch: &CopyWatch, copied: impl Future<Output = CopyEnd>) {
    let moved = watch.moved();
    let drain = &connection.worker.drain;
    let (exchange, interim) = (open.exchange(), connection.worker.interim);
    let flag = {
        let mut copied = pin!(copied);
        loop {
            tokio::select! {
                end = &mut copied => match flag(&end) {
                    // The HTTP/2 connection that carries this tunnel was cut a moment before.
                    Flag::ClientReset if drain.is_over(Instant::now()) => break Flag::Draining,
                    flag => break flag,
                },
                () = drain.over() => break Flag::Draining,
                () = sleep(interim), if !interim.is_zero() => {
                    exchange.lives(moved.up.get(), moved.down.get(), Instant::now());
                }
            }
        }
    };
    exchange.sent(usize::try_from(moved.up.get()).unwrap_or(usize::MAX));
    exchange.received(usize::try_from(moved.down.get()).unwrap_or(usize::MAX));
    open.end(flag, Instant::now());
}

fn flag(end: &CopyEnd) -> Flag {
    if end.up == Ended::Idle || end.down == Ended::Idle {
        return Flag::IdleTimeout;
    }
    // Many TLS peers leave without a word once the other side has said its last.
    let left = Ended::Error(io::ErrorKind::UnexpectedEof);
    if [(Ended::Eof, left), (left, Ended::Eof)].contains(&(end.up, end.down)) {
        return Flag::Ok;
    }
    match (end.is_abrupt(), end.first) {
        (true, Some(Side::Client)) => Flag::ClientReset,
        (true, _) => Flag::UpstreamReset,
        (false, _) => Flag::Ok,
    }
}

/// A connection to one of the upstream's endpoints. Nothing was sent yet, so each endpoint may be tried once.
async fn reach(open: &Open, to: &To) -> Result<(Raw, (InFlight, Held)), ConnectFailure> {
    let worker = open.exchange().connection().worker.clone();
    let endpoints = to.upstream.endpoints();
    let mut tried = Vec::new();
    let mut last = ConnectFailure { flag: Flag::NoHealthyEndpoint, text: "the upstream has no address".into() };
    while tried.len() < endpoints.len().min(MAX_TRIES) {
        let pick = balance::pick(&endpoints, &tried, Instant::now(), &mut *worker.rng.borrow_mut());
        let Pick::Endpoint(index) = pick else { break };
        let Some(pooled) = endpoints.get(index) else { break };
        tried.push(index);
        let own = open.exchange().connection().listener.mode == Mode::Gateway;
        let span = match open.exchange().trace() {
            Some((_, span)) if tried.len() == 1 && !own => span,
            _ => context::random_span(&mut *worker.rng.borrow_mut()),
        };
        open.exchange().attempt(pooled.address(), to.upstream.settings.tls.is_some(), span, Instant::now());
        let in_flight = (pooled.endpoint.enter(), pooled.meters.connection());
        match client::raw(pooled.address(), &to.upstream.settings).await {
            Ok((stream, made)) => {
                open.exchange().leased(Some(made), Instant::now());
                health::succeeded(&pooled.endpoint);
                return Ok((stream, in_flight));
            }
            Err(failure) => {
                to.upstream.connect_failed(pooled, failure.flag);
                open.exchange().attempt_ended(failure.flag);
                open.exchange().explain(failure.text.clone());
                last = failure;
            }
        }
    }
    Err(last)
}

/// As many endpoints as an opaque connection tries before it gives up.
const MAX_TRIES: usize = 3;
