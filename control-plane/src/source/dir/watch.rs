//! Waits until something in a folder may have changed. The kernel tells of writes, renames and removals in it; what it does
//! not tell of, such as a change of a symlink's target elsewhere, is found by looking again now and then.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};

pub struct Changes {
    told: Arc<OwnedFd>,
    path: PathBuf,
}

impl Changes {
    pub fn new(path: &Path) -> io::Result<Self> {
        let told = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        let changes = Self { told: Arc::new(told), path: path.to_owned() };
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
        inotify::add_watch(&*self.told, &self.path, flags)?;
        Ok(())
    }

    pub async fn next(&mut self) {
        let told = self.told.clone();
        // It fails only while the runtime shuts down.
        let _ = tokio::task::spawn_blocking(move || wait(&told)).await;
        // A folder that is gone may come back.
        let _ = self.watch();
    }
}

/// Until the kernel tells of something, or for as long as one look holds.
fn wait(told: &OwnedFd) {
    let look = Timespec::try_from(LOOK).ok();
    let _ = poll(&mut [PollFd::new(told, PollFlags::IN)], look.as_ref());
    let mut buffer = [MaybeUninit::<u8>::uninit(); 4096];
    let mut reader = inotify::Reader::new(told, &mut buffer);
    while reader.next().is_ok() {}
}

const LOOK: Duration = Duration::from_secs(1);
