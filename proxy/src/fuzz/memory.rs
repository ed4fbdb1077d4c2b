//! A proxy in memory: the road from a client's first byte to the answer's last, over pipes instead of sockets, in
//! virtual time. A wait costs nothing, so a hang shows as a time that is over and not as a test that stands still.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::rc::{Rc, Weak};
use std::sync::{Arc, LazyLock, Once};
use std::time::Duration;

use rand::SeedableRng;
use rand::rngs::SmallRng;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinHandle, spawn_local};
use tokio::time::{Instant, sleep, timeout};

use super::seen::{self, Closed, PIPE};
use crate::admin::Health;
use crate::config::{self, Config};
use crate::connection::Connection;
use crate::http::serve;
use crate::shared::Shared;
use crate::sniffing::{self, Sniffed};
use crate::system::memory::MemoryWatch;
use crate::telemetry::access_log::AccessLog;
use crate::telemetry::metrics::Registry;
use crate::worker::Worker;
use crate::worker::listener::Listener;
use crate::worker::policy::Policies;
use crate::worker::run::{self, Plan, Stop};

/// What the client's bytes were taken for.
#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq)]
pub enum Spoken {
    Http1,
    Http2,
    Other,
}

/// How a run ended.
pub struct Ran {
    pub closed: Vec<Closed>,
    pub spoken: Spoken,
    /// Everything that the proxy wrote to the client.
    pub answers: Vec<u8>,
    pub wrong: Vec<String>,
    /// The engine broke off at an assertion of its own that says nothing: the rest of the run is not the proxy's.
    pub spurious: bool,
}

/// One connection of `client` through a proxy to an upstream that is asked in `protocol`. `client` gives all that it has
/// read when it is done; `origin` serves each connection that the proxy makes, and hears its number.
pub fn run<C, O>(
    protocol: &'static str,
    client: impl FnOnce(DuplexStream) -> C,
    origin: impl Fn(DuplexStream, usize) -> O + 'static,
) -> Ran
where
    C: Future<Output = Vec<u8>>,
    O: Future<Output = ()> + 'static,
{
    hear_panics();
    let mut dialled = seen::begin();
    let runtime = Builder::new_current_thread().enable_time().start_paused(true).build_local(LocalOptions::default());
    let runtime = runtime.expect("a runtime without sockets needs nothing of the system");
    let before = PANICS.get();
    let (answers, spoken) = runtime.block_on(async {
        let proxy = Proxy::new(protocol);
        spawn_local(async move {
            let mut number = 0;
            while let Some(io) = dialled.recv().await {
                spawn_local(origin(io, number));
                number += 1;
            }
        });
        let (far, serving, connection) = proxy.accept();
        let answers = client(far).await;
        let spoken = timeout(END, serving).await;
        proxy.ended(&connection, &spoken).await;
        (answers, spoken.ok().and_then(Result::ok).unwrap_or(Spoken::Other))
    });
    drop(runtime);
    let (closed, mut wrong) = seen::end();
    if PANICS.get() != before {
        wrong.push("a task panicked, see above".into());
    }
    let spurious = SPURIOUS.replace(false);
    seen::mark(spoken);
    Ran { closed, spoken, answers, wrong, spurious }
}

struct Proxy {
    worker: Rc<Worker>,
    listener: Rc<Listener>,
    looking: JoinHandle<()>,
}

impl Proxy {
    fn new(protocol: &str) -> Self {
        let registry = Registry::new();
        let config = CONFIGS.get(protocol).expect("a protocol of the table").clone();
        let plan = Plan {
            workers: 1,
            shared: Shared::new(MemoryWatch::new(), 0, config.limits.pipe_bytes),
            policies: watch::channel(Arc::new(Policies::new(config.clone()))).1,
            config,
            sockets: Vec::new(),
            own: Vec::new(),
            acceptors: HashMap::new(),
            tls: HashMap::new(),
            addresses: HashMap::new(),
            access_log: AccessLog::open(None, Default::default(), &registry).expect("no log, no thread"),
            registry,
            spans: None,
            heartbeat: Health::new().heartbeat("worker"),
            started: mpsc::channel(1).0,
            stop: watch::channel(Stop::No).1,
        };
        let (worker, listeners, _) = run::build(&plan).expect("the configuration is ours");
        *worker.rng.borrow_mut() = SmallRng::seed_from_u64(0);
        let upstream = worker.upstreams.configured("app").expect("it stands in the configuration");
        upstream.resolved(&[SocketAddr::from(([10, 0, 0, 1], 80))]);
        let listener = listeners.get("in").expect("it stands in the configuration").clone();
        let looked_after = worker.clone();
        let looking = spawn_local(async move {
            loop {
                sleep(SECOND).await;
                looked_after.look(Instant::now());
            }
        });
        Self { worker, listener, looking }
    }

    /// A client comes: its end, the task that serves it, and the connection's record.
    fn accept(&self) -> (DuplexStream, JoinHandle<Spoken>, Weak<Connection>) {
        let (near, far) = tokio::io::duplex(PIPE);
        let (peer, local) = (SocketAddr::from(([10, 0, 0, 2], 4000)), SocketAddr::from(([10, 0, 0, 3], 80)));
        self.listener.opened();
        let connection = Rc::new(Connection::new(self.worker.clone(), self.listener.clone(), peer, local, None));
        let record = Rc::downgrade(&connection);
        let hello = self.worker.limits.header_timeout;
        let serving = spawn_local(async move {
            match sniffing::unknown(near, SECOND, hello).await {
                Sniffed::Http1(io) => {
                    serve::http1(connection, io).await;
                    Spoken::Http1
                }
                Sniffed::Http2(io) => {
                    serve::http2(connection, io).await;
                    Spoken::Http2
                }
                Sniffed::Secure1(_) | Sniffed::Secure2(_) | Sniffed::Opaque { .. } | Sniffed::Gone => Spoken::Other,
            }
        });
        (far, serving, record)
    }

