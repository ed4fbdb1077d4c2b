//! From `/proc/self/cgroup` and `/proc/self/mountinfo` to the folders that hold our limits.
//!
//! The cgroup's path is told from the hierarchy's root; the mount may show only a part of it (`root` in mountinfo), and in a
//! cgroup namespace both begin at our own folder.

use std::path::{Component, Path, PathBuf};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Controller {
    /// v2, which has one tree for all.
    Unified,
    Cpu,
    Memory,
}

/// Our own folder and those above it up to the mount, innermost first. Empty when the controller is not mounted.
pub(super) fn folders(cgroup: &str, mounts: &str, controller: Controller) -> Vec<PathBuf> {
    let Some(own) = own_path(cgroup, controller) else { return Vec::new() };
    let Some(mount) = mounts.lines().filter_map(Mount::read).find(|mount| mount.carries(controller)) else {
        return Vec::new();
    };
    // A path outside of what is mounted (`/../other`, or the host's) leaves the mount's own folder: in a container it is ours.
    let inside = Path::new(own).strip_prefix(&mount.root).ok().filter(|path| is_plain(path)).unwrap_or(Path::new(""));
    inside.ancestors().take(DEPTH).map(|part| mount.point.join(part)).collect()
}

/// Lines are `id:controllers:path`; v2's is `0::path`.
fn own_path(cgroup: &str, controller: Controller) -> Option<&str> {
    cgroup.lines().find_map(|line| {
        let mut parts = line.splitn(3, ':');
        let (id, names, path) = (parts.next()?, parts.next()?, parts.next()?);
        let ours = match controller.name() {
            None => id == "0" && names.is_empty(),
            Some(name) => names.split(',').any(|other| other == name),
        };
        ours.then_some(path)
    })
}

impl Controller {
    fn name(self) -> Option<&'static str> {
        match self {
            Controller::Unified => None,
            Controller::Cpu => Some("cpu"),
            Controller::Memory => Some("memory"),
        }
    }
}

/// A line of mountinfo, proc(5): `36 35 98:0 /root /point options [tags…] - type source options`.
struct Mount<'a> {
    root: PathBuf,
    point: PathBuf,
    kind: &'a str,
    options: &'a str,
}

impl Mount<'_> {
    fn read(line: &str) -> Option<Mount<'_>> {
        let (head, tail) = line.split_once(" - ")?;
        let mut head = head.split(' ').skip(3);
        let mut tail = tail.split(' ');
        Some(Mount {
            root: unescape(head.next()?),
            point: unescape(head.next()?),
            kind: tail.next()?,
            options: tail.nth(1).unwrap_or_default(),
        })
    }

    fn carries(&self, controller: Controller) -> bool {
        match controller.name() {
            None => self.kind == "cgroup2",
            Some(name) => self.kind == "cgroup" && self.options.split(',').any(|option| option == name),
        }
    }
}

/// Spaces, tabs, line feeds and backslashes come as `\040` and the like.
fn unescape(text: &str) -> PathBuf {
    [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")]
        .iter()
        .fold(text.to_owned(), |text, (escape, plain)| text.replace(escape, plain))
        .into()
}

fn is_plain(path: &Path) -> bool {
    path.components().all(|part| matches!(part, Component::Normal(_)))
}

/// Deeper than any runtime nests; the kernel has no limit by itself.
const DEPTH: usize = 64;

/// All folders lie below the mount, and each below the next.
pub fn fuzz_paths(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let (cgroup, mounts) = text.split_once('\0').unwrap_or((text, "1 1 0:1 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw"));
    for controller in [Controller::Unified, Controller::Cpu, Controller::Memory] {
        let folders = folders(cgroup, mounts, controller);
        assert!(folders.len() <= DEPTH);
        for (inner, outer) in folders.iter().zip(folders.iter().skip(1)) {
            assert!(inner.starts_with(outer));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &str = "\
22 1 8:1 / / rw - ext4 /dev/sda1 rw
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime shared:9 - cgroup cgroup rw,memory
36 31 0:33 / /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct
37 31 0:34 / /sys/fs/cgroup/cpuset rw,relatime - cgroup cgroup rw,cpuset
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
";
    const CGROUP: &str = "\
5:cpuset:/set
4:memory:/a/b
3:cpu,cpuacct:/c
1:name=systemd:/a:b
0::/u
";

    fn of(cgroup: &str, mounts: &str, controller: Controller) -> Vec<String> {
        folders(cgroup, mounts, controller).iter().map(|path| path.display().to_string()).collect()
    }

    #[test]
    fn each_controller_has_its_own_path() {
        assert_eq!(
            of(CGROUP, MOUNTS, Controller::Memory),
            ["/sys/fs/cgroup/memory/a/b", "/sys/fs/cgroup/memory/a", "/sys/fs/cgroup/memory/"]
        );
        assert_eq!(
            of(CGROUP, MOUNTS, Controller::Cpu),
            ["/sys/fs/cgroup/cpu,cpuacct/c", "/sys/fs/cgroup/cpu,cpuacct/"]
        );
        assert_eq!(of(CGROUP, MOUNTS, Controller::Unified), ["/sys/fs/cgroup/unified/u", "/sys/fs/cgroup/unified/"]);
    }

    #[test]
    fn a_mount_that_shows_a_part() {
        let mounts = "1 1 0:1 /kubepods/pod1 /sys/fs/cgroup ro - cgroup2 cgroup rw";
        assert_eq!(of("0::/kubepods/pod1/app", mounts, Controller::Unified), ["/sys/fs/cgroup/app", "/sys/fs/cgroup/"]);
        assert_eq!(of("0::/kubepods/pod1", mounts, Controller::Unified), ["/sys/fs/cgroup/"]);
    }

    #[test]
    fn a_path_outside_the_mount_leaves_the_mount() {
        let mounts = "1 1 0:1 /kubepods/pod1 /sys/fs/cgroup ro - cgroup2 cgroup rw";
        for own in ["/", "/kubepods/pod10", "/../pod2", "/kubepods/pod1/../pod2"] {
            assert_eq!(of(&format!("0::{own}"), mounts, Controller::Unified), ["/sys/fs/cgroup/"], "{own}");
        }
    }

    #[test]
    fn a_mount_point_with_spaces() {
        let mounts = "1 1 0:1 / /my\\040cgroups rw - cgroup2 cgroup rw";
        assert_eq!(of("0::/", mounts, Controller::Unified), ["/my cgroups/"]);
    }

    #[test]
    fn what_is_not_mounted_or_not_told_is_nowhere() {
        assert!(of(CGROUP, "", Controller::Memory).is_empty());
        assert!(of("", MOUNTS, Controller::Memory).is_empty());
        assert!(of("garbage", "1 2 - cgroup2", Controller::Unified).is_empty());
    }

    #[test]
    fn any_text_is_read_or_refused() {
        for text in ["", "0::/a/b/../c", "0::", "::", "4:cpu:/x\u{0}a b c / / - cgroup x cpu", "0::/\u{0}- - -"] {
            fuzz_paths(text.as_bytes());
        }
        fuzz_paths(format!("0::{}", "/x".repeat(1000)).as_bytes());
    }
}
