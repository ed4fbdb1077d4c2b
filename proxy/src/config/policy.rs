//! The policy as it is written in the file, in the shape that a control plane will push.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use super::attributes::{Attribute, GrpcErrors, Redaction};
use super::grammar::{BaggageKey, Endpoint, FieldName, Name, Network, Size};
use super::model::{DAY, GI, HOUR, KI, MI, MILLISECOND, MINUTE, SECOND, ZERO};
use super::reader::Reader;
use super::sampling::Sampling;
use super::schema::{Form, Kind, section, words};
use super::tree::Tree;
use super::upstream::UpstreamTls;

section! {
    /// How traces are read, written and reported.
    pub struct Policy: Default {
        /// Which headers carry the trace.
        propagation: Propagation = Propagation::default(),
        /// Requests that make no spans. They are carried, counted and logged like all others.
        untraced: Vec<Untraced> = vec![Untraced::Probes, Untraced::Scrapes, Untraced::Exports],
        /// Which traces are kept.
        sampling: Sampling = Sampling::default(),
        /// What is taken out of spans and of the access log before they leave the process.
        redaction: Redaction = Redaction::default(),
        /// How often a request or connection that lives long is reported while it lives; `0s` is never. Each time it makes a span below its own, and an event of its own.
        interim: Duration [ZERO ..= DAY] = MINUTE,
        /// Attributes that spans have besides; at most 32.
        attributes: Vec<Attribute> = Vec::new(),
        /// Which statuses of gRPC make a span an error.
        grpc_errors: GrpcErrors = GrpcErrors::default(),
        /// Where spans go. Left out: where the variables of OpenTelemetry say, `OTEL_EXPORTER_OTLP_ENDPOINT` and its relatives; nowhere without them.
        destinations: Vec<Destination> = Vec::new(),
    }
}

section! {
    /// Which headers carry the trace. What each format can say and cannot: `PROPAGATION.md`.
    pub struct Propagation: Default {
        /// Formats that are read; the first that can be read wins.
        extract: Vec<Format> = vec![Format::W3c, Format::B3, Format::B3Multi, Format::Jaeger],
        /// Formats that are written, all of them with the same trace.
        inject: Vec<Format> = vec![Format::W3c],
        /// Formats whose headers are taken out. Of use where `normalise` is off.
        clear: Vec<Format> = Vec::new(),
        /// The headers of all formats that are not written are taken out: they would tell the next hop of a span that is not its parent.
        normalise: bool = true,
        /// Baggage is passed on, in `baggage` and in the headers that other formats have for it.
        baggage: bool = true,
        /// Keys of baggage that is passed on from callers whose trace is not believed (`trust` Restart or Ignore), in whatever header it comes.
        stranger_baggage: Vec<String> as Vec<BaggageKey> = Vec::new(),
        /// Baggage is passed on to addresses outside of `mesh` too.
        outside_baggage: bool = false,
        /// The networks of the mesh. The application behind an inbound listener belongs to it anyway.
        mesh: Vec<Network> = usual_mesh() => "loopback, link-local, private and shared addresses",
        /// A request that a sidecar's application sends without a context while it works on exactly one other gets that one as its parent, and not only a link to it.
        infer_parent: bool = false,
        /// `x-request-id` is made where it is missing.
        request_id: bool = true,
    }
}

/// What clusters give their pods and services.
fn usual_mesh() -> Vec<Network> {
    let networks = MESH.iter().filter_map(|network| network.parse().ok());
    networks.collect()
}

const MESH: [&str; 9] = [
    "127.0.0.0/8",
    "10.0.0.0/8",
    "172.16.0.0/12",
    "192.168.0.0/16",
    "169.254.0.0/16",
    "100.64.0.0/10",
    "::1",
    "fc00::/7",
    "fe80::/10",
];

