//! The program's command line. `spanmesh-proxy` calls this, and so does whoever embeds the proxy as a subcommand.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use lexopt::{Arg, Parser};

use crate::{app, config, redirect};

/// Runs one command and returns its exit code: 0 done, 1 failed, 2 wrong usage or configuration, 3 checked and found
/// wanting.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    match command(arguments) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("spanmesh-proxy: {error}\nTry `spanmesh-proxy --help`.");
            ExitCode::from(USAGE)
        }
    }
}

fn command(arguments: impl IntoIterator<Item = OsString>) -> Result<ExitCode, lexopt::Error> {
    let mut parser = Parser::from_args(arguments);
    match parser.next()? {
        Some(Arg::Value(name)) if name == "run" => run(&mut parser),
        Some(Arg::Value(name)) if name == "check-config" => check(&mut parser),
        Some(Arg::Value(name)) if name == "redirect" => Ok(redirect::main(parser.raw_args()?)),
        Some(Arg::Value(name)) if name == "version" => match parser.next()? {
            None => Ok(version()),
            Some(more) => Err(more.unexpected()),
        },
        Some(Arg::Short('V') | Arg::Long("version")) => Ok(version()),
        Some(Arg::Short('h') | Arg::Long("help")) | None => {
            print!("{HELP}");
            Ok(ExitCode::SUCCESS)
        }
        Some(Arg::Value(name)) if name == "help" => {
            print!("{HELP}");
            Ok(ExitCode::SUCCESS)
        }
        Some(other) => Err(other.unexpected()),
    }
}

fn run(parser: &mut Parser) -> Result<ExitCode, lexopt::Error> {
    let mut file = None;
    while let Some(argument) = parser.next()? {
        match argument {
            Arg::Short('c') | Arg::Long("config") => file = Some(PathBuf::from(parser.value()?)),
            Arg::Short('h') | Arg::Long("help") => {
                print!("{HELP}");
                return Ok(ExitCode::SUCCESS);
            }
            other => return Err(other.unexpected()),
        }
    }
    let Some(file) = file else { return Err("run needs --config FILE".into()) };
    let source = config::Source::new(&file, config::environment());
    let config = match source.load() {
        Ok(config) => config,
        Err(problems) => {
            problems.iter().for_each(|problem| eprintln!("{problem}"));
            return Ok(ExitCode::from(USAGE));
        }
    };
    let running = match app::start_following(config, source, true) {
        Ok(running) => running,
        Err(error) => {
            eprintln!("spanmesh-proxy: {error}");
            return Ok(ExitCode::FAILURE);
        }
    };
    for (name, address) in &running.bound.listeners {
        tracing::info!(listener = name, %address, "listening");
    }
    tracing::info!(admin = %running.bound.admin, status = %running.bound.status, "ready");
    match running.wait() {
        Ok(()) => Ok(ExitCode::SUCCESS),
        Err(error) => {
            eprintln!("spanmesh-proxy: {error}");
            Ok(ExitCode::FAILURE)
        }
    }
}

fn check(parser: &mut Parser) -> Result<ExitCode, lexopt::Error> {
    let mut file = None;
    while let Some(argument) = parser.next()? {
        match argument {
            Arg::Value(value) if file.is_none() => file = Some(PathBuf::from(value)),
            other => return Err(other.unexpected()),
        }
    }
    let Some(file) = file else { return Err("check-config needs a FILE".into()) };
    match config::check(&file) {
        Ok(said) => {
            println!("{said}");
            Ok(ExitCode::SUCCESS)
        }
        Err(problems) => {
            problems.iter().for_each(|problem| eprintln!("{problem}"));
            Ok(ExitCode::from(USAGE))
        }
    }
}

fn version() -> ExitCode {
    println!("spanmesh-proxy {}", env!("CARGO_PKG_VERSION"));
    ExitCode::SUCCESS
}

const USAGE: u8 = 2;

const HELP: &str = "\
The Spanmesh proxy: carries a pod's traffic and traces every hop.

Usage:
  spanmesh-proxy run --config FILE      run until SIGTERM, then finish what is in flight
  spanmesh-proxy check-config FILE      say what is wrong in a configuration, with file, line and field
  spanmesh-proxy redirect [OPTIONS]     send this network namespace's traffic to the proxy (needs root)
  spanmesh-proxy version

Environment:
  SPANMESH_<PATH>   overrides a field of the file, with __ between levels: SPANMESH_ADMIN__ADDRESS=127.0.0.1:0

Examples:
  spanmesh-proxy run --config proxy.yaml
  SPANMESH_TELEMETRY__LOG=debug spanmesh-proxy run --config proxy.yaml
  spanmesh-proxy redirect --dry-run

Exit codes: 0 done, 1 failed, 2 wrong usage or configuration, 3 checked and found wanting.
";
