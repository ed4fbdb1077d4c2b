//! The thread of a worker: builds what the worker owns, accepts until it is told to stop, and ends when its last
//! connection has. The plan comes from `app` and is plain data, because nothing of a worker may cross threads.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use rand::SeedableRng;
use rand::rngs::SmallRng;
use tokio::net::TcpStream;
use tokio::runtime::{Builder, LocalOptions, LocalRuntime};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;

use super::listener::Listener;
use super::policy::Policies;
use super::upstreams::{self, ORIGINAL, Plain, Upstreams};
use super::{Clock, Drain, LocalAddresses, Pipes, Worker};
use crate::admin::Heartbeat;
use crate::config::{self, Config};
use crate::data_path;
use crate::drain::Draining;
use crate::handover::Socket;
use crate::http::client::{Settings, Tls};
use crate::http::pool::{Times, Upstream};
use crate::http::replay::Buffers;
use crate::http::stalled::Answers;
use crate::http::uploads::Waited;
use crate::meters::Meters;
use crate::net::listen::{AcceptError, Acceptor};
use crate::rules::matcher::{Matcher, PatternError, Patterns};
use crate::rules::retry;
use crate::rules::route::Route;
use crate::shared::Shared;
use crate::system::files::Descriptors;
use crate::telemetry::access_log::AccessLog;
use crate::telemetry::metrics::{Registry, family};
use crate::trace::export::{Batches, SpanBuffer};

/// What a worker is made from.
pub struct Plan {
    pub workers: usize,
    pub config: Arc<Config>,
    pub sockets: Vec<Socket>,
    pub own: Vec<SocketAddr>,
    /// TLS of each listener that ends it, by the listener's name.
    pub acceptors: HashMap<String, TlsAcceptor>,
    pub tls: HashMap<String, Arc<Tls>>,
    /// The addresses of each configured upstream, by its name.
    pub addresses: HashMap<String, watch::Receiver<Arc<[SocketAddr]>>>,
    pub shared: Shared,
    pub registry: Registry,
    pub access_log: AccessLog,
    pub spans: Option<Batches>,
    pub policies: watch::Receiver<Arc<Policies>>,
    pub heartbeat: Heartbeat,
    /// Hears once that this worker accepts.
    pub started: mpsc::Sender<()>,
    pub stop: watch::Receiver<Stop>,
}

/// What a worker is told.
#[derive(Clone, Copy, Debug)]
pub enum Stop {
    No,
    /// Accept no more, and finish what is open. Said again, it moves the deadline up.
    Drain(Draining),
}

/// Runs to the end of the worker's last connection. Blocks its thread.
pub fn run(plan: Plan) -> io::Result<()> {
    let runtime = Builder::new_current_thread().enable_all().build_local(LocalOptions::default())?;
    to_the_end(runtime, serve(plan))
}

fn to_the_end<T>(runtime: LocalRuntime, work: impl Future<Output = T>) -> T {
    let ended = runtime.block_on(work);
    // A name look-up may still hang in its thread; nobody waits for it.
    runtime.shutdown_background();
    ended
}

async fn serve(plan: Plan) -> io::Result<()> {
    let Plan { sockets, heartbeat, started, mut stop, .. } = plan;
    let plan = Plan { sockets: Vec::new(), heartbeat, started: started.clone(), stop: stop.clone(), ..plan };
    let (worker, listeners, active) = build(&plan)?;
    let Plan { heartbeat, mut policies, .. } = plan;
    let carried = Rc::new(Cell::new(0));
    let mut accepting = JoinSet::new();
    for socket in sockets {
        let Some(listener) = listeners.get(&socket.name) else { continue };
        let door = Door { worker: worker.clone(), listener: listener.clone(), carried: carried.clone() };
        accepting.spawn_local(door.accept(Acceptor::new(socket.listener)?, stop.clone()));
    }
    // Has room for one word of each worker.
    let _ = started.try_send(());
    let mut look = tokio::time::interval(SECOND);
    let (mut alone, mut following) = (false, true);
    loop {
        tokio::select! {
            _ = look.tick() => {
                let now = Instant::now();
                heartbeat.beat(now);
                worker.look(now);
                worker.meters.tasks(tokio::runtime::Handle::current().metrics().num_alive_tasks());
            }
            changed = stop.changed(), if !alone => {
                let order = *stop.borrow_and_update();
                match (changed, order) {
                    (Ok(()), Stop::No) => continue,
                    (Ok(()), Stop::Drain(draining)) => worker.drain.begin(draining),
                    (Err(_), _) => {
                        // The app is gone: end as if told, at once.
                        alone = true;
                        let now = Instant::now();
                        worker.drain.begin(Draining { since: now, deadline: now, idle_grace: Duration::ZERO });
                    }
                }
                look = tokio::time::interval(DRAIN_LOOK);
            }
            changed = policies.changed(), if following => {
                following = changed.is_ok();
                adopt(&policies.borrow_and_update(), &listeners);
                continue;
            }
            // A listener that nobody accepts from: half a proxy is worse than none.
            Some(Err(error)) = accepting.join_next() => return Err(io::Error::other(error)),
        }
        let Some(phase) = worker.drain.phase() else { continue };
        let done = accepting.is_empty() && carried.get() == 0 && active.get() == 0;
        if done || Instant::now() > phase.deadline + CUT_WAIT {
            return Ok(());
        }
    }
}

