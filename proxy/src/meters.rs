//! One worker's numbers, as handles that are looked up once: a request costs a few stores. The families themselves stand
//! in `telemetry::metrics`.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use http::Version;
use spanmesh_proto::TraceId;

use crate::config::{Format, Mode, Untraced};
use crate::error::Flag;
use crate::exchange::Record;
use crate::http::client::Fresh;
use crate::limit::Limit;
use crate::rules::retry::{Failure, Stop};
use crate::telemetry::metrics::{AnyThread, Counter, Gauge, Held, Histogram, Registry, Shard, family};
use crate::trace::trust::{Inferred, Set, Settled};

/// What a worker counts that belongs to no listener and no upstream.
pub struct Meters {
    shard: Shard,
    request_trailers: Counter,
    response_trailers: Counter,
    baggage_cut: Counter,
    malformed: RefCell<Vec<(&'static str, Counter)>>,
    conflicts: RefCell<Vec<((Format, Format), Counter)>>,
    inferred: RefCell<Vec<(Inferred, Counter)>>,
    not_propagated: RefCell<Vec<(Format, Counter)>>,
    untraced: RefCell<Vec<(Untraced, Counter)>>,
    informed: Informed,
    tasks: Gauge,
}

impl Meters {
    pub fn new(registry: &Registry) -> Self {
        let shard = registry.shard();
        let shared = registry.shared();
        let informed = Informed {
            early_hints: shared.counter(family::INFORMATIONAL_DROPPED, &["103"]),
            others: shared.counter(family::INFORMATIONAL_DROPPED, &["other"]),
        };
        Self {
            request_trailers: shard.counter(family::TRAILERS_DROPPED, &["request"]),
            response_trailers: shard.counter(family::TRAILERS_DROPPED, &["response"]),
            baggage_cut: shard.counter(family::BAGGAGE_CUT, &[]),
            malformed: RefCell::default(),
            conflicts: RefCell::default(),
            inferred: RefCell::default(),
            not_propagated: RefCell::default(),
            untraced: RefCell::default(),
            informed,
            tasks: shard.gauge(family::WORKER_TASKS, &[]),
            shard,
        }
    }

    pub fn listener(&self, name: &str, mode: Mode) -> ListenerMeters {
        ListenerMeters::new(&self.shard, name, mode)
    }

    pub fn upstream(&self, name: &Rc<str>) -> Rc<UpstreamMeters> {
        Rc::new(UpstreamMeters::new(&self.shard, name, self.informed.clone()))
    }

    pub fn shard(&self) -> &Shard {
        &self.shard
    }

    pub fn limited(&self, limit: Limit) {
        self.shard.counter(family::LIMITS_REACHED, &[limit.name()]).add(1);
    }

    pub fn trailers_dropped(&self, direction: Direction) {
        match direction {
            Direction::Request => self.request_trailers.add(1),
            Direction::Response => self.response_trailers.add(1),
        }
    }

    /// How many tasks this worker has now.
    pub fn tasks(&self, alive: usize) {
        self.tasks.set(i64::try_from(alive).unwrap_or(i64::MAX));
    }

    pub fn settled(&self, settled: &Settled) {
        let notes = &settled.notes;
        if !notes.malformed.is_empty() {
            notes.malformed.iter().for_each(|format| self.malformed(format.name()));
        }
        if notes.state_malformed {
            self.malformed("tracestate");
        }
        if let (Some(kept), false) = (notes.source, notes.disagreed.is_empty()) {
            for dropped in notes.disagreed.iter() {
                let labels = || self.shard.counter(family::CONTEXT_CONFLICTS, &[kept.name(), dropped.name()]);
                cached(&self.conflicts, (kept, dropped), labels).add(1);
            }
        }
        if let Some(inferred) = notes.inferred {
            let labels = || self.shard.counter(family::CONTEXT_INFERRED, &[inferred.name()]);
            cached(&self.inferred, inferred, labels).add(1);
        }
        if notes.baggage_cut {
            self.baggage_cut.add(1);
        }
    }

    /// Formats that could not say the trace of an attempt.
    pub fn not_propagated(&self, formats: Set) {
        for format in formats.iter() {
            let labels = || self.shard.counter(family::CONTEXT_NOT_PROPAGATED, &[format.name()]);
            cached(&self.not_propagated, format, labels).add(1);
        }
    }

