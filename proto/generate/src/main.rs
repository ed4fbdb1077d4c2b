//! Writes the Rust of the protocols. `cargo run --manifest-path proto/generate/Cargo.toml` writes it anew, and with
//! `-- --check` only says whether what is committed is what would be written. No protoc is needed.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::{env, fs, io};

const PROTOCOLS: [&str; 2] = ["spanmesh/v1/discovery.proto", "spanmesh/v1/policy.proto"];

fn main() -> io::Result<ExitCode> {
    let proto = Path::new(env!("CARGO_MANIFEST_DIR")).parent().map(PathBuf::from).unwrap_or_default();
    let committed = proto.join("src/generated");
    if env::args().any(|argument| argument == "--check") {
        let fresh = env::temp_dir().join(format!("spanmesh-generated-{}", std::process::id()));
        write(&proto, &fresh)?;
        let same = listing(&fresh)? == listing(&committed)?;
        fs::remove_dir_all(&fresh)?;
        if !same {
            eprintln!("proto/src/generated is stale: run `cargo run --manifest-path proto/generate/Cargo.toml`");
        }
        return Ok(if same { ExitCode::SUCCESS } else { ExitCode::FAILURE });
    }
    write(&proto, &committed)?;
    Ok(ExitCode::SUCCESS)
}

fn write(proto: &Path, folder: &Path) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    let descriptors = protox::compile(PROTOCOLS, [proto]).map_err(io::Error::other)?;
    let mut config = tonic_prost_build::Config::new();
    // A body is handed on as it is; copies of it share.
    config.bytes([".spanmesh.v1.Resource.body"]);
    tonic_prost_build::configure()
        .build_transport(false)
        .emit_rerun_if_changed(false)
        .out_dir(folder)
        .compile_fds_with_config(descriptors, config)
}

fn listing(folder: &Path) -> io::Result<Vec<(String, Vec<u8>)>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        files.push((entry.file_name().to_string_lossy().into_owned(), fs::read(entry.path())?));
    }
    files.sort();
    Ok(files)
}
