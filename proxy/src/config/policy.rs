//! The policy as it is written in the file, in the shape that a control plane will push.

use std::path::PathBuf;

use super::grammar::Name;
use super::reader::Reader;
use super::schema::{Form, Kind, section, words};
use super::tree::Tree;

section! {
    /// How traces are read, written and reported.
    pub struct Policy: Default {
        /// Which headers carry the trace.
        propagation: Propagation = Propagation::default(),
        /// Where spans go.
        destinations: Vec<Destination> = Vec::new(),
    }
    later {
        "sampling": "write `{}` or leave it out: this version has no sampling to set" empty;
    }
}

section! {
    /// Which headers carry the trace.
    pub struct Propagation: Default {
        /// Formats that are read; the first that is there wins.
        extract: Vec<Format> = vec![Format::W3c],
        /// Formats that are written.
        inject: Vec<Format> = vec![Format::W3c],
        /// The `baggage` header is passed on.
        baggage: bool = true,
    }
    later {
        "clear": "write `[]` or leave it out: this version takes no headers away" empty;
    }
}

words! {
    /// A family of headers that carry a trace.
    pub enum Format {
        /// `traceparent` and `tracestate`.
        W3c = "w3c",
    }
    later { "b3", "b3multi", "jaeger", "xray", "datadog", "gcp", "skywalking", "binary", "ottrace" }
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
