//! Events of what controllers have done, on the object that had it done; `kubectl describe` shows them.

use std::sync::Arc;

use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use serde_json::Value;

use crate::api::{Api, ApiError, Change, Kind, Part};
use crate::node::events::{Events, Severity};

/// What has to be known of the time before a change, to tell of it.
pub(super) async fn before(api: &Api, change: &Change) -> Option<i64> {
    let Change::Replace(collection, object, Part::Whole) = change else { return None };
    if collection.resource != "replicasets" {
        return None;
    }
    let meta = &object["metadata"];
    let set = api.get::<ReplicaSet>(meta["namespace"].as_str(), meta["name"].as_str()?).await?;
    set.spec.as_ref()?.replicas.map(i64::from)
}

/// Tells of a change that was made; `made` is the object as the API has it, `before` from [`before`].
pub(super) async fn tell(
    api: &Api,
    events: &Events,
    change: &Change,
    made: Option<&Value>,
    before: Option<i64>,
) {
    match (change, made) {
        (Change::Create(collection, _), Some(pod)) if collection.resource == "pods" => {
            of_pod(api, events, pod, true).await;
        }
        (Change::Create(collection, _), Some(set)) if collection.resource == "replicasets" => {
            scaled(api, events, set, 0).await;
        }
        (Change::Replace(collection, ..), Some(set)) if collection.resource == "replicasets" => {
            if let Some(before) = before {
                scaled(api, events, set, before).await;
            }
        }
        (Change::Replace(collection, _, Part::Status), Some(job)) if collection.resource == "jobs" => {
            ended(api, events, job).await;
        }
        (Change::Delete(deletion), _) if deletion.collection.resource == "pods" => {
            // It is on its way out, and still there to be asked for its owner.
            let Some(pod) = api.get::<Pod>(deletion.namespace.as_deref(), &deletion.name).await else {
                return;
            };
            let Ok(pod) = serde_json::to_value(&*pod) else { return };
            of_pod(api, events, &pod, false).await;
        }
        _ => {}
    }
}

/// Tells of a job's end: the status that has it is written once.
async fn ended(api: &Api, events: &Events, job: &Value) {
    let conditions = job["status"]["conditions"].as_array().into_iter().flatten();
    let last = conditions
        .filter(|one| one["status"] == "True")
        .find(|one| one["type"] == "Complete" || one["type"] == "Failed");
    let (Some(last), Some(found)) =
        (last, api.get::<Job>(job["metadata"]["namespace"].as_str(), name(job)).await)
    else {
        return;
    };
    let (severity, reason, message) = match last["reason"].as_str() {
        Some("BackoffLimitExceeded") => (Severity::Warning, "BackoffLimitExceeded", &last["message"]),
        Some("DeadlineExceeded") => (Severity::Warning, "DeadlineExceeded", &last["message"]),
        _ => (Severity::Normal, "Completed", &Value::Null),
    };
    let message = message.as_str().unwrap_or("Job completed").to_owned();
    events.say(&*found, "job-controller", severity, reason, message);
}

/// Tells a pod's owner that the pod was refused.
pub(super) async fn refused(api: &Api, events: &Events, pod: &Value, error: &ApiError) {
    let message = format!("Error creating: {error}");
    say_owner(api, events, pod, Severity::Warning, "FailedCreate", message).await;
}

async fn of_pod(api: &Api, events: &Events, pod: &Value, made: bool) {
    let pod_name = name(pod);
    let owner = owner(pod);
    let message = match (owner.map(|owner| &owner["kind"]), made) {
        (Some(kind), true) if kind == "StatefulSet" => {
            format!("create Pod {pod_name} in StatefulSet {} successful", name_in(owner))
        }
        (Some(kind), false) if kind == "StatefulSet" => {
            format!("delete Pod {pod_name} in StatefulSet {} successful", name_in(owner))
        }
        (_, true) => format!("Created pod: {pod_name}"),
        (_, false) => format!("Deleted pod: {pod_name}"),
    };
    let reason = if made { "SuccessfulCreate" } else { "SuccessfulDelete" };
    say_owner(api, events, pod, Severity::Normal, reason, message).await;
}

/// An event on the owner of a pod, from the controller that makes such pods.
async fn say_owner(
    api: &Api,
    events: &Events,
    pod: &Value,
    severity: Severity,
    reason: &'static str,
    message: String,
) {
    let kind = owner(pod).map(|owner| owner["kind"].as_str().unwrap_or_default());
    match kind {
        Some("ReplicaSet") => {
            say::<ReplicaSet>(api, events, pod, "replicaset-controller", severity, reason, message).await;
        }
        Some("StatefulSet") => {
            say::<StatefulSet>(api, events, pod, "statefulset-controller", severity, reason, message).await;
        }
        Some("DaemonSet") => {
            say::<DaemonSet>(api, events, pod, "daemonset-controller", severity, reason, message).await;
        }
        Some("Job") => say::<Job>(api, events, pod, "job-controller", severity, reason, message).await,
        _ => {}
    }
}

fn owner(object: &Value) -> Option<&Value> {
    let owners = object["metadata"]["ownerReferences"].as_array()?;
    owners.iter().find(|one| one["controller"] == true)
}

fn name_in(owner: Option<&Value>) -> &str {
    owner.and_then(|owner| owner["name"].as_str()).unwrap_or_default()
}

async fn scaled(api: &Api, events: &Events, set: &Value, before: i64) {
    let now = set["spec"]["replicas"].as_i64().unwrap_or(0);
    if now == before {
        return;
    }
    let way = if now > before { "up" } else { "down" };
    let message = format!("Scaled {way} replica set {} from {before} to {now}", name(set));
    let (component, reason) = ("deployment-controller", "ScalingReplicaSet");
    say::<Deployment>(api, events, set, component, Severity::Normal, reason, message).await;
}

fn name(object: &Value) -> &str {
    object["metadata"]["name"].as_str().unwrap_or_default()
}

/// About the owner of an object, when it is there and of this kind.
async fn say<T: Kind>(
    api: &Api,
    events: &Events,
    object: &Value,
    component: &'static str,
    severity: Severity,
    reason: &'static str,
    message: String,
) {
    let Some(owner) = owner(object).filter(|owner| owner["kind"] == T::KIND) else { return };
    let namespace = object["metadata"]["namespace"].as_str();
    let found: Option<Arc<T>> = api.get(namespace, owner["name"].as_str().unwrap_or_default()).await;
    if let Some(owner) = found {
        events.say(&*owner, component, severity, reason, message);
    }
}
