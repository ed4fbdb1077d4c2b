//! A fuzzer on stable Rust: inputs from a corpus, changed a little and run again, and those kept that made the program do
//! something new. There is no instrumentation; what is new is told by what the run itself leaves behind: the exchanges as
//! they closed, and the places in the engine that spoke. The same seed gives the same inputs.

mod frames;
mod mutate;
mod places;
mod tokens;
mod watch;

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use std::{fs, io};

pub use spanmesh_proxy::fuzz::Target;
use spanmesh_proxy::fuzz::seen;

pub use mutate::Mutator;
pub use watch::Watch;

/// What to run and for how long.
pub struct Plan {
    pub seed: u64,
    /// Of each target.
    pub time: Duration,
    pub runs: u64,
    pub corpus: PathBuf,
    /// Where inputs go that break something.
    pub findings: PathBuf,
    /// Where inputs go that were kept, if anywhere.
    pub keep: Option<PathBuf>,
    /// Whether a finding does not end the run: the next one of another kind is looked for.
    pub go_on: bool,
}

/// What became of a target's time.
pub struct Report {
    pub runs: u64,
    pub took: Duration,
    /// Inputs that are known to differ, and the signs by which they do.
    pub kept: usize,
    pub signs: usize,
    /// One of each kind.
    pub findings: Vec<Finding>,
}

pub struct Finding {
    pub message: String,
    pub input: Vec<u8>,
    pub file: PathBuf,
}

/// The proxy's and the command line's.
pub fn targets() -> Vec<Target> {
    spanmesh_proxy::fuzz::TARGETS.iter().chain(spanmesh::fuzz::TARGETS).copied().collect()
}

/// Fuzzes one target.
pub fn fuzz(target: &Target, plan: &Plan, watch: &Watch) -> io::Result<Report> {
    let (name, _) = target;
    let mut run = Run { target, watch, signs: HashSet::new(), pool: Vec::new(), runs: 0 };
    let began = Instant::now();
    let mut findings = Vec::new();
    let mut kinds = HashSet::new();
    for input in inputs(&plan.corpus.join(name))? {
        let known = run.pool.len();
        match run.once(input.clone()) {
            Ok(()) if run.pool.len() == known => run.pool.push(input),
            Ok(()) => {}
            Err(message) if kinds.insert(kind(&message)) => findings.push(run.save(plan, message)?),
            Err(_) => drop(run.pool.pop()),
        }
    }
    if run.pool.is_empty() {
        run.pool.push(b"0".to_vec());
    }
    let mut mutator = Mutator::new(name, plan.seed);
    let mut told = Instant::now();
    while (findings.is_empty() || plan.go_on) && began.elapsed() < plan.time && run.runs < plan.runs {
        let input = mutator.next(&run.pool);
        let known = run.pool.len();
        if let Err(message) = run.once(input) {
            match kinds.insert(kind(&message)) {
                true => findings.push(run.save(plan, message)?),
                false => drop(run.pool.pop()),
            }
        } else if let (Some(directory), Some(new)) = (&plan.keep, run.pool.get(known)) {
            fs::create_dir_all(directory.join(name))?;
            fs::write(directory.join(name).join(file_name(new)), new)?;
        }
        if told.elapsed() > TELL {
            told = Instant::now();
            eprintln!("{name}: {}", run.line(began.elapsed()));
        }
    }
    Ok(Report { runs: run.runs, took: began.elapsed(), kept: run.pool.len(), signs: run.signs.len(), findings })
}

/// Runs one input; the message of what broke.
pub fn replay(target: &Target, watch: &Watch, input: &[u8]) -> Result<(), String> {
    let mut run = Run { target, watch, signs: HashSet::new(), pool: Vec::new(), runs: 0 };
    run.execute(input)
}

/// The inputs of a directory by their names, or none where there is no directory.
pub fn inputs(directory: &Path) -> io::Result<Vec<Vec<u8>>> {
    let Ok(entries) = fs::read_dir(directory) else { return Ok(Vec::new()) };
    let mut files: Vec<_> = entries.map(|entry| entry.map(|entry| entry.path())).collect::<Result<_, _>>()?;
    files.sort();
    files.iter().map(fs::read).collect()
}

