//! Which proxies are connected, and how far each of them is: for the admin page, for statuses and for metrics.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use spanmesh_proto::v1;

use super::complaints::Complaints;

#[derive(Debug, Default)]
pub struct Registry {
    next: AtomicU64,
    proxies: Mutex<BTreeMap<u64, Seen>>,
    pub counts: Counts,
    pub complaints: Complaints,
}

/// What is counted for metrics.
#[derive(Debug, Default)]
pub struct Counts {
    pub connections: AtomicU64,
    pub turned_away: AtomicU64,
    /// Connections that ended before a proxy was served over them.
    pub failed: AtomicU64,
    pub pushes: AtomicU64,
    pub pushed_bytes: AtomicU64,
    pub acks: AtomicU64,
    pub nacks: AtomicU64,
    pub missteps: AtomicU64,
    pub reports_dropped: AtomicU64,
    /// How long pushes took from the change to the acknowledgement: buckets as `LATENCIES` has them, and their sum.
    pub latencies: [AtomicU64; LATENCIES.len() + 1],
    pub latency_micros: AtomicU64,
}

/// A connected proxy.
#[derive(Clone, Debug)]
pub struct Seen {
    pub node: v1::Node,
    pub version: String,
    pub peer: String,
    pub since: Instant,
    /// What is in force there.
    pub picture: u64,
    pub is_waiting: bool,
    /// Kind and name of what it refused, and why.
    pub refusals: Vec<(String, String)>,
    /// What it said that it does not know.
    pub unknown: Vec<String>,
    /// The latest, without its rules, and when it came.
    pub report: Option<(Instant, v1::Report)>,
    pub sums: Sums,
}

/// What a proxy's reports add up to since its stream began.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sums {
    pub arrived_kept: u64,
    pub arrived_dropped: u64,
    pub unruled: u64,
    pub spans: u64,
    pub rules: Vec<RuleSum>,
    /// Of rules that there was no room for.
    pub others: u64,
}

/// Requests that a rule decided, all operations together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleSum {
    pub policy: String,
    pub rule: String,
    pub seen: u64,
    pub kept: u64,
}

impl Sums {
    pub fn add(&mut self, report: &v1::Report) {
        self.arrived_kept = self.arrived_kept.saturating_add(report.arrived_kept);
        self.arrived_dropped = self.arrived_dropped.saturating_add(report.arrived_dropped);
        self.unruled = self.unruled.saturating_add(report.unruled);
        self.spans = self.spans.saturating_add(report.spans);
        for count in report.rules.iter().filter(|count| count.seen > 0) {
            let has_room = self.rules.len() < RULES && count.policy.len() + count.rule.len() <= NAME;
            match self.rules.iter_mut().find(|sum| sum.policy == count.policy && sum.rule == count.rule) {
                Some(sum) => {
                    sum.seen = sum.seen.saturating_add(count.seen);
                    sum.kept = sum.kept.saturating_add(count.kept);
                }
                None if has_room => {
                    let v1::RuleCount { policy, rule, seen, kept, .. } = count.clone();
                    self.rules.push(RuleSum { policy, rule, seen, kept });
                }
                None => self.others = self.others.saturating_add(count.seen),
            }
        }
    }
}

impl Registry {
    pub fn enter(&self, seen: Seen) -> u64 {
        let id = self.next.fetch_add(1, Ordering::Relaxed) + 1;
        self.lock().insert(id, seen);
        self.counts.connections.fetch_add(1, Ordering::Relaxed);
        id
    }

    pub fn leave(&self, id: u64) {
        self.lock().remove(&id);
    }

    pub fn update(&self, id: u64, change: impl FnOnce(&mut Seen)) {
        if let Some(seen) = self.lock().get_mut(&id) {
            change(seen);
        }
    }

    pub fn connected(&self) -> usize {
        self.lock().len()
    }

    /// All of them, in the order in which they came.
    pub fn list(&self) -> Vec<(u64, Seen)> {
        self.lock().iter().map(|(id, seen)| (*id, seen.clone())).collect()
    }

    /// Shows each to `look`, which must be quick.
    pub fn each(&self, look: impl FnMut(&Seen)) {
        self.lock().values().for_each(look);
    }

    /// How many have this version in force, with nothing refused. None has 0, which is before the first picture.
    pub fn converged(&self, version: u64) -> usize {
        if version == 0 {
            return 0;
        }
        self.lock().values().filter(|seen| seen.picture >= version && seen.refusals.is_empty()).count()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Seen>> {
        self.proxies.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Counts {
    pub fn add(counter: &AtomicU64, much: u64) {
        counter.fetch_add(much, Ordering::Relaxed);
    }

    pub fn took(&self, latency: Duration) {
        let place = LATENCIES.iter().position(|bound| latency <= *bound).unwrap_or(LATENCIES.len());
        if let Some(bucket) = self.latencies.get(place) {
            Self::add(bucket, 1);
        }
        Self::add(&self.latency_micros, u64::try_from(latency.as_micros()).unwrap_or(u64::MAX));
    }
}

/// The bounds of the latencies' buckets.
pub const LATENCIES: [Duration; 10] = [
    Duration::from_millis(5),
    Duration::from_millis(10),
    Duration::from_millis(25),
    Duration::from_millis(50),
    Duration::from_millis(100),
    Duration::from_millis(250),
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_secs(5),
    Duration::from_secs(30),
];
/// Rules of one proxy that are counted apart. Ten thousand proxies with so many are 40 MiB.
const RULES: usize = 32;
/// Policy and rule: names of Kubernetes, a namespace and a rule's name.
const NAME: usize = 512;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_add_up_and_rules_beyond_the_room_are_counted_together() {
        let count = |rule: usize, operation: &str| v1::RuleCount {
            policy: "shop/cart".into(),
            rule: format!("rule-{rule}"),
            operation: operation.into(),
            seen: 10,
            kept: 1,
            held: None,
        };
        let rules = (0..RULES + 3).flat_map(|rule| [count(rule, "GET /a"), count(rule, "GET /b")]).collect();
        let report = v1::Report { rules, arrived_kept: 5, unruled: 2, ..v1::Report::default() };
        let mut sums = Sums::default();
        sums.add(&report);
        sums.add(&report);
        assert_eq!((sums.rules.len(), sums.rules[0].seen, sums.rules[0].kept), (RULES, 40, 4));
        assert_eq!((sums.others, sums.arrived_kept, sums.unruled), (120, 10, 4));
    }
}