    /// A request that makes no spans.
    pub fn untraced(&self, kind: Untraced) {
        cached(&self.untraced, kind, || self.shard.counter(family::UNTRACED, &[kind.name()])).add(1);
    }

    fn malformed(&self, format: &'static str) {
        cached(&self.malformed, format, || self.shard.counter(family::CONTEXT_MALFORMED, &[format])).add(1);
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    Request,
    Response,
}

/// Counts 1xx answers that are not forwarded. The sockets of upstreams hold it, and their types may cross threads.
#[derive(Clone)]
pub struct Informed {
    early_hints: Counter<AnyThread>,
    others: Counter<AnyThread>,
}

impl Informed {
    pub fn early_hints(&self) {
        self.early_hints.add(1);
    }

    pub fn others(&self) {
        self.others.add(1);
    }
}

/// What a worker counts of one listener.
pub struct ListenerMeters {
    shard: Shard,
    name: Box<str>,
    side: &'static str,
    opened: Counter,
    closed: Counter,
    active: Gauge,
    in_flight: Gauge,
    duration: Histogram,
    request_bytes: Counter,
    response_bytes: Counter,
    up_bytes: Counter,
    down_bytes: Counter,
    requests: RefCell<Vec<(Ending, Counter)>>,
    grpc: RefCell<Vec<(Option<u32>, Counter)>>,
}

/// What tells the ended requests of a listener apart. A closed set of values, so the list of them stays short.
type Ending = (Flag, Option<u16>, Option<Version>);

impl ListenerMeters {
    fn new(shard: &Shard, name: &str, mode: Mode) -> Self {
        let side = match mode {
            Mode::Inbound => "server",
            Mode::Outbound => "client",
            Mode::Gateway => "gateway",
        };
        Self {
            opened: shard.counter(family::CONNECTIONS_OPENED, &[name]),
            closed: shard.counter(family::CONNECTIONS_CLOSED, &[name]),
            active: shard.gauge(family::CONNECTIONS_ACTIVE, &[name]),
            in_flight: shard.gauge(family::REQUESTS_IN_FLIGHT, &[name]),
            duration: shard.histogram(family::REQUEST_DURATION_SECONDS, &[name, side]),
            request_bytes: shard.counter(family::REQUEST_BYTES, &[name]),
            response_bytes: shard.counter(family::RESPONSE_BYTES, &[name]),
            up_bytes: shard.counter(family::TCP_BYTES, &[name, "up"]),
            down_bytes: shard.counter(family::TCP_BYTES, &[name, "down"]),
            requests: RefCell::default(),
            grpc: RefCell::default(),
            shard: shard.clone(),
            name: name.into(),
            side,
        }
    }

    pub fn opened(&self) {
        self.opened.add(1);
        self.active.inc();
    }

    pub fn closed(&self) {
        self.closed.add(1);
        self.active.dec();
    }

    pub fn began(&self) {
        self.in_flight.inc();
    }

    pub fn refused(&self, reason: &str) {
        self.shard.counter(family::CONNECTIONS_REFUSED, &[&self.name, reason]).add(1);
    }

    pub fn detected(&self, outcome: &str) {
        self.shard.counter(family::DETECTIONS, &[&self.name, outcome]).add(1);
    }

    pub fn handshake(&self, outcome: &str) {
        self.shard.counter(family::TLS_HANDSHAKES, &[&self.name, outcome]).add(1);
    }

    /// A request or an opaque connection ended.
    pub fn ended(&self, record: &Record, flag: Flag, duration: Duration, sent: u64, received: u64) {
        self.in_flight.dec();
        let Some(request) = &record.request else {
            self.up_bytes.add(sent);
            self.down_bytes.add(received);
            self.shard.counter(family::TCP_CONNECTIONS, &[&self.name, flag.name()]).add(1);
            return;
        };
        self.duration.observe(duration);
        self.request_bytes.add(sent);
        self.response_bytes.add(received);
        let class = record.status.map(|status| status.as_u16() / 100);
        self.request((flag, class, Some(request.version))).add(1);
        if let Some(grpc) = record.grpc {
            self.grpc(grpc.status).add(1);
        }
    }

    /// A request whose trace can be looked at took this long.
    pub fn example(&self, duration: Duration, trace: TraceId, unix_nanos: u64) {
        self.duration.example(duration, trace, unix_nanos);
    }

