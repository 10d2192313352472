//! The node's metadata: what the control plane learns about the proxy.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde_json::{Map, Value, json};

use crate::files::PodInfo;
use crate::settings::ProxyConfig;

/// The Istio version whose API the proxy speaks.
const ISTIO_VERSION: &str = "1.26.0";

/// What the agent knows of the pod itself.
pub(crate) struct Facts<'a> {
    pub(crate) pod: &'a str,
    pub(crate) namespace: &'a str,
    pub(crate) account: &'a str,
    pub(crate) addresses: &'a [IpAddr],
}

/// The metadata: facts of the pod, then `ISTIO_META_X` as `X` and `ISTIO_METAJSON_X` parsed.
pub(crate) fn of_node(
    env: &BTreeMap<String, String>,
    config: &ProxyConfig,
    pod: &PodInfo,
    facts: &Facts<'_>,
) -> Map<String, Value> {
    let addresses: Vec<String> = facts.addresses.iter().map(ToString::to_string).collect();
    let mut metadata = json!({
        "NAME": facts.pod,
        "NAMESPACE": facts.namespace,
        "SERVICE_ACCOUNT": facts.account,
        "INSTANCE_IPS": addresses.join(","),
        "LABELS": pod.labels,
        "ANNOTATIONS": pod.annotations,
        "ISTIO_VERSION": ISTIO_VERSION,
        "CLUSTER_ID": "Kubernetes",
        "ENVOY_STATUS_PORT": 15021,
        "ENVOY_PROMETHEUS_PORT": 15090,
        "LATEEN_VERSION": env!("CARGO_PKG_VERSION"),
    });
    if let Some(text) = env.get("PROXY_CONFIG")
        && let Ok(config @ Value::Object(_)) = serde_json::from_str::<Value>(text)
    {
        metadata["PROXY_CONFIG"] = config;
    }
    for (name, value) in env.iter().chain(&config.proxy_metadata) {
        if let Some(key) = name.strip_prefix("ISTIO_META_") {
            metadata[key] = json!(value);
        } else if let Some(key) = name.strip_prefix("ISTIO_METAJSON_") {
            merge(&mut metadata[key], value);
        }
    }
    match metadata {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}

/// The node's cluster: the workload's application, canonical name or `istio-proxy`, and its namespace.
pub(crate) fn service_cluster(pod: &PodInfo, namespace: &str) -> String {
    let name = ["app", "app.kubernetes.io/name", "service.istio.io/canonical-name"]
        .iter()
        .find_map(|label| pod.labels.get(*label))
        .map_or("istio-proxy", String::as_str);
    format!("{name}.{namespace}")
}

/// Members are added to what is there; text that is no JSON stays text.
fn merge(into: &mut Value, text: &str) {
    match (serde_json::from_str(text), into) {
        (Ok(Value::Object(new)), Value::Object(old)) => old.extend(new),
        (Ok(value), into) => *into = value,
        (Err(_), into) => *into = json!(text),
    }
}
