//! This process in numbers: memory, CPU time, file descriptors. Read when someone asks for the metrics, not before.

use std::fs;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::process::{Resource, getrlimit};
use rustix::time::{ClockId, clock_gettime};

use crate::telemetry::metrics::Registry;
use crate::telemetry::metrics::family::{
    BUILD, PROCESS_CPU_SECONDS, PROCESS_MAX_FDS, PROCESS_OPEN_FDS, PROCESS_RESIDENT_MEMORY_BYTES,
    PROCESS_START_TIME_SECONDS,
};

/// Has the registry show this process from now on. To be called once, at the start.
pub fn show(registry: &Registry) {
    let shared = registry.shared();
    shared.gauge(BUILD, &[env!("CARGO_PKG_VERSION")]).set(1);
    let started = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    shared.gauge(PROCESS_START_TIME_SECONDS, &[]).set_duration(started);
    let resident = shared.gauge(PROCESS_RESIDENT_MEMORY_BYTES, &[]);
    let (open, most) = (shared.gauge(PROCESS_OPEN_FDS, &[]), shared.gauge(PROCESS_MAX_FDS, &[]));
    let cpu = shared.counter(PROCESS_CPU_SECONDS, &[]);
    registry.watch(move || {
        if let Some(bytes) = fs::read_to_string("/proc/self/status").ok().and_then(|text| resident_bytes(&text)) {
            resident.set(bytes);
        }
        if let Ok(files) = fs::read_dir("/proc/self/fd") {
            // The folder itself is open while it is counted.
            open.set(i64::try_from(files.count()).unwrap_or(i64::MAX) - 1);
        }
        let limit = getrlimit(Resource::Nofile).current;
        most.set(limit.and_then(|limit| i64::try_from(limit).ok()).unwrap_or(i64::MAX));
        cpu.follow_duration(cpu_time());
    });
}

/// `VmRSS: 123 kB`, with a tab in between, and a kB is 1,024 bytes.
fn resident_bytes(status: &str) -> Option<i64> {
    let value = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    value.trim().strip_suffix(" kB")?.trim().parse::<i64>().ok()?.checked_mul(1024)
}

fn cpu_time() -> Duration {
    Duration::try_from(clock_gettime(ClockId::ProcessCPUTime)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resident_memory_is_read_in_bytes() {
        assert_eq!(resident_bytes("VmPeak:\t 9 kB\nVmRSS:\t     123 kB\nRssAnon: 1 kB\n"), Some(123 * 1024));
        for wrong in ["", "VmRSS:", "VmRSS: kB", "VmRSS: x kB", "VmRSS: 9223372036854775807 kB", "VmRSS: 1 MB"] {
            assert_eq!(resident_bytes(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn the_process_shows_in_the_metrics() {
        let registry = Registry::new();
        show(&registry);
        let text = registry.render();
        for name in ["start_time_seconds", "resident_memory_bytes", "cpu_seconds_total", "open_fds", "max_fds"] {
            let line = text.lines().find(|line| line.starts_with(&format!("spanmesh_proxy_process_{name} ")));
            let value: f64 = line.and_then(|line| line.rsplit(' ').next()?.parse().ok()).expect(name);
            assert!(value > 0.0, "{name}");
        }
        assert!(text.contains("spanmesh_proxy_build_info{version=\""));
    }
}
