//! The wiring: from a configuration to a running proxy, and from there to its end. Nothing else knows all the parts.
//! It binds before it returns and tells the addresses, so that tests run the real program on port 0.

mod background;
mod follow;
mod pushed;
mod resolve;
mod resource;
mod tls;

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tokio::sync::mpsc;

use crate::admin::{Command, Health};
use crate::config::{Config, LogTarget, Policy, Problem, Role, Source};
use crate::handover::{self, HandoverError, Inheritance, Socket};
use crate::identity::certs::CertificateError;
use crate::net::listen;
use crate::shared::Shared;
use crate::system;
use crate::telemetry::access_log::{AccessLog, Style};
use crate::telemetry::log::{self, LogControl};
use crate::telemetry::metrics::Registry;
use crate::telemetry::sink;
use crate::trace::export::Exporter;
use crate::trace::export::settings::{Destination, SettingsError};
use crate::trace::manner::Manner;
use crate::trace::redact::Redactor;
use crate::worker::run::{self, Plan, Stop};

/// A proxy that runs in threads of this process.
pub struct Running {
    pub bound: Bound,
    orders: mpsc::Sender<Command>,
    thread: JoinHandle<io::Result<()>>,
}

/// Where it listens, with the ports that the kernel chose.
#[derive(Clone, Debug)]
pub struct Bound {
    pub admin: SocketAddr,
    pub status: SocketAddr,
    pub listeners: HashMap<String, SocketAddr>,
}

/// Why it does not start, and what to do about it.
#[derive(Debug)]
pub enum StartError {
    Config(Vec<Problem>),
    Bind {
        what: String,
        address: SocketAddr,
        error: io::Error,
    },
    Certificate(CertificateError),
    Upstream {
        name: String,
        text: String,
    },
    Destination(String),
    /// The key that secrets are hashed with.
    Key(PathBuf, String),
    Handover(HandoverError),
    Log(String),
    System(io::Error),
}

impl Running {
    /// Finish what is in flight, then end.
    pub fn drain(&self) {
        // A full queue already holds the same order.
        let _ = self.orders.try_send(Command::Drain);
    }

    pub fn quit(&self) {
        let _ = self.orders.try_send(Command::Quit);
    }

    /// Waits for the end.
    pub fn wait(self) -> io::Result<()> {
        self.thread.join().unwrap_or_else(|_| Err(io::Error::other("a thread of the proxy panicked")))
    }
}

/// Starts a proxy. `signals`: SIGTERM and SIGINT drain it.
pub fn start(config: Config, signals: bool) -> Result<Running, StartError> {
    begin(config, None, signals)
}

/// Starts a proxy with a configuration that was read from there, and follows what changes in it.
pub fn start_following(config: Config, source: Source, signals: bool) -> Result<Running, StartError> {
    begin(config, Some(source), signals)
}

fn begin(config: Config, source: Option<Source>, signals: bool) -> Result<Running, StartError> {
    let registry = Registry::new();
    let log = log::start(&config.telemetry.log, sink::Target::Stderr, &registry).map_err(StartError::Log)?;
    for warning in &config.warnings {
        tracing::warn!("{warning}");
    }
    if let Err(error) = system::files::raise_open_files() {
        tracing::warn!(%error, "cannot raise the limit of open files");
    }
    let workers = config.workers.unwrap_or_else(|| system::workers(config.role != Role::Sidecar));
    let config = Arc::new(config);
    let parts = Parts::new(&config, &registry, log)?;
    let (orders, inbox) = mpsc::channel(ORDERS);
    let background = background::Background { parts, source, workers, orders: orders.clone(), inbox, signals };
    let (ready, started) = std::sync::mpsc::sync_channel(1);
    let thread = thread::Builder::new()
        .name("background".into())
        .spawn(move || background::run(background, ready))
        .map_err(StartError::System)?;
    match started.recv() {
        Ok(Ok(bound)) => Ok(Running { bound, orders, thread }),
        Ok(Err(error)) => Err(error),
        Err(_) => Err(StartError::System(io::Error::other("the background thread ended while starting"))),
    }
}

/// What the configuration becomes before a thread starts.
struct Parts {
    config: Arc<Config>,
    registry: Registry,
    log: LogControl,
    health: Health,
    access_log: AccessLog,
    exporter: Option<Exporter>,
    /// How what is seen is told, until another policy comes.
    manner: Arc<Manner>,
    tls: tls::Configured,
    shared: Shared,
    memory: system::memory::MemoryWatch,
}

