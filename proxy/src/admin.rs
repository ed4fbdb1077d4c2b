//! The two small servers beside the road. Admin, on loopback, shows and changes everything; status, for the kubelet and
//! Prometheus, shows life, readiness and metrics and nothing else. Both run on the background runtime.
//!
//! What changes state is POST, and a browser that was lured cannot do it: see `guard`.

mod guard;
mod health;
mod pages;
mod server;

use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};

use crate::telemetry::log::LogControl;
use crate::telemetry::metrics::Registry;
pub use guard::fuzz_guard;
pub use health::{Health, Heartbeat, Phase};
pub use pages::fuzz_query;

/// What the servers show and steer. Clones share it.
#[derive(Clone)]
pub struct AdminState {
    /// The configuration that runs, as YAML, without secrets.
    pub config_yaml: Arc<dyn Fn() -> String + Send + Sync>,
    pub log: LogControl,
    pub registry: Registry,
    pub health: Health,
    /// Where orders go. When it is full, the order is answered with 503 and not kept.
    pub commands: mpsc::Sender<Command>,
}

/// What an operator can order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// Finish what is in flight and end, as after SIGTERM.
    Drain,
    /// End now.
    Quit,
}

/// Serves everything, until it is told to close.
pub async fn serve_admin(listener: TcpListener, state: AdminState, closing: watch::Receiver<bool>) {
    server::serve(listener, state, pages::ADMIN, closing).await;
}

/// Serves `/live`, `/ready` and `/metrics`, until it is told to close.
pub async fn serve_status(listener: TcpListener, state: AdminState, closing: watch::Receiver<bool>) {
    server::serve(listener, state, pages::STATUS, closing).await;
}