struct Run<'a> {
    target: &'a Target,
    watch: &'a Watch,
    signs: HashSet<u64>,
    pool: Vec<Vec<u8>>,
    runs: u64,
}

impl Run<'_> {
    /// Keeps the input if something in its run was new. `Err` is what broke; the input is then the pool's last.
    fn once(&mut self, input: Vec<u8>) -> Result<(), String> {
        let outcome = self.execute(&input);
        let before = self.signs.len();
        self.signs.extend(seen::marks());
        self.signs.extend(places::visited());
        // A parser leaves no signs: there some are kept blindly, so that changes add up.
        let blind = self.signs.is_empty() && self.runs.is_multiple_of(BLIND) && self.pool.len() < BLIND_MAX;
        if blind || self.signs.len() > before && self.pool.len() < POOL_MAX || outcome.is_err() {
            self.pool.push(input);
        }
        outcome
    }

    fn execute(&mut self, input: &[u8]) -> Result<(), String> {
        places::follow();
        self.runs += 1;
        let watched = self.watch.begin(self.target.0, input);
        let outcome = std::panic::catch_unwind(|| (self.target.1)(input));
        let room = watched.end();
        outcome.map_err(|_| self.watch.message())?;
        room
    }

    /// The input that broke something, made as short as it can be in a moment.
    fn save(&mut self, plan: &Plan, message: String) -> io::Result<Finding> {
        let mut input = self.pool.pop().unwrap_or_default();
        let wanted = kind(&message);
        let began = Instant::now();
        let mut size = input.len() / 2;
        while size > 0 && began.elapsed() < SHORTEN {
            let mut at = 0;
            while at < input.len() && began.elapsed() < SHORTEN {
                let mut shorter = input.clone();
                shorter.drain(at..(at + size).min(input.len()));
                match self.execute(&shorter) {
                    Err(message) if kind(&message) == wanted => input = shorter,
                    Err(_) | Ok(()) => at += size,
                }
            }
            size /= 2;
        }
        let message = self.execute(&input).err().unwrap_or(message);
        let directory = plan.findings.join(self.target.0);
        fs::create_dir_all(&directory)?;
        let file = directory.join(file_name(&input));
        fs::write(&file, &input)?;
        Ok(Finding { message, input, file })
    }

    fn line(&self, took: Duration) -> String {
        let rate = self.runs as f64 / took.as_secs_f64().max(0.001);
        format!("{} runs in {took:.0?}, {rate:.0}/s, {} kept, {} signs", self.runs, self.pool.len(), self.signs.len())
    }
}

impl Report {
    pub fn line(&self) -> String {
        let rate = self.runs as f64 / self.took.as_secs_f64().max(0.001);
        format!("{} runs in {:.1?}, {rate:.0}/s, {} kept, {} signs", self.runs, self.took, self.kept, self.signs)
    }
}

/// What two findings have in common that are one: the first words of what broke, without its numbers.
fn kind(message: &str) -> String {
    let said = message.lines().map(str::trim).filter(|line| line.starts_with('"') || !line.ends_with([':', '[']));
    let words: String = said.take(1).flat_map(str::chars).filter(|sign| !sign.is_ascii_digit()).collect();
    words.chars().take(KIND).collect()
}

fn file_name(input: &[u8]) -> String {
    // FNV-1a: short, and the same on every machine.
    let hash = input
        .iter()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3));
    format!("{hash:016x}")
}

/// Between two lines about a long run.
const TELL: Duration = Duration::from_secs(30);
const KIND: usize = 48;
const SHORTEN: Duration = Duration::from_secs(20);
const BLIND: u64 = 500;
const BLIND_MAX: usize = 1000;
/// Inputs that are kept in one run: memory, not usefulness, is what ends it.
const POOL_MAX: usize = 20_000;
