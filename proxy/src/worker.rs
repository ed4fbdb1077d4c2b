//! One worker: a thread with a runtime of its own, which accepts connections and carries them to their end. It owns its
//! listeners' sockets, its upstream connections, its numbers and its spans; a request never leaves it.

pub mod callees;
pub mod listener;
mod names;
pub mod policy;
pub mod run;
pub mod upstreams;

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use rand::rngs::SmallRng;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::config::{Limits, Node};
use crate::drain::Drain;
use crate::http::replay::Buffers;
use crate::http::stalled::Answers;
use crate::http::uploads::Waited;
use crate::meters::Meters;
use crate::net;
use crate::net::copy::pipe::Pipes;
use crate::net::original_dst::LocalAddresses;
use crate::rules::template::Templates;
use crate::shared::Shared;
use crate::system::files::Descriptors;
use crate::telemetry::access_log::AccessLog;
use crate::trace::clock::Clock;
use crate::trace::export::SpanBuffer;
use crate::trace::in_flight::InFlight;
use crate::trace::propagate::ink::Ink;
use crate::worker::callees::Callees;

pub struct Worker {
    pub limits: Limits,
    pub shared: Shared,
    pub clock: Clock,
    pub rng: RefCell<SmallRng>,
    pub drain: Drain,
    pub meters: Meters,
    pub access_log: AccessLog,
    /// How its spans are told, and so what is taken down for them.
    pub spans: SpanBuffer,
    /// The answers that go out to clients.
    pub answers: Answers,
    /// The clients' bodies that are waited for.
    pub waited: Waited,
    /// What is left for bodies that are kept for another try.
    pub buffers: Buffers,
    pub descriptors: Descriptors,
    pub upstreams: upstreams::Upstreams,
    /// The addresses of this pod.
    pub addresses: RefCell<LocalAddresses>,
    pub pipes: Pipes,
    /// TLS handshakes that may run at once.
    pub handshakes: Semaphore,
    /// Memory for the headers that carry the trace.
    pub ink: RefCell<Ink>,
    /// What a sidecar's application works on.
    pub in_flight: Option<InFlight>,
    /// How often what lives long is reported.
    pub interim: Duration,
    /// What paths look like, by the upstream that they are asked of.
    pub templates: RefCell<BTreeMap<Rc<str>, Templates>>,
    /// The services that upstreams are, by their names, where the configuration says.
    pub services: HashMap<String, String>,
    /// Services that the control plane was told of.
    pub callees: RefCell<Callees>,
    /// Whom this proxy speaks for.
    pub node: Node,
    /// Where this proxy itself listens.
    own: Vec<SocketAddr>,
}

impl Worker {
    /// What is due once a second.
    pub fn look(&self, now: Instant) {
        self.clock.refresh();
        self.spans.flush();
        self.upstreams.sweep(now);
        self.answers.sweep(now);
        self.waited.sweep(now);
    }

    /// Whether an address is a listener of this proxy: a connection to it would go round in circles. A listener on the
    /// unspecified address is reached by every address of the pod.
    pub fn is_own(&self, address: SocketAddr) -> bool {
        let address = net::canonical(address);
        self.own.iter().map(|own| net::canonical(*own)).any(|own| {
            own.port() == address.port()
                && (own.ip() == address.ip()
                    || (own.ip().is_unspecified() || own.ip().is_loopback()) && self.is_local(address.ip()))
        })
    }

    /// Linux takes a connection to the unspecified address to loopback.
    fn is_local(&self, ip: IpAddr) -> bool {
        ip.is_loopback() || ip.is_unspecified() || self.addresses.borrow_mut().contains(ip, Instant::now())
    }
}
