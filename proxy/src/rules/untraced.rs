//! Which requests are nobody's call: probes of the platform, scrapes of metrics, and what applications report of
//! themselves. They come without end and say nothing of what a service does; a span for each report would be reported too.
//! Asked by `trail` once for each request.

use http::header::{CONTENT_TYPE, USER_AGENT};
use http::{HeaderMap, Method};

use crate::config::Untraced;

/// What a request is told by.
#[derive(Clone, Copy)]
pub struct Facts<'a> {
    pub method: &'a Method,
    /// Without the query.
    pub path: &'a str,
    pub headers: &'a HeaderMap,
}

/// `None` for all that is to be traced like anything else.
pub fn kind(facts: &Facts<'_>) -> Option<Untraced> {
    let agent = facts.headers.get(USER_AGENT).map_or(&b""[..], |agent| agent.as_bytes());
    if agent.starts_with(b"kube-probe/") {
        return Some(Untraced::Probes);
    }
    if agent.starts_with(b"Prometheus/") {
        return Some(Untraced::Scrapes);
    }
    (*facts.method == Method::POST && is_export(facts, agent)).then_some(Untraced::Exports)
}

/// The paths of OTLP, Zipkin, Jaeger and StatsD, which has an HTTP of its own only where an agent gives it one. Those of OTLP/HTTP an application may have too, so the message's form or the
/// exporter's own name has to fit.
fn is_export(facts: &Facts<'_>, agent: &[u8]) -> bool {
    let content = facts.headers.get(CONTENT_TYPE).map_or(&b""[..], |content| content.as_bytes());
    match facts.path {
        "/v1/traces" | "/v1/metrics" | "/v1/logs" => {
            content == b"application/x-protobuf" || agent.starts_with(b"OTel-OTLP-Exporter-")
        }
        "/api/v2/spans" | "/api/v1/spans" => true,
        "/api/traces" => content == b"application/x-thrift" || content == b"application/vnd.apache.thrift.binary",
        "/jaeger.api_v2.CollectorService/PostSpans" | "/dogstatsd/v1/proxy" | "/dogstatsd/v2/proxy" => true,
        "/statsd" => content.starts_with(b"text/plain"),
        path => path.starts_with("/opentelemetry.proto.collector."),
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn requests_are_told_by_who_sends_them_and_what_they_carry() {
        use Untraced::{Exports, Probes, Scrapes};
        let protobuf = "application/x-protobuf";
        for (method, path, agent, content, expected) in [
            ("GET", "/healthz", "kube-probe/1.31", "", Some(Probes)),
            ("POST", "/grpc.health.v1.Health/Check", "kube-probe/1.31 grpc-go/1.66", "application/grpc", Some(Probes)),
            ("GET", "/metrics", "Prometheus/2.53.0", "", Some(Scrapes)),
            ("GET", "/metrics", "curl/8.0", "", None),
            ("GET", "/", "Mozilla kube-probe/1", "", None),
            ("POST", "/v1/traces", "x", protobuf, Some(Exports)),
            ("POST", "/v1/metrics", "OTel-OTLP-Exporter-Python/1.27", "application/json", Some(Exports)),
            ("POST", "/v1/logs", "x", protobuf, Some(Exports)),
            ("POST", "/v1/logs", "shop/1", "application/json", None),
            ("GET", "/v1/traces", "x", protobuf, None),
            ("POST", "/v1/traces/1", "x", protobuf, None),
            ("POST", "/api/v2/spans", "x", "application/json", Some(Exports)),
            ("POST", "/api/traces", "x", "application/x-thrift", Some(Exports)),
            ("POST", "/api/traces", "x", "application/json", None),
            ("POST", "/dogstatsd/v2/proxy", "x", "", Some(Exports)),
            ("POST", "/statsd", "x", "text/plain; charset=utf-8", Some(Exports)),
            ("POST", "/statsd", "x", "application/json", None),
            ("POST", "/jaeger.api_v2.CollectorService/PostSpans", "x", "application/grpc", Some(Exports)),
            (
                "POST",
                "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
                "x",
                "application/grpc",
                Some(Exports),
            ),
        ] {
            let headers = [(USER_AGENT, agent), (CONTENT_TYPE, content)];
            let headers = headers.map(|(name, value)| (name, HeaderValue::from_static(value))).into_iter().collect();
            let method = Method::from_bytes(method.as_bytes()).expect("a method");
            assert_eq!(kind(&Facts { method: &method, path, headers: &headers }), expected, "{method} {path} {agent}");
        }
        assert_eq!(kind(&Facts { method: &Method::POST, path: "/v1/logs", headers: &HeaderMap::new() }), None);
    }
}
