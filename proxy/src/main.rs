//! The `spanmesh-proxy` program. Everything is in the library, so that tests and other programs can run it too.

#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    spanmesh_proxy::cli::main(std::env::args_os().skip(1))
}
