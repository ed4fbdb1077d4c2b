//! Upstreams as they are written: addresses, what is spoken there, how long connections live.

use std::path::PathBuf;
use std::time::Duration;

use super::grammar::{Address, Name, ServerName, ServiceName};
use super::model::{DAY, HOUR, MILLISECOND, MINUTE, SECOND, ZERO};
use super::schema::{section, words};

section! {
    /// Where requests go: one service, at one or more addresses.
    pub struct Upstream: Default {
        /// What routes, logs and metrics call it; no two upstreams have the same name.
        name: String as Name,
        /// The service that it is, `cart.shop`, where its callers' policies name one. Left out: as the request's host tells it, `cart.shop` or `cart.shop.svc.cluster.local`.
        service: Option<String> as Option<ServiceName>,
        /// Where it listens. A DNS name stands for all its addresses.
        addresses: Vec<Address>,
        /// What is spoken there. With `auto` TLS negotiates it; in clear text it is what the client speaks, but HTTP/1.1 for what came under TLS and is no gRPC.
        protocol: UpstreamProtocol = UpstreamProtocol::Auto,
        /// TLS on the way there; without this section the way is in clear text.
        tls: Option<UpstreamTls>,
        /// How long a connection may take to come about, its TLS handshake included.
        connect_timeout: Duration [MILLISECOND ..= MINUTE] = 5 * SECOND,
        /// How long an idle HTTP/1 connection is kept. Below the 5 s after which Node.js closes its own, because a request on a connection that is being closed fails.
        idle_timeout: Duration [ZERO ..= HOUR] = 4 * SECOND,
        /// How long an idle HTTP/2 connection is kept.
        http2_idle_timeout: Duration [ZERO ..= DAY] = MINUTE,
        /// How old a connection may become before it takes no new request.
        max_age: Duration [SECOND ..= DAY] = HOUR,
        /// How often DNS names are resolved again.
        dns_refresh: Duration [SECOND ..= HOUR] = 10 * SECOND,
        /// How long an address is passed over after a failed connect.
        eject_time: Duration [ZERO ..= HOUR] = 10 * SECOND,
    }
}

words! {
    /// What is spoken to an upstream.
    pub enum UpstreamProtocol {
        /// HTTP/2 where TLS agrees on it or the client came with it, else HTTP/1.1.
        Auto = "auto",
        /// HTTP/1.1.
        Http1 = "http1",
        /// HTTP/2, also in clear text.
        Http2 = "http2",
    }
}

section! {
    /// TLS to an upstream.
    pub struct UpstreamTls: Default {
        /// PEM file of the authorities that the upstream's certificate must lead to. Left out: those of the machine.
        root_file: Option<PathBuf>,
        /// The name that is asked for and must stand in the certificate. Left out: the host of the address.
        server_name: Option<String> as Option<ServerName>,
        /// PEM file of the certificate to show; goes with `key`.
        cert: Option<PathBuf>,
        /// PEM file of its private key; goes with `cert`.
        key: Option<PathBuf>,
    }
}
