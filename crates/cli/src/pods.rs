//! Pods asked by way of the API server: the control plane's debug API, a proxy's admin interface.

mod admin;

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

    /// What `GET path` on the admin interface of its proxy answers, as JSON.
    pub(crate) async fn ask_proxy(&self, client: &Client, path: &str) -> Result<Value, CliError> {
        let text = admin::ask(client, self, "GET", path).await?;
        serde_json::from_str(&text).map_err(|error| {
            CliError(format!(
                "the proxy of {}.{} answers {path} with no JSON: {error}",
                self.name, self.namespace
            ))
        })
    }
}

/// Asks the proxies of pods.
pub(crate) struct ProxyAdmin {
    client: Client,
    pod: PodName,
}

impl ProxyAdmin {
    /// The proxy of the pod that `[TYPE/]NAME[.NAMESPACE]` names: a pod, or the first running one of a deployment or
    /// service.
    pub(crate) async fn find(client: Client, text: &str, globals: &Globals) -> Result<Self, CliError> {
        let namespace = globals.namespace.clone().unwrap_or_else(|| client.default_namespace().to_owned());
        let (kind, owner, pointer) = match text.split_once('/') {
            Some(("deployment" | "deployments" | "deploy", name)) => {
                let kind = ResourceKind::new("apps", "v1", "Deployment", "deployments", true);
                (kind, PodName::parse(name, &namespace)?, "/spec/selector/matchLabels")
            }
            Some(("service" | "services" | "svc", name)) => (
                ResourceKind::core("Service", "services"),
                PodName::parse(name, &namespace)?,
                "/spec/selector",
            ),
            _ => return Self::of(client, PodName::parse(text, &namespace)?).await,
        };
        let owned = client.get(&kind, &owner.namespace, &owner.name).await?;
        let labels = owned.pointer(pointer).and_then(Value::as_object).into_iter().flatten();
        let labels: Vec<String> =
            labels.filter_map(|(key, value)| Some(format!("{key}={}", value.as_str()?))).collect();
        let pods = running(&client, &owner.namespace, &labels.join(",")).await?;
        match pods.into_iter().next() {
            Some(pod) => Ok(Self { client, pod }),
            None => Err(CliError(format!("{text} has no running pods in namespace {}", owner.namespace))),
        }
    }

    async fn of(client: Client, pod: PodName) -> Result<Self, CliError> {
        let PodName { namespace, name } = &pod;
        match client.get(&ResourceKind::core("Pod", "pods"), namespace, name).await {
            Ok(_) => Ok(Self { client, pod }),
            Err(error) if error.is_not_found() => {
                let message =
                    format!("unable to retrieve Pod: pods {name:?} not found in namespace {namespace:?}");
                Err(CliError(message))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// The pod.
    pub(crate) fn pod(&self) -> &PodName {
        &self.pod
    }

    /// What `GET path` answers, as JSON.
    pub(crate) async fn json(&self, path: &str) -> Result<Value, CliError> {
        self.pod.ask_proxy(&self.client, path).await
    }

    /// What a request to `path` answers, as text.
    pub(crate) async fn text(&self, method: &str, path: &str) -> Result<String, CliError> {
        admin::ask(&self.client, &self.pod, method, path).await
    }
}

/// The running pods of a namespace that these labels select.
async fn running(client: &Client, namespace: &str, labels: &str) -> Result<Vec<PodName>, CliError> {
    let pods = ResourceKind::core("Pod", "pods");
    let pods = client.list(&pods, Some(namespace), Some(labels)).await?;
    let running = pods.iter().filter(|pod| pod["status"]["phase"] == "Running");
    let names = running.filter_map(|pod| pod["metadata"]["name"].as_str());
    Ok(names.map(|name| PodName { namespace: namespace.to_owned(), name: name.into() }).collect())
}

/// The running pods of the control plane.
pub(crate) async fn control_plane(client: &Client, globals: &Globals) -> Result<Vec<PodName>, CliError> {
    let namespace = &globals.istio_namespace;
    let running = running(client, namespace, "app=istiod").await?;
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
        // The control plane answers its own pod without more; who may forward its ports is the cluster's to say.
        let value = client.forwarded_get(&pod.namespace, &pod.name, DEBUG_PORT, path).await?;
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
