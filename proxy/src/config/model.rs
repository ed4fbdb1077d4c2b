//! The sections of the file that are not about traffic: who the proxy is, where it is asked, what it may use, what it tells.
//!
//! Listeners, upstreams and policy have files of their own. Nothing here decides; `validate` checks what one field says of another.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use super::control_plane::ControlPlane;
use super::forms;
use super::grammar::{LogFilter, Size};
use super::listener::Listener;
use super::log_format::{LogFormat, Logged};
use super::policy::Policy;
use super::problem::shown;
use super::reader::Reader;
use super::schema::{Form, Kind, section, words};
use super::tree::Tree;
use super::upstream::Upstream;

section! {
    /// The whole file.
    pub struct Config {
        /// The version of this format. This program reads version 1.
        version: u32 [1u32 ..= 1u32],
        /// What the proxy is: beside one application, at the edge, or on its own.
        role: Role,
        /// Whom the proxy speaks for, as metrics, logs and spans tell it.
        node: Node = Node::default(),
        /// Threads that carry traffic. Left out: for a sidecar the cgroup's CPU limit rounded up, at most 2; else every core.
        workers: Option<usize> [1usize ..= 256usize],
        /// The server for operators: state, log level, drain.
        admin: Admin = Admin::default(),
        /// The server for probes and metrics.
        status: Status = Status::default(),
        /// Where connections are accepted.
        listeners: Vec<Listener> = Vec::new(),
        /// Where requests go.
        upstreams: Vec<Upstream> = Vec::new(),
        /// What the proxy may use.
        limits: Limits = Limits::default(),
        /// How the proxy ends.
        drain: Drain = Drain::default(),
        /// How a successor takes over.
        handover: Handover = Handover::default(),
        /// What the proxy tells about its work.
        telemetry: Telemetry = Telemetry::default(),
        /// How traces are read, written and reported.
        policy: Policy = Policy::default(),
        /// Who pushes the policy, in place of `policy`.
        control_plane: Option<ControlPlane>,
    }
    beside {
        /// What was ignored while the configuration was read; worth a line in the log.
        warnings: Vec<String>,
        /// Attributes of the resource that the environment adds, without those that have a field of `node`.
        resource: Vec<(String, String)>,
    }
    later {
        "identity": "write `{}` or leave it out: this version has the certificates of `listeners[].tls` and `upstreams[].tls`" empty;
    }
}

words! {
    /// What the proxy is.
    pub enum Role {
        /// Beside one application, in its pod.
        Sidecar = "sidecar",
        /// At the edge, in front of many.
        Gateway = "gateway",
        /// On its own.
        Standalone = "standalone",
    }
}

section! {
    /// Whom the proxy speaks for. What is left open is filled from `OTEL_SERVICE_NAME` and `OTEL_RESOURCE_ATTRIBUTES`.
    pub struct Node: Default {
        /// The service's name, `service.name` of its spans.
        service: String = String::new(),
        /// The namespace, `service.namespace`.
        namespace: String = String::new(),
        /// The version that runs, `service.version`.
        service_version: String = String::new(),
        /// The pod's name, `k8s.pod.name`.
        pod: String = String::new(),
        /// The pod's UID, `k8s.pod.uid`.
        pod_uid: String = String::new(),
        /// The pod's address, `k8s.pod.ip`.
        pod_ip: String = String::new(),
        /// The node that the pod runs on, `k8s.node.name`.
        node_name: String = String::new(),
        /// The container with the application, `k8s.container.name`.
        container: String = String::new(),
        /// What made the pod: the kind of `ownerName`.
        owner_kind: Option<OwnerKind>,
        /// What made the pod: its name, `k8s.deployment.name` and the like; `service.name` where there is no `service`.
        owner_name: String = String::new(),
        /// The pod's service account.
        service_account: String = String::new(),
        /// The cluster's name, `k8s.cluster.name`.
        cluster: String = String::new(),
    }
}

