//! The pages in JSON. `spanmesh proxy-status` reads them.

use serde::Serialize;
use serde_json::{Value, json};
use spanmesh_crds::{GROUP, MeshTracingSpec, VERSION};

use super::View;
use crate::cluster::{Cluster, Meta};
use crate::source::written;

pub const INDEX: &str = "\
/live       this program runs
/ready      the source was read, proxies are served
/proxies    who is connected, at which version, what was refused
/resources  what became of each resource
/sampling   the resources in force that decide which traces are kept
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

/// What `spanmesh policy explain` needs to decide as the proxies do. Where spans go is left out: it may have secrets in it.
pub fn sampling(view: &View) -> Value {
    let cluster = view.readings.borrow().cluster.clone();
    deciding(&cluster)
}

fn deciding(cluster: &Cluster) -> Value {
    let mesh = cluster.mesh.iter().map(|mesh| {
        let spec = MeshTracingSpec { destinations: Default::default(), ..mesh.spec.clone() };
        document("MeshTracing", &mesh.meta, &spec)
    });
    let sampling = cluster.sampling.iter().map(|policy| document("SamplingPolicy", &policy.meta, &policy.spec));
    let captures = cluster.captures.iter().map(|capture| document("TraceCapture", &capture.meta, &capture.spec));
    json!({"items": mesh.chain(sampling).chain(captures).collect::<Vec<_>>()})
}

fn document(kind: &str, meta: &Meta, spec: &impl Serialize) -> Value {
    let mut metadata = json!({"name": meta.name, "generation": meta.generation});
    if !meta.namespace.is_empty() {
        metadata["namespace"] = meta.namespace.clone().into();
    }
    if meta.created != 0 {
        metadata["creationTimestamp"] = written(meta.created).into();
    }
    json!({"apiVersion": format!("{GROUP}/{VERSION}"), "kind": kind, "metadata": metadata, "spec": spec})
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

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::source::Reading;
    use crate::source::dir::{self, Folder};

    #[test]
    fn what_decides_is_shown_as_it_is_and_no_secret_with_it() {
        let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../crds/examples");
        let read = Folder::default().update(dir::read(&examples)).expect("a reading");
        assert!(read.verdicts.iter().all(|verdict| verdict.accepted), "{:?}", read.verdicts);
        let mut expected = (*read.cluster).clone();
        for (place, policy) in expected.sampling.iter_mut().enumerate() {
            policy.meta.created = 951_868_801;
            policy.meta.generation = 3 + place as u64;
        }
        expected.sort();
        let page = deciding(&expected);
        assert!(!page.to_string().contains("token"), "{page}");
        let shown = Reading::shown(&page).expect("a page");
        assert_eq!(*shown.verdicts, []);
        expected.spans.clear();
        expected.mesh.iter_mut().for_each(|mesh| mesh.spec.destinations.clear());
        assert_eq!(*shown.cluster, expected);
        assert!(Reading::shown(&json!({})).is_none());
    }
}
