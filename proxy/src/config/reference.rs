//! Writes `CONFIGURATION.md`: every field with its path, type, default, meaning and variable, from the tables of `schema`.

use super::Config;
use super::schema::{Info, Kind, Table, Usual};
use super::tree::Tree;
use super::variables::{variable, variable_part};
use super::yaml;

/// The text of `CONFIGURATION.md`.
pub fn reference() -> String {
    let mut text = String::from(HEAD);
    write_section(&mut text, "", &mut Vec::new(), Config::table());
    text
}

fn write_section(text: &mut String, path: &str, parts: &mut Vec<String>, table: Table) {
    if table.fields.is_empty() {
        return;
    }
    match path {
        "" => *text += "\n## The file\n\n",
        _ => *text += &format!("\n## `{path}`\n\n{}\n\n", table.about),
    }
    *text += "| Field | Type | Default | Meaning | Variable |\n|---|---|---|---|---|\n";
    for field in &table.fields {
        parts.push(variable_part(&field.name));
        let cells = [
            format!("`{}`", join(path, &field.name)),
            type_words(field),
            default_words(field),
            field.about.clone(),
            format!("`{}`", variable(parts)),
        ];
        *text += &format!("| {} |\n", cells.map(|cell| cell.replace('|', "\\|")).join(" | "));
        parts.pop();
    }
    for later in &table.later {
        *text += &format!("\n`{}` is not in this version: {}.\n", join(path, later.name), later.instead);
    }
    for field in table.fields {
        let depth = parts.len();
        parts.push(variable_part(&field.name));
        let mut inside = join(path, &field.name);
        let mut kind = field.kind;
        while let Kind::List(of) = kind {
            inside += "[0]";
            parts.push("0".into());
            kind = *of;
        }
        if let Kind::Section(table) = kind {
            write_section(text, &inside, parts, table());
        }
        parts.truncate(depth);
    }
}

fn join(path: &str, name: &str) -> String {
    match path {
        "" => name.into(),
        _ => format!("{path}.{name}"),
    }
}

fn type_words(field: &Info) -> String {
    match &field.bounds {
        None => field.kind.words(),
        Some((low, high)) if low == high => format!("{}, {}", field.kind.words(), low.describe()),
        Some((low, high)) => format!("{}, {} to {}", field.kind.words(), low.describe(), high.describe()),
    }
}

fn default_words(field: &Info) -> String {
    match &field.usual {
        Usual::Required => "required".into(),
        Usual::Nothing | Usual::Value(Tree::Null) => "none".into(),
        Usual::Words(words) => (*words).into(),
        Usual::Value(_) if matches!(field.kind, Kind::Section(_)) => "its fields' own".into(),
        Usual::Value(Tree::Text(text)) if text.is_empty() => "empty".into(),
        Usual::Value(value) => format!("`{}`", flow(value)),
    }
}

/// A value on one line: `[25, 587]`.
fn flow(value: &Tree) -> String {
    match value {
        Tree::List(items) => format!("[{}]", items.iter().map(flow).collect::<Vec<_>>().join(", ")),
        Tree::Map(entries) if entries.is_empty() => "{}".into(),
        Tree::Text(text) => text.clone(),
        other => yaml::write(other).trim().to_owned(),
    }
}

const HEAD: &str = "\
<!-- Generated from proxy/src/config; do not edit. To write it anew: BLESS=1 cargo test -p spanmesh-proxy --lib config::reference -->

# Configuration of the proxy

`spanmesh-proxy run --config FILE` reads one YAML file of at most 1 MiB; `spanmesh-proxy check-config FILE` tells whether it is right.
Every error names the file, the line, the field, what is wrong and what would be right.

- Names are in camelCase. A field that is not listed here is refused.
- A field without a value (`limits:` and nothing below) is refused: write `{}` or leave it out.
- Text that looks like a number or like `true` needs quotes: `serviceVersion: \"1.10\"`.
- A duration is a whole number and a unit: `500ms`, `10s`, `1m`, `1h`. A size is bytes, or a number with `Ki`, `Mi` or `Gi`.
- Paths of files are relative to the directory where the proxy was started.

## The environment

A variable `SPANMESH_…` overrides the file's field that stands beside it in the tables below. The levels of its path are joined by `__`,
and the items of a list are numbered from 0; the number after the last item's makes a new one.
A list or section is written as YAML on one line: `SPANMESH_LISTENERS__0__OPAQUE_PORTS='[25, 5432]'`.
A `SPANMESH_` variable that names no field is an error, except those that Kubernetes makes for a Service (`…_SERVICE_HOST`, `…_PORT_80_TCP`).

`OTEL_SERVICE_NAME` and `OTEL_RESOURCE_ATTRIBUTES` (`service.name`, `service.namespace`, `service.version`) fill `node.service`, `node.namespace`
and `node.serviceVersion` where the file and the variables above leave them open. `OTEL_PROPAGATORS` fills `policy.propagation`,
`OTEL_TRACES_SAMPLER` and `OTEL_TRACES_SAMPLER_ARG` fill `policy.sampling`, `OTEL_EXPORTER_OTLP_*`, `OTEL_TRACES_EXPORTER` and `OTEL_BSP_*` fill
`policy.destinations`, each where none of that section is written. `OTEL_BSP_*` and the timeout among them also say how spans are gathered and
sent to destinations that a control plane names. What is invalid there is warned about and ignored.
";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::schema::Form;

    #[test]
    fn the_committed_reference_is_fresh() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/CONFIGURATION.md");
        if std::env::var_os("BLESS").is_some() {
            std::fs::write(path, reference()).unwrap();
        }
        let committed = std::fs::read_to_string(path).unwrap_or_default();
        assert!(committed == reference(), "{path} is stale; write it anew with BLESS=1");
    }

    #[test]
    fn every_field_says_what_it_means() {
        fn visit(table: Table) {
            for field in table.fields {
                assert!(field.about.ends_with('.'), "{}: {}", field.name, field.about);
                let mut kind = field.kind;
                while let Kind::List(of) = kind {
                    kind = *of;
                }
                if let Kind::Section(table) = kind {
                    visit(table());
                }
            }
        }
        visit(Config::table());
        assert!(matches!(Config::kind(), Kind::Section(_)));
    }
}
