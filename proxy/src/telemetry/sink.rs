//! Takes lines from any thread and writes them to a file or stream on a thread of its own: access log, own log, span files.
//!
//! The caller never waits. A line that finds the queue full is dropped and counted; so is everything that a broken file cannot
//! take. The writer rests between batches while lines come, so that under load a line costs its caller no wake-up.
//! Dropping the last [`Sink`] lets the thread write what is queued and end; before a process ends, [`Sink::flush`].

mod output;

use std::fmt;
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use super::metrics::family::LOG_LINES_DROPPED;
use super::metrics::{AnyThread, Counter, Registry};
use output::{Change, Output};

/// Where lines go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    Stdout,
    Stderr,
    File(PathBuf),
}

/// A queue of lines. Clones share it.
#[derive(Clone)]
pub struct Sink(Arc<Queue>);

/// What a sink may hold and how often it looks.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Lines that wait.
    pub lines: usize,
    /// Their bytes, those being written included.
    pub bytes: usize,
    /// Bytes of one line, its line feed included.
    pub line: usize,
    /// Rest between two batches.
    pub rest: Duration,
    /// How long a broken file is left alone, and how often an open one is looked at for rotation.
    pub look: Duration,
}

impl Sink {
    /// Opens nothing yet: a target that cannot be written is reported by the thread and tried again. `name` is the metric's
    /// label and stands in reports. Fails only if no thread can be made.
    pub fn open(name: &'static str, target: Target, limits: Limits, registry: &Registry) -> io::Result<Sink> {
        let dropped = |reason| registry.shared().counter(LOG_LINES_DROPPED, &[name, reason]);
        let (lines, queue) = sync_channel(limits.lines);
        let waiting = Arc::new(AtomicUsize::new(0));
        let mut writer = Thread {
            output: Output::new(target, limits.look),
            queue,
            waiting: waiting.clone(),
            batch: Vec::new(),
            rest: limits.rest,
            failed: dropped("failed"),
            lost: 0,
            name,
        };
        thread::Builder::new().name(format!("sink-{name}")).spawn(move || writer.run())?;
        let (full, long) = (dropped("full"), dropped("too_long"));
        Ok(Sink(Arc::new(Queue { lines, waiting, limits, full, long })))
    }

    /// Queues a copy of one line, given without its line feed. False if it was dropped.
    pub fn push(&self, line: &[u8]) -> bool {
        let mut whole = Vec::with_capacity(cost(line));
        whole.extend_from_slice(line);
        whole.push(b'\n');
        self.give(whole)
    }

    /// Queues one line that ends with its line feed. False if it was dropped.
    pub fn give(&self, line: Vec<u8>) -> bool {
        let Queue { lines, waiting, limits, full, long } = &*self.0;
        let cost = line.len();
        if cost > limits.line {
            long.add(1);
            return false;
        }
        let fits = waiting.fetch_add(cost, Ordering::Relaxed) + cost <= limits.bytes;
        if fits && lines.try_send(line).is_ok() {
            return true;
        }
        waiting.fetch_sub(cost, Ordering::Relaxed);
        full.add(1);
        false
    }

    /// Waits until everything queued is written or given up, at most `patience`. Blocks: for the end of a process.
    pub fn flush(&self, patience: Duration) -> bool {
        let end = Instant::now() + patience;
        while self.0.waiting.load(Ordering::Acquire) > 0 {
            if Instant::now() >= end {
                return false;
            }
            thread::sleep(FLUSH_LOOK);
        }
        true
    }
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { lines: LINES, bytes: BYTES, line: LINE, rest: REST, look: LOOK }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::Stdout => f.write_str("stdout"),
            Target::Stderr => f.write_str("stderr"),
            Target::File(path) => write!(f, "{}", path.display()),
        }
    }
}

struct Queue {
    lines: SyncSender<Vec<u8>>,
    /// Bytes queued and not yet written.
    waiting: Arc<AtomicUsize>,
    limits: Limits,
    full: Counter<AnyThread>,
    long: Counter<AnyThread>,
}

