//! Counters, gauges and histograms, one shard per worker, written out as OpenMetrics text.
//!
//! Every family stands in one table ([`family`]). A worker takes a [`Shard`], asks it once for a handle per series, keeps the
//! handle and writes to it for every request. Asking takes a lock and a hash; writing takes neither.
//!
//! Why writing is one relaxed load and one relaxed store and not `fetch_add`: a cell has one writer. A [`Shard`] and
//! its handles are not `Send`, each call of [`Registry::shard`] gives cells of its own, so the compiler proves that no second
//! thread can come between load and store. [`Registry::render`] only reads; a 64-bit atomic is never read torn, and a sum
//! that is a few nanoseconds old is still a sum. Off the road, where several threads write one number, [`Registry::shared`]
//! gives handles that are `Send` and do use `fetch_add`.

pub mod family;
mod handle;
mod reference;
#[cfg(test)]
mod strict;
mod text;

use std::collections::HashMap;
use std::marker::PhantomData;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use family::{CounterFamily, FAMILIES, GaugeFamily, HistogramFamily, Kind};
use handle::Example;
pub use handle::{AnyThread, Counter, Gauge, Held, Histogram, OneThread, Writer};
pub use reference::reference;
pub use text::CONTENT_TYPE;

/// All numbers of one proxy. Cloning gives another hold on the same numbers.
#[derive(Clone)]
pub struct Registry(Arc<Inner>);

/// The hand with which one thread (`OneThread`, the default) or many (`AnyThread`) write.
pub struct Shard<W: Writer = OneThread> {
    registry: Registry,
    id: u32,
    writer: PhantomData<W>,
}

impl Registry {
    pub fn new() -> Registry {
        Registry(Arc::new(Inner {
            tables: FAMILIES.iter().map(|_| Mutex::default()).collect(),
            shards: AtomicU32::new(SHARED + 1),
            watchers: Mutex::default(),
        }))
    }

    /// A shard for the thread that calls. What it wrote stays in the registry after it is gone.
    pub fn shard(&self) -> Shard {
        Shard { registry: self.clone(), id: self.0.shards.fetch_add(1, Relaxed), writer: PhantomData }
    }

    /// The shard of everything that is not on the road and may run on any thread.
    pub fn shared(&self) -> Shard<AnyThread> {
        Shard { registry: self.clone(), id: SHARED, writer: PhantomData }
    }

    /// Calls `look` before every [`render`](Registry::render): for numbers that are kept elsewhere and copied when asked for.
    /// It must not call `render` or `watch`.
    pub fn watch(&self, look: impl Fn() + Send + Sync + 'static) {
        lock(&self.0.watchers).push(Box::new(look));
    }

    /// OpenMetrics text of all series, shards summed.
    pub fn render(&self) -> String {
        for look in lock(&self.0.watchers).iter() {
            look();
        }
        let mut out = String::with_capacity(RENDER_CAPACITY);
        for (family, table) in FAMILIES.iter().zip(&self.0.tables) {
            // Summed under the lock, written after it: a worker that opens a series does not wait for text.
            let mut series: Vec<_> =
                lock(table).iter().map(|(labels, series)| (labels.clone(), series.sum(), series.examples())).collect();
            series.sort_by(|(a, ..), (b, ..)| a.cmp(b));
            text::write_family(&mut out, family, &series);
        }
        out.push_str("# EOF\n");
        out
    }

    /// The cells of one series in one shard. Beyond [`SERIES_LIMIT`] every new series of the family becomes `other`.
    fn cells(&self, family: usize, shard: u32, labels: &[&str]) -> Arc<[Line]> {
        let (Some(spec), Some(table)) = (FAMILIES.get(family), self.0.tables.get(family)) else {
            return Line::block(Kind::Histogram); // no such family: counted into the void, never a panic
        };
        let labels: Labels = labels.iter().map(|value| clip(value).into()).collect();
        let other: Labels = labels.iter().map(|_| OTHER.into()).collect();
        let (cells, overflowed) = {
            let mut table = lock(table);
            let overflows = !table.contains_key(&labels) && table.len() >= SERIES_LIMIT && labels != other;
            let series = table.entry(if overflows { other } else { labels }).or_default();
            (series.cells(shard, spec.kind), overflows)
        };
        if overflowed {
            self.shared().counter(family::SERIES_OVERFLOWED, &[spec.name]).add(1);
        }
        cells
    }
}