/// Requests that begin from now on go by these policies.
fn adopt(policies: &Policies, listeners: &HashMap<String, Rc<Listener>>) {
    for listener in listeners.values() {
        listener.policy.replace(policies.held(&listener.name));
    }
}

/// What a connection passes when it comes in.
struct Door {
    worker: Rc<Worker>,
    listener: Rc<Listener>,
    /// Tasks of connections, counted from the accept on, when nothing else knows of them yet.
    carried: Rc<Cell<usize>>,
}

impl Door {
    /// Accepts on one socket until the worker drains.
    async fn accept(self, mut acceptor: Acceptor, mut stop: watch::Receiver<Stop>) {
        loop {
            tokio::select! {
                accepted = acceptor.accept() => match accepted {
                    Ok((stream, peer)) => self.carry(stream, peer),
                    Err(error) => {
                        let meters = &self.worker.meters;
                        meters.shard().counter(family::ACCEPT_ERRORS, &[error.name()]).add(1);
                        if error != AcceptError::Gone {
                            tracing::warn!(listener = self.listener.name, "accepting failed: {error}");
                        }
                    }
                },
                changed = stop.changed() => {
                    if changed.is_ok() {
                        // Closing a listener resets what waits in its queue, so the queue is emptied first. Also with
                        // a successor, which may have no use for this listener.
                        for (stream, peer) in acceptor.drain().unwrap_or_default() {
                            self.carry(stream, peer);
                        }
                    }
                    return;
                }
            }
        }
    }

    fn carry(&self, stream: TcpStream, peer: SocketAddr) {
        let (worker, listener) = (self.worker.clone(), self.listener.clone());
        let carried = Carried::new(&self.carried);
        tokio::task::spawn_local(async move {
            let _carried = carried;
            data_path::connection(worker, listener, stream, peer).await;
        });
    }
}

struct Carried(Rc<Cell<usize>>);

impl Carried {
    fn new(count: &Rc<Cell<usize>>) -> Self {
        count.set(count.get() + 1);
        Self(count.clone())
    }
}

impl Drop for Carried {
    fn drop(&mut self) {
        self.0.set(self.0.get().saturating_sub(1));
    }
}

pub type Built = (Rc<Worker>, HashMap<String, Rc<Listener>>, Rc<Cell<usize>>);

