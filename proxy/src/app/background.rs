//! The background: one thread with a runtime of its own for everything that no request waits for. It starts the workers,
//! serves the admin and status pages, follows names and certificate files, watches the memory, hands the sockets to a
//! successor, and sees to the end.

use std::io;
use std::net::SocketAddr;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;
use std::sync::mpsc::SyncSender;
use std::thread;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::follow::{Publisher, follow};
use super::pushed::{self, Pushing};
use super::{Bound, Copies, Parts, Plan, Sockets, StartError, Stop, resolve, run};
use crate::admin::{self, AdminState, Command};
use crate::config::{ControlPlane, Source};
use crate::discovery::client::{self, News};
use crate::drain::Draining;
use crate::handover;
use crate::identity::reload::{self, ReloadEvent};
use crate::system::{self, budget::Budget};
use crate::telemetry::metrics::{AnyThread, Gauge, family};
use crate::trace::export::Exporter;

pub struct Background {
    pub parts: Parts,
    pub source: Option<Source>,
    pub workers: usize,
    pub orders: mpsc::Sender<Command>,
    pub inbox: mpsc::Receiver<Command>,
    pub signals: bool,
}

/// Runs to the proxy's end. `ready` hears once where it listens, or why it does not start.
pub fn run(background: Background, ready: SyncSender<Result<Bound, StartError>>) -> io::Result<()> {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            let _ = ready.send(Err(StartError::System(error)));
            return Ok(());
        }
    };
    let ended = runtime.block_on(serve(background, ready));
    // A name look-up may still hang in its thread; nobody waits for it.
    runtime.shutdown_background();
    ended
}

async fn serve(background: Background, ready: SyncSender<Result<Bound, StartError>>) -> io::Result<()> {
    match start(background).await {
        Ok((serving, bound)) => {
            let _ = ready.send(Ok(bound));
            serving.until_the_end().await
        }
        Err(error) => {
            let _ = ready.send(Err(error));
            Ok(())
        }
    }
}

fn be_pushed(parts: &Parts, control_plane: &ControlPlane, publisher: Publisher) -> Result<(), StartError> {
    let settings = pushed::settings(&parts.config, control_plane)?;
    let changes = parts.exporter.as_ref().map(Exporter::changes);
    let sampler = parts.shared.sampler.clone();
    // There is one client.
    let nobody = || StartError::System(io::Error::other("the control plane is followed twice"));
    let news = News {
        services: sampler.called().ok_or_else(nobody)?,
        captured: sampler.captured().ok_or_else(nobody)?,
    };
    let road = Pushing::new(publisher, parts.config.clone(), changes, sampler);
    tokio::spawn(client::follow(settings, road, news, parts.registry.clone()));
    Ok(())
}

/// A proxy that serves.
struct Serving {
    parts: Parts,
    copies: Copies,
    workers: Workers,
    servers: Servers,
    offer: Option<Offer>,
    /// A successor has taken the sockets.
    taken: mpsc::Receiver<()>,
    inbox: mpsc::Receiver<Command>,
    signals: Signals,
}

async fn start(background: Background) -> Result<(Serving, Bound), StartError> {
    let Background { mut parts, source, workers, orders, inbox, signals } = background;
    // First of all, so that no signal finds the proxy with connections and without ears.
    let signals = Signals::new(signals).map_err(StartError::System)?;
    let addresses = resolve::start(&parts.config, &parts.registry, RESOLVE_WAIT).await;
    // It blocks, but nothing else goes on in this thread yet.
    let mut sockets = Sockets::open(&parts.config, workers)?;
    let (bound, own) = (sockets.bound(), sockets.own());
    let lists = std::mem::take(&mut sockets.workers);
    let publisher = Publisher::new(parts.config.clone(), parts.manner.clone(), parts.shared.sampler.clone());
    let mut workers =
        Workers::spawn(&parts, &publisher, lists, &own, &addresses, workers).map_err(StartError::System)?;
    let servers =
        Servers::start(&parts, &publisher, sockets.admin, sockets.status, &orders).map_err(StartError::System)?;
    // A predecessor that hears `ready` lets go, so every worker must be at its sockets by now.
    workers.started().await.map_err(StartError::System)?;
    if let Some(confirm) = sockets.inheritance {
        confirm.ready().map_err(StartError::Handover)?;
    }
    let (tell, taken) = mpsc::channel(1);
    let offer = Offer::start(&parts, &sockets.copies, tell);
    watches(&mut parts);
    tokio::spawn(parts.shared.sampler.clone().run(parts.registry.shared()));
    match &parts.config.control_plane {
        None => drop(tokio::spawn(follow(publisher, source, parts.registry.clone()))),
        Some(control_plane) => be_pushed(&parts, control_plane, publisher)?,
    }
    let count = i64::try_from(workers.left).unwrap_or(i64::MAX);
    parts.registry.shared().gauge(family::WORKERS, &[]).set(count);
    parts.health.ready();
    let serving = Serving { parts, copies: sockets.copies, workers, servers, offer, taken, inbox, signals };
    Ok((serving, bound))
}

