//! The limits that a container runtime sets, from cgroup v2, v1 or both mounted side by side.
//!
//! A limit may stand on any folder between our own cgroup and the root that we see; the tightest counts. What cannot be read
//! is no limit: outside Linux containers that is the truth, and inside one the kernel's files are always there.

mod files;
mod paths;

use std::fs;
use std::path::{Path, PathBuf};

pub use files::fuzz_files;
use files::{amount, cpu_max, cpu_quota, stat};
pub use paths::fuzz_paths;
use paths::{Controller, folders};

/// Where our limits stand.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cgroup {
    /// From the innermost to the outermost.
    cpu: Vec<Folder>,
    memory: Vec<Folder>,
}

/// The tightest memory limit and what is used of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    pub limit: u64,
    /// Without file cache that the kernel gives back before it kills.
    pub used: u64,
}

impl Cgroup {
    /// The cgroup of this process.
    pub fn own() -> Cgroup {
        Cgroup::find(Path::new("/"))
    }

    /// As [`own`](Cgroup::own), with `/proc` and the mounts below `root`.
    pub fn find(root: &Path) -> Cgroup {
        let read = |path| fs::read_to_string(root.join(path)).unwrap_or_default();
        let (cgroup, mounts) = (read("proc/self/cgroup"), read("proc/self/mountinfo"));
        let below = |path: PathBuf| root.join(path.strip_prefix("/").unwrap_or(&path));
        let find = |controller| {
            let v2 = folders(&cgroup, &mounts, Controller::Unified).into_iter().map(|path| Folder::V2(below(path)));
            let v1 = folders(&cgroup, &mounts, controller).into_iter().map(|path| Folder::V1(below(path)));
            v2.chain(v1).collect()
        };
        Cgroup { cpu: find(Controller::Cpu), memory: find(Controller::Memory) }
    }

    /// CPUs that we may use, for instance 0.5.
    pub fn cpu_limit(&self) -> Option<f64> {
        self.cpu.iter().filter_map(Folder::cpu_limit).min_by(f64::total_cmp)
    }

    pub fn memory_limit(&self) -> Option<u64> {
        self.tightest().map(|(limit, _)| limit)
    }

    /// None without a limit. `enough`: below this much the file cache is not looked up, because it costs the kernel a walk.
    pub fn memory(&self, enough: u64) -> Option<Memory> {
        let (limit, folder) = self.tightest()?;
        let used = folder.memory_used(enough)?;
        Some(Memory { limit, used })
    }

