//! Listeners and their routes, as they are written.
//!
//! What a route means for a request is decided in `rules`; what a listener does with a connection in `data_path`.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::forms;
use super::grammar::{Headers, HostPattern, Method, Name, Network, PathTemplate, Size, UrlPath};
use super::model::{DAY, GI, HOUR, KI, MILLISECOND, MINUTE, SECOND};
use super::policy::Propagation;
use super::problem::shown;
use super::reader::Reader;
use super::schema::{Form, Kind, section, words};
use super::tree::Tree;

section! {
    /// Where connections are accepted, and what is done with them.
    pub struct Listener {
        /// What logs and metrics call it; no two listeners have the same name.
        name: String as Name,
        /// Which side of the traffic it serves.
        mode: Mode,
        /// Where it listens; port 0 takes a free one.
        address: SocketAddr,
        /// Connections were redirected here by the kernel and go where they were meant to go. Inbound and outbound only.
        transparent: bool = false,
        /// What is spoken, or `detect` to find out from the first bytes.
        protocol: ListenerProtocol = ListenerProtocol::Detect,
        /// How far the trace context of a request is believed.
        trust: Trust = Trust::usual(mode) => "`Restart` for a gateway, else `Continue`",
        /// Callers that are believed more or less than the others, by their address; the first entry that holds it wins.
        trust_clients: Vec<TrustClients> = Vec::new(),
        /// Which headers carry the trace here, instead of all that `policy.propagation` says.
        propagation: Option<Propagation>,
        /// How answers tell their trace to the client. Gateway only.
        answer_trace: AnswerTrace = AnswerTrace::None,
        /// What becomes of header fields whose names have underscores. Frameworks that read `_` and `-` alike take one for the other; a name that would pass for a field that frames the message or that a proxy writes is refused in any case.
        underscores: Underscores = Underscores::Keep,
        /// The upstream of every connection or request that no route matches.
        upstream: Option<String> as Option<Name>,
        /// Routes by request; the first that matches wins.
        routes: Vec<Route> = Vec::new(),
        /// Certificates to end TLS with. Gateway only.
        tls: Option<ListenerTls>,
        /// Destination ports where HTTP is spoken, without waiting to find out.
        http_ports: Vec<u16> = Vec::new(),
        /// Destination ports whose bytes are carried without looking at them; most are protocols whose server speaks first.
        opaque_ports: Vec<u16> = usual_opaque_ports(http_ports.as_deref()) => "`[25, 587, 3306, 4444, 5432, 6379, 9300, 11211]` without those in `httpPorts`",
        /// How long the first bytes are awaited before a connection is carried as opaque bytes.
        detect_timeout: Duration [MILLISECOND ..= SECOND] = SECOND,
        /// Every plain HTTP request is answered with a redirect to `https`. Gateway without `tls` only.
        https_redirect: bool = false,
        /// Proxies in front whose entries in `X-Forwarded-For` are believed. Gateway only.
        trusted_hops: u32 [0u32 ..= 16u32] = 0,
    }
}

words! {
    /// Which side of the traffic a listener serves.
    pub enum Mode {
        /// Calls to the application.
        Inbound = "inbound",
        /// Calls that the application makes.
        Outbound = "outbound",
        /// Calls from outside.
        Gateway = "gateway",
    }
}

words! {
    /// What is spoken on a listener.
    pub enum ListenerProtocol {
        /// Whatever the first bytes tell.
        Detect = "detect",
        /// HTTP/1 or HTTP/2.
        Http = "http",
        /// Bytes, not looked at.
        Opaque = "opaque",
        /// TLS, passed through by its server name.
        Tls = "tls",
    }
}

words! {
    /// How far the trace context of a request is believed.
    pub enum Trust {
        /// The trace goes on, with its decision.
        Continue = "Continue",
        /// The trace goes on, its decision is made anew.
        Downgrade = "Downgrade",
        /// A new trace begins, with a link to the one that was sent.
        Restart = "Restart",
        /// A new trace begins, as if none was sent.
        Ignore = "Ignore",
    }
}

section! {
    /// Callers that are believed more or less than the others.
    pub struct TrustClients {
        /// Their networks.
        clients: Vec<Network>,
        /// How far the trace context of their requests is believed.
        trust: Trust,
    }
}

words! {
    /// How answers tell their trace.
    pub enum AnswerTrace {
        /// Not at all, but for those that the proxy makes itself.
        None = "none",
        /// As an entry `traceparent` in `server-timing`, which browsers hand to scripts.
        ServerTiming = "serverTiming",
        /// As `x-trace-id`.
        TraceId = "xTraceId",
    }
}

words! {
    /// What becomes of header fields whose names have underscores.
    pub enum Underscores {
        /// They pass: applications have such fields of their own.
        Keep = "keep",
        /// They are taken out.
        Drop = "drop",
        /// The request is refused.
        Refuse = "refuse",
    }
}

impl Trust {
    /// Without a mode there is an error already, and no listener that would use this.
    fn usual(mode: Option<Mode>) -> Trust {
        match mode {
            Some(Mode::Gateway) => Trust::Restart,
            Some(Mode::Inbound | Mode::Outbound) | None => Trust::Continue,
        }
    }
}

section! {
    /// Certificates to end TLS with; read again when the files change.
    pub struct ListenerTls {
        /// The one whose names hold the server name that was asked for is shown; the first when none does.
        certificates: Vec<Certificate>,
    }
}

