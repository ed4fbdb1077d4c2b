//! The upstreams of a worker: the configured ones, and those that come and go because a redirected connection or a
//! forward proxy's client named an address. The latter are bounded and forgotten when nothing uses them.

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::config::UpstreamProtocol;
use crate::http::client::Settings;
use crate::http::pool::{Times, Upstream};
use crate::http::windows::Windows;
use crate::meters::UpstreamMeters;
use crate::worker::names::Names;

pub struct Upstreams {
    configured: HashMap<String, Rc<Upstream>>,
    addresses: RefCell<HashMap<SocketAddr, Rc<Upstream>>>,
    names: Names,
    plain: Plain,
    meters: Rc<UpstreamMeters>,
}

/// What connections to addresses without a configuration of their own are made with.
pub struct Plain {
    pub header_bytes: usize,
    pub header_count: usize,
    pub windows: Windows,
    pub frames: u32,
}

impl Upstreams {
    pub fn new(configured: HashMap<String, Rc<Upstream>>, plain: Plain, meters: Rc<UpstreamMeters>) -> Self {
        let (addresses, names) = Default::default();
        Self { configured, addresses, names, plain, meters }
    }

    pub fn configured(&self, name: &str) -> Option<Rc<Upstream>> {
        self.configured.get(name).cloned()
    }

    /// The upstream that is one address.
    pub fn address(&self, address: SocketAddr) -> Rc<Upstream> {
        if let Some(known) = self.addresses.borrow().get(&address) {
            return known.clone();
        }
        let upstream = self.plain();
        upstream.resolved(&[address]);
        let mut addresses = self.addresses.borrow_mut();
        if addresses.len() < DYNAMIC_MAX {
            addresses.insert(address, upstream.clone());
        }
        upstream
    }

    /// The upstream that a name and a port stand for now, or `None` if the name does not resolve.
    pub async fn named(&self, host: &str, port: u16) -> Option<Rc<Upstream>> {
        if let Ok(ip) = host.parse::<IpAddr>() {
            return Some(self.address(SocketAddr::new(ip, port)));
        }
        let name = (host.to_ascii_lowercase(), port);
        self.names.of(name, tokio::net::lookup_host, || self.plain()).await
    }

    /// Closes connections that have waited too long, and forgets upstreams that nobody uses.
    pub fn sweep(&self, now: Instant) {
        for upstream in self.configured.values() {
            upstream.sweep(now);
        }
        let keep = |upstream: &Rc<Upstream>| {
            upstream.sweep(now);
            !upstream.is_idle() || now.saturating_duration_since(upstream.unused_since()) < FORGET
        };
        self.addresses.borrow_mut().retain(|_, upstream| keep(upstream));
        self.names.retain(keep);
    }

    fn plain(&self) -> Rc<Upstream> {
        let settings = Settings {
            connect_timeout: CONNECT_TIMEOUT,
            tls: None,
            header_bytes: self.plain.header_bytes,
            header_count: self.plain.header_count,
            windows: self.plain.windows.clone(),
            frames: self.plain.frames,
            meters: self.meters.clone(),
        };
        let name = Rc::from(ORIGINAL);
        Rc::new(Upstream::new(name, UpstreamProtocol::Auto, settings, TIMES, self.meters.clone()))
    }
}

/// Follows the addresses that the background finds for a configured upstream's names.
pub async fn follow(upstream: Rc<Upstream>, mut addresses: watch::Receiver<Arc<[SocketAddr]>>) {
    loop {
        let now = addresses.borrow_and_update().clone();
        upstream.resolved(&now);
        if addresses.changed().await.is_err() {
            return;
        }
    }
}

/// In metrics and logs, the name of an upstream that is only an address.
pub const ORIGINAL: &str = "original";
/// The times of an upstream that is not configured are the defaults of one that is.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const TIMES: Times = Times {
    http1_idle: Duration::from_secs(4),
    http2_idle: Duration::from_secs(60),
    max_age: Duration::from_secs(3600),
    eject: Duration::from_secs(10),
};
/// Addresses that a worker remembers, and names; beyond it each request makes its own, without reuse.
pub const DYNAMIC_MAX: usize = 4096;
const FORGET: Duration = Duration::from_secs(60);
