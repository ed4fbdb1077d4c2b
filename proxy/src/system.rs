//! The box that the proxy runs in: how many workers it bears, how many files, how much memory is left.
//!
//! Reading is split from deciding: [`cgroup`] turns the kernel's files into numbers, what is decided from them is pure.

pub mod budget;
pub mod cgroup;
pub mod files;
pub mod memory;
pub mod process;

use cgroup::Cgroup;

/// How many workers to run when the configuration does not say.
///
/// A sidecar takes at most two, and one below one CPU: its application needs the rest. A gateway takes every core it may use.
pub fn default_workers(role_is_gateway: bool, cores: usize, cpu_limit: Option<f64>) -> usize {
    let most = if role_is_gateway { usize::MAX } else { SIDECAR_WORKERS };
    // A limit of 1.5 is two workers; `as` saturates and turns what is no number into 0.
    let limit = cpu_limit.map_or(usize::MAX, |limit| limit.ceil() as usize);
    most.min(cores).min(limit).max(1)
}

/// Cores that this process may be scheduled on.
pub fn cores() -> usize {
    match rustix::thread::sched_getaffinity(None) {
        Ok(set) => usize::try_from(set.count()).unwrap_or(1).max(1),
        // More cores than the kernel call's set has room for.
        Err(_) => std::thread::available_parallelism().map_or(1, usize::from),
    }
}

/// [`default_workers`] of this box.
pub fn workers(role_is_gateway: bool) -> usize {
    default_workers(role_is_gateway, cores(), Cgroup::own().cpu_limit())
}

const SIDECAR_WORKERS: usize = 2;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sidecar_takes_little_and_a_gateway_what_there_is() {
        for (gateway, cores, limit, workers) in [
            (false, 64, None, 2),
            (false, 1, None, 1),
            (false, 64, Some(0.1), 1),
            (false, 64, Some(1.0), 1),
            (false, 64, Some(1.01), 2),
            (false, 64, Some(16.0), 2),
            (true, 64, None, 64),
            (true, 64, Some(2.5), 3),
            (true, 2, Some(16.0), 2),
            (true, 0, None, 1),
            (true, 8, Some(0.0), 1),
            (true, 8, Some(f64::NAN), 1),
            (true, 8, Some(f64::INFINITY), 8),
        ] {
            assert_eq!(default_workers(gateway, cores, limit), workers, "{gateway} {cores} {limit:?}");
        }
    }

    #[test]
    fn this_box_has_a_core() {
        assert!(cores() >= 1 && workers(true) >= 1);
    }
}
