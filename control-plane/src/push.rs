//! The push protocol's server side: a stream for each proxy, over which it is sent what is new for it as soon as it is. The
//! conversation itself is `conversation`'s; here are the sockets and the tasks.

pub mod conversation;
pub mod registry;
pub mod server;
mod stream;

use std::sync::Arc;
use std::time::Duration;

use spanmesh_proto::v1;
use tokio::sync::{mpsc, watch};

use crate::picture::Picture;
use registry::Registry;

/// What all streams share.
#[derive(Clone)]
pub struct Hub {
    /// The present one; nothing before the source was read for the first time.
    pub pictures: watch::Receiver<Option<Arc<Picture>>>,
    pub registry: Arc<Registry>,
    /// To whoever plans thresholds and captures.
    pub told: mpsc::Sender<Told>,
}

/// What a proxy has told.
#[derive(Debug)]
pub enum Told {
    Connected { proxy: u64, permits: mpsc::Sender<v1::ToProxy> },
    Gone { proxy: u64 },
    /// `steady` is the same when the proxy comes back.
    Report { steady: u64, report: v1::Report },
    Captured { proxy: u64, captured: v1::Captured },
}

/// Within it the first message must come, and the answer to each push.
const PATIENCE: Duration = Duration::from_secs(10);
