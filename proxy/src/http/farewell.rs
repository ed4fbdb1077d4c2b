//! Streams of a shared HTTP/2 connection that their clients have given up. Dropping one resets it, and a peer that is
//! reset often within a moment takes it for an attack and ends the connection, with the requests of everybody else on it:
//! the engine does so at the 21st reset of a request that it has not looked at yet. So only a few are reset at once, and the
//! others lie here, unread, until it is their turn or they end by themselves.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

use tokio::time::Instant;

/// Of one connection.
#[derive(Default)]
pub struct Farewells {
    pace: Cell<Option<(Instant, u32)>>,
    waiting: RefCell<VecDeque<Box<dyn Any>>>,
    releasing: Cell<bool>,
}

impl Farewells {
    /// Whether one more may be reset now; if so it counts.
    pub fn allows(&self, now: Instant) -> bool {
        let (since, count) = match self.pace.get() {
            Some((since, count)) if now.saturating_duration_since(since) < PERIOD => (since, count),
            _ => (now, 0),
        };
        self.pace.set(Some((since, count.saturating_add(1))));
        count < MOST
    }

    /// Takes what resets a stream when it is dropped.
    pub fn take(self: &Rc<Self>, stream: impl Any) {
        if self.waiting.borrow().len() >= WAITING || !self.releasing.get() && self.allows(Instant::now()) {
            return drop(stream);
        }
        self.waiting.borrow_mut().push_back(Box::new(stream));
        if !self.releasing.replace(true) {
            tokio::task::spawn_local(release(self.clone()));
        }
    }
}

async fn release(farewells: Rc<Farewells>) {
    loop {
        tokio::time::sleep(PERIOD).await;
        for _ in 0..MOST {
            // Not held while it is dropped, which may come back here.
            let stream = farewells.waiting.borrow_mut().pop_front();
            match stream {
                Some(stream) => drop(stream),
                None => return farewells.releasing.set(false),
            }
        }
    }
}

/// So many in so long: two periods may meet, and both together stay below what any peer is known to bear.
const MOST: u32 = 8;
const PERIOD: Duration = Duration::from_millis(50);
/// As many as a peer commonly allows streams. Beyond that they are reset at once: they would fill the connection.
const WAITING: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_few_go_at_once_and_the_others_little_by_little() {
        let local = tokio::task::LocalSet::new();
        local
            .run_until(async {
                let (farewells, stream) = (Rc::new(Farewells::default()), Rc::new(()));
                for _ in 0..20 {
                    farewells.take(stream.clone());
                }
                assert_eq!(Rc::strong_count(&stream), 13);
                tokio::time::sleep(PERIOD + PERIOD / 2).await;
                assert_eq!(Rc::strong_count(&stream), 5);
                tokio::time::sleep(2 * PERIOD).await;
                assert_eq!(Rc::strong_count(&stream), 1);
                for _ in 0..1000 {
                    farewells.take(stream.clone());
                }
                assert_eq!(Rc::strong_count(&stream), 1 + WAITING, "no more than that is held");
            })
            .await;
    }
}
