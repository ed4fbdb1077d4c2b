//! What the watches have told: the resources as they are, and of each what it said last that was right.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use serde_json::Value;
use spanmesh_crds::Period;

use super::object::{Name, Named, Object};
use super::pods::Pods;
use super::{Change, Kind, News, Objects};
use crate::cluster::{Cluster, Meta, Resource};
use crate::source::document::Spec;
use crate::source::{Reading, Verdict};
use crate::workloads::Workloads;

#[derive(Default)]
pub struct Held {
    ours: BTreeMap<(Kind, Name), One>,
    listed: BTreeSet<Kind>,
    pods: Pods,
    /// Of the pods as they were told last.
    workloads: Arc<Workloads>,
    is_changed: bool,
    last: Reading,
    is_told: bool,
}

struct One {
    object: Arc<Object>,
    problems: Vec<String>,
    /// The last that was right, of the same object.
    good: Option<(Meta, Spec)>,
}

impl Held {
    /// Whether it is to be told at once.
    pub fn take(&mut self, news: News) -> bool {
        let was_whole = self.is_whole();
        match news {
            News::Pods(change) => {
                self.is_changed |= self.pods.take_pods(change);
                return !was_whole && self.is_whole();
            }
            News::Services(change) => {
                self.is_changed |= self.pods.take_services(change);
                return !was_whole && self.is_whole();
            }
            News::Ours(kind, Change::All(objects)) => {
                let names: BTreeSet<Name> = objects.iter().map(Named::name).collect();
                self.ours.retain(|(other, name), _| *other != kind || names.contains(name));
                objects.into_iter().for_each(|object| self.set(kind, object));
                self.listed.insert(kind);
            }
            News::Ours(kind, Change::Set(object)) => self.set(kind, object),
            News::Ours(kind, Change::Gone(name)) => {
                self.ours.remove(&(kind, name));
            }
        }
        true
    }

    /// Pods or services are others than were told last.
    pub fn is_changed(&self) -> bool {
        self.is_changed
    }

    /// All kinds were listed: what is not here is not there.
    pub fn is_whole(&self) -> bool {
        self.listed.len() == Kind::ALL.len() && self.pods.is_whole()
    }

    /// Nothing if it is as it was.
    pub fn reading(&mut self) -> Option<Reading> {
        if std::mem::take(&mut self.is_changed) {
            let workloads = self.pods.workloads();
            if workloads != *self.workloads {
                self.workloads = Arc::new(workloads);
            }
        }
        let reading = Reading { cluster: Arc::new(self.cluster()), verdicts: Arc::new(self.verdicts()) };
        let is_same = reading.cluster == self.last.cluster && reading.verdicts == self.last.verdicts;
        if is_same && self.is_told {
            return None;
        }
        self.is_told = true;
        self.last = reading.clone();
        Some(reading)
    }

    pub fn objects(&self) -> Objects {
        Arc::new(self.ours.iter().map(|((kind, _), one)| (*kind, one.object.clone())).collect())
    }

    fn set(&mut self, kind: Kind, object: Object) {
        let key = (kind, object.name());
        let before = self.ours.remove(&key).filter(|one| one.object.metadata.uid == object.metadata.uid);
        let one = match before {
            // A status was written, or a label: what it says is what it said.
            Some(one)
                if one.object.spec == object.spec && one.object.metadata.generation == object.metadata.generation =>
            {
                One { object: Arc::new(object), ..one }
            }
            before => match object
                .says(kind)
                .map(|spec| resumed(spec, &object.status, before.is_some(), Timestamp::now()))
            {
                Ok(spec) => {
                    One { good: Some((object.metadata.meta(), spec)), problems: Vec::new(), object: Arc::new(object) }
                }
                Err(problems) => One { good: before.and_then(|one| one.good), problems, object: Arc::new(object) },
            },
        };
        self.ours.insert(key, one);
    }

    fn cluster(&self) -> Cluster {
        let mut cluster = Cluster { workloads: self.workloads.clone(), ..Cluster::default() };
        for one in self.ours.values() {
            let Some((meta, spec)) = one.good.clone() else { continue };
            match spec {
                Spec::MeshTracing(spec) => cluster.mesh = Some(Resource { meta, spec }),
                Spec::SamplingPolicy(spec) => cluster.sampling.push(Resource { meta, spec }),
                Spec::SpanPolicy(spec) => cluster.spans.push(Resource { meta, spec }),
                Spec::TraceCapture(spec) if !one.is_over() => cluster.captures.push(Resource { meta, spec }),
                Spec::TraceCapture(_) => {}
            }
        }
        cluster.sort();
        cluster
    }

    fn verdicts(&self) -> Vec<Verdict> {
        self.ours.iter().map(|((kind, name), one)| one.verdict(*kind, name)).collect()
    }
}

/// A capture that another control plane has begun goes on with what is left of it.
fn resumed(spec: Spec, status: &Value, is_known: bool, now: Timestamp) -> Spec {
    let began = status["startTime"].as_str().and_then(|began| began.parse::<Timestamp>().ok());
    match (spec, began) {
        (Spec::TraceCapture(mut spec), Some(began)) if !is_known => {
            let asked = spec.duration.parse().unwrap_or_default();
            let gone = Duration::try_from(now.duration_since(began)).unwrap_or_default();
            // Both have a least value, with which it ends very soon.
            spec.duration = Period(format!("{}s", asked.saturating_sub(gone).as_secs().max(1)));
            let collected = status["collected"].as_u64().and_then(|count| u32::try_from(count).ok()).unwrap_or(0);
            spec.traces = spec.traces.saturating_sub(collected).max(1);
            Spec::TraceCapture(spec)
        }
        (spec, _) => spec,
    }
}

