//! The end of a proxy, in one direction only: serving, draining, gone. Each worker has its own `Drain`; its connections
//! hear when it begins and when its deadline is moved up, and read the times from it.

use std::cell::Cell;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::sync::futures::Notified;
use tokio::time::Instant;

/// The times of a drain that has begun.
#[derive(Clone, Copy, Debug)]
pub struct Draining {
    pub since: Instant,
    /// What is still open then is cut off.
    pub deadline: Instant,
    /// How long an idle HTTP/1 connection stays for a request that is already on its way.
    pub idle_grace: Duration,
}

#[derive(Default)]
pub struct Drain {
    phase: Cell<Option<Draining>>,
    changed: Notify,
}

impl Drain {
    /// Once begun, only the deadline changes, and it only comes nearer.
    pub fn begin(&self, draining: Draining) {
        let phase = match self.phase.get() {
            None => draining,
            Some(begun) if draining.deadline < begun.deadline => Draining { deadline: draining.deadline, ..begun },
            Some(_) => return,
        };
        self.phase.set(Some(phase));
        self.changed.notify_waiters();
    }

    pub fn is_draining(&self) -> bool {
        self.phase.get().is_some()
    }

    pub fn phase(&self) -> Option<Draining> {
        self.phase.get()
    }

    /// Whether what ends now is cut off by this proxy.
    pub fn is_over(&self, now: Instant) -> bool {
        self.phase.get().is_some_and(|phase| now >= phase.deadline)
    }

    /// The next change. It counts from this call on, not from the first poll.
    pub fn changed(&self) -> Notified<'_> {
        self.changed.notified()
    }

    /// Ends when a client that has said nothing yet is not waited for any more: it holds up a drain no longer than an
    /// idle one does.
    pub async fn quiet(&self) {
        self.reaches(|phase| phase.deadline.min(phase.since + phase.idle_grace)).await;
    }

    /// Ends at the deadline.
    pub async fn over(&self) {
        self.reaches(|phase| phase.deadline).await;
    }

    async fn reaches(&self, time: impl Fn(Draining) -> Instant) {
        loop {
            let changed = self.changed();
            match self.phase.get().map(&time) {
                None => changed.await,
                Some(time) => tokio::select! {
                    () = tokio::time::sleep_until(time) => return,
                    () = changed => {}
                },
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draining(seconds: u64) -> Draining {
        let since = Instant::now();
        let deadline = since + Duration::from_secs(seconds);
        Draining { since, deadline, idle_grace: Duration::from_secs(1) }
    }

    #[tokio::test(flavor = "local")]
    async fn the_deadline_comes_nearer_and_never_moves_away() {
        let drain = std::rc::Rc::new(Drain::default());
        let waiting = drain.clone();
        let over = tokio::task::spawn_local(async move { waiting.over().await });
        tokio::task::yield_now().await;
        drain.begin(draining(3600));
        tokio::task::yield_now().await;
        assert!(!over.is_finished() && !drain.is_over(Instant::now()));
        drain.begin(draining(0));
        over.await.unwrap();
        drain.begin(draining(3600));
        assert!(drain.is_over(Instant::now()));
    }
}
