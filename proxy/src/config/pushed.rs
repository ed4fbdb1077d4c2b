//! Policy as a control plane pushes it, in the words of the file: what is pushed is read by the same grammar and held to the
//! same bounds, and refused by the name of the field.

use spanmesh_proto::v1;

use super::exporter::{self, Variables};
use super::grammar::Rate;
use super::policy::find_variables;
use super::reader::Reader;
use super::schema::Form;
use super::tree::Tree;
use super::validate;
use super::{Adaptive, KeepOn, Match, Policy, RateLimit, Trust};

/// What is pushed besides rules for sampling.
#[derive(Clone, Debug, PartialEq)]
pub struct Pushed {
    /// Without `sampling`.
    pub policy: Policy,
    /// Of gateways' listeners.
    pub trust: Option<Trust>,
    /// `None`: as usual; `Some(None)`: off.
    pub guard: Option<Option<f64>>,
}

pub fn policy(message: &v1::Policy, environment: &[(String, String)]) -> Result<Pushed, String> {
    let v1::Policy { sampling: _, propagation, redaction, attributes, destinations, untraced, edge, guard } = message;
    let mut fields = Vec::new();
    if let Some(propagation) = propagation {
        fields.push(entry("propagation", self::propagation(propagation)));
    }
    if let Some(redaction) = redaction {
        fields.push(entry("redaction", self::redaction(redaction)));
    }
    if let Some(untraced) = untraced {
        fields.push(entry("untraced", words(&untraced.kinds)));
    }
    fields.push(entry("attributes", Tree::List(attributes.iter().map(attribute).collect())));
    let mut variables = Variables::new(environment);
    let delivery = exporter::delivery(&mut variables);
    variables.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
    let destinations = destinations.iter().map(|message| destination(message, &delivery));
    fields.push(entry("destinations", Tree::List(destinations.collect())));
    let mut policy = read::<Policy>(&Tree::Map(fields))?;
    let mut reader = Reader::default();
    validate::policy(&mut reader, &policy);
    told(reader)?;
    for warning in find_variables(&mut policy, environment) {
        tracing::warn!("{warning}");
    }
    let trust = edge.as_ref().map(|edge| read::<Trust>(&Tree::text(edge.trust.clone()))).transpose()?;
    let guard = guard.as_ref().map(|guard| match guard.spans_per_second {
        0.0 => Ok(None),
        rate => read::<Rate>(&Tree::Fraction(rate)).map(Some),
    });
    Ok(Pushed { policy, trust, guard: guard.transpose()? })
}

pub fn matches(message: &v1::Match) -> Result<Match, String> {
    let v1::Match { method, path, host, route, headers, grpc_service, grpc_method, source, destination, baggage } =
        message;
    let mut fields = said([("method", method), ("host", host), ("route", route)]);
    if let Some(v1::PathMatch { path: Some(path) }) = path {
        use v1::path_match::Path;
        let (kind, value) = match path {
            Path::Exact(value) => ("Exact", value),
            Path::Prefix(value) => ("Prefix", value),
            Path::Template(value) => ("Template", value),
        };
        fields.push(entry("path", map([("type", Tree::text(kind)), ("value", Tree::text(value.clone()))])));
    }
    let grpc = said([("service", grpc_service), ("method", grpc_method)]);
    if !grpc.is_empty() {
        fields.push(entry("grpc", Tree::Map(grpc)));
    }
    for (name, party) in [("source", source), ("destination", destination)] {
        if let Some(party) = party {
            let party = said([("service", &party.service), ("namespace", &party.namespace)]);
            fields.push(entry(name, Tree::Map(party)));
        }
    }
    for (name, list) in [("headers", headers), ("baggage", baggage)] {
        let field = |field: &v1::Field| {
            let mut entries = vec![entry("name", Tree::text(field.name.clone()))];
            entries.extend(field.value.clone().map(|value| entry("value", Tree::text(value))));
            Tree::Map(entries)
        };
        fields.push(entry(name, Tree::List(list.iter().map(field).collect())));
    }
    read::<Match>(&Tree::Map(fields))
}

pub fn rate_limit(message: &v1::RateLimit) -> Result<RateLimit, String> {
    read::<RateLimit>(&map([
        ("tracesPerSecond", Tree::Fraction(message.traces_per_second)),
        ("burst", Tree::Number(message.burst.max(1).into())),
        ("perProxy", Tree::Bool(message.per_proxy)),
    ]))
}

