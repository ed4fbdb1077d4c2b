//! Which replica writes statuses: the one that holds a Lease and renews it. All of them serve proxies. Whoever has lost it
//! in the middle of a write does no harm: a write names the version that it is for, and the next leader compares what is
//! there with what is to be there.
//!
//! The rules are those of client-go's leaderelection
//! (<https://pkg.go.dev/k8s.io/client-go/tools/leaderelection>): clocks of two machines are never compared; a lease counts as
//! left when it has not changed for as long as it says, by the clock of whoever looks.

use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use rand::RngExt;
use serde_json::{Value, json};
use tokio::sync::{oneshot, watch};
use tokio::time::{Instant, sleep, timeout};

use crate::api::{Api, Failure, resource::LEASE};

/// Until when this replica leads, unless it renews.
pub type Lead = watch::Receiver<Option<Instant>>;

/// Tells the others that they need not wait.
pub struct Leave {
    ask: oneshot::Sender<oneshot::Sender<()>>,
}

impl Leave {
    pub fn new() -> (Self, oneshot::Receiver<oneshot::Sender<()>>) {
        let (ask, asked) = oneshot::channel();
        (Self { ask }, asked)
    }

    pub async fn now(self) {
        let (done, left) = oneshot::channel();
        if self.ask.send(done).is_ok() {
            let _ = timeout(FAREWELL, left).await;
        }
    }
}

/// A name that no other replica has.
pub fn identity() -> String {
    // Of a pod it is the pod's name.
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    format!("{}_{:08x}", name.trim(), rand::rng().random::<u32>())
}

/// Goes on until dropped, or asked to leave.
pub async fn run(
    api: Api,
    me: String,
    lead: watch::Sender<Option<Instant>>,
    mut leave: oneshot::Receiver<oneshot::Sender<()>>,
) {
    let start = Instant::now();
    let mut said = String::new();
    let mut election = Election::new(me);
    loop {
        let began = start.elapsed();
        let outcome = round(&api, &mut election, began).await;
        let until = election.until().map(|until| start + until);
        if *lead.borrow() != until {
            let (had, has) = (lead.borrow().is_some(), until.is_some());
            lead.send_replace(until);
            match (had, has) {
                (false, true) => tracing::info!("this replica writes statuses"),
                (true, false) => tracing::warn!("another replica writes statuses, or none can"),
                (false, false) | (true, true) => {}
            }
        }
        let rest = match outcome {
            Ok(()) | Err(Failure::Conflict) => Duration::ZERO,
            Err(failure) => {
                let words = format!("the lease {NAME} in {}: {failure}", api.namespace());
                if words != said {
                    tracing::warn!("{words}; while it cannot be had, statuses are not written");
                }
                said = words;
                failure.rest()
            }
        };
        let wait = rest + RETRY.mul_f64(rand::rng().random_range(1.0..1.2));
        tokio::select! {
            () = sleep(wait) => {}
            asked = &mut leave => {
                // Whoever ends without a farewell is waited for, as if it had been killed.
                let Ok(done) = asked else { return };
                lead.send_replace(None);
                if let Some(lease) = election.left() {
                    let _ = api.replace(&LEASE, &lease).await;
                }
                let _ = done.send(());
                return;
            }
        }
    }
}

/// One look, and what comes of it.
async fn round(api: &Api, election: &mut Election, now: Duration) -> Result<(), Failure> {
    let namespace = api.namespace().to_owned();
    let lease = match api.read(&LEASE, &namespace, NAME).await {
        Ok(lease) => Some(lease),
        Err(Failure::Missing) => None,
        Err(failure) => {
            election.pass(now);
            return Err(failure);
        }
    };
    let wall = format!("{:.6}", Timestamp::now());
    let Some(write) = election.look(now, lease.as_ref(), &namespace, &wall) else {
        election.pass(now);
        return Ok(());
    };
    let written = match lease {
        Some(_) => api.replace(&LEASE, &write).await,
        None => api.create(&LEASE, &namespace, &write).await,
    };
    match written {
        Ok(lease) => election.won(now, lease),
        Err(failure) => {
            election.pass(now);
            return Err(failure);
        }
    }
    Ok(())
}

/// The rules without the server: pure.
#[derive(Debug)]
struct Election {
    me: String,
    /// Holder and time of renewal, as last seen to be others', and when that was.
    seen: Option<(String, Duration)>,
    until: Option<Duration>,
    mine: Option<Value>,
}

impl Election {
    fn new(me: String) -> Self {
        Self { me, seen: None, until: None, mine: None }
    }

    fn until(&self) -> Option<Duration> {
        self.until
    }

