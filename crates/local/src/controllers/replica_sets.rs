//! ReplicaSets make pods.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::apps::v1::{ReplicaSet, ReplicaSetStatus};
use k8s_openapi::api::core::v1::Pod;

use super::owner::{self, controls, count, is_active};
use crate::api::Change;

/// Pods to make and to delete, and the sets' status.
pub(crate) fn reconcile(sets: &[Arc<ReplicaSet>], pods: &[Arc<Pod>]) -> Vec<Change> {
    let mut by_owner: BTreeMap<&str, Vec<&Pod>> = BTreeMap::new();
    for pod in pods {
        for reference in pod.metadata.owner_references.iter().flatten() {
            by_owner.entry(&reference.uid).or_default().push(pod);
        }
    }
    sets.iter()
        .filter(|set| set.metadata.deletion_timestamp.is_none())
        .flat_map(|set| {
            let uid = set.metadata.uid.as_ref();
            let own = uid.and_then(|uid| by_owner.get(uid.as_str())).map_or(&[][..], Vec::as_slice);
            let own: Vec<&Pod> =
                own.iter().copied().filter(|pod| controls(uid, &pod.metadata) && is_active(pod)).collect();
            one(set, &own)
        })
        .flatten()
        .collect()
}

fn one(set: &ReplicaSet, own: &[&Pod]) -> Vec<Option<Change>> {
    let Some(spec) = &set.spec else { return Vec::new() };
    let wanted = usize::try_from(spec.replicas.unwrap_or(1)).unwrap_or(0);
    let mut changes: Vec<Option<Change>> = Vec::new();
    changes.extend((own.len()..wanted).map(|_| create(set)));
    if own.len() > wanted {
        let mut order = own.to_vec();
        // Those that serve least go first; of equals, the youngest.
        order.sort_by_key(|pod| (is_ready(pod), std::cmp::Reverse(pod.metadata.creation_timestamp.clone())));
        changes.extend(order.into_iter().take(own.len() - wanted).map(Change::delete));
    }
    changes.push(status(set, own));
    changes
}

fn create(set: &ReplicaSet) -> Option<Change> {
    Change::create(&owner::pod(set, set.spec.as_ref()?.template.as_ref()?))
}

/// Whether the pod's condition Ready holds.
pub(crate) fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.into_iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

fn status(set: &ReplicaSet, own: &[&Pod]) -> Option<Change> {
    let ready = count(own.iter().filter(|pod| is_ready(pod)).count());
    let some = |count: i32| (count != 0).then_some(count);
    let replicas = count(own.len());
    let status = ReplicaSetStatus {
        replicas,
        fully_labeled_replicas: some(replicas),
        ready_replicas: some(ready),
        available_replicas: some(ready),
        observed_generation: set.metadata.generation,
        ..ReplicaSetStatus::default()
    };
    if set.status.as_ref() == Some(&status) {
        return None;
    }
    Change::status(&ReplicaSet { status: Some(status), ..set.clone() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::Part;
    use serde_json::{Value, json};

    fn set(replicas: i32) -> Arc<ReplicaSet> {
        Arc::new(
            serde_json::from_value(json!({"metadata": {"name": "a-5f", "namespace": "ns", "uid": "r1"},
                "spec": {"replicas": replicas, "selector": {}, "template": {
                    "metadata": {"labels": {"app": "a"}}, "spec": {"containers": [{"name": "c"}]}}}}))
            .unwrap(),
        )
    }

    fn pod(name: &str, ready: bool, more: Value) -> Arc<Pod> {
        let mut pod = json!({"metadata": {"name": name, "namespace": "ns", "uid": name,
                "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "a-5f", "uid": "r1",
                    "controller": true}]},
            "status": {"conditions": [{"type": "Ready", "status": if ready { "True" } else { "False" }}]}});
        for (key, value) in more.as_object().unwrap() {
            pod["metadata"][key] = value.clone();
        }
        Arc::new(serde_json::from_value(pod).unwrap())
    }

    fn deleted(changes: &[Change]) -> Vec<&str> {
        changes
            .iter()
            .filter_map(|change| match change {
                Change::Delete(deletion) => Some(&*deletion.name),
                _ => None,
            })
            .collect()
    }

    #[test]
    fn missing_pods_are_made_from_the_template() {
        let changes = reconcile(&[set(2)], &[pod("a", true, json!({}))]);
        let made: Vec<&Value> = changes
            .iter()
            .filter_map(|change| match change {
                Change::Create(_, object) => Some(object),
                _ => None,
            })
            .collect();
        assert_eq!(made.len(), 1);
        assert_eq!(made[0]["metadata"]["generateName"], "a-5f-");
        assert_eq!(made[0]["metadata"]["labels"]["app"], "a");
        assert_eq!(made[0]["metadata"]["ownerReferences"][0]["uid"], "r1");
    }

    #[test]
    fn pods_that_go_are_replaced_and_not_counted() {
        let gone = json!({"deletionTimestamp": "2026-01-01T00:00:00Z"});
        let changes = reconcile(&[set(1)], &[pod("a", true, gone)]);
        assert!(matches!(changes[0], Change::Create(..)));
    }

    #[test]
    fn the_unready_and_the_youngest_go_first() {
        let at = |time: &str| json!({"creationTimestamp": time});
        let pods = [
            pod("old", true, at("2026-01-01T00:00:00Z")),
            pod("young", true, at("2026-01-02T00:00:00Z")),
            pod("broken", false, at("2026-01-01T00:00:00Z")),
        ];
        let changes = reconcile(&[set(1)], &pods);
        assert_eq!(deleted(&changes), ["broken", "young"]);
        let changes = reconcile(&[set(0)], &pods);
        assert_eq!(deleted(&changes).len(), 3);
    }

    #[test]
    fn a_settled_set_rests() {
        let pods = [pod("a", true, json!({}))];
        let changes = reconcile(&[set(1)], &pods);
        let [Change::Replace(_, object, Part::Status)] = &changes[..] else { panic!("{changes:?}") };
        assert_eq!(object["status"]["readyReplicas"], 1);
        let settled: ReplicaSet = serde_json::from_value(object.clone()).unwrap();
        assert_eq!(reconcile(&[Arc::new(settled)], &pods), []);
    }
}
