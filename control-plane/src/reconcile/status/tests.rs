use std::sync::Arc;

use serde_json::json;
use spanmesh_crds::{SamplingPolicySpec, TraceCaptureSpec};

use super::*;
use crate::cluster::{Meta, Resource};
use crate::picture::Picture;

const NOW: &str = "2026-05-01T10:00:00Z";

fn object(kind: Kind, generation: u64, status: Value) -> Arc<Object> {
    let namespace = if kind == Kind::MeshTracing { "" } else { "shop" };
    let spec = match kind {
        Kind::TraceCapture => json!({"traces": 5, "tracesPerSecond": 10, "duration": "10m"}),
        _ => json!({"targetRefs": [{"kind": "Service", "name": "cart"}], "defaults": {"parent": "Respect"}}),
    };
    let object = json!({
        "metadata": {"name": "a", "namespace": namespace, "uid": "1", "generation": generation, "resourceVersion": "1"},
        "spec": spec,
        "status": status,
    });
    Arc::new(serde_json::from_value(object).unwrap())
}

fn verdict(kind: Kind, generation: u64, problem: Option<&str>) -> Verdict {
    Verdict {
        kind: kind.resource().kind.into(),
        namespace: if kind == Kind::MeshTracing { String::new() } else { "shop".into() },
        name: "a".into(),
        generation,
        place: String::new(),
        accepted: problem.is_none(),
        problems: problem.into_iter().map(Into::into).collect(),
        before: problem.is_some(),
    }
}

fn meta(name: &str, created: i64, generation: u64) -> Meta {
    Meta { created, namespace: "shop".into(), name: name.into(), generation }
}

fn sampling(name: &str, created: i64, generation: u64) -> Resource<SamplingPolicySpec> {
    let spec = json!({"targetRefs": [{"kind": "Service", "name": "cart"}], "defaults": {"parent": "Respect"}});
    Resource { meta: meta(name, created, generation), spec: serde_json::from_value(spec).unwrap() }
}

fn stand(service: &str, proxies: &[(u64, Option<&str>)]) -> Stand {
    let seat = Seat { namespace: "shop".into(), service: service.into(), ..Seat::default() };
    Stand { seat, proxies: proxies.iter().map(|(picture, refusal)| (*picture, refusal.map(Into::into))).collect() }
}

/// One object among these proxies; the cluster's resources came with picture 7.
fn found(
    kind: Kind,
    object: &Arc<Object>,
    verdict: Verdict,
    cluster: Cluster,
    stands: Vec<Stand>,
    captures: &[Shown],
) -> Option<Found> {
    let mut placed = Placed::default();
    let cluster = Arc::new(cluster);
    placed.follow(&Picture::new(7, cluster.clone(), None));
    let now = NOW.parse().unwrap();
    let scene = Scene { verdicts: &[verdict], cluster: &cluster, placed: &placed, stands, captures, now };
    scene.statuses(&Arc::new(vec![(kind, object.clone())])).pop()
}

fn policy(status: Value, verdict: Verdict, stands: Vec<Stand>) -> Option<Found> {
    let cluster = Cluster { sampling: vec![sampling("a", 5, 2)], ..Cluster::default() };
    let object = object(Kind::SamplingPolicy, 2, status);
    found(Kind::SamplingPolicy, &object, verdict, cluster, stands, &[])
}

/// Type, status, reason and message of the first target's conditions.
fn said(found: &Found) -> Vec<String> {
    let value = serde_json::to_value(&found.status).unwrap();
    let conditions = value["ancestors"][0]["conditions"].as_array().or(value["conditions"].as_array()).unwrap().clone();
    let word = |condition: &Value, name: &str| condition[name].as_str().unwrap().to_owned();
    let line = |condition: &Value| {
        format!(
            "{} {} {}: {}",
            word(condition, "type"),
            word(condition, "status"),
            word(condition, "reason"),
            word(condition, "message")
        )
    };
    conditions.iter().map(line).collect()
}

