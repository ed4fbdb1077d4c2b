//! One file or stream as the sink's thread sees it: opened when needed, opened again after rotation or failure.
//!
//! ```text
//!     closed ──write──▶ open ──error──▶ broken ──write after `look`──▶ open
//!                        │▲
//!                        └┘ another inode at the path: opened again
//! ```

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::Target;

pub(super) struct Output {
    target: Target,
    look: Duration,
    state: State,
    /// The last write ended within a line; the next one begins with a line feed.
    torn: bool,
}

/// What became of a batch.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    pub(super) lost: u64,
    pub(super) change: Option<Change>,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Change {
    Broke(String),
    Healed,
}

impl Output {
    pub(super) fn new(target: Target, look: Duration) -> Output {
        Output { target, look, state: State::Closed, torn: false }
    }

    pub(super) fn target(&self) -> &Target {
        &self.target
    }

    pub(super) fn look(&self) -> Duration {
        self.look
    }

    /// Writes a batch of whole lines. What cannot be written is lost, but for the lines that were already out.
    pub(super) fn write(&mut self, batch: &[u8], now: Instant) -> Outcome {
        let was_broken = match self.state {
            State::Broken { since } if now < since + self.look => return Outcome { lost: lines(batch), change: None },
            State::Broken { .. } => true,
            State::Open { .. } | State::Closed => false,
        };
        let ready = self.ready(now);
        let (written, result) = match (ready, &mut self.state) {
            (Ok(()), State::Open { file, .. }) => write_to(file, &self.target, batch, &mut self.torn),
            (Ok(()), State::Closed | State::Broken { .. }) => (0, Err(io::ErrorKind::NotConnected.into())),
            (Err(error), _) => (0, Err(error)),
        };
        match result {
            Ok(()) => Outcome { lost: 0, change: was_broken.then_some(Change::Healed) },
            Err(error) => {
                self.state = State::Broken { since: now };
                let change = (!was_broken).then(|| Change::Broke(error.to_string()));
                Outcome { lost: lines(batch.get(written..).unwrap_or_default()), change }
            }
        }
    }

    /// Opens what is not open, or is no longer at its path.
    fn ready(&mut self, now: Instant) -> io::Result<()> {
        let keep = match &mut self.state {
            State::Open { file, looked } if now >= *looked + self.look => {
                *looked = now;
                is_at_path(file, &self.target)
            }
            State::Open { .. } => true,
            State::Closed | State::Broken { .. } => false,
        };
        if !keep {
            let file = open(&self.target)?;
            // Another file may have come into the place of the one that was torn.
            self.torn = self.torn && file.metadata().is_ok_and(|metadata| metadata.len() > 0 || !metadata.is_file());
            self.state = State::Open { file, looked: now };
        }
        Ok(())
    }
}

enum State {
    Closed,
    Open { file: File, looked: Instant },
    Broken { since: Instant },
}

fn open(target: &Target) -> io::Result<File> {
    match target {
        Target::Stdout => io::stdout().as_fd().try_clone_to_owned().map(File::from),
        Target::Stderr => io::stderr().as_fd().try_clone_to_owned().map(File::from),
        Target::File(path) => OpenOptions::new().append(true).create(true).mode(0o640).open(path),
    }
}

/// False when rotation has put another file, or none, at the path.
fn is_at_path(file: &File, target: &Target) -> bool {
    let Target::File(path) = target else { return true };
    match (file.metadata(), Path::metadata(path)) {
        (Ok(open), Ok(there)) => (open.dev(), open.ino()) == (there.dev(), there.ino()),
        _ => false,
    }
}

