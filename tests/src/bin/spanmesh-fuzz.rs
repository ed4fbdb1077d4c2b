//! Fuzzes the targets of `spanmesh_proxy::fuzz` and `spanmesh::fuzz`, on stable Rust:
//!
//! ```text
//! spanmesh-fuzz [--target NAME]… [--seconds N | --minutes N] [--runs N] [--seed N] [--keep DIR] [--go-on]
//! spanmesh-fuzz --target NAME --replay FILE…
//! ```
//!
//! Without a target all of them, each for that time, connections four times as long. What breaks is made short, saved, and
//! the command that runs it again is printed.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use spanmesh_tests::fuzz::{self, Plan, Target, Watch};

fn main() -> ExitCode {
    match run() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("spanmesh-fuzz: {error}");
            ExitCode::from(64)
        }
    }
}

fn run() -> Result<ExitCode, Box<dyn std::error::Error>> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut plan = Plan {
        seed: 1,
        time: Duration::from_secs(5),
        runs: u64::MAX,
        corpus: here.join("fuzz/corpus"),
        findings: PathBuf::from("fuzz-findings"),
        keep: None,
        go_on: false,
    };
    let (mut targets, mut replayed) = (Vec::new(), Vec::new());
    let mut arguments = std::env::args().skip(1);
    while let Some(name) = arguments.next() {
        if name == "--replay" {
            replayed = arguments.by_ref().map(PathBuf::from).collect();
            break;
        }
        if name == "--go-on" {
            plan.go_on = true;
            continue;
        }
        let value = arguments.next().ok_or_else(|| format!("{name} needs a value"))?;
        match name.as_str() {
            "--target" => targets.push(target(&value)?),
            "--seconds" => plan.time = Duration::from_secs(value.parse()?),
            "--minutes" => plan.time = Duration::from_secs(value.parse::<u64>()? * 60),
            "--runs" => plan.runs = value.parse()?,
            "--seed" => plan.seed = value.parse()?,
            "--corpus" => plan.corpus = value.into(),
            "--findings" => plan.findings = value.into(),
            "--keep" => plan.keep = Some(value.into()),
            _ => return Err(format!("{name} is unknown").into()),
        }
    }
    let watch = Watch::new(plan.findings.clone(), PATIENCE);
    if let ([target], false) = (targets.as_slice(), replayed.is_empty()) {
        return replay(target, &watch, &replayed);
    }
    let all = targets.is_empty();
    let targets = if all { fuzz::targets() } else { targets };
    let mut broken = 0;
    for target in &targets {
        let whole = all && target.0.ends_with("_http1") | target.0.ends_with("_http2");
        let time = if whole { plan.time * 4 } else { plan.time };
        let report = fuzz::fuzz(target, &Plan { time, ..clone(&plan) }, &watch)?;
        println!("{:16} {}", target.0, report.line());
        for finding in report.findings {
            broken += 1;
            println!("{} broke: {}", target.0, finding.message);
            println!("again: spanmesh-fuzz --target {} --replay {}", target.0, finding.file.display());
        }
    }
    Ok(if broken == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn clone(plan: &Plan) -> Plan {
    Plan { corpus: plan.corpus.clone(), findings: plan.findings.clone(), keep: plan.keep.clone(), ..*plan }
}

fn target(name: &str) -> Result<Target, String> {
    let all = fuzz::targets();
    let names = || all.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
    all.iter()
        .find(|target| target.0 == name)
        .copied()
        .ok_or_else(|| format!("no target {name}; there are {}", names()))
}

fn replay(target: &Target, watch: &Watch, files: &[PathBuf]) -> Result<ExitCode, Box<dyn std::error::Error>> {
    let mut code = ExitCode::SUCCESS;
    for file in files {
        match fuzz::replay(target, watch, &std::fs::read(file)?) {
            Ok(()) => println!("{}: holds", file.display()),
            Err(message) => {
                println!("{}: {message}", file.display());
                code = ExitCode::FAILURE;
            }
        }
    }
    Ok(code)
}

/// For one input; a run takes milliseconds.
const PATIENCE: Duration = Duration::from_secs(20);
