//! One program for all targets: `SPANMESH_FUZZ` names the one to run.

#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use spanmesh_proxy::fuzz::TARGETS;

static TARGET: LazyLock<fn(&[u8])> = LazyLock::new(|| {
    let name = std::env::var("SPANMESH_FUZZ").expect("SPANMESH_FUZZ names a target");
    TARGETS.iter().chain(spanmesh::fuzz::TARGETS).find(|target| target.0 == name).expect("a target of the table").1
});

fuzz_target!(|data: &[u8]| TARGET(data));
