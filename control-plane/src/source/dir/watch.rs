//! Waits until something in a folder may have changed. The kernel tells of writes, renames and removals in it; what it does
//! not tell of, such as a change of a symlink's target elsewhere, is found by looking again now and then.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use tokio::io::unix::AsyncFd;

pub struct Changes {
    told: AsyncFd<OwnedFd>,
    path: PathBuf,
}

impl Changes {
    pub fn new(path: &Path) -> io::Result<Self> {
        let told = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        let changes = Self { told: AsyncFd::new(told)?, path: path.to_owned() };
        changes.watch()?;
        Ok(changes)
    }

    /// To watch again what is watched changes nothing; a folder that was replaced is another one.
    fn watch(&self) -> io::Result<()> {
        let flags = WatchFlags::CLOSE_WRITE
            | WatchFlags::MOVED_TO
            | WatchFlags::MOVED_FROM
            | WatchFlags::DELETE
            | WatchFlags::CREATE;
        inotify::add_watch(self.told.get_ref(), &self.path, flags)?;
        Ok(())
    }

    pub async fn next(&mut self) {
        if let Ok(Ok(mut ready)) = tokio::time::timeout(LOOK, self.told.readable()).await {
            let mut buffer = [MaybeUninit::<u8>::uninit(); 4096];
            let mut reader = inotify::Reader::new(self.told.get_ref(), &mut buffer);
            while reader.next().is_ok() {}
            ready.clear_ready();
        }
        // A folder that is gone may come back.
        let _ = self.watch();
    }
}

const LOOK: Duration = Duration::from_secs(1);
