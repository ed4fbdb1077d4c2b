//! What the proxy tells about itself: numbers (`metrics`), one line per request (`access_log`) and its own log (`log`).
//!
//! Nothing here waits for a reader: a line that finds its queue full is dropped and counted, a number is one store.
//! Spans are not here (`trace`); their files go through the same [`sink`].

pub mod access_log;
pub mod json;
pub mod log;
pub mod metrics;
pub mod print;
pub mod sink;
pub mod timestamp;

#[cfg(test)]
pub(crate) mod test_dir;
