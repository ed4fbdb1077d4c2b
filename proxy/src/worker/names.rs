//! Names that a forward proxy's clients asked for: what they stand for, found when somebody asks and remembered while
//! they are used. A name that is known keeps its addresses while it is looked up anew, so that a resolver which is slow
//! or dead holds up nobody who has been there before.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::upstreams::DYNAMIC_MAX;
use crate::http::pool::Upstream;

/// In lower case, with a port.
pub type Name = (String, u16);

#[derive(Default)]
pub struct Names {
    known: Rc<RefCell<HashMap<Name, Named>>>,
    lookups: Rc<Lookups>,
}

struct Named {
    upstream: Rc<Upstream>,
    resolved: Instant,
    /// When it was last looked up, whatever came of it.
    asked: Instant,
}

impl Named {
    fn learn(&mut self, addresses: &[SocketAddr]) {
        self.upstream.resolved(addresses);
        self.resolved = Instant::now();
    }
}

impl Names {
    /// The upstream that a name stands for, or `None` if it does not resolve.
    pub async fn of<I, F>(
        &self,
        name: Name,
        look: impl FnOnce(Name) -> F,
        make: impl FnOnce() -> Rc<Upstream>,
    ) -> Option<Rc<Upstream>>
    where
        I: Iterator<Item = SocketAddr>,
        F: Future<Output = io::Result<I>> + 'static,
    {
        if let Some(named) = self.known.borrow_mut().get_mut(&name) {
            let age = named.resolved.elapsed();
            if age < STALE && !named.upstream.endpoints().is_empty() {
                if age >= REFRESH && named.asked.elapsed() >= AGAIN {
                    named.asked = Instant::now();
                    self.refresh(&name, look);
                }
                return Some(named.upstream.clone());
            }
        }
        let looked_up = self.lookups.of(&name, look);
        let addresses = tokio::time::timeout(WAIT, looked_up).await.ok()??;
        let mut known = self.known.borrow_mut();
        if let Some(named) = known.get_mut(&name) {
            named.learn(&addresses);
            return (!addresses.is_empty()).then(|| named.upstream.clone());
        }
        let upstream = make();
        upstream.resolved(&addresses);
        if known.len() < DYNAMIC_MAX {
            let now = Instant::now();
            known.insert(name, Named { upstream: upstream.clone(), resolved: now, asked: now });
        }
        (!addresses.is_empty()).then_some(upstream)
    }

    pub fn retain(&self, keep: impl Fn(&Rc<Upstream>) -> bool) {
        self.known.borrow_mut().retain(|_, named| keep(&named.upstream));
    }

    /// Looks a name up for those who come later. One that does not resolve now stays as it was.
    fn refresh<I, F>(&self, name: &Name, look: impl FnOnce(Name) -> F)
    where
        I: Iterator<Item = SocketAddr>,
        F: Future<Output = io::Result<I>> + 'static,
    {
        if self.lookups.is_under_way(name) {
            return;
        }
        let Some(mut found) = self.lookups.begin(name, look) else { return };
        let (known, name) = (self.known.clone(), name.clone());
        tokio::task::spawn_local(async move {
            let Ok(found) = found.wait_for(Option::is_some).await.map(|found| found.clone()) else { return };
            if let Some(addresses) = found.filter(|addresses| !addresses.is_empty())
                && let Some(named) = known.borrow_mut().get_mut(&name)
            {
                named.learn(&addresses);
            }
        });
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

    fn is_under_way(&self, name: &Name) -> bool {
        self.0.borrow().contains_key(name)
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

/// A request waits no longer for a name.
const WAIT: Duration = Duration::from_secs(5);
/// A name is looked up anew after this.
const REFRESH: Duration = Duration::from_secs(10);
/// And not more often than this while that fails.
const AGAIN: Duration = Duration::from_secs(1);
/// What a name stood for before is no longer believed without its resolver.
const STALE: Duration = Duration::from_secs(600);
/// Addresses of one name.
const ADDRESSES_MAX: usize = 64;
/// Names that are looked up at once. Each takes a thread, and the runtime has 512.
const LOOKUPS_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;
    use crate::config::UpstreamProtocol;
    use crate::http::client::Settings;
    use crate::http::pool::Times;
    use crate::http::windows::Windows;
    use crate::meters::{Meters, UpstreamMeters};
    use crate::system::budget::Budget;
    use crate::telemetry::metrics::Registry;

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

    #[tokio::test(flavor = "local", start_paused = true)]
    async fn a_known_name_waits_for_no_resolver_and_learns_what_it_says_at_last() {
        let names = Names::default();
        let upstream = || {
            let settings = Settings {
                connect_timeout: WAIT,
                tls: None,
                header_bytes: 0,
                header_count: 0,
                windows: Windows(Budget::new(0)),
                frames: 0,
                meters: meters(),
            };
            let times = Times { http1_idle: WAIT, http2_idle: WAIT, max_age: WAIT, eject: WAIT };
            Rc::new(Upstream::new("a".into(), UpstreamProtocol::Auto, settings, times, meters()))
        };
        let says = |number: u8| async move |_| Ok([SocketAddr::from(([127, 0, 0, number], 80))].into_iter());
        type Answer = std::array::IntoIter<SocketAddr, 1>;
        let hangs = async |_| std::future::pending::<io::Result<Answer>>().await;
        let fails = async |_| Err::<Answer, _>(io::Error::other("no answer"));
        let of = |found: Option<Rc<Upstream>>| found.map(|upstream| upstream.endpoints()[0].address().to_string());
        let (first, second) = (Some("127.0.0.1:80".to_owned()), Some("127.0.0.2:80".to_owned()));
        let none = async || of(names.of(name("none"), fails, upstream).await);
        assert_eq!(none().await, None);
        assert_eq!(of(names.of(name("a"), says(1), upstream).await), first);
        for look in 0..3 {
            tokio::time::sleep(REFRESH).await;
            let began = Instant::now();
            let found = match look {
                0 => names.of(name("a"), fails, upstream).await,
                1 => names.of(name("a"), says(2), upstream).await,
                _ => names.of(name("a"), hangs, upstream).await,
            };
            let known = if look < 2 { &first } else { &second };
            assert_eq!((of(found), began.elapsed()), (known.clone(), Duration::ZERO), "{look}");
        }
        tokio::time::sleep(STALE).await;
        assert_eq!(of(names.of(name("a"), says(3), upstream).await), None, "the look-up that hangs");
    }

    fn meters() -> Rc<UpstreamMeters> {
        Meters::new(&Registry::new()).upstream(&"a".into())
    }
}