section! {
    /// A certificate and its key, in PEM files.
    pub struct Certificate {
        /// The chain, the leaf first.
        cert: PathBuf,
        /// The leaf's private key.
        key: PathBuf,
    }
}

section! {
    /// A kind of request, and where it goes.
    pub struct Route {
        /// What logs, metrics and spans call it; no two routes of a listener have the same name.
        name: String as Name,
        /// Which requests it takes; without any field, all of them.
        matches ("match"): RouteMatch = RouteMatch::default(),
        /// The upstream where they go.
        upstream: String as Name,
        /// How long a request may take from its first byte to the last of its answer, all attempts together.
        timeout: Option<Duration> [MILLISECOND ..= DAY],
        /// How long a request may lie still in both directions.
        idle_timeout: Option<Duration> [MILLISECOND ..= DAY],
        /// When a failed request is tried again.
        retry: Option<Retry>,
    }
}

section! {
    /// Which requests a route takes: those for which all fields that are set hold.
    pub struct RouteMatch: Default {
        /// The host that is asked for, `shop.example`, or all below a domain, `*.shop.example`.
        host: Option<String> as Option<HostPattern>,
        /// The whole path.
        path: Option<String> as Option<UrlPath>,
        /// How the path begins, by whole segments.
        path_prefix: Option<String> as Option<UrlPath>,
        /// The path with named segments, `/carts/{id}`; `{rest=**}` at the end takes any number of them.
        path_template: Option<String> as Option<PathTemplate>,
        /// The method.
        method: Option<String> as Option<Method>,
        /// The server name of a TLS connection that is passed through, with `*.` as for a host.
        sni: Option<String> as Option<HostPattern>,
        /// Headers and the values that they must have.
        headers: BTreeMap<String, String> as Headers = BTreeMap::new(),
    }
}

section! {
    /// When a failed request is tried again. A request that is not safe to repeat never is.
    pub struct Retry {
        /// Tries after the first.
        attempts: u32 [1u32 ..= 10u32],
        /// After what a request is tried again.
        on: Vec<RetryOn> = vec![RetryOn::ConnectFailure, RetryOn::RefusedStream],
        /// How long one attempt may take until its answer begins.
        attempt_timeout: Option<Duration> [MILLISECOND ..= HOUR],
        /// The wait before the second try; it doubles with each, and a random part of it is waited.
        backoff: Duration [MILLISECOND ..= MINUTE] = 25 * MILLISECOND,
        /// The longest such wait.
        backoff_max: Duration [MILLISECOND ..= HOUR] = 250 * MILLISECOND,
        /// The largest body that is kept to be sent again; a request with a larger one is tried once.
        body_limit: usize as Size [0usize ..= GI] = 64 * KI,
    }
}

/// After what a request is tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RetryOn {
    /// No connection came about.
    ConnectFailure,
    /// The upstream broke off before its answer began.
    Reset,
    /// The upstream refused the request without having looked at it.
    RefusedStream,
    /// `attemptTimeout` ran out.
    Timeout,
    /// The answer has this status, 400 to 599.
    Status(u16),
}

impl Form for RetryOn {
    type Plain = RetryOn;

    fn read(reader: &mut Reader, tree: &Tree) -> Option<RetryOn> {
        let digits = match tree {
            Tree::Number(number) => number.to_string(),
            _ => forms::text(reader, tree)?.to_owned(),
        };
        match (digits.as_str(), digits.parse()) {
            ("connectFailure", _) => Some(RetryOn::ConnectFailure),
            ("reset", _) => Some(RetryOn::Reset),
            ("refusedStream", _) => Some(RetryOn::RefusedStream),
            ("timeout", _) => Some(RetryOn::Timeout),
            (_, Ok(status)) if (400..=599).contains(&status) && digits.len() == 3 => Some(RetryOn::Status(status)),
            (other, _) => reader.wrong(
                format!("`{}` is not known here", shown(other)),
                "write `connectFailure`, `reset`, `refusedStream`, `timeout` or a status from 400 to 599",
            ),
        }
    }

    fn write(plain: &RetryOn) -> Tree {
        match plain {
            RetryOn::ConnectFailure => Tree::text("connectFailure"),
            RetryOn::Reset => Tree::text("reset"),
            RetryOn::RefusedStream => Tree::text("refusedStream"),
            RetryOn::Timeout => Tree::text("timeout"),
            RetryOn::Status(status) => Tree::text(status.to_string()),
        }
    }

    fn kind() -> Kind {
        Kind::Plain(
            "`connectFailure` or `reset` or `refusedStream` or `timeout` or a status from `400` to `599`".into(),
        )
    }
}

impl RouteMatch {
    /// Asks nothing, so that it also takes TLS and bytes that are passed through.
    pub fn is_catch_all(&self) -> bool {
        *self == RouteMatch::default()
    }

    /// The prefix `/` holds for every path, the `*` of OPTIONS included.
    pub fn takes_every_request(&self) -> bool {
        let path_prefix = self.path_prefix.clone().filter(|prefix| prefix != "/");
        RouteMatch { path_prefix, ..self.clone() }.is_catch_all()
    }
}

fn usual_opaque_ports(http_ports: Option<&[u16]>) -> Vec<u16> {
    let declared = http_ports.unwrap_or_default();
    OPAQUE_PORTS.into_iter().filter(|port| !declared.contains(port)).collect()
}

const OPAQUE_PORTS: [u16; 8] = [25, 587, 3306, 4444, 5432, 6379, 9300, 11211];
