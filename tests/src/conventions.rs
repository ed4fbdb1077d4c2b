//! Holds spans against the conventions' own registry: names, types, stability and requirement levels come from a table
//! that `tests/conventions.py` writes. Every span that a proxy of the tests wrote is checked (`proxy`), whatever its
//! test looks at. What a table cannot say, when a condition holds, stands here.

mod table;

use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::trace::v1::Span;

pub use table::VERSION;

/// What a span breaks, in sentences; nothing for one that is right.
pub fn violations(span: &Span) -> Vec<String> {
    let read = Read { span, group: Group::of(span), found: Vec::new() };
    read.all()
}

/// What a resource breaks.
pub fn of_resource(attributes: &[KeyValue]) -> Vec<String> {
    attributes.iter().filter_map(|attribute| registered(attribute).err()).collect()
}

/// One attribute of the registry.
struct Attribute {
    name: &'static str,
    of: Type,
    /// Stands for all names below it.
    template: bool,
    stability: Stability,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Type {
    Text,
    Int,
    Bool,
    Texts,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stability {
    Stable,
    Candidate,
    Development,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Level {
    Required,
    ConditionallyRequired,
    Recommended,
    OptIn,
}

/// Which of the conventions' spans one is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Group {
    Http,
    Rpc,
    Bytes,
}

impl Group {
    fn of(span: &Span) -> Self {
        let has = |key: &str| span.attributes.iter().any(|attribute| attribute.key == key);
        match () {
            () if has("rpc.system.name") => Group::Rpc,
            () if span.name == "TCP" => Group::Bytes,
            () => Group::Http,
        }
    }

    fn levels(self, client: bool) -> &'static [(&'static str, Level)] {
        match (self, client) {
            (Group::Http, true) => table::HTTP_CLIENT,
            (Group::Http, false) => table::HTTP_SERVER,
            (Group::Rpc, true) => table::RPC_CLIENT,
            (Group::Rpc, false) => table::RPC_SERVER,
            (Group::Bytes, _) => BYTES,
        }
    }
}

struct Read<'a> {
    span: &'a Span,
    group: Group,
    found: Vec<String>,
}

impl<'a> Read<'a> {
    fn all(mut self) -> Vec<String> {
        let span = self.span;
        if span.kind == INTERNAL && self.value("spanmesh.interim").is_some() {
            // A report of another span, in nobody's words but ours.
            let ours = |attribute: &KeyValue| attribute.key.starts_with("spanmesh.");
            self.check(span.attributes.iter().all(ours), || "reports what its parent tells".into());
            return self.found;
        }
        self.check(matches!(span.kind, SERVER | CLIENT), || format!("is of kind {}", span.kind));
        let levels = self.group.levels(span.kind == CLIENT);
        for (place, attribute) in span.attributes.iter().enumerate() {
            let key = attribute.key.as_str();
            let twice = span.attributes.iter().take(place).any(|before| before.key == key);
            self.check(!twice, || format!("has {key} twice"));
            self.attribute(attribute, levels);
        }
        for (key, level) in levels {
            let required = match level {
                Level::Required => Some(true),
                Level::ConditionallyRequired => self.condition(key),
                Level::Recommended | Level::OptIn => None,
            };
            if let Some(required) = required {
                let has = self.value(key).is_some();
                self.check(has == required, || match required {
                    true => format!("lacks {key}, which is {level:?}"),
                    false => format!("has {key}, whose condition does not hold"),
                });
            }
        }
        self.name_and_status();
        self.found
    }

    fn attribute(&mut self, attribute: &KeyValue, levels: &[(&str, Level)]) {
        let key = attribute.key.as_str();
        if key.starts_with("spanmesh.") || key.starts_with(CONFIGURED) || OTHERS.contains(&key) {
            return;
        }
        match registered(attribute) {
            Err(violation) => self.found.push(violation),
            Ok(known) => {
                let group = self.group;
                let belongs = levels.iter().any(|(name, _)| *name == known.name)
                    || group == Group::Rpc && known.name == "rpc.system.name"
                    || group == Group::Http && UNSTABLE.contains(&known.name);
                self.check(belongs, || format!("has {key}, which is none of {group:?}'s"));
                let stable = known.stability == Stability::Stable
                    || group == Group::Rpc && known.stability == Stability::Candidate
                    || UNSTABLE.contains(&known.name);
                self.check(stable, || format!("has {key}, which is not stable: {:?}", known.stability));
            }
        }
    }

