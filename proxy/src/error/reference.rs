//! `FLAGS.md`, written from the table.

use std::fmt::Write;

use super::{Fault, Flag, GrpcStatus};

/// The reference of all response flags as Markdown.
fn reference() -> String {
    let mut out = String::from(HEAD);
    for flag in Flag::ALL {
        let meaning = flag.meaning();
        let (http, grpc) = match (flag, meaning.grpc) {
            (Flag::Ok, _) => ("-".to_owned(), "-".to_owned()),
            (_, grpc) => (meaning.http.to_string(), format!("{} {}", grpc as u8, grpc_name(grpc))),
        };
        let retry = if flag.retry_fair() { "yes" } else { "no" };
        let (name, fault, envoy, text) = (meaning.name, fault_name(meaning.fault), meaning.envoy, meaning.text);
        // Writing into a String cannot fail.
        let _ = writeln!(out, "| `{name}` | {http} | {grpc} | {retry} | {fault} | {envoy} | {text} |");
    }
    out
}

fn grpc_name(status: GrpcStatus) -> &'static str {
    match status {
        GrpcStatus::Ok => "OK",
        GrpcStatus::Cancelled => "CANCELLED",
        GrpcStatus::DeadlineExceeded => "DEADLINE_EXCEEDED",
        GrpcStatus::PermissionDenied => "PERMISSION_DENIED",
        GrpcStatus::ResourceExhausted => "RESOURCE_EXHAUSTED",
        GrpcStatus::Unimplemented => "UNIMPLEMENTED",
        GrpcStatus::Internal => "INTERNAL",
        GrpcStatus::Unavailable => "UNAVAILABLE",
    }
}

fn fault_name(fault: Fault) -> &'static str {
    match fault {
        Fault::Nobody => "nobody",
        Fault::Client => "client",
        Fault::Proxy => "this proxy",
        Fault::Upstream => "upstream",
    }
}

const HEAD: &str = "\
# Response flags of the proxy

Generated from `src/error.rs`; a test fails when it is not fresh. To write it anew: `BLESS=1 cargo test -p spanmesh-proxy --lib error::reference`.

Every request and every opaque connection ends with one flag. It is the label `flag` of the metrics, the field `flag` of the access log and the
attribute `spanmesh.response.flag` of a span. An answer that the proxy makes itself has the flag's HTTP status and begins with its name and its
meaning, then the trace id where there is one; a gRPC call gets HTTP 200 with the gRPC status, and the flag's name as `grpc-message`. An answer
that came from the upstream keeps its own status: the flag is then `ok`, also for a 500.

*Retry fair* says whether sending the same request again, elsewhere, can be fair at all; the route's policy and the method decide the rest. *Envoy*
gives the letters by which Envoy's users know the like.

| flag | HTTP | gRPC | retry fair | whose fault | Envoy | what it means |
|---|---|---|---|---|---|---|
";

#[test]
fn the_reference_is_fresh() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/FLAGS.md");
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(path, reference()).expect("written");
    }
    let committed = std::fs::read_to_string(path).unwrap_or_default();
    assert!(committed == reference(), "FLAGS.md is old; run the tests with BLESS=1");
}
