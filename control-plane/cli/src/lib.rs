//! The `spanmesh` command line: one tool that shows the mesh at work (`demo`), draws traces (`trace`), looks at
//! policies before and after they are in force (`policy`, `proxy-status`), and runs the proxy and the control plane.
//!
//! `commands` lists what there is; help, completion and man page are written from that list. A command exists when what it
//! does exists. Exit codes: 0 done, 1 failed, 2 wrong usage or configuration, 3 checked and found wanting.

#![forbid(unsafe_code)]

mod commands;
mod completion;
mod control;
mod demo;
mod failure;
pub mod fuzz;
mod help;
mod http;
mod man;
mod output;
mod policy;
mod status;
mod terminal;
mod trace;

use std::ffi::OsString;
use std::process::ExitCode;

/// Runs one command and returns its exit code.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    match commands::run(arguments) {
        Ok(code) => code,
        Err(failure) => {
            if let Some(text) = failure.text() {
                // What others said may be part of it.
                eprintln!("spanmesh: {}", terminal::tame_lines(&text));
            }
            failure.code()
        }
    }
}
