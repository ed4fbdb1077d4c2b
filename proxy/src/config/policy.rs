//! The policy as it is written in the file, in the shape that a control plane will push.

use std::path::PathBuf;

use super::grammar::{BaggageKey, Name, Network};
use super::reader::Reader;
use super::schema::{Form, Kind, section, words};
use super::tree::Tree;

section! {
    /// How traces are read, written and reported.
    pub struct Policy: Default {
        /// Which headers carry the trace.
        propagation: Propagation = Propagation::default(),
        /// Requests that make no spans. They are carried, counted and logged like all others.
        untraced: Vec<Untraced> = vec![Untraced::Probes, Untraced::Scrapes, Untraced::Exports],
        /// Where spans go.
        destinations: Vec<Destination> = Vec::new(),
    }
    later {
        "sampling": "write `{}` or leave it out: this version has no sampling to set" empty;
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
        /// Keys of the `baggage` that is passed on from callers whose trace is not believed (`trust` Restart or Ignore).
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
        /// What applications report: OTLP over HTTP and gRPC, Zipkin, Jaeger.
        Exports = "exports",
    }
}

/// Where spans go.
#[derive(Clone, Debug, PartialEq)]
pub struct Destination {
    pub name: String,
    pub to: Target,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    File(PathBuf),
    Stdout,
}

section! {
    /// Where spans go: a name, and one of `file` and `stdout`.
    pub struct WrittenDestination {
        /// What metrics call it; no two destinations have the same name.
        name: String as Name,
        /// Spans are appended to a file.
        file: Option<FileTarget>,
        /// Spans are written to standard output.
        stdout: Option<StdoutTarget>,
    }
    later {
        "otlpGrpc": "write `file: {path: spans.jsonl}` or `stdout: {}`";
        "otlpHttp": "write `file: {path: spans.jsonl}` or `stdout: {}`";
        "zipkin": "write `file: {path: spans.jsonl}` or `stdout: {}`";
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

impl Form for Destination {
    type Plain = Destination;

    fn read(reader: &mut Reader, tree: &Tree) -> Option<Destination> {
        let clean = reader.count();
        let written = WrittenDestination::read(reader, tree)?;
        let to = match (written.file, written.stdout) {
            (Some(file), None) => Target::File(file.path),
            (None, Some(_)) => Target::Stdout,
            (Some(_), Some(_)) => {
                return reader.wrong(
                    "has both `file` and `stdout`",
                    "keep one, and write the other as a destination of its own",
                );
            }
            // A destination of a later version was refused by name already.
            (None, None) if reader.count() > clean => return None,
            (None, None) => return reader.wrong("leads nowhere", "add `file: {path: spans.jsonl}` or `stdout: {}`"),
        };
        Some(Destination { name: written.name, to })
    }

    fn write(plain: &Destination) -> Tree {
        let (file, stdout) = match &plain.to {
            Target::File(path) => (Some(FileTarget { path: path.clone() }), None),
            Target::Stdout => (None, Some(StdoutTarget {})),
        };
        WrittenDestination::write(&WrittenDestination { name: plain.name.clone(), file, stdout })
    }

    fn kind() -> Kind {
        WrittenDestination::kind()
    }
}
