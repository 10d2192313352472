//! Which pod, and which of its containers: what `exec` and `logs` ask first.

use serde_json::Value;

use crate::cluster::Cluster;
use crate::commands::CliError;

/// The annotation by which a pod names its main container.
const DEFAULT: &str = "kubectl.kubernetes.io/default-container";

/// The pod of this name, or the first one of TYPE/NAME.
pub(crate) async fn pod(cluster: &Cluster, target: &str) -> Result<Value, CliError> {
    let pods = cluster.kind("pods")?;
    let (kind, name) = match target.split_once('/') {
        None => (pods, target),
        Some((kind, name)) => (cluster.kind(kind)?, name),
    };
    let found = cluster.client.get(kind, &cluster.namespace, name).await?;
    if kind.kind == pods.kind {
        return Ok(found);
    }
    let labels = match kind.kind.as_str() {
        "Service" | "ReplicationController" => &found["spec"]["selector"],
        _ => &found["spec"]["selector"]["matchLabels"],
    };
    let labels: Vec<String> = labels
        .as_object()
        .into_iter()
        .flatten()
        .map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default()))
        .collect();
    if labels.is_empty() {
        return Err(CliError(format!("{target} selects no pods by label; name a pod")));
    }
    let found = cluster.client.list(pods, Some(&cluster.namespace), Some(&labels.join(","))).await?;
    let runs = |pod: &&Value| pod["status"]["phase"] == "Running";
    let first = found.iter().find(runs).or(found.first()).cloned();
    first.ok_or_else(|| CliError(format!("{target} has no pod")))
}

/// The pod's name.
pub(crate) fn name(pod: &Value) -> &str {
    pod["metadata"]["name"].as_str().unwrap_or_default()
}

/// The pod's namespace.
pub(crate) fn namespace(pod: &Value) -> &str {
    pod["metadata"]["namespace"].as_str().unwrap_or_default()
}

/// The names of all containers of a pod, the init containers first.
pub(crate) fn all(pod: &Value) -> Vec<&str> {
    let lists = ["initContainers", "containers", "ephemeralContainers"].into_iter();
    let containers = lists.flat_map(|list| pod["spec"][list].as_array().into_iter().flatten());
    containers.filter_map(|container| container["name"].as_str()).collect()
}

/// The container that was asked for, else the one that the pod calls its default, else the first; which of several is
/// said on standard error.
pub(crate) fn choose(pod: &Value, asked: Option<&str>, quiet: bool) -> Result<String, CliError> {
    let all = all(pod);
    if let Some(asked) = asked {
        return match all.contains(&asked) {
            true => Ok(asked.to_owned()),
            false => Err(CliError(format!(
                "container {asked} is not valid for pod {}; it has {}",
                name(pod),
                all.join(", ")
            ))),
        };
    }
    let named = pod["metadata"]["annotations"][DEFAULT].as_str().filter(|named| all.contains(named));
    if let Some(named) = named {
        return Ok(named.to_owned());
    }
    let first = pod["spec"]["containers"][0]["name"].as_str().unwrap_or_default();
    if all.len() > 1 && !quiet {
        eprintln!("Defaulted container \"{first}\" out of: {}", all.join(", "));
    }
    Ok(first.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_container_is_the_one_asked_for_the_default_one_or_the_first() {
        let mut pod = json!({"metadata": {"name": "p"}, "spec": {
            "initContainers": [{"name": "init"}], "containers": [{"name": "a"}, {"name": "b"}]}});
        assert_eq!(choose(&pod, Some("init"), false).unwrap(), "init");
        assert_eq!(choose(&pod, None, true).unwrap(), "a");
        let error = choose(&pod, Some("c"), false).unwrap_err().to_string();
        assert_eq!(error, "container c is not valid for pod p; it has init, a, b");
        pod["metadata"]["annotations"] = json!({DEFAULT: "b"});
        assert_eq!(choose(&pod, None, false).unwrap(), "b");
        // An annotation that names nobody does not count.
        pod["metadata"]["annotations"] = json!({DEFAULT: "x"});
        assert_eq!(choose(&pod, None, true).unwrap(), "a");
    }
}
