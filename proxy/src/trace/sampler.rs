//! The numbers behind the decisions, for all workers: thresholds that move, what captures may still take, and what there is
//! to report. Off the road: the background looks ten times a second, the client of the control plane brings and takes.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::rules::sampling::{Captured, Counts, Engine, Limit, Plan, Pushed, Refused, Steward};
use crate::telemetry::metrics::{AnyThread, Shard, family};

/// Clones share.
#[derive(Clone)]
pub struct Sampler(Arc<Inner>);

struct Inner {
    steward: Mutex<Steward>,
    takes: mpsc::Sender<Captured>,
    taken: Mutex<Option<mpsc::Receiver<Captured>>>,
    calls: OnceLock<mpsc::Sender<String>>,
}

impl Default for Sampler {
    fn default() -> Self {
        let (takes, taken) = mpsc::channel(CAPTURED);
        Self(Arc::new(Inner {
            steward: Mutex::default(),
            takes,
            taken: Mutex::new(Some(taken)),
            calls: OnceLock::new(),
        }))
    }
}

impl Sampler {
    /// A plan as workers ask it. Parts of it that cannot be used are left out and told.
    pub fn engine(&self, plan: &Plan) -> (Arc<Engine>, Vec<Refused>) {
        let mut steward = self.steward();
        let (engine, refused) = Engine::compile(plan, &mut steward.lasting, Some(self.0.takes.clone()));
        steward.forget(plan);
        let engine = Arc::new(engine);
        steward.follow(engine.clone());
        (engine, refused)
    }

    /// What rules of the whole mesh come to at present, in place of what was pushed before.
    pub fn thresholds(&self, pushed: Vec<Pushed>) {
        self.steward().push(pushed);
    }

    /// Within what a burst is held here before there are other thresholds, in place of what was pushed before.
    pub fn limits(&self, limits: Vec<Limit>) {
        self.steward().limit(limits);
    }

    /// A capture may take one.
    pub fn permit(&self, capture: &str) {
        for ((name, _), permits) in &self.steward().lasting.permits {
            if **name == *capture {
                permits.store(1, Relaxed);
            }
        }
    }

    /// No capture may take one any more.
    pub fn revoke(&self) {
        self.steward().lasting.permits.values().for_each(|permits| permits.store(0, Relaxed));
    }

    /// Services that are called for the first time, from now on, as `service.namespace`. For one reader.
    pub fn called(&self) -> Option<mpsc::Receiver<String>> {
        let (calls, called) = mpsc::channel(CALLED);
        self.0.calls.set(calls).is_ok().then_some(called)
    }

    /// Where to tell of a service that is called for the first time; nobody asks where there is no control plane.
    pub fn calls(&self) -> Option<&mpsc::Sender<String>> {
        self.0.calls.get()
    }

    /// What captures take. For one reader.
    pub fn captured(&self) -> Option<mpsc::Receiver<Captured>> {
        self.0.taken.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// What was counted since this was last asked.
    pub fn counts(&self) -> Counts {
        self.steward().counts()
    }

    /// Looks, forever.
    pub async fn run(self, shard: Shard<AnyThread>) {
        let mut before = Instant::now();
        loop {
            tokio::time::sleep(LOOK).await;
            let now = Instant::now();
            self.steward().look(now.duration_since(before));
            before = now;
            self.tell(&shard);
        }
    }

    /// Copies the sums into metrics.
    pub fn tell(&self, shard: &Shard<AnyThread>) {
        let totals = self.steward().totals();
        let rules = totals.rules.iter().map(|count| (&*count.id.policy, &*count.id.rule, count.seen, count.kept));
        let mut rules: Vec<(&str, &str, u64, u64)> = rules.collect();
        rules.push(("default", "", totals.unruled, totals.unruled_kept));
        rules.push(("caller", "", totals.arrived_kept + totals.arrived_dropped, totals.arrived_kept));
        for (policy, rule, seen, kept) in rules.into_iter().filter(|(_, _, seen, _)| *seen > 0) {
            shard.counter(family::SAMPLING_DECISIONS, &[policy, rule, "true"]).follow(kept);
            shard.counter(family::SAMPLING_DECISIONS, &[policy, rule, "false"]).follow(seen - kept);
        }
        let guarded = 1_000_000_000.0 * totals.guard as f64 / (1u64 << 56) as f64;
        shard.gauge(family::SAMPLING_GUARD, &[]).set(guarded as i64);
    }

    fn steward(&self) -> MutexGuard<'_, Steward> {
        self.0.steward.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How late a burst is noticed.
pub const LOOK: Duration = Duration::from_millis(100);
/// Traces that wait to be told; a capture has one at a time.
const CAPTURED: usize = 1024;
/// Services that wait to be told; one that finds no room is told with its next request.
const CALLED: usize = 256;
