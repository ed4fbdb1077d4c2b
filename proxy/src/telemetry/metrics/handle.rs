//! The handles that write: a counter, a gauge, a histogram. Cheap to clone, cheaper to keep by reference.
//!
//! Families whose unit is seconds are kept in nanoseconds and divided when they are written out; `*_duration` writes them.

use std::marker::PhantomData;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicU64, fence};
use std::time::Duration;

use spanmesh_proto::TraceId;

use super::{CELLS, Line};

/// Who may write to a cell, and so how: [`OneThread`] or [`AnyThread`].
pub trait Writer {
    fn add(cell: &AtomicU64, n: u64);
    fn raise(cell: &AtomicU64, total: u64);
}

/// Not `Send`: the one thread that took the shard. Load and store, see `metrics`.
///
/// ```compile_fail,E0277
/// let shard = spanmesh_proxy::telemetry::metrics::Registry::new().shard();
/// std::thread::spawn(move || shard.registry().render());
/// ```
pub struct OneThread(PhantomData<Rc<()>>);

/// Any thread: `fetch_add`. For what is off the road.
pub struct AnyThread(());

/// A number that only grows.
pub struct Counter<W: Writer = OneThread>(Cells<W>);

/// A number that goes up and down.
pub struct Gauge<W: Writer = OneThread>(Cells<W>);

/// How many durations fell below 16 bounds from 0.5 ms to 60 s, and their sum.
pub struct Histogram<W: Writer = OneThread>(Cells<W>);

/// One that is counted in a gauge until it is dropped.
pub struct Held<W: Writer = OneThread>(Gauge<W>);

impl<W: Writer> Counter<W> {
    pub(super) fn new(lines: Arc<[Line]>) -> Counter<W> {
        Counter(Cells::new(lines))
    }

    #[inline]
    pub fn add(&self, n: u64) {
        W::add(self.0.at(0), n);
    }

    /// For families in seconds.
    #[inline]
    pub fn add_duration(&self, time: Duration) {
        self.add(nanoseconds(time));
    }

    /// Follows a total that is kept elsewhere; never goes back.
    pub fn follow(&self, total: u64) {
        W::raise(self.0.at(0), total);
    }

    /// As [`follow`](Counter::follow), for families in seconds.
    pub fn follow_duration(&self, total: Duration) {
        self.follow(nanoseconds(total));
    }

    /// What this shard wrote.
    pub fn value(&self) -> u64 {
        self.0.at(0).load(Relaxed)
    }
}

impl<W: Writer> Gauge<W> {
    pub(super) fn new(lines: Arc<[Line]>) -> Gauge<W> {
        Gauge(Cells::new(lines))
    }

    #[inline]
    pub fn inc(&self) {
        self.add(1);
    }

    #[inline]
    pub fn dec(&self) {
        self.add(-1);
    }

    #[inline]
    pub fn add(&self, n: i64) {
        W::add(self.0.at(0), n.cast_unsigned());
    }

    /// Sets this shard's part of the number.
    pub fn set(&self, value: i64) {
        self.0.at(0).store(value.cast_unsigned(), Relaxed);
    }

    /// For families in seconds.
    pub fn set_duration(&self, time: Duration) {
        self.set(nanoseconds(time).min(i64::MAX.cast_unsigned()).cast_signed());
    }

    /// Counts one up now and down when the answer is dropped.
    pub fn hold(&self) -> Held<W> {
        self.inc();
        Held(self.clone())
    }

    /// What this shard wrote.
    pub fn value(&self) -> i64 {
        self.0.at(0).load(Relaxed).cast_signed()
    }
}

impl<W: Writer> Histogram<W> {
    pub(super) fn new(lines: Arc<[Line]>) -> Histogram<W> {
        Histogram(Cells::new(lines))
    }

    #[inline]
    pub fn observe(&self, time: Duration) {
        let time = nanoseconds(time);
        let bucket = BOUNDS.partition_point(|(bound, _)| *bound < time);
        W::add(self.0.at(bucket), 1);
        W::add(self.0.at(SUM), time);
    }
}