words! {
    /// What makes pods.
    pub enum OwnerKind {
        /// `k8s.deployment.name`.
        Deployment = "deployment",
        /// `k8s.replicaset.name`.
        Replicaset = "replicaset",
        /// `k8s.statefulset.name`.
        Statefulset = "statefulset",
        /// `k8s.daemonset.name`.
        Daemonset = "daemonset",
        /// `k8s.cronjob.name`.
        Cronjob = "cronjob",
        /// `k8s.job.name`.
        Job = "job",
    }
}

section! {
    /// The server for operators: everything there is to ask, and what changes state by POST. It asks nobody for a password, so it belongs on loopback.
    pub struct Admin: Default {
        /// Where it listens.
        address: SocketAddr = SocketAddr::from((Ipv4Addr::LOCALHOST, 14000)),
    }
}

section! {
    /// The server for probes and metrics: `/live`, `/ready`, `/metrics`, and nothing that changes state.
    pub struct Status: Default {
        /// Where it listens.
        address: SocketAddr = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 14020)),
    }
}

section! {
    /// What the proxy may use, all workers together where nothing else is said.
    pub struct Limits: Default {
        /// Connections accepted and open at once.
        connections: usize [1usize ..= 1_000_000usize] = 20_000,
        /// Connections open at once from one address, or from one /64 of IPv6. Left out: a quarter of `connections` at a gateway, no limit elsewhere, where one address may stand for a whole node.
        connections_per_client: Option<usize> [1usize ..= 1_000_000usize],
        /// Bytes of one message's head, and of its trailers.
        header_bytes: usize as Size [KI ..= MI] = 64 * KI,
        /// Headers of one message, and as many trailers; the cookies of HTTP/2 count as one. Any other number than 100 costs an allocation for each message.
        header_count: usize [8usize ..= 1024usize] = 100,
        /// How long a client may take to send a head, once it began.
        header_timeout: Duration [MILLISECOND ..= HOUR] = 10 * SECOND,
        /// How long a connection may lie still before it is closed.
        idle_timeout: Duration [SECOND ..= DAY] = HOUR,
        /// Requests at once on one HTTP/2 connection.
        streams: u32 [1u32 ..= 100_000u32] = 256,
        /// Requests that one HTTP/1 client may send ahead without waiting for an answer.
        pipelined: u32 [1u32 ..= 100_000u32] = 100,
        /// How many bytes of its body a client must send in a second, on average over `bodyTimeout`, while the proxy waits for them; 0 lets it take its time. Not asked of gRPC, of what is answered already, nor, but at a gateway, of bodies of unknown length that come in whole pieces: those may be streams.
        body_rate: usize as Size [0usize ..= GI] = 16,
        /// How long a client may stay below `bodyRate`.
        body_timeout: Duration [MILLISECOND ..= HOUR] = MINUTE,
        /// Bytes of request bodies kept for another try, all requests together; beyond, a request is tried once.
        buffered_bytes: usize as Size [0usize ..= GI] = 64 * MI,
        /// HTTP/2 frames a second on one connection that carry nothing and do not belong to what is carried, such as PING; ten times as many at once.
        frames: u32 [10u32 ..= 1_000_000u32] = 2000,
        /// Requests a second on one HTTP/2 connection that its client gives up within 100 ms; ten times as many at once.
        resets: u32 [1u32 ..= 1_000_000u32] = 500,
        /// TLS handshakes under way at once; more wait.
        handshakes: usize [1usize ..= 10_000usize] = 64,
        /// Part of the cgroup's memory limit, in percent, from which on new work is refused.
        memory_percent: u8 [10u8 ..= 100u8] = 90,
        /// Kernel pipe memory for moving opaque bytes; 0 moves them through the process.
        pipe_bytes: usize as Size [0usize ..= GI] = 16 * MI,
        /// What the windows of all HTTP/2 connections together may let their peers send ahead, and never more than a
        /// quarter of the container's memory. A connection takes 16 MiB of it; one that finds less opens a window of 1 MiB.
        /// Half of it is kept for upstreams.
        window_bytes: usize as Size [0usize ..= TI] = GI,
        /// How long the answer to `Expect: 100-continue` is awaited before the body is sent all the same.
        continue_wait: Duration [MILLISECOND ..= MINUTE] = SECOND,
    }
}