impl Parts {
    fn new(config: &Arc<Config>, registry: &Registry, log: LogControl) -> Result<Self, StartError> {
        let target = match config.telemetry.access_log.target(config.role) {
            LogTarget::None => None,
            LogTarget::Stdout => Some(sink::Target::Stdout),
            LogTarget::File(path) => Some(sink::Target::File(path)),
        };
        let memory = system::memory::MemoryWatch::new();
        let style = Style {
            format: config.telemetry.access_log.format.clone(),
            requests: config.telemetry.access_log.requests(config.role),
        };
        let manner = manner(&config.policy)?;
        Ok(Self {
            access_log: AccessLog::open(target, style, registry).map_err(StartError::System)?,
            exporter: exporter(config, registry)?,
            manner,
            tls: tls::Configured::new(config)?,
            shared: Shared::new(memory.clone(), config.limits.pipe_bytes, window_bytes(config)),
            memory,
            config: config.clone(),
            registry: registry.clone(),
            log,
            health: Health::new(),
        })
    }
}

/// What the windows may promise: never more of the container than its other work can spare.
fn window_bytes(config: &Config) -> usize {
    let spare = system::cgroup::Cgroup::own().memory_limit().map(|limit| limit / WINDOW_SHARE);
    spare
        .and_then(|spare| spare.try_into().ok())
        .map_or(config.limits.window_bytes, |spare: usize| config.limits.window_bytes.min(spare))
}

/// It reads the file with the key.
fn manner(policy: &Policy) -> Result<Arc<Manner>, StartError> {
    let rules = &policy.redaction;
    let key = rules.hash_key_file.as_ref().map(|path| match std::fs::read(path) {
        Ok(key) if key.trim_ascii().is_empty() => Err(StartError::Key(path.clone(), "is empty".into())),
        Ok(key) => Ok(key.trim_ascii().to_vec()),
        Err(error) => Err(StartError::Key(path.clone(), format!("cannot be read: {error}"))),
    });
    let redactor = Redactor::new(rules, key.transpose()?.as_deref());
    Ok(Arc::new(Manner::new(policy, redactor)))
}

fn exporter(config: &Config, registry: &Registry) -> Result<Option<Exporter>, StartError> {
    // A control plane may say later where spans go.
    if config.policy.destinations.is_empty() && config.control_plane.is_none() {
        return Ok(None);
    }
    let destinations = destinations(&config.policy)?;
    let resource = resource::of(config);
    Exporter::start(destinations, resource, registry).map(Some).map_err(StartError::System)
}

fn destinations(policy: &Policy) -> Result<Vec<Destination>, StartError> {
    let destinations: Result<_, _> = policy.destinations.iter().map(Destination::new).collect();
    destinations.map_err(StartError::from)
}

/// The sockets that connections arrive on, and those of the two servers.
struct Sockets {
    /// For each worker its listeners.
    workers: Vec<Vec<Socket>>,
    admin: Socket,
    status: Socket,
    /// Copies for a successor. They must be gone before a listener's queue can be emptied.
    copies: Copies,
    inheritance: Option<handover::Confirm>,
}

#[derive(Clone, Default)]
struct Copies {
    listeners: Arc<Mutex<Vec<Socket>>>,
    /// Of the admin and the status server, which work to the end.
    servers: Arc<Vec<Socket>>,
}

impl Copies {
    fn release_listeners(&self) {
        self.listeners.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    fn duplicate(&self) -> Vec<(String, SocketAddr, OwnedFd)> {
        let listeners = self.listeners.lock().unwrap_or_else(PoisonError::into_inner);
        let duplicate = |socket: &Socket| {
            let listener = socket.listener.try_clone().ok()?;
            Some((socket.name.clone(), socket.address, OwnedFd::from(listener)))
        };
        listeners.iter().chain(self.servers.iter()).filter_map(duplicate).collect()
    }
}

impl Sockets {
    /// Takes those of a predecessor, binds the others, and listens. A socket that listens gets its share of the new
    /// connections, which a start that fails then resets. So this comes when all else is there, and no socket listens
    /// before each of them has its address.
    fn open(config: &Config, workers: usize) -> Result<Self, StartError> {
        let inheritance = match &config.handover.socket {
            Some(path) => handover::take(path, HANDOVER_WAIT).map_err(StartError::Handover)?,
            None => None,
        };
        let sockets = Self::bind(config, workers, inheritance)?;
        for socket in sockets.workers.iter().flatten().chain([&sockets.admin, &sockets.status]) {
            let failed = |error| StartError::Bind { what: socket.name.clone(), address: socket.address, error };
            listen::listen(&socket.listener).map_err(failed)?;
        }
        Ok(sockets)
    }

