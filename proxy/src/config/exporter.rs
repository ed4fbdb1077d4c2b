//! What the standard variables of OpenTelemetry say of where spans go, for a file that has no `policy.destinations`: one
//! destination `otel`.
//!
//! They are shared with the application and follow its specification ("Environment Variable Specification", "OTLP
//! Exporter Configuration"): what is invalid there is warned about and ignored, never refused.

use super::grammar::{Endpoint, FieldName};
use super::otel::attributes;
use super::reader::Reader;
use super::schema::{Form, entry};
use super::tree::{FieldPath, Step, Tree};
use super::variables::{Origins, set};

/// Adds the destination and returns the warnings.
pub fn fill(tree: &mut Tree, environment: &[(String, String)], origins: &mut Origins) -> Vec<String> {
    if !is_open(tree, "destinations") {
        return Vec::new();
    }
    let mut found = Variables::new(environment);
    if let Some((name, destination)) = destination(&mut found) {
        let path = FieldPath(vec![Step::Field("policy".into()), Step::Field("destinations".into())]);
        if set(tree, &path.0, Tree::List(vec![destination])).is_ok() {
            origins.note(path, &name);
        }
    }
    found.warnings
}

/// The file says nothing of this part of the policy, and has no control plane that would.
pub(super) fn is_open(tree: &Tree, part: &str) -> bool {
    let Tree::Map(entries) = tree else { return false };
    match (entry(entries, "policy"), entry(entries, "controlPlane")) {
        (_, Some(_)) => false,
        (None, None) => true,
        (Some(Tree::Map(policy)), None) => entry(policy, part).is_none(),
        (Some(_), None) => false,
    }
}

pub(super) struct Variables<'a> {
    environment: &'a [(String, String)],
    pub warnings: Vec<String>,
}

impl<'a> Variables<'a> {
    pub fn new(environment: &'a [(String, String)]) -> Self {
        Self { environment, warnings: Vec::new() }
    }

    /// An empty value counts as unset.
    pub fn value(&self, name: &str) -> Option<(&'a str, &'a str)> {
        let found = self.environment.iter().find(|(known, value)| known == name && !value.trim().is_empty());
        found.map(|(name, value)| (name.as_str(), value.trim()))
    }

    /// The variable for traces wins over the general one.
    fn otlp(&self, what: &str) -> Option<(&'a str, &'a str)> {
        self.value(&format!("OTEL_EXPORTER_OTLP_TRACES_{what}"))
            .or_else(|| self.value(&format!("OTEL_EXPORTER_OTLP_{what}")))
    }

    pub fn ignore(&mut self, name: &str, right: &str) {
        self.warnings.push(format!("{name}: its value is not used; write {right}"));
    }

    fn number(&mut self, found: Option<(&'a str, &'a str)>, range: std::ops::RangeInclusive<u64>) -> Option<u64> {
        let (name, text) = found?;
        match text.parse() {
            Ok(number) if range.contains(&number) => Some(number),
            _ => {
                self.ignore(name, &format!("a whole number from {} to {}", range.start(), range.end()));
                None
            }
        }
    }
}

