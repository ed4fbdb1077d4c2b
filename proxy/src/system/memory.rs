//! Watches the container's memory and says when new work should be refused, so that we are not killed with all that is in flight.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use super::cgroup::{Cgroup, Memory};
use crate::telemetry::metrics::Registry;
use crate::telemetry::metrics::family::{MEMORY_LIMIT_BYTES, MEMORY_USED_BYTES, OVERLOADED};

/// Whether new work is to be refused. Workers read it with every connection and request: one relaxed load of a line that is
/// written a few times a day. Clones share it.
#[derive(Clone, Default)]
pub struct MemoryWatch(Arc<AtomicBool>);

impl MemoryWatch {
    pub fn new() -> MemoryWatch {
        MemoryWatch::default()
    }

    #[inline]
    pub fn refuses(&self) -> bool {
        self.0.load(Relaxed)
    }

    /// Looks at the memory until dropped: refuses from `percent` of the limit and takes work again below `percent` - 5.
    /// Returns at once without a limit. For the background runtime: a look reads one or two files of the kernel's memory.
    pub async fn run(self, cgroup: Cgroup, percent: u8, registry: Registry) {
        let shared = registry.shared();
        let overloaded = shared.gauge(OVERLOADED, &[]);
        overloaded.set(0);
        let Some(limit) = cgroup.memory_limit() else { return };
        let (limit_bytes, used_bytes) = (shared.gauge(MEMORY_LIMIT_BYTES, &[]), shared.gauge(MEMORY_USED_BYTES, &[]));
        loop {
            if let Some(memory) = cgroup.memory(share(limit, percent.saturating_sub(NEAR))) {
                limit_bytes.set(memory.limit.cast_signed());
                used_bytes.set(memory.used.cast_signed());
                let (before, now) = (self.refuses(), refuses(self.refuses(), memory, percent));
                self.0.store(now, Relaxed);
                overloaded.set(now.into());
                if now && !before {
                    tracing::warn!(used = memory.used, limit = memory.limit, "memory runs out; new work is refused");
                } else if before && !now {
                    tracing::info!(
                        used = memory.used,
                        limit = memory.limit,
                        "there is memory again; new work is taken"
                    );
                }
            }
            tokio::time::sleep(LOOK).await;
        }
    }
}

/// With a gap between the two, so that it does not flicker.
fn refuses(before: bool, memory: Memory, percent: u8) -> bool {
    let percent = if before { percent.saturating_sub(GAP) } else { percent };
    memory.used >= share(memory.limit, percent)
}

fn share(limit: u64, percent: u8) -> u64 {
    u64::try_from(u128::from(limit) * u128::from(percent) / 100).unwrap_or(u64::MAX)
}

const GAP: u8 = 5;
/// Points below the threshold from which the file cache is looked up too.
const NEAR: u8 = 10;
/// At 100 MB/s, which is much for a proxy, a tenth of a small container's 256 MiB is used up in a quarter of a second.
const LOOK: Duration = Duration::from_millis(250);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::test_dir::TestDir;

    #[test]
    fn refuses_at_ninety_and_takes_again_below_eighty_five() {
        let at = |before, used| refuses(before, Memory { limit: 1000, used }, 90);
        assert!(!at(false, 899) && at(false, 900) && at(false, 2000));
        assert!(at(true, 899) && at(true, 850) && !at(true, 849));
    }

    #[test]
    fn large_limits_do_not_overflow() {
        assert_eq!(share(u64::MAX, 50), u64::MAX / 2);
        assert_eq!(share(1000, 0), 0);
    }

    #[test]
    fn the_flag_follows_the_files() {
        let root = TestDir::new("memory-watch");
        root.put("proc/self/cgroup", "0::/\n");
        root.put("proc/self/mountinfo", "31 23 0:28 / /cg rw - cgroup2 cgroup2 rw\n");
        root.put("cg/memory.max", "1000\n");
        root.put("cg/memory.current", "950\n");
        root.put("cg/memory.stat", "inactive_file 0\n");
        let (watch, registry) = (MemoryWatch::new(), Registry::new());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
        let task = watch.clone().run(Cgroup::find(root.path()), 90, registry.clone());
        runtime.block_on(async {
            tokio::pin!(task);
            let wait_until = async |refuses| {
                while watch.refuses() != refuses {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            };
            tokio::select! { () = &mut task => panic!("ended"), () = wait_until(true) => {} }
            assert!(registry.render().contains("spanmesh_proxy_overloaded 1\n"));
            root.put("cg/memory.stat", "inactive_file 200\n");
            tokio::select! { () = &mut task => panic!("ended"), () = wait_until(false) => {} }
            assert!(registry.render().contains("spanmesh_proxy_memory_used_bytes 750\n"));
        });
    }

    #[test]
    fn without_a_limit_there_is_nothing_to_watch() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
        let watch = MemoryWatch::new();
        runtime.block_on(watch.clone().run(Cgroup::default(), 90, Registry::new()));
        assert!(!watch.refuses());
    }
}
