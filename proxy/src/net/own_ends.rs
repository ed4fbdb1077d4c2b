//! Recognises a connection of this proxy's own that comes back to it, as when the redirect rules do not let the proxy's
//! user pass: carried on, it would come back again, for ever. `connect` notes each connection, admission asks.
//!
//! Two ends and nothing else identify a connection, and an application may use the same two a while later; so a note
//! holds only as long as a connection takes to arrive. Shared by all workers, because a connection comes back to any of
//! them. A table of atomics: no lock, no growth. A note that another one overwrites is missed at this turn, and a loop
//! has many turns.

use std::hash::{BuildHasher, RandomState};
use std::net::SocketAddr;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// This proxy connects from `local` to `remote`.
pub fn note(local: SocketAddr, remote: SocketAddr) {
    NOTES.note(local, remote, Instant::now());
}

/// Whether a client at `peer` who wanted `original` is this proxy itself.
pub fn is_own(peer: SocketAddr, original: SocketAddr) -> bool {
    NOTES.contains(peer, original, Instant::now())
}

/// Each note is the upper bits of a hash of both ends, and the time in its lower bits.
struct Notes {
    slots: Box<[AtomicU64]>,
    hasher: RandomState,
    start: Instant,
}

impl Notes {
    fn new() -> Self {
        let slots = (0..SLOTS).map(|_| AtomicU64::new(0)).collect();
        Self { slots, hasher: RandomState::new(), start: Instant::now() }
    }

    fn note(&self, local: SocketAddr, remote: SocketAddr, now: Instant) {
        let (slot, mark) = self.find(local, remote);
        if let Some(slot) = slot {
            slot.store(mark | self.time(now), Relaxed);
        }
    }

    fn contains(&self, local: SocketAddr, remote: SocketAddr, now: Instant) -> bool {
        let (slot, mark) = self.find(local, remote);
        let note = slot.map_or(0, |slot| slot.load(Relaxed));
        let age = self.time(now).wrapping_sub(note) & TIME;
        note != 0 && note & !TIME == mark && age <= FRESH.as_millis() as u64
    }

    fn find(&self, local: SocketAddr, remote: SocketAddr) -> (Option<&AtomicU64>, u64) {
        let hash = self.hasher.hash_one((local.ip(), local.port(), remote.ip(), remote.port()));
        // The slot comes from bits that the mark does not keep.
        (self.slots.get((hash & TIME) as usize % SLOTS), hash & !TIME)
    }

    fn time(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.start).as_millis() as u64 & TIME
    }
}

static NOTES: LazyLock<Notes> = LazyLock::new(Notes::new);

/// Far more than the connections that are made in the time that a note holds.
const SLOTS: usize = 1 << 12;
/// The lower bits: milliseconds, which come round after 17 minutes. The 44 upper bits make a chance match unlikely
/// enough: one in 10¹³ for each connection.
const TIME: u64 = (1 << 20) - 1;
/// A connection is accepted within milliseconds; the same two ends are not used again within a second.
const FRESH: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_connection_that_was_just_made_is_recognised_by_both_its_ends() {
        let (notes, now) = (Notes::new(), Instant::now());
        let (local, remote) = (address("10.0.0.1:40000"), address("10.0.0.2:80"));
        assert!(!notes.contains(local, remote, now));
        notes.note(local, remote, now);
        assert!(notes.contains(local, remote, now));
        assert!(notes.contains(local, remote, now + FRESH));
        assert!(!notes.contains(address("10.0.0.1:40001"), remote, now));
        assert!(!notes.contains(local, address("10.0.0.2:81"), now));
    }

    #[test]
    fn the_same_ends_used_later_by_another_are_not_taken_for_ours() {
        let (notes, now) = (Notes::new(), Instant::now());
        let (local, remote) = (address("[fd00::1]:40000"), address("[fd00::2]:80"));
        notes.note(local, remote, now);
        assert!(!notes.contains(local, remote, now + FRESH + Duration::from_millis(2)));
        assert!(!notes.contains(local, remote, now + Duration::from_secs(600)));
    }
}
