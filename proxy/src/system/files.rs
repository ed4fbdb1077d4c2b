//! The limit of open files: a proxy needs two per connection, and the soft limit is often 1,024.

use std::io;

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

#[test]
fn the_soft_limit_becomes_the_hard_one() {
    let files = raise_open_files().expect("raised");
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    assert_eq!((current, files.now), (maximum, maximum));
    assert_eq!(raise_open_files().expect("again").before, maximum);
}
