//! The two resources that Kubernetes serves in forms that differ in more than the version's name: events
//! (`v1` and `events.k8s.io/v1`, stored as the former) and autoscalers (`autoscaling/v1` and `v2`, stored as the latter).

use serde_json::{Map, Value, json};

use crate::resource::Resource;

/// (`events.k8s.io/v1`, `v1`) names of the same field.
const EVENT_FIELDS: &[(&str, &str)] = &[
    ("regarding", "involvedObject"),
    ("note", "message"),
    ("reportingController", "reportingComponent"),
    ("deprecatedCount", "count"),
    ("deprecatedSource", "source"),
    ("deprecatedFirstTimestamp", "firstTimestamp"),
    ("deprecatedLastTimestamp", "lastTimestamp"),
];

/// True when the stored form is not the served one.
pub(crate) fn differs(resource: &Resource) -> bool {
    matches!(
        (resource.group.as_str(), resource.version.as_str()),
        ("events.k8s.io", _) | ("autoscaling", "v1")
    )
}

/// From the stored form to the resource's.
pub(crate) fn to_version(mut value: Value, resource: &Resource) -> Value {
    if differs(resource)
        && let Value::Object(map) = &mut value
    {
        match resource.group.as_str() {
            "events.k8s.io" => EVENT_FIELDS.iter().for_each(|(new, stored)| rename(map, stored, new)),
            _ => autoscaler_to_v1(map),
        }
    }
    value
}

/// From the resource's form to the stored one; `apiVersion` stays what the client wrote.
pub(crate) fn to_stored(mut value: Value, resource: &Resource) -> Value {
    if differs(resource)
        && let Value::Object(map) = &mut value
    {
        match resource.group.as_str() {
            "events.k8s.io" => EVENT_FIELDS.iter().for_each(|(new, stored)| rename(map, new, stored)),
            _ => autoscaler_to_v2(map),
        }
    }
    value
}

fn rename(map: &mut Map<String, Value>, from: &str, to: &str) {
    if let Some(value) = map.shift_remove(from) {
        map.insert(to.to_owned(), value);
    }
}

fn cpu_target(value: &Value) -> bool {
    value["type"] == "Resource" && value["resource"]["name"] == "cpu"
}

fn autoscaler_to_v1(map: &mut Map<String, Value>) {
    let Some(Value::Object(spec)) = map.get_mut("spec") else { return };
    let metrics = spec.shift_remove("metrics").unwrap_or_default();
    let cpu = metrics.as_array().into_iter().flatten().find(|m| cpu_target(m));
    if let Some(percent) =
        cpu.map(|m| &m["resource"]["target"]["averageUtilization"]).filter(|p| p.is_number())
    {
        spec.insert("targetCPUUtilizationPercentage".into(), percent.clone());
    }
    if let Some(Value::Object(status)) = map.get_mut("status") {
        status.shift_remove("currentMetrics");
        status.shift_remove("conditions");
    }
}

fn autoscaler_to_v2(map: &mut Map<String, Value>) {
    let Some(Value::Object(spec)) = map.get_mut("spec") else { return };
    if let Some(percent) = spec.shift_remove("targetCPUUtilizationPercentage") {
        let target = json!({"type": "Utilization", "averageUtilization": percent});
        spec.insert(
            "metrics".into(),
            json!([{"type": "Resource", "resource": {"name": "cpu", "target": target}}]),
        );
    }
}
