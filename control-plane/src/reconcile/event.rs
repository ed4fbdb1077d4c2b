//! An Event for a resource that was refused: `kubectl describe` shows it below the resource, `kubectl get events` at all.

use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};
use spanmesh_crds::CONTROLLER;

use crate::api::resource::EVENT;
use crate::source::Verdict;
use crate::source::kube::Kind;
use crate::source::kube::object::Object;

/// Its namespace, and the Event. Its name is the same for the same refusal, so that it is there once.
pub fn refusal(kind: Kind, object: &Object, verdict: &Verdict, me: &str, now: Timestamp) -> (String, Value) {
    let metadata = &object.metadata;
    // Events of what is in no namespace are here: https://kubernetes.io/docs/reference/kubernetes-api/cluster-resources/event-v1/
    let namespace = if metadata.namespace.is_empty() { "default" } else { &metadata.namespace };
    let rest = if verdict.before { "; what it said before goes on" } else { "" };
    let note: String = format!("{}{rest}", verdict.problems.join("; ")).chars().take(NOTE).collect();
    let short: String = metadata.name.chars().take(NAME).collect();
    let uid: String = metadata.uid.chars().filter(char::is_ascii_alphanumeric).take(12).collect();
    let event = json!({
        "apiVersion": EVENT.api_version(),
        "kind": EVENT.kind,
        "metadata": {"name": format!("{short}.{uid}.{}", metadata.generation), "namespace": namespace},
        "eventTime": format!("{now:.6}"),
        "reportingController": CONTROLLER,
        "reportingInstance": me.chars().take(INSTANCE).collect::<String>(),
        "action": "Accept",
        "reason": "Invalid",
        "type": "Warning",
        "note": note,
        "regarding": {
            "apiVersion": kind.resource().api_version(),
            "kind": kind.resource().kind,
            "namespace": metadata.namespace,
            "name": metadata.name,
            "uid": metadata.uid,
            "resourceVersion": metadata.resource_version,
        },
    });
    (namespace.to_owned(), event)
}

/// Of 1,024 bytes that Kubernetes allows.
const NOTE: usize = 512;
const NAME: usize = 200;
const INSTANCE: usize = 128;
