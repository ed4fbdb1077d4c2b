//! Metrics in OpenMetrics' text.

use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};

use super::View;
use crate::push::registry::LATENCIES;

pub const TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

pub fn all(view: &View) -> String {
    let mut text = String::new();
    let version = view.pictures.borrow().as_ref().map_or(0, |picture| picture.version);
    let (accepted, refused) = {
        let reading = view.readings.borrow();
        let accepted = reading.verdicts.iter().filter(|verdict| verdict.accepted).count();
        (accepted, reading.verdicts.len() - accepted)
    };
    let counts = &view.registry.counts;
    let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    for (name, about, value) in [
        ("picture_version", "The version of the picture that proxies are brought to.", version),
        ("proxies_connected", "Proxies that are connected.", view.registry.connected() as u64),
        (
            "proxies_converged",
            "Proxies that have the present version in force.",
            view.registry.converged(version) as u64,
        ),
        ("resources_accepted", "Resources that are in force.", accepted as u64),
        ("resources_refused", "Resources that were refused.", refused as u64),
    ] {
        let _ = write!(text, "# TYPE {PREFIX}{name} gauge\n# HELP {PREFIX}{name} {about}\n{PREFIX}{name} {value}\n");
    }
    for (name, about, value) in [
        ("proxy_connections", "Streams of proxies that began.", read(&counts.connections)),
        ("proxy_connections_turned_away", "Connections that there was no room for.", read(&counts.turned_away)),
        (
            "proxy_connections_failed",
            "Connections that ended before a proxy was served over them: no TLS, no HTTP/2, or no stream in time.",
            read(&counts.failed),
        ),
        (
            "proxy_streams_sent_away",
            "Streams that were told to come back later, because too many came at once.",
            view.door.sent_away(),
        ),
        ("pushes", "Pushes that were sent.", read(&counts.pushes)),
        ("pushed_bytes", "Bytes of resources in them.", read(&counts.pushed_bytes)),
        ("acknowledged", "Pushes that are in force.", read(&counts.acks)),
        ("refused", "Pushes of which a proxy refused a part.", read(&counts.nacks)),
        ("missteps", "Streams that ended because a proxy did what it must not.", read(&counts.missteps)),
        ("reports_dropped", "Reports of proxies that there was no room for.", read(&counts.reports_dropped)),
    ] {
        let _ = write!(
            text,
            "# TYPE {PREFIX}{name} counter\n# HELP {PREFIX}{name} {about}\n{PREFIX}{name}_total {value}\n"
        );
    }
    asked(&mut text, view);
    latencies(&mut text, view);
    text.push_str("# EOF\n");
    text
}

fn asked(text: &mut String, view: &View) {
    let Some(counts) = &view.asked else { return };
    let name = "kubernetes_requests";
    let _ = write!(
        text,
        "# TYPE {PREFIX}{name} counter\n# HELP {PREFIX}{name} Requests to the API server by what came of them.\n"
    );
    for (verb, outcome, count) in counts.all() {
        let _ = writeln!(text, "{PREFIX}{name}_total{{verb=\"{verb}\",outcome=\"{outcome}\"}} {count}");
    }
}

fn latencies(text: &mut String, view: &View) {
    let counts = &view.registry.counts;
    let name = "push_duration_seconds";
    let _ = write!(
        text,
        "# TYPE {PREFIX}{name} histogram\n# UNIT {PREFIX}{name} seconds\n\
         # HELP {PREFIX}{name} From a change to its acknowledgement by a proxy.\n"
    );
    let mut sum = 0;
    let bounds = LATENCIES.iter().map(|bound| bound.as_secs_f64().to_string()).chain(["+Inf".to_owned()]);
    for (bound, bucket) in bounds.zip(&counts.latencies) {
        sum += bucket.load(Ordering::Relaxed);
        let _ = writeln!(text, "{PREFIX}{name}_bucket{{le=\"{bound}\"}} {sum}");
    }
    let seconds = counts.latency_micros.load(Ordering::Relaxed) as f64 / 1e6;
    let _ = write!(text, "{PREFIX}{name}_count {sum}\n{PREFIX}{name}_sum {seconds}\n");
}

const PREFIX: &str = "spanmesh_control_plane_";
