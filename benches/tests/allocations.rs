//! How many times the proxy allocates for one request, on the road and behind it, compared with `benches/figures.toml`.
//! The difference of a long and a short run leaves out what a start and a connection cost.

// A global allocator can be had in no other way; it counts and hands every call on.
#![deny(unsafe_op_in_unsafe_fn)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI32, AtomicU64, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use spanmesh_benches::load::{self, options};
use spanmesh_benches::origin::{Origin, Speaks};
use spanmesh_proxy::{app, config};

#[test]
fn a_request_allocates_as_often_as_is_written_down() {
    exempt();
    let figures = figures();
    let mut wrong = Vec::new();
    for (name, work, speaks) in
        [("http1", options::Work::Get, Speaks::Http1), ("h2c", options::Work::Http2, Speaks::Http2)]
    {
        let counted = each(work, speaks);
        for (name, counted) in [(name.to_owned(), counted.road), (format!("{name}-behind"), counted.behind)] {
            let written = figures.iter().find(|(known, _)| *known == name).map_or(0.0, |(_, figure)| *figure);
            println!("{name}: {counted:.2} allocations a request, {written:.2} written down");
            if (counted - written).abs() > (written * TOLERANCE).max(0.5) {
                wrong.push(format!("{name} = {counted:.1}"));
            }
        }
    }
    // Fewer are a reason to write the new figure down, so that they stay fewer.
    assert!(wrong.is_empty(), "benches/figures.toml, [allocations], has other figures than:\n{}", wrong.join("\n"));
}

/// For one request.
struct Allocations {
    /// The worker's thread.
    road: f64,
    /// The threads that write spans and log lines.
    behind: f64,
}

fn each(work: options::Work, speaks: Speaks) -> Allocations {
    let folder = std::env::temp_dir().join(format!("spanmesh-allocations-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let proxy = start(origin(speaks), &folder);
    let target = proxy.bound.listeners["in"];
    let count = |requests| {
        let options = options::Options { requests, ..options::Options::new(target, work) };
        let before = settled();
        let report = load::run(&options).unwrap();
        assert_eq!(report["errors"], 0, "{report}");
        let after = settled();
        [after[0] - before[0], after[1] - before[1]]
    };
    // Queues and pools find their size.
    count(SHORT);
    let (short, long) = (count(SHORT), count(LONG));
    proxy.quit();
    proxy.wait().unwrap();
    std::fs::remove_dir_all(&folder).unwrap();
    let [road, behind] = [0, 1].map(|kind| long[kind].saturating_sub(short[kind]) as f64 / (LONG - SHORT) as f64);
    Allocations { road, behind }
}

/// The application, in a thread that is not counted.
fn origin(speaks: Speaks) -> SocketAddr {
    let origin = Origin::bind(&[("127.0.0.1:0".parse().unwrap(), speaks)]).unwrap();
    let address = origin.addresses().unwrap()[0];
    thread::spawn(move || {
        exempt();
        origin.run().unwrap();
    });
    address
}

/// The sidecar of the examples with one worker; its log goes into a file and not between the lines of the tests.
fn start(origin: SocketAddr, folder: &Path) -> app::Running {
    let example = manifest().join("../proxy/examples/sidecar-server.yaml");
    let mut text = String::new();
    for line in std::fs::read_to_string(example).unwrap().lines().filter(|line| !line.starts_with('#')) {
        text += line;
        text.push('\n');
    }
    let path = folder.display().to_string();
    for (before, after) in [
        ("/tmp/", format!("{path}/").as_str()),
        ("role: sidecar", "role: sidecar\nworkers: 1"),
        ("127.0.0.1:14002", "127.0.0.1:0"),
        ("127.0.0.1:14022", "127.0.0.1:0"),
        ("127.0.0.1:14006", "127.0.0.1:0"),
        ("127.0.0.1:8080", &origin.to_string()),
        ("to: stdout", &format!("to: '{path}/access.log'")),
        // What is kept does not depend on how fast this machine is.
        ("policy:", "policy:\n  sampling: {guard: off}"),
    ] {
        assert_eq!(text.matches(before).count(), 1, "{before}");
        text = text.replace(before, after);
    }
    let config = config::parse(&text, "sidecar-server.yaml", std::iter::empty()).unwrap();
    app::start(config, false).unwrap()
}

/// The counts of the worker and of the threads behind it, once these have done their part.
fn settled() -> [u64; 2] {
    let mut before = counts();
    loop {
        thread::sleep(Duration::from_millis(300));
        let now = counts();
        if now.iter().sum::<u64>() - before.iter().sum::<u64>() < 50 {
            return now;
        }
        before = now;
    }
}

/// Of the threads that live: the worker's, and those behind it. What the background does follows the time and not the
/// requests.
fn counts() -> [u64; 2] {
    let mut sums = [0; 2];
    for (thread, count) in THREADS.iter().zip(&COUNTS) {
        let path = format!("/proc/self/task/{}/comm", thread.load(Ordering::Relaxed));
        let Ok(name) = std::fs::read_to_string(path) else { continue };
        let kind = match name.trim_end() {
            "background" => continue,
            name => usize::from(!name.starts_with("worker")),
        };
        sums[kind] += count.load(Ordering::Relaxed);
    }
    sums
}

/// The `[allocations]` of figures.toml: a name, `=`, a number.
fn figures() -> Vec<(String, f64)> {
    let text = std::fs::read_to_string(manifest().join("figures.toml")).unwrap();
    let section = text.split("[allocations]").nth(1).unwrap_or_default();
    let lines = section.lines().skip(1).take_while(|line| !line.starts_with('['));
    lines
        .filter_map(|line| line.split('#').next()?.split_once('='))
        .map(|(name, figure)| (name.trim().to_owned(), figure.trim().parse().unwrap()))
        .collect()
}

fn manifest() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// What this thread allocates from now on is not the proxy's. Threads of the proxy never say so.
fn exempt() {
    SLOT.set(EXEMPT);
}

struct Counting;

fn count() {
    // A thread whose locals are gone already is ending; what it allocates then belongs to no request.
    let slot = SLOT.try_with(|slot| {
        if slot.get() == NONE {
            slot.set(STARTED.fetch_add(1, Ordering::Relaxed));
            let thread = rustix::thread::gettid().as_raw_pid();
            if let Some(known) = THREADS.get(slot.get()) {
                known.store(thread, Ordering::Relaxed);
            }
        }
        slot.get()
    });
    // There is none for those that are exempt.
    if let Some(count) = COUNTS.get(slot.unwrap_or(EXEMPT)) {
        count.fetch_add(1, Ordering::Relaxed);
    }
}

// SAFETY: every call goes to the system's allocator with the arguments as they came, so its promises are kept.
// Counting touches an atomic and a constant-initialised thread local without a destructor, which do not allocate.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: as above.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: as above.
        unsafe { System.realloc(pointer, layout, size) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// What each thread has allocated, in the order of their first time, and the kernel's number for it.
static COUNTS: [AtomicU64; SLOTS] = [const { AtomicU64::new(0) }; SLOTS];
static THREADS: [AtomicI32; SLOTS] = [const { AtomicI32::new(0) }; SLOTS];
static STARTED: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    static SLOT: Cell<usize> = const { Cell::new(NONE) };
}

/// More than the test and two proxies start.
const SLOTS: usize = 256;
const EXEMPT: usize = usize::MAX;
const NONE: usize = usize::MAX - 1;
const SHORT: u64 = 1000;
const LONG: u64 = 5000;
const TOLERANCE: f64 = 0.05;
