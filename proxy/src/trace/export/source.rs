//! Where a sender's parcels come from: the queue in memory and, where there is one, the disk. They take turns while both
//! have something, so that what is old gets through and what is new does not wait behind it.

use std::rc::Rc;
use std::sync::Arc;

use tokio::sync::oneshot;

use super::ledger::Ledger;
use super::parcel::{Envelope, Parcel};
use super::queue::Queue;
use super::retry::Reason;
use super::sender::End;
use super::spill::{Fetched, Place, Spill};

pub struct Source {
    queue: Rc<Queue>,
    spill: Option<Spill>,
    /// Asked of the disk and not come yet.
    fetching: Option<oneshot::Receiver<Option<Fetched>>>,
    disk_first: bool,
}

pub struct Load {
    pub parcel: Parcel,
    pub from: Origin,
}

pub enum Origin {
    Queue,
    Disk(Place, Arc<Envelope>),
}

impl Source {
    pub fn new(queue: Rc<Queue>, spill: Option<Spill>) -> Self {
        Self { queue, spill, fetching: None, disk_first: true }
    }

    pub fn has_disk(&self) -> bool {
        self.spill.is_some()
    }

    /// `None` when the queue has come to its end and nothing else can be had before the time is up.
    pub async fn next(&mut self, end: &mut End) -> Option<Load> {
        let load = self.either(end).await;
        self.disk_first = matches!(load, Some(Load { from: Origin::Queue, .. }));
        load
    }

    async fn either(&mut self, end: &mut End) -> Option<Load> {
        let Some(spill) = self.spill.clone() else { return self.queue.next().await.map(Load::new) };
        let mut closed = false;
        loop {
            let over = end.is_over();
            if over {
                self.leave(&spill);
            } else if self.fetching.is_none() && spill.has_any() {
                self.fetching = Some(spill.fetch());
            }
            if closed && self.fetching.is_none() {
                return None;
            }
            if self.disk_first
                && let Some(fetched) = self.fetching.as_mut().and_then(|fetching| fetching.try_recv().ok())
            {
                self.fetching = None;
                match fetched {
                    Some(fetched) => return Some(Load::fetched(fetched)),
                    None => continue,
                }
            }
            tokio::select! {
                biased;
                parcel = self.queue.next(), if !closed => match parcel {
                    Some(parcel) => return Some(Load::new(parcel)),
                    None => closed = true,
                },
                fetched = come(&mut self.fetching) => {
                    self.fetching = None;
                    if let Some(fetched) = fetched {
                        return Some(Load::fetched(fetched));
                    }
                }
                () = end.come(), if !over => {}
                () = spill.news(), if !over && self.fetching.is_none() => {}
            }
        }
    }

    /// What the disk has is the next process's.
    fn leave(&mut self, spill: &Spill) {
        let Some(mut fetching) = self.fetching.take() else { return };
        // From here on it goes back by itself, if it has not come yet.
        fetching.close();
        if let Ok(Some(Fetched { place, parcel, .. })) = fetching.try_recv() {
            spill.give_back(place, parcel.len());
        }
    }

    /// A load is done but for `rest`, which goes to the disk, or is lost with the end.
    pub async fn close(&mut self, done: Done, envelope: &Arc<Envelope>, ledger: &Ledger, end: &End) {
        let Done { from, size, spans, rest } = done;
        if matches!(from, Origin::Queue) {
            self.queue.release(size);
        }
        let Some(spill) = &self.spill else {
            return rest.iter().for_each(|parcel| ledger.dropped(parcel.len(), Reason::Ended));
        };
        if let Origin::Disk(place, _) = from
            && end.is_over()
            && rest.iter().map(Parcel::len).sum::<usize>() == spans
        {
            return spill.give_back(place, spans);
        }
        for parcel in rest {
            spill.place(parcel, envelope.clone(), end.disks()).await;
        }
        if let Origin::Disk(place, _) = from {
            spill.settle(place);
        }
    }
}

/// What became of a load of this size.
pub struct Done {
    pub from: Origin,
    pub size: usize,
    pub spans: usize,
    /// Still to be sent.
    pub rest: Vec<Parcel>,
}

impl Load {
    fn new(parcel: Parcel) -> Self {
        Self { parcel, from: Origin::Queue }
    }

    fn fetched(fetched: Fetched) -> Self {
        Self { parcel: fetched.parcel, from: Origin::Disk(fetched.place, fetched.envelope) }
    }
}

/// Cancel safe.
async fn come(fetching: &mut Option<oneshot::Receiver<Option<Fetched>>>) -> Option<Fetched> {
    match fetching {
        Some(fetching) => fetching.await.ok().flatten(),
        None => std::future::pending().await,
    }
}
