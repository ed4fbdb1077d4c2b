//! The `spanmesh-proxy` program once more, so that the tests of this crate have it by `env!("CARGO_BIN_EXE_…")`.

#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    spanmesh_proxy::cli::main(std::env::args_os().skip(1))
}