struct Thread {
    output: Output,
    queue: Receiver<Vec<u8>>,
    waiting: Arc<AtomicUsize>,
    batch: Vec<u8>,
    rest: Duration,
    failed: Counter<AnyThread>,
    /// Lines lost since the output broke.
    lost: u64,
    name: &'static str,
}

impl Thread {
    /// Idle: blocked in `recv`, the first line wakes it. Busy: takes what there is, writes, rests; a rest in which nothing
    /// came ends it.
    fn run(&mut self) {
        while let Ok(line) = self.queue.recv() {
            self.take(&line);
            loop {
                match self.drain() {
                    Ok(0) => break,
                    Ok(_) => thread::sleep(self.rest),
                    Err(_) => return,
                }
            }
        }
    }

    /// Writes all that is queued. How many bytes it was, or that no sender is left.
    fn drain(&mut self) -> Result<usize, TryRecvError> {
        let mut written = 0;
        let end = loop {
            match self.queue.try_recv() {
                Ok(line) => written += self.take(&line),
                Err(end) => break end,
            }
        };
        written += self.flush();
        match end {
            TryRecvError::Empty => Ok(written),
            TryRecvError::Disconnected => Err(end),
        }
    }

    /// Short lines are written together, a long one as it lies. How many bytes were written.
    fn take(&mut self, line: &[u8]) -> usize {
        if line.len() >= LONG {
            return self.flush() + self.write(line);
        }
        self.batch.extend_from_slice(line);
        if self.batch.len() >= BATCH { self.flush() } else { 0 }
    }

    fn flush(&mut self) -> usize {
        let mut batch = std::mem::take(&mut self.batch);
        let written = self.write(&batch);
        batch.clear();
        self.batch = batch;
        written
    }

    fn write(&mut self, lines: &[u8]) -> usize {
        if lines.is_empty() {
            return 0;
        }
        let outcome = self.output.write(lines, Instant::now());
        self.failed.add(outcome.lost);
        self.lost += outcome.lost;
        match outcome.change {
            Some(Change::Broke(why)) => self.report(&format!(
                "cannot write to {}: {why}; its lines are dropped and counted until it works again, tried every {:?}",
                self.output.target(),
                self.output.look()
            )),
            Some(Change::Healed) => {
                let lost = std::mem::take(&mut self.lost);
                self.report(&format!("writing to {} works again; {lost} lines were lost", self.output.target()));
            }
            None => {}
        }
        self.waiting.fetch_sub(lines.len(), Ordering::Release);
        lines.len()
    }

    /// The own log cannot report its own failure through itself.
    fn report(&self, message: &str) {
        if self.name == super::log::NAME {
            let _ = writeln!(io::stderr(), "{}: {message}", self.name);
        } else {
            tracing::warn!(sink = self.name, "{message}");
        }
    }
}

/// With its line feed, as it lies in the batch.
fn cost(line: &[u8]) -> usize {
    line.len() + 1
}

