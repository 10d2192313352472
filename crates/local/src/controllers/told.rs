//! Events of what controllers have done, on the object that had it done; `kubectl describe` shows them.

use std::sync::Arc;

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::Pod;
use serde_json::Value;

use crate::api::{Api, Change, Kind, Part};
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
    let set_controller = "replicaset-controller";
    match (change, made) {
        (Change::Create(collection, _), Some(pod)) if collection.resource == "pods" => {
            let message = format!("Created pod: {}", name(pod));
            say::<ReplicaSet>(api, events, pod, set_controller, "SuccessfulCreate", message).await;
        }
        (Change::Create(collection, _), Some(set)) if collection.resource == "replicasets" => {
            scaled(api, events, set, 0).await;
        }
        (Change::Replace(collection, ..), Some(set)) if collection.resource == "replicasets" => {
            if let Some(before) = before {
                scaled(api, events, set, before).await;
            }
        }
        (Change::Delete(deletion), _) if deletion.collection.resource == "pods" => {
            // It is on its way out, and still there to be asked for its owner.
            let Some(pod) = api.get::<Pod>(deletion.namespace.as_deref(), &deletion.name).await else {
                return;
            };
            let Ok(pod) = serde_json::to_value(&*pod) else { return };
            let message = format!("Deleted pod: {}", deletion.name);
            say::<ReplicaSet>(api, events, &pod, set_controller, "SuccessfulDelete", message).await;
        }
        _ => {}
    }
}

async fn scaled(api: &Api, events: &Events, set: &Value, before: i64) {
    let now = set["spec"]["replicas"].as_i64().unwrap_or(0);
    if now == before {
        return;
    }
    let way = if now > before { "up" } else { "down" };
    let message = format!("Scaled {way} replica set {} from {before} to {now}", name(set));
    say::<Deployment>(api, events, set, "deployment-controller", "ScalingReplicaSet", message).await;
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
    reason: &'static str,
    message: String,
) {
    let owners = object["metadata"]["ownerReferences"].as_array().into_iter().flatten();
    let Some(owner) = owners.into_iter().find(|one| one["controller"] == true && one["kind"] == T::KIND)
    else {
        return;
    };
    let namespace = object["metadata"]["namespace"].as_str();
    let found: Option<Arc<T>> = api.get(namespace, owner["name"].as_str().unwrap_or_default()).await;
    if let Some(owner) = found {
        events.say(&*owner, component, Severity::Normal, reason, message);
    }
}