    /// Of two equal limits the outer one, which fills first.
    fn tightest(&self) -> Option<(u64, &Folder)> {
        let limits = self.memory.iter().rev().filter_map(|folder| Some((folder.memory_limit()?, folder)));
        limits.min_by_key(|(limit, _)| *limit)
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Folder {
    V1(PathBuf),
    V2(PathBuf),
}

impl Folder {
    fn cpu_limit(&self) -> Option<f64> {
        match self {
            Folder::V2(path) => cpu_max(&read(path, "cpu.max")?),
            Folder::V1(path) => cpu_quota(&read(path, "cpu.cfs_quota_us")?, &read(path, "cpu.cfs_period_us")?),
        }
    }

    fn memory_limit(&self) -> Option<u64> {
        match self {
            Folder::V2(path) => amount(&read(path, "memory.max")?),
            Folder::V1(path) => amount(&read(path, "memory.limit_in_bytes")?).filter(|limit| *limit < UNLIMITED),
        }
    }

    fn memory_used(&self, enough: u64) -> Option<u64> {
        let (path, current, cache) = match self {
            Folder::V2(path) => (path, "memory.current", "inactive_file"),
            Folder::V1(path) => (path, "memory.usage_in_bytes", "total_inactive_file"),
        };
        let used = amount(&read(path, current)?)?;
        if used < enough {
            return Some(used);
        }
        let cache = read(path, "memory.stat").and_then(|text| stat(&text, cache)).unwrap_or_default();
        Some(used.saturating_sub(cache))
    }
}

fn read(folder: &Path, file: &str) -> Option<String> {
    fs::read_to_string(folder.join(file)).ok()
}

/// v1 writes "no limit" as the largest multiple of a page, which depends on the page's size. No machine has an exbibyte.
const UNLIMITED: u64 = 1 << 60;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::test_dir::TestDir;

    const V2_MOUNT: &str = "31 23 0:28 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n";

    #[test]
    fn a_v2_container_sees_its_own_folder_as_the_root() {
        let root = TestDir::new("cgroup-v2");
        root.put("proc/self/cgroup", "0::/\n");
        root.put("proc/self/mountinfo", V2_MOUNT);
        root.put("sys/fs/cgroup/cpu.max", "50000 100000\n");
        root.put("sys/fs/cgroup/memory.max", "1000\n");
        root.put("sys/fs/cgroup/memory.current", "900\n");
        root.put("sys/fs/cgroup/memory.stat", "anon 1\nfile 500\ninactive_file 300\nactive_file 200\n");
        let cgroup = Cgroup::find(root.path());
        assert_eq!(cgroup.cpu_limit(), Some(0.5));
        assert_eq!(cgroup.memory_limit(), Some(1000));
        assert_eq!(cgroup.memory(0), Some(Memory { limit: 1000, used: 600 }));
        assert_eq!(cgroup.memory(901), Some(Memory { limit: 1000, used: 900 }), "not worth a walk");
    }

    #[test]
    fn the_tightest_of_nested_v2_folders_counts() {
        let root = TestDir::new("cgroup-nested");
        root.put("proc/self/cgroup", "0::/kubepods/pod1/app\n");
        root.put("proc/self/mountinfo", V2_MOUNT);
        root.put("sys/fs/cgroup/kubepods/cpu.max", "800000 100000\n");
        root.put("sys/fs/cgroup/kubepods/pod1/cpu.max", "150000 100000\n");
        root.put("sys/fs/cgroup/kubepods/pod1/app/cpu.max", "max 100000\n");
        root.put("sys/fs/cgroup/kubepods/memory.max", "9000\n");
        root.put("sys/fs/cgroup/kubepods/pod1/memory.max", "4000\n");
        root.put("sys/fs/cgroup/kubepods/pod1/memory.current", "3500\n");
        root.put("sys/fs/cgroup/kubepods/pod1/app/memory.max", "4000\n");
        root.put("sys/fs/cgroup/kubepods/pod1/app/memory.current", "100\n");
        let cgroup = Cgroup::find(root.path());
        assert_eq!(cgroup.cpu_limit(), Some(1.5));
        assert_eq!(cgroup.memory(0), Some(Memory { limit: 4000, used: 3500 }), "the pod's, which fills first");
    }

    #[test]
    fn v1_with_the_path_of_the_host() {
        let root = TestDir::new("cgroup-v1");
        root.put("proc/self/cgroup", "4:memory:/docker/abc\n3:cpu,cpuacct:/docker/abc\n1:name=systemd:/docker/abc\n");
        root.put(
            "proc/self/mountinfo",
            "35 31 0:32 /docker/abc /sys/fs/cgroup/memory ro,nosuid master:16 - cgroup cgroup rw,memory\n\
             36 31 0:33 /docker/abc /sys/fs/cgroup/cpu,cpuacct ro - cgroup cgroup rw,cpu,cpuacct\n",
        );
        root.put("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "250000\n");
        root.put("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us", "100000\n");
        root.put("sys/fs/cgroup/memory/memory.limit_in_bytes", "2000\n");
        root.put("sys/fs/cgroup/memory/memory.usage_in_bytes", "1500\n");
        root.put("sys/fs/cgroup/memory/memory.stat", "inactive_file 1\ntotal_inactive_file 400\n");
        let cgroup = Cgroup::find(root.path());
        assert_eq!(cgroup.cpu_limit(), Some(2.5));
        assert_eq!(cgroup.memory(0), Some(Memory { limit: 2000, used: 1100 }));
    }

    #[test]
    fn without_limits_there_are_none() {
        let root = TestDir::new("cgroup-none");
        assert_eq!(Cgroup::find(root.path()), Cgroup::default());
        root.put("proc/self/cgroup", "4:memory:/\n3:cpu:/\n0::/\n");
        root.put(
            "proc/self/mountinfo",
            "35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
             31 23 0:28 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n\
             41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n",
        );
        root.put("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n");
        root.put("sys/fs/cgroup/cpu/cpu.cfs_quota_us", "-1\n");
        root.put("sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n");
        let cgroup = Cgroup::find(root.path());
        assert_eq!((cgroup.cpu_limit(), cgroup.memory_limit(), cgroup.memory(0)), (None, None, None));
    }

    #[test]
    fn this_process_can_be_looked_at() {
        let cgroup = Cgroup::own();
        assert!(cgroup.cpu_limit().is_none_or(|limit| limit > 0.0));
        assert!(cgroup.memory(0).is_none_or(|memory| memory.used > 0));
    }
}