pub fn build(plan: &Plan) -> io::Result<Built> {
    let config = &plan.config;
    let limits = &config.limits;
    let meters = Meters::new(&plan.registry);
    let spans = SpanBuffer::new(plan.spans.clone(), meters.shard());
    let configured: HashMap<_, _> = config
        .upstreams
        .iter()
        .map(|upstream| (upstream.name.clone(), self::upstream(plan, upstream, &meters)))
        .collect();
    for (name, upstream) in &configured {
        if let Some(addresses) = plan.addresses.get(name) {
            upstream.resolved(&addresses.borrow());
            tokio::task::spawn_local(upstreams::follow(upstream.clone(), addresses.clone()));
        }
    }
    let windows = plan.shared.windows.clone();
    let (header_bytes, header_count) = (limits.header_bytes, limits.header_count);
    let plain = Plain { header_bytes, header_count, windows, frames: limits.frames };
    let upstreams = Upstreams::new(configured, plain, meters.upstream(&Rc::from(ORIGINAL)));
    let active = Rc::new(Cell::new(0));
    let mut listeners = HashMap::new();
    for listener in &config.listeners {
        let built = self::listener(plan, listener, &upstreams, &meters, &active)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error.to_string()))?;
        listeners.insert(listener.name.clone(), Rc::new(built));
    }
    let worker = Worker {
        limits: limits.clone(),
        shared: plan.shared.clone(),
        clock: Clock::new(),
        rng: RefCell::new(SmallRng::from_rng(&mut rand::rng())),
        drain: Drain::default(),
        meters,
        access_log: plan.access_log.clone(),
        spans,
        answers: Answers::default(),
        waited: Waited::default(),
        buffers: Buffers::new(limits.buffered_bytes.div_ceil(plan.workers)),
        descriptors: Descriptors::now(),
        upstreams,
        addresses: RefCell::new(LocalAddresses::read(Instant::now())?),
        pipes: Pipes::new(plan.shared.pipes.clone()),
        handshakes: Semaphore::new(limits.handshakes.div_ceil(plan.workers)),
        ink: RefCell::default(),
        in_flight: (config.role == config::Role::Sidecar).then(|| plan.shared.in_flight.clone()),
        interim: config.policy.interim,
        templates: RefCell::default(),
        callees: RefCell::default(),
        services: config
            .upstreams
            .iter()
            .filter_map(|upstream| Some((upstream.name.clone(), upstream.service.clone()?)))
            .collect(),
        node: config.node.clone(),
        own: plan.own.clone(),
    };
    Ok((Rc::new(worker), listeners, active))
}

fn upstream(plan: &Plan, upstream: &config::Upstream, meters: &Meters) -> Rc<Upstream> {
    let limits = &plan.config.limits;
    let name: Rc<str> = Rc::from(upstream.name.as_str());
    let meters = meters.upstream(&name);
    let settings = Settings {
        connect_timeout: upstream.connect_timeout,
        tls: plan.tls.get(&upstream.name).cloned(),
        header_bytes: limits.header_bytes,
        header_count: limits.header_count,
        windows: plan.shared.windows.clone(),
        frames: limits.frames,
        meters: meters.clone(),
    };
    Rc::new(Upstream::new(name, upstream.protocol, settings, times(upstream), meters))
}

fn times(upstream: &config::Upstream) -> Times {
    Times {
        http1_idle: upstream.idle_timeout,
        http2_idle: upstream.http2_idle_timeout,
        max_age: upstream.max_age,
        eject: upstream.eject_time,
    }
}

fn listener(
    plan: &Plan,
    listener: &config::Listener,
    upstreams: &Upstreams,
    meters: &Meters,
    active: &Rc<Cell<usize>>,
) -> Result<Listener, PatternError> {
    let routes: Result<Vec<_>, _> = listener.routes.iter().filter_map(|route| self::route(route, upstreams)).collect();
    Ok(Listener {
        name: listener.name.clone(),
        mode: listener.mode,
        transparent: listener.transparent,
        protocol: listener.protocol,
        trust: listener.trust,
        trust_clients: listener.trust_clients.clone(),
        policy: RefCell::new(plan.policies.borrow().held(&listener.name)),
        answer_trace: listener.answer_trace,
        underscores: listener.underscores,
        upstream: listener.upstream.as_deref().and_then(|name| upstreams.configured(name)),
        routes: routes?,
        tls: plan.acceptors.get(&listener.name).cloned(),
        opaque_ports: listener.opaque_ports.clone(),
        http_ports: listener.http_ports.clone(),
        detect_timeout: listener.detect_timeout,
        https_redirect: listener.https_redirect,
        trusted_hops: listener.trusted_hops,
        meters: meters.listener(&listener.name, listener.mode),
        room: plan.config.limits.connections.div_ceil(plan.workers),
        per_client: per_client(&plan.config.limits, listener.mode),
        active: active.clone(),
    })
}

/// At a gateway a client is a stranger; elsewhere one address may be a whole node, or this pod itself.
fn per_client(limits: &config::Limits, mode: config::Mode) -> Option<usize> {
    let usual = (mode == config::Mode::Gateway).then(|| limits.connections.div_ceil(CLIENTS));
    limits.connections_per_client.or(usual)
}

