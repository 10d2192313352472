//! Autoscalers and disruption budgets of deployments.

use serde_json::{Value, json};

use crate::installation::{is_true, plain};
use crate::object::Maker;

/// The autoscaler that the values at `settings` ask for; none where they ask for none.
pub(crate) fn autoscaler(
    make: &Maker<'_>,
    settings: &Value,
    name: &str,
    namespace: &str,
    spec: Option<&Value>,
) -> Option<Value> {
    let wanted = is_true(settings.get("autoscaleEnabled")) && !settings["autoscaleMin"].is_null();
    if !wanted && spec.is_none() {
        return None;
    }
    let mut scaler = make.namespaced("autoscaling/v2", "HorizontalPodAutoscaler", name, namespace);
    let metrics: Vec<Value> = ["cpu", "memory"]
        .into_iter()
        .filter_map(|resource| {
            let utilization = settings[resource].get("targetAverageUtilization").filter(|u| !u.is_null())?;
            let target = json!({ "type": "Utilization", "averageUtilization": utilization });
            Some(json!({ "type": "Resource", "resource": { "name": resource, "target": target } }))
        })
        .collect();
    scaler["spec"] = json!({
        "maxReplicas": settings["autoscaleMax"],
        "minReplicas": settings["autoscaleMin"],
        "metrics": metrics,
        "scaleTargetRef": { "apiVersion": "apps/v1", "kind": "Deployment", "name": name },
    });
    if settings["autoscaleBehavior"].as_object().is_some_and(|behavior| !behavior.is_empty()) {
        scaler["spec"]["behavior"] = settings["autoscaleBehavior"].clone();
    }
    if let Some(spec) = spec {
        crate::object::extend(&mut scaler["spec"], spec);
    }
    Some(scaler)
}

/// The disruption budget, where budgets are on: one pod stays, unless the values say otherwise.
pub(crate) fn budget(
    make: &Maker<'_>,
    name: &str,
    namespace: &str,
    selector: &Value,
    spec: Option<&Value>,
) -> Option<Value> {
    let on = make.installation.flag("global.defaultPodDisruptionBudget.enabled");
    if !on && spec.is_none() {
        return None;
    }
    let mut budget = make.namespaced("policy/v1", "PodDisruptionBudget", name, namespace);
    budget["spec"] = json!({ "selector": { "matchLabels": selector } });
    let settings = make.installation.value("pdb");
    let setting = |key: &str| settings.and_then(|pdb| pdb.get(key)).filter(|value| !plain(value).is_empty());
    match setting("maxUnavailable") {
        Some(unavailable) => budget["spec"]["maxUnavailable"] = unavailable.clone(),
        None => budget["spec"]["minAvailable"] = setting("minAvailable").cloned().unwrap_or(json!(1)),
    }
    if let Some(policy) = setting("unhealthyPodEvictionPolicy") {
        budget["spec"]["unhealthyPodEvictionPolicy"] = policy.clone();
    }
    if let Some(spec) = spec {
        crate::object::extend(&mut budget["spec"], spec);
    }
    Some(budget)
}
