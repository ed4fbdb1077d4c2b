//! A listener as one worker serves it: its configuration with the names resolved, and its numbers.

use std::cell::{Cell, RefCell};
use std::net::IpAddr;
use std::rc::Rc;
use std::time::Duration;

use tokio_rustls::TlsAcceptor;

use super::policy::Held;
use crate::config::{AnswerTrace, ListenerProtocol, Mode, Trust, TrustClients, Underscores};
use crate::http::pool::Upstream;
use crate::meters::ListenerMeters;
use crate::rules::route::Route;

pub struct Listener {
    pub name: String,
    pub mode: Mode,
    pub transparent: bool,
    pub protocol: ListenerProtocol,
    pub trust: Trust,
    pub trust_clients: Vec<TrustClients>,
    pub policy: RefCell<Held>,
    pub answer_trace: AnswerTrace,
    pub underscores: Underscores,
    pub upstream: Option<Rc<Upstream>>,
    pub routes: Vec<Rc<Route<Rc<Upstream>>>>,
    pub tls: Option<TlsAcceptor>,
    pub opaque_ports: Vec<u16>,
    pub http_ports: Vec<u16>,
    pub detect_timeout: Duration,
    pub https_redirect: bool,
    pub trusted_hops: u32,
    pub meters: ListenerMeters,
    /// This worker's share of the connections that the proxy may have.
    pub room: usize,
    /// Connections that one client may have.
    pub per_client: Option<usize>,
    pub active: Rc<Cell<usize>>,
}

impl Listener {
    pub fn opened(&self) {
        self.active.set(self.active.get() + 1);
        self.meters.opened();
    }

    pub fn closed(&self) {
        self.active.set(self.active.get().saturating_sub(1));
        self.meters.closed();
    }

    /// How far a client is believed.
    pub fn trust_in(&self, client: IpAddr) -> Trust {
        let holds = |entry: &&TrustClients| entry.clients.iter().any(|network| network.contains(client));
        self.trust_clients.iter().find(holds).map_or(self.trust, |entry| entry.trust)
    }

    /// Counted over all listeners of the worker.
    pub fn is_full(&self) -> bool {
        self.active.get() > self.room
    }
}
