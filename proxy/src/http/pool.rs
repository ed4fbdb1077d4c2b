//! Upstreams as one worker sees them: their endpoints, and the connections that wait at each. Connections never cross
//! workers. They are made when a request needs one, wait for the next, and close when they have waited too long.

use std::borrow::Borrow;
use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use hyper::client::conn::http1;
use tokio::sync::watch;
use tokio::time::Instant;

use super::body::RequestBody;
use super::client::{self, Carrier, ConnectFailure, Fresh, Http2, Lease, Made, Settings, Wanted};
use crate::config::UpstreamProtocol;
use crate::error::Flag;
use crate::meters::UpstreamMeters;
use crate::rules::balance;
use crate::rules::health;
use crate::rules::retry::Budget;

/// A named group of endpoints, or the one address that a redirected connection wanted.
pub struct Upstream {
    pub name: Rc<str>,
    pub protocol: UpstreamProtocol,
    pub settings: Settings,
    pub times: Times,
    pub budget: Rc<Budget>,
    pub meters: Rc<UpstreamMeters>,
    endpoints: RefCell<Rc<[Rc<Pooled>]>>,
    used: Cell<Instant>,
}

#[derive(Clone, Copy, Debug)]
pub struct Times {
    pub http1_idle: Duration,
    pub http2_idle: Duration,
    pub max_age: Duration,
    pub eject: Duration,
}

/// One address and the connections to it.
pub struct Pooled {
    pub endpoint: Rc<balance::Endpoint>,
    pub meters: Rc<UpstreamMeters>,
    times: Times,
    http1: RefCell<Vec<Idle>>,
    http2: RefCell<Vec<Rc<Http2>>>,
    /// The one connection being made that many may share, so that a burst does not open one for each request.
    connecting: RefCell<Option<Connecting>>,
    /// TLS agreed on HTTP/1.1 the last time: there will be nothing to share, so nobody waits for another's connection.
    alone: Cell<bool>,
    /// What the last shared connection took, for the first attempt that has it.
    made: Cell<Option<Made>>,
}

/// Told once to all who wait for a shared connection: it is there, or why it is not.
type Connecting = watch::Receiver<Option<Result<(), ConnectFailure>>>;

/// How new a connection must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Age {
    Any,
    /// No HTTP/1 connection that has waited: one that is to become another protocol must not be lost to a race.
    Unused,
    /// Like `Unused`, and no HTTP/2 connection that was there when the last one broke under the request.
    YoungerThan(Instant),
    /// A new one that nobody else has had.
    Own,
}

struct Idle {
    send: http1::SendRequest<RequestBody>,
    task: Carrier,
    born: Instant,
    since: Instant,
}

impl Borrow<balance::Endpoint> for Rc<Pooled> {
    fn borrow(&self) -> &balance::Endpoint {
        &self.endpoint
    }
}

impl Upstream {
    pub fn new(
        name: Rc<str>,
        protocol: UpstreamProtocol,
        settings: Settings,
        times: Times,
        meters: Rc<UpstreamMeters>,
    ) -> Self {
        Self {
            name,
            meters,
            protocol,
            settings,
            times,
            budget: Rc::default(),
            endpoints: RefCell::new(Rc::from([])),
            used: Cell::new(Instant::now()),
        }
    }

    pub fn endpoints(&self) -> Rc<[Rc<Pooled>]> {
        self.endpoints.borrow().clone()
    }

    /// The addresses that a name has now. Endpoints that stay keep their connections and their history.
    pub fn resolved(&self, addresses: &[SocketAddr]) {
        let before = self.endpoints();
        let after = addresses.iter().map(|address| {
            let known = before.iter().find(|pooled| pooled.endpoint.address == *address);
            known.cloned().unwrap_or_else(|| Rc::new(Pooled::new(*address, self.times, self.meters.clone())))
        });
        let after: Rc<[_]> = after.collect();
        *self.endpoints.borrow_mut() = after;
    }

    /// A connection to an endpoint could not be made: it is left out for a while if there are others.
    pub fn connect_failed(&self, pooled: &Pooled, flag: Flag) {
        self.meters.connect_failed(flag);
        // That this proxy has no descriptor left is not the endpoint's doing.
        if flag != Flag::Overload {
            self.failed(pooled);
        }
    }