/// The name of the variable that asks for it, and the destination.
fn destination(found: &mut Variables) -> Option<(String, Tree)> {
    if found.value("OTEL_SDK_DISABLED").is_some_and(|(_, value)| value.eq_ignore_ascii_case("true")) {
        return None;
    }
    let asked = found.value("OTEL_TRACES_EXPORTER");
    match asked {
        Some((_, "none")) => return None,
        Some((name, "console")) => {
            return Some((name.to_owned(), named(("stdout", Tree::Map(Vec::new())), Vec::new())));
        }
        Some((_, "otlp")) | None => {}
        Some((name, _)) => {
            found.ignore(name, "`otlp`, `console` or `none`");
            return None;
        }
    }
    let (by, of_traces) = match (found.value(TRACES_ENDPOINT), found.value(ENDPOINT)) {
        (Some(found), _) => (Some(found), true),
        (None, general) => (general, false),
    };
    // Nobody asked for spans to be sent: the default of an SDK, a receiver on this host, is none of a proxy's.
    let name = by.or(asked)?.0.to_owned();
    let protocol = match found.otlp("PROTOCOL") {
        Some((_, protocol @ ("grpc" | "http/protobuf" | "http/json"))) => protocol,
        None => "http/protobuf",
        Some((name, _)) => {
            found.ignore(name, "`grpc`, `http/protobuf` or `http/json`");
            "http/protobuf"
        }
    };
    let is_grpc = protocol == "grpc";
    let usual = if is_grpc { "http://localhost:4317" } else { "http://localhost:4318" };
    let mut endpoint = by.map_or(usual.to_owned(), |(_, text)| text.to_owned());
    if is_grpc && !endpoint.contains("://") {
        let insecure = found.otlp("INSECURE").is_some_and(|(_, value)| value.eq_ignore_ascii_case("true"));
        endpoint = format!("{}://{endpoint}", if insecure { "http" } else { "https" });
    }
    let Some(read) = Endpoint::read(&mut Reader::default(), &Tree::text(&endpoint)) else {
        found.ignore(&name, "a URL such as `http://collector:4318`; no spans are sent");
        return None;
    };
    // gRPC has no path: one that was written for HTTP is left out.
    let endpoint = if is_grpc { Endpoint { path: String::new(), ..read.clone() }.to_string() } else { endpoint };
    let field = if of_traces && !is_grpc { "tracesEndpoint" } else { "endpoint" };
    let mut to = vec![(field.to_owned(), Tree::Text(endpoint))];
    if protocol == "http/json" {
        to.push(("encoding".into(), Tree::text("json")));
    }
    match found.otlp("COMPRESSION") {
        Some((_, compression @ ("gzip" | "none"))) => to.push(("compression".into(), Tree::text(compression))),
        Some((name, _)) => found.ignore(name, "`gzip` or `none`"),
        None => {}
    }
    if let Some(headers) = headers(found) {
        to.push(("headers".into(), headers));
    }
    if read.secure {
        let mut files = Vec::new();
        if let Some((_, path)) = found.otlp("CERTIFICATE") {
            files.push(("rootFile".to_owned(), Tree::text(path)));
        }
        match (found.otlp("CLIENT_CERTIFICATE"), found.otlp("CLIENT_KEY")) {
            (Some((_, cert)), Some((_, key))) => {
                files.extend([("cert".to_owned(), Tree::text(cert)), ("key".to_owned(), Tree::text(key))]);
            }
            (Some((name, _)), None) => found.ignore(name, "the key of this certificate into the variable for it too"),
            (None, Some((name, _))) => found.ignore(name, "the certificate of this key into the variable for it too"),
            (None, None) => {}
        }
        to.push(("tls".into(), Tree::Map(files)));
    }
    let delivery = delivery(found);
    Some((name, named((if is_grpc { "otlpGrpc" } else { "otlpHttp" }, Tree::Map(to)), delivery)))
}

/// How the variables say that spans are gathered and sent; also of destinations that a control plane names.
pub(super) fn delivery(found: &mut Variables) -> Vec<(String, Tree)> {
    let mut delivery = Vec::new();
    let timeout = found.number(found.otlp("TIMEOUT"), 1..=3_600_000);
    let age = found.number(found.value("OTEL_BSP_SCHEDULE_DELAY"), 1..=60_000);
    let give_up = found.number(found.value("OTEL_BSP_EXPORT_TIMEOUT"), 1..=86_400_000);
    for (field, milliseconds) in [("timeout", timeout), ("age", age), ("giveUp", give_up)] {
        if let Some(milliseconds) = milliseconds {
            delivery.push((field.to_owned(), Tree::Text(format!("{milliseconds}ms"))));
        }
    }
    if let Some(spans) = found.number(found.value("OTEL_BSP_MAX_EXPORT_BATCH_SIZE"), 1..=65_536) {
        delivery.push(("spans".into(), Tree::Number(spans.into())));
    }
    // Their queue counts spans, ours what they take of the memory.
    if let Some(spans) = found.number(found.value("OTEL_BSP_MAX_QUEUE_SIZE"), 2..=(1 << 30) / SPAN) {
        delivery.push(("queue".into(), Tree::Number((spans * SPAN).into())));
    }
    delivery
}

