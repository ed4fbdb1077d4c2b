//! Rules for the end of a request: by what became of it, its spans of this hop are kept after all.

use std::sync::Arc;
use std::time::Duration;

use super::bucket::Bucket;
use super::plan::Keep;
use super::tally::Seat;
use super::threshold::Threshold;
use crate::config::KeepOn;
use crate::error::Flag;

/// How a request ended.
#[derive(Clone, Copy, Debug)]
pub struct Ended {
    pub status: Option<u16>,
    /// Its status of gRPC makes its span an error, and: anything does.
    pub grpc_error: bool,
    pub error: bool,
    pub flag: Flag,
    pub took: Duration,
    pub retries: u32,
    /// Of its trace.
    pub randomness: u64,
    /// It is kept already.
    pub sampled: bool,
    /// In nanoseconds since 1970.
    pub now: u64,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Kept {
    pub seat: Seat,
    pub trigger: Trigger,
    /// All that end like this one and reach this threshold are kept. `None` where that is not known, since some are not for
    /// want of room.
    pub threshold: Option<Threshold>,
}

/// As `spanmesh.sampling.trigger` has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trigger {
    Error,
    Status,
    Flag,
    Latency,
    Retry,
}

impl Trigger {
    pub fn name(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Status => "status",
            Self::Flag => "flag",
            Self::Latency => "latency",
            Self::Retry => "retry",
        }
    }
}

#[derive(Debug)]
pub(super) struct Keeper {
    keep: Keep,
    seat: Seat,
    bucket: Arc<Bucket>,
}

impl Keeper {
    pub fn new(keep: &Keep, seat: Seat, bucket: Arc<Bucket>) -> Self {
        Self { keep: keep.clone(), seat, bucket }
    }

    /// Why it is for this request, if it is.
    pub fn fires(&self, ended: &Ended) -> Option<Trigger> {
        self.keep.on.iter().find_map(|on| trigger(on, ended))
    }

    /// With what threshold it keeps whatever it is for. It must not hang on the randomness of the request that asks.
    pub fn sure(&self, now: u64) -> Option<Threshold> {
        let Keep { threshold, limit, .. } = &self.keep;
        let room = self.bucket.has_room(limit.traces_per_second, limit.burst, now);
        Some(*threshold).filter(|_| room && !self.bucket.is_short(now))
    }

    /// What is sampled already needs no room.
    pub fn takes(&self, ended: &Ended) -> bool {
        let Keep { threshold, limit, .. } = &self.keep;
        threshold.keeps(ended.randomness)
            && (ended.sampled || self.bucket.take(limit.traces_per_second, limit.burst, ended.now))
    }

    pub fn seat(&self) -> Seat {
        self.seat
    }
}

fn trigger(on: &KeepOn, ended: &Ended) -> Option<Trigger> {
    let (holds, trigger) = match on {
        KeepOn::Errors => (ended.error, Trigger::Error),
        KeepOn::GrpcStatus => (ended.grpc_error, Trigger::Status),
        KeepOn::HttpStatus(ranges) => {
            let within = |status: u16| ranges.iter().any(|range| (range.first..=range.last).contains(&status));
            (ended.status.is_some_and(within), Trigger::Status)
        }
        KeepOn::ResponseFlags(flags) => (flags.contains(&ended.flag), Trigger::Flag),
        KeepOn::Latency(threshold) => (ended.took >= *threshold, Trigger::Latency),
        KeepOn::Retries(min) => (ended.retries >= *min, Trigger::Retry),
    };
    holds.then_some(trigger)
}
