//! The pipes through which the kernel moves bytes between two sockets (splice), and the limit on them.
//!
//! Pipe memory is limited per user id, and the sidecars of a node share theirs, so a process holds no more than its
//! budget and a connection holds a pipe only while its source is ahead of it. Without a pipe bytes are moved by read
//! and write: slower, never wrong.

use std::{cell::RefCell, io, os::fd::OwnedFd, sync::Arc};

use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_getpipe_size, fcntl_setpipe_size, pipe_with, splice};
use tokio::net::TcpStream;

use crate::system::budget::{Budget, Lease};

/// One worker's pipes: a few that wait for the next use, others made while the budget lasts.
#[derive(Debug)]
pub struct Pipes {
    budget: Arc<Budget>,
    spare: RefCell<Vec<Pipe>>,
}

impl Pipes {
    pub fn new(budget: Arc<Budget>) -> Self {
        Self { budget, spare: RefCell::default() }
    }

    /// An empty pipe, or none: then there is no budget, no descriptor, or no memory for it.
    pub(super) fn take(&self) -> Option<Pipe> {
        self.spare.borrow_mut().pop().or_else(|| Pipe::open(&self.budget))
    }

    pub(super) fn give(&self, pipe: Pipe) {
        let mut spare = self.spare.borrow_mut();
        if pipe.is_empty() && spare.len() < SPARE_MAX {
            spare.push(pipe);
        }
    }
}

#[derive(Debug)]
pub(super) struct Pipe {
    reader: OwnedFd,
    writer: OwnedFd,
    held: usize,
    size: usize,
    _lease: Lease,
}

impl Pipe {
    fn open(budget: &Arc<Budget>) -> Option<Self> {
        let lease = budget.take(PIPE_SIZE)?;
        let (reader, writer) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).ok()?;
        // Beyond the user's limit the kernel gives pipes of two pages, which are worse than none.
        let size = fcntl_setpipe_size(&writer, PIPE_SIZE).or_else(|_| fcntl_getpipe_size(&writer)).ok()?;
        (size >= PIPE_MIN).then_some(Self { reader, writer, held: 0, size, _lease: lease })
    }

    pub(super) fn is_empty(&self) -> bool {
        self.held == 0
    }

    pub(super) fn fill_from(&mut self, source: &TcpStream) -> io::Result<usize> {
        let count = splice(source, None, &self.writer, None, self.size - self.held, flags())?;
        self.held += count;
        Ok(count)
    }

    pub(super) fn empty_into(&mut self, sink: &TcpStream) -> io::Result<usize> {
        let count = splice(&self.reader, None, sink, None, self.held, flags())?;
        self.held = self.held.saturating_sub(count);
        Ok(count)
    }
}

fn flags() -> SpliceFlags {
    SpliceFlags::MOVE | SpliceFlags::NONBLOCK
}

/// Through 128 KiB or more, 1 MB costs 270 to 290 microseconds of CPU, through 64 KiB 270 to 330, by read and write 470
/// to 590 (loopback, 2 cores, `benches/examples/splice.rs`). A user's 64 MiB of pipe pages are 512 of these.
const PIPE_SIZE: usize = 128 * 1024;
/// The kernel's default; a smaller pipe moves less at once than read and write do.
const PIPE_MIN: usize = 64 * 1024;
/// Empty pipes that a worker keeps.
const SPARE_MAX: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pipes_end_with_the_budget_and_come_back_to_it() {
        let budget = Budget::new(2 * PIPE_SIZE + 1);
        let pipes = Pipes::new(budget.clone());
        let (first, second) = (pipes.take().unwrap(), pipes.take().unwrap());
        assert!(pipes.take().is_none());
        drop(first);
        assert_eq!(budget.held(), PIPE_SIZE);
        pipes.give(second);
        assert_eq!(budget.held(), PIPE_SIZE, "a spare pipe is held");
        assert!(pipes.take().is_some());
        drop(pipes);
        assert_eq!(budget.held(), 0);
    }

    #[test]
    fn a_worker_keeps_few_spare_pipes() {
        let budget = Budget::new(64 * PIPE_SIZE);
        let pipes = Pipes::new(budget.clone());
        let taken: Vec<_> = (0..2 * SPARE_MAX).map(|_| pipes.take().unwrap()).collect();
        taken.into_iter().for_each(|pipe| pipes.give(pipe));
        assert_eq!(budget.held(), SPARE_MAX * PIPE_SIZE);
    }
}