    fn request(&self, ending: Ending) -> Counter {
        cached(&self.requests, ending, || {
            let (flag, class, version) = ending;
            let class = match class {
                Some(1) => "1xx",
                Some(2) => "2xx",
                Some(3) => "3xx",
                Some(4) => "4xx",
                Some(5) => "5xx",
                Some(_) | None => "none",
            };
            let protocol = match version {
                Some(Version::HTTP_10) => "http1.0",
                Some(Version::HTTP_2) => "http2",
                Some(_) => "http1.1",
                None => "tcp",
            };
            self.shard.counter(family::REQUESTS, &[&self.name, self.side, flag.name(), class, protocol])
        })
    }

    fn grpc(&self, status: Option<u32>) -> Counter {
        let known = status.filter(|status| *status <= GRPC_STATUS_MAX);
        cached(&self.grpc, known, || {
            let text = known.map_or("none".into(), |status| status.to_string());
            self.shard.counter(family::GRPC_RESPONSES, &[&self.name, &text])
        })
    }
}

/// What a worker counts of one upstream.
pub struct UpstreamMeters {
    shard: Shard,
    name: Rc<str>,
    in_flight: Gauge,
    connections: Gauge,
    informed: Informed,
}

impl UpstreamMeters {
    fn new(shard: &Shard, name: &Rc<str>, informed: Informed) -> Self {
        let in_flight = shard.gauge(family::UPSTREAM_REQUESTS_IN_FLIGHT, &[name]);
        let connections = shard.gauge(family::UPSTREAM_CONNECTIONS_ACTIVE, &[name]);
        Self { shard: shard.clone(), name: name.clone(), in_flight, connections, informed }
    }

    pub fn informational(&self) -> Informed {
        self.informed.clone()
    }

    /// A connection is open, or being made, until this is dropped.
    pub fn connection(&self) -> Held {
        self.connections.hold()
    }

    /// An attempt has a connection, until this is dropped.
    pub fn attempt(&self) -> Held {
        self.in_flight.hold()
    }

    pub fn connected(&self, fresh: &Fresh) {
        let protocol = match fresh {
            Fresh::Http1(..) => "http1",
            Fresh::Http2(_) => "http2",
        };
        self.shard.counter(family::UPSTREAM_CONNECTIONS_OPENED, &[&self.name, protocol]).add(1);
    }

    pub fn connect_failed(&self, flag: Flag) {
        self.shard.counter(family::UPSTREAM_CONNECT_FAILURES, &[&self.name, flag.name()]).add(1);
    }

    pub fn limited(&self, limit: Limit) {
        self.shard.counter(family::LIMITS_REACHED, &[limit.name()]).add(1);
    }

    pub fn ejected(&self) {
        self.shard.counter(family::ENDPOINTS_EJECTED, &[&self.name]).add(1);
    }

    pub fn resent(&self) {
        self.shard.counter(family::UPSTREAM_RESENDS, &[&self.name]).add(1);
    }

    pub fn retried(&self, failure: Failure) {
        let cause = match failure {
            Failure::ConnectFailed => "connect_failed",
            Failure::ConnectTimeout => "connect_timeout",
            Failure::NotWritten => "not_written",
            Failure::GoAway => "go_away",
            Failure::RefusedStream => "refused_stream",
            Failure::Reset => "reset",
            Failure::AttemptTimeout => "attempt_timeout",
            Failure::Status(_) => "status",
        };
        self.shard.counter(family::RETRIES, &[&self.name, cause]).add(1);
    }

    pub fn retry_denied(&self, stop: Stop) {
        let reason = match stop {
            Stop::NotSafe => "not_safe",
            Stop::BodyGone => "body_gone",
            Stop::NoPolicy => "no_policy",
            Stop::NotNamed => "not_named",
            Stop::AttemptsUsed => "attempts_used",
            Stop::TooLittleTime => "too_little_time",
            Stop::OverBudget => "over_budget",
        };
        self.shard.counter(family::RETRIES_DENIED, &[&self.name, reason]).add(1);
    }
}

/// The handle for a key, from a list so short that walking it beats hashing.
fn cached<K: PartialEq + Copy>(list: &RefCell<Vec<(K, Counter)>>, key: K, make: impl FnOnce() -> Counter) -> Counter {
    if let Some((_, counter)) = list.borrow().iter().find(|(known, _)| *known == key) {
        return counter.clone();
    }
    let counter = make();
    list.borrow_mut().push((key, counter.clone()));
    counter
}

/// The last status that gRPC defines; what lies beyond is counted as none.
const GRPC_STATUS_MAX: u32 = 16;
