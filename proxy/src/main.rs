//! The `spanmesh-proxy` program. Everything is in the library, so that tests and other programs can run it too.

#![forbid(unsafe_code)]

use std::process::ExitCode;

use mimalloc::MiMalloc;

/// A request allocates some thirty times, all small and nearly all freed by the worker that asked. Here and not in the
/// library, whose other users have their own.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    spanmesh_proxy::cli::main(std::env::args_os().skip(1))
}
