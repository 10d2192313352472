//! Defaults of the built-in kinds: the fields users see although they did not write them.

mod pod;
mod service;

pub(crate) use self::service::{Allocator, allocate};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use crate::object::{self, child_mut, metadata_mut, name};
use crate::resource::Resource;

/// Fills in what is missing. `old` is the stored object on a change.
pub(crate) fn apply(resource: &Resource, value: &mut Value, old: Option<&Value>) {
    if resource.custom().is_some() {
        return;
    }
    match resource.name.as_str() {
        "pods" => pod::complete(value, old.is_none()),
        "services" => service::complete(value, old),
        "namespaces" => namespace(value, old.is_none()),
        "secrets" => secret(value),
        "persistentvolumeclaims" => set(value, "status", json!({"phase": "Pending"})),
        crate::catalog::CRDS => crate::custom::complete(value),
        "deployments.apps" => deployment(value),
        "replicasets.apps" | "replicationcontrollers" => replicas(value),
        "statefulsets.apps" => stateful_set(value),
        "daemonsets.apps" => daemon_set(value),
        "jobs.batch" => job(value),
        "horizontalpodautoscalers.autoscaling" => set_all(value, "spec", json!({"minReplicas": 1})),
        "endpointslices.discovery.k8s.io" | "endpoints" => endpoint_ports(value),
        "rolebindings.rbac.authorization.k8s.io" | "clusterrolebindings.rbac.authorization.k8s.io" => {
            binding(value)
        }
        "mutatingwebhookconfigurations.admissionregistration.k8s.io"
        | "validatingwebhookconfigurations.admissionregistration.k8s.io" => webhooks(value),
        _ => {}
    }
}

/// Sets a field that is missing.
fn set(value: &mut Value, key: &str, default: Value) {
    if let Some(map) = value.as_object_mut() {
        put(map, key, default);
    }
}

fn put(map: &mut Map<String, Value>, key: &str, default: Value) {
    if map.get(key).is_none_or(Value::is_null) {
        map.insert(key.to_owned(), default);
    }
}

/// Sets missing fields of the object `value[key]`, which is made when it is missing.
fn set_all(value: &mut Value, key: &str, defaults: Value) {
    let map = child_mut(value, key);
    if let Value::Object(defaults) = defaults {
        for (key, default) in defaults {
            put(map, &key, default);
        }
    }
}

/// The objects of a list.
fn each<'a>(value: &'a mut Value, key: &str) -> impl Iterator<Item = &'a mut Value> {
    value.get_mut(key).and_then(Value::as_array_mut).into_iter().flatten().filter(|item| item.is_object())
}

fn namespace(value: &mut Value, new: bool) {
    let own = json!(name(value));
    let labels = metadata_mut(value).entry("labels").or_insert_with(|| json!({}));
    if let Some(labels) = labels.as_object_mut() {
        labels.insert("kubernetes.io/metadata.name".into(), own);
    }
    if new {
        value["spec"] = json!({"finalizers": ["kubernetes"]});
    }
    set_all(value, "status", json!({"phase": "Active"}));
}

fn secret(value: &mut Value) {
    set(value, "type", json!("Opaque"));
    let Some(plain) = value.as_object_mut().and_then(|map| map.shift_remove("stringData")) else { return };
    let data = child_mut(value, "data");
    for (key, text) in plain.as_object().into_iter().flatten() {
        data.insert(key.clone(), json!(STANDARD.encode(text.as_str().unwrap_or_default())));
    }
}

fn replicas(value: &mut Value) {
    set_all(value, "spec", json!({"replicas": 1}));
    set_all(value, "status", json!({"replicas": 0}));
    template(value);
}

fn template(value: &mut Value) {
    if let Some(template) =
        value.get_mut("spec").and_then(|spec| spec.get_mut("template")).filter(|t| t.is_object())
    {
        pod::template(template);
    }
}

fn deployment(value: &mut Value) {
    set_all(
        value,
        "spec",
        json!({"replicas": 1, "revisionHistoryLimit": 10, "progressDeadlineSeconds": 600}),
    );
    set_all(&mut value["spec"], "strategy", json!({"type": "RollingUpdate"}));
    let strategy = &mut value["spec"]["strategy"];
    if strategy["type"] == "RollingUpdate" {
        set_all(strategy, "rollingUpdate", json!({"maxSurge": "25%", "maxUnavailable": "25%"}));
    }
    set(value, "status", json!({}));
    template(value);
}

