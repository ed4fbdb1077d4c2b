//! `METRICS.md`, written from the table.

use std::fmt::Write;

use super::SERIES_LIMIT;
use super::family::{FAMILIES, Kind, Unit};
use super::handle::BOUNDS;

/// The reference of all metrics as Markdown.
pub fn reference() -> String {
    let bounds: Vec<_> = BOUNDS.iter().map(|(_, bound)| *bound).collect();
    let mut out = format!(
        "# Metrics of the proxy\n\n\
         Generated from `src/telemetry/metrics/family.rs`; a test fails when it is not fresh.\n\n\
         `/metrics` answers OpenMetrics text 1.0 on the status and the admin server. A family appears with its first series. \
         Beyond {SERIES_LIMIT} series a family's new series are counted as `other`, and \
         `spanmesh_proxy_series_overflowed_total` tells. Buckets of every histogram, in seconds: {}.\n\n\
         | name | type | unit | labels | what it says |\n|---|---|---|---|---|\n",
        bounds.join(", ")
    );
    for family in FAMILIES {
        let suffix = match family.kind {
            Kind::Counter => "_total",
            Kind::Info => "_info",
            Kind::Gauge | Kind::Histogram => "",
        };
        let unit = if family.unit == Unit::None { "" } else { family.unit.name() };
        let labels: Vec<_> = family.labels.iter().map(|label| format!("`{label}`")).collect();
        // Writing into a String cannot fail.
        let _ = writeln!(
            out,
            "| `{}{suffix}` | {} | {unit} | {} | {} |",
            family.name,
            family.kind.name(),
            labels.join(" "),
            family.help
        );
    }
    out
}

#[test]
fn the_reference_is_fresh() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/METRICS.md");
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(path, reference()).expect("written");
    }
    let committed = std::fs::read_to_string(path).unwrap_or_default();
    assert!(committed == reference(), "METRICS.md is old; run the tests with BLESS=1");
}
