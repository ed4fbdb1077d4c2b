//! Writes one family as OpenMetrics text 1.0: metadata, then its series in the order given.

use std::fmt::{self, Write};

use super::Labels;
use super::family::{Family, Kind, Unit};
use super::handle::{BOUNDS, Example, SUM};

/// What `/metrics` answers as `Content-Type`.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Label values, the summed cells, and an example for each bucket that has one.
pub(super) type Summed = (Labels, Vec<u64>, Vec<Option<Example>>);

/// `series`: sorted. A family without a series is left out.
pub(super) fn write_family(out: &mut String, family: &Family, series: &[Summed]) {
    if series.is_empty() {
        return;
    }
    // Writing into a String cannot fail.
    let _ = write_metadata(out, family);
    for (labels, cells, examples) in series {
        let _ = match family.kind {
            Kind::Counter => {
                write_sample(out, family, "_total", labels, None, |out| write_unsigned(out, family, cells))
            }
            Kind::Info => write_sample(out, family, "_info", labels, None, |out| out.write_str("1")),
            Kind::Gauge => write_sample(out, family, "", labels, None, |out| write_signed(out, family, cells)),
            Kind::Histogram => write_histogram(out, family, labels, cells, examples),
        };
    }
}

fn write_metadata(out: &mut String, family: &Family) -> fmt::Result {
    writeln!(out, "# TYPE {} {}", family.name, family.kind.name())?;
    if family.unit != Unit::None {
        writeln!(out, "# UNIT {} {}", family.name, family.unit.name())?;
    }
    writeln!(out, "# HELP {} {}", family.name, Escaped(family.help))
}

/// The count is the last cumulative bucket and not a cell of its own: the two can never disagree.
fn write_histogram(
    out: &mut String,
    family: &Family,
    labels: &Labels,
    cells: &[u64],
    examples: &[Option<Example>],
) -> fmt::Result {
    let mut count = 0u64;
    let bounds = BOUNDS.iter().map(|(_, bound)| *bound).chain(["+Inf"]);
    for ((bound, cell), example) in bounds.zip(cells).zip(examples) {
        count = count.wrapping_add(*cell);
        write_sample(out, family, "_bucket", labels, Some(bound), |out| {
            write!(out, "{count}")?;
            example.as_ref().map_or(Ok(()), |example| write_example(out, example))
        })?;
    }
    write_sample(out, family, "_count", labels, None, |out| write!(out, "{count}"))?;
    let sum = cells.get(SUM).copied().unwrap_or_default();
    write_sample(out, family, "_sum", labels, None, |out| write_seconds(out, sum))
}

fn write_sample(
    out: &mut String,
    family: &Family,
    suffix: &str,
    values: &Labels,
    bound: Option<&str>,
    write_value: impl FnOnce(&mut String) -> fmt::Result,
) -> fmt::Result {
    write!(out, "{}{suffix}", family.name)?;
    let labels = family.labels.iter().copied().zip(values.iter().map(|value| &**value));
    let mut open = '{';
    for (label, value) in labels.chain(bound.map(|bound| ("le", bound))) {
        write!(out, "{open}{label}=\"{}\"", Escaped(value))?;
        open = ',';
    }
    if open == ',' {
        out.push('}');
    }
    out.push(' ');
    write_value(out)?;
    out.push('\n');
    Ok(())
}

fn write_unsigned(out: &mut String, family: &Family, cells: &[u64]) -> fmt::Result {
    let value = cells.first().copied().unwrap_or_default();
    if family.unit == Unit::Seconds { write_seconds(out, value) } else { write!(out, "{value}") }
}

fn write_signed(out: &mut String, family: &Family, cells: &[u64]) -> fmt::Result {
    let value = cells.first().copied().unwrap_or_default().cast_signed();
    if value < 0 {
        out.push('-');
    }
    write_unsigned(out, family, &[value.unsigned_abs()])
}

fn write_example(out: &mut String, example: &Example) -> fmt::Result {
    write!(out, " # {{trace_id=\"{}\"}} ", example.trace)?;
    write_seconds(out, example.nanos)?;
    out.push(' ');
    write_seconds(out, example.unix_nanos)
}