pub fn adaptive(message: &v1::Adaptive) -> Result<Adaptive, String> {
    read::<Adaptive>(&map([
        ("spansPerSecond", Tree::Fraction(message.spans_per_second)),
        ("minTracesPerMinute", Tree::Fraction(message.min_traces_per_minute)),
        ("minProbability", Tree::text(message.min_probability.to_string())),
    ]))
}

/// All that is asked; at least one must hold.
pub fn keep_on(message: &v1::Keep) -> Result<Vec<KeepOn>, String> {
    let mut trees = Vec::new();
    if message.errors {
        trees.push(map([("errors", Tree::Map(Vec::new()))]));
    }
    if message.grpc_errors {
        trees.push(map([("grpcStatus", Tree::text("Default"))]));
    }
    if !message.http_status.is_empty() {
        let range = |range: &v1::StatusRange| Tree::text(format!("{}-{}", range.first, range.last));
        trees.push(map([("httpStatus", Tree::List(message.http_status.iter().map(range).collect()))]));
    }
    if !message.response_flags.is_empty() {
        trees.push(map([("responseFlags", words(&message.response_flags))]));
    }
    if message.latency > 0 {
        // The file counts in milliseconds at least.
        let threshold = Tree::text(format!("{}ms", message.latency.div_ceil(1000)));
        trees.push(map([("latency", map([("threshold", threshold)]))]));
    }
    if message.retries > 0 {
        trees.push(map([("retries", map([("min", Tree::Number(message.retries.into()))]))]));
    }
    if trees.is_empty() {
        return Err("asks for nothing that this version knows".into());
    }
    trees.iter().map(read::<KeepOn>).collect()
}

fn propagation(message: &v1::Propagation) -> Tree {
    let mut fields = vec![
        entry("extract", words(&message.extract)),
        entry("inject", words(&message.inject)),
        entry("clear", words(&message.clear)),
        entry("strangerBaggage", words(&message.stranger_baggage)),
    ];
    if !message.mesh.is_empty() {
        fields.push(entry("mesh", words(&message.mesh)));
    }
    for (name, flag) in [
        ("normalise", message.normalise),
        ("baggage", message.baggage),
        ("outsideBaggage", message.outside_baggage),
        ("inferParent", message.infer_parent),
        ("requestId", message.request_id),
    ] {
        fields.extend(flag.map(|flag| entry(name, Tree::Bool(flag))));
    }
    Tree::Map(fields)
}

fn redaction(message: &v1::Redaction) -> Tree {
    let mut fields = vec![entry("query", words(&message.query))];
    fields.extend(message.patterns.as_ref().map(|patterns| entry("patterns", words(&patterns.names))));
    fields.extend(said([("hashKeyFile", &message.hash_key_file)]));
    Tree::Map(fields)
}

fn attribute(message: &v1::Attribute) -> Tree {
    use v1::attribute::From;
    let mut fields = said([("name", &message.name)]);
    let from = message.from.as_ref().map(|from| match from {
        From::RequestHeader(text) => ("requestHeader", text),
        From::ResponseHeader(text) => ("responseHeader", text),
        From::Baggage(text) => ("baggage", text),
        From::Variable(text) => ("variable", text),
        From::Value(text) => ("value", text),
    });
    fields.extend(from.map(|(name, text)| entry(name, Tree::text(text.clone()))));
    Tree::Map(fields)
}

/// Where spans go is pushed; how they are gathered is the proxy's own matter.
fn destination(message: &v1::Destination, delivery: &[(String, Tree)]) -> Tree {
    use v1::destination::To;
    let mut fields = vec![entry("name", Tree::text(message.name.clone()))];
    if !delivery.is_empty() && !matches!(message.to, Some(To::Stdout(_) | To::File(_))) {
        fields.push(entry("delivery", Tree::Map(delivery.to_vec())));
    }
    let compression = |gzip: bool| ("compression", Tree::text(if gzip { "gzip" } else { "none" }));
    let endpoint = |endpoint: &String| ("endpoint", Tree::text(endpoint.clone()));
    let to = message.to.as_ref().map(|to| match to {
        To::OtlpGrpc(to) => {
            ("otlpGrpc", receiver([endpoint(&to.endpoint), compression(to.gzip)], &to.headers, to.tls.as_ref()))
        }
        To::OtlpHttp(to) => {
            let encoding = ("encoding", Tree::text(if to.json { "json" } else { "protobuf" }));
            let fields = [endpoint(&to.endpoint), compression(to.gzip), encoding];
            ("otlpHttp", receiver(fields, &to.headers, to.tls.as_ref()))
        }
        To::Zipkin(to) => {
            ("zipkin", receiver([endpoint(&to.endpoint), compression(to.gzip)], &to.headers, to.tls.as_ref()))
        }
        To::Stdout(_) => ("stdout", Tree::Map(Vec::new())),
        To::File(path) => ("file", map([("path", Tree::text(path.clone()))])),
    });
    fields.extend(to.map(|(name, tree)| entry(name, tree)));
    let only = [("namespaces", &message.namespaces), ("services", &message.services)];
    fields.push(entry("only", map(only.map(|(name, list)| (name, words(list))))));
    Tree::Map(fields)
}

