//! The light load: requests to the gateway at a steady rate, and what became of them.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, Request};
use http_body_util::Full;
use spanmesh_proto::TraceId;
use tokio::task::JoinHandle;

use crate::http::{Version, ask};

pub struct Load {
    samples: Rc<RefCell<VecDeque<Sample>>>,
    task: JoinHandle<()>,
}

/// One request that was answered, or was not.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    pub begun: Instant,
    pub status: Option<u16>,
    /// Its trace, and whether it is kept, as the gateway tells.
    pub trace: Option<(TraceId, bool)>,
    /// It went through all services and back, whatever these made of it.
    pub carried: bool,
    /// The service that forwards B3 was told the same trace in both forms.
    pub agrees: bool,
}

impl Load {
    pub fn start(edge: Option<SocketAddr>, rate: f64) -> Self {
        let samples = Rc::new(RefCell::new(VecDeque::new()));
        let (kept, open) = (samples.clone(), Rc::new(Cell::new(0usize)));
        let task = tokio::task::spawn_local(async move {
            let Some(edge) = edge else { return };
            let mut beat = tokio::time::interval(Duration::from_secs_f64(1.0 / rate));
            beat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            for number in 0u64.. {
                beat.tick().await;
                if open.get() >= OPEN {
                    continue;
                }
                open.set(open.get() + 1);
                let (kept, open) = (kept.clone(), open.clone());
                tokio::task::spawn_local(async move {
                    let sample = send(edge, number).await;
                    let mut kept = kept.borrow_mut();
                    kept.push_back(sample);
                    while kept.len() > KEPT {
                        kept.pop_front();
                    }
                    open.set(open.get() - 1);
                });
            }
        });
        Self { samples, task }
    }

    /// Those that began since then.
    pub fn since(&self, then: Instant) -> Vec<Sample> {
        self.samples.borrow().iter().filter(|sample| sample.begun >= then).copied().collect()
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn send(edge: SocketAddr, number: u64) -> Sample {
    let begun = Instant::now();
    let lost = Sample { begun, status: None, trace: None, carried: false, agrees: true };
    let request = Request::get(format!("/checkout?item={number}"))
        .header("host", edge.to_string())
        .header("user-agent", "spanmesh-demo")
        .body(Full::<Bytes>::default());
    let Ok(request) = request else { return lost };
    match ask(edge, Version::Http1, request, PATIENCE).await {
        Err(_) => lost,
        Ok(whole) => {
            let body = String::from_utf8_lossy(&whole.body);
            Sample {
                status: Some(whole.head.status.as_u16()),
                trace: trace(&whole.head.headers),
                carried: whole.head.status == 200 || body.contains("\"stock\":true,\"paid\":false"),
                agrees: !body.contains("\"disagrees\""),
                ..lost
            }
        }
    }
}

/// `server-timing: traceparent;desc="00-…-…-01"`.
fn trace(headers: &HeaderMap) -> Option<(TraceId, bool)> {
    let text = headers.get("server-timing")?.to_str().ok()?;
    let context = text.split_once("traceparent;desc=\"")?.1.split_once('"')?.0;
    let mut parts = context.split('-').skip(1);
    let trace = TraceId::parse(parts.next()?.as_bytes())?;
    let flags = u8::from_str_radix(parts.nth(1)?, 16).ok()?;
    Some((trace, flags & 1 == 1))
}

/// A mesh that does not answer any more gets no more requests.
const OPEN: usize = 64;
const KEPT: usize = 10_000;
const PATIENCE: Duration = Duration::from_secs(10);
