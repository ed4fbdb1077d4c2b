//! Looks after a run from outside: one that takes too long is written down and ends the process, since nothing else can
//! stop it; one that takes too much memory for its size is a finding like a panic.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use std::{fs, process, thread};

pub struct Watch {
    running: Arc<Mutex<Option<Running>>>,
    message: Arc<Mutex<String>>,
}

struct Running {
    target: &'static str,
    input: Vec<u8>,
    since: Instant,
}

/// One run. Ends with what it cost, or when it is dropped.
pub struct Watched<'a> {
    watch: &'a Watch,
    size: usize,
    peak: u64,
}

impl Watch {
    /// Panics are kept for [`Watch::message`] instead of being printed.
    pub fn new(findings: PathBuf, patience: Duration) -> Self {
        let running = Arc::<Mutex<Option<Running>>>::default();
        let looked_at = running.clone();
        thread::spawn(move || {
            loop {
                thread::sleep(LOOK);
                if let Some(run) = lock(&looked_at).as_ref().filter(|run| run.since.elapsed() > patience) {
                    let file = findings.join(run.target).join("hang");
                    let saved =
                        fs::create_dir_all(findings.join(run.target)).and_then(|()| fs::write(&file, &run.input));
                    eprintln!("{} hangs: more than {patience:?} for one input\n{saved:?}", run.target);
                    eprintln!("again: spanmesh-fuzz --target {} --replay {}", run.target, file.display());
                    process::exit(2);
                }
            }
        });
        let message = Arc::<Mutex<String>>::default();
        let written = message.clone();
        std::panic::set_hook(Box::new(move |panic| {
            let text = format!("{panic}");
            let mut message = lock(&written);
            // The first is the cause; what follows from it says so.
            if message.is_empty() {
                *message = text;
            } else if message.len() < MESSAGE_MAX {
                message.push('\n');
                message.push_str(&text);
            }
        }));
        Self { running, message }
    }

    pub fn begin(&self, target: &'static str, input: &[u8]) -> Watched<'_> {
        lock(&self.message).clear();
        *lock(&self.running) = Some(Running { target, input: input.to_vec(), since: Instant::now() });
        Watched { watch: self, size: input.len(), peak: peak() }
    }

    /// What the latest run said when it broke.
    pub fn message(&self) -> String {
        lock(&self.message).clone()
    }
}

impl Watched<'_> {
    pub fn end(self) -> Result<(), String> {
        let grown = peak().saturating_sub(self.peak);
        let room = MEMORY + MEMORY_PER_BYTE * self.size as u64;
        if grown > room {
            return Err(format!("{grown} bytes of memory for an input of {}", self.size));
        }
        Ok(())
    }
}

impl Drop for Watched<'_> {
    fn drop(&mut self) {
        lock(&self.watch.running).take();
    }
}

/// The most memory that this process has had so far.
fn peak() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kilobytes = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok());
    kilobytes.unwrap_or(0) * 1024
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

const LOOK: Duration = Duration::from_millis(500);
const MESSAGE_MAX: usize = 16 * 1024;
/// What one run may add to the process's peak: a few connections with their buffers, and what an input asks for.
const MEMORY: u64 = 32 << 20;
const MEMORY_PER_BYTE: u64 = 4096;
