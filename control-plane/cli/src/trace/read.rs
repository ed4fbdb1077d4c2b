//! Understands a trace in the JSON that others keep it in: OTLP (files of the proxy and of the OpenTelemetry Collector, one
//! request or one request a line), Tempo's answers, which are OTLP in a wrapper and with ids in base64, and Jaeger's.
//! It is lenient: what is missing is made up, a span without an id is left out and counted.

use serde_json::{Map, Value};
use spanmesh_proto::{SpanId, TraceId};

use super::span::{Kind, Span, plain, service};

/// What a text held.
#[derive(Debug, Default, PartialEq)]
pub struct Held {
    pub spans: Vec<Span>,
    /// Spans that cannot be used: without an id, or with one that is none.
    pub broken: usize,
}

/// Reads one JSON value, or several one after the other.
pub fn read(text: &str) -> Result<Held, String> {
    let mut held = Held::default();
    let mut known = false;
    for value in serde_json::Deserializer::from_str(text).into_iter::<Value>() {
        let value = value.map_err(|error| format!("is not JSON: {error}"))?;
        known |= document(&value, &mut held, 0);
    }
    match known {
        true => Ok(held),
        false => {
            Err("holds no spans in a known form: OTLP/JSON, or the answer of Tempo's or Jaeger's query API".into())
        }
    }
}

/// Whether it is a form that is known.
fn document(value: &Value, held: &mut Held, depth: usize) -> bool {
    if depth > DEPTH {
        return false;
    }
    match value {
        // An empty list is what Jaeger answers for a trace that it does not have.
        Value::Array(items) => {
            items.iter().fold(items.is_empty(), |known, item| document(item, held, depth + 1) | known)
        }
        Value::Object(fields) => {
            let list = |name: &str| fields.get(name).and_then(Value::as_array);
            if let Some(resources) =
                list("resourceSpans").or_else(|| list("resource_spans")).or_else(|| list("batches"))
            {
                resources.iter().for_each(|resource| otlp(resource, held));
                return true;
            }
            if let (Some(spans), Some(_)) = (list("spans"), fields.get("processes")) {
                jaeger(spans, fields, held);
                return true;
            }
            // Wrappers of Tempo, of Jaeger and of Jaeger's third version.
            let inner = ["trace", "data", "result"].iter().filter_map(|name| fields.get(*name));
            inner.fold(false, |known, inner| document(inner, held, depth + 1) | known)
        }
        _ => false,
    }
}

fn otlp(resource: &Value, held: &mut Held) {
    let own = attributes(&resource["resource"]["attributes"])
        .into_iter()
        .find(|(key, _)| key == "service.name")
        .map_or_else(|| UNKNOWN.to_owned(), |(_, value)| service(&plain(&value)));
    let scopes = ["scopeSpans", "scope_spans", "instrumentationLibrarySpans"];
    let scopes = scopes.iter().filter_map(|name| resource.get(*name)?.as_array()).flatten();
    for span in scopes.filter_map(|scope| scope.get("spans")?.as_array()).flatten() {
        match otlp_span(span, &own) {
            Some(span) => held.spans.push(span),
            None => held.broken += 1,
        }
    }
}

fn otlp_span(span: &Value, service: &str) -> Option<Span> {
    let field = |name: &str, other: &str| span.get(name).or_else(|| span.get(other));
    let id = |name, other| field(name, other).and_then(Value::as_str);
    let status = span.get("status").unwrap_or(&Value::Null);
    let failed = match &status["code"] {
        Value::Number(code) => code.as_i64() == Some(2),
        Value::String(code) => code.ends_with("ERROR"),
        _ => false,
    };
    let start = field("startTimeUnixNano", "start_time_unix_nano").and_then(number)?;
    let end = field("endTimeUnixNano", "end_time_unix_nano").and_then(number).unwrap_or(start);
    Some(Span {
        trace: TraceId::from_bytes(bytes(id("traceId", "trace_id")?)?)?,
        id: SpanId::from_bytes(bytes(id("spanId", "span_id")?)?)?,
        parent: id("parentSpanId", "parent_span_id").and_then(bytes).and_then(SpanId::from_bytes),
        service: service.to_owned(),
        name: span.get("name").and_then(Value::as_str).unwrap_or_default().to_owned(),
        kind: match span.get("kind") {
            Some(Value::String(word)) => Kind::of_word(word),
            Some(number) => Kind::of_number(number.as_i64().unwrap_or_default()),
            None => Kind::Internal,
        },
        start,
        end: end.max(start),
        failed: failed.then(|| status["message"].as_str().unwrap_or_default().to_owned()),
        attributes: span.get("attributes").map(attributes).unwrap_or_default(),
    })
}

fn attributes(list: &Value) -> Vec<(String, Value)> {
    let pair = |entry: &Value| {
        let value = entry.get("value")?.as_object()?;
        let (form, value) = value.iter().next()?;
        // OTLP/JSON writes 64 bits as text.
        let value = match form.as_str() {
            "intValue" | "int_value" => number(value).map_or_else(|| value.clone(), Value::from),
            _ => value.clone(),
        };
        Some((entry.get("key")?.as_str()?.to_owned(), value))
    };
    list.as_array().into_iter().flatten().filter_map(pair).collect()
}

