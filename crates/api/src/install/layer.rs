//! Layers of a specification, each over the one before.
//!
//! A setting that can be written in two places is brought to one of them first ([`canonical`]), so that a later layer
//! beats an earlier one however either writes it: `values.meshConfig` becomes `meshConfig`, `values.global.hub` `hub`,
//! `values.gateways.NAME.enabled` the gateway's own `enabled`.

use serde_json::{Map, Value, json};

/// Lays `over` on `base`: objects field by field, lists of named gateways item by item, everything else replaced. A
/// null keeps the field, and clears it when it is read.
pub fn overlay(base: &mut Value, over: &Value) {
    overlay_at(base, over, "")
}

fn overlay_at(base: &mut Value, over: &Value, key: &str) {
    match (&mut *base, over) {
        (Value::Object(base), Value::Object(over)) => {
            for (key, value) in over {
                overlay_at(base.entry(key.clone()).or_insert(Value::Null), value, key);
            }
        }
        (Value::Array(base), Value::Array(over)) if matches!(key, "ingressGateways" | "egressGateways") => {
            for item in over {
                match base.iter_mut().find(|known| known["name"] == item["name"]) {
                    Some(known) => overlay(known, item),
                    None => base.push(item.clone()),
                }
            }
        }
        (base, over) => *base = over.clone(),
    }
}

/// What stands in `values` and has a place of its own in the specification.
const MOVED: &[(&str, &str)] = &[
    ("/values/global/hub", "hub"),
    ("/values/global/tag", "tag"),
    ("/values/global/variant", "variant"),
    ("/values/global/istioNamespace", "namespace"),
    ("/values/revision", "revision"),
    ("/values/compatibilityVersion", "compatibilityVersion"),
];

/// A layer's specification with each setting in its one place; where a layer says both, the specification's own wins.
pub fn canonical(mut spec: Value) -> Value {
    for (from, to) in MOVED {
        let Some(value) = take(&mut spec, from) else { continue };
        if spec.get(to).is_none_or(Value::is_null) {
            spec[*to] = value;
        }
    }
    if let Some(mut mesh) = take(&mut spec, "/values/meshConfig") {
        if let Some(own) = spec.get("meshConfig") {
            overlay(&mut mesh, own);
        }
        spec["meshConfig"] = mesh;
    }
    enablement(&mut spec);
    spec
}

/// Components that are switched by a value.
fn enablement(spec: &mut Value) {
    for (pointer, component) in [
        ("/values/pilot/enabled", "pilot"),
        ("/values/cni/enabled", "cni"),
        ("/values/istio_cni/enabled", "cni"),
    ] {
        if let Some(enabled) = take(spec, pointer) {
            let mut over = json!({ "components": { component: { "enabled": enabled } } });
            overlay(&mut over, spec);
            *spec = over;
        }
    }
    let names: Vec<String> = spec
        .pointer("/values/gateways")
        .and_then(Value::as_object)
        .map(|gateways| gateways.keys().filter(|name| name.starts_with("istio-")).cloned().collect())
        .unwrap_or_default();
    for name in names {
        let list = if name.contains("egress") { "egressGateways" } else { "ingressGateways" };
        if let Some(enabled) = take(spec, &format!("/values/gateways/{name}/enabled")) {
            let mut over = json!({ "components": { list: [{ "name": name, "enabled": enabled }] } });
            overlay(&mut over, spec);
            *spec = over;
        }
    }
}

/// Removes and gives the value at the pointer.
fn take(spec: &mut Value, pointer: &str) -> Option<Value> {
    let (parent, key) = pointer.rsplit_once('/')?;
    let parent: Option<&mut Map<String, Value>> = spec.pointer_mut(parent)?.as_object_mut();
    parent?.shift_remove(key).filter(|value| !value.is_null())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gateways_merge_by_name_and_other_lists_are_replaced() {
        let mut base =
            json!({ "components": { "ingressGateways": [{ "name": "a", "enabled": true }] }, "l": [1, 2] });
        overlay(
            &mut base,
            &json!({ "components": { "ingressGateways": [{ "name": "b" }, { "name": "a", "enabled": false }] }, "l": [3] }),
        );
        assert_eq!(
            base,
            json!({ "components": { "ingressGateways": [{ "name": "a", "enabled": false }, { "name": "b" }] }, "l": [3] })
        );
    }

    #[test]
    fn a_setting_has_one_place() {
        let spec = canonical(json!({
            "hub": "own",
            "meshConfig": { "a": 1 },
            "values": {
                "revision": "canary",
                "global": { "hub": "other", "network": "n1" },
                "meshConfig": { "a": 2, "b": 2 },
                "gateways": { "istio-egressgateway": { "enabled": true, "type": "ClusterIP" } },
            },
        }));
        assert_eq!(spec["hub"], "own");
        assert_eq!(spec["revision"], "canary");
        assert_eq!(spec["meshConfig"], json!({ "a": 1, "b": 2 }));
        assert_eq!(spec["values"]["global"], json!({ "network": "n1" }));
        assert_eq!(
            spec["components"]["egressGateways"],
            json!([{ "name": "istio-egressgateway", "enabled": true }])
        );
        assert_eq!(spec["values"]["gateways"]["istio-egressgateway"], json!({ "type": "ClusterIP" }));
    }
}