impl Serving {
    async fn until_the_end(mut self) -> io::Result<()> {
        let mut outcome = Ok(());
        // When what is still open is cut off; `None` before a drain.
        let mut deadline: Option<Instant> = None;
        while self.workers.left > 0 {
            let order = tokio::select! {
                result = self.workers.ended() => {
                    if result.is_err() {
                        outcome = result;
                    }
                    // A worker that ends unasked takes the proxy with it: half a proxy is worse than a restart.
                    if deadline.is_some() { continue } else { Order::Now }
                }
                order = orders(&mut self.inbox, &mut self.signals) => match (order, deadline) {
                    (Asked::Drain, Some(_)) => continue,
                    (Asked::Drain, None) | (Asked::Signal, None) => Order::Drain,
                    (Asked::Quit, _) | (Asked::Signal, Some(_)) => Order::Now,
                },
                Some(()) = self.taken.recv() => {
                    self.servers.close();
                    tracing::info!("a successor has taken over; finishing what is in flight");
                    if deadline.is_some() { continue } else { Order::Drain }
                }
                () = passed(deadline.map(|deadline| deadline + STUCK)) => {
                    outcome = Err(io::Error::other("a worker is stuck and was left behind"));
                    break;
                }
            };
            let timeout = match order {
                Order::Drain => self.parts.config.drain.timeout,
                Order::Now => Duration::ZERO,
            };
            let now = Instant::now();
            deadline = Some(now + timeout);
            self.parts.health.drain();
            self.copies.release_listeners();
            tracing::info!(?timeout, "draining");
            let idle_grace = self.parts.config.drain.idle_grace;
            self.workers.stop.send_replace(Stop::Drain(Draining { since: now, deadline: now + timeout, idle_grace }));
        }
        let cut = deadline.is_some_and(|deadline| Instant::now() >= deadline);
        if let Some(offer) = self.offer.take()
            && !cut
        {
            // A successor in mid-conversation would take our end for a failure, and give up as well.
            tokio::select! {
                () = offer.finish() => {}
                _ = orders(&mut self.inbox, &mut self.signals) => {}
            }
        }
        self.servers.finish().await;
        if let Some(exporter) = self.parts.exporter.take() {
            let least = Instant::now() + SPANS_WAIT;
            exporter.finish(deadline.map_or(least, |deadline| deadline.max(least)).into_std());
        }
        self.parts.access_log.flush(FLUSH_WAIT);
        self.parts.log.flush(FLUSH_WAIT);
        outcome
    }
}

enum Order {
    Drain,
    Now,
}

/// What somebody wants.
enum Asked {
    Drain,
    Quit,
    /// The first one drains, the second one ends.
    Signal,
}

async fn orders(inbox: &mut mpsc::Receiver<Command>, signals: &mut Signals) -> Asked {
    tokio::select! {
        Some(command) = inbox.recv() => match command {
            Command::Drain => Asked::Drain,
            Command::Quit => Asked::Quit,
        },
        () = signals.hear() => Asked::Signal,
    }
}

async fn passed(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time).await,
        None => std::future::pending().await,
    }
}

/// SIGTERM and SIGINT, where they are ours to hear.
struct Signals(Option<(Signal, Signal)>);

impl Signals {
    fn new(ours: bool) -> io::Result<Self> {
        if !ours {
            return Ok(Self(None));
        }
        Ok(Self(Some((signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?))))
    }

