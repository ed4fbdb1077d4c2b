//! The control plane: reads policy resources, and pushes to each proxy what concerns it. ARCHITECTURE.md has the map.

#![forbid(unsafe_code)]

pub mod adaptive;
mod admin;
mod api;
mod app;
mod arrivals;
mod capture;
mod capturing;
mod cli;
mod cluster;
mod keeper;
mod leader;
mod log;
pub mod offline;
mod picture;
mod push;
mod reconcile;
mod snapshot;
mod source;
mod workloads;

use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;

pub use app::{Bound, Running, start};
pub use cli::{Options, Source};

/// Runs the program and returns its exit code.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let command = match cli::parse(arguments) {
        Ok(command) => command,
        Err(problem) => {
            eprintln!("spanmesh-control-plane: {problem}\nTry `spanmesh-control-plane --help`.");
            return ExitCode::from(2);
        }
    };
    match command {
        cli::Command::Help => print(cli::HELP),
        cli::Command::Version => print(concat!("spanmesh-control-plane ", env!("CARGO_PKG_VERSION"), "\n")),
        cli::Command::Run(options) => match app::run(options) {
            Ok(()) => ExitCode::SUCCESS,
            Err(problem) => {
                eprintln!("spanmesh-control-plane: {problem}");
                ExitCode::FAILURE
            }
        },
    }
}

/// A reader that has gone is no failure.
fn print(text: &str) -> ExitCode {
    let _ = std::io::stdout().write_all(text.as_bytes());
    ExitCode::SUCCESS
}