words! {
    /// A family of headers that carry a trace.
    pub enum Format {
        /// `traceparent` and `tracestate`.
        W3c = "w3c",
        /// Zipkin's `b3`.
        B3 = "b3",
        /// Zipkin's `x-b3-*`.
        B3Multi = "b3multi",
        /// `uber-trace-id`, `jaeger-debug-id`.
        Jaeger = "jaeger",
        /// AWS X-Ray's `x-amzn-trace-id`.
        Xray = "xray",
        /// `x-datadog-*`.
        Datadog = "datadog",
        /// Google Cloud's `x-cloud-trace-context`.
        Gcp = "gcp",
        /// `sw8`.
        Skywalking = "skywalking",
        /// OpenCensus' `grpc-trace-bin`.
        Binary = "binary",
        /// OpenTracing's `ot-tracer-*`.
        Ottrace = "ottrace",
    }
}

words! {
    /// Requests that make no spans.
    pub enum Untraced {
        /// Kubernetes' probes, by their `User-Agent`, `kube-probe/`.
        Probes = "probes",
        /// Prometheus' scrapes, by their `User-Agent`, `Prometheus/`.
        Scrapes = "scrapes",
        /// What applications report: OTLP over HTTP and gRPC, Zipkin, Jaeger, StatsD over HTTP.
        Exports = "exports",
    }
}

/// Where spans go.
#[derive(Clone, Debug, PartialEq)]
pub struct Destination {
    pub name: String,
    pub to: Target,
    pub only: Only,
    pub delivery: Delivery,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Target {
    File(PathBuf),
    Stdout,
    OtlpHttp(OtlpHttp),
    OtlpGrpc(OtlpGrpc),
    Zipkin(Zipkin),
}

section! {
    /// Where spans go: a name, and one of `otlpHttp`, `otlpGrpc`, `zipkin`, `file` and `stdout`.
    pub struct WrittenDestination {
        /// What metrics call it; no two destinations have the same name.
        name: String as Name,
        /// Spans are sent by OTLP over HTTP/1.1.
        otlp_http: Option<OtlpHttp>,
        /// Spans are sent by OTLP over gRPC.
        otlp_grpc: Option<OtlpGrpc>,
        /// Spans are sent as Zipkin's JSON of version 2.
        zipkin: Option<Zipkin>,
        /// Spans are appended to a file.
        file: Option<FileTarget>,
        /// Spans are written to standard output.
        stdout: Option<StdoutTarget>,
        /// Which spans it is given. Left out: all.
        only: Only = Only::default(),
        /// How spans are gathered, kept and sent again. Not for `file` and `stdout`, which take them as they come.
        delivery: Delivery = Delivery::default(),
    }
}

section! {
    /// OTLP over HTTP/1.1.
    pub struct OtlpHttp: Default {
        /// Where the receiver is; `/v1/traces` is added to its path.
        endpoint: Option<Endpoint>,
        /// Where it takes spans, as it is written; in place of `endpoint`.
        traces_endpoint: Option<Endpoint>,
        /// How a request is written.
        encoding: OtlpEncoding = OtlpEncoding::Protobuf,
        /// Whether a request is compressed.
        compression: Compression = Compression::None,
        /// Header fields that every request carries, such as a token.
        headers: Vec<HeaderField> = Vec::new(),
        /// TLS for an endpoint that begins with `https`.
        tls: Option<UpstreamTls>,
    }
}

section! {
    /// OTLP over gRPC.
    pub struct OtlpGrpc {
        /// Where the receiver is. It has no path.
        endpoint: Endpoint,
        /// Whether a request is compressed.
        compression: Compression = Compression::None,
        /// Metadata that every request carries, such as a token.
        headers: Vec<HeaderField> = Vec::new(),
        /// TLS for an endpoint that begins with `https`.
        tls: Option<UpstreamTls>,
    }
}

section! {
    /// Zipkin's JSON of version 2 over HTTP/1.1.
    pub struct Zipkin {
        /// Where the receiver is; without a path it is asked at `/api/v2/spans`.
        endpoint: Endpoint,
        /// Whether a request is compressed.
        compression: Compression = Compression::None,
        /// Header fields that every request carries, such as a token.
        headers: Vec<HeaderField> = Vec::new(),
        /// TLS for an endpoint that begins with `https`.
        tls: Option<UpstreamTls>,
    }
}

section! {
    /// The spans of a destination. Each list that is not empty must be met.
    pub struct Only: Default {
        /// Namespaces, one of which the proxy must be in (`node.namespace`).
        namespaces: Vec<String> = Vec::new(),
        /// Services, one of which must be the proxy's (`service.name`).
        services: Vec<String> = Vec::new(),
        /// Attributes of the span or the resource, all of which must be met.
        attributes: Vec<OnlyAttribute> = Vec::new(),
    }
}

section! {
    /// An attribute that a span must have.
    pub struct OnlyAttribute {
        /// Its key, such as `server.address`.
        key: String,
        /// Its value is one of these. Left out: any.
        values: Vec<String> = Vec::new(),
    }
}

section! {
    /// A header field of every request to a destination, with one of `value`, `variable` and `file`.
    pub struct HeaderField {
        /// Its name.
        name: String as FieldName,
        /// Its value. The admin page does not show it, but whoever reads this file does; a secret is better in a file of its own.
        value: Option<String>,
        /// The environment variable that holds its value.
        variable: Option<String>,
        /// The file that holds its value. It is read again when it changes.
        file: Option<PathBuf>,
    }
    beside {
        /// What `variable` held.
        found: Found,
    }
}

/// The value of an environment variable. It is no part of what was written, so it is neither shown nor compared.
#[derive(Clone, Default)]
pub struct Found(pub Option<String>);

impl PartialEq for Found {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl fmt::Debug for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Found")
    }
}