fn named((kind, to): (&str, Tree), delivery: Vec<(String, Tree)>) -> Tree {
    let mut entries = vec![("name".to_owned(), Tree::text("otel")), (kind.to_owned(), to)];
    if !delivery.is_empty() {
        entries.push(("delivery".to_owned(), Tree::Map(delivery)));
    }
    Tree::Map(entries)
}

fn headers(found: &mut Variables) -> Option<Tree> {
    let (name, text) = found.otlp("HEADERS")?;
    let Ok(pairs) = attributes(text) else {
        found.ignore(name, "`key=value,key=value` with `%XX` for other characters");
        return None;
    };
    let mut fields = Vec::new();
    for (key, value) in pairs {
        let mut reader = Reader::default();
        let is_plain = String::read(&mut reader, &Tree::text(&value)).is_some();
        if FieldName::read(&mut reader, &Tree::text(&key)).is_some() && is_plain {
            let entries = vec![("name".to_owned(), Tree::text(&key)), ("value".to_owned(), Tree::Text(value))];
            fields.push(Tree::Map(entries));
        } else {
            found.ignore(name, "names and values that a header may have");
        }
    }
    Some(Tree::List(fields))
}

/// Bytes of a usual span, and some to spare.
const SPAN: u64 = 512;
const ENDPOINT: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
const TRACES_ENDPOINT: &str = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT";

#[cfg(test)]
pub(super) mod tests {
    use super::super::{Compression, Config, Destination, OtlpEncoding, Target, parse};
    use super::*;

    pub fn read(text: &str, variables: &[(&str, &str)]) -> Config {
        let text = format!("version: 1\nrole: standalone\n{text}");
        let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        parse(&text, "test.yaml", variables).unwrap()
    }

    fn only(config: Config) -> Destination {
        assert_eq!(config.warnings, Vec::<String>::new());
        let [destination] = <[_; 1]>::try_from(config.policy.destinations).unwrap();
        destination
    }

