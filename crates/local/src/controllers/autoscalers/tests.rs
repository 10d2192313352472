use super::*;
use crate::api::Part;
use serde_json::{Value, json};

fn object<T: serde::de::DeserializeOwned>(value: Value) -> Arc<T> {
    Arc::new(serde_json::from_value(value).unwrap())
}

fn targets(replicas: i32) -> Targets {
    let web = json!({"apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": "web", "namespace": "ns"}, "status": {"replicas": 1},
        "spec": {"replicas": replicas, "selector": {}, "template": {}}});
    Targets { deployments: vec![object(web)], replica_sets: Vec::new(), stateful_sets: Vec::new() }
}

fn decide(target: &str, replicas: i32) -> (Option<Value>, Value) {
    let scaler = object(json!({"metadata": {"name": "web", "namespace": "ns"},
        "spec": {"scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": target},
            "minReplicas": 2, "maxReplicas": 4, "metrics": [{"type": "Resource", "resource":
                {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}}}]}}));
    let (mut scaled, mut status) = (None, Value::Null);
    for change in reconcile(&[scaler], &targets(replicas), &crate::instant::time()) {
        match change {
            Change::Replace(_, object, Part::Whole) => scaled = Some(object["spec"]["replicas"].clone()),
            Change::Replace(_, object, Part::Status) => status = object["status"].clone(),
            other => panic!("{other:?}"),
        }
    }
    (scaled, status)
}

#[test]
fn targets_stay_between_the_bounds_and_metrics_are_said_to_be_missing() {
    let (scaled, status) = decide("web", 3);
    assert_eq!(
        (scaled, &status["desiredReplicas"], &status["currentReplicas"]),
        (None, &json!(3), &json!(1))
    );
    let active = &status["conditions"][1];
    assert_eq!((&active["type"], &active["status"]), (&json!("ScalingActive"), &json!("False")));
    assert_eq!(active["reason"], "FailedGetResourceMetric");
    assert_eq!(decide("web", 1).0, Some(json!(2)));
    assert_eq!(decide("web", 9).0, Some(json!(4)));
}

#[test]
fn what_is_switched_off_or_missing_is_left_alone() {
    let (scaled, status) = decide("web", 0);
    assert_eq!((scaled, &status["conditions"][1]["reason"]), (None, &json!("ScalingDisabled")));
    let (scaled, status) = decide("other", 3);
    assert_eq!((scaled, &status["conditions"][0]["reason"]), (None, &json!("FailedGetScale")));
}

#[test]
fn a_told_autoscaler_rests() {
    let (_, status) = decide("web", 3);
    let mut scaler = json!({"metadata": {"name": "web", "namespace": "ns"},
        "spec": {"scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"},
            "minReplicas": 2, "maxReplicas": 4, "metrics": [{"type": "Resource", "resource":
                {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}}}]}});
    scaler["status"] = status;
    assert_eq!(reconcile(&[object(scaler)], &targets(3), &crate::instant::time()), []);
}
