//! The pages in JSON. `spanmesh proxy-status` reads them.

use serde_json::{Value, json};

use super::View;

pub const INDEX: &str = "\
/live       this program runs
/ready      the source was read, proxies are served
/proxies    who is connected, at which version, what was refused
/resources  what became of each resource
/captures   what each TraceCapture has collected
/metrics    for Prometheus
";

pub fn proxies(view: &View) -> Value {
    let version = view.pictures.borrow().as_ref().map_or(0, |picture| picture.version);
    let proxies = view.registry.list();
    let converged = view.registry.converged(version);
    let list = proxies.iter().map(|(id, seen)| {
        let report = seen.report.as_ref().map(|(heard, report)| {
            json!({
                "secondsAgo": heard.elapsed().as_secs(),
                "version": report.version,
                "windowMilliseconds": report.window,
                "arrivedKept": report.arrived_kept,
                "arrivedDropped": report.arrived_dropped,
                "unruled": report.unruled,
                "spans": report.spans,
                "guard": report.guard,
            })
        });
        let sums = &seen.sums;
        let rules = sums.rules.iter().map(|sum| {
            json!({
                "policy": sum.policy,
                "rule": sum.rule,
                "seen": sum.seen,
                "kept": sum.kept,
            })
        });
        let refusals = seen.refusals.iter().map(|(resource, reason)| json!({"resource": resource, "reason": reason}));
        json!({
            "id": id,
            "service": seen.node.service,
            "namespace": seen.node.namespace,
            "pod": seen.node.pod,
            "workload": seen.node.workload,
            "role": seen.node.role,
            "proxyVersion": seen.version,
            "peer": seen.peer,
            "connectedSeconds": seen.since.elapsed().as_secs(),
            "version": seen.picture,
            "inStep": seen.picture >= version && seen.refusals.is_empty(),
            "waitingForAnswer": seen.is_waiting,
            "refusals": refusals.collect::<Vec<_>>(),
            "unknown": seen.unknown,
            "report": report,
            "decided": {
                "arrivedKept": sums.arrived_kept,
                "arrivedDropped": sums.arrived_dropped,
                "unruled": sums.unruled,
                "spans": sums.spans,
                "rules": rules.collect::<Vec<_>>(),
                "otherRules": sums.others,
            },
        })
    });
    json!({
        "version": version,
        "connected": proxies.len(),
        "converged": converged,
        "proxies": list.collect::<Vec<_>>(),
    })
}

pub fn resources(view: &View) -> Value {
    let reading = view.readings.borrow();
    let list = reading.verdicts.iter().map(|verdict| {
        json!({
            "kind": verdict.kind,
            "namespace": verdict.namespace,
            "name": verdict.name,
            "generation": verdict.generation,
            "place": verdict.place,
            "accepted": verdict.accepted,
            "problems": verdict.problems,
            "goesOnAsBefore": verdict.before,
        })
    });
    json!({"resources": list.collect::<Vec<_>>()})
}

pub fn captures(view: &View) -> Value {
    let captures = view.captures.borrow();
    let list = captures.iter().map(|shown| {
        json!({
            "namespace": shown.namespace,
            "name": shown.name,
            "generation": shown.generation,
            "phase": shown.phase,
            "collected": shown.traces.len(),
            "asked": shown.asked,
            "traceIds": shown.traces,
            "permits": shown.permits,
        })
    });
    json!({"captures": list.collect::<Vec<_>>()})
}