impl Histogram {
    /// Keeps a trace as the example of the bucket that its duration fell into, unless that has one that is younger than a
    /// second. Whoever reads it meanwhile sees by the version that it is half of one and half of another.
    pub fn example(&self, time: Duration, trace: TraceId, unix_nanos: u64) {
        let time = nanoseconds(time);
        let bucket = BOUNDS.partition_point(|(bound, _)| *bound < time);
        let Some(Line([version, high, low, value, at, ..])) = self.0.lines.get(EXAMPLES + bucket) else { return };
        if at.load(Relaxed).saturating_add(EXAMPLE_EVERY) > unix_nanos {
            return;
        }
        let before = version.load(Relaxed);
        version.store(before.wrapping_add(1), Relaxed);
        fence(Release);
        let id = u128::from_be_bytes(trace.to_bytes());
        high.store((id >> 64) as u64, Relaxed);
        low.store(id as u64, Relaxed);
        value.store(time, Relaxed);
        at.store(unix_nanos, Relaxed);
        version.store(before.wrapping_add(2), Release);
    }
}

/// A trace whose duration fell into a bucket, and when that was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Example {
    pub(super) trace: TraceId,
    pub(super) nanos: u64,
    pub(super) unix_nanos: u64,
}

impl Example {
    /// `None` where there is none, or it is being written.
    pub(super) fn read(line: &Line) -> Option<Self> {
        let Line([version, high, low, value, at, ..]) = line;
        let before = version.load(Acquire);
        let id = u128::from(high.load(Relaxed)) << 64 | u128::from(low.load(Relaxed));
        let (nanos, unix_nanos) = (value.load(Relaxed), at.load(Relaxed));
        fence(Acquire);
        if before % 2 == 1 || version.load(Relaxed) != before {
            return None;
        }
        Some(Self { trace: TraceId::from_bytes(id.to_be_bytes())?, nanos, unix_nanos })
    }
}

impl<W: Writer> Drop for Held<W> {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl Writer for OneThread {
    #[inline]
    fn add(cell: &AtomicU64, n: u64) {
        cell.store(cell.load(Relaxed).wrapping_add(n), Relaxed);
    }

    fn raise(cell: &AtomicU64, total: u64) {
        cell.store(cell.load(Relaxed).max(total), Relaxed);
    }
}

impl Writer for AnyThread {
    fn add(cell: &AtomicU64, n: u64) {
        cell.fetch_add(n, Relaxed);
    }

    fn raise(cell: &AtomicU64, total: u64) {
        cell.fetch_max(total, Relaxed);
    }
}

impl<W: Writer> Clone for Counter<W> {
    fn clone(&self) -> Counter<W> {
        Counter(self.0.clone())
    }
}

impl<W: Writer> Clone for Gauge<W> {
    fn clone(&self) -> Gauge<W> {
        Gauge(self.0.clone())
    }
}

impl<W: Writer> Clone for Histogram<W> {
    fn clone(&self) -> Histogram<W> {
        Histogram(self.0.clone())
    }
}

struct Cells<W> {
    lines: Arc<[Line]>,
    writer: PhantomData<W>,
}

impl<W> Cells<W> {
    fn new(lines: Arc<[Line]>) -> Cells<W> {
        Cells { lines, writer: PhantomData }
    }

    /// The cell at `at`. In range by construction: `Line::block` makes as many lines as the kind has cells, and the kind of
    /// a handle is checked by the type of its family.
    #[inline]
    fn at(&self, at: usize) -> &AtomicU64 {
        &self.lines[at / CELLS].0[at % CELLS]
    }
}

impl<W> Clone for Cells<W> {
    fn clone(&self) -> Cells<W> {
        Cells::new(self.lines.clone())
    }
}

#[inline]
fn nanoseconds(time: Duration) -> u64 {
    time.as_secs().saturating_mul(1_000_000_000).saturating_add(u64::from(time.subsec_nanos()))
}

/// Upper bounds of the buckets in nanoseconds, and as OpenMetrics writes them: from what a hop costs on the same node to
/// the timeouts that people set. One set for all families, so that dashboards can divide one by the other.
pub(super) const BOUNDS: [(u64, &str); 16] = [
    (500_000, "0.0005"),
    (1_000_000, "0.001"),
    (2_500_000, "0.0025"),
    (5_000_000, "0.005"),
    (10_000_000, "0.01"),
    (25_000_000, "0.025"),
    (50_000_000, "0.05"),
    (100_000_000, "0.1"),
    (250_000_000, "0.25"),
    (500_000_000, "0.5"),
    (1_000_000_000, "1.0"),
    (2_500_000_000, "2.5"),
    (5_000_000_000, "5.0"),
    (10_000_000_000, "10.0"),
    (30_000_000_000, "30.0"),
    (60_000_000_000, "60.0"),
];
/// The cell of a histogram's sum: after the buckets and the one without a bound.
pub(super) const SUM: usize = BOUNDS.len() + 1;
/// The line of the first bucket's example: after the cells, and one for each.
pub(super) const EXAMPLES: usize = (SUM + 1).div_ceil(CELLS);
/// An example of a second ago is as good as a new one, and costs nothing.
const EXAMPLE_EVERY: u64 = 1_000_000_000;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::metrics::{Registry, family};