fn receiver<const N: usize>(fields: [(&str, Tree); N], headers: &[v1::Header], tls: Option<&v1::Tls>) -> Tree {
    let header = |header: &v1::Header| {
        use v1::header::From;
        let mut fields = vec![entry("name", Tree::text(header.name.clone()))];
        let from = header.from.as_ref().map(|from| match from {
            From::Value(text) => ("value", text),
            From::Variable(text) => ("variable", text),
            From::File(text) => ("file", text),
        });
        fields.extend(from.map(|(name, text)| entry(name, Tree::text(text.clone()))));
        Tree::Map(fields)
    };
    let mut fields: Vec<_> = fields.into_iter().map(|(name, tree)| entry(name, tree)).collect();
    fields.push(entry("headers", Tree::List(headers.iter().map(header).collect())));
    fields.extend(
        tls.map(|tls| entry("tls", Tree::Map(said([("rootFile", &tls.root_file), ("serverName", &tls.server_name)])))),
    );
    Tree::Map(fields)
}

fn read<F: Form>(tree: &Tree) -> Result<F::Plain, String> {
    let mut reader = Reader::default();
    let plain = F::read(&mut reader, tree);
    told(reader)?;
    plain.ok_or_else(|| "cannot be read".into())
}

/// The first thing that is wrong.
fn told(reader: Reader) -> Result<(), String> {
    let (findings, unsaid) = reader.finish();
    let Some(first) = findings.first() else { return Ok(()) };
    let more = findings.len() + unsaid - 1;
    let rest = if more > 0 { format!(" (and {more} more)") } else { String::new() };
    let place = first.path.to_string();
    let colon = if place.is_empty() { "" } else { ": " };
    Err(format!("{place}{colon}{}; {}{rest}", first.wrong, first.right))
}

fn entry(name: &str, tree: Tree) -> (String, Tree) {
    (name.to_owned(), tree)
}

fn map<const N: usize>(fields: [(&str, Tree); N]) -> Tree {
    Tree::Map(fields.into_iter().map(|(name, tree)| entry(name, tree)).collect())
}

fn words(words: &[String]) -> Tree {
    Tree::List(words.iter().map(|word| Tree::text(word.clone())).collect())
}

/// Those that are not empty.
fn said<const N: usize>(fields: [(&str, &String); N]) -> Vec<(String, Tree)> {
    let said = fields.into_iter().filter(|(_, text)| !text.is_empty());
    said.map(|(name, text)| entry(name, Tree::text(text.clone()))).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn how_spans_are_gathered_is_said_by_the_proxys_own_environment() {
        let to = v1::destination::To::OtlpHttp(v1::OtlpHttp {
            endpoint: "http://127.0.0.1:4318".into(),
            ..v1::OtlpHttp::default()
        });
        let destination = v1::Destination { name: "a".into(), to: Some(to), ..v1::Destination::default() };
        let message = v1::Policy { destinations: vec![destination], ..v1::Policy::default() };
        let age = |environment: &[(&str, &str)]| {
            let environment: Vec<_> =
                environment.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
            let pushed = policy(&message, &environment).expect("a policy");
            pushed.policy.destinations[0].delivery.age
        };
        assert_eq!(age(&[]), Duration::from_secs(5));
        assert_eq!(age(&[("OTEL_BSP_SCHEDULE_DELAY", "200")]), Duration::from_millis(200));
        // What is invalid there is ignored, as everywhere.
        assert_eq!(age(&[("OTEL_BSP_SCHEDULE_DELAY", "soon")]), Duration::from_secs(5));
    }
}
