//! What can go wrong on the road, as one closed list of response flags, and the one table that says what each means:
//! the status that a client sees, whether another try is fair, whose fault it was. Everything that answers by itself
//! asks this table; nothing else in the proxy chooses a status. `FLAGS.md` is written from it.

#[cfg(test)]
mod reference;

use http::StatusCode;

/// How a request or a connection ended. Closed: every variant stands in [`Flag::meaning`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Flag {
    Ok,
    NoRoute,
    ConnectFailed,
    ConnectTimeout,
    TlsFailed,
    IdentityMismatch,
    UpstreamReset,
    UpstreamClosed,
    RequestTimeout,
    AttemptTimeout,
    IdleTimeout,
    ClientReset,
    BadRequest,
    TooLarge,
    Overload,
    Draining,
    Denied,
    RateLimited,
    CircuitOpen,
    NoHealthyEndpoint,
    FaultInjected,
    ProtocolError,
}

/// One row of the table.
#[derive(Clone, Copy, Debug)]
pub struct Meaning {
    /// The flag's name in metrics, logs and spans.
    pub name: &'static str,
    /// The status of an answer made here.
    pub http: u16,
    /// The status of an answer made here to a gRPC call (carried by HTTP 200).
    pub grpc: GrpcStatus,
    pub fault: Fault,
    /// The letters by which Envoy's users know it.
    pub envoy: &'static str,
    /// What an operator should know: the likely cause and the next step.
    pub text: &'static str,
}

/// Whose doing an ending was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    Nobody,
    Client,
    Proxy,
    Upstream,
}

/// gRPC status codes that the proxy itself answers with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum GrpcStatus {
    Ok = 0,
    Cancelled = 1,
    DeadlineExceeded = 4,
    PermissionDenied = 7,
    ResourceExhausted = 8,
    Unimplemented = 12,
    Internal = 13,
    Unavailable = 14,
}

impl Flag {
    pub const ALL: [Flag; 22] = [
        Flag::Ok,
        Flag::NoRoute,
        Flag::ConnectFailed,
        Flag::ConnectTimeout,
        Flag::TlsFailed,
        Flag::IdentityMismatch,
        Flag::UpstreamReset,
        Flag::UpstreamClosed,
        Flag::RequestTimeout,
        Flag::AttemptTimeout,
        Flag::IdleTimeout,
        Flag::ClientReset,
        Flag::BadRequest,
        Flag::TooLarge,
        Flag::Overload,
        Flag::Draining,
        Flag::Denied,
        Flag::RateLimited,
        Flag::CircuitOpen,
        Flag::NoHealthyEndpoint,
        Flag::FaultInjected,
        Flag::ProtocolError,
    ];