section! {
    /// How the proxy ends after SIGTERM or `POST /drain`.
    pub struct Drain: Default {
        /// How long requests in flight may take to finish.
        timeout: Duration [ZERO ..= DAY] = 30 * SECOND,
        /// How long a connection without a request stays open, for one that is already on its way; never longer than `timeout`.
        idle_grace: Duration [ZERO ..= HOUR] = SECOND,
    }
}

section! {
    /// How a successor takes over the listening sockets, so that no connection is refused in between.
    pub struct Handover: Default {
        /// The Unix socket over which they are passed; without one there is no handover.
        socket: Option<PathBuf>,
    }
}

section! {
    /// What the proxy tells about its work.
    pub struct Telemetry: Default {
        /// What is logged to standard error, by level or by target and level.
        log: String as LogFilter = "info".into(),
        /// A line for each request.
        access_log: AccessLog = AccessLog::default(),
        /// Metrics are always on and have no fields in this version.
        metrics: Metrics = Metrics::default(),
    }
}

section! {
    /// A line for each request.
    pub struct AccessLog: Default {
        /// How a line is written: as JSON, or as a text of your own such as `"{time} {method} {path} {status} {duration} {traceId}"`. Its fields are `time`, `listener`, `peer`, `originalDestination`, `protocol`, `method`, `path`, `host`, `status`, `grpcStatus`, `flag`, `detail`, `route`, `upstream`, `endpoint`, `attempts`, `requestBytes`, `responseBytes`, `duration`, `firstByte`, `traceId`, `spanId`, `attemptSpanId`, `parentSpanId`, `traceFlags`, `requestId`; what there is not is `-`, and `{{` is a brace.
        format: LogFormat = LogFormat::Json,
        /// Where lines go. Left out: to standard output at a gateway, nowhere elsewhere.
        to: Option<LogTarget>,
        /// Which requests have a line. Left out: `errors` at a gateway, `all` elsewhere.
        requests: Option<Logged>,
    }
}

section! {
    /// Has no fields in this version.
    pub struct Metrics: Default {}
}

/// Where the access log goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogTarget {
    None,
    Stdout,
    File(PathBuf),
}

impl AccessLog {
    /// A gateway tells of what went wrong; a sidecar's neighbour tells it all.
    pub fn target(&self, role: Role) -> LogTarget {
        let usual = if role == Role::Gateway { LogTarget::Stdout } else { LogTarget::None };
        self.to.clone().unwrap_or(usual)
    }

    pub fn requests(&self, role: Role) -> Logged {
        self.requests.unwrap_or(if role == Role::Gateway { Logged::Errors } else { Logged::All })
    }
}

impl Form for LogTarget {
    type Plain = LogTarget;

    fn read(reader: &mut Reader, tree: &Tree) -> Option<LogTarget> {
        match forms::text(reader, tree)? {
            "none" => Some(LogTarget::None),
            "stdout" => Some(LogTarget::Stdout),
            // A bare word is more likely a typing error than a file of the working directory.
            path if path.contains('/') => PathBuf::read(reader, tree).map(LogTarget::File),
            other => reader.wrong(
                format!("`{}` is not known here", shown(other)),
                "write `none`, `stdout`, or a file's path with a `/` in it: `./access.log`",
            ),
        }
    }

    fn write(plain: &LogTarget) -> Tree {
        match plain {
            LogTarget::None => Tree::text("none"),
            LogTarget::Stdout => Tree::text("stdout"),
            LogTarget::File(path) => PathBuf::write(path),
        }
    }

    fn kind() -> Kind {
        Kind::Plain("`none` or `stdout` or a path with a `/`".into())
    }
}

pub const KI: usize = 1 << 10;
pub const MI: usize = 1 << 20;
pub const GI: usize = 1 << 30;
pub const TI: usize = 1 << 40;

pub const ZERO: Duration = Duration::ZERO;
pub const MILLISECOND: Duration = Duration::from_millis(1);
pub const SECOND: Duration = Duration::from_secs(1);
pub const MINUTE: Duration = Duration::from_secs(60);
pub const HOUR: Duration = Duration::from_secs(3600);
pub const DAY: Duration = Duration::from_secs(24 * 3600);
