//! What the small pieces that nobody has read are held against an HTTP/2 connection. h2 charges each with what it lacks
//! of 256 bytes, and ends the connection, with all who share it, when that is half of the connection's window. So the
//! same is counted here, and before it comes to that, those who make it so are cut: who took nothing between two looks,
//! and near the end who has not caught up with what came. Pieces that come together are joined before (`counted`), so
//! that what is left are streams of small messages that come one by one to readers who lag by thousands of them.
//!
//! Nobody tells which stream a body belongs to, so the sum is the connection's, and whether it lags is the body's.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use tokio::time::Instant;

use super::counted::pieces::{SMALL, charge};
use crate::exchange::Exchange;
use crate::limit::Limit;

/// Of one connection.
pub struct Debt {
    owed: Cell<i64>,
    /// What h2 bears.
    budget: i64,
    /// From here on it is time for a look.
    mark: Cell<i64>,
    looks: Cell<u32>,
    looked: Cell<Option<Instant>>,
    /// The connection's task has let others run since.
    paused: Cell<bool>,
    readers: RefCell<Vec<Option<Reader>>>,
    free: RefCell<Vec<usize>>,
}

/// A body that is read from the connection.
struct Reader {
    exchange: Rc<Exchange>,
    /// It waits for more.
    waits: bool,
    /// What it took last was no small piece: it is less likely to be the one.
    large: bool,
    /// How many pieces it took, and how many at the last look.
    taken: u64,
    before: Option<u64>,
    /// The number of looks when it waited last.
    caught: u32,
}

/// The place of one body among the readers, until this is dropped.
pub struct Reading {
    debt: Rc<Debt>,
    place: usize,
}

impl Debt {
    /// For a connection with this window.
    pub fn new(window: u32) -> Rc<Self> {
        let budget = i64::from(window / 2).max(LEAST);
        Rc::new(Self {
            owed: Cell::new(0),
            budget,
            mark: Cell::new(budget / 4),
            looks: Cell::new(0),
            looked: Cell::new(None),
            paused: Cell::new(false),
            readers: RefCell::default(),
            free: RefCell::default(),
        })
    }

    pub fn read(self: &Rc<Self>, exchange: &Rc<Exchange>) -> Reading {
        let reader = Some(Reader {
            exchange: exchange.clone(),
            waits: false,
            large: false,
            taken: 0,
            before: None,
            caught: self.looks.get(),
        });
        let mut readers = self.readers.borrow_mut();
        let place = self.free.borrow_mut().pop().unwrap_or(readers.len());
        match readers.get_mut(place) {
            Some(free) => *free = reader,
            None => readers.push(reader),
        }
        Reading { debt: self.clone(), place }
    }

    /// Pieces came that cost this.
    pub fn came(&self, cost: i64) {
        if cost == 0 {
            return;
        }
        let owed = (self.owed.get() + cost).max(0);
        self.owed.set(owed);
        if owed > self.mark.get() {
            self.look(Instant::now());
        } else if owed < self.budget / 8 {
            self.mark.set(self.budget / 4);
        }
    }

    /// The connection's task lets others run.
    pub fn paused(&self) {
        self.paused.set(true);
    }

    /// Looks at all, and cuts who lags. Between two looks everybody has had time to read.
    fn look(&self, now: Instant) {
        if self.looked.get().is_some_and(|last| now < last + PAUSE || !self.paused.get()) {
            return;
        }
        let (look, owed) = (self.looks.get() + 1, self.owed.get());
        self.looks.set(look);
        self.looked.set(Some(now));
        self.paused.set(false);
        self.mark.set(owed.max(self.budget / 4) + self.budget / 16);
        let late = owed > self.budget / 4 * 3;
        for reader in self.readers.borrow_mut().iter_mut().flatten() {
            let still = reader.before.replace(reader.taken) == Some(reader.taken);
            let lags = still && !reader.large || late && (still || reader.caught + LAG < look);
            if reader.waits {
                reader.caught = look;
            } else if lags && !reader.exchange.is_cut() {
                let flag = reader.exchange.limited(Limit::UnreadPieces);
                reader.exchange.request_failed(flag);
                reader.exchange.cut(flag);
            }
        }
    }
}

impl Reading {
    /// The body has nothing more.
    pub fn waits(&self) {
        if let Some(Some(reader)) = self.debt.readers.borrow_mut().get_mut(self.place) {
            (reader.waits, reader.caught) = (true, self.debt.looks.get());
        }
    }

    /// It has something to go on with: whether it wants more will be seen when it asks.
    pub fn has_enough(&self) {
        if let Some(Some(reader)) = self.debt.readers.borrow_mut().get_mut(self.place) {
            reader.waits = false;
        }
    }

    /// A piece was taken out, read or not. One that was the `last` has cost nothing.
    pub fn took(&self, length: usize, last: bool) {
        if let Some(Some(reader)) = self.debt.readers.borrow_mut().get_mut(self.place) {
            reader.taken += 1;
            (reader.waits, reader.large) = (false, length >= SMALL);
        }
        if length < SMALL && !last {
            self.debt.owed.set((self.debt.owed.get() - charge(length)).max(0));
        }
    }

    /// Whether anything is owed, by whomever.
    pub fn owes(&self) -> bool {
        self.debt.owed.get() > 0
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        let mut readers = self.debt.readers.borrow_mut();
        let mut free = self.debt.free.borrow_mut();
        let reader = readers.get_mut(self.place).and_then(Option::take);
        free.push(self.place);
        if free.len() == readers.len() && free.len() > KEPT {
            // A connection that lies still holds little.
            (*readers, *free) = (Vec::new(), Vec::new());
        }
        drop((readers, free, reader));
    }
}

/// h2 bears as much with the least window.
const LEAST: i64 = 25_600;
/// Between two looks.
const PAUSE: Duration = Duration::from_millis(100);
/// Room for as many readers stays.
const KEPT: usize = 16;
/// For so many looks a reader may be behind, near the end.
const LAG: u32 = 4;
