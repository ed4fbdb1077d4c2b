//! Requests that are kept at their end, by what became of them.

use std::time::Duration;

use super::action::{NoFields, one_of};
use crate::config::grammar::{Name, Probability, Rate, Statuses};
use crate::config::model::{HOUR, MILLISECOND};
use crate::config::problem::suggest;
use crate::config::reader::Reader;
use crate::config::schema::{Form, Kind, section, words};
use crate::config::tree::Tree;
use crate::error::Flag;

section! {
    /// A rule for the end of a request: those that it is for are kept, if their trace was not. Only the spans of this hop are: all others have decided already. `spanmesh.sampling.decision` says `trigger`.
    pub struct Keep {
        /// What spans, metrics and logs call it. Left out: its place, `keep[0]`.
        name: Option<String> as Option<Name>,
        /// What must have become of the request; exactly one thing.
        when: KeepOn,
        /// This part of them is kept.
        fraction: f64 as Probability = 1.0,
        /// How many this proxy keeps.
        limit: KeepLimit = KeepLimit::default(),
    }
}

section! {
    /// How many a proxy keeps.
    pub struct KeepLimit: Copy Default {
        /// Requests in a second.
        traces_per_second: f64 as Rate = 10.0,
        /// Requests beyond it after a quiet time.
        burst: u32 [1u32 ..= 10_000u32] = 100,
    }
}

/// What became of a request.
#[derive(Clone, Debug, PartialEq)]
pub enum KeepOn {
    /// Its span is an error, by the conventions of its side.
    Errors,
    HttpStatus(Vec<StatusRange>),
    /// Its status of gRPC is one that makes its span an error.
    GrpcStatus,
    /// It ended with one of these.
    ResponseFlags(Vec<Flag>),
    /// It took at least so long.
    Latency(Duration),
    /// It was tried again at least so often.
    Retries(u32),
}

/// Statuses of HTTP, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StatusRange {
    pub first: u16,
    pub last: u16,
}

section! {
    /// One of these.
    pub struct WrittenOn {
        /// Its span is an error, by the conventions of its side.
        errors: Option<NoFields>,
        /// The status that the client saw: `"500-599"`, `"429"`.
        http_status: Option<Vec<StatusRange>> as Option<Vec<Statuses>>,
        /// The status of gRPC that the client saw.
        grpc_status: Option<GrpcStatusOn>,
        /// How it ended, by the names in `FLAGS.md`, such as `upstream_reset`.
        response_flags: Option<Vec<Flag>>,
        /// How long it took.
        latency: Option<LatencyOn>,
        /// How often it was tried again.
        retries: Option<RetriesOn>,
    }
}

words! {
    /// Statuses of gRPC.
    pub enum GrpcStatusOn {
        /// Those that make a span an error by the conventions of its side.
        Default = "Default",
    }
}

section! {
    /// From its head to its last byte.
    pub struct LatencyOn {
        /// At least this.
        threshold: Duration [MILLISECOND ..= HOUR],
    }
}

section! {
    /// Attempts behind the first.
    pub struct RetriesOn: Default {
        /// At least so many.
        min: u32 [1u32 ..= 100u32] = 1,
    }
}

impl Form for KeepOn {
    type Plain = KeepOn;

    fn read(reader: &mut Reader, tree: &Tree) -> Option<KeepOn> {
        let clean = reader.count();
        let written = WrittenOn::read(reader, tree)?;
        for (name, empty) in [
            ("httpStatus", written.http_status.as_ref().is_some_and(Vec::is_empty)),
            ("responseFlags", written.response_flags.as_ref().is_some_and(Vec::is_empty)),
        ] {
            if empty {
                reader.wrong_field(name, "is empty, so nothing is kept", "name one, or leave the rule out");
            }
        }
        let said = [
            written.errors.map(|_| KeepOn::Errors),
            written.http_status.map(KeepOn::HttpStatus),
            written.grpc_status.map(|_| KeepOn::GrpcStatus),
            written.response_flags.map(KeepOn::ResponseFlags),
            written.latency.map(|on| KeepOn::Latency(on.threshold)),
            written.retries.map(|on| KeepOn::Retries(on.min)),
        ];
        let right = "write `errors: {}`, `httpStatus: [\"500-599\"]`, `grpcStatus: Default`, `responseFlags: [upstream_reset]`, `latency: {threshold: 500ms}` or `retries: {}`; several are several rules";
        one_of(reader, clean, said, right)
    }

    fn write(plain: &KeepOn) -> Tree {
        let mut written = WrittenOn {
            errors: None,
            http_status: None,
            grpc_status: None,
            response_flags: None,
            latency: None,
            retries: None,
        };
        match plain {
            KeepOn::Errors => written.errors = Some(NoFields {}),
            KeepOn::HttpStatus(ranges) => written.http_status = Some(ranges.clone()),
            KeepOn::GrpcStatus => written.grpc_status = Some(GrpcStatusOn::Default),
            KeepOn::ResponseFlags(flags) => written.response_flags = Some(flags.clone()),
            KeepOn::Latency(threshold) => written.latency = Some(LatencyOn { threshold: *threshold }),
            KeepOn::Retries(min) => written.retries = Some(RetriesOn { min: *min }),
        }
        WrittenOn::write(&written)
    }

    fn kind() -> Kind {
        WrittenOn::kind()
    }
}

impl Form for Flag {
    type Plain = Flag;

    fn read(reader: &mut Reader, tree: &Tree) -> Option<Flag> {
        let word = crate::config::forms::text(reader, tree)?;
        let names: Vec<&str> = Flag::ALL.iter().map(|flag| flag.name()).collect();
        match Flag::ALL.into_iter().find(|flag| flag.name() == word) {
            Some(flag) => Some(flag),
            None => reader.wrong("is no response flag", suggest(word, "response flags", &names)),
        }
    }

    fn write(plain: &Flag) -> Tree {
        Tree::text(plain.name())
    }

    fn kind() -> Kind {
        Kind::Plain("a response flag".into())
    }
}