impl One {
    fn verdict(&self, kind: Kind, name: &Name) -> Verdict {
        let metadata = &self.object.metadata;
        let accepted = self.problems.is_empty();
        Verdict {
            kind: kind.resource().kind.to_owned(),
            namespace: name.namespace.clone(),
            name: name.name.clone(),
            generation: metadata.generation,
            place: format!("generation {}", metadata.generation),
            accepted,
            problems: self.problems.clone(),
            before: !accepted && self.good.is_some(),
        }
    }

    /// A capture that its status says has ended does not begin anew with another control plane.
    fn is_over(&self) -> bool {
        matches!(self.object.status["phase"].as_str(), Some("Done" | "Expired"))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn policy(name: &str, uid: &str, generation: u64, rate: &str) -> Object {
        object(json!({
            "metadata": {"name": name, "namespace": "shop", "uid": uid, "generation": generation, "resourceVersion": "1"},
            "spec": {
                "targetRefs": [{"kind": "Namespace", "name": "shop"}],
                "defaults": {"head": {"rules": [{"name": "all", "action": {"probability": rate}}]}},
            },
        }))
    }

    fn object(value: Value) -> Object {
        serde_json::from_value(value).unwrap()
    }

    fn whole(policies: Vec<Object>) -> Held {
        let mut held = Held::default();
        for kind in Kind::ALL {
            assert!(!held.is_whole());
            let list = if kind == Kind::SamplingPolicy { policies.clone() } else { Vec::new() };
            held.take(News::Ours(kind, Change::All(list)));
        }
        held.take(News::Pods(Change::All(Vec::new())));
        assert!(held.take(News::Services(Change::All(Vec::new()))), "now it is whole");
        assert!(held.is_whole());
        held
    }

    fn set(held: &mut Held, object: Object) -> Option<Reading> {
        held.take(News::Ours(Kind::SamplingPolicy, Change::Set(object)));
        held.reading()
    }

    fn names(reading: &Reading) -> Vec<(&str, u64)> {
        reading.cluster.sampling.iter().map(|policy| (policy.meta.name.as_str(), policy.meta.generation)).collect()
    }

    #[test]
    fn what_is_wrong_is_refused_and_what_the_same_object_said_before_goes_on() {
        let mut held = whole(vec![policy("a", "1", 1, "0.1")]);
        assert_eq!(names(&held.reading().unwrap()), [("a", 1)]);
        let reading = set(&mut held, policy("a", "1", 2, "7")).unwrap();
        assert_eq!(names(&reading), [("a", 1)]);
        let verdict = &reading.verdicts[0];
        assert_eq!((verdict.accepted, verdict.before, verdict.generation), (false, true, 2));
        assert!(verdict.problems[0].starts_with("spec.defaults.head.rules[0]"), "{:?}", verdict.problems);
        // Another object of the same name has said nothing yet.
        let reading = set(&mut held, policy("a", "2", 1, "7")).unwrap();
        assert!(names(&reading).is_empty() && !reading.verdicts[0].before);
        assert_eq!(names(&set(&mut held, policy("a", "2", 2, "0.5")).unwrap()), [("a", 2)]);
    }

    #[test]
    fn a_status_that_was_written_is_no_news() {
        let mut held = whole(vec![policy("a", "1", 1, "0.1")]);
        held.reading().unwrap();
        let mut written = policy("a", "1", 1, "0.1");
        written.status = json!({"ancestors": []});
        written.metadata.resource_version = "2".into();
        assert!(set(&mut held, written).is_none());
        assert_eq!(held.objects()[0].1.metadata.resource_version, "2");
    }

    #[test]
    fn a_list_is_all_there_is() {
        let mut held = whole(vec![policy("a", "1", 1, "0.1"), policy("b", "2", 1, "0.1")]);
        held.reading().unwrap();
        held.take(News::Ours(Kind::SamplingPolicy, Change::All(vec![policy("b", "2", 1, "0.1")])));
        assert_eq!(names(&held.reading().unwrap()), [("b", 1)]);
        held.take(News::Ours(Kind::SamplingPolicy, Change::Gone(policy("b", "2", 1, "0.1").name())));
        assert!(held.reading().unwrap().cluster.sampling.is_empty());
    }

    #[test]
    fn nothing_at_all_is_read_once() {
        let mut held = whole(Vec::new());
        assert!(held.reading().is_some());
        assert!(held.reading().is_none());
    }

    #[test]
    fn a_capture_that_has_begun_goes_on_and_one_that_has_ended_does_not() {
        let capture = |status: Value| {
            object(json!({
                "metadata": {"name": "next", "namespace": "shop", "uid": "1", "generation": 1},
                "spec": {"traces": 5, "tracesPerSecond": 10, "duration": "10m"},
                "status": status,
            }))
        };
        let began = json!({"phase": "Running", "startTime": "2026-05-01T10:00:00Z", "collected": 3});
        let Ok(spec) = capture(began.clone()).says(Kind::TraceCapture) else { panic!("is right") };
        let now = "2026-05-01T10:04:00Z".parse().unwrap();
        let Spec::TraceCapture(left) = resumed(spec.clone(), &began, false, now) else { panic!("is one") };
        assert_eq!((left.duration, left.traces), (Period("360s".into()), 2));
        assert_eq!(resumed(spec.clone(), &began, true, now), spec, "it is running here");
        let mut held = whole(Vec::new());
        for (status, runs) in [(Value::Null, 1), (json!({"phase": "Running"}), 1), (json!({"phase": "Done"}), 0)] {
            held.take(News::Ours(Kind::TraceCapture, Change::Set(capture(status))));
            assert_eq!(held.cluster().captures.len(), runs);
        }
    }
}
