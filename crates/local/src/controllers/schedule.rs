//! Pods find a node.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, Pod, PodCondition, PodSpec, PodStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::api::{Change, name_of};

/// Gives every pod without a node the fitting one with the fewest pods; says so when none fits.
pub(crate) fn reconcile(pods: &[Arc<Pod>], nodes: &[Arc<Node>], now: &Time) -> Vec<Change> {
    let mut load: BTreeMap<&str, usize> = BTreeMap::new();
    for node in pods.iter().filter_map(|pod| pod.spec.as_ref()?.node_name.as_deref()) {
        *load.entry(node).or_default() += 1;
    }
    let waiting = pods.iter().filter(|pod| {
        pod.metadata.deletion_timestamp.is_none()
            && pod.spec.as_ref().is_some_and(|spec| spec.node_name.as_deref().unwrap_or_default().is_empty())
    });
    waiting
        .filter_map(|pod| {
            let fitting = nodes.iter().filter(|node| fits(pod, node)).map(|node| name_of(&node.metadata));
            match fitting.min_by_key(|name| load.get(name).copied().unwrap_or(0)) {
                Some(node) => {
                    *load.entry(node).or_default() += 1;
                    let mut bound = (**pod).clone();
                    bound.spec.as_mut()?.node_name = Some(node.to_owned());
                    Change::replace(&bound)
                }
                None => unschedulable(pod, nodes.len(), now),
            }
        })
        .collect()
}

fn fits(pod: &Pod, node: &Node) -> bool {
    let cordoned = node.spec.as_ref().and_then(|spec| spec.unschedulable) == Some(true);
    !cordoned && selects(pod.spec.as_ref(), node)
}

/// Whether the node has the labels that pods of this form ask for.
pub(super) fn selects(spec: Option<&PodSpec>, node: &Node) -> bool {
    let labels = node.metadata.labels.as_ref();
    let selector = spec.and_then(|spec| spec.node_selector.as_ref());
    selector
        .into_iter()
        .flatten()
        .all(|(key, value)| labels.and_then(|labels| labels.get(key)) == Some(value))
}

fn unschedulable(pod: &Pod, nodes: usize, now: &Time) -> Option<Change> {
    let message =
        format!("0/{nodes} nodes are available: cordoned, or not matching the pod's node selector.");
    let status = pod.status.clone().unwrap_or_default();
    let said = status.conditions.iter().flatten().any(|one| {
        one.type_ == "PodScheduled" && one.status == "False" && one.message.as_ref() == Some(&message)
    });
    if said {
        return None;
    }
    let condition = PodCondition {
        type_: "PodScheduled".to_owned(),
        status: "False".to_owned(),
        reason: Some("Unschedulable".to_owned()),
        message: Some(message),
        last_transition_time: Some(now.clone()),
        ..PodCondition::default()
    };
    let status = PodStatus { phase: Some("Pending".to_owned()), conditions: Some(vec![condition]), ..status };
    Change::status(&Pod { status: Some(status), ..pod.clone() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::Part;
    use serde_json::{Value, json};

    fn pod(name: &str, spec: Value) -> Arc<Pod> {
        Arc::new(serde_json::from_value(json!({"metadata": {"name": name}, "spec": spec})).unwrap())
    }

    fn node(name: &str, spec: Value) -> Arc<Node> {
        let node = json!({"metadata": {"name": name, "labels": {"zone": name}}, "spec": spec});
        Arc::new(serde_json::from_value(node).unwrap())
    }

    #[test]
    fn pods_spread_over_the_nodes_that_fit() {
        let nodes = [node("a", json!({})), node("b", json!({})), node("c", json!({"unschedulable": true}))];
        let pods = [
            pod("there", json!({"containers": [], "nodeName": "a"})),
            pod("one", json!({"containers": []})),
            pod("two", json!({"containers": [], "nodeSelector": {"zone": "a"}})),
            pod("none", json!({"containers": [], "nodeSelector": {"zone": "x"}})),
        ];
        let now = crate::instant::time();
        let changes = reconcile(&pods, &nodes, &now);
        let node_of = |at: usize| match &changes[at] {
            Change::Replace(_, object, Part::Whole) => object["spec"]["nodeName"].clone(),
            other => panic!("{other:?}"),
        };
        assert_eq!((node_of(0), node_of(1)), (json!("b"), json!("a")));
        let Change::Replace(_, told, Part::Status) = &changes[2] else { panic!("{changes:?}") };
        assert_eq!(told["status"]["conditions"][0]["reason"], "Unschedulable");
        let told: Arc<Pod> = Arc::new(serde_json::from_value(told.clone()).unwrap());
        assert_eq!(reconcile(&[told], &nodes, &now), []);
    }
}
