//! What the storm counts and what it concludes: the good traffic's uses, the proxy's own numbers every few seconds, a line
//! a minute, and the verdict.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::good::Kind;
use crate::proxy;

/// The good traffic so far.
#[derive(Default)]
pub struct Tally {
    /// Micros of each use since the last line.
    latencies: RefCell<Vec<u32>>,
    uses: RefCell<BTreeMap<String, (usize, Duration)>>,
    pub failed: RefCell<Vec<String>>,
    pub attacks: Cell<usize>,
}

/// A use under way; one that is dropped was not finished, and its round fails.
pub struct Timed {
    tally: Rc<Tally>,
    kind: Kind,
    began: Instant,
}

impl Tally {
    pub fn begin(self: &Rc<Self>, kind: Kind) -> Timed {
        Timed { tally: self.clone(), kind, began: Instant::now() }
    }

    /// What the minute brought.
    fn take(&self) -> (usize, Duration, Duration) {
        let mut latencies = self.latencies.take();
        latencies.sort_unstable();
        let at = |part: usize| latencies.get(latencies.len() * part / 100).copied().unwrap_or_default();
        let longest = latencies.last().copied().unwrap_or_default();
        (latencies.len(), Duration::from_micros(at(99).into()), Duration::from_micros(longest.into()))
    }
}

impl Timed {
    pub fn done(self) {
        let took = self.began.elapsed();
        let (tally, kind) = (&self.tally, self.kind);
        tally.latencies.borrow_mut().push(u32::try_from(took.as_micros()).unwrap_or(u32::MAX));
        let mut uses = tally.uses.borrow_mut();
        let (count, longest) = uses.entry(format!("{kind:?}")).or_default();
        *count += 1;
        *longest = took.max(*longest);
        if took > kind.bound() {
            tally.failed.borrow_mut().push(format!("{kind:?} took {took:?}"));
        }
    }
}

/// The proxy at one moment.
#[derive(Clone, Debug)]
pub struct Sample {
    pub at: Duration,
    pub resident: f64,
    /// Without those of splice's pipes, of which some wait for their next use.
    pub descriptors: usize,
    pub gauges: [f64; 6],
}

/// Those that must come back to what they were; the last is not 0 at rest.
pub const GAUGES: [&str; 6] = [
    "requests_in_flight",
    "upstream_requests_in_flight",
    "connections_active",
    "upstream_connections_active",
    "spans_in_flight",
    "worker_tasks",
];

impl Sample {
    pub async fn take(process: u32, status: std::net::SocketAddr, began: Instant) -> Self {
        // Before it is asked, which is a connection of its own.
        let descriptors = descriptors(process);
        let metrics = tokio::task::spawn_blocking(move || proxy::plain(status, "GET", "/metrics")).await.expect("join");
        let pipes = proxy::sum(&metrics, "spanmesh_proxy_splice_pipe_bytes", &[]) / f64::from(128 << 10);
        Self {
            at: began.elapsed(),
            resident: resident(process),
            descriptors: descriptors.saturating_sub(2 * pipes as usize),
            gauges: GAUGES.map(|name| proxy::sum(&metrics, &format!("spanmesh_proxy_{name}"), &[])),
        }
    }

    /// Whether anything is under way.
    pub fn is_busy(&self) -> bool {
        let [under_way @ .., _tasks] = self.gauges;
        under_way.iter().any(|gauge| *gauge > 0.0)
    }

    /// Whether nothing is held that was not held before.
    pub fn is_back_at(&self, idle: &Sample) -> bool {
        self.descriptors <= idle.descriptors && self.gauges.iter().zip(idle.gauges).all(|(now, then)| *now <= then)
    }
}

/// Resident memory of a process in MiB.
fn resident(process: u32) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok()).unwrap_or_default() / 1024.0
}

/// Descriptors that a process has open.
pub fn descriptors(process: u32) -> usize {
    std::fs::read_dir(format!("/proc/{process}/fd")).map_or(0, Iterator::count)
}

pub fn heading() {
    println!(
        "{:>6} {:>8} {:>6} {:>8} {:>9} {:>8} {:>8} {:>5} {:>9} {:>8} {:>8} {:>8} {:>6} {:>6}",
        "time",
        "good",
        "failed",
        "p99 ms",
        "max ms",
        "hostile",
        "MiB",
        "fds",
        "in flight",
        "attempts",
        "clients",
        "upstream",
        "spans",
        "tasks"
    );
}

