//! Pods and pod templates.

use serde_json::{Value, json};

use super::{each, put, set, set_all};
use crate::object::child_mut;

/// A pod; `new` ones get a first status.
pub(super) fn complete(value: &mut Value, new: bool) {
    template(value);
    if new {
        let class = quality(&value["spec"]);
        set_all(value, "spec", json!({"priority": 0, "preemptionPolicy": "PreemptLowerPriority"}));
        set_all(value, "spec", json!({"serviceAccountName": "default"}));
        let account = value["spec"]["serviceAccountName"].clone();
        set_all(value, "spec", json!({"serviceAccount": account}));
        set_all(value, "status", json!({"phase": "Pending", "qosClass": class}));
    }
}

/// Whatever has a pod's `spec`.
pub(super) fn template(value: &mut Value) {
    let spec = child_mut(value, "spec");
    // The old name of the field, still understood.
    for (from, to) in [("serviceAccount", "serviceAccountName"), ("serviceAccountName", "serviceAccount")] {
        if let Some(account) = spec.get(from).filter(|a| a.as_str().is_some_and(|s| !s.is_empty())).cloned() {
            put(spec, to, account);
        }
    }
    for (key, default) in [
        ("restartPolicy", json!("Always")),
        ("dnsPolicy", json!("ClusterFirst")),
        ("schedulerName", json!("default-scheduler")),
        ("terminationGracePeriodSeconds", json!(30)),
        ("securityContext", json!({})),
    ] {
        put(spec, key, default);
    }
    let spec = &mut value["spec"];
    for key in ["containers", "initContainers"] {
        each(spec, key).for_each(container);
    }
    each(spec, "volumes").for_each(volume);
}

fn container(container: &mut Value) {
    let image = container["image"].as_str().unwrap_or_default();
    let name = image.rsplit('/').next().unwrap_or(image);
    let tagged = image.contains('@') || name.split_once(':').is_some_and(|(_, tag)| tag != "latest");
    let policy = if tagged { "IfNotPresent" } else { "Always" };
    for (key, default) in [
        ("imagePullPolicy", json!(policy)),
        ("terminationMessagePath", json!("/dev/termination-log")),
        ("terminationMessagePolicy", json!("File")),
        ("resources", json!({})),
    ] {
        set(container, key, default);
    }
    requests_from_limits(&mut container["resources"]);
    for port in each(container, "ports") {
        set(port, "protocol", json!("TCP"));
    }
    for env in each(container, "env") {
        if env["valueFrom"]["fieldRef"].is_object() {
            set(&mut env["valueFrom"]["fieldRef"], "apiVersion", json!("v1"));
        }
    }
    for key in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if container[key].is_object() {
            probe(&mut container[key]);
        } else if let Some(map) = container.as_object_mut() {
            map.shift_remove(key);
        }
    }
}

/// A limit without a request is the request, too.
fn requests_from_limits(resources: &mut Value) {
    let Some(limits) = resources["limits"].as_object().cloned() else {
        if let Some(map) = resources.as_object_mut() {
            map.retain(|_, v| !v.is_null());
        }
        return;
    };
    set_all(resources, "requests", Value::Object(limits));
}

fn probe(probe: &mut Value) {
    for (key, default) in
        [("timeoutSeconds", 1), ("periodSeconds", 10), ("successThreshold", 1), ("failureThreshold", 3)]
    {
        set(probe, key, json!(default));
    }
    if probe.get("httpGet").is_some_and(Value::is_object) {
        set_all(probe, "httpGet", json!({"scheme": "HTTP", "path": "/"}));
    }
}

fn volume(volume: &mut Value) {
    for kind in ["configMap", "secret", "projected", "downwardAPI"] {
        if volume.get(kind).is_some_and(Value::is_object) {
            set_all(volume, kind, json!({"defaultMode": 420}));
        }
    }
    for source in volume.get_mut("projected").into_iter().flat_map(|projected| each(projected, "sources")) {
        if source.get("serviceAccountToken").is_some_and(Value::is_object) {
            set_all(source, "serviceAccountToken", json!({"expirationSeconds": 3600}));
        }
    }
}

/// `status.qosClass`.
fn quality(spec: &Value) -> &'static str {
    let containers = || {
        ["containers", "initContainers"].into_iter().flat_map(|k| spec[k].as_array().into_iter().flatten())
    };
    let of = |c: &Value, part: &str, name: &str| c["resources"][part][name].clone();
    let none = |c: &Value| {
        ["cpu", "memory"].iter().all(|n| of(c, "requests", n).is_null() && of(c, "limits", n).is_null())
    };
    let full = |c: &Value| {
        ["cpu", "memory"]
            .iter()
            .all(|n| !of(c, "limits", n).is_null() && of(c, "requests", n) == of(c, "limits", n))
    };
    if containers().all(none) {
        "BestEffort"
    } else if containers().all(full) {
        "Guaranteed"
    } else {
        "Burstable"
    }
}
