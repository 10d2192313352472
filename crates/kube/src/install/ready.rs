//! Waiting until what was installed serves.

use std::time::Duration;

use serde_json::Value;
use tokio::time::{Instant, sleep};

use super::{InstallError, Installer, Step, key, kind_of, kinds};
use crate::KubeError;

/// How often a server is asked.
const INTERVAL: Duration = Duration::from_millis(200);

impl Installer {
    /// Waits until every definition among the objects is established, and every deployment rolled out.
    pub(super) async fn ready(
        &self,
        objects: &[Value],
        patience: Duration,
        tell: &(dyn Fn(Step) + Sync),
    ) -> Result<(), InstallError> {
        let deadline = Instant::now() + patience;
        let awaited = |object: &&Value| {
            matches!(object["kind"].as_str(), Some("Deployment" | "CustomResourceDefinition"))
        };
        for object in objects.iter().filter(awaited) {
            tell(Step::Waiting(key(object)));
            loop {
                let current = self.current(object).await;
                let current = current.map_err(|source| InstallError::Refused {
                    action: "reading",
                    object: key(object),
                    source,
                })?;
                if is_ready(&current) {
                    break;
                }
                if Instant::now() >= deadline {
                    let what = self.why_not(&current).await;
                    return Err(InstallError::NotReady { patience, what });
                }
                sleep(INTERVAL).await;
            }
        }
        Ok(())
    }

    async fn current(&self, object: &Value) -> Result<Value, KubeError> {
        let Some(kind) = object["kind"].as_str().and_then(kind_of) else { return Ok(Value::Null) };
        let metadata = &object["metadata"];
        let name = metadata["name"].as_str().unwrap_or_default();
        let namespace = metadata["namespace"].as_str().unwrap_or_default();
        self.retried("reading", &key(object), || self.client.get(&kind, namespace, name)).await
    }

    /// The object's conditions, and what its pods say.
    async fn why_not(&self, object: &Value) -> String {
        let mut lines = vec![format!("  {}", key(object))];
        let conditions = object["status"]["conditions"].as_array().into_iter().flatten();
        for condition in conditions.filter(|condition| condition["status"] == "False") {
            lines.push(format!("    {}: {}", text(&condition["type"]), text(&condition["message"])));
        }
        let labels = object["spec"]["selector"]["matchLabels"].as_object();
        let selector: Vec<String> =
            labels.into_iter().flatten().map(|(key, value)| format!("{key}={}", text(value))).collect();
        let namespace = object["metadata"]["namespace"].as_str();
        let pods = match selector.is_empty() {
            true => Ok(vec![]),
            false => self.client.list(&kinds::pod(), namespace, Some(&selector.join(","))).await,
        };
        for pod in pods.unwrap_or_default() {
            let statuses = ["initContainerStatuses", "containerStatuses"];
            let statuses = statuses.iter().flat_map(|list| pod["status"][list].as_array()).flatten();
            for status in statuses.filter(|status| status["ready"] != true) {
                let state = ["waiting", "terminated"].iter().find_map(|state| {
                    let state = &status["state"][*state];
                    Some(format!("{}: {}", state["reason"].as_str()?, text(&state["message"])))
                });
                lines.push(format!(
                    "    pod {}, container {}: {}",
                    text(&pod["metadata"]["name"]),
                    text(&status["name"]),
                    state.unwrap_or_else(|| "running, not ready".to_owned())
                ));
            }
        }
        lines.join("\n")
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// As `kubectl rollout status` sees a deployment: the controller has seen this version, all its pods are of it and
/// available, none of the former is left.
fn is_ready(object: &Value) -> bool {
    let number = |value: &Value| value.as_u64().unwrap_or(0);
    let status = &object["status"];
    match object["kind"].as_str() {
        Some("CustomResourceDefinition") => status["conditions"]
            .as_array()
            .into_iter()
            .flatten()
            .any(|condition| condition["type"] == "Established" && condition["status"] == "True"),
        Some("Deployment") => {
            let wanted = object["spec"]["replicas"].as_u64().unwrap_or(1);
            number(&status["observedGeneration"]) >= number(&object["metadata"]["generation"])
                && number(&status["updatedReplicas"]) >= wanted
                && number(&status["replicas"]) <= number(&status["updatedReplicas"])
                && number(&status["availableReplicas"]) >= wanted
        }
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_rollout_is_over_when_all_pods_are_new_and_available() {
        let deployment = |observed: u64, updated: u64, all: u64, available: u64| {
            json!({
                "kind": "Deployment",
                "metadata": { "generation": 2 },
                "spec": { "replicas": 2 },
                "status": { "observedGeneration": observed, "updatedReplicas": updated, "replicas": all,
                            "availableReplicas": available },
            })
        };
        assert!(is_ready(&deployment(2, 2, 2, 2)));
        for other in
            [deployment(1, 2, 2, 2), deployment(2, 1, 2, 2), deployment(2, 2, 3, 2), deployment(2, 2, 2, 1)]
        {
            assert!(!is_ready(&other), "{other}");
        }
    }
}
