use std::process::ExitCode;

fn main() -> ExitCode {
    spanmesh_control_plane::main(std::env::args_os().skip(1))
}
