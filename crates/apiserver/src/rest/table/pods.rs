//! The cells of a pod.

use serde_json::{Value, json};

use super::cells::{age, list, or};

/// `1/2`.
pub(super) fn ready(pod: &Value) -> Value {
    let ready = list(&pod["status"]["containerStatuses"]).iter().filter(|s| s["ready"] == true).count();
    let sidecars: Vec<&Value> =
        list(&pod["spec"]["initContainers"]).iter().filter(|c| c["restartPolicy"] == "Always").collect();
    let ready_sidecars = list(&pod["status"]["initContainerStatuses"])
        .iter()
        .filter(|s| s["ready"] == true && sidecars.iter().any(|c| c["name"] == s["name"]))
        .count();
    json!(format!("{}/{}", ready + ready_sidecars, list(&pod["spec"]["containers"]).len() + sidecars.len()))
}

/// The phase, or the reason that tells more.
pub(super) fn status(pod: &Value) -> Value {
    let status = &pod["status"];
    let mut reason = or(&status["reason"], &or(&status["phase"], "Unknown"));
    let total = list(&pod["spec"]["initContainers"]).len();
    let mut initializing = false;
    for (index, container) in list(&status["initContainerStatuses"]).iter().enumerate() {
        let state = &container["state"];
        let restartable = list(&pod["spec"]["initContainers"])
            .iter()
            .any(|c| c["name"] == container["name"] && c["restartPolicy"] == "Always");
        if state["terminated"]["exitCode"] == 0 || restartable && container["started"] == true {
            continue;
        }
        reason = match (&state["terminated"], state["waiting"]["reason"].as_str()) {
            (Value::Object(_), _) => format!("Init:{}", terminated(&state["terminated"])),
            (_, Some(waiting)) if !waiting.is_empty() && waiting != "PodInitializing" => {
                format!("Init:{waiting}")
            }
            _ => format!("Init:{index}/{total}"),
        };
        initializing = true;
        break;
    }
    if !initializing {
        reason = container_reason(pod, reason);
    }
    if pod["metadata"]["deletionTimestamp"].is_string() {
        reason = if status["reason"] == "NodeLost" { "Unknown".into() } else { "Terminating".into() };
    }
    json!(reason)
}

fn container_reason(pod: &Value, phase: String) -> String {
    let mut reason = phase;
    let mut running = false;
    for container in list(&pod["status"]["containerStatuses"]).iter().rev() {
        let state = &container["state"];
        if let Some(waiting) = state["waiting"]["reason"].as_str().filter(|r| !r.is_empty()) {
            reason = waiting.to_owned();
        } else if state["terminated"].is_object() {
            reason = terminated(&state["terminated"]);
        } else if container["ready"] == true && state["running"].is_object() {
            running = true;
        }
    }
    if reason == "Completed" && running {
        let ready = |c: &Value| c["type"] == "Ready" && c["status"] == "True";
        let ready = list(&pod["status"]["conditions"]).iter().any(ready);
        reason = if ready { "Running".into() } else { "NotReady".into() };
    }
    reason
}

fn terminated(state: &Value) -> String {
    match (state["reason"].as_str().filter(|r| !r.is_empty()), state["signal"].as_i64().filter(|s| *s != 0)) {
        (Some(reason), _) => reason.to_owned(),
        (None, Some(signal)) => format!("Signal:{signal}"),
        (None, None) => format!("ExitCode:{}", state["exitCode"].as_i64().unwrap_or(0)),
    }
}

/// `2 (3m ago)`.
pub(super) fn restarts(pod: &Value) -> Value {
    let statuses = list(&pod["status"]["containerStatuses"]);
    let count: u64 = statuses.iter().filter_map(|s| s["restartCount"].as_u64()).sum();
    let ends = statuses.iter().filter_map(|s| s["lastState"]["terminated"]["finishedAt"].as_str());
    match ends.max().filter(|_| count > 0) {
        Some(last) => json!(format!("{count} ({} ago)", age(last))),
        None => json!(count.to_string()),
    }
}

pub(super) fn gates(pod: &Value) -> Value {
    let gates = list(&pod["spec"]["readinessGates"]);
    if gates.is_empty() {
        return json!("<none>");
    }
    let holds = |gate: &&Value| {
        list(&pod["status"]["conditions"])
            .iter()
            .any(|c| c["type"] == gate["conditionType"] && c["status"] == "True")
    };
    json!(format!("{}/{}", gates.iter().filter(holds).count(), gates.len()))
}
