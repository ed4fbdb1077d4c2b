//! Where spans go.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::says::{self, cel};
use crate::value::Empty;
use crate::words::words;

/// Where spans go: a name, and one of `otlpGrpc`, `otlpHttp`, `zipkin`, `file` and `stdout`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("x-kubernetes-validations" = cel(&[says::ONE_DESTINATION])))]
pub struct Destination {
    /// What metrics call it.
    #[schemars(length(min = 1, max = 63), extend("x-kubernetes-validations" = cel(&[says::NAME])))]
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
#[schemars(extend("x-kubernetes-validations" = cel(&[says::TLS])))]
pub struct OtlpGrpc {
    /// Where the receiver is: `http://` or `https://`, host and port, no path.
    #[schemars(length(min = 8, max = 512), extend("x-kubernetes-validations" = cel(&[says::GRPC_ENDPOINT])))]
    pub endpoint: String,
    /// Whether a request is compressed.
    #[serde(default)]
    pub compression: Compression,
    /// Metadata that every request carries, such as a token.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 16), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub headers: Vec<Header>,
    /// TLS for an endpoint that begins with `https`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<Tls>,
}

/// OTLP over HTTP.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("x-kubernetes-validations" = cel(&[says::TLS])))]
pub struct OtlpHttp {
    /// Where the receiver is; `/v1/traces` is added to its path.
    #[schemars(length(min = 8, max = 512), extend("x-kubernetes-validations" = cel(&[says::ENDPOINT])))]
    pub endpoint: String,
    #[serde(default)]
    pub encoding: OtlpEncoding,
    #[serde(default)]
    pub compression: Compression,
    /// Header fields that every request carries, such as a token.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 16), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub headers: Vec<Header>,
    /// TLS for an endpoint that begins with `https`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<Tls>,
}

/// Zipkin's JSON of version 2.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("x-kubernetes-validations" = cel(&[says::TLS])))]
pub struct Zipkin {
    /// Where the receiver is; without a path it is asked at `/api/v2/spans`.
    #[schemars(length(min = 8, max = 512), extend("x-kubernetes-validations" = cel(&[says::ENDPOINT])))]
    pub endpoint: String,
    #[serde(default)]
    pub compression: Compression,
    /// Header fields that every request carries, such as a token.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 16), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
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
    #[schemars(length(min = 1, max = 1024))]
    pub path: String,
}

/// A header field of every request to a destination, with one of `value`, `variable` and `file`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("x-kubernetes-validations" = cel(&[says::ONE_VALUE])))]
pub struct Header {
    /// Its name.
    #[schemars(length(min = 1, max = 256), extend("x-kubernetes-validations" = cel(&[says::HEADER, says::OWN_HEADER])))]
    pub name: String,
    /// Its value. Whoever may read this resource sees it; a secret is better in a file of the proxy.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub value: Option<String>,
    /// The variable of the proxy's environment that holds its value.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128))]
    pub variable: Option<String>,
    /// The file of the proxy that holds its value, such as that of a mounted Secret. It is read again when it changes.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub file: Option<String>,
}

/// TLS to a destination.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Tls {
    /// PEM file of the proxy with the authorities that the receiver's certificate must lead to. Left out: those of the
    /// machine.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub root_file: Option<String>,
    /// The name that is asked for and must stand in the certificate. Left out: the endpoint's host.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), extend("x-kubernetes-validations" = cel(&[says::SERVER])))]
    pub server_name: Option<String>,
}

/// The proxies of a destination. Each list that is not empty must be met.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("x-kubernetes-validations" = cel(&[says::SOME_ONLY])))]
pub struct Only {
    /// Namespaces, one of which the proxy must be in.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 64), inner(length(min = 1, max = 63)), extend("x-kubernetes-list-type" = "set", "x-kubernetes-validations" = cel(&[says::OBJECTS])))]
    pub namespaces: Vec<String>,
    /// Services, one of which must be the proxy's own (its `service.name`).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 64), inner(length(min = 1, max = 253)), extend("x-kubernetes-list-type" = "set"))]
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