/// Nanoseconds as seconds, without the detour of a float.
fn write_seconds(out: &mut String, nanoseconds: u64) -> fmt::Result {
    write!(out, "{}", nanoseconds / 1_000_000_000)?;
    match nanoseconds % 1_000_000_000 {
        0 => out.write_str(".0"),
        rest => {
            let digits = format!("{rest:09}");
            write!(out, ".{}", digits.trim_end_matches('0'))
        }
    }
}

struct Escaped<'a>(&'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for char in self.0.chars() {
            match char {
                '\\' => f.write_str("\\\\")?,
                '"' => f.write_str("\\\"")?,
                '\n' => f.write_str("\\n")?,
                char => f.write_char(char)?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::family::{self, FAMILIES};
    use super::super::{Registry, strict};

    #[test]
    fn the_text_is_openmetrics() {
        let registry = Registry::new();
        let (one, two) = (registry.shard(), registry.shard());
        for shard in [&one, &two] {
            let requests = shard.counter(family::REQUESTS, &["in", "server", "ok", "2xx", "http/1.1"]);
            requests.add(7);
            let duration = shard.histogram(family::REQUEST_DURATION_SECONDS, &["in", "server"]);
            duration.observe(Duration::from_micros(700));
            duration.observe(Duration::from_secs(90));
            let trace = spanmesh_proto::TraceId::from_bytes([0xab; 16]).expect("an id");
            duration.example(Duration::from_micros(700), trace, 1_700_000_000_500_000_000);
        }
        one.counter(family::ACCEPT_ERRORS, &["\"quoted\\\n\u{1}é"]).add(1);
        one.gauge(family::BUILD, &["0.1.0"]).set(1);
        one.gauge(family::PROCESS_START_TIME_SECONDS, &[]).set_duration(Duration::from_millis(1_700_000_000_250));
        one.counter(family::WORKER_BUSY_SECONDS, &["0"]).add_duration(Duration::from_nanos(1));
        one.gauge(family::SPANS_IN_FLIGHT, &["*"]).set(-3);
        let text = registry.render();
        let samples = strict::parse(&text).unwrap_or_else(|why| panic!("{why}\n{text}"));
        for line in [
            "# TYPE spanmesh_proxy_request_duration_seconds histogram\n# UNIT spanmesh_proxy_request_duration_seconds seconds\n\
             # HELP spanmesh_proxy_request_duration_seconds From the request's head to the last byte of its answer.\n",
            "spanmesh_proxy_requests_total{listener=\"in\",side=\"server\",flag=\"ok\",status_class=\"2xx\",protocol=\"http/1.1\"} 14\n",
            "spanmesh_proxy_request_duration_seconds_bucket{listener=\"in\",side=\"server\",le=\"0.001\"} 2 \
             # {trace_id=\"abababababababababababababababab\"} 0.0007 1700000000.5\n",
            "spanmesh_proxy_request_duration_seconds_bucket{listener=\"in\",side=\"server\",le=\"+Inf\"} 4\n",
            "spanmesh_proxy_request_duration_seconds_sum{listener=\"in\",side=\"server\"} 180.0014\n",
            "spanmesh_proxy_accept_errors_total{kind=\"\\\"quoted\\\\\\n\u{1}é\"} 1\n",
            "spanmesh_proxy_build_info{version=\"0.1.0\"} 1\n",
            "spanmesh_proxy_process_start_time_seconds 1700000000.25\n",
            "spanmesh_proxy_worker_busy_seconds_total{worker=\"0\"} 0.000000001\n",
            "spanmesh_proxy_spans_in_flight{destination=\"*\"} -3\n",
        ] {
            assert!(text.contains(line), "{line}\nis missing in\n{text}");
        }
        assert!(samples.iter().any(|sample| sample.labels.iter().any(|(_, value)| value == "\"quoted\\\n\u{1}é")));
    }

    #[test]
    fn an_empty_registry_is_only_its_end() {
        assert_eq!(Registry::new().render(), "# EOF\n");
    }

    #[test]
    fn every_family_can_be_written() {
        let registry = Registry::new();
        for (at, row) in FAMILIES.iter().enumerate() {
            registry.cells(at, 0, &vec!["value"; row.labels.len()]);
        }
        let text = registry.render();
        strict::parse(&text).unwrap_or_else(|why| panic!("{why}\n{text}"));
        assert_eq!(text.lines().filter(|line| line.starts_with("# TYPE ")).count(), FAMILIES.len());
    }
}
