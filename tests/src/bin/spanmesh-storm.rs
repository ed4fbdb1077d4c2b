//! `spanmesh-storm [--minutes N] [--proxy PATH]`: good and hostile traffic together against a proxy of its own, by default
//! the `spanmesh-proxy` beside this program, for 30 minutes. Exits with 0 when all was well.

#![forbid(unsafe_code)]

use std::process::ExitCode;
use std::time::Duration;

use spanmesh_tests::storm::{self, Sharing};

fn main() -> ExitCode {
    let beside = std::env::current_exe().expect("this program has a path").with_file_name("spanmesh-proxy");
    let (mut minutes, mut proxy) = (30.0, beside.display().to_string());
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        match (word.as_str(), words.next()) {
            ("--minutes", Some(number)) if number.parse::<f64>().is_ok_and(|number| number > 0.0) => {
                minutes = number.parse().expect("looked at");
            }
            ("--proxy", Some(path)) => proxy = path,
            _ => {
                eprintln!("usage: spanmesh-storm [--minutes N] [--proxy PATH]");
                return ExitCode::from(2);
            }
        }
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build_local(tokio::runtime::LocalOptions::default())
        .expect("a runtime");
    let well = runtime.block_on(storm::run(&proxy, Duration::from_secs_f64(minutes * 60.0), Sharing::Together));
    if well { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