section! {
    /// How spans are gathered, kept and sent again.
    pub struct Delivery: Default {
        /// Spans of one request.
        spans: usize [1usize ..= 65_536usize] = 512,
        /// Bytes of one request before compression. The collector's gRPC receiver takes no more than 4 MiB.
        bytes: usize as Size [KI ..= LARGEST] = MI,
        /// How long a span may wait for others.
        age: Duration [MILLISECOND ..= MINUTE] = 5 * SECOND,
        /// Bytes that may wait for the receiver, those under way included. Beyond it the oldest are dropped.
        queue: usize as Size [KI ..= GI] = 16 * MI,
        /// How long one request may take, from its connection to the last byte of its answer.
        timeout: Duration [MILLISECOND ..= HOUR] = 10 * SECOND,
        /// The pause after a first failure, less a random part; it doubles with each further one.
        backoff: Duration [MILLISECOND ..= HOUR] = SECOND,
        /// The longest pause that is not asked for by the receiver.
        backoff_max: Duration [MILLISECOND ..= HOUR] = 30 * SECOND,
        /// How long the same spans are tried before they are dropped, or put behind all others on the disk where there is a `spill`.
        give_up: Duration [ZERO ..= DAY] = 5 * MINUTE,
        /// How long a connection is used at least, and at most twice as long, at random; then the name is looked up again.
        renew: Duration [MILLISECOND ..= DAY] = 5 * MINUTE,
        /// Takes what `queue` cannot hold, and what is left when the proxy ends.
        spill: Option<Spill>,
    }
}

section! {
    /// A folder on disk where spans wait for their receiver. They are sent oldest first, taking turns with new ones, also by the next process that has this folder.
    pub struct Spill {
        /// The folder; it is made where it is not there. The destination has a folder of its name in it, and only one process at a time has that.
        path: PathBuf,
        /// Bytes that may lie in it. Beyond it the oldest are dropped.
        bytes: usize as Size [SMALLEST_SPILL ..= LARGEST_SPILL] = 256 * MI,
    }
}

words! {
    /// How an OTLP request is written.
    pub enum OtlpEncoding {
        /// Protocol buffers.
        Protobuf = "protobuf",
        /// JSON.
        Json = "json",
    }
}

words! {
    /// Whether a request is compressed.
    pub enum Compression {
        /// It is not.
        None = "none",
        /// With gzip.
        Gzip = "gzip",
    }
}

section! {
    /// A file of spans.
    pub struct FileTarget {
        /// The file; it is created where it is not there.
        path: PathBuf,
    }
}

section! {
    /// Has no fields.
    pub struct StdoutTarget: Default {}
}