/// How many bytes of the batch went out, and whether that was all.
fn write_to(file: &mut File, target: &Target, batch: &[u8], torn: &mut bool) -> (usize, io::Result<()>) {
    // Several sinks may write to one stream, and a pipe mixes writes above 4 KiB: one batch at a time.
    let _turn = match target {
        Target::Stdout => Some(STDOUT.lock().unwrap_or_else(PoisonError::into_inner)),
        Target::Stderr => Some(STDERR.lock().unwrap_or_else(PoisonError::into_inner)),
        Target::File(_) => None,
    };
    if *torn {
        match file.write_all(b"\n") {
            Ok(()) => *torn = false,
            Err(error) => return (0, Err(error)),
        }
    }
    let mut written = 0;
    let result = loop {
        let rest = batch.get(written..).unwrap_or_default();
        if rest.is_empty() {
            break Ok(());
        }
        match file.write(rest) {
            Ok(0) => break Err(io::ErrorKind::WriteZero.into()),
            Ok(n) => written += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // Someone else has set the terminal or pipe that we share to non-blocking.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => std::thread::sleep(Duration::from_millis(5)),
            Err(error) => break Err(error),
        }
    };
    *torn = batch.get(..written).and_then(<[u8]>::last).is_some_and(|last| *last != b'\n');
    (written, result)
}

fn lines(bytes: &[u8]) -> u64 {
    bytes.iter().filter(|byte| **byte == b'\n').count() as u64
}

static STDOUT: Mutex<()> = Mutex::new(());
static STDERR: Mutex<()> = Mutex::new(());

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::telemetry::test_dir::TestDir;

    const LOOK: Duration = Duration::from_secs(1);

    #[test]
    fn a_full_disk_is_reported_once_and_healing_once() {
        let dir = TestDir::new("output-full");
        let path = dir.join("log");
        symlink("/dev/full", &path).expect("linked");
        let mut output = Output::new(Target::File(path.clone()), LOOK);
        let start = Instant::now();

        let first = output.write(b"one\ntwo\n", start);
        assert_eq!(first.lost, 2);
        assert!(matches!(&first.change, Some(Change::Broke(why)) if why.contains("No space left")), "{first:?}");
        let soon = output.write(b"three\n", start + LOOK / 2);
        assert!(soon.lost == 1 && soon.change.is_none(), "left alone for a while");
        let again = output.write(b"four\n", start + LOOK);
        assert!(again.lost == 1 && again.change.is_none(), "still broken is no news");

        fs::remove_file(&path).expect("removed");
        let healed = output.write(b"five\n", start + 2 * LOOK);
        assert!(healed.lost == 0 && healed.change == Some(Change::Healed));
        assert!(output.write(b"six\n", start + 2 * LOOK).change.is_none());
        assert_eq!(fs::read_to_string(&path).expect("written"), "five\nsix\n");
    }

    #[test]
    fn a_torn_line_is_ended_before_the_next() {
        let dir = TestDir::new("output-torn");
        let path = dir.join("log");
        let mut file = open(&Target::File(path.clone())).expect("open");
        let mut torn = false;
        write_to(&mut file, &Target::File(path.clone()), b"whole\nhal", &mut torn).1.expect("written");
        assert!(torn);
        write_to(&mut file, &Target::File(path.clone()), b"next\n", &mut torn).1.expect("written");
        assert!(!torn);
        assert_eq!(fs::read_to_string(&path).expect("read"), "whole\nhal\nnext\n");
    }

    #[test]
    fn rotation_is_looked_for_at_most_once_a_while() {
        let dir = TestDir::new("output-rotation");
        let path = dir.join("log");
        let mut output = Output::new(Target::File(path.clone()), LOOK);
        let start = Instant::now();
        output.write(b"one\n", start);
        fs::rename(&path, dir.join("log.1")).expect("moved");
        output.write(b"two\n", start + LOOK / 2);
        output.write(b"three\n", start + LOOK);
        assert_eq!(fs::read_to_string(dir.join("log.1")).expect("old"), "one\ntwo\n");
        assert_eq!(fs::read_to_string(&path).expect("new"), "three\n");
    }

    #[test]
    fn a_file_that_was_emptied_goes_on_at_its_start() {
        let dir = TestDir::new("output-truncate");
        let path = dir.join("log");
        let mut output = Output::new(Target::File(path.clone()), LOOK);
        output.write(b"one\n", Instant::now());
        OpenOptions::new().write(true).truncate(true).open(&path).expect("emptied");
        output.write(b"two\n", Instant::now());
        assert_eq!(fs::read_to_string(&path).expect("read"), "two\n");
    }
}