    async fn hear(&mut self) {
        match &mut self.0 {
            Some((terminate, interrupt)) => tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            },
            None => std::future::pending().await,
        }
    }
}

/// The threads of the workers.
struct Workers {
    left: usize,
    stop: watch::Sender<Stop>,
    up: mpsc::Receiver<()>,
    gone: mpsc::Receiver<io::Result<()>>,
}

impl Workers {
    fn spawn(
        parts: &Parts,
        publisher: &Publisher,
        lists: Vec<Vec<handover::Socket>>,
        own: &[SocketAddr],
        addresses: &resolve::Addresses,
        workers: usize,
    ) -> io::Result<Self> {
        let (stop, told) = watch::channel(Stop::No);
        let (started, up) = mpsc::channel(workers.max(1));
        let (ended, gone) = mpsc::channel(workers.max(1));
        let left = lists.len();
        for (number, sockets) in lists.into_iter().enumerate() {
            let name = format!("worker-{number}");
            let plan = Plan {
                workers,
                config: parts.config.clone(),
                sockets,
                own: own.to_vec(),
                acceptors: parts.tls.acceptors.clone(),
                tls: parts.tls.upstreams.clone(),
                addresses: addresses.clone(),
                shared: parts.shared.clone(),
                registry: parts.registry.clone(),
                access_log: parts.access_log.clone(),
                spans: parts.exporter.as_ref().map(|exporter| exporter.batches()),
                policies: publisher.subscribe(),
                heartbeat: parts.health.heartbeat(&name),
                started: started.clone(),
                stop: told.clone(),
            };
            let ended = ended.clone();
            thread::Builder::new().name(name.clone()).spawn(move || {
                // Has room for one word of each worker, and whoever does not listen has given up on them.
                let _ = ended.try_send(noticed(&name, || run::run(plan)));
            })?;
        }
        Ok(Self { left, stop, up, gone })
    }

    /// All of them accept connections; or the first that cannot.
    async fn started(&mut self) -> io::Result<()> {
        for _ in 0..self.left {
            tokio::select! {
                Some(()) = self.up.recv() => {}
                ended = self.gone.recv() => {
                    let early = || io::Error::other("a worker ended while starting");
                    return Err(ended.and_then(Result::err).unwrap_or_else(early));
                }
            }
        }
        Ok(())
    }

    /// The next one that ends. Cancel safe.
    async fn ended(&mut self) -> io::Result<()> {
        let result = self.gone.recv().await;
        self.left = self.left.saturating_sub(1);
        result.unwrap_or_else(|| Err(io::Error::other("a worker ended without a word")))
    }
}

/// Runs a worker; its panic becomes an error that names it.
fn noticed(name: &str, run: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
    // Nothing of the worker is seen again after a panic.
    match panic::catch_unwind(AssertUnwindSafe(run)) {
        Ok(result) => result,
        Err(_) => Err(io::Error::other(format!("{name} panicked; its last words stand on standard error"))),
    }
}

/// The admin and the status server.
struct Servers {
    closing: watch::Sender<bool>,
    tasks: [JoinHandle<()>; 2],
}

impl Servers {
    fn start(
        parts: &Parts,
        publisher: &Publisher,
        admin: handover::Socket,
        status: handover::Socket,
        orders: &mpsc::Sender<Command>,
    ) -> io::Result<Self> {
        let policies = publisher.subscribe();
        let state = AdminState {
            config_yaml: Arc::new(move || policies.borrow().config.to_shown_yaml()),
            log: parts.log.clone(),
            registry: parts.registry.clone(),
            health: parts.health.clone(),
            commands: orders.clone(),
        };
        let listener = |socket: handover::Socket| {
            socket.listener.set_nonblocking(true)?;
            TcpListener::from_std(socket.listener)
        };
        let (admin, status) = (listener(admin)?, listener(status)?);
        let (closing, close) = watch::channel(false);
        let tasks = [
            tokio::spawn(admin::serve_admin(admin, state.clone(), close.clone())),
            tokio::spawn(admin::serve_status(status, state, close)),
        ];
        Ok(Self { closing, tasks })
    }

    /// Take no more connections and finish those that are open.
    fn close(&self) {
        self.closing.send_replace(true);
    }

    async fn finish(self) {
        self.close();
        for task in self.tasks {
            let _ = tokio::time::timeout(SERVERS_WAIT, task).await;
        }
    }
}

