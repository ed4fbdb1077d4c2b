//! The bookkeeping of one capture: the next so many requests that match are kept, so many per second at most, for so
//! long at most. A proxy keeps one only with a permit, and holds one permit at most, so what is collected exceeds what
//! was asked for by the permits that are out, and by nothing else.
//!
//! ```text
//!   connected ─► waits ─poll─► has a permit ─captured─► waits, among those that are known to have requests
//!                  ▲                 │
//!                  └── connected ── gone ◄─ disconnected: the permit is given back, and its trace may still come
//! ```
//! Pure: inputs are calls, outputs are `poll` and `status`. Permits are what is paced: those that lie with proxies
//! may be used in the same moment.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

pub type TraceId = [u8; 16];

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Asked {
    /// 1 to `TRACES`.
    pub traces: u32,
    pub per_second: f64,
    pub time: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Running,
    /// As many as were asked for.
    Enough,
    /// The time was over first.
    TimeOver,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Status<'a> {
    pub state: State,
    /// In the order in which they came, each once. Grows after the end by what permits were still out.
    pub traces: &'a [TraceId],
    /// Permits that are out, with proxies that are connected.
    pub permits: u32,
    /// Traces that came from proxies without a permit. They are not among `traces`.
    pub refused: u64,
}

#[derive(Debug)]
pub struct Capture {
    asked: Asked,
    until: Duration,
    state: State,
    connected: BTreeMap<u64, Place>,
    waiting: [BTreeMap<u64, u64>; 2],
    /// Counts those that began to wait: who waits longest is first.
    waits: u64,
    /// Which of the two is asked first next.
    turn: usize,
    /// When the next permit may be given.
    next: Duration,
    gone: BTreeSet<u64>,
    traces: Vec<TraceId>,
    known: BTreeSet<TraceId>,
    refused: u64,
    changed: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// In which of the two lines, and as which.
    Waits(usize, u64),
    Permit,
}

impl Capture {
    pub fn new(now: Duration, asked: Asked) -> Self {
        let per_second = if asked.per_second.is_finite() { asked.per_second.max(SLOWEST) } else { SLOWEST };
        let asked = Asked { traces: asked.traces.clamp(1, TRACES), per_second, ..asked };
        Self {
            asked,
            until: now + asked.time,
            state: State::Running,
            connected: BTreeMap::new(),
            waiting: Default::default(),
            waits: 0,
            turn: 0,
            next: now,
            gone: BTreeSet::new(),
            traces: Vec::new(),
            known: BTreeSet::new(),
            refused: 0,
            changed: true,
        }
    }

    /// A proxy that understands captures has begun to follow; `proxy` is the same number when it comes back.
    pub fn connected(&mut self, proxy: u64) {
        if !self.connected.contains_key(&proxy) {
            self.wait(proxy, OTHERS);
        }
    }

    /// Its permit, if it had one, is good for nothing any more; but it may have been used before.
    pub fn disconnected(&mut self, proxy: u64) {
        match self.connected.remove(&proxy) {
            Some(Place::Waits(line, number)) => {
                self.waiting[line].remove(&number);
            }
            Some(Place::Permit) if self.gone.len() < GONE => {
                self.gone.insert(proxy);
                self.changed = true;
            }
            Some(Place::Permit) | None => {}
        }
    }

    /// A request of this proxy's has matched while it had no permit: it is served before those that may have none.
    pub fn wanted(&mut self, proxy: u64) {
        if let Some(&Place::Waits(OTHERS, number)) = self.connected.get(&proxy) {
            self.waiting[OTHERS].remove(&number);
            self.wait(proxy, BUSY);
        }
    }

    /// A trace was kept. False if there was no permit for it, and it does not count.
    pub fn captured(&mut self, proxy: u64, trace: TraceId) -> bool {
        if self.connected.get(&proxy) == Some(&Place::Permit) {
            self.wait(proxy, BUSY);
        } else if !self.gone.remove(&proxy) {
            self.refused += 1;
            return false;
        }
        self.changed = true;
        if self.known.insert(trace) {
            self.traces.push(trace);
        }
        if self.state == State::Running && self.traces.len() >= self.asked.traces as usize {
            self.state = State::Enough;
        }
        true
    }

    /// The proxies that get a permit now, one each.
    pub fn poll(&mut self, now: Duration) -> Vec<u64> {
        let mut permitted = Vec::new();
        if self.state == State::Running && now >= self.until {
            self.state = State::TimeOver;
            self.changed = true;
        }
        // Who was asked late does not make up for more than this.
        self.next = self.next.max(now.saturating_sub(LATE));
        while self.state == State::Running && self.next <= now {
            let Some(proxy) = self.first() else { break };
            self.connected.insert(proxy, Place::Permit);
            self.next += Duration::from_secs_f64(1.0 / self.asked.per_second);
            self.changed = true;
            permitted.push(proxy);
        }
        permitted
    }

    /// When `poll` has something to do, if nothing else happens; `None`: never again.
    pub fn wake(&self) -> Option<Duration> {
        let waiting = self.waiting.iter().any(|line| !line.is_empty());
        let next = if waiting { self.next.min(self.until) } else { self.until };
        (self.state == State::Running).then_some(next)
    }

    pub fn status(&self) -> Status<'_> {
        let permits = self.connected.values().filter(|place| **place == Place::Permit).count() as u32;
        Status { state: self.state, traces: &self.traces, permits, refused: self.refused }
    }

    /// The status is another than when this was last asked.
    pub fn changed(&mut self) -> bool {
        std::mem::take(&mut self.changed)
    }

    fn wait(&mut self, proxy: u64, line: usize) {
        self.waits += 1;
        self.waiting[line].insert(self.waits, proxy);
        self.connected.insert(proxy, Place::Waits(line, self.waits));
    }

    /// From both lines in turn: those that have requests are not kept waiting by those that may have none, nor are
    /// these never asked.
    fn first(&mut self) -> Option<u64> {
        self.turn = 1 - self.turn;
        let first = self.waiting[self.turn].pop_first();
        first.or_else(|| self.waiting[1 - self.turn].pop_first()).map(|(_, proxy)| proxy)
    }
}

/// That one capture may ask for.
pub const TRACES: u32 = 1000;
/// That left with a permit, and of which a trace is still taken.
const GONE: usize = 20_000;
/// One in a thousand seconds.
const SLOWEST: f64 = 0.001;
const LATE: Duration = Duration::from_millis(100);
/// The two lines: of those that have captured, or would have, and of the others.
const BUSY: usize = 0;
const OTHERS: usize = 1;

#[cfg(test)]
mod tests;
