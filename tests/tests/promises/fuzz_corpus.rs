//! What a fuzzer once found, and what leads it on, holds in every build: each input of the corpus, through its target.

use std::path::Path;

use spanmesh_tests::fuzz::{inputs, targets};

#[test]
fn every_input_of_the_corpus_holds() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
    for (name, target) in targets() {
        let inputs = inputs(&corpus.join(name)).expect("a corpus that can be read");
        assert!(!inputs.is_empty(), "{name} has no input in the corpus");
        for input in inputs {
            target(&input);
        }
    }
}

#[test]
fn the_corpus_is_small_and_of_known_targets() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
    let mut bytes = 0;
    for directory in std::fs::read_dir(&corpus).expect("a corpus") {
        let directory = directory.expect("an entry");
        let name = directory.file_name().into_string().expect("a name");
        assert!(targets().iter().any(|target| target.0 == name), "{name} is no target");
        bytes += inputs(&directory.path()).expect("inputs").iter().map(Vec::len).sum::<usize>();
    }
    assert!(bytes < 300 * 1024, "{bytes} bytes");
}
