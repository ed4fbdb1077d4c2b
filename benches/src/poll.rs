//! One epoll, level-triggered.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::time::Timespec;

pub struct Poll {
    epoll: OwnedFd,
    events: [Event; EVENTS],
    ready: usize,
}

impl Poll {
    pub fn new() -> io::Result<Self> {
        let none = Event { flags: EventFlags::empty(), data: EventData::new_u64(0) };
        Ok(Self { epoll: epoll::create(CreateFlags::CLOEXEC)?, events: [none; EVENTS], ready: 0 })
    }

    pub fn add(&self, source: impl AsFd, token: u64, writes: bool) -> io::Result<()> {
        Ok(epoll::add(&self.epoll, source, EventData::new_u64(token), flags(writes))?)
    }

    pub fn change(&self, source: impl AsFd, token: u64, writes: bool) -> io::Result<()> {
        Ok(epoll::modify(&self.epoll, source, EventData::new_u64(token), flags(writes))?)
    }

    /// Waits, at most so long, and tells how many events [`Poll::event`] has.
    pub fn wait(&mut self, most: Option<Duration>) -> io::Result<usize> {
        let most = most.map(|most| Timespec { tv_sec: most.as_secs() as i64, tv_nsec: most.subsec_nanos().into() });
        self.ready = match epoll::wait(&self.epoll, &mut self.events[..], most.as_ref()) {
            Ok(ready) => ready,
            Err(rustix::io::Errno::INTR) => 0,
            Err(error) => return Err(error.into()),
        };
        Ok(self.ready)
    }

    /// The token of an event, and whether its socket can be written to.
    pub fn event(&self, index: usize) -> (u64, bool) {
        let Event { flags, data } = self.events[index];
        (data.u64(), flags.intersects(EventFlags::OUT))
    }
}

fn flags(writes: bool) -> EventFlags {
    if writes { EventFlags::IN | EventFlags::OUT } else { EventFlags::IN }
}

const EVENTS: usize = 512;