    fn failed(&self, pooled: &Pooled) {
        let count = self.endpoints.borrow().len();
        if health::failed(&pooled.endpoint, count, self.times.eject, Instant::now()) {
            self.meters.ejected();
        }
    }

    pub fn used(&self, now: Instant) {
        self.used.set(now);
    }

    pub fn unused_since(&self) -> Instant {
        self.used.get()
    }

    /// Closes what has waited too long. Called once a second.
    pub fn sweep(&self, now: Instant) {
        for pooled in self.endpoints().iter() {
            pooled.sweep(now);
        }
    }

    /// Whether requests or waiting connections would be lost with it.
    pub fn is_idle(&self) -> bool {
        self.endpoints().iter().all(|pooled| pooled.is_empty())
    }
}

impl Pooled {
    fn new(address: SocketAddr, times: Times, meters: Rc<UpstreamMeters>) -> Self {
        Self {
            endpoint: Rc::new(balance::Endpoint::new(address)),
            meters,
            times,
            http1: RefCell::default(),
            http2: RefCell::default(),
            connecting: RefCell::default(),
            alone: Cell::new(false),
            made: Cell::new(None),
        }
    }

    pub fn address(&self) -> SocketAddr {
        self.endpoint.address
    }

    /// A connection for one attempt: one that waits, or a new one. Owns what it needs, so that it can be left to finish
    /// by itself when the request waits no longer. Says what a connection took that was made for it.
    pub async fn lease(
        self: Rc<Self>,
        upstream: Rc<Upstream>,
        wanted: Wanted,
        age: Age,
    ) -> Result<(Lease, Option<Made>), ConnectFailure> {
        let _in_flight = self.endpoint.enter();
        let mut broken = 0;
        let mut waited = false;
        loop {
            if let Some(lease) = self.waiting(wanted, age, Instant::now()) {
                return Ok((lease, if waited { self.made.take() } else { None }));
            }
            if wanted == Wanted::Http1 || age == Age::Own || self.alone.get() {
                let (lease, made) = self.connected(&upstream, wanted).await?;
                return Ok((lease, Some(made)));
            }
            match self.unsettled() {
                Some(young) => young.settled().await,
                None => {
                    self.shared_connect(&upstream, wanted).await?;
                    waited = true;
                }
            }
            // Full ones are no fault: others had them first. But where none is left they were closed as soon as made.
            if !self.alone.get() && !self.http2.borrow().iter().any(|shared| shared.is_usable()) {
                broken += 1;
                if broken == ROUNDS {
                    upstream.failed(&self);
                    let text =
                        format!("{} closes HTTP/2 connections at once; maybe it speaks HTTP/1.1", self.address());
                    return Err(ConnectFailure { flag: Flag::ConnectFailed, text });
                }
            }
        }
    }

    /// Waits for the connection that is being made, or begins one. It has a task of its own, because the request that
    /// began it may go away while others wait for it; when it fails they all hear of it at once.
    async fn shared_connect(self: &Rc<Self>, upstream: &Rc<Upstream>, wanted: Wanted) -> Result<(), ConnectFailure> {
        let under_way = self.connecting.borrow().clone();
        let mut told = under_way.unwrap_or_else(|| {
            let (teller, told) = watch::channel(None);
            *self.connecting.borrow_mut() = Some(told.clone());
            let (pooled, upstream) = (self.clone(), upstream.clone());
            tokio::task::spawn_local(async move {
                let outcome = pooled.connected(&upstream, wanted).await.map(|(lease, made)| {
                    pooled.made.set(Some(made));
                    lease.give_back(true, Instant::now());
                });
                pooled.connecting.borrow_mut().take();
                teller.send_replace(Some(outcome));
            });
            told
        });
        let outcome = told.wait_for(Option::is_some).await.ok().and_then(|outcome| outcome.clone());
        outcome.unwrap_or_else(|| {
            let text = "the connection was given up".into();
            Err(ConnectFailure { flag: Flag::ConnectFailed, text })
        })
    }

