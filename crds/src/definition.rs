//! The definitions that an API server is given: what kube derives, with what Kubernetes would refuse or misread taken out.

use kube::CustomResourceExt;
use serde_json::{Value, json};

use crate::says::{self, cel};
use crate::{MeshTracing, SamplingPolicy, SpanPolicy, TraceCapture};

/// The definitions, ready to be applied.
pub fn definitions() -> [Value; 4] {
    let mut mesh = definition::<MeshTracing>();
    mesh["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["x-kubernetes-validations"] = cel(&[says::DEFAULT_NAME]);
    [mesh, definition::<SamplingPolicy>(), definition::<SpanPolicy>(), definition::<TraceCapture>()]
}

/// The schema of a definition.
pub fn schema(definition: &Value) -> &Value {
    &definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
}

fn definition<Kind: CustomResourceExt>() -> Value {
    // Plain data, whose keys are texts: there is nothing that could fail.
    let mut definition = serde_json::to_value(Kind::crd()).unwrap_or_default();
    mend(&mut definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]);
    definition
}

fn mend(schema: &mut Value) {
    let Some(object) = schema.as_object_mut() else { return };
    // An option that is left out is left out, and not null.
    object.remove("nullable");
    if let Some(words) = object.get_mut("enum").and_then(Value::as_array_mut) {
        words.retain(|word| !word.is_null());
    }
    // With an empty list as its default a list would never be left out.
    if object.get("default") == Some(&json!([])) {
        object.remove("default");
    }
    // A structural schema prunes what it does not know; it must not forbid it.
    if object.get("additionalProperties") == Some(&json!(false)) {
        object.remove("additionalProperties");
    }
    // Kubernetes knows int32 and int64 and warns of others. Bounds stand beside it.
    if object.get("format").and_then(Value::as_str).is_some_and(|format| format.starts_with("uint")) {
        object.insert("format".into(), "int32".into());
    }
    for bound in ["minimum", "maximum"] {
        // As whole as they are: `1.0` is read as a fraction.
        if let Some(whole) = object.get(bound).and_then(Value::as_f64).filter(|number| number.fract() == 0.0) {
            object.insert(bound.into(), json!(whole as i64));
        }
    }
    if let Some(properties) = object.get_mut("properties").and_then(Value::as_object_mut) {
        properties.values_mut().for_each(mend);
    }
    if let Some(items) = object.get_mut("items") {
        mend(items);
    }
}