impl Target {
    /// What the destination is asked with, where it is one on the network.
    pub fn headers_mut(&mut self) -> &mut [HeaderField] {
        match self {
            Target::OtlpHttp(OtlpHttp { headers, .. })
            | Target::OtlpGrpc(OtlpGrpc { headers, .. })
            | Target::Zipkin(Zipkin { headers, .. }) => headers,
            Target::File(_) | Target::Stdout => &mut [],
        }
    }
}

/// Looks up the variables that header fields and attributes name. One that is missing is warned about, and left out.
pub fn find_variables(policy: &mut Policy, environment: &[(String, String)]) -> Vec<String> {
    let mut warnings = Vec::new();
    let find = |variable: &String| {
        Found(environment.iter().find(|(name, _)| name == variable).map(|(_, value)| value.clone()))
    };
    for attribute in &mut policy.attributes {
        let Some(variable) = &attribute.variable else { continue };
        attribute.found = find(variable);
        if attribute.found.0.is_none() {
            let name = attribute.name.as_deref().unwrap_or_default();
            warnings.push(format!(
                "policy.attributes: spans are without `{name}`, because the variable {variable} is not set"
            ));
        }
    }
    for destination in &mut policy.destinations {
        for field in destination.to.headers_mut() {
            let Some(variable) = &field.variable else { continue };
            field.found = find(variable);
            if field.found.0.is_none() {
                warnings.push(format!(
                    "policy.destinations: the header `{}` of {} is not sent, because the variable {variable} is not set",
                    field.name, destination.name
                ));
            }
        }
    }
    warnings
}

impl Form for Destination {
    type Plain = Destination;

    fn read(reader: &mut Reader, tree: &Tree) -> Option<Destination> {
        let clean = reader.count();
        let WrittenDestination { name, otlp_http, otlp_grpc, zipkin, file, stdout, only, delivery } =
            WrittenDestination::read(reader, tree)?;
        let targets = [
            otlp_http.map(|to| ("otlpHttp", Target::OtlpHttp(to))),
            otlp_grpc.map(|to| ("otlpGrpc", Target::OtlpGrpc(to))),
            zipkin.map(|to| ("zipkin", Target::Zipkin(to))),
            file.map(|file| ("file", Target::File(file.path))),
            stdout.map(|_| ("stdout", Target::Stdout)),
        ];
        let mut targets = targets.into_iter().flatten();
        match (targets.next(), targets.next()) {
            (Some((_, to)), None) => Some(Destination { name, to, only, delivery }),
            (Some((first, _)), Some((second, _))) => reader.wrong(
                format!("has both `{first}` and `{second}`"),
                "keep one, and write the other as a destination of its own",
            ),
            // A destination of a later version was refused by name already.
            (None, _) if reader.count() > clean => None,
            (None, _) => reader.wrong(
                "leads nowhere",
                "add `otlpGrpc: {endpoint: \"http://host:4317\"}`, `file: {path: spans.jsonl}` or `stdout: {}`",
            ),
        }
    }

    fn write(plain: &Destination) -> Tree {
        let mut written = WrittenDestination {
            name: plain.name.clone(),
            otlp_http: None,
            otlp_grpc: None,
            zipkin: None,
            file: None,
            stdout: None,
            only: plain.only.clone(),
            delivery: plain.delivery.clone(),
        };
        match plain.to.clone() {
            Target::OtlpHttp(to) => written.otlp_http = Some(to),
            Target::OtlpGrpc(to) => written.otlp_grpc = Some(to),
            Target::Zipkin(to) => written.zipkin = Some(to),
            Target::File(path) => written.file = Some(FileTarget { path }),
            Target::Stdout => written.stdout = Some(StdoutTarget {}),
        }
        WrittenDestination::write(&written)
    }

    fn kind() -> Kind {
        WrittenDestination::kind()
    }
}

/// Receivers take at most 64 MiB (OTLP specification); theirs must still be told from ours.
const LARGEST: usize = 32 * MI;
/// Sixteen segments of a few requests each.
const SMALLEST_SPILL: usize = 64 * KI;
const LARGEST_SPILL: usize = 4 * GI;