pub fn line(tally: &Tally, sample: &Sample) {
    let (good, high, longest) = tally.take();
    let millis = |time: Duration| time.as_secs_f64() * 1e3;
    let [in_flight, attempts, clients, upstream, spans, tasks] = sample.gauges;
    println!(
        "{:>5}s {good:>8} {:>6} {:>8.1} {:>9.1} {:>8} {:>8.1} {:>5} {in_flight:>9} {attempts:>8} {clients:>8} \
         {upstream:>8} {spans:>6} {tasks:>6}",
        sample.at.as_secs(),
        tally.failed.borrow().len(),
        millis(high),
        millis(longest),
        tally.attacks.get(),
        sample.resident,
        sample.descriptors,
    );
}

/// Memory is flat when, behind the warm-up (the first third, at most ten minutes), a straight line through the samples
/// rises by no more than a tenth of the memory or 4 MiB, whichever is more, and the highest sample of the last half of
/// it is not above the highest of the first half by more than that either.
pub fn memory(samples: &[Sample], length: Duration) -> Result<String, String> {
    if length < JUDGED {
        return Ok(format!("not judged in less than {JUDGED:?}"));
    }
    let warm = (length / 3).min(Duration::from_secs(600));
    let points: Vec<(f64, f64)> = samples
        .iter()
        .filter(|sample| sample.at >= warm && sample.at <= length)
        .map(|sample| (sample.at.as_secs_f64(), sample.resident))
        .collect();
    let (early, late) = points.split_at(points.len() / 2);
    let highest = |points: &[(f64, f64)]| points.iter().map(|(_, memory)| *memory).fold(0.0, f64::max);
    let count = points.len() as f64;
    let mean = |of: fn(&(f64, f64)) -> f64| points.iter().map(of).sum::<f64>() / count;
    let (time, resident) = (mean(|point| point.0), mean(|point| point.1));
    let spread: f64 = points.iter().map(|point| (point.0 - time).powi(2)).sum();
    let slope = points.iter().map(|point| (point.0 - time) * (point.1 - resident)).sum::<f64>() / spread;
    let rise = slope * (length - warm).as_secs_f64();
    let allowed = (resident / 10.0).max(4.0);
    let text = format!(
        "{resident:.1} MiB on average behind the warm-up of {warm:?}, a line through it rises {rise:+.1} MiB, highest \
         {:.1} then {:.1} MiB, allowed {allowed:.1}",
        highest(early),
        highest(late)
    );
    if early.is_empty() || rise > allowed || highest(late) - highest(early) > allowed { Err(text) } else { Ok(text) }
}

/// In a shorter storm everything is warm-up.
const JUDGED: Duration = Duration::from_secs(120);

/// Each kind of good traffic was there, and all of it was right and in time.
pub fn unharmed(tally: &Tally) -> Result<String, String> {
    let uses = tally.uses.borrow();
    let each: Vec<_> =
        uses.iter().map(|(kind, (count, longest))| format!("{kind} {count} (at most {longest:.1?})")).collect();
    let failed = tally.failed.borrow();
    let text = format!("{} failed of {}", failed.len(), each.join(", "));
    if failed.is_empty() && uses.len() == Kind::ALL.len() { Ok(text) } else { Err(format!("{text}: {failed:?}")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(memory: impl Fn(f64) -> f64) -> Vec<Sample> {
        let sample = |second: u64| Sample {
            at: Duration::from_secs(second),
            resident: memory(second as f64),
            descriptors: 0,
            gauges: [0.0; 6],
        };
        (0..600).step_by(5).map(sample).collect()
    }

    #[test]
    fn a_rise_behind_the_warm_up_is_a_leak_and_one_before_it_is_none() {
        let length = Duration::from_secs(600);
        let wave = |second: f64| 30.0 + 2.0 * (second / 20.0).sin();
        memory(&samples(wave), length).unwrap();
        memory(&samples(|second| wave(second).min(second / 3.0)), length).unwrap();
        memory(&samples(|second| wave(second) + second / 50.0), length).unwrap_err();
        memory(&samples(|second| wave(second) + if second > 590.0 { 10.0 } else { 0.0 }), length).unwrap_err();
    }
}