    /// Whether the condition of a requirement holds, where the span itself tells.
    fn condition(&self, key: &str) -> Option<bool> {
        let failed = self.span.status.as_ref().is_some_and(|status| status.code == ERROR);
        match key {
            "error.type" => Some(failed),
            "http.request.method_original" => Some(self.text("http.request.method") == Some("_OTHER")),
            "rpc.method_original" => Some(self.text("rpc.method") == Some("_OTHER")),
            "http.route" => Some(self.text("spanmesh.route.source") == Some("configured")),
            // Received, unless the call broke before. Nobody is asked over HTTP where a tunnel begins.
            "http.response.status_code" if self.text("spanmesh.response.flag") == Some("ok") => {
                self.value("network.protocol.version").is_some().then_some(true)
            }
            "server.port" => Some(self.value("server.address").is_some()),
            "rpc.method" | "server.address" => Some(true),
            // HTTP is all that is spoken.
            "network.protocol.name" => Some(false),
            _ => None,
        }
    }

    fn name_and_status(&mut self) {
        let span = self.span;
        let client = span.kind == CLIENT;
        let method = match self.text("http.request.method") {
            Some("_OTHER") => "HTTP",
            other => other.unwrap_or_default(),
        };
        let target = self.text(if client { "url.template" } else { "http.route" }).or(self.text("url.template"));
        let expected = match (self.group, target) {
            (Group::Bytes, _) => "TCP".to_owned(),
            (Group::Rpc, _) => match self.text("rpc.method") {
                None | Some("_OTHER") => "grpc".to_owned(),
                Some(method) => method.to_owned(),
            },
            (Group::Http, Some(target)) => format!("{method} {target}"),
            (Group::Http, None) => method.to_owned(),
        };
        self.check(span.name == expected, || format!("is named {:?} and not {expected:?}", span.name));
        let failed = span.status.as_ref().is_some_and(|status| status.code == ERROR);
        if let Some(Value::IntValue(status)) = self.value("http.response.status_code") {
            let (known, bad) = ((100..=599).contains(status), *status >= if client { 400 } else { 500 });
            self.check(known, || format!("has the status {status}"));
            self.check(failed || !bad, || format!("is no error with the status {status}"));
        }
        if let Some(status) = self.text("rpc.response.status_code") {
            let bad = if client { status != "OK" } else { SERVER_ERRORS.contains(&status) };
            self.check(failed || !bad, || format!("is no error with the status {status}"));
        }
        self.check(span.end_time_unix_nano >= span.start_time_unix_nano, || "ends before it starts".into());
    }

    fn value(&self, key: &str) -> Option<&'a Value> {
        let attribute = self.span.attributes.iter().find(|attribute| attribute.key == key)?;
        attribute.value.as_ref()?.value.as_ref()
    }

    fn text(&self, key: &str) -> Option<&'a str> {
        match self.value(key)? {
            Value::StringValue(text) => Some(text),
            _ => None,
        }
    }

    fn check(&mut self, holds: bool, violation: impl FnOnce() -> String) {
        if !holds {
            self.found.push(violation());
        }
    }
}

/// The registry's entry of an attribute, if it has the right type.
fn registered(attribute: &KeyValue) -> Result<&'static Attribute, String> {
    let key = attribute.key.as_str();
    let fits = |known: &&Attribute| match known.template {
        true => key.strip_prefix(known.name).is_some_and(|rest| rest.len() > 1 && rest.starts_with('.')),
        false => key == known.name,
    };
    let known = table::ATTRIBUTES.iter().find(fits).ok_or_else(|| format!("has {key}, which is in no registry"))?;
    match attribute.value.as_ref().and_then(|value| value.value.as_ref()) {
        Some(value) if is(known.of, value) => Ok(known),
        value => Err(format!("has {key} = {value:?}, which is no {:?}", known.of)),
    }
}

fn is(of: Type, value: &Value) -> bool {
    let is_text = |value: &AnyValue| matches!(value.value, Some(Value::StringValue(_)));
    match (of, value) {
        (Type::Text, Value::StringValue(_)) | (Type::Int, Value::IntValue(_)) | (Type::Bool, Value::BoolValue(_)) => {
            true
        }
        (Type::Texts, Value::ArrayValue(list)) => list.values.iter().all(is_text),
        (Type::Text | Type::Int | Type::Bool | Type::Texts, _) => false,
    }
}