fn stateful_set(value: &mut Value) {
    let spec = json!({"replicas": 1, "revisionHistoryLimit": 10, "podManagementPolicy": "OrderedReady"});
    set_all(value, "spec", spec);
    update_strategy(value, json!({"partition": 0}));
    set_all(value, "status", json!({"replicas": 0, "availableReplicas": 0}));
    template(value);
}

fn update_strategy(value: &mut Value, rolling: Value) {
    set_all(&mut value["spec"], "updateStrategy", json!({"type": "RollingUpdate"}));
    let strategy = &mut value["spec"]["updateStrategy"];
    if strategy["type"] == "RollingUpdate" {
        set_all(strategy, "rollingUpdate", rolling);
    }
}

fn daemon_set(value: &mut Value) {
    set_all(value, "spec", json!({"revisionHistoryLimit": 10}));
    update_strategy(value, json!({"maxSurge": 0, "maxUnavailable": 1}));
    let counts = json!({"currentNumberScheduled": 0, "desiredNumberScheduled": 0, "numberMisscheduled": 0, "numberReady": 0});
    set_all(value, "status", counts);
    template(value);
}

fn job(value: &mut Value) {
    let spec = child_mut(value, "spec");
    // Parallel pods without a number of completions are a queue of work.
    if !spec.contains_key("parallelism") {
        put(spec, "completions", json!(1));
    }
    for (key, default) in [
        ("parallelism", json!(1)),
        ("backoffLimit", json!(6)),
        ("completionMode", json!("NonIndexed")),
        ("suspend", json!(false)),
    ] {
        put(spec, key, default);
    }
    set(value, "status", json!({}));
    select_by_uid(value);
    template(value);
}

/// A job's pods are known by the job's uid, unless it says that it selects by itself.
fn select_by_uid(value: &mut Value) {
    let own = object::metadata(value);
    let (Some(uid), Some(name)) = (own["uid"].as_str(), own["name"].as_str()) else { return };
    if value["spec"]["manualSelector"] == true || value["spec"]["selector"].is_object() {
        return;
    }
    let labels = json!({
        "batch.kubernetes.io/controller-uid": uid, "batch.kubernetes.io/job-name": name,
        "controller-uid": uid, "job-name": name,
    });
    let selector = json!({"matchLabels": {"batch.kubernetes.io/controller-uid": uid}});
    set(&mut value["spec"], "selector", selector);
    let template = child_mut(&mut value["spec"], "template");
    let meta = template.entry("metadata").or_insert_with(|| json!({}));
    set_all(meta, "labels", labels);
}

fn endpoint_ports(value: &mut Value) {
    for port in each(value, "ports") {
        set(port, "protocol", json!("TCP"));
        set(port, "name", json!(""));
    }
    for subset in each(value, "subsets") {
        for port in each(subset, "ports") {
            set(port, "protocol", json!("TCP"));
        }
    }
}

fn binding(value: &mut Value) {
    set_all(value, "roleRef", json!({"apiGroup": "rbac.authorization.k8s.io"}));
    for subject in each(value, "subjects") {
        if matches!(subject["kind"].as_str(), Some("User" | "Group")) {
            set(subject, "apiGroup", json!("rbac.authorization.k8s.io"));
        }
    }
}

fn webhooks(value: &mut Value) {
    let mutating = value["kind"] == "MutatingWebhookConfiguration";
    for webhook in each(value, "webhooks") {
        for (key, default) in [
            ("failurePolicy", json!("Fail")),
            ("matchPolicy", json!("Equivalent")),
            ("namespaceSelector", json!({})),
            ("objectSelector", json!({})),
            ("timeoutSeconds", json!(10)),
        ] {
            set(webhook, key, default);
        }
        if mutating {
            set(webhook, "reinvocationPolicy", json!("Never"));
        }
        if webhook["clientConfig"]["service"].is_object() {
            set(&mut webhook["clientConfig"]["service"], "port", json!(443));
        }
        for rule in each(webhook, "rules") {
            set(rule, "scope", json!("*"));
        }
    }
}
