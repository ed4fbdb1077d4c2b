//! What is wrong with a resource: everything that an API server would refuse by schema or CEL, in the same words, and what
//! neither can say. A folder of files has no API server, so whoever reads one asks here.

mod sampling;
mod spans;

use std::sync::LazyLock;

use serde::Serialize;
use serde_json::Value;

use crate::bounds;
use crate::definition::{definitions, schema};
use crate::grammar::is_object;
use crate::problem::{Check, Problem};
use crate::says;
use crate::{MeshTracingSpec, SamplingPolicySpec, SpanPolicySpec, TargetKind, TargetRef, TraceCaptureSpec};

/// `name` is what the resource is called.
pub fn mesh_tracing(name: &str, spec: &MeshTracingSpec) -> Vec<Problem> {
    let mut check = Check::default();
    let is_default = name == "default";
    check.field("metadata", |check| check.field("name", |check| check.must(is_default, says::DEFAULT_NAME)));
    check.field("spec", |check| {
        bound(check, 0, spec);
        spans::destinations(check, &spec.destinations);
        check.some("propagation", spec.propagation.as_ref(), spans::propagation);
        check.some("budgets", spec.budgets.as_ref(), |check, budgets| {
            let says = budgets.spans_per_second.is_some() || !budgets.services.is_empty();
            check.must(says, says::SOME_BUDGET);
            check.each("services", &budgets.services, |check, budget| {
                check.field("service", |check| check.must(is_object(&budget.service), says::OBJECT));
                check.field("namespace", |check| check.must(is_object(&budget.namespace), says::OBJECT));
            });
        });
        check.some("defaults", spec.defaults.as_ref(), sampling::look);
        check.some("overrides", spec.overrides.as_ref(), sampling::look);
    });
    check.problems
}

/// `namespace` is the one that the resource is in.
pub fn sampling_policy(namespace: &str, spec: &SamplingPolicySpec) -> Vec<Problem> {
    let mut check = Check::default();
    check.field("spec", |check| {
        bound(check, 1, spec);
        check.must(spec.defaults.is_some() || spec.overrides.is_some(), says::SOME_POLICY);
        let is_wide = spec.target_refs.iter().any(|target| target.kind == TargetKind::Namespace);
        check.must(is_wide || spec.overrides.is_none(), says::OVERRIDES);
        targets(check, &spec.target_refs, namespace);
        check.some("defaults", spec.defaults.as_ref(), sampling::look);
        check.some("overrides", spec.overrides.as_ref(), sampling::look);
    });
    check.problems
}

/// `namespace` is the one that the resource is in.
pub fn span_policy(namespace: &str, spec: &SpanPolicySpec) -> Vec<Problem> {
    let mut check = Check::default();
    check.field("spec", |check| {
        bound(check, 2, spec);
        let says = spec.attributes.is_some()
            || spec.redaction.is_some()
            || spec.propagation.is_some()
            || spec.destinations.is_some();
        check.must(says, says::SOME_SPAN);
        targets(check, &spec.target_refs, namespace);
        spans::attributes(check, spec.attributes.as_deref().unwrap_or_default());
        check.some("propagation", spec.propagation.as_ref(), spans::propagation);
        spans::destinations(check, spec.destinations.as_deref().unwrap_or_default());
    });
    check.problems
}

/// `namespace` is the one that the resource is in.
pub fn trace_capture(namespace: &str, spec: &TraceCaptureSpec) -> Vec<Problem> {
    let mut check = Check::default();
    check.field("spec", |check| {
        bound(check, 3, spec);
        check.some("targetRef", spec.target_ref.as_ref(), |check, reference| {
            target(check, reference, namespace);
        });
        check.some("match", spec.matching.as_ref(), sampling::matching);
        let fits = |time: std::time::Duration| (1..=3600).contains(&time.as_secs());
        let fits = spec.duration.parse().is_ok_and(|time| fits(time) && time.as_millis() <= 3_600_000);
        check.field("duration", |check| check.must(fits, says::CAPTURE_TIME));
    });
    check.problems
}

fn bound(check: &mut Check, kind: usize, spec: &impl Serialize) {
    static SCHEMAS: LazyLock<Vec<Value>> = LazyLock::new(|| {
        definitions().iter().map(|definition| schema(definition)["properties"]["spec"].clone()).collect()
    });
    if let (Some(schema), Ok(value)) = (SCHEMAS.get(kind), serde_json::to_value(spec)) {
        bounds::look(check, schema, &value);
    }
}

fn targets(check: &mut Check, targets: &[TargetRef], namespace: &str) {
    let is_wide = targets.iter().any(|target| target.kind == TargetKind::Namespace);
    check.field("targetRefs", |check| check.must(!is_wide || targets.len() == 1, says::ALONE));
    check.each("targetRefs", targets, |check, reference| target(check, reference, namespace));
}

fn target(check: &mut Check, target: &TargetRef, namespace: &str) {
    check.must(target.group == target.kind.group(), says::GROUP);
    check.must(target.section_name.is_empty() || target.kind.has_sections(), says::SECTION);
    check.field("name", |check| {
        check.must(is_object(&target.name), says::OBJECT);
        if target.kind == TargetKind::Namespace && target.name != namespace {
            check.wrong(format!(
                "a policy is for its own namespace only: write `{namespace}`, or put it into `{}`",
                target.name
            ));
        }
    });
}
