//! Everything that workers share, each with its reason. What a request touches is one relaxed atomic a cache line; what
//! has a lock is touched by some connections once. All else belongs to one worker.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::time::Instant;

use crate::clients::Clients;
use crate::http::windows::Windows;
use crate::net::copy::Side;
use crate::net::server_first::ServerFirst;
use crate::system::budget::Budget;
use crate::system::memory::MemoryWatch;
use crate::trace::in_flight::InFlight;
use crate::trace::names::Names;
use crate::trace::sampler::Sampler;

/// Clones share.
#[derive(Clone)]
pub struct Shared {
    /// Memory runs out for the whole process at once. Written by the memory watch, read once per request.
    memory: MemoryWatch,
    /// Pipe pages are limited per user id, so the workers draw on one budget. Written when a pipe is made or closed.
    pub pipes: Arc<Budget>,
    /// Memory runs out for the whole process at once, and a window is a promise of it. Written when an HTTP/2 connection
    /// is made or ends.
    pub windows: Windows,
    /// Destinations that speak before their clients do. Found out at the price of a wait, so it is paid once and not
    /// once per worker. Asked once for each connection whose protocol is not declared.
    server_first: Arc<Mutex<ServerFirst>>,
    /// A client's connections are spread over all workers. Touched when a connection comes and goes, where clients have
    /// a limit.
    pub clients: Clients,
    /// What a sidecar's application works on came in over one worker, and what it sends may go out over another. A
    /// lock, taken twice for each inbound request of a sidecar and once for one without a context that goes out.
    pub in_flight: InFlight,
    /// What reads spans counts the names of a service and not of its workers. A lock, taken once for each name that is
    /// new to a worker.
    pub names: Names,
    /// Rates are the proxy's and not a worker's, and a capture takes so many traces in all. Workers count for themselves
    /// and read thresholds, a relaxed load a request; a permit is one atomic, written when a trace is captured.
    pub sampler: Sampler,
}

impl Shared {
    pub fn new(memory: MemoryWatch, pipe_bytes: usize, window_bytes: usize) -> Self {
        let in_flight = InFlight::default();
        let (pipes, windows) = (Budget::new(pipe_bytes), Windows(Budget::new(window_bytes)));
        Self {
            memory,
            pipes,
            windows,
            server_first: Arc::default(),
            clients: Clients::default(),
            in_flight,
            names: Names::default(),
            sampler: Sampler::default(),
        }
    }

    pub fn is_overloaded(&self) -> bool {
        self.memory.refuses()
    }

    pub fn is_server_first(&self, destination: SocketAddr, now: Instant) -> bool {
        self.server_first.lock().unwrap_or_else(PoisonError::into_inner).contains(destination, now)
    }

    pub fn spoke_first(&self, destination: SocketAddr, side: Side, now: Instant) {
        self.server_first.lock().unwrap_or_else(PoisonError::into_inner).spoke(destination, side, now);
    }
}
