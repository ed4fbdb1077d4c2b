//! Examples are what they say they are: good ones hold and use every field, bad ones are refused with the words at their
//! top. The same files are applied to an API server by `tests/kube/crds`.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use serde_json::Value;
use spanmesh_crds::{MeshTracing, SamplingPolicy, SpanPolicy, TraceCapture, definitions, problems, schema};

/// What is wrong with a resource, as whoever reads a folder would say it.
fn wrong(text: &str) -> Vec<String> {
    let tree: Value = serde_yaml::from_str(text).expect("it is YAML");
    macro_rules! read {
        ($Kind:ty, $look:path, $of:literal) => {
            match serde_yaml::from_str::<$Kind>(text) {
                Ok(resource) => {
                    let of = tree["metadata"][$of].as_str().expect("it is named");
                    $look(of, &resource.spec).iter().map(ToString::to_string).collect()
                }
                Err(error) => vec![error.to_string()],
            }
        };
    }
    match tree["kind"].as_str() {
        Some("MeshTracing") => read!(MeshTracing, problems::mesh_tracing, "name"),
        Some("SamplingPolicy") => read!(SamplingPolicy, problems::sampling_policy, "namespace"),
        Some("SpanPolicy") => read!(SpanPolicy, problems::span_policy, "namespace"),
        Some("TraceCapture") => read!(TraceCapture, problems::trace_capture, "namespace"),
        kind => panic!("{kind:?} is no kind of ours"),
    }
}

fn files(folder: &str) -> Vec<(String, String)> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(folder);
    let mut files: Vec<(String, String)> = fs::read_dir(folder)
        .expect("the folder is there")
        .map(|entry| entry.expect("it can be read").path())
        .filter(|path| path.is_file())
        .map(|path| (path.display().to_string(), fs::read_to_string(&path).expect("it can be read")))
        .collect();
    files.sort();
    files
}

#[test]
fn every_example_holds() {
    for (name, text) in files("examples") {
        assert_eq!(wrong(&text), [""; 0], "{name}");
    }
}

#[test]
fn every_example_is_the_same_after_it_was_read_and_written() {
    for (name, text) in files("examples") {
        let tree: Value = serde_yaml::from_str(&text).expect("it is YAML");
        macro_rules! again {
            ($Kind:ty) => {{
                let read: $Kind = serde_yaml::from_str(&text).expect("it holds");
                let written = serde_json::to_value(&read).expect("it can be written");
                let again: $Kind = serde_json::from_value(written).expect("it holds");
                assert_eq!(read, again, "{name}");
            }};
        }
        match tree["kind"].as_str() {
            Some("MeshTracing") => again!(MeshTracing),
            Some("SamplingPolicy") => again!(SamplingPolicy),
            Some("SpanPolicy") => again!(SpanPolicy),
            _ => again!(TraceCapture),
        }
    }
}

#[test]
fn every_bad_example_is_refused_with_the_words_at_its_top() {
    let bad = files("examples/invalid");
    assert!(bad.len() > 60, "they are all there");
    for (name, text) in bad {
        let top = text.lines().filter_map(|line| line.strip_prefix("# says: ").or(line.strip_prefix("# here: ")));
        let words: Vec<&str> = top.collect();
        let found = wrong(&text);
        assert_eq!(words.len(), 1, "{name} says what is to be said");
        assert_eq!(found.len(), 1, "{name} has one problem: {found:?}");
        assert!(found[0].contains(words[0]), "{name}: {} instead of {}", found[0], words[0]);
    }
}

#[test]
fn a_problem_names_its_place() {
    let text = "apiVersion: spanmesh.io/v1alpha1\nkind: SamplingPolicy\nmetadata: {name: a, namespace: shop}\nspec:\n  targetRefs: [{kind: Service, name: cart}]\n  defaults: {keep: [{name: slow, when: {latency: {threshold: 2h}}}]}\n";
    let found = wrong(text);
    assert!(found[0].starts_with("spec.defaults.keep[0].when.latency.threshold: write at least"), "{found:?}");
}

/// A block that stands in several places, as the sampling block does, is used if it is used in one of them.
#[test]
fn every_field_stands_in_an_example() {
    let (mut there, mut used) = (BTreeSet::new(), BTreeSet::new());
    for definition in definitions() {
        let kind = definition["spec"]["names"]["kind"].clone();
        let spec = &schema(&definition)["properties"]["spec"];
        fields(spec, &mut there);
        for (_, text) in files("examples") {
            let tree: Value = serde_yaml::from_str(&text).expect("it is YAML");
            if tree["kind"] == kind {
                uses(spec, &tree["spec"], &mut used);
            }
        }
    }
    assert!(there.len() > 100, "the schema has fields");
    let missing: Vec<&String> = there.difference(&used).map(|(_, name)| name).collect();
    assert!(missing.is_empty(), "no example has {missing:?}");
}

fn fields(schema: &Value, there: &mut BTreeSet<(String, String)>) {
    for (name, field) in schema["properties"].as_object().into_iter().flatten() {
        there.insert((schema["properties"].to_string(), name.clone()));
        fields(field, there);
    }
    if schema["items"].is_object() {
        fields(&schema["items"], there);
    }
}

fn uses(schema: &Value, value: &Value, used: &mut BTreeSet<(String, String)>) {
    for (name, value) in value.as_object().into_iter().flatten() {
        used.insert((schema["properties"].to_string(), name.clone()));
        uses(&schema["properties"][name], value, used);
    }
    for item in value.as_array().into_iter().flatten() {
        uses(&schema["items"], item, used);
    }
}

/// Of each text, list and map; and no rule has a loop in a loop: both would cost more than CEL's budget.
#[test]
fn all_that_a_rule_may_read_is_bounded() {
    for definition in definitions() {
        let kind = definition["spec"]["names"]["kind"].as_str().expect("a name").to_owned();
        bounded(&kind, schema(&definition));
    }
}

fn bounded(path: &str, schema: &Value) {
    let has = |name: &str| !schema[name].is_null();
    match schema["type"].as_str() {
        Some("string") => {
            assert!(has("maxLength") || has("enum") || has("format") || path.ends_with("apiVersion"), "{path}")
        }
        Some("array") => assert!(has("maxItems") && has("x-kubernetes-list-type"), "{path}"),
        Some("integer") => {
            assert!((has("minimum") && has("maximum")) || path.ends_with("observedGeneration"), "{path}")
        }
        _ => {}
    }
    assert!(path.ends_with(']') || !path.contains('.') || has("description"), "{path} says what it is");
    let loops = ["all(", "exists(", "exists_one(", "filter(", "map("];
    for rule in schema["x-kubernetes-validations"].as_array().into_iter().flatten() {
        let text = rule["rule"].as_str().expect("a rule");
        let count: usize = loops.iter().map(|name| text.matches(&format!(".{name}")).count()).sum();
        assert!(count <= 1, "{path} has a rule with several loops: {text}");
    }
    for (name, field) in schema["properties"].as_object().into_iter().flatten() {
        bounded(&format!("{path}.{name}"), field);
    }
    if has("items") {
        bounded(&format!("{path}[]"), &schema["items"]);
    }
}
