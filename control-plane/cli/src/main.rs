//! The `spanmesh` program. Everything is in the library, so that tests can run it too.

#![forbid(unsafe_code)]

use std::process::ExitCode;

use mimalloc::MiMalloc;

/// `spanmesh proxy` and the demo's sidecars are this program, and are to cost what `spanmesh-proxy` costs.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    spanmesh::main(std::env::args_os().skip(1))
}