fn jaeger(spans: &[Value], document: &Map<String, Value>, held: &mut Held) {
    let processes = document.get("processes").unwrap_or(&Value::Null);
    for span in spans {
        match jaeger_span(span, processes) {
            Some(span) => held.spans.push(span),
            None => held.broken += 1,
        }
    }
}

/// Times in microseconds, attributes as `tags`, the parent as a reference, ids of old clients without leading zeros.
fn jaeger_span(span: &Value, processes: &Value) -> Option<Span> {
    let text = |name: &str| span.get(name).and_then(Value::as_str);
    let process = match text("processID") {
        Some(id) => processes.get(id).unwrap_or(&Value::Null),
        None => span.get("process").unwrap_or(&Value::Null),
    };
    let attributes: Vec<(String, Value)> = span
        .get("tags")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(|tag| Some((tag.get("key")?.as_str()?.to_owned(), tag.get("value")?.clone())))
        .collect();
    let tag = |name: &str| attributes.iter().find(|(key, _)| key == name).map(|(_, value)| plain(value));
    let references = span.get("references").and_then(Value::as_array).into_iter().flatten();
    let child_of = |reference: &&Value| {
        reference["refType"] == "CHILD_OF" && reference["traceID"].as_str().is_none_or(|id| Some(id) == text("traceID"))
    };
    let parent = references.clone().find(child_of).or_else(|| references.clone().next());
    let parent = parent.and_then(|reference| reference["spanID"].as_str()).or_else(|| text("parentSpanID"));
    let start = span.get("startTime").and_then(number)?.checked_mul(1000)?;
    let duration = span.get("duration").and_then(number).unwrap_or_default().saturating_mul(1000);
    let failed = tag("error").is_some_and(|value| value == "true")
        || tag("otel.status_code").is_some_and(|code| code == "ERROR");
    Some(Span {
        trace: TraceId::from_bytes(padded(text("traceID")?)?)?,
        id: SpanId::from_bytes(padded(text("spanID")?)?)?,
        parent: parent.and_then(padded).and_then(SpanId::from_bytes),
        service: service(process["serviceName"].as_str().unwrap_or(UNKNOWN)),
        name: text("operationName").unwrap_or_default().to_owned(),
        kind: tag("span.kind").map_or(Kind::Internal, |word| Kind::of_word(&word)),
        start,
        end: start.saturating_add(duration),
        failed: failed.then(|| tag("otel.status_description").unwrap_or_default()),
        attributes,
    })
}

fn number(value: &Value) -> Option<u64> {
    value.as_u64().or_else(|| value.as_str()?.parse().ok())
}

/// An id in hexadecimal digits, or in base64 as Tempo's protobuf-in-JSON has it.
fn bytes<const N: usize>(text: &str) -> Option<[u8; N]> {
    if text.len() == 2 * N {
        return hex(text);
    }
    let mut out = Vec::with_capacity(N + 2);
    let digits: Vec<u8> = text.trim_end_matches('=').bytes().map(sextet).collect::<Option<_>>()?;
    for group in digits.chunks(4) {
        let word = group.iter().fold(0u32, |word, digit| word << 6 | u32::from(*digit)) << (6 * (4 - group.len()));
        out.extend(word.to_be_bytes().iter().skip(1).take(group.len().saturating_sub(1)));
    }
    out.try_into().ok()
}

fn sextet(digit: u8) -> Option<u8> {
    Some(match digit {
        b'A'..=b'Z' => digit - b'A',
        b'a'..=b'z' => digit - b'a' + 26,
        b'0'..=b'9' => digit - b'0' + 52,
        b'+' | b'-' => 62,
        b'/' | b'_' => 63,
        _ => return None,
    })
}

fn hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    spanmesh_proto::ids::hex(text.to_ascii_lowercase().as_bytes())
}

/// Leading zeros may be missing, or a whole half of the id.
pub fn padded<const N: usize>(text: &str) -> Option<[u8; N]> {
    (text.len() <= 2 * N && text.is_ascii()).then(|| hex(&format!("{text:0>width$}", width = 2 * N))).flatten()
}

/// Any text is read or refused, and whatever was read can be shown.
pub fn fuzz_read(data: &[u8]) {
    if let Ok(held) = read(&String::from_utf8_lossy(data)) {
        crate::fuzz::show(held.spans);
    }
}

