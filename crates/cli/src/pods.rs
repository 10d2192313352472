//! Pods asked by way of the API server: the control plane's debug API, a proxy's admin interface.

use lateen_kube::{Client, ResourceKind};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::commands::CliError;
use crate::globals::Globals;

/// Where the control plane answers debug requests.
const DEBUG_PORT: u16 = 15014;

/// A pod by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PodName {
    pub(crate) namespace: String,
    pub(crate) name: String,
}

impl PodName {
    /// Reads `name[.namespace]` or `type/name[.namespace]`; the type has to be a pod.
    pub(crate) fn parse(text: &str, default_namespace: &str) -> Result<Self, CliError> {
        let name = match text.split_once('/') {
            None => text,
            Some(("pod" | "pods" | "po", name)) => name,
            Some((kind, _)) => {
                return Err(CliError(format!("{text:?}: {kind} is not supported here; name a pod")));
            }
        };
        let (name, namespace) = name.rsplit_once('.').unwrap_or((name, default_namespace));
        if name.is_empty() || namespace.is_empty() {
            return Err(CliError(format!("{text:?}: write POD or POD.NAMESPACE")));
        }
        Ok(Self { namespace: namespace.to_owned(), name: name.to_owned() })
    }

    /// What `GET path` on one of its ports answers, as JSON.
    pub(crate) async fn ask(&self, client: &Client, port: u16, path: &str) -> Result<Value, CliError> {
        let Self { namespace, name } = self;
        let path = format!("/api/v1/namespaces/{namespace}/pods/{name}:{port}/proxy{path}");
        Ok(client.raw_get(&path, "application/json").await?)
    }
}

/// The running pods of the control plane.
pub(crate) async fn control_plane(client: &Client, globals: &Globals) -> Result<Vec<PodName>, CliError> {
    let pods = ResourceKind::core("Pod", "pods");
    let namespace = &globals.istio_namespace;
    let running: Vec<PodName> = client
        .list(&pods, Some(namespace), Some("app=istiod"))
        .await?
        .iter()
        .filter(|pod| pod["status"]["phase"] == "Running")
        .filter_map(|pod| {
            Some(PodName { namespace: namespace.clone(), name: pod["metadata"]["name"].as_str()?.into() })
        })
        .collect();
    if running.is_empty() {
        return Err(CliError(format!(
            "no running pod of the control plane in namespace {namespace} (app=istiod)"
        )));
    }
    Ok(running)
}

/// What every pod of the control plane answers to a debug request.
pub(crate) async fn debug<T: DeserializeOwned>(
    client: &Client,
    globals: &Globals,
    path: &str,
) -> Result<Vec<(PodName, T)>, CliError> {
    let mut answers = Vec::new();
    for pod in control_plane(client, globals).await? {
        let value = pod.ask(client, DEBUG_PORT, path).await?;
        let answer = serde_json::from_value(value)
            .map_err(|error| CliError(format!("{}: {path}: {error}; is it of another version?", pod.name)))?;
        answers.push((pod, answer));
    }
    Ok(answers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_may_carry_its_namespace() {
        let pod = |namespace: &str, name: &str| PodName { namespace: namespace.into(), name: name.into() };
        assert_eq!(PodName::parse("a", "default").unwrap(), pod("default", "a"));
        assert_eq!(PodName::parse("a.b", "default").unwrap(), pod("b", "a"));
        assert_eq!(PodName::parse("pod/a.b", "default").unwrap(), pod("b", "a"));
        assert!(PodName::parse("deploy/a", "default").is_err());
        assert!(PodName::parse("a.", "default").is_err());
    }
}