    pub fn name(self) -> &'static str {
        self.meaning().name
    }

    pub fn status(self) -> StatusCode {
        StatusCode::from_u16(self.meaning().http).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    pub fn meaning(self) -> Meaning {
        use Fault::*;
        use GrpcStatus::*;
        let row = |name, http, grpc, fault, envoy, text| Meaning { name, http, grpc, fault, envoy, text };
        match self {
            Flag::Ok => row("ok", 200, Ok, Nobody, "-", "served"),
            Flag::NoRoute => {
                row("no_route", 404, Unimplemented, Client, "NR", "no route matches this host, path and method")
            }
            Flag::ConnectFailed => row(
                "connect_failed",
                503,
                Unavailable,
                Upstream,
                "UF",
                "the upstream refused the connection or cannot be reached; maybe it is not listening, or a NetworkPolicy is in the way",
            ),
            Flag::ConnectTimeout => row(
                "connect_timeout",
                504,
                Unavailable,
                Upstream,
                "UF",
                "the upstream did not accept the connection in time; maybe packets to it are dropped",
            ),
            Flag::TlsFailed => row(
                "tls_failed",
                503,
                Unavailable,
                Upstream,
                "UF",
                "a TLS handshake failed: with the upstream (look at rootFile, serverName and whether it speaks TLS), or, on a listener that ends TLS, with the client",
            ),
            Flag::IdentityMismatch => row(
                "identity_mismatch",
                503,
                Unavailable,
                Upstream,
                "UF",
                "the upstream showed another identity than expected",
            ),
            Flag::UpstreamReset => row(
                "upstream_reset",
                502,
                Unavailable,
                Upstream,
                "UR",
                "the upstream reset the stream or the connection",
            ),
            Flag::UpstreamClosed => row(
                "upstream_closed",
                502,
                Unavailable,
                Upstream,
                "UC",
                "the upstream closed the connection before its answer was complete",
            ),
            Flag::RequestTimeout => row(
                "request_timeout",
                504,
                DeadlineExceeded,
                Upstream,
                "UT",
                "the answer was not complete within the route's timeout",
            ),
            Flag::AttemptTimeout => {
                row("attempt_timeout", 504, DeadlineExceeded, Upstream, "UT", "no attempt was answered in time")
            }
            Flag::IdleTimeout => row(
                "idle_timeout",
                408,
                Unavailable,
                Nobody,
                "SI",
                "no byte moved for the idle timeout, or what must not take long, a head, a handshake or a body, came too slowly",
            ),
            Flag::ClientReset => row("client_reset", 499, Cancelled, Client, "DC", "the client went away first"),
            Flag::BadRequest => row(
                "bad_request",
                400,
                Internal,
                Client,
                "DPE",
                "the request breaks the protocol or can be read in two ways",
            ),
            Flag::TooLarge => row(
                "too_large",
                431,
                ResourceExhausted,
                Client,
                "DPE",
                "the request's head, its trailers or its chunk extensions are larger than the limits allow",
            ),
            Flag::Overload => row(
                "overload",
                503,
                Unavailable,
                Proxy,
                "OM",
                "this proxy is at a limit of its own: memory, connections, file descriptors or handshakes",
            ),
            Flag::Draining => row("draining", 503, Unavailable, Proxy, "DR", "this proxy is shutting down"),
            Flag::Denied => row(
                "denied",
                403,
                PermissionDenied,
                Client,
                "UAEX",
                "not allowed here: the destination is no address of this pod, or is the proxy itself",
            ),
            Flag::RateLimited => row(
                "rate_limited",
                429,
                Unavailable,
                Client,
                "RL",
                "the client does more than one may: connections, requests ahead, or HTTP/2 frames and resets that lead to nothing",
            ),
            Flag::CircuitOpen => row("circuit_open", 503, Unavailable, Upstream, "UO", "the upstream is at its limit"),
            Flag::NoHealthyEndpoint => row(
                "no_healthy_endpoint",
                503,
                Unavailable,
                Upstream,
                "UH",
                "the upstream has no address to send to; maybe its name does not resolve",
            ),
            Flag::FaultInjected => row("fault_injected", 503, Unavailable, Nobody, "FI", "a fault was asked for"),
            Flag::ProtocolError => {
                row("protocol_error", 502, Internal, Upstream, "UPE", "the upstream's answer breaks the protocol")
            }
        }
    }

    /// Whether sending the same request again, elsewhere, can be fair at all. The rules of retry decide the rest.
    pub fn retry_fair(self) -> bool {
        match self {
            Flag::ConnectFailed
            | Flag::ConnectTimeout
            | Flag::TlsFailed
            | Flag::UpstreamReset
            | Flag::UpstreamClosed
            | Flag::AttemptTimeout
            | Flag::CircuitOpen
            | Flag::NoHealthyEndpoint => true,
            Flag::Ok
            | Flag::NoRoute
            | Flag::IdentityMismatch
            | Flag::RequestTimeout
            | Flag::IdleTimeout
            | Flag::ClientReset
            | Flag::BadRequest
            | Flag::TooLarge
            | Flag::Overload
            | Flag::Draining
            | Flag::Denied
            | Flag::RateLimited
            | Flag::FaultInjected
            | Flag::ProtocolError => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_distinct_snake_case_words() {
        let mut names: Vec<_> = Flag::ALL.iter().map(|flag| flag.name()).collect();
        assert!(names.iter().all(|name| name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_')));
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Flag::ALL.len());
    }

    #[test]
    fn every_flag_but_ok_answers_with_an_error() {
        for flag in Flag::ALL {
            assert_eq!(flag == Flag::Ok, flag.status().is_success(), "{}", flag.name());
            assert_eq!(flag == Flag::Ok, flag.meaning().grpc == GrpcStatus::Ok, "{}", flag.name());
        }
    }
}