/// The conventions have no span for bytes; these are their words for connections.
const BYTES: &[(&str, Level)] = &[
    ("error.type", Level::ConditionallyRequired),
    ("network.transport", Level::Required),
    ("network.peer.address", Level::Recommended),
    ("network.peer.port", Level::Recommended),
    ("server.address", Level::Required),
    ("server.port", Level::ConditionallyRequired),
];
/// Names that other tools look for: Jaeger finds the trace that was asked for by this tag.
const OTHERS: &[&str] = &["jaeger-debug-id"];
/// The one that the conventions offer for a client's template and have not called stable yet. A server's learned template
/// stands there too, because `http.route` is for what somebody has configured. And what is told only where it was asked for.
const UNSTABLE: &[&str] = &["url.template", "rpc.request.metadata", "rpc.response.metadata"];
/// What tests call the attributes that they configure.
const CONFIGURED: &str = "test.";
const SERVER_ERRORS: &[&str] =
    &["UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"];
const INTERNAL: i32 = 1;
const SERVER: i32 = 2;
const CLIENT: i32 = 3;
const ERROR: i32 = 2;

#[cfg(test)]
mod tests {
    use opentelemetry_proto::tonic::trace::v1::Status;

    use super::*;

    fn text(text: &str) -> Value {
        Value::StringValue(text.into())
    }

    fn span(change: impl FnOnce(&mut Vec<(&'static str, Value)>, &mut Span)) -> Vec<String> {
        let mut attributes = vec![
            ("http.request.method", text("GET")),
            ("url.path", text("/")),
            ("url.scheme", text("http")),
            ("http.response.status_code", Value::IntValue(200)),
            ("spanmesh.response.flag", text("ok")),
        ];
        let mut span = Span { name: "GET".into(), kind: SERVER, ..Span::default() };
        change(&mut attributes, &mut span);
        span.attributes = attributes
            .into_iter()
            .map(|(key, value)| KeyValue {
                key: key.into(),
                value: Some(AnyValue { value: Some(value) }),
                ..KeyValue::default()
            })
            .collect();
        violations(&span)
    }

    #[test]
    fn a_span_that_is_right_breaks_nothing() {
        assert_eq!(span(|_, _| {}), [""; 0]);
    }

    #[test]
    fn each_kind_of_violation_is_found() {
        for (added, found) in [
            (("http.status_code", Value::IntValue(200)), "has http.status_code, which is in no registry"),
            (("url.query", Value::IntValue(1)), "has url.query = Some(IntValue(1)), which is no Text"),
            (("url.full", text("x")), "has url.full, which is none of Http's"),
            (("http.request.size", Value::IntValue(1)), "has http.request.size, which is not stable: Development"),
            (("server.address", text("x")), "lacks server.port, which is ConditionallyRequired"),
            (("error.type", text("x")), "has error.type, whose condition does not hold"),
            (("url.path", text("/")), "has url.path twice"),
            (("spanmesh.route.source", text("configured")), "lacks http.route, which is ConditionallyRequired"),
        ] {
            assert_eq!(span(|attributes, _| attributes.push(added)), [found]);
        }
        assert_eq!(span(|attributes, _| drop(attributes.remove(2))), ["lacks url.scheme, which is Required"]);
        let unanswered = |attributes: &mut Vec<_>, _: &mut Span| {
            attributes[3] = ("network.protocol.version", text("2"));
        };
        assert_eq!(span(unanswered), ["lacks http.response.status_code, which is ConditionallyRequired"]);
        assert_eq!(span(|_, span| span.name = "GET /".into()), ["is named \"GET /\" and not \"GET\""]);
        assert_eq!(span(|_, span| span.kind = 0), ["is of kind 0"]);
        let failed = |_: &mut Vec<_>, span: &mut Span| {
            span.status = Some(Status { code: ERROR, ..Status::default() });
        };
        assert_eq!(span(failed), ["lacks error.type, which is ConditionallyRequired"]);
        let refused = |attributes: &mut Vec<(&str, Value)>, _: &mut Span| {
            attributes[3].1 = Value::IntValue(500);
        };
        assert_eq!(span(refused), ["is no error with the status 500"]);
    }

    #[test]
    fn headers_are_lists_below_their_template() {
        let list = Value::ArrayValue(Default::default());
        assert_eq!(span(|attributes, _| attributes.push(("http.request.header.x", list.clone()))), [""; 0]);
        assert_eq!(span(|attributes, _| attributes.push(("http.request.header.", list))).len(), 1);
    }
}