    /// What is to be written in place of the lease that is there, if it is ours to write.
    fn look(&mut self, now: Duration, lease: Option<&Value>, namespace: &str, wall: &str) -> Option<Value> {
        let spec = |holder: &str, acquired: &str, transitions: u64| {
            json!({
                "holderIdentity": holder,
                "leaseDurationSeconds": LEASED.as_secs(),
                "acquireTime": acquired,
                "renewTime": wall,
                "leaseTransitions": transitions,
            })
        };
        let Some(lease) = lease else {
            return Some(json!({
                "apiVersion": LEASE.api_version(),
                "kind": LEASE.kind,
                "metadata": {"name": NAME, "namespace": namespace},
                "spec": spec(&self.me, wall, 0),
            }));
        };
        let there = &lease["spec"];
        let holder = there["holderIdentity"].as_str().unwrap_or_default();
        let transitions = there["leaseTransitions"].as_u64().unwrap_or(0);
        let mut write = lease.clone();
        if holder == self.me {
            write["spec"] = spec(&self.me, there["acquireTime"].as_str().unwrap_or(wall), transitions);
            return Some(write);
        }
        self.until = None;
        let record = format!("{holder} {}", there["renewTime"].as_str().unwrap_or_default());
        let since = match &self.seen {
            Some((seen, since)) if *seen == record => *since,
            _ => {
                self.seen = Some((record, now));
                now
            }
        };
        let lasts = there["leaseDurationSeconds"].as_u64().map_or(LEASED, Duration::from_secs).min(LONGEST);
        if !holder.is_empty() && now.saturating_sub(since) < lasts {
            return None;
        }
        write["spec"] = spec(&self.me, wall, transitions + 1);
        Some(write)
    }

    /// `began` is when the lease was looked at: it may have been written at any time since.
    fn won(&mut self, began: Duration, lease: Value) {
        self.until = Some(began + LEADS);
        self.mine = Some(lease);
    }

    /// Nothing was written: what was won before holds as long as it holds.
    fn pass(&mut self, now: Duration) {
        self.until = self.until.filter(|until| now < *until);
    }

    /// The lease as one that nobody holds, if it is held.
    fn left(&mut self) -> Option<Value> {
        self.until.take()?;
        let mut lease = self.mine.take()?;
        lease["spec"]["holderIdentity"] = json!("");
        lease["spec"]["leaseDurationSeconds"] = json!(1);
        Some(lease)
    }
}

const NAME: &str = "spanmesh-control-plane";
/// Others take the lease when it was not renewed for so long.
const LEASED: Duration = Duration::from_secs(15);
/// So long after it was looked at, its holder writes nothing more: well before the others take it.
const LEADS: Duration = Duration::from_secs(10);
const RETRY: Duration = Duration::from_secs(2);
/// No lease says more: whoever has written one that does is not waited for.
const LONGEST: Duration = Duration::from_secs(60);
const FAREWELL: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use super::*;

    fn secs(count: u64) -> Duration {
        Duration::from_secs(count)
    }

    fn look(election: &mut Election, now: u64, lease: Option<&Value>) -> Option<Value> {
        election.look(secs(now), lease, "spanmesh-system", &format!("time {now}"))
    }

    fn holder(lease: &Value) -> &str {
        lease["spec"]["holderIdentity"].as_str().unwrap()
    }

    #[test]
    fn the_first_takes_it_and_renews_it_and_the_second_waits() {
        let (mut a, mut b) = (Election::new("a".into()), Election::new("b".into()));
        let first = look(&mut a, 0, None).unwrap();
        a.won(secs(0), first.clone());
        assert_eq!(a.until(), Some(secs(10)));
        assert_eq!(look(&mut b, 1, Some(&first)), None);
        let renewed = look(&mut a, 8, Some(&first)).unwrap();
        a.won(secs(8), renewed.clone());
        assert_eq!((holder(&renewed), a.until()), ("a", Some(secs(18))));
        assert_eq!(renewed["spec"]["acquireTime"], "time 0");
        assert_eq!(look(&mut b, 15, Some(&renewed)), None, "it has changed since");
        assert_eq!(look(&mut b, 29, Some(&renewed)), None);
    }

    #[test]
    fn one_that_is_not_renewed_is_taken_after_its_time_and_its_holder_has_stopped_before() {
        let (mut a, mut b) = (Election::new("a".into()), Election::new("b".into()));
        let lease = look(&mut a, 100, None).unwrap();
        a.won(secs(100), lease.clone());
        // Seen at once; the clocks in it do not matter.
        assert_eq!(look(&mut b, 100, Some(&lease)), None);
        a.pass(secs(109));
        assert!(a.until().is_some());
        a.pass(secs(110));
        assert_eq!(a.until(), None);
        assert_eq!(look(&mut b, 114, Some(&lease)), None);
        let taken = look(&mut b, 115, Some(&lease)).unwrap();
        assert_eq!((holder(&taken), taken["spec"]["leaseTransitions"].as_u64()), ("b", Some(1)));
        // The one that comes back sees that it is another's.
        assert_eq!(look(&mut a, 116, Some(&taken)), None);
    }

    #[test]
    fn whoever_leaves_is_not_waited_for() {
        let (mut a, mut b) = (Election::new("a".into()), Election::new("b".into()));
        let lease = look(&mut a, 0, None).unwrap();
        assert_eq!(a.left(), None, "it was not written");
        a.won(secs(0), lease);
        let left = a.left().unwrap();
        assert_eq!((holder(&left), a.until()), ("", None));
        assert_eq!(holder(&look(&mut b, 1, Some(&left)).unwrap()), "b");
    }

    #[test]
    fn a_lease_for_ever_is_not() {
        let mut b = Election::new("b".into());
        let lease = json!({"spec": {"holderIdentity": "x", "renewTime": "t", "leaseDurationSeconds": 1_000_000_000}});
        assert_eq!(look(&mut b, 0, Some(&lease)), None);
        assert!(look(&mut b, 60, Some(&lease)).is_some());
    }
}
