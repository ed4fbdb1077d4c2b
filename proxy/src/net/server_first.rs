//! Which destinations speak before their clients do (databases, mail), so that only the first connection to each waits
//! for the client in vain. Pure.
//!
//! A client that says nothing proves little: pools connect ahead of need. What counts is who speaks first once the two
//! are connected, and [`CopyWatch`](super::copy::CopyWatch) tells that. So a stranger that connects to an HTTP server
//! and keeps still cannot make its traffic opaque for others.

use std::{collections::HashMap, net::SocketAddr, time::Duration};

use tokio::time::Instant;

use super::copy::Side;

#[derive(Debug, Default)]
pub struct ServerFirst {
    /// When each was last seen to speak first.
    seen: HashMap<SocketAddr, Instant>,
}

impl ServerFirst {
    /// Whether the wait for the client may be left out.
    pub fn contains(&self, destination: SocketAddr, now: Instant) -> bool {
        self.seen.get(&destination).is_some_and(|seen| is_fresh(*seen, now))
    }

    /// Learns who spoke first on a connection that was handed on before its client had said anything.
    pub fn spoke(&mut self, destination: SocketAddr, first: Side, now: Instant) {
        match first {
            Side::Client => {
                self.seen.remove(&destination);
            }
            Side::Upstream => {
                if self.seen.len() >= ENTRIES_MAX && !self.seen.contains_key(&destination) {
                    self.make_room(now);
                }
                self.seen.insert(destination, now);
            }
        }
    }

    fn make_room(&mut self, now: Instant) {
        self.seen.retain(|_, seen| is_fresh(*seen, now));
        if self.seen.len() >= ENTRIES_MAX
            && let Some((oldest, _)) = self.seen.iter().min_by_key(|(_, seen)| **seen)
        {
            let oldest = *oldest;
            self.seen.remove(&oldest);
        }
    }
}

fn is_fresh(seen: Instant, now: Instant) -> bool {
    now.saturating_duration_since(seen) < KEEP
}

/// What listens on an address can be exchanged; after this the next connection waits again.
const KEEP: Duration = Duration::from_secs(300);
/// Destinations that are remembered, some 100 KiB a worker. Each was paid for with a wait, so they come slowly.
const ENTRIES_MAX: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn port(number: u16) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, 1], number))
    }

    #[test]
    fn a_server_that_spoke_first_is_remembered_for_a_while() {
        let (mut known, now) = (ServerFirst::default(), Instant::now());
        assert!(!known.contains(port(3306), now));
        known.spoke(port(3306), Side::Upstream, now);
        assert!(known.contains(port(3306), now + KEEP / 2));
        assert!(!known.contains(port(3307), now));
        assert!(!known.contains(port(3306), now + KEEP));
    }

    #[test]
    fn an_entry_that_was_wrong_is_forgotten() {
        let (mut known, now) = (ServerFirst::default(), Instant::now());
        known.spoke(port(80), Side::Upstream, now);
        known.spoke(port(80), Side::Client, now);
        assert!(!known.contains(port(80), now));
    }

    #[test]
    fn the_oldest_makes_room() {
        let (mut known, start) = (ServerFirst::default(), Instant::now());
        for number in 0..=ENTRIES_MAX as u16 {
            known.spoke(port(number), Side::Upstream, start + Duration::from_millis(number.into()));
        }
        assert_eq!(known.seen.len(), ENTRIES_MAX);
        assert!(!known.contains(port(0), start));
        assert!(known.contains(port(1), start) && known.contains(port(ENTRIES_MAX as u16), start));
    }
}
