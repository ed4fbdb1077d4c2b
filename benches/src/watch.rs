//! What processes and cores have used, as the kernel counts it.

use std::fs;

/// Whom to look at.
#[derive(Clone, Default)]
pub struct Watch {
    /// All processes of the product.
    pub product: Vec<u32>,
    /// The origin, which shares the core of the load.
    pub origin: Vec<u32>,
}

/// At one moment, in clock ticks.
pub struct Moment {
    pub product: u64,
    pub origin: u64,
    pub own: u64,
    pub cores: Vec<Core>,
}

#[derive(Clone, Copy)]
pub struct Core {
    /// Anything but idle, waiting for a disk, and stolen.
    pub busy: u64,
    pub idle: u64,
    pub stolen: u64,
}

/// In KiB, all processes of the product together.
#[derive(Default)]
pub struct Memory {
    pub resident: u64,
    pub proportional: u64,
    /// The most that was resident since the start.
    pub peak: u64,
}

impl Watch {
    pub fn moment(&self) -> Moment {
        let sum = |pids: &[u32]| pids.iter().map(|pid| ticks(&pid.to_string())).sum();
        Moment { product: sum(&self.product), origin: sum(&self.origin), own: ticks("self"), cores: cores() }
    }

    pub fn memory(&self) -> Memory {
        let mut memory = Memory::default();
        for pid in &self.product {
            let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
            memory.resident += field(&rollup, "Rss:");
            memory.proportional += field(&rollup, "Pss:");
            memory.peak += field(&fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default(), "VmHWM:");
        }
        memory
    }
}

/// User and system time of all threads, those that have ended included.
fn ticks(process: &str) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    // The second field is a name in parentheses and may hold anything.
    let rest = stat.rsplit(") ").next().unwrap_or_default();
    rest.split(' ').skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum()
}

fn cores() -> Vec<Core> {
    let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
    let lines = stat.lines().filter(|line| line.starts_with("cpu") && !line.starts_with("cpu "));
    lines
        .map(|line| {
            let fields: Vec<u64> = line.split_whitespace().skip(1).filter_map(|field| field.parse().ok()).collect();
            let at = |index: usize| fields.get(index).copied().unwrap_or_default();
            // user nice system idle iowait irq softirq steal
            Core { busy: at(0) + at(1) + at(2) + at(5) + at(6), idle: at(3) + at(4), stolen: at(7) }
        })
        .collect()
}

fn field(text: &str, name: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|line| line.split_whitespace().next()).and_then(|number| number.parse().ok()).unwrap_or_default()
}

/// Ticks in a second: what Linux tells user space on every architecture, whatever the kernel counts in.
pub const TICKS: f64 = 100.0;
