//! The status of PodDisruptionBudgets: how many of their pods may go.

use std::collections::BTreeSet;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

use super::autoscalers::Targets;
use super::deployments::share;
use super::owner::{count, is_active};
use super::replica_sets::is_ready;
use super::selector::label_selects;
use crate::api::Change;

/// The status of budgets whose counts have changed.
pub(crate) fn reconcile(
    budgets: &[Arc<PodDisruptionBudget>],
    pods: &[Arc<Pod>],
    targets: &Targets,
    now: &Time,
) -> Vec<Change> {
    let living = budgets.iter().filter(|one| one.metadata.deletion_timestamp.is_none());
    living.filter_map(|budget| one(budget, pods, targets, now)).collect()
}

fn one(budget: &PodDisruptionBudget, pods: &[Arc<Pod>], targets: &Targets, now: &Time) -> Option<Change> {
    let spec = budget.spec.as_ref()?;
    let own: Vec<&Pod> = pods
        .iter()
        .map(AsRef::as_ref)
        .filter(|pod| pod.metadata.namespace == budget.metadata.namespace && is_active(pod))
        .filter(|pod| label_selects(spec.selector.as_ref(), pod.metadata.labels.as_ref()))
        .collect();
    let expected = expected(&own, targets);
    let desired = match (&spec.max_unavailable, &spec.min_available) {
        (Some(most), _) => (expected - share(most, expected, true)).max(0),
        (None, Some(least)) => share(least, expected, true),
        (None, None) => expected,
    };
    let healthy = count(own.iter().filter(|pod| is_ready(pod)).count());
    let allowed = if own.is_empty() { 0 } else { (healthy - desired).max(0) };
    let former = budget.status.clone().unwrap_or_default();
    let status = PodDisruptionBudgetStatus {
        conditions: Some(vec![condition(allowed, &former, budget.metadata.generation, now)]),
        current_healthy: healthy,
        desired_healthy: desired,
        disruptions_allowed: allowed,
        expected_pods: expected,
        observed_generation: budget.metadata.generation,
        disrupted_pods: None,
    };
    if budget.status.as_ref() == Some(&status) {
        return None;
    }
    Change::status(&PodDisruptionBudget { status: Some(status), ..budget.clone() })
}

/// How many pods there are to be: what their owners want, and those that have none.
fn expected(own: &[&Pod], targets: &Targets) -> i32 {
    let mut owners = BTreeSet::new();
    let mut alone = 0;
    for pod in own {
        match pod.metadata.owner_references.iter().flatten().find(|one| one.controller == Some(true)) {
            Some(owner) => drop(owners.insert(&*owner.uid)),
            None => alone += 1,
        }
    }
    let of_owner = |uid: &str| {
        let is = |meta: &k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta| {
            meta.uid.as_deref() == Some(uid)
        };
        let set = targets.replica_sets.iter().find(|set| is(&set.metadata));
        let stateful = targets.stateful_sets.iter().find(|set| is(&set.metadata));
        set.map(|set| set.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1))
            .or_else(|| stateful.map(|set| set.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1)))
            .unwrap_or_else(|| {
                let references = own
                    .iter()
                    .filter(|pod| pod.metadata.owner_references.iter().flatten().any(|one| one.uid == uid));
                count(references.count())
            })
    };
    owners.into_iter().map(of_owner).sum::<i32>() + alone
}

fn condition(
    allowed: i32,
    former: &PodDisruptionBudgetStatus,
    generation: Option<i64>,
    now: &Time,
) -> Condition {
    let (status, reason) =
        if allowed > 0 { ("True", "SufficientPods") } else { ("False", "InsufficientPods") };
    let same = former.conditions.iter().flatten().find(|one| one.status == status);
    Condition {
        type_: "DisruptionAllowed".to_owned(),
        status: status.to_owned(),
        reason: reason.to_owned(),
        message: String::new(),
        observed_generation: generation,
        last_transition_time: same.map_or_else(|| now.clone(), |one| one.last_transition_time.clone()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::Part;
    use serde_json::{Value, json};

    fn object<T: serde::de::DeserializeOwned>(value: Value) -> Arc<T> {
        Arc::new(serde_json::from_value(value).unwrap())
    }

    fn pod(name: &str, ready: bool) -> Arc<Pod> {
        object(json!({"metadata": {"name": name, "namespace": "ns", "labels": {"app": "a"},
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "a-1", "uid": "r1",
                "controller": true}]},
            "status": {"conditions": [{"type": "Ready", "status": if ready { "True" } else { "False" }}]}}))
    }

    fn status(spec: Value, pods: &[Arc<Pod>]) -> Value {
        let targets = Targets {
            deployments: Vec::new(),
            replica_sets: vec![object(json!({"metadata": {"name": "a-1", "uid": "r1"},
                "spec": {"replicas": 4, "selector": {}}}))],
            stateful_sets: Vec::new(),
        };
        let budget =
            object(json!({"metadata": {"name": "a", "namespace": "ns", "generation": 2}, "spec": spec}));
        let changes = reconcile(&[budget], pods, &targets, &crate::instant::time());
        let [Change::Replace(_, object, Part::Status)] = &changes[..] else { panic!("{changes:?}") };
        let again: Arc<PodDisruptionBudget> = Arc::new(serde_json::from_value(object.clone()).unwrap());
        assert_eq!(reconcile(&[again], pods, &targets, &crate::instant::time()), []);
        object["status"].clone()
    }

    #[test]
    fn what_is_healthy_beyond_the_least_may_go() {
        let selector = json!({"matchExpressions": [{"key": "app", "operator": "In", "values": ["a", "b"]}]});
        let pods = [pod("1", true), pod("2", true), pod("3", true), pod("4", false)];
        let told = status(json!({"minAvailable": 1, "selector": selector}), &pods);
        assert_eq!(told["disruptionsAllowed"], 2);
        assert_eq!((&told["expectedPods"], &told["currentHealthy"]), (&json!(4), &json!(3)));
        assert_eq!(told["conditions"][0]["reason"], "SufficientPods");
        let told = status(json!({"maxUnavailable": "25%", "selector": selector}), &pods[..3]);
        assert_eq!((&told["desiredHealthy"], &told["disruptionsAllowed"]), (&json!(3), &json!(0)));
        assert_eq!(told["conditions"][0]["status"], "False");
        let none = json!({"matchLabels": {"app": "x"}});
        assert_eq!(status(json!({"minAvailable": 0, "selector": none}), &pods)["disruptionsAllowed"], 0);
    }
}