/// At 5,000 lines a second this rides out a disk that stalls for a second and a half.
const LINES: usize = 8192;
const BYTES: usize = 8 * 1024 * 1024;
/// A request head is at most 64 KiB; a line says less than all of it.
const LINE: usize = 64 * 1024;
const BATCH: usize = 64 * 1024;
/// What is not worth a copy to save a call.
const LONG: usize = 16 * 1024;
/// A rest of 10 ms lets 800,000 lines a second pass through the queue and is not felt by who reads a log.
const REST: Duration = Duration::from_millis(10);
const LOOK: Duration = Duration::from_secs(1);
const FLUSH_LOOK: Duration = Duration::from_millis(2);

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Read;

    use rustix::fs::{CWD, Mode, mkfifoat};

    use super::*;
    use crate::telemetry::test_dir::TestDir;

    fn quick() -> Limits {
        Limits { rest: Duration::from_millis(1), look: Duration::from_millis(20), ..Limits::default() }
    }

    fn open(path: PathBuf, limits: Limits) -> (Sink, Registry) {
        let registry = Registry::new();
        (Sink::open("test", Target::File(path), limits, &registry).expect("a thread"), registry)
    }

    fn dropped(registry: &Registry, reason: &str) -> u64 {
        registry.shared().counter(LOG_LINES_DROPPED, &["test", reason]).value()
    }

    fn wait_for(mut done: impl FnMut() -> bool) {
        let end = Instant::now() + Duration::from_secs(10);
        while !done() {
            assert!(Instant::now() < end, "waited in vain");
            thread::sleep(Duration::from_millis(2));
        }
    }

    #[test]
    fn every_line_of_every_thread_arrives_whole() {
        let dir = TestDir::new("sink-whole");
        let (sink, registry) = open(dir.join("log"), Limits { lines: 100_000, ..quick() });
        thread::scope(|scope| {
            for thread in 0..4 {
                let sink = sink.clone();
                scope.spawn(move || {
                    for n in 0..2000 {
                        assert!(sink.push(format!("{thread} {n}").as_bytes()));
                    }
                });
            }
        });
        assert!(sink.flush(Duration::from_secs(10)));
        let text = fs::read_to_string(dir.join("log")).expect("written");
        for thread in 0..4 {
            let own: Vec<_> = text.lines().filter_map(|line| line.strip_prefix(&format!("{thread} "))).collect();
            assert_eq!(own, (0..2000).map(|n| n.to_string()).collect::<Vec<_>>(), "in order");
        }
        assert_eq!(dropped(&registry, "full"), 0);
    }

    #[test]
    fn a_reader_that_does_not_read_costs_lines_and_no_time() {
        let dir = TestDir::new("sink-stuck");
        let path = dir.join("pipe");
        mkfifoat(CWD, &path, Mode::RUSR | Mode::WUSR).expect("a pipe");
        let (sink, registry) = open(path.clone(), Limits { lines: 10, ..quick() });
        let kept = (0..100_000).filter(|_| sink.push(&[b'x'; 1023])).count();
        assert!(kept <= 10 + BATCH / 1024, "a queue and a batch, not {kept}");
        assert_eq!(dropped(&registry, "full"), 100_000 - kept as u64);
        assert!(!sink.flush(Duration::from_millis(20)), "flush gives up");
        drop(sink);
        let mut text = String::new();
        fs::File::open(path).and_then(|mut pipe| pipe.read_to_string(&mut text)).expect("read");
        assert_eq!(text.lines().count(), kept, "what was taken is written before the thread ends");
    }

    #[test]
    fn bytes_are_limited_too() {
        let dir = TestDir::new("sink-bytes");
        let path = dir.join("pipe");
        mkfifoat(CWD, &path, Mode::RUSR | Mode::WUSR).expect("a pipe");
        let (sink, registry) = open(path, Limits { bytes: 1000, line: 601, ..quick() });
        assert!(!sink.push(&[b'x'; 601]));
        assert_eq!(dropped(&registry, "too_long"), 1);
        assert!(sink.push(&[b'x'; 600]));
        assert!(!sink.push(&[b'x'; 600]));
        assert!(sink.push(&[b'x'; 300]));
        assert_eq!(dropped(&registry, "full"), 1);
    }

    #[test]
    fn a_file_that_is_moved_away_is_opened_anew() {
        let dir = TestDir::new("sink-rotate");
        let (sink, _registry) = open(dir.join("log"), quick());
        sink.push(b"one");
        assert!(sink.flush(Duration::from_secs(10)));
        fs::rename(dir.join("log"), dir.join("log.1")).expect("moved");
        thread::sleep(Duration::from_millis(30));
        sink.push(b"two");
        assert!(sink.flush(Duration::from_secs(10)));
        assert_eq!(fs::read_to_string(dir.join("log.1")).expect("old"), "one\n");
        assert_eq!(fs::read_to_string(dir.join("log")).expect("new"), "two\n");
    }

    #[test]
    fn a_file_that_cannot_be_written_is_counted_and_tried_again() {
        let dir = TestDir::new("sink-broken");
        let (sink, registry) = open(dir.join("missing/log"), quick());
        sink.push(b"lost");
        wait_for(|| dropped(&registry, "failed") == 1);
        fs::create_dir(dir.join("missing")).expect("made");
        wait_for(|| {
            sink.push(b"kept");
            sink.flush(Duration::from_secs(10));
            fs::read_to_string(dir.join("missing/log")).is_ok_and(|text| text.starts_with("kept\n"))
        });
    }
}
