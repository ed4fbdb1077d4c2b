//! Writes `REFERENCE.md`: every field of every kind with its type, default, bounds and meaning, and what is asked of it.

use serde_json::Value;

use crate::definition::{definitions, schema};

/// The text of `REFERENCE.md`.
pub fn reference() -> String {
    let mut text = String::from(HEAD);
    for definition in definitions() {
        let names = &definition["spec"]["names"];
        let schema = schema(&definition);
        text += &format!("\n# {}\n\n{}\n\n", word(&names["kind"]), word(&schema["description"]));
        text += &format!(
            "Scope: {}. For kubectl: `{}`, `{}`.\n",
            word(&definition["spec"]["scope"]).to_lowercase(),
            word(&names["plural"]),
            word(&names["shortNames"][0]),
        );
        for rule in rules(schema) {
            text += &format!("\nMust hold: {rule}.\n");
        }
        for part in ["spec", "status"] {
            section(&mut text, part, &schema["properties"][part]);
        }
    }
    text
}

fn section(text: &mut String, path: &str, schema: &Value) {
    let Some(properties) = schema["properties"].as_object() else { return };
    *text += &format!("\n## `{path}`\n\n");
    for rule in rules(schema) {
        *text += &format!("- Must hold: {rule}.\n");
    }
    if !rules(schema).is_empty() {
        *text += "\n";
    }
    *text += "| Field | Type | Default | Bounds | Meaning |\n|---|---|---|---|---|\n";
    for (name, field) in properties {
        let required = schema["required"].as_array().is_some_and(|list| list.iter().any(|it| it == name));
        let usual = match field.get("default") {
            Some(usual) => format!("`{usual}`"),
            None if required => "required".into(),
            None => String::new(),
        };
        let mut meaning = word(&field["description"]).to_owned();
        if field["type"] == "array" && field["items"]["enum"].is_array() {
            meaning += &format!(" {}", word(&field["items"]["description"]));
        }
        let own = if field["properties"].is_object() { Vec::new() } else { rules(field) };
        let asked = own.into_iter().chain(inner_rules(field));
        for rule in asked {
            meaning += &format!(" Must hold: {rule}.");
        }
        let cells = [format!("`{name}`"), kind(field), usual, bounds(field), meaning];
        *text += &format!("| {} |\n", cells.map(|cell| cell.replace('|', "\\|").replace('\n', " ")).join(" | "));
    }
    for (name, field) in properties {
        let path = format!("{path}.{name}");
        match field["type"].as_str() {
            Some("array") => section(text, &format!("{path}[]"), &field["items"]),
            Some(_) | None => section(text, &path, field),
        }
    }
}

/// Those of a list's plain items, which have no section.
fn inner_rules(field: &Value) -> Vec<String> {
    match field["items"]["properties"].is_object() {
        true => Vec::new(),
        false => rules(&field["items"]),
    }
}

fn rules(schema: &Value) -> Vec<String> {
    let rules = schema["x-kubernetes-validations"].as_array().map(Vec::as_slice).unwrap_or_default();
    rules.iter().map(|rule| word(&rule["message"]).to_owned()).collect()
}

fn kind(field: &Value) -> String {
    if let Some(words) = field["enum"].as_array() {
        return words.iter().map(|word| format!("`{}`", self::word(word))).collect::<Vec<_>>().join(" ");
    }
    match field["type"].as_str() {
        Some("array") => format!("list of {}", kind(&field["items"])),
        Some("object") if field["properties"].is_null() => "empty, `{}`".into(),
        Some(kind) => kind.into(),
        None => String::new(),
    }
}

fn bounds(field: &Value) -> String {
    let mut said = Vec::new();
    for (least, most, what) in [
        ("minimum", "maximum", ""),
        ("minLength", "maxLength", " characters"),
        ("minItems", "maxItems", " entries"),
        ("minProperties", "maxProperties", " fields"),
    ] {
        match (field[least].as_i64(), field[most].as_i64()) {
            (Some(least), Some(most)) => said.push(format!("{least} to {most}{what}")),
            (Some(least), None) => said.push(format!("from {least}{what}")),
            (None, Some(most)) => said.push(format!("to {most}{what}")),
            (None, None) => {}
        }
    }
    match field["x-kubernetes-list-type"].as_str() {
        Some("set") => said.push("none twice".into()),
        Some("map") => {
            let keys = field["x-kubernetes-list-map-keys"].as_array().map(Vec::as_slice).unwrap_or_default();
            let keys: Vec<&str> = keys.iter().map(word).collect();
            said.push(format!("none twice by {}", keys.join(", ")));
        }
        Some(_) | None => {}
    }
    said.join("; ")
}

fn word(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

const HEAD: &str = "<!-- Generated from the types in src by `BLESS=1 cargo test -p spanmesh-crds`. -->

The resources of group `spanmesh.io`, version `v1alpha1`. Examples of every field: `examples/`; what is refused, and with
which words: `examples/invalid/`.
";
