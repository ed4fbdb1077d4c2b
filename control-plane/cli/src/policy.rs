//! `spanmesh policy …`: policies before they are in force. `lint` says what is wrong with them, `diff` what a change of
//! them changes for whom, `explain` what becomes of one request. None of it needs a cluster: the control plane's library
//! makes of files what a running one would push, and the proxy's library decides by that.

mod diff;
mod explain;
mod lint;
mod rule;
mod seat;

use std::process::ExitCode;

use lexopt::{Arg, Parser};

use crate::failure::Failure;

pub fn main(parser: &mut Parser) -> Result<ExitCode, Failure> {
    match parser.next().map_err(wrong)? {
        Some(Arg::Value(word)) if word == "lint" => lint::main(parser),
        Some(Arg::Value(word)) if word == "diff" => diff::main(parser),
        Some(Arg::Value(word)) if word == "explain" => explain::main(parser),
        Some(Arg::Value(word)) => {
            Err(usage(format!("`{}` is not known; there are lint, diff and explain", word.to_string_lossy())))
        }
        Some(other) => Err(wrong(other.unexpected())),
        None => Err(usage("say what to do: lint, diff or explain")),
    }
}

fn wrong(error: lexopt::Error) -> Failure {
    usage(error)
}

fn usage(text: impl std::fmt::Display) -> Failure {
    Failure::usage("policy", text)
}

fn text(parser: &mut Parser) -> Result<String, Failure> {
    Ok(parser.value().map_err(wrong)?.to_string_lossy().into_owned())
}

pub const ROLES: [&str; 3] = ["sidecar", "gateway", "standalone"];
pub const SIDES: [&str; 3] = ["outbound", "inbound", "gateway"];
pub const PARENTS: [&str; 3] = ["none", "kept", "dropped"];
