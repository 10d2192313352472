//! The service account of a pod has to exist, and a volume gives it to every container: token, root certificate, namespace
//! (Kubernetes' admission plugin `ServiceAccount`).

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

use crate::api::{Api, Call, suffix};
use crate::object::{child_mut, metadata};
use crate::resource::ResourceName;
use crate::status::Status;

/// Where programs look for their service account.
const PLACE: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
const PREFIX: &str = "kube-api-access-";
/// Seconds: an hour, and what Kubernetes adds to it so that its own tokens can be told from others.
const LIFETIME: u64 = 3607;

/// How long a pod waits for the account `default`, which every namespace gets a moment after it was made.
const PATIENCE: Duration = Duration::from_secs(2);

/// Refuses a pod whose service account does not exist. `name` is the pod's, as its author gave it.
pub(crate) async fn admit(api: &Api, call: &Call<'_>, pod: &Value, name: &str) -> Result<(), Status> {
    // A pod that a node tells of runs already.
    let mirror = metadata(pod)["annotations"]["kubernetes.io/config.mirror"].is_string();
    if !call.resource.is("pods") || call.subresource.is_some() || mirror {
        return Ok(());
    }
    let (account, accounts) = (account(pod), ResourceName::from("serviceaccounts"));
    let mut changed = api.store.subscribe(&accounts);
    let until = Instant::now() + if account == "default" { PATIENCE } else { Duration::ZERO };
    loop {
        changed.mark_unchanged();
        if api.store.get(&accounts, call.namespace, account).is_some() {
            return Ok(());
        }
        if !matches!(tokio::time::timeout_at(until, changed.changed()).await, Ok(Ok(()))) {
            break;
        }
    }
    let place = format!("{}/{account}", call.namespace);
    let why = format!("error looking up service account {place}: serviceaccount \"{account}\" not found");
    Err(Status::forbidden("pods", name, &why))
}

fn account(pod: &Value) -> &str {
    pod["spec"]["serviceAccountName"].as_str().filter(|name| !name.is_empty()).unwrap_or("default")
}

/// Mounts the service account where nothing else is mounted, unless the pod or else the account refuses. It may be asked
/// again, for containers that webhooks have added.
pub(crate) fn mount(api: &Api, call: &Call<'_>, pod: &mut Value) {
    if !call.resource.is("pods") || call.subresource.is_some() || !wanted(api, call.namespace, pod) {
        return;
    }
    let spec = child_mut(pod, "spec");
    let volumes = spec.get("volumes").and_then(Value::as_array).into_iter().flatten();
    let present = volumes.filter_map(|volume| volume["name"].as_str()).find(|name| name.starts_with(PREFIX));
    let is_new = present.is_none();
    let name = present.map_or_else(|| format!("{PREFIX}{}", suffix()), str::to_owned);
    let mut mounted = false;
    for kind in ["initContainers", "containers"] {
        for container in spec.get_mut(kind).and_then(Value::as_array_mut).into_iter().flatten() {
            mounted |= add(container, &name);
        }
    }
    if mounted && is_new {
        push(spec.entry("volumes").or_insert(Value::Null), volume(&name));
    }
}

fn wanted(api: &Api, namespace: &str, pod: &Value) -> bool {
    const FIELD: &str = "automountServiceAccountToken";
    if let Some(said) = pod["spec"][FIELD].as_bool() {
        return said;
    }
    let account = api.store.get(&"serviceaccounts".into(), namespace, account(pod));
    account.and_then(|account| account.neutral()?[FIELD].as_bool()).unwrap_or(true)
}

/// Adds the mount to a container that has nothing at the place; whether it did.
fn add(container: &mut Value, volume: &str) -> bool {
    if !container.is_object() {
        return false;
    }
    let mounts = container["volumeMounts"].as_array().into_iter().flatten();
    let mut places = mounts.filter_map(|mount| mount["mountPath"].as_str());
    if places.any(|place| place.trim_end_matches('/') == PLACE) {
        return false;
    }
    push(&mut container["volumeMounts"], json!({"name": volume, "readOnly": true, "mountPath": PLACE}));
    true
}

fn push(list: &mut Value, item: Value) {
    match list {
        Value::Array(list) => list.push(item),
        other => *other = json!([item]),
    }
}

fn volume(name: &str) -> Value {
    json!({"name": name, "projected": {"defaultMode": 420, "sources": [
        {"serviceAccountToken": {"expirationSeconds": LIFETIME, "path": "token"}},
        {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
        {"downwardAPI": {"items": [
            {"path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}}]}}]}})
}
