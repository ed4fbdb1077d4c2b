//! Where spans go.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::value::Empty;
use crate::words::words;

/// Where spans go: a name, and one of `otlpGrpc`, `otlpHttp`, `zipkin`, `file` and `stdout`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Destination {
    /// What metrics call it.
    pub name: String,
    /// Spans are sent by OTLP over gRPC.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub otlp_grpc: Option<OtlpGrpc>,
    /// Spans are sent by OTLP over HTTP.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub otlp_http: Option<OtlpHttp>,
    /// Spans are sent as Zipkin's JSON of version 2.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub zipkin: Option<Zipkin>,
    /// Spans are appended to a file of the proxy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<FileTarget>,
    /// Spans are written to the proxy's standard output.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stdout: Option<Empty>,
    /// Which proxies send it spans. Left out: all that the resource is for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub only: Option<Only>,
}

/// OTLP over gRPC.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct OtlpGrpc {
    /// Where the receiver is: `http://` or `https://`, host and port, no path.
    pub endpoint: String,
    /// Whether a request is compressed.
    #[serde(default)]
    pub compression: Compression,
    /// Metadata that every request carries, such as a token.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<Header>,
    /// TLS for an endpoint that begins with `https`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<Tls>,
}

/// OTLP over HTTP.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct OtlpHttp {
    /// Where the receiver is; `/v1/traces` is added to its path.
    pub endpoint: String,
    #[serde(default)]
    pub encoding: OtlpEncoding,
    #[serde(default)]
    pub compression: Compression,
    /// Header fields that every request carries, such as a token.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<Header>,
    /// TLS for an endpoint that begins with `https`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<Tls>,
}

/// Zipkin's JSON of version 2.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Zipkin {
    /// Where the receiver is; without a path it is asked at `/api/v2/spans`.
    pub endpoint: String,
    #[serde(default)]
    pub compression: Compression,
    /// Header fields that every request carries, such as a token.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<Header>,
    /// TLS for an endpoint that begins with `https`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<Tls>,
}

/// A file of spans.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FileTarget {
    /// The file; it is created where it is not there.
    pub path: String,
}

/// A header field of every request to a destination, with one of `value`, `variable` and `file`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Header {
    /// Its name.
    pub name: String,
    /// Its value. Whoever may read this resource sees it; a secret is better in a file of the proxy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// The variable of the proxy's environment that holds its value.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub variable: Option<String>,
    /// The file of the proxy that holds its value, such as that of a mounted Secret. It is read again when it changes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
}

/// TLS to a destination.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Tls {
    /// PEM file of the proxy with the authorities that the receiver's certificate must lead to. Left out: those of the
    /// machine.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub root_file: Option<String>,
    /// The name that is asked for and must stand in the certificate. Left out: the endpoint's host.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server_name: Option<String>,
}

/// The proxies of a destination. Each list that is not empty must be met.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Only {
    /// Namespaces, one of which the proxy must be in.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub namespaces: Vec<String>,
    /// Services, one of which must be the proxy's own (its `service.name`).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub services: Vec<String>,
}

words! {
    /// How a request is written.
    pub enum OtlpEncoding = Protobuf {
        /// protocol buffers.
        Protobuf = "protobuf",
        /// JSON.
        Json = "json",
    }
}

words! {
    /// Whether a request is compressed.
    pub enum Compression = None {
        /// it is not.
        None = "none",
        /// with gzip.
        Gzip = "gzip",
    }
}