impl Default for Registry {
    fn default() -> Registry {
        Registry::new()
    }
}

impl<W: Writer> Shard<W> {
    pub fn counter<const L: usize>(&self, family: CounterFamily<L>, labels: &[&str; L]) -> Counter<W> {
        Counter::new(self.registry.cells(family.0, self.id, labels))
    }

    pub fn gauge<const L: usize>(&self, family: GaugeFamily<L>, labels: &[&str; L]) -> Gauge<W> {
        Gauge::new(self.registry.cells(family.0, self.id, labels))
    }

    pub fn histogram<const L: usize>(&self, family: HistogramFamily<L>, labels: &[&str; L]) -> Histogram<W> {
        Histogram::new(self.registry.cells(family.0, self.id, labels))
    }

    pub fn registry(&self) -> &Registry {
        &self.registry
    }
}

impl<W: Writer> Clone for Shard<W> {
    fn clone(&self) -> Shard<W> {
        Shard { registry: self.registry.clone(), id: self.id, writer: PhantomData }
    }
}

struct Inner {
    tables: Box<[Mutex<HashMap<Labels, Series>>]>,
    shards: AtomicU32,
    watchers: Mutex<Vec<Watcher>>,
}

type Labels = Arc<[Box<str>]>;
type Watcher = Box<dyn Fn() + Send + Sync>;

/// One series: its cells in each shard that asked for it.
#[derive(Default)]
struct Series(Vec<(u32, Arc<[Line]>)>);

impl Series {
    fn cells(&mut self, shard: u32, kind: Kind) -> Arc<[Line]> {
        if let Some((_, cells)) = self.0.iter().find(|(id, _)| *id == shard) {
            return cells.clone();
        }
        let cells = Line::block(kind);
        self.0.push((shard, cells.clone()));
        cells
    }

    /// The latest of each bucket, whichever shard has it. Nothing for what is no histogram.
    fn examples(&self) -> Vec<Option<Example>> {
        let mut latest = Vec::new();
        for (_, lines) in &self.0 {
            for (bucket, line) in lines.iter().skip(handle::EXAMPLES).enumerate() {
                let example = Example::read(line);
                match latest.get_mut(bucket) {
                    Some(known) => *known = example.into_iter().chain(*known).max_by_key(|example| example.unix_nanos),
                    None => latest.push(example),
                }
            }
        }
        latest
    }

    /// Wrapping, because a gauge that goes up in one shard and down in another is two's complement.
    fn sum(&self) -> Vec<u64> {
        let mut sums = Vec::new();
        for (_, cells) in &self.0 {
            let values = cells.iter().take(handle::EXAMPLES).flat_map(|line| &line.0).map(|cell| cell.load(Relaxed));
            for (at, value) in values.enumerate() {
                match sums.get_mut(at) {
                    Some(sum) => *sum = u64::wrapping_add(*sum, value),
                    None => sums.push(value),
                }
            }
        }
        sums
    }
}

/// One cache line of cells, so that no two shards ever write to the same line.
#[derive(Default)]
#[repr(align(64))]
struct Line([AtomicU64; CELLS]);

impl Line {
    /// A counter or a gauge is the first cell of one line; a histogram is its buckets and then its sum, and behind them a
    /// line for each bucket's example.
    fn block(kind: Kind) -> Arc<[Line]> {
        let lines = match kind {
            Kind::Counter | Kind::Gauge | Kind::Info => 1,
            Kind::Histogram => handle::EXAMPLES + handle::SUM,
        };
        (0..lines).map(|_| Line::default()).collect()
    }
}

