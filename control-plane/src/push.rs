//! The push protocol's server side: a stream for each proxy, over which it is sent what is new for it as soon as it is. The
//! conversation itself is `conversation`'s; here are the sockets and the tasks.

mod complaints;
pub mod conversation;
pub mod registry;
pub mod server;
mod stream;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use spanmesh_proto::v1;
use tokio::sync::{mpsc, watch};

use crate::arrivals::{Answer, Arrivals};
use crate::picture::{Picture, Seat};
use registry::Registry;

/// What all streams share.
#[derive(Clone)]
pub struct Hub {
    /// The present one; nothing before the source was read for the first time.
    pub pictures: watch::Receiver<Option<Arc<Picture>>>,
    pub registry: Arc<Registry>,
    /// To whoever plans thresholds and captures.
    pub told: mpsc::Sender<Told>,
    pub door: Arc<Door>,
}

/// Lets streams begin no faster than they can be served.
#[derive(Debug)]
pub struct Door {
    since: Instant,
    arrivals: Mutex<Arrivals>,
}

impl Default for Door {
    fn default() -> Self {
        Self { since: Instant::now(), arrivals: Mutex::new(Arrivals::new(STREAMS_PER_SECOND, STREAMS_WAITING)) }
    }
}

impl Door {
    /// `Err`: for how long to go away.
    async fn pass(&self) -> Result<(), Duration> {
        let now = self.since.elapsed();
        let answer = {
            let mut arrivals = self.arrivals.lock().unwrap_or_else(PoisonError::into_inner);
            arrivals.arrive(now, &mut rand::rng())
        };
        match answer {
            Answer::Serve => Ok(()),
            Answer::Wait { until } => {
                tokio::time::sleep(until.saturating_sub(now)).await;
                Ok(())
            }
            Answer::Leave { after } => Err(after),
        }
    }

    pub fn sent_away(&self) -> u64 {
        self.arrivals.lock().unwrap_or_else(PoisonError::into_inner).sent_away()
    }
}

/// What a proxy has told.
#[derive(Debug)]
pub enum Told {
    Connected {
        proxy: u64,
        seat: Seat,
        permits: mpsc::Sender<v1::ToProxy>,
    },
    Gone {
        proxy: u64,
    },
    /// `steady` is the same when the proxy comes back.
    Report {
        steady: u64,
        report: v1::Report,
    },
    Captured {
        proxy: u64,
        captured: v1::Captured,
    },
}

/// Each costs a handshake, a snapshot and its acknowledgement: a core does a few thousand.
const STREAMS_PER_SECOND: f64 = 1_000.0;
const STREAMS_WAITING: u32 = 2_000;
/// Within it the first message must come, and the answer to each push.
const PATIENCE: Duration = Duration::from_secs(10);