    async fn connected(self: &Rc<Self>, upstream: &Upstream, wanted: Wanted) -> Result<(Lease, Made), ConnectFailure> {
        let in_flight = self.endpoint.enter();
        match client::connect(self.address(), wanted, &upstream.settings, self.meters.connection()).await {
            Ok((fresh, made)) => {
                upstream.meters.connected(&fresh);
                self.alone.set(matches!((wanted, &fresh), (Wanted::Negotiated, Fresh::Http1(..))));
                let lease = match fresh {
                    Fresh::Http1(send, task) => {
                        Lease::http1(send, task, self.clone(), in_flight, Instant::now(), false)
                    }
                    Fresh::Http2(shared) => {
                        self.http2.borrow_mut().push(shared.clone());
                        Lease::http2(shared, self.clone(), in_flight)
                    }
                };
                Ok((lease, made))
            }
            Err(failure) => {
                upstream.connect_failed(self, failure.flag);
                Err(failure)
            }
        }
    }

    /// A connection that is there already.
    pub fn waiting(self: &Rc<Self>, wanted: Wanted, age: Age, now: Instant) -> Option<Lease> {
        if age == Age::Own {
            return None;
        }
        if wanted != Wanted::Http1
            && let Some(shared) = self.shared(age, now)
        {
            return Some(Lease::http2(shared, self.clone(), self.endpoint.enter()));
        }
        if wanted != Wanted::Http2
            && age == Age::Any
            && let Some(idle) = self.idle(now)
        {
            return Some(Lease::http1(idle.send, idle.task, self.clone(), self.endpoint.enter(), idle.born, true));
        }
        None
    }

    /// The usable shared connection with the fewest streams.
    fn shared(&self, age: Age, now: Instant) -> Option<Rc<Http2>> {
        let mut list = self.http2.borrow_mut();
        list.retain(|shared| shared.is_usable());
        list.iter()
            .filter(|shared| shared.has_room() && now.duration_since(shared.born) < self.times.max_age)
            .filter(|shared| !matches!(age, Age::YoungerThan(born) if shared.born <= born))
            .min_by_key(|shared| shared.streams())
            .cloned()
    }

    /// A connection so new that its peer has not said yet how many streams it takes.
    fn unsettled(&self) -> Option<Rc<Http2>> {
        self.http2.borrow().iter().find(|shared| shared.is_usable() && !shared.is_settled()).cloned()
    }

    /// The connection that waited least: the others may then grow old and close.
    fn idle(&self, now: Instant) -> Option<Idle> {
        let mut list = self.http1.borrow_mut();
        while let Some(idle) = list.pop() {
            if idle.send.is_ready() && idle.fits(&self.times, now) {
                return Some(idle);
            }
        }
        None
    }

    /// Takes a connection whose answer has ended. hyper may need another turn before it can be used again.
    pub fn put(self: &Rc<Self>, mut send: http1::SendRequest<RequestBody>, task: Carrier, born: Instant, now: Instant) {
        if send.is_ready() {
            self.http1.borrow_mut().push(Idle { send, task, born, since: now });
            return;
        }
        let pooled = self.clone();
        tokio::task::spawn_local(async move {
            let ready = tokio::time::timeout(pooled.times.http1_idle, send.ready()).await;
            if ready.is_err() {
                // The rest of the request's body has not gone out by now: the origin answered without it.
                task.abort();
            } else if matches!(ready, Ok(Ok(()))) {
                pooled.http1.borrow_mut().push(Idle { send, task, born, since: Instant::now() });
            }
        });
    }

    fn sweep(&self, now: Instant) {
        self.http1.borrow_mut().retain(|idle| !idle.send.is_closed() && idle.fits(&self.times, now));
        let times = &self.times;
        self.http2.borrow_mut().retain(|shared| {
            let waited = now.saturating_duration_since(shared.idle_since());
            let old = now.saturating_duration_since(shared.born) >= times.max_age;
            shared.is_usable() && !(shared.streams() == 0 && (old || waited >= times.http2_idle))
        });
    }

    /// A request was answered. A connection alone proves little: many a broken peer accepts and closes.
    pub fn answered(&self) {
        health::succeeded(&self.endpoint);
    }

    fn is_empty(&self) -> bool {
        self.http1.borrow().is_empty() && self.http2.borrow().is_empty() && self.endpoint.in_flight() == 0
    }
}

impl Idle {
    fn fits(&self, times: &Times, now: Instant) -> bool {
        now.saturating_duration_since(self.since) < times.http1_idle
            && now.saturating_duration_since(self.born) < times.max_age
    }
}

/// How often those who share a connection wait for another one when it is closed before they had it.
const ROUNDS: u32 = 3;