/// The sockets, held out to a successor.
struct Offer {
    task: JoinHandle<()>,
    enough: oneshot::Sender<()>,
}

impl Offer {
    fn start(parts: &Parts, copies: &Copies, taken: mpsc::Sender<()>) -> Option<Self> {
        let path = parts.config.handover.socket.clone()?;
        let copies = copies.clone();
        let handovers = parts.registry.shared();
        let (enough, end) = oneshot::channel();
        let task = tokio::spawn(async move {
            let duplicate = move || copies.duplicate();
            let on_taken = move || {
                handovers.counter(family::HANDOVERS, &["predecessor", "ok"]).add(1);
                let _ = taken.try_send(());
            };
            let end = async move {
                let _ = end.await;
            };
            if let Err(error) = handover::serve(&path, duplicate, on_taken, end).await {
                tracing::error!("no successor can take over: {error}");
            }
        });
        Some(Self { task, enough })
    }

    /// Ends when no conversation is under way; each of its steps has a limit.
    async fn finish(self) {
        drop(self.enough);
        let _ = self.task.await;
    }
}

/// What goes on beside the traffic until the end.
fn watches(parts: &mut Parts) {
    system::process::show(&parts.registry);
    let memory = parts.memory.clone();
    tokio::spawn(memory.run(system::cgroup::Cgroup::own(), parts.config.limits.memory_percent, parts.registry.clone()));
    let registry = parts.registry.shared();
    tokio::spawn(held(parts.shared.pipes.clone(), registry.gauge(family::SPLICE_PIPE_BYTES, &[])));
    tokio::spawn(held(parts.shared.windows.0.clone(), registry.gauge(family::HTTP2_WINDOW_BYTES, &[])));
    for (listener, live) in std::mem::take(&mut parts.tls.live) {
        let registry = parts.registry.clone();
        let expiry = {
            let (registry, listener, live) = (registry.clone(), listener.clone(), live.clone());
            move || {
                for (file, not_after) in live.active().expiries() {
                    let until = not_after.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
                    let name = file.display().to_string();
                    let labels = [listener.as_str(), name.as_str()];
                    registry.shared().gauge(family::CERTIFICATE_EXPIRY_SECONDS, &labels).set_duration(until);
                }
            }
        };
        expiry();
        tokio::spawn(reload::watch(live, RELOAD_LOOK, move |event| {
            let outcome = match &event {
                ReloadEvent::Replaced { cert, .. } => {
                    tracing::info!(listener, file = %cert.display(), "a certificate was replaced");
                    expiry();
                    "replaced"
                }
                ReloadEvent::Refused(error) => {
                    tracing::warn!(listener, "a changed certificate is not used: {error}");
                    "refused"
                }
            };
            registry.shared().counter(family::CERTIFICATE_RELOADS, &[&listener, outcome]).add(1);
        }));
    }
}

/// Shows what is held of a budget. The workers take and give without a thought for it.
async fn held(budget: Arc<Budget>, gauge: Gauge<AnyThread>) {
    loop {
        gauge.set(i64::try_from(budget.held()).unwrap_or(i64::MAX));
        tokio::time::sleep(BUDGET_LOOK).await;
    }
}

/// Names are looked up this long before the first request is served without them.
const RESOLVE_WAIT: Duration = Duration::from_secs(5);
/// Kubernetes takes a minute or more to bring a changed secret into a pod; this adds little.
const RELOAD_LOOK: Duration = Duration::from_secs(2);
const BUDGET_LOOK: Duration = Duration::from_secs(1);
/// Spans that are handed over have this long to be sent, also when requests used up the time to drain.
const SPANS_WAIT: Duration = Duration::from_secs(1);
const FLUSH_WAIT: Duration = Duration::from_secs(5);
/// Answers of the two servers that are on their way: longer than a server lingers for a request.
const SERVERS_WAIT: Duration = Duration::from_millis(1500);
/// A worker that has not ended so long after its last connection was cut never will.
const STUCK: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_that_panics_is_noticed_by_its_name() {
        let error = noticed("worker-1", || panic!("on purpose")).unwrap_err();
        assert!(error.to_string().starts_with("worker-1 panicked"), "{error}");
        assert!(noticed("worker-1", || Ok(())).is_ok());
    }
}