fn clip(value: &str) -> &str {
    value.get(..value.floor_char_boundary(LABEL_LIMIT)).unwrap_or(value)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Series of one family over all shards, `other` not counted. Written out, a full histogram is 1.5 MB, a full counter 100 KB.
pub const SERIES_LIMIT: usize = 1000;
/// Bytes of one label value; longer ones are cut. Names of upstreams and listeners are far shorter.
pub const LABEL_LIMIT: usize = 128;
const OTHER: &str = "other";
const CELLS: usize = 8;
const SHARED: u32 = 0;
const RENDER_CAPACITY: usize = 16 * 1024;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn shards_are_summed_and_outlive_their_threads() {
        let registry = Registry::new();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let counter = registry.shard().counter(family::ACCEPT_ERRORS, &["files"]);
                    (0..1000).for_each(|_| counter.add(1));
                });
            }
        });
        assert!(registry.render().contains("spanmesh_proxy_accept_errors_total{kind=\"files\"} 4000\n"));
    }

    #[test]
    fn handles_of_the_same_series_are_one_number() {
        let shard = Registry::new().shard();
        let (a, b) =
            (shard.counter(family::ACCEPT_ERRORS, &["x"]), shard.clone().counter(family::ACCEPT_ERRORS, &["x"]));
        a.add(2);
        b.add(3);
        assert_eq!(a.value(), 5);
    }

    #[test]
    fn shared_counters_lose_nothing_between_threads() {
        let registry = Registry::new();
        let counter = registry.shared().counter(family::LOG_LINES_DROPPED, &["access", "full"]);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                let counter = counter.clone();
                scope.spawn(move || (0..10_000).for_each(|_| counter.add(1)));
            }
        });
        assert_eq!(counter.value(), 40_000);
    }

    #[test]
    fn the_series_beyond_the_limit_become_other_and_are_counted() {
        let registry = Registry::new();
        let (one, two) = (registry.shard(), registry.shard());
        for n in 0..SERIES_LIMIT + 5 {
            let shard = if n % 2 == 0 { &one } else { &two };
            shard.counter(family::RETRIES, &[&format!("upstream-{n}"), "reset"]).add(1);
        }
        one.counter(family::RETRIES, &["upstream-3", "reset"]).add(1);
        let text = registry.render();
        let series = text.lines().filter(|line| line.starts_with("spanmesh_proxy_retries_total{")).count();
        assert_eq!(series, SERIES_LIMIT + 1);
        assert!(text.contains("spanmesh_proxy_retries_total{upstream=\"other\",cause=\"other\"} 5\n"), "{text}");
        assert!(text.contains("{upstream=\"upstream-3\",cause=\"reset\"} 2\n"), "an old series stays itself");
        assert!(text.contains("series_overflowed_total{family=\"spanmesh_proxy_retries\"} 5\n"));
    }

    #[test]
    fn gauges_go_up_in_one_shard_and_down_in_another() {
        let registry = Registry::new();
        registry.shard().gauge(family::SPANS_IN_FLIGHT, &["*"]).add(3);
        registry.shard().gauge(family::SPANS_IN_FLIGHT, &["*"]).dec();
        assert!(registry.render().contains("spanmesh_proxy_spans_in_flight{destination=\"*\"} 2\n"));
    }

    #[test]
    fn watchers_write_before_the_text_is_made() {
        let registry = Registry::new();
        let files = registry.shared().gauge(family::PROCESS_OPEN_FDS, &[]);
        registry.watch(move || files.set(7));
        assert!(registry.render().contains("spanmesh_proxy_process_open_fds 7\n"));
    }

    #[test]
    fn long_label_values_are_cut_at_a_character() {
        let registry = Registry::new();
        registry.shard().counter(family::ACCEPT_ERRORS, &[&"é".repeat(LABEL_LIMIT)]).add(1);
        assert!(registry.render().contains(&format!("kind=\"{}\"", "é".repeat(LABEL_LIMIT / 2))));
    }

    #[test]
    fn two_shards_never_share_a_cache_line() {
        assert_eq!(size_of::<Line>(), 64);
        assert_eq!(align_of::<Line>(), 64);
        let shard = Registry::new().shard();
        shard.histogram(family::REQUEST_DURATION_SECONDS, &["in", "server"]).observe(Duration::from_millis(3));
    }
}
