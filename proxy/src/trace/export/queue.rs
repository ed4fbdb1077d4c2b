//! Parcels that wait for one destination, bounded in bytes. The one that is being sent counts until it is let go of, so
//! that the bound is that of the memory. Encoder and sender run on one thread.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;

use tokio::sync::Notify;

use super::parcel::Parcel;

pub struct Queue {
    parcels: RefCell<VecDeque<Parcel>>,
    /// Held in all, the parcel under way included.
    bytes: Cell<usize>,
    limit: usize,
    news: Notify,
    closed: Cell<bool>,
}

impl Queue {
    pub fn new(limit: usize) -> Self {
        Self { parcels: RefCell::default(), bytes: Cell::new(0), limit, news: Notify::new(), closed: Cell::new(false) }
    }

    /// Takes the parcel in, and gives back what has to go for it: the oldest, and itself if nothing else is left.
    pub fn push(&self, parcel: Parcel) -> Vec<Parcel> {
        let mut parcels = self.parcels.borrow_mut();
        self.bytes.set(self.bytes.get() + parcel.size());
        parcels.push_back(parcel);
        let mut gone = Vec::new();
        while self.bytes.get() > self.limit
            && let Some(oldest) = parcels.pop_front()
        {
            self.bytes.set(self.bytes.get().saturating_sub(oldest.size()));
            gone.push(oldest);
        }
        self.news.notify_one();
        gone
    }

    /// The oldest. Its bytes are held until [`release`](Queue::release). `None` when nothing waits and nothing will come.
    pub async fn next(&self) -> Option<Parcel> {
        loop {
            if let Some(parcel) = self.parcels.borrow_mut().pop_front() {
                return Some(parcel);
            }
            if self.closed.get() {
                return None;
            }
            self.news.notified().await;
        }
    }

    pub fn release(&self, bytes: usize) {
        self.bytes.set(self.bytes.get().saturating_sub(bytes));
    }

    /// Nothing more will come.
    pub fn close(&self) {
        self.closed.set(true);
        self.news.notify_one();
    }

    pub fn bytes(&self) -> usize {
        self.bytes.get()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parcel(byte: u8, bytes: usize) -> Parcel {
        let mut parcel = Parcel::default();
        parcel.push(&vec![byte; bytes - size_of::<usize>()]);
        parcel
    }

    #[test]
    fn the_oldest_go_when_it_is_full_and_what_is_under_way_counts() {
        let queue = Queue::new(300);
        assert!(queue.push(parcel(1, 100)).is_empty() && queue.push(parcel(2, 100)).is_empty());
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let first = runtime.block_on(queue.next()).unwrap();
        assert!(queue.push(parcel(3, 100)).is_empty());
        assert_eq!(queue.push(parcel(4, 100)).len(), 1, "number 2");
        assert_eq!(queue.push(parcel(5, 301)).len(), 3, "what fits in no queue leaves nothing behind");
        queue.release(first.size());
        assert_eq!(queue.bytes(), 0);
        queue.close();
        assert!(runtime.block_on(queue.next()).is_none());
    }
}
