//! The limit of open files: a proxy needs two per connection, and the soft limit is often 1,024.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// The limit of open files; none is no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenFiles {
    pub before: Option<u64>,
    pub now: Option<u64>,
}

/// Raises the soft limit to the hard one. Needs no right.
pub fn raise_open_files() -> io::Result<OpenFiles> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current != maximum {
        setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })?;
    }
    Ok(OpenFiles { before: current, now: maximum })
}

/// From which descriptor on they are scarce. The kernel gives the lowest that is free, so its number tells how many are in
/// use, and no count need be kept or shared.
#[derive(Clone, Copy, Debug)]
pub struct Descriptors {
    scarce: u64,
}

impl Descriptors {
    /// Of this process, as its limit is now.
    pub fn now() -> Self {
        Self::of(getrlimit(Resource::Nofile).current)
    }

    fn of(limit: Option<u64>) -> Self {
        // A connection from a client mostly needs another one, to an upstream, and must not find none.
        Self { scarce: limit.map_or(u64::MAX, |limit| limit / 4 * 3) }
    }

    pub fn is_scarce(self, newest: BorrowedFd<'_>) -> bool {
        u64::try_from(newest.as_raw_fd()).is_ok_and(|number| number >= self.scarce)
    }
}

#[test]
fn the_last_quarter_of_the_descriptors_is_scarce() {
    let file = std::fs::File::open("/dev/null").expect("a file");
    let newest = std::os::fd::AsFd::as_fd(&file);
    let number = u64::try_from(newest.as_raw_fd()).expect("a number");
    assert!(!Descriptors::of(None).is_scarce(newest));
    assert!(!Descriptors::of(Some((number + 4) * 4 / 3 + 4)).is_scarce(newest));
    assert!(Descriptors::of(Some(number)).is_scarce(newest));
}

#[test]
fn the_soft_limit_becomes_the_hard_one() {
    let files = raise_open_files().expect("raised");
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    assert_eq!((current, files.now), (maximum, maximum));
    assert_eq!(raise_open_files().expect("again").before, maximum);
}
