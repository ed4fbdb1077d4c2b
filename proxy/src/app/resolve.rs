//! Names to addresses, again and again, off the workers. A name that stops resolving keeps its last addresses: a
//! resolver that is down for a moment must not take its upstreams along.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::lookup_host;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::config::{Address, Config, Upstream};
use crate::telemetry::metrics::{Registry, family};

pub type Addresses = HashMap<String, watch::Receiver<Arc<[SocketAddr]>>>;

/// Looks every name up once, for at most `patience`, and goes on in the background.
pub async fn start(config: &Config, registry: &Registry, patience: Duration) -> Addresses {
    let mut found = Addresses::new();
    let mut first = JoinSet::new();
    for upstream in &config.upstreams {
        let (sender, receiver) = watch::channel(fixed(upstream));
        found.insert(upstream.name.clone(), receiver);
        if upstream.addresses.iter().any(|address| socket(address).is_none()) {
            let upstream = upstream.clone();
            let registry = registry.clone();
            let mut names = Names::new(upstream, sender, registry);
            first.spawn(async move {
                names.look().await;
                tokio::spawn(names.follow());
            });
        } else {
            // Fixed addresses never change; the channel stays open so that nobody takes its end for news.
            tokio::spawn(async move { sender.closed().await });
        }
    }
    let all = async { while first.join_next().await.is_some() {} };
    if timeout(patience, all).await.is_err() {
        tracing::warn!("some upstream names did not resolve in time; they are tried again");
        first.detach_all();
    }
    found
}

/// An upstream with names.
struct Names {
    upstream: Upstream,
    /// What each of its addresses last stood for, in their order.
    last: Vec<Vec<SocketAddr>>,
    sender: watch::Sender<Arc<[SocketAddr]>>,
    registry: Registry,
}

impl Names {
    fn new(upstream: Upstream, sender: watch::Sender<Arc<[SocketAddr]>>, registry: Registry) -> Self {
        let last = upstream.addresses.iter().map(|address| socket(address).into_iter().collect()).collect();
        Self { upstream, last, sender, registry }
    }

    async fn follow(mut self) {
        loop {
            tokio::select! {
                () = tokio::time::sleep(self.upstream.dns_refresh) => self.look().await,
                () = self.sender.closed() => return,
            }
        }
    }

    /// Looks all of them up at once, so that one that hangs does not keep the others from being known.
    async fn look(&mut self) {
        let mut looking = JoinSet::new();
        for (place, address) in self.upstream.addresses.iter().enumerate() {
            if socket(address).is_none() {
                let name = (address.host.clone(), address.port);
                looking.spawn(async move { (place, timeout(LOOKUP_WAIT, lookup_host(name)).await) });
            }
        }
        while let Some(looked) = looking.join_next().await {
            let Ok((place, found)) = looked else { continue };
            let outcome = match found {
                Ok(Ok(found)) => {
                    self.learn(place, found.take(ADDRESSES_MAX).collect());
                    "ok"
                }
                Ok(Err(error)) => {
                    let name = self.upstream.addresses.get(place).map(|address| address.host.as_str());
                    tracing::debug!(upstream = self.upstream.name, name, %error, "name not resolved");
                    "failed"
                }
                Err(_) => "timeout",
            };
            self.registry.shared().counter(family::NAME_LOOKUPS, &[&self.upstream.name, outcome]).add(1);
        }
    }

    fn learn(&mut self, place: usize, found: Vec<SocketAddr>) {
        if let Some(last) = self.last.get_mut(place) {
            *last = found;
        }
        self.publish();
    }

    fn publish(&self) {
        let mut addresses = self.last.concat();
        addresses.sort_unstable();
        addresses.dedup();
        let addresses: Arc<[_]> = addresses.into();
        self.sender.send_if_modified(|known| {
            let changed = *known != addresses;
            *known = addresses.clone();
            changed
        });
    }
}
fn fixed(upstream: &Upstream) -> Arc<[SocketAddr]> {
    upstream.addresses.iter().filter_map(socket).collect()
}

/// Of an address that needs no look-up.
fn socket(address: &Address) -> Option<SocketAddr> {
    let ip: IpAddr = address.host.parse().ok()?;
    Some(SocketAddr::new(ip, address.port))
}

const LOOKUP_WAIT: Duration = Duration::from_secs(5);
/// Addresses of one name that are used.
const ADDRESSES_MAX: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    #[tokio::test(flavor = "local")]
    async fn a_name_that_does_not_resolve_takes_no_other_along() {
        let text = "version: 1\nrole: standalone\nupstreams:\n\
                    - {name: app, addresses: ['none.example:80', 'localhost:81', '10.0.0.1:82', 'none.test:83']}\n";
        let mut upstream = config::parse(text, "test.yaml", std::iter::empty()).unwrap().upstreams.remove(0);
        for place in [0, 3] {
            // No name has a label of 64 letters, so that no resolver is asked for it.
            upstream.addresses[place].host = "a".repeat(64);
        }
        let (sender, receiver) = watch::channel(fixed(&upstream));
        let mut names = Names::new(upstream, sender, Registry::new());
        names.look().await;
        let ports = || receiver.borrow().iter().map(|address| address.port()).collect::<Vec<_>>();
        assert!(ports().contains(&81) && ports().contains(&82), "{:?}", ports());
        // What stopped resolving stays as it was.
        names.learn(0, vec!["10.0.0.2:80".parse().unwrap()]);
        names.look().await;
        assert!(ports().contains(&80) && ports().contains(&81) && ports().contains(&82), "{:?}", ports());
    }
}