    fn bind(config: &Config, workers: usize, inheritance: Option<Inheritance>) -> Result<Self, StartError> {
        let (mut inherited, confirm) = match inheritance {
            Some(Inheritance { sockets, confirm }) => (sockets, Some(confirm)),
            None => (Vec::new(), None),
        };
        let mut server = |name: &str, address| match handover::pick(&mut inherited, name, address) {
            Some(socket) => Ok(socket),
            None => bind(name, address, false),
        };
        let admin = server(ADMIN, config.admin.address)?;
        let status = server(STATUS, config.status.address)?;
        let wanted: Vec<_> = config.listeners.iter().map(|l| (l.name.clone(), l.address)).collect();
        let mut assigned = handover::assign(inherited, &wanted, workers);
        for bind in assigned.to_bind {
            let transparent = config.listeners.iter().any(|l| l.name == bind.name && l.transparent);
            // The second socket of a listener on port 0 must have the port of the first.
            let known = assigned.workers.iter().flatten().find(|socket| socket.name == bind.name);
            let address = known.map_or(bind.address, |socket| socket.address);
            let socket = self::bind(&bind.name, address, transparent)?;
            if let Some(list) = assigned.workers.get_mut(bind.worker) {
                list.push(socket);
            }
        }
        for socket in assigned.retired {
            tracing::info!(listener = socket.name, address = %socket.address, "this listener is no longer configured");
        }
        let mut sockets =
            Self { workers: assigned.workers, admin, status, copies: Copies::default(), inheritance: confirm };
        if config.handover.socket.is_some() {
            sockets.copies = sockets.copy().map_err(StartError::System)?;
        }
        Ok(sockets)
    }

    fn copy(&self) -> io::Result<Copies> {
        let copy = |socket: &Socket| {
            let listener = socket.listener.try_clone()?;
            Ok(Socket { name: socket.name.clone(), address: socket.address, listener })
        };
        let listeners: io::Result<Vec<_>> = self.workers.iter().flatten().map(copy).collect();
        let servers = vec![copy(&self.admin)?, copy(&self.status)?];
        Ok(Copies { listeners: Arc::new(Mutex::new(listeners?)), servers: Arc::new(servers) })
    }

    fn bound(&self) -> Bound {
        let listeners = self.workers.iter().flatten().map(|socket| (socket.name.clone(), socket.address));
        Bound { admin: self.admin.address, status: self.status.address, listeners: listeners.collect() }
    }

    /// Everything that this proxy listens on.
    fn own(&self) -> Vec<SocketAddr> {
        let mut own: Vec<_> = self.bound().listeners.into_values().collect();
        own.extend([self.admin.address, self.status.address]);
        own
    }
}

fn bind(name: &str, address: SocketAddr, transparent: bool) -> Result<Socket, StartError> {
    let failed = |error| StartError::Bind { what: name.to_owned(), address, error };
    let listener = listen::bind(address, transparent).map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    Ok(Socket { name: name.to_owned(), address, listener })
}

impl From<SettingsError> for StartError {
    fn from(error: SettingsError) -> Self {
        match error {
            SettingsError::Certificate(error) => Self::Certificate(error),
            SettingsError::Unusable(text) => Self::Destination(text),
        }
    }
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Config(problems) => problems.iter().try_for_each(|problem| writeln!(f, "{problem}")),
            Self::Bind { what, address, error } => {
                write!(f, "cannot listen on {address} for {what}: {error}")?;
                match error.kind() {
                    io::ErrorKind::AddrInUse => write!(
                        f,
                        "; another program has this address: `ss -ltnp` shows it; to replace a running proxy set handover.socket"
                    ),
                    io::ErrorKind::PermissionDenied => write!(f, "; ports below 1024 need CAP_NET_BIND_SERVICE"),
                    io::ErrorKind::AddrNotAvailable => write!(f, "; no interface of this machine has this address"),
                    _ => Ok(()),
                }
            }
            Self::Certificate(error) => write!(f, "{error}"),
            Self::Upstream { name, text } => write!(f, "upstream {name}: {text}"),
            Self::Destination(text) => write!(f, "{text}"),
            Self::Key(path, why) => write!(f, "policy.redaction.hashKeyFile: {} {why}", path.display()),
            Self::Handover(error) => write!(f, "taking over from the running proxy failed: {error}"),
            Self::Log(text) => write!(f, "the log cannot start: {text}"),
            Self::System(error) => write!(f, "{error}"),
        }
    }
}

impl std::error::Error for StartError {}

const ADMIN: &str = "admin";
const STATUS: &str = "status";
/// A predecessor answers within milliseconds; one that hangs must not keep its successor from starting.
const HANDOVER_WAIT: Duration = Duration::from_secs(5);
const ORDERS: usize = 4;
/// The windows of HTTP/2 promise at most this part of the container's memory: a quarter.
const WINDOW_SHARE: u64 = 4;
