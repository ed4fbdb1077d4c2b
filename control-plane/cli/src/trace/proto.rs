//! Spans between OTLP and here: protobuf in, as proxies send it, and OTLP/JSON out, as the demo's query API answers.

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value};
use prost::Message;
use serde_json::{Value, json};
use spanmesh_proto::{SpanId, TraceId};

use super::span::{self, Kind, Span};

/// The spans of a request, without those that have no ids.
pub fn decode(body: &[u8]) -> Result<Vec<Span>, String> {
    let request = ExportTraceServiceRequest::decode(body).map_err(|error| error.to_string())?;
    let mut spans = Vec::new();
    for told in request.resource_spans {
        let resource = told.resource.map(|resource| attributes(resource.attributes)).unwrap_or_default();
        let service = resource.iter().find(|(key, _)| key == "service.name");
        let service = service.map_or_else(|| "unknown".to_owned(), |(_, value)| span::service(&span::plain(value)));
        for span in told.scope_spans.into_iter().flat_map(|scope| scope.spans) {
            let ids =
                id(&span.trace_id).and_then(TraceId::from_bytes).zip(id(&span.span_id).and_then(SpanId::from_bytes));
            let Some((trace, own)) = ids else { continue };
            spans.push(Span {
                trace,
                id: own,
                parent: id(&span.parent_span_id).and_then(SpanId::from_bytes),
                service: service.clone(),
                kind: Kind::of_number(span.kind.into()),
                start: span.start_time_unix_nano,
                end: span.end_time_unix_nano.max(span.start_time_unix_nano),
                failed: span.status.filter(|status| status.code == 2).map(|status| status.message),
                attributes: attributes(span.attributes),
                name: span.name,
            });
        }
    }
    Ok(spans)
}

/// As one request of OTLP/JSON.
pub fn encode(spans: &[Span]) -> Value {
    let resources: Vec<Value> = spans
        .iter()
        .map(|span| {
            json!({
                "resource": {"attributes": [{"key": "service.name", "value": {"stringValue": span.service}}]},
                "scopeSpans": [{"spans": [{
                    "traceId": span.trace.to_string(),
                    "spanId": span.id.to_string(),
                    "parentSpanId": span.parent.map(|id| id.to_string()).unwrap_or_default(),
                    "name": span.name,
                    "kind": span.kind.number(),
                    "startTimeUnixNano": span.start.to_string(),
                    "endTimeUnixNano": span.end.to_string(),
                    "attributes": span.attributes.iter().map(pair).collect::<Vec<_>>(),
                    "status": span.failed.as_ref().map_or_else(|| json!({}), |message| json!({"code": 2, "message": message})),
                }]}],
            })
        })
        .collect();
    json!({"resourceSpans": resources})
}

fn pair((key, value): &(String, Value)) -> Value {
    let value = match value {
        Value::Bool(_) => json!({"boolValue": value}),
        Value::Number(number) if number.is_f64() => json!({"doubleValue": value}),
        Value::Number(number) => json!({"intValue": number.to_string()}),
        Value::String(_) => json!({"stringValue": value}),
        other => json!({"stringValue": other.to_string()}),
    };
    json!({"key": key, "value": value})
}

fn attributes(list: Vec<KeyValue>) -> Vec<(String, Value)> {
    list.into_iter().map(|entry| (entry.key, entry.value.map(value).unwrap_or(Value::Null))).collect()
}

fn value(told: AnyValue) -> Value {
    match told.value {
        Some(any_value::Value::StringValue(text)) => text.into(),
        Some(any_value::Value::BoolValue(yes)) => yes.into(),
        Some(any_value::Value::IntValue(number)) => number.into(),
        Some(any_value::Value::DoubleValue(number)) => number.into(),
        // Lists and maps: shown as they print, which is enough for a person.
        Some(other) => format!("{other:?}").into(),
        None => Value::Null,
    }
}

fn id<const N: usize>(bytes: &[u8]) -> Option<[u8; N]> {
    bytes.try_into().ok()
}

/// Any bytes are read or refused, and whatever was read can be shown and told on.
pub fn fuzz_decode(data: &[u8]) {
    let Ok(spans) = decode(data) else { return };
    let again = super::read::read(&encode(&spans).to_string()).unwrap_or_default().spans;
    let facts = |spans: &[Span]| {
        let of = |span: &Span| (span.trace, span.id, span.parent, span.start, span.end, span.name.clone());
        spans.iter().map(of).collect::<Vec<_>>()
    };
    assert_eq!(facts(&again), facts(&spans));
    crate::fuzz::show(spans);
}

#[cfg(test)]
mod tests {
    use super::super::read;
    use super::*;

    #[test]
    fn what_is_encoded_is_read_again() {
        let span = Span {
            trace: TraceId::parse(b"0af7651916cd43dd8448eb211c80319c").unwrap(),
            id: SpanId::parse(b"b7ad6b7169203331").unwrap(),
            parent: SpanId::parse(b"00f067aa0ba902b7"),
            service: "shop".into(),
            name: "GET /".into(),
            kind: Kind::Client,
            start: 1,
            end: 2,
            failed: Some("reset".into()),
            attributes: vec![("a".into(), "b".into()), ("n".into(), 7.into()), ("yes".into(), true.into())],
        };
        let text = encode(std::slice::from_ref(&span)).to_string();
        assert_eq!(read::read(&text).unwrap().spans, [span]);
    }

    #[test]
    fn bytes_that_are_no_request_are_an_error_or_nothing() {
        assert!(decode(b"\xff\xff").is_err());
        assert_eq!(decode(b"").unwrap(), []);
    }
}