const UNKNOWN: &str = "unknown";
/// Wrappers around a trace.
const DEPTH: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;

    const OTLP: &str = r#"{"resourceSpans":[{"resource":{"attributes":[{"key":"service.name","value":{"stringValue":"shop"}}]},
        "scopeSpans":[{"spans":[{"traceId":"0AF7651916CD43DD8448EB211C80319C","spanId":"b7ad6b7169203331","parentSpanId":"",
        "name":"GET /","kind":2,"startTimeUnixNano":"1000","endTimeUnixNano":"3000","status":{"code":2,"message":"503"},
        "attributes":[{"key":"http.response.status_code","value":{"intValue":"503"}}]}]}]}]}"#;

    const JAEGER: &str = r#"{"data":[{"traceID":"af7651916cd43dd8448eb211c80319c","spans":[{"traceID":"af7651916cd43dd8448eb211c80319c",
        "spanID":"b7ad6b7169203331","operationName":"GET /","references":[{"refType":"CHILD_OF","traceID":"af7651916cd43dd8448eb211c80319c",
        "spanID":"1"}],"startTime":1,"duration":2,"tags":[{"key":"span.kind","type":"string","value":"server"},
        {"key":"error","type":"bool","value":true}],"processID":"p1"}],"processes":{"p1":{"serviceName":"shop"}}}]}"#;

    fn shop() -> Span {
        Span {
            trace: TraceId::parse(b"0af7651916cd43dd8448eb211c80319c").unwrap(),
            id: SpanId::parse(b"b7ad6b7169203331").unwrap(),
            parent: None,
            service: "shop".into(),
            name: "GET /".into(),
            kind: Kind::Server,
            start: 1000,
            end: 3000,
            failed: Some("503".into()),
            attributes: vec![("http.response.status_code".into(), 503.into())],
        }
    }

    #[test]
    fn otlp_is_read_whole_by_line_and_in_wrappers() {
        let line = OTLP.replace('\n', "");
        for text in
            [OTLP.to_owned(), format!("{{\"trace\":{OTLP}}}"), format!("{{\"result\":{OTLP}}}"), format!("[{OTLP}]")]
        {
            assert_eq!(read(&text).unwrap(), Held { spans: vec![shop()], broken: 0 }, "{text}");
        }
        assert_eq!(read(&format!("{line}\n{line}\n")).unwrap().spans.len(), 2);
    }

    #[test]
    fn tempos_form_is_read() {
        let text = r#"{"batches":[{"resource":{"attributes":[{"key":"service.name","value":{"stringValue":"shop"}}]},
            "instrumentationLibrarySpans":[{"spans":[{"traceId":"CvdlGRbNQ92ESOshHIAxnA==","spanId":"t61rcWkgMzE=",
            "name":"GET /","kind":"SPAN_KIND_SERVER","startTimeUnixNano":1000,"endTimeUnixNano":3000,
            "status":{"code":"STATUS_CODE_ERROR","message":"503"},
            "attributes":[{"key":"http.response.status_code","value":{"intValue":503}}]}]}]}]}"#;
        assert_eq!(read(text).unwrap().spans, [shop()]);
    }

    #[test]
    fn jaegers_form_is_read() {
        let span = &read(JAEGER).unwrap().spans[0];
        let expected = shop();
        assert_eq!(
            (span.trace, span.id, span.kind, span.start, span.end),
            (expected.trace, expected.id, Kind::Server, 1000, 3000)
        );
        assert_eq!(span.parent, SpanId::parse(b"0000000000000001"));
        assert_eq!((span.service.as_str(), span.failed.as_deref()), ("shop", Some("")));
    }

    #[test]
    fn what_is_broken_is_said_or_counted() {
        assert_eq!(read("{\"data\":[]}").unwrap(), Held::default());
        assert!(read("").is_err());
        assert!(read("{}").is_err());
        assert!(read("{\"a\":").unwrap_err().starts_with("is not JSON"));
        assert_eq!(read(&OTLP.replace("b7ad6b7169203331", "zz")).unwrap(), Held { spans: vec![], broken: 1 });
        assert_eq!(read(&OTLP.replace("b7ad6b7169203331", "0000000000000000")).unwrap().broken, 1);
    }

    /// A name that every span has of its own is short, and a long chain is drawn in the time of its length.
    #[test]
    fn what_is_large_takes_time_and_memory_in_proportion() {
        let long = OTLP.replace("shop", &"s".repeat(100_000));
        assert_eq!(read(&long).unwrap().spans[0].service.len(), 255);
        let chain = (1..=20_000u64).map(|id| Span {
            id: SpanId::from_bytes(id.to_be_bytes()).unwrap(),
            parent: SpanId::from_bytes((id - 1).to_be_bytes()),
            start: 1000 + id,
            end: 100_000 - id,
            failed: None,
            ..shop()
        });
        let tree = super::super::tree::Tree::new(chain.collect());
        let look = super::super::waterfall::Look { width: 80, colours: false, most: 200 };
        let began = std::time::Instant::now();
        assert!(super::super::waterfall::draw(&tree, look).contains("more span"));
        assert!(began.elapsed().as_secs() < 5, "{:?}", began.elapsed());
    }

    #[test]
    fn arbitrary_changes_are_survived() {
        let mut seed = 7u32;
        for text in [OTLP, JAEGER, "{\"data\":[{\"spans\":[{}],\"processes\":{}}]}"] {
            for _ in 0..2000 {
                let mut bytes = text.as_bytes().to_vec();
                for _ in 0..3 {
                    seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    let place = seed as usize % bytes.len();
                    bytes[place] = b"{}[]\":,019aZ-\\"[(seed >> 16) as usize % 14];
                }
                fuzz_read(&bytes);
            }
        }
    }
}
