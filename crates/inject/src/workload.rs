//! What a pod belongs to, and the pods that workloads make.

use serde_json::Value;

/// The workload behind a pod: for its proxy's metadata.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Workload {
    /// Its name.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// `kubernetes://apis/...`.
    pub owner: String,
}

impl Workload {
    /// From the pod alone: the deployment above a replica set, the cron job above a job, else the controller, else the
    /// pod itself.
    pub fn of_pod(pod: &Value, namespace: &str) -> Self {
        let metadata = &pod["metadata"];
        let own = metadata["name"].as_str().or(metadata["generateName"].as_str()).unwrap_or_default();
        let controller = metadata["ownerReferences"].as_array().into_iter().flatten();
        let Some(owner) = controller.into_iter().find(|owner| owner["controller"] == Value::Bool(true))
        else {
            return Self::named("v1", "Pod", own.trim_end_matches('-'), namespace);
        };
        let text = |key: &str| owner[key].as_str().unwrap_or_default();
        let (version, kind, name) = (text("apiVersion"), text("kind"), text("name"));
        let hash = metadata["labels"]["pod-template-hash"].as_str().unwrap_or_default();
        let deployment = name.strip_suffix(hash).and_then(|name| name.strip_suffix('-'));
        match deployment.filter(|_| kind == "ReplicaSet" && !hash.is_empty()) {
            Some(deployment) => Self::named(version, "Deployment", deployment, namespace),
            None => Self::named(version, kind, name, namespace),
        }
    }

    /// From its own type and name.
    pub fn named(api_version: &str, kind: &str, name: &str, namespace: &str) -> Self {
        let kind = kind.to_lowercase();
        Self {
            name: name.to_owned(),
            namespace: namespace.to_owned(),
            owner: format!("kubernetes://apis/{api_version}/namespaces/{namespace}/{kind}s/{name}"),
        }
    }
}

/// The place of the pod in an object that makes pods; none in one that makes none.
pub(crate) fn template_path(kind: &str) -> Option<&'static str> {
    Some(match kind {
        "Pod" => "",
        "CronJob" => "/spec/jobTemplate/spec/template",
        "Deployment"
        | "DaemonSet"
        | "Job"
        | "ReplicaSet"
        | "ReplicationController"
        | "StatefulSet"
        | "DeploymentConfig" => "/spec/template",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_replica_sets_pod_is_its_deployments() {
        let pod = json!({ "metadata": {
            "labels": { "pod-template-hash": "6f9b" },
            "ownerReferences": [{ "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "a-v1-6f9b", "controller": true }],
        }});
        let workload = Workload::of_pod(&pod, "ns");
        assert_eq!(workload.name, "a-v1");
        assert_eq!(workload.owner, "kubernetes://apis/apps/v1/namespaces/ns/deployments/a-v1");
        let alone = Workload::of_pod(&json!({ "metadata": { "generateName": "a-" } }), "ns");
        assert_eq!(alone.owner, "kubernetes://apis/v1/namespaces/ns/pods/a");
    }
}