/// `None` for a route to an upstream that is not there, which the configuration's check has refused already.
fn route(route: &config::Route, upstreams: &Upstreams) -> Option<Result<Rc<Route<Rc<Upstream>>>, PatternError>> {
    let upstream = upstreams.configured(&route.upstream)?;
    let asked = &route.matches;
    let patterns = Patterns {
        host: asked.host.clone(),
        path: asked.path.clone(),
        path_prefix: asked.path_prefix.clone(),
        path_template: asked.path_template.clone(),
        method: asked.method.clone(),
        sni: asked.sni.clone(),
        headers: asked.headers.clone(),
    };
    Some(Matcher::compile(&patterns).map(|matches| {
        Rc::new(Route {
            name: route.name.clone(),
            matches,
            upstream,
            template: asked.path_template.as_deref().or(asked.path.as_deref()).map(Rc::from),
            timeout: route.timeout,
            idle_timeout: route.idle_timeout,
            retry: route.retry.as_ref().map(policy),
        })
    }))
}

fn policy(retry: &config::Retry) -> retry::Policy {
    retry::Policy {
        attempts: retry.attempts,
        on: retry.on.iter().map(condition).collect(),
        attempt_timeout: retry.attempt_timeout,
        backoff: retry.backoff,
        backoff_max: retry.backoff_max,
        body_limit: retry.body_limit,
    }
}

fn condition(on: &config::RetryOn) -> retry::On {
    match on {
        config::RetryOn::ConnectFailure => retry::On::ConnectFailure,
        config::RetryOn::Reset => retry::On::Reset,
        config::RetryOn::RefusedStream => retry::On::RefusedStream,
        config::RetryOn::Timeout => retry::On::Timeout,
        config::RetryOn::Status(status) => retry::On::Status(*status),
    }
}

const SECOND: Duration = Duration::from_secs(1);
/// It takes so many addresses to take every connection of a gateway, and a load balancer that hides its clients behind a
/// few addresses still has enough.
const CLIENTS: usize = 4;
/// How often a draining worker looks whether its last connection has ended.
const DRAIN_LOOK: Duration = Duration::from_millis(20);
/// Connections cut at the deadline need a moment to write down how they ended.
const CUT_WAIT: Duration = Duration::from_millis(500);

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;
    use crate::admin::Health;
    use crate::net::listen;
    use crate::system::memory::MemoryWatch;

    #[test]
    fn what_waits_is_served_even_when_the_order_to_end_is_there_before_it_is_accepted() {
        let text = "version: 1\nrole: standalone\nadmin: {address: '127.0.0.1:0'}\nstatus: {address: '127.0.0.1:0'}\n\
                    listeners:\n- {name: in, mode: outbound, address: '127.0.0.1:0', protocol: http}\n";
        let config = Arc::new(config::parse(text, "test.yaml", std::iter::empty()).unwrap());
        let listener = listen::bind("127.0.0.1:0".parse().unwrap(), false).unwrap();
        listen::listen(&listener).unwrap();
        let address = listener.local_addr().unwrap();
        let mut client = std::net::TcpStream::connect(address).unwrap();
        client.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").unwrap();

        let (order, stop) = watch::channel(Stop::No);
        let since = Instant::now();
        let deadline = since + Duration::from_secs(20);
        order.send_replace(Stop::Drain(Draining { since, deadline, idle_grace: Duration::from_secs(1) }));
        let registry = Registry::new();
        let plan = Plan {
            workers: 1,
            policies: watch::channel(Arc::new(Policies::new(config.clone()))).1,
            config,
            sockets: vec![Socket { name: "in".into(), address, listener }],
            own: vec![address],
            acceptors: HashMap::new(),
            tls: HashMap::new(),
            addresses: HashMap::new(),
            shared: Shared::new(MemoryWatch::new(), 0, 0),
            registry: registry.clone(),
            access_log: AccessLog::open(None, Default::default(), &registry).unwrap(),
            spans: None,
            heartbeat: Health::new().heartbeat("worker-0"),
            started: mpsc::channel(1).0,
            stop,
        };
        run(plan).unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 404"), "{answer}");
    }

    #[test]
    fn a_look_up_that_hangs_does_not_hold_up_the_end() {
        let (release, released) = std::sync::mpsc::channel::<()>();
        let runtime = Builder::new_current_thread().enable_all().build_local(LocalOptions::default()).unwrap();
        let begun = Instant::now();
        to_the_end(runtime, async {
            let (started, starts) = tokio::sync::oneshot::channel();
            tokio::task::spawn_blocking(move || {
                let _ = started.send(());
                let _ = released.recv_timeout(60 * SECOND);
            });
            starts.await.unwrap();
        });
        assert!(begun.elapsed() < 30 * SECOND);
        drop(release);
    }
}
