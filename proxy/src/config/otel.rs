//! What the standard variables of OpenTelemetry say of the service, for what the file leaves open.
//!
//! They are shared with the application and follow its specification: what is invalid there is warned about and ignored, never refused.

use super::reader::Reader;
use super::schema::Form;
use super::tree::{FieldPath, Step, Tree};
use super::variables::{Origins, set};

/// Fills `node`, and returns the warnings and the attributes that have no field there.
pub fn fill(
    tree: &mut Tree,
    environment: &[(String, String)],
    origins: &mut Origins,
) -> (Vec<String>, Vec<(String, String)>) {
    let (mut warnings, mut others) = (Vec::new(), Vec::new());
    // An empty value counts as unset (OpenTelemetry, "Environment Variable Specification").
    let value = |name: &str| environment.iter().find(|(known, value)| known == name && !value.is_empty());
    let mut found = Vec::new();
    if let Some((name, service)) = value("OTEL_SERVICE_NAME") {
        found.push((name, "service", service.clone()));
    }
    if let Some((name, text)) = value("OTEL_RESOURCE_ATTRIBUTES") {
        match attributes(text) {
            Ok(attributes) => {
                for (key, value) in attributes {
                    match field(&key) {
                        Some(field) => found.push((name, field, value)),
                        None if is_plain(&key) && is_plain(&value) => others.push((key, value)),
                        None => {
                            warnings.push(format!("{name}: an attribute is not printable text on one line; ignored"))
                        }
                    }
                }
            }
            Err(wrong) => warnings
                .push(format!("{name}: {wrong}; ignored: write `key=value,key=value` with `%XX` for other characters")),
        }
    }
    for (name, field, value) in found {
        if !is_plain(&value) {
            warnings.push(format!("{name}: the value for node.{field} is not printable text on one line; ignored"));
        } else if is_open(tree, field) {
            let path = FieldPath(vec![Step::Field("node".into()), Step::Field(field.into())]);
            if set(tree, &path.0, Tree::Word(value)).is_ok() {
                origins.note(path, name);
            }
        }
    }
    (warnings, others)
}

fn field(attribute: &str) -> Option<&'static str> {
    match attribute {
        "service.name" => Some("service"),
        "service.namespace" => Some("namespace"),
        "service.version" => Some("serviceVersion"),
        "k8s.pod.name" => Some("pod"),
        "k8s.pod.uid" => Some("podUid"),
        "k8s.pod.ip" => Some("podIp"),
        "k8s.node.name" => Some("nodeName"),
        "k8s.container.name" => Some("container"),
        "k8s.cluster.name" => Some("cluster"),
        _ => None,
    }
}

/// Neither the file nor a variable of ours, nor a variable looked at before, has set it.
fn is_open(tree: &Tree, field: &str) -> bool {
    let Tree::Map(entries) = tree else { return false };
    match super::schema::entry(entries, "node") {
        None => true,
        Some(Tree::Map(node)) => super::schema::entry(node, field).is_none(),
        // Not a section: refused when it is read.
        Some(_) => false,
    }
}

fn is_plain(value: &str) -> bool {
    let mut reader = Reader::default();
    String::read(&mut reader, &Tree::text(value)).is_some()
}

/// `key=value` pairs in the form of W3C Baggage, without its properties. One error discards all of them.
pub fn attributes(text: &str) -> Result<Vec<(String, String)>, &'static str> {
    let mut attributes = Vec::new();
    for pair in text.split(',').map(str::trim).filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once('=').ok_or("has a part without `=`")?;
        if key.trim().is_empty() {
            return Err("has a part without a key");
        }
        attributes.push((key.trim().to_owned(), decode(value.trim())?));
    }
    Ok(attributes)
}

fn decode(text: &str) -> Result<String, &'static str> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let digit = |byte: Option<u8>| {
            byte.and_then(|byte| char::from(byte).to_digit(16)).and_then(|digit| u8::try_from(digit).ok())
        };
        match (digit(rest.next()), digit(rest.next())) {
            (Some(high), Some(low)) => bytes.push(high << 4 | low),
            _ => return Err("has a `%` without two hexadecimal digits"),
        }
    }
    String::from_utf8(bytes).map_err(|_| "has a value that is not UTF-8 once decoded")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::yaml;

    fn filled(text: &str, variables: &[(&str, &str)]) -> (String, Vec<String>) {
        let environment: Vec<_> = variables.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
        let mut tree = yaml::parse(text).unwrap();
        let (warnings, _) = fill(&mut tree, &environment, &mut Origins::default());
        (yaml::write(&tree), warnings)
    }

    #[test]
    fn what_the_file_leaves_open_is_filled() {
        let variables = [
            ("OTEL_SERVICE_NAME", "a"),
            ("OTEL_RESOURCE_ATTRIBUTES", "service.name=b,service.version=1%2e0, service.namespace = n"),
        ];
        assert_eq!(
            filled("node: {namespace: x}", &variables).0,
            "node:\n  namespace: x\n  service: a\n  serviceVersion: '1.0'\n"
        );
        assert_eq!(filled("{}", &[("OTEL_SERVICE_NAME", "")]).0, "{}\n");
    }

    #[test]
    fn what_is_invalid_is_warned_about_and_ignored() {
        for text in
            ["service.name", "=x", "service.name=%zz", "service.name=%f", "service.name=%ff", "service.name=a%0Ab"]
        {
            let (tree, warnings) = filled("{}", &[("OTEL_RESOURCE_ATTRIBUTES", text)]);
            assert_eq!((tree.as_str(), warnings.len()), ("{}\n", 1), "{text} {warnings:?}");
            assert!(warnings[0].starts_with("OTEL_RESOURCE_ATTRIBUTES: "));
        }
    }
}