    #[test]
    fn a_bound_belongs_to_its_own_bucket() {
        let registry = Registry::new();
        let histogram = registry.shard().histogram(family::REQUEST_DURATION_SECONDS, &["in", "server"]);
        for (bound, _) in BOUNDS {
            histogram.observe(Duration::from_nanos(bound));
        }
        for (bucket, (_, bound)) in BOUNDS.iter().enumerate() {
            assert_eq!(histogram.0.at(bucket).load(Relaxed), 1, "{bound}");
        }
        histogram.observe(Duration::from_nanos(60_000_000_001));
        histogram.observe(Duration::MAX);
        assert_eq!(histogram.0.at(BOUNDS.len()).load(Relaxed), 2);
    }

    #[test]
    fn a_bucket_has_one_example_and_a_new_one_each_second() {
        let registry = Registry::new();
        let histogram = registry.shard().histogram(family::REQUEST_DURATION_SECONDS, &["in", "server"]);
        let trace = |byte| TraceId::from_bytes([byte; 16]).expect("an id");
        let read = |bucket: usize| Example::read(&histogram.0.lines[EXAMPLES + bucket]).map(|example| example.trace);
        assert_eq!(read(0), None);
        let (short, second) = (Duration::from_micros(3), 1_000_000_000);
        histogram.example(short, trace(1), 10 * second);
        histogram.example(short, trace(2), 11 * second - 1);
        histogram.example(Duration::MAX, trace(3), 11 * second);
        assert_eq!((read(0), read(1), read(BOUNDS.len())), (Some(trace(1)), None, Some(trace(3))));
        histogram.example(short, trace(4), 11 * second);
        assert_eq!(read(0), Some(trace(4)));
        assert_eq!(histogram.0.at(0).load(Relaxed), 0, "an example is no observation");
    }

    #[test]
    fn whoever_reads_sees_whole_examples() {
        let registry = Registry::new();
        let done = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let histogram = registry.shard().histogram(family::REQUEST_DURATION_SECONDS, &["in", "server"]);
                for number in 1..200_000u64 {
                    let trace = TraceId::from_bytes([number as u8 | 1; 16]).expect("an id");
                    histogram.example(Duration::from_nanos(number), trace, number * EXAMPLE_EVERY);
                }
                done.store(true, Relaxed);
            });
            while !done.load(Relaxed) {
                for line in registry.render().lines().filter(|line| line.contains("trace_id")) {
                    let id = line.split('"').rev().nth(1).expect("quoted");
                    assert!(id.as_bytes().chunks(2).all(|byte| byte == &id.as_bytes()[..2]), "{line}");
                }
            }
        });
    }

    #[test]
    fn bounds_are_written_as_they_are_kept() {
        for (nanoseconds, text) in BOUNDS {
            let seconds: f64 = text.parse().expect("a float");
            assert_eq!((seconds * 1e9).round() as u64, nanoseconds);
        }
        assert!(BOUNDS.is_sorted_by(|a, b| a.0 < b.0));
    }

    #[test]
    fn held_counts_until_dropped() {
        let gauge = Registry::new().shard().gauge(family::CONNECTIONS_ACTIVE, &["in"]);
        let held = (gauge.hold(), gauge.hold());
        assert_eq!(gauge.value(), 2);
        drop(held);
        assert_eq!(gauge.value(), 0);
    }

    #[test]
    fn a_followed_total_never_goes_back() {
        let counter = Registry::new().shard().counter(family::WORKER_BUSY_SECONDS, &["0"]);
        counter.follow_duration(Duration::from_secs(3));
        counter.follow_duration(Duration::from_secs(2));
        assert_eq!(counter.value(), 3_000_000_000);
    }
}
