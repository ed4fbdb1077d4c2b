//! What is generated from the types is committed, and fresh. `BLESS=1 cargo test -p spanmesh-crds` writes it anew.

use std::fs;
use std::path::PathBuf;

fn check(path: &str, text: &str) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(path);
    if std::env::var_os("BLESS").is_some() {
        fs::write(&path, text).expect("it can be written");
    }
    let found = fs::read_to_string(&path).unwrap_or_default();
    assert!(found == text, "{} is stale: run `BLESS=1 cargo test -p spanmesh-crds`", path.display());
}

#[test]
fn the_definitions_are_what_the_types_say() {
    for definition in spanmesh_crds::definitions() {
        let plural = definition["spec"]["names"]["plural"].as_str().expect("a name");
        let text = serde_yaml::to_string(&definition).expect("it is YAML");
        check(&format!("generated/{plural}.yaml"), &format!("{HEAD}{text}"));
    }
}

#[test]
fn the_reference_has_every_field() {
    check("REFERENCE.md", &spanmesh_crds::reference());
}

const HEAD: &str = "# Generated from the types in crds/src by `BLESS=1 cargo test -p spanmesh-crds`.\n";
