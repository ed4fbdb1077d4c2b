//! The bounds of the schema, for resources that no API server has seen: how many, how long, how large, and nothing twice.

use serde_json::Value;

use crate::problem::Check;

pub(crate) fn look(check: &mut Check, schema: &Value, value: &Value) {
    let bound = |name: &str| schema.get(name).and_then(Value::as_u64);
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                check.field(name, |check| look(check, &schema["properties"][name], value));
            }
        }
        Value::Array(items) => {
            size(check, items.len() as u64, bound("minItems"), bound("maxItems"), "entries");
            let mut seen = Vec::new();
            for (index, item) in items.iter().enumerate() {
                check.item(index, |check| {
                    let key = key(schema, item);
                    if key.as_ref().is_some_and(|key| seen.contains(key)) {
                        check.wrong("stands here for the second time: keep one of the two, or give it another name");
                    }
                    seen.extend(key);
                    look(check, &schema["items"], item);
                });
            }
        }
        Value::String(text) => {
            size(check, text.chars().count() as u64, bound("minLength"), bound("maxLength"), "characters");
        }
        Value::Number(number) => {
            let bound = |name: &str| schema.get(name).and_then(Value::as_f64);
            let number = number.as_f64().unwrap_or_default();
            match (bound("minimum"), bound("maximum")) {
                (Some(least), _) if number < least => check.wrong(format!("is {number}: write at least {least}")),
                (_, Some(most)) if number > most => check.wrong(format!("is {number}: write at most {most}")),
                _ => {}
            }
        }
        Value::Null | Value::Bool(_) => {}
    }
}

fn size(check: &mut Check, size: u64, least: Option<u64>, most: Option<u64>, what: &str) {
    match (least, most) {
        (Some(least), _) if size < least => check.wrong(format!("has {size} {what}: write at least {least}")),
        (_, Some(most)) if size > most => check.wrong(format!("has {size} {what}: write at most {most}")),
        _ => {}
    }
}

/// What must not stand twice in a list.
fn key(list: &Value, item: &Value) -> Option<Vec<Value>> {
    match list.get("x-kubernetes-list-type").and_then(Value::as_str) {
        Some("set") => Some(vec![item.clone()]),
        Some("map") => {
            let keys = list.get("x-kubernetes-list-map-keys").and_then(Value::as_array)?.iter();
            let value = |key: &Value| {
                let key = key.as_str()?;
                item.get(key).or_else(|| list["items"]["properties"][key].get("default")).cloned()
            };
            keys.map(value).collect()
        }
        Some(_) | None => None,
    }
}