#[test]
fn how_many_proxies_decide_by_a_generation_is_told() {
    let good = || verdict(Kind::SamplingPolicy, 2, None);
    let others = stand("orders", &[(1, None)]);
    let cases = [
        (stand("cart", &[]), "Converged Unknown NoProxies: no proxy that it concerns is connected"),
        (stand("cart", &[(6, None), (7, None)]), "Converged False Progressing: 1 of 2 proxies decide by generation 2"),
        (stand("cart", &[(9, None), (7, None)]), "Converged True Converged: 2 of 2 proxies decide by generation 2"),
        (
            stand("cart", &[(9, Some("policy/own: no")), (7, None)]),
            "Converged False Refused: 1 of 2 proxies decide by generation 2; one refuses policy/own: no; `spanmesh proxy-status` names it",
        ),
    ];
    for (cart, converged) in cases {
        let found = policy(Value::Null, good(), vec![cart, others.clone()]).unwrap();
        let said = said(&found);
        assert_eq!(said[0], "Accepted True Accepted: it is valid");
        assert_eq!(said[1], "Programmed True Programmed: it is given to proxies as they connect");
        assert_eq!(said[2], converged);
        assert!(found.flips);
    }
}

#[test]
fn what_is_there_already_is_not_written_again() {
    let good = || verdict(Kind::SamplingPolicy, 2, None);
    let first = policy(Value::Null, good(), vec![stand("cart", &[(6, None), (7, None)])]).unwrap();
    let there = serde_json::to_value(&first.status).unwrap();
    assert!(policy(there.clone(), good(), vec![stand("cart", &[(6, None), (7, None)])]).is_none());
    // Another count is news, but nothing has turned, and the time stays.
    let mut old = there.clone();
    old["ancestors"][0]["conditions"][2]["lastTransitionTime"] = json!("2026-01-01T00:00:00Z");
    let next = policy(old, good(), vec![stand("cart", &[(6, None), (7, None), (7, None)])]).unwrap();
    let next_value = serde_json::to_value(&next.status).unwrap();
    assert!(!next.flips);
    assert_eq!(next_value["ancestors"][0]["conditions"][2]["lastTransitionTime"], "2026-01-01T00:00:00Z");
    // Somebody has written nonsense: it is put right.
    let mut broken = there;
    broken["ancestors"][0]["conditions"][0]["status"] = json!("False");
    assert!(policy(broken, good(), vec![stand("cart", &[(6, None), (7, None)])]).unwrap().flips);
}

#[test]
fn a_refused_one_says_what_to_do_and_that_it_goes_on_as_before() {
    let bad = verdict(Kind::SamplingPolicy, 3, Some("spec.x: write y"));
    let cluster = Cluster { sampling: vec![sampling("a", 5, 2)], ..Cluster::default() };
    let object = object(Kind::SamplingPolicy, 3, Value::Null);
    let found = found(Kind::SamplingPolicy, &object, bad, cluster, vec![stand("cart", &[(7, None)])], &[]).unwrap();
    assert_eq!(
        said(&found),
        [
            "Accepted False Invalid: spec.x: write y; what it said before goes on",
            "Programmed False Invalid: a resource that was refused is given to no proxy",
            "Converged False Invalid: no proxy decides by a resource that was refused",
        ]
    );
}

#[test]
fn the_younger_of_two_says_that_it_gives_way() {
    let cluster = Cluster { sampling: vec![sampling("older", 1, 1), sampling("a", 5, 2)], ..Cluster::default() };
    let object = object(Kind::SamplingPolicy, 2, Value::Null);
    let good = verdict(Kind::SamplingPolicy, 2, None);
    let found = found(Kind::SamplingPolicy, &object, good, cluster, vec![stand("cart", &[(7, None)])], &[]).unwrap();
    assert_eq!(said(&found)[0], "Accepted False Conflicted: its `parent` gives way to shop/older, which is older");
}

