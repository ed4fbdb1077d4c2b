//! The captures that run, with the proxies that take part in each: gives out permits, takes in traces, and knows when one is
//! over. The bookkeeping of one is `capture`'s.

use std::collections::BTreeMap;
use std::time::Duration;

use spanmesh_crds::{CapturePhase, TraceCaptureSpec};
use spanmesh_proto::v1;
use tokio::sync::mpsc;

use crate::capture::{Asked, Capture, State};
use crate::cluster::{Meta, Resource, concerns};
use crate::picture::Seat;

#[derive(Default)]
pub struct Capturing {
    /// By `namespace/name`.
    captures: BTreeMap<String, Running>,
    proxies: BTreeMap<u64, (Seat, mpsc::Sender<v1::ToProxy>)>,
    removed: bool,
}

struct Running {
    resource: Resource<TraceCaptureSpec>,
    capture: Capture,
}

/// What one has come to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    pub namespace: String,
    pub name: String,
    pub generation: u64,
    pub phase: &'static str,
    pub asked: u32,
    /// In hexadecimal digits.
    pub traces: Vec<String>,
    pub permits: u32,
}

impl Capturing {
    /// Those that are to run. One that says something else than before begins anew.
    pub fn set(&mut self, now: Duration, resources: &[Resource<TraceCaptureSpec>]) {
        let before = std::mem::take(&mut self.captures);
        let count = before.len();
        let mut before = before.into_iter().collect::<BTreeMap<_, _>>();
        for resource in resources {
            let name = resource.meta.full_name();
            let running = match before.remove(&name) {
                Some(running) if running.resource == *resource => running,
                _ => self.begin(now, resource.clone()),
            };
            self.captures.insert(name, running);
        }
        self.removed |= !before.is_empty() || count > self.captures.len();
    }

    fn begin(&self, now: Duration, resource: Resource<TraceCaptureSpec>) -> Running {
        let spec = &resource.spec;
        let asked = Asked {
            traces: spec.traces,
            per_second: spec.traces_per_second.into(),
            time: spec.duration.parse().unwrap_or_default(),
        };
        let mut capture = Capture::new(now, asked);
        let part = self.proxies.iter().filter(|(_, (seat, _))| takes_part(&resource, seat));
        part.for_each(|(proxy, _)| capture.connected(*proxy));
        Running { resource, capture }
    }

    pub fn connected(&mut self, proxy: u64, seat: Seat, permits: mpsc::Sender<v1::ToProxy>) {
        for running in self.captures.values_mut().filter(|running| takes_part(&running.resource, &seat)) {
            running.capture.connected(proxy);
        }
        self.proxies.insert(proxy, (seat, permits));
    }

    pub fn gone(&mut self, proxy: u64) {
        self.proxies.remove(&proxy);
        self.captures.values_mut().for_each(|running| running.capture.disconnected(proxy));
    }

    pub fn captured(&mut self, proxy: u64, captured: &v1::Captured) {
        let Some(running) = self.captures.get_mut(&captured.capture) else { return };
        match captured.trace.as_slice().try_into() {
            Ok(trace) => drop(running.capture.captured(proxy, trace)),
            Err(_) => running.capture.wanted(proxy),
        }
    }

    /// Gives out the permits that are due. True if one has ended.
    pub fn poll(&mut self, now: Duration) -> bool {
        let mut ended = false;
        for (name, running) in &mut self.captures {
            let before = running.capture.status().state;
            for proxy in running.capture.poll(now) {
                let permit = v1::Permit { capture: name.clone() };
                let message = v1::ToProxy { message: Some(v1::to_proxy::Message::Permit(permit)) };
                let sent = self.proxies.get(&proxy).map(|(_, permits)| permits.try_send(message));
                // One that does not read what it is sent goes without; it gets another when it comes back.
                if !matches!(sent, Some(Ok(()))) {
                    running.capture.disconnected(proxy);
                }
            }
            ended |= before == State::Running && running.capture.status().state != State::Running;
        }
        ended
    }

    pub fn wake(&self) -> Duration {
        let wakes = self.captures.values().filter_map(|running| running.capture.wake());
        wakes.min().unwrap_or(Duration::from_secs(3600))
    }

    pub fn runs(&self, meta: &Meta) -> bool {
        let running = self.captures.get(&meta.full_name());
        running.is_some_and(|running| running.capture.status().state == State::Running)
    }

    /// Nothing if it is as it was.
    pub fn shown(&mut self) -> Option<Vec<Shown>> {
        let mut changed = std::mem::take(&mut self.removed);
        for running in self.captures.values_mut() {
            changed |= running.capture.changed();
        }
        changed.then(|| self.captures.values().map(shown).collect())
    }
}

fn shown(running: &Running) -> Shown {
    let Running { resource, capture } = running;
    let status = capture.status();
    let digits = |trace: &[u8; 16]| trace.iter().map(|byte| format!("{byte:02x}")).collect();
    Shown {
        namespace: resource.meta.namespace.clone(),
        name: resource.meta.name.clone(),
        generation: resource.meta.generation,
        phase: match status.state {
            State::Running => CapturePhase::Running,
            State::Enough => CapturePhase::Done,
            State::TimeOver => CapturePhase::Expired,
        }
        .word(),
        asked: resource.spec.traces,
        traces: status.traces.iter().map(digits).collect(),
        permits: status.permits,
    }
}

fn takes_part(resource: &Resource<TraceCaptureSpec>, seat: &Seat) -> bool {
    let (meta, target) = (&resource.meta, resource.spec.target_ref.as_ref());
    match target {
        None => meta.namespace == seat.namespace,
        Some(target) => concerns(target, &meta.namespace, seat).is_some(),
    }
}
