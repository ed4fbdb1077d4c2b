//! `LIMITS.md`, written from the table.

use std::fmt::Write;

use super::Limit;

/// The reference of all limits as Markdown.
fn reference() -> String {
    let mut out = String::from(HEAD);
    for limit in Limit::ALL {
        let meaning = limit.meaning();
        let flag = meaning.flag.map_or("-".to_owned(), |flag| format!("`{}`", flag.name()));
        // Writing into a String cannot fail.
        let _ = writeln!(
            out,
            "| `{}` | {} | {flag} | {} | {} |",
            meaning.name, meaning.set_by, meaning.then, meaning.reason
        );
    }
    out.push_str(TAIL);
    out
}

const HEAD: &str = "\
# Limits of the proxy

Generated from `src/limit.rs`; a test fails when it is not fresh. To write it anew: `BLESS=1 cargo test -p spanmesh-proxy --lib limit::reference`.

Everything that a client or an upstream can make the proxy hold, wait for or do has a limit. Each time one is reached,
`spanmesh_proxy_limits_reached_total` counts it under its name; the request or connection ends with the flag that stands here, in the metrics and
the access log. The defaults stand in `CONFIGURATION.md`.

| limit | set by | flag | what happens | reason |
|---|---|---|---|---|
";

const TAIL: &str = "
Times that belong to one request or upstream end with a flag of their own, which `spanmesh_proxy_requests_total` and
`spanmesh_proxy_upstream_connect_failures_total` count: `upstreams[].connectTimeout` with `connect_timeout`, a route's `timeout` with
`request_timeout`, its `retry.attemptTimeout` with `attempt_timeout`, its `idleTimeout` with `idle_timeout`.

A client that does not read makes nobody wait and holds no more than the windows: 240 KiB of each HTTP/2 stream towards its upstream, 64 KiB of
each answer behind that, and what the kernel's socket buffers take.
";

#[test]
fn the_reference_is_fresh() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/LIMITS.md");
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(path, reference()).expect("written");
    }
    let committed = std::fs::read_to_string(path).unwrap_or_default();
    assert!(committed == reference(), "LIMITS.md is old; run the tests with BLESS=1");
}
