//! One document of a file: a resource, or what is wrong with it.

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_yaml::Value;
use spanmesh_crds::{self as crds, MeshTracingSpec, Problem, SamplingPolicySpec, SpanPolicySpec, TraceCaptureSpec};

/// A resource of any kind.
#[derive(Clone, Debug, PartialEq)]
pub enum Spec {
    MeshTracing(MeshTracingSpec),
    SamplingPolicy(SamplingPolicySpec),
    SpanPolicy(SpanPolicySpec),
    TraceCapture(TraceCaptureSpec),
}

/// What a document says of itself, as far as it can be read.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Identity {
    pub kind: String,
    pub namespace: String,
    pub name: String,
}

/// A document that was read.
#[derive(Clone, Debug)]
pub struct Document {
    pub identity: Identity,
    /// Of the file.
    pub line: usize,
    /// As `metadata` has it, in seconds since 1970.
    pub created: i64,
    /// `None`: a kind that is not ours.
    pub spec: Option<Result<Spec, Vec<String>>>,
}

/// The documents of a file. One that is no YAML does not take the others with it.
pub fn read(text: &str) -> Vec<Document> {
    let mut documents = Vec::new();
    for (line, text) in split(text) {
        if let Some(document) = one(line, text) {
            documents.push(document);
        }
    }
    documents
}

/// At lines that are `---`; each part with the number of its first line.
fn split(text: &str) -> Vec<(usize, &str)> {
    let (mut parts, mut start, mut line) = (Vec::new(), 0, 1);
    let (mut at, mut number) = (0, 1);
    for row in text.split_inclusive('\n') {
        let next = at + row.len();
        if row.trim_end() == "---" || row.starts_with("--- ") {
            parts.push((line, text.get(start..at).unwrap_or_default()));
            (start, line) = (next, number + 1);
        }
        (at, number) = (next, number + 1);
    }
    parts.push((line, text.get(start..).unwrap_or_default()));
    parts
}

/// `None` for what is empty.
fn one(line: usize, text: &str) -> Option<Document> {
    let value: Value = match serde_yaml::from_str(text) {
        Ok(Value::Null) => return None,
        Ok(value) => value,
        Err(error) => {
            let problem = located(line, &error);
            return Some(Document { identity: Identity::default(), line, created: 0, spec: Some(Err(vec![problem])) });
        }
    };
    let word = |value: Option<&Value>| value.and_then(Value::as_str).unwrap_or_default().to_owned();
    let metadata = value.get("metadata");
    let identity = Identity {
        kind: word(value.get("kind")),
        namespace: word(metadata.and_then(|metadata| metadata.get("namespace"))),
        name: word(metadata.and_then(|metadata| metadata.get("name"))),
    };
    let created = word(metadata.and_then(|metadata| metadata.get("creationTimestamp")));
    let version = word(value.get("apiVersion"));
    let spec = match version.split_once('/') {
        Some((crds::GROUP, crds::VERSION)) => Some(spec(&identity, line, text)),
        Some((crds::GROUP, other)) => Some(Err(vec![format!(
            "apiVersion: `{other}` is not known here; write `{}/{}`",
            crds::GROUP,
            crds::VERSION
        )])),
        _ => None,
    };
    Some(Document { identity, line, created: seconds(&created), spec })
}

fn spec(identity: &Identity, line: usize, text: &str) -> Result<Spec, Vec<String>> {
    if identity.name.is_empty() {
        return Err(vec!["metadata.name: is missing; every resource has a name".into()]);
    }
    let namespaced = identity.kind != MESH_TRACING;
    if namespaced && identity.namespace.is_empty() {
        return Err(vec!["metadata.namespace: is missing; a folder has no namespace of its own".into()]);
    }
    match identity.kind.as_str() {
        MESH_TRACING => {
            parsed(line, text, Spec::MeshTracing, |spec| crds::problems::mesh_tracing(&identity.name, spec))
        }
        "SamplingPolicy" => {
            parsed(line, text, Spec::SamplingPolicy, |spec| crds::problems::sampling_policy(&identity.namespace, spec))
        }
        "SpanPolicy" => {
            parsed(line, text, Spec::SpanPolicy, |spec| crds::problems::span_policy(&identity.namespace, spec))
        }
        "TraceCapture" => {
            parsed(line, text, Spec::TraceCapture, |spec| crds::problems::trace_capture(&identity.namespace, spec))
        }
        other => Err(vec![format!(
            "kind: `{other}` is not known here; there are MeshTracing, SamplingPolicy, SpanPolicy and TraceCapture"
        )]),
    }
}