    /// The client has gone. Now all that it caused must come to an end, each thing in its own time.
    async fn ended<T>(&self, connection: &Weak<Connection>, served: &Result<T, tokio::time::error::Elapsed>) {
        if served.is_err() {
            return seen::wrong("the client's connection goes on without its client");
        }
        let upstream = self.worker.upstreams.configured("app").expect("it stands in the configuration");
        let deadline = Instant::now() + END;
        while connection.strong_count() > 0 || !upstream.is_idle() {
            if Instant::now() > deadline {
                let open = connection.upgrade().map(|connection| connection.open());
                return seen::wrong(format!("not over: exchanges {open:?}, upstream idle {}", upstream.is_idle()));
            }
            sleep(SECOND).await;
        }
        if self.listener.active.get() != 0 {
            seen::wrong("a connection is counted that is gone");
        }
        self.looking.abort();
        tokio::task::yield_now().await;
        if Rc::strong_count(&self.worker) != 1 {
            seen::wrong("something holds the worker that should have ended");
        }
    }
}

/// How a client behaves, from the first byte of an input: `0` sends at once and waits for its answers.
#[derive(Clone, Copy)]
pub struct Manner(u8);

impl Manner {
    /// The manner and the rest of an input.
    pub fn of(input: &[u8]) -> (Self, &[u8]) {
        match input.split_first() {
            Some((first, rest)) => (Self(first ^ b'0'), rest),
            None => (Self(0), input),
        }
    }

    pub fn is_late(self) -> bool {
        self.0 & 4 != 0
    }

    /// Says that it is done as soon as it is.
    pub fn is_hasty(self) -> bool {
        self.0 & 8 != 0
    }

    /// Leaves without reading what comes.
    pub fn is_rude(self) -> bool {
        self.0 & 16 != 0
    }

    /// One more choice, of the target's own.
    pub fn choice(self) -> u8 {
        self.0 >> 5
    }

    /// The bytes as they are sent, piece by piece.
    pub fn pieces(self, bytes: &[u8]) -> Vec<&[u8]> {
        let every = match self.0 & 3 {
            0 => bytes.len(),
            1 => bytes.len().div_ceil(2048),
            2 => return bytes.split_inclusive(|byte| *byte == b'\n').collect(),
            _ => bytes.len() % 29 + 5,
        };
        bytes.chunks(every.max(1)).collect()
    }
}

/// Sends the bytes, reads what comes, and leaves.
pub async fn speak(io: DuplexStream, manner: Manner, bytes: &[u8]) -> Vec<u8> {
    let (mut from, mut to) = tokio::io::split(io);
    let read = Rc::new(RefCell::new(Vec::new()));
    let reading = spawn_local({
        let read = read.clone();
        async move {
            if manner.is_late() {
                sleep(2 * SECOND).await;
            }
            let mut some = vec![0; PIPE];
            while let Ok(count @ 1..) = from.read(&mut some).await {
                read.borrow_mut().extend_from_slice(some.get(..count).unwrap_or_default());
            }
        }
    });
    for piece in manner.pieces(bytes) {
        if !matches!(timeout(PATIENCE, to.write_all(piece)).await, Ok(Ok(()))) {
            break;
        }
        tokio::task::yield_now().await;
    }
    if manner.is_rude() {
        reading.abort();
        let _ = reading.await;
        return read.take();
    }
    if !manner.is_hasty() {
        sleep(PATIENCE).await;
    }
    // Both may be over already.
    let _ = to.shutdown().await;
    let mut reading = reading;
    if timeout(PATIENCE, &mut reading).await.is_err() {
        reading.abort();
        let _ = reading.await;
    }
    read.take()
}

thread_local! {
    static PANICS: Cell<u32> = const { Cell::new(0) };
    static SPURIOUS: Cell<bool> = const { Cell::new(false) };
}

/// A task's panic stays in the task; here it is heard all the same.
fn hear_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            // h2 0.4 asserts in debug builds, when a connection's record is dropped, that no stream was still counted; a
            // connection that is cut has some, and nothing counts them any more (hyperium/h2 #907).
            // Another is not ready for a stream's error that this side had caused itself, and heard of once more.
            let said = panic.payload_as_str().unwrap_or_default();
            if said.contains("!self.has_streams()") || said.contains("left: User\n right: Library") {
                return SPURIOUS.set(true);
            }
            PANICS.set(PANICS.get() + 1);
            before(panic);
        }));
    });
}

static CONFIGS: LazyLock<HashMap<&'static str, Arc<Config>>> = LazyLock::new(|| {
    let config = |protocol| {
        let text = format!(
            "version: 1\nrole: standalone\nadmin: {{address: '127.0.0.1:0'}}\nstatus: {{address: '127.0.0.1:0'}}\n\
             limits: {{headerTimeout: 5s, idleTimeout: 20s}}\n\
             upstreams:\n- {{name: app, addresses: ['10.0.0.1:80'], protocol: {protocol}, http2IdleTimeout: 10s}}\n\
             listeners:\n- {{name: in, mode: inbound, address: '127.0.0.1:0', upstream: app}}\n"
        );
        (protocol, Arc::new(config::parse(&text, "fuzz.yaml", std::iter::empty()).expect("it is ours")))
    };
    ["http1", "http2"].map(config).into()
});

const SECOND: Duration = Duration::from_secs(1);
/// More than any wait for one step, less than the limits of idleness.
const PATIENCE: Duration = Duration::from_secs(8);
/// Longer than all limits one after the other. What is not over then never ends.
const END: Duration = Duration::from_secs(180);
