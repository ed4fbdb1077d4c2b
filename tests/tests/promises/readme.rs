//! Every configuration that README.md shows is one that the proxy takes.

use spanmesh_proxy::config;
use spanmesh_tests::Dir;

#[test]
fn the_readmes_configurations_are_right() {
    let readme = include_str!("../../../README.md");
    let blocks: Vec<_> =
        readme.split("```yaml\n").skip(1).filter_map(|rest| rest.split_once("```")).map(|(yaml, _)| yaml).collect();
    assert_eq!(blocks.len(), 2, "a sidecar and a gateway");
    let dir = Dir::new();
    for yaml in blocks {
        let file = dir.write("readme.yaml", yaml);
        if let Err(problems) = config::check(&file) {
            panic!("{}", problems.iter().map(|problem| format!("{problem}\n")).collect::<String>());
        }
    }
}