    #[test]
    fn without_destinations_the_variables_say_where_spans_go() {
        let general = [
            (ENDPOINT, "https://a.example/x"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20t,x-a=b"),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json"),
            ("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip"),
            ("OTEL_EXPORTER_OTLP_CERTIFICATE", "ca.crt"),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "10"),
            ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "2000"),
            ("OTEL_BSP_SCHEDULE_DELAY", "100"),
            ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "64"),
            ("OTEL_BSP_MAX_QUEUE_SIZE", "2048"),
            ("OTEL_BSP_EXPORT_TIMEOUT", "30000"),
        ];
        let destination = only(read("", &general));
        let Target::OtlpHttp(to) = destination.to else { panic!("not HTTP") };
        assert_eq!(to.endpoint.unwrap().to_string(), "https://a.example:443/x");
        assert_eq!((to.encoding, to.compression), (OtlpEncoding::Json, Compression::Gzip));
        assert_eq!(to.headers[0].value.as_deref(), Some("Bearer t"));
        assert_eq!(to.tls.unwrap().root_file.unwrap().to_str(), Some("ca.crt"));
        assert_eq!((destination.delivery.timeout.as_millis(), destination.delivery.age.as_millis()), (2000, 100));
        assert_eq!(destination.delivery.spans, 64);
        assert_eq!((destination.delivery.queue, destination.delivery.give_up.as_secs()), (1 << 20, 30));

        let traces = only(read("", &[(ENDPOINT, "http://a"), (TRACES_ENDPOINT, "http://b:1/in")]));
        let Target::OtlpHttp(to) = traces.to else { panic!("not HTTP") };
        assert_eq!((to.endpoint, to.traces_endpoint.unwrap().to_string()), (None, "http://b:1/in".into()));
    }

    #[test]
    fn grpc_takes_an_endpoint_without_a_scheme() {
        for (endpoint, insecure, read_as) in [
            ("http://a:1/x", "", "http://a:1"),
            ("a:1", "true", "http://a:1"),
            ("a:1", "", "https://a:1"),
            ("https://a:1", "true", "https://a:1"),
        ] {
            let destination = only(read(
                "",
                &[
                    ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", endpoint),
                    ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
                    ("OTEL_EXPORTER_OTLP_INSECURE", insecure),
                ],
            ));
            let Target::OtlpGrpc(to) = destination.to else { panic!("not gRPC") };
            assert_eq!(to.endpoint.to_string(), read_as);
        }
    }

    #[test]
    fn the_exporter_is_chosen_by_name_and_the_file_wins() {
        let exporter = |name| read("", &[("OTEL_TRACES_EXPORTER", name)]).policy.destinations;
        assert_eq!(exporter("console")[0].to, Target::Stdout);
        assert!(matches!(&exporter("otlp")[0].to, Target::OtlpHttp(to) if to.endpoint.is_some()));
        assert!(exporter("none").is_empty() && exporter("").is_empty());
        assert!(read("", &[(ENDPOINT, "http://a"), ("OTEL_SDK_DISABLED", "TRUE")]).policy.destinations.is_empty());
        for file in ["policy: {destinations: []}", "policy: {destinations: [{name: a, stdout: {}}]}"] {
            let config = read(file, &[(ENDPOINT, "http://a")]);
            assert!(config.policy.destinations.iter().all(|destination| destination.to == Target::Stdout));
        }
    }

    #[test]
    fn a_client_has_a_certificate_with_its_key_or_none() {
        let of = |more: &[(&str, &str)]| read("", &[&[(ENDPOINT, "https://a")], more].concat());
        let cert = ("OTEL_EXPORTER_OTLP_TRACES_CLIENT_CERTIFICATE", "a.crt");
        let key = ("OTEL_EXPORTER_OTLP_CLIENT_KEY", "a.key");
        let Target::OtlpHttp(to) = only(of(&[cert, key])).to else { panic!("not HTTP") };
        let tls = to.tls.unwrap();
        assert!(tls.cert.is_some() && tls.key.is_some());
        for half in [cert, key] {
            let config = of(&[half]);
            assert_eq!(config.warnings.len(), 1);
            assert!(config.warnings[0].starts_with(half.0));
            let Target::OtlpHttp(to) = &config.policy.destinations[0].to else { panic!("not HTTP") };
            let tls = to.tls.as_ref().unwrap();
            assert!(tls.cert.is_none() && tls.key.is_none());
        }
    }

    #[test]
    fn what_is_invalid_is_warned_about_and_ignored() {
        for (name, value, destinations) in [
            ("OTEL_TRACES_EXPORTER", "jaeger", 0),
            (TRACES_ENDPOINT, "nowhere", 0),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "carrier pigeon", 1),
            ("OTEL_EXPORTER_OTLP_COMPRESSION", "zip", 1),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "soon", 1),
            ("OTEL_EXPORTER_OTLP_HEADERS", "host=x", 1),
            ("OTEL_EXPORTER_OTLP_HEADERS", "x", 1),
            ("OTEL_BSP_SCHEDULE_DELAY", "-1", 1),
            ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "0", 1),
            ("OTEL_BSP_MAX_QUEUE_SIZE", "1", 1),
            ("OTEL_BSP_EXPORT_TIMEOUT", "-1", 1),
        ] {
            let config = read("", &[(ENDPOINT, "http://a"), (name, value)]);
            assert_eq!((config.warnings.len(), config.policy.destinations.len()), (1, destinations), "{name}={value}");
            assert!(config.warnings[0].starts_with(name), "{:?}", config.warnings);
        }
    }
}