#[test]
fn one_that_gives_way_in_a_part_of_it_holds_for_the_rest() {
    let mut both = sampling("a", 5, 2);
    both.spec.defaults.as_mut().unwrap().keep = Some(Vec::new());
    let cluster = Cluster { sampling: vec![sampling("older", 1, 1), both], ..Cluster::default() };
    let mut object = object(Kind::SamplingPolicy, 2, Value::Null);
    Arc::make_mut(&mut object).spec["defaults"]["keep"] = json!([]);
    let good = verdict(Kind::SamplingPolicy, 2, None);
    let found = found(Kind::SamplingPolicy, &object, good, cluster, vec![stand("cart", &[(7, None)])], &[]).unwrap();
    assert_eq!(
        said(&found)[0],
        "Accepted True Accepted: it is valid, but its `parent` gives way to shop/older, which is older; the rest of it holds"
    );
}

#[test]
fn a_generation_that_was_not_judged_yet_is_not_talked_about() {
    assert!(policy(Value::Null, verdict(Kind::SamplingPolicy, 1, None), Vec::new()).is_none());
}

#[test]
fn entries_of_other_controllers_stay() {
    let theirs = json!({
        "ancestorRef": {"group": "", "kind": "Service", "namespace": "shop", "name": "cart"},
        "controllerName": "example.com/other",
        "conditions": [],
    });
    let found = policy(json!({"ancestors": [theirs]}), verdict(Kind::SamplingPolicy, 2, None), Vec::new()).unwrap();
    let value = serde_json::to_value(&found.status).unwrap();
    assert_eq!(value["ancestors"].as_array().unwrap().len(), 2);
    assert_eq!(value["ancestors"][1]["controllerName"], "example.com/other");
}

#[test]
fn the_mesh_counts_all_proxies() {
    let mesh = Resource { meta: Meta { namespace: String::new(), ..meta("a", 1, 1) }, spec: Default::default() };
    let cluster = Cluster { mesh: Some(mesh), ..Cluster::default() };
    let object = object(Kind::MeshTracing, 1, Value::Null);
    let stands = vec![stand("cart", &[(7, None)]), stand("orders", &[(6, None)])];
    let found = found(Kind::MeshTracing, &object, verdict(Kind::MeshTracing, 1, None), cluster, stands, &[]).unwrap();
    let value = serde_json::to_value(&found.status).unwrap();
    assert_eq!((&value["observedProxies"], &value["convergedProxies"]), (&json!(2), &json!(1)));
    assert_eq!(value["observedGeneration"], 1);
}

#[test]
fn a_capture_says_what_it_has_collected_and_ends_once() {
    let spec = json!({"traces": 5, "tracesPerSecond": 10, "duration": "10m"});
    let spec: TraceCaptureSpec = serde_json::from_value(spec).unwrap();
    let cluster =
        || Cluster { captures: vec![Resource { meta: meta("a", 1, 1), spec: spec.clone() }], ..Cluster::default() };
    let shown = |phase: &'static str, traces: &[&str]| Shown {
        namespace: "shop".into(),
        name: "a".into(),
        generation: 1,
        phase,
        asked: 5,
        traces: traces.iter().map(|trace| (*trace).into()).collect(),
        permits: 0,
    };
    let of = |status: Value, shown: Shown| {
        let object = object(Kind::TraceCapture, 1, status);
        let found =
            found(Kind::TraceCapture, &object, verdict(Kind::TraceCapture, 1, None), cluster(), Vec::new(), &[shown]);
        found.map(|found| serde_json::to_value(&found.status).unwrap())
    };
    let running = of(Value::Null, shown("Running", &["aa"])).unwrap();
    assert_eq!((&running["phase"], &running["collected"]), (&json!("Running"), &json!(1)));
    assert_eq!((&running["startTime"], &running["endTime"]), (&json!(NOW), &Value::Null));
    let second = of(running.clone(), shown("Running", &["cc"])).unwrap();
    assert_eq!((&second["traceIds"], &second["collected"]), (&json!(["aa", "cc"]), &json!(2)), "of another leader");
    let done = of(running, shown("Done", &["aa", "bb"])).unwrap();
    assert_eq!(
        (&done["phase"], &done["traceIds"], &done["endTime"]),
        (&json!("Done"), &json!(["aa", "bb"]), &json!(NOW))
    );
    assert!(of(done, shown("Running", &[])).is_none(), "another control plane has not begun it");
}