/// A resource as far as a folder has one. What an API server writes besides is let be.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written<S> {
    #[serde(rename = "apiVersion")]
    _api_version: String,
    #[serde(rename = "kind")]
    _kind: String,
    #[serde(rename = "metadata")]
    _metadata: Value,
    spec: S,
    #[serde(rename = "status", default)]
    _status: Value,
}

fn parsed<S: DeserializeOwned>(
    line: usize,
    text: &str,
    wrap: fn(S) -> Spec,
    problems: impl FnOnce(&S) -> Vec<Problem>,
) -> Result<Spec, Vec<String>> {
    let written: Written<S> = serde_yaml::from_str(text).map_err(|error| vec![located(line, &error)])?;
    let problems = problems(&written.spec);
    if problems.is_empty() {
        return Ok(wrap(written.spec));
    }
    let lines = super::dir::Lines::new(text);
    Err(problems
        .iter()
        .map(|problem| match lines.of(&problem.path) {
            Some(row) => format!("line {}: {}: {}", line - 1 + row, problem.path, problem.message),
            None => format!("{}: {}", problem.path, problem.message),
        })
        .collect())
}

/// The parser counts the lines of its document.
fn located(first: usize, error: &serde_yaml::Error) -> String {
    let text = error.to_string();
    match error.location() {
        Some(at) => {
            let place = format!(" at line {} column {}", at.line(), at.column());
            let text = text.replace(&place, "");
            format!("line {}: {text}", first - 1 + at.line())
        }
        None => format!("line {first}: {text}"),
    }
}

/// `2026-01-02T03:04:05Z`. What is written otherwise is as old as can be.
pub fn seconds(text: &str) -> i64 {
    let number = |from: usize, to: usize| text.get(from..to).and_then(|digits| digits.parse::<i64>().ok());
    let parts = (number(0, 4), number(5, 7), number(8, 10), number(11, 13), number(14, 16), number(17, 19));
    let (Some(year), Some(month), Some(day), Some(hour), Some(minute), Some(second)) = parts else { return 0 };
    // Days since 1970 of the proleptic Gregorian calendar, whose years begin in March here.
    let (year, month) = if month <= 2 { (year - 1, month + 9) } else { (year, month - 3) };
    let day_of_year = (153 * month + 2) / 5 + day - 1;
    let days = 365 * year + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400) + day_of_year - 719_468;
    days * 86_400 + hour * 3_600 + minute * 60 + second
}

/// The other way round.
pub fn written(seconds: i64) -> String {
    let (days, rest) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let (month, later) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    let year = year_of_era + era * 400 + later;
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z", rest / 3_600, rest / 60 % 60, rest % 60)
}

const MESH_TRACING: &str = "MeshTracing";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_are_told_apart_and_one_that_is_no_yaml_spares_the_others() {
        let text = "a: 1\n---\n# nothing\n---\nb: [\n---\nkind: Service\nmetadata: {name: x, namespace: y}\n";
        let read = read(text);
        let lines: Vec<_> = read.iter().map(|document| document.line).collect();
        assert_eq!(lines, [1, 5, 7]);
        assert!(matches!(&read[1].spec, Some(Err(problems)) if problems[0].starts_with("line ")), "{:?}", read[1]);
        assert!(read[2].spec.is_none());
        assert_eq!((read[2].identity.name.as_str(), read[2].identity.namespace.as_str()), ("x", "y"));
    }

    #[test]
    fn times_are_seconds_since_1970() {
        for (text, expected) in [
            ("1970-01-01T00:00:00Z", 0),
            ("2000-03-01T00:00:01Z", 951_868_801),
            ("2024-02-29T12:00:00Z", 1_709_208_000),
            ("yesterday", 0),
            ("", 0),
        ] {
            assert_eq!(seconds(text), expected, "{text}");
            assert!(text.len() < 20 || written(expected) == text, "{text}");
        }
    }
}
