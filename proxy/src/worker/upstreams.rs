//! The upstreams of a worker: the configured ones, and those that come and go because a redirected connection or a
//! forward proxy's client named an address. The latter are bounded and forgotten when nothing uses them.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
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

pub struct Upstreams {
    configured: HashMap<String, Rc<Upstream>>,
    addresses: RefCell<HashMap<SocketAddr, Rc<Upstream>>>,
    names: RefCell<HashMap<Name, Named>>,
    lookups: Rc<Lookups>,
    plain: Plain,
    meters: Rc<UpstreamMeters>,
}

type Name = (String, u16);

struct Named {
    upstream: Rc<Upstream>,
    resolved: Instant,
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
        let (addresses, names, lookups) = Default::default();
        Self { configured, addresses, names, lookups, plain, meters }
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
        let key = (host.to_ascii_lowercase(), port);
        if let Some(named) = self.names.borrow().get(&key)
            && named.resolved.elapsed() < DNS_REFRESH
        {
            return Some(named.upstream.clone());
        }
        let looked_up = self.lookups.of(&key, tokio::net::lookup_host);
        let addresses = tokio::time::timeout(CONNECT_TIMEOUT, looked_up).await.ok()??;
        let mut names = self.names.borrow_mut();
        let upstream = match names.get(&key) {
            Some(named) => named.upstream.clone(),
            None => self.plain(),
        };
        upstream.resolved(&addresses);
        if names.len() < DYNAMIC_MAX || names.contains_key(&key) {
            names.insert(key, Named { upstream: upstream.clone(), resolved: Instant::now() });
        }
        (!addresses.is_empty()).then_some(upstream)
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
        self.names.borrow_mut().retain(|_, named| keep(&named.upstream));
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

/// Look-ups of names under way, one for each name however many requests wait for it. One that hangs cannot be stopped and
/// holds a thread, so it goes on without them: they give up, and the next ones find it instead of starting another.
#[derive(Default)]
struct Lookups(RefCell<HashMap<Name, watch::Receiver<Found>>>);

type Found = Option<Rc<[SocketAddr]>>;

impl Lookups {
    /// What `look` finds for the name; `None` if it fails, or if there are too many others.
    async fn of<I, F>(self: &Rc<Self>, name: &Name, look: impl FnOnce(Name) -> F) -> Found
    where
        I: Iterator<Item = SocketAddr>,
        F: Future<Output = io::Result<I>> + 'static,
    {
        let known = self.0.borrow().get(name).cloned();
        let mut found = match known {
            Some(found) => found,
            None => self.begin(name, look)?,
        };
        // It ends without a word when the name does not resolve.
        found.wait_for(Option::is_some).await.ok()?.clone()
    }

    fn begin<I, F>(self: &Rc<Self>, name: &Name, look: impl FnOnce(Name) -> F) -> Option<watch::Receiver<Found>>
    where
        I: Iterator<Item = SocketAddr>,
        F: Future<Output = io::Result<I>> + 'static,
    {
        let mut lookups = self.0.borrow_mut();
        if lookups.len() >= LOOKUPS_MAX {
            return None;
        }
        let (tell, found) = watch::channel(None);
        lookups.insert(name.clone(), found.clone());
        let (all, name, look) = (self.clone(), name.clone(), look(name.clone()));
        tokio::task::spawn_local(async move {
            let addresses = look.await;
            all.0.borrow_mut().remove(&name);
            if let Ok(addresses) = addresses {
                tell.send_replace(Some(addresses.take(ADDRESSES_MAX).collect()));
            }
        });
        Some(found)
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
const DNS_REFRESH: Duration = Duration::from_secs(10);
const TIMES: Times = Times {
    http1_idle: Duration::from_secs(4),
    http2_idle: Duration::from_secs(60),
    max_age: Duration::from_secs(3600),
    eject: Duration::from_secs(10),
};
/// Addresses and names that a worker remembers; beyond it each request makes its own, without reuse.
const DYNAMIC_MAX: usize = 4096;
/// Addresses of one name.
const ADDRESSES_MAX: usize = 64;
/// Names that are looked up at once. Each takes a thread, and the runtime has 512.
const LOOKUPS_MAX: usize = 64;
const FORGET: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    fn name(host: &str) -> Name {
        (host.to_owned(), 80)
    }

    #[tokio::test(flavor = "local")]
    async fn a_name_is_looked_up_once_for_all_that_wait_also_when_they_give_up() {
        let lookups = Rc::new(Lookups::default());
        let (begun, answer) = (Rc::new(Cell::new(0)), Rc::new(tokio::sync::Notify::new()));
        let ask = || {
            let (lookups, begun, answer) = (lookups.clone(), begun.clone(), answer.clone());
            async move {
                let look = |_| {
                    begun.set(begun.get() + 1);
                    async move {
                        answer.notified().await;
                        Ok(["127.0.0.1:80".parse().unwrap()].into_iter())
                    }
                };
                lookups.of(&name("a"), look).await
            }
        };
        for _ in 0..3 {
            assert!(tokio::time::timeout(Duration::from_millis(5), ask()).await.is_err());
        }
        let waiting = tokio::task::spawn_local(ask());
        tokio::task::yield_now().await;
        answer.notify_one();
        assert_eq!(waiting.await.unwrap().as_deref(), Some(&["127.0.0.1:80".parse().unwrap()][..]));
        assert_eq!(begun.get(), 1);
        assert!(lookups.0.borrow().is_empty());
    }

    #[tokio::test(flavor = "local")]
    async fn names_that_hang_and_names_that_fail_are_bounded() {
        type Hang = std::future::Pending<io::Result<std::array::IntoIter<SocketAddr, 0>>>;
        let lookups = Rc::new(Lookups::default());
        for number in 0..LOOKUPS_MAX {
            let failed = async |_| Err::<std::array::IntoIter<_, 0>, _>(io::Error::other("no such name"));
            assert_eq!(lookups.of(&name("none"), failed).await, None);
            assert!(lookups.begin(&name(&number.to_string()), |_| -> Hang { std::future::pending() }).is_some());
        }
        assert!(lookups.begin(&name("more"), |_| -> Hang { std::future::pending() }).is_none());
    }
}
