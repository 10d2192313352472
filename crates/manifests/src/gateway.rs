//! Gateways: proxies of their own, at the mesh's edge.

use lateen_inject::{PROXY_NAME, ProxyContainer, Role, volumes};
use serde_json::{Map, Value, json};

use crate::{Installation, object};

/// A gateway to install.
#[derive(Clone, Debug, PartialEq)]
pub struct Gateway {
    /// The name of its deployment and service.
    pub name: String,
    /// Its pods' labels, by which Gateway objects select it.
    pub labels: Vec<(String, String)>,
    /// `LoadBalancer`, `NodePort` or `ClusterIP`.
    pub service_type: String,
    /// Its service's ports: name, port, target port.
    pub ports: Vec<(String, u16, u16)>,
}

impl Gateway {
    /// `istio-ingressgateway`.
    pub fn ingress() -> Self {
        Self::built_in(
            "istio-ingressgateway",
            "ingressgateway",
            "LoadBalancer",
            &[
                ("status-port", 15021, 15021),
                ("http2", 80, 8080),
                ("https", 443, 8443),
                ("tcp", 31400, 31400),
                ("tls", 15443, 15443),
            ],
        )
    }

    /// `istio-egressgateway`.
    pub fn egress() -> Self {
        Self::built_in(
            "istio-egressgateway",
            "egressgateway",
            "ClusterIP",
            &[("http2", 80, 8080), ("https", 443, 8443)],
        )
    }

    fn built_in(name: &str, label: &str, service_type: &str, ports: &[(&str, u16, u16)]) -> Self {
        Self {
            name: name.into(),
            labels: vec![("app".into(), name.into()), ("istio".into(), label.into())],
            service_type: service_type.into(),
            ports: ports.iter().map(|(name, port, target)| ((*name).into(), *port, *target)).collect(),
        }
    }
}

/// Its identity, permission to read its namespace's secrets, deployment and service.
pub(crate) fn objects(gateway: &Gateway, installation: &Installation) -> Vec<Value> {
    let namespace = installation.namespace.as_str();
    let account = format!("{}-service-account", gateway.name);
    let sds = format!("{}-sds", gateway.name);
    let named = |api: &str, kind: &str, name: &str| {
        let mut object = object(api, kind, name, Some(namespace), installation, &gateway.name);
        for (key, value) in &gateway.labels {
            object["metadata"]["labels"][key] = json!(value);
        }
        object
    };
    let rbac = "rbac.authorization.k8s.io";
    let mut role = named(&format!("{rbac}/v1"), "Role", &sds);
    role["rules"] =
        json!([{ "apiGroups": [""], "resources": ["secrets"], "verbs": ["get", "watch", "list"] }]);
    let mut binding = named(&format!("{rbac}/v1"), "RoleBinding", &sds);
    binding["roleRef"] = json!({ "apiGroup": rbac, "kind": "Role", "name": sds });
    binding["subjects"] = json!([{ "kind": "ServiceAccount", "name": account, "namespace": namespace }]);
    let mut deployment = named("apps/v1", "Deployment", &gateway.name);
    deployment["spec"] = deployment_spec(gateway, installation, &account);
    let mut service = named("v1", "Service", &gateway.name);
    service["spec"] = json!({
        "type": gateway.service_type,
        "selector": labels(gateway),
        "ports": gateway.ports.iter().map(|(name, port, target)| {
            json!({ "name": name, "port": port, "targetPort": target, "protocol": "TCP" })
        }).collect::<Vec<_>>(),
    });
    vec![named("v1", "ServiceAccount", &account), role, binding, deployment, service]
}

fn deployment_spec(gateway: &Gateway, installation: &Installation, account: &str) -> Value {
    let settings = installation.proxy_settings();
    let owner = format!(
        "kubernetes://apis/apps/v1/namespaces/{}/deployments/{}",
        installation.namespace, gateway.name
    );
    let mut container = ProxyContainer {
        role: Role::Router,
        workload: &gateway.name,
        owner: &owner,
        config: own_config(installation),
        app_ports: vec![],
        app_containers: vec![],
        resources: json!({ "limits": { "cpu": "2", "memory": "1Gi" }, "requests": { "cpu": "10m", "memory": "40Mi" } }),
        ports: gateway.ports.iter().map(|(_, _, target)| json!({ "containerPort": target, "protocol": "TCP" })).collect(),
    }
    .render(&settings);
    if let Some(env) = container["env"].as_array_mut() {
        env.push(json!({ "name": "ISTIO_META_UNPRIVILEGED_POD", "value": "true" }));
    }
    let mut pod_labels = labels(gateway);
    pod_labels["istio.io/rev"] = json!(installation.revision_name());
    pod_labels["sidecar.istio.io/inject"] = json!("false");
    pod_labels["service.istio.io/canonical-name"] = json!(gateway.name);
    pod_labels["service.istio.io/canonical-revision"] = json!("latest");
    json!({
        "replicas": 1,
        "selector": { "matchLabels": labels(gateway) },
        "template": {
            "metadata": {
                "labels": pod_labels,
                "annotations": {
                    "istio.io/rev": installation.revision_name(),
                    "kubectl.kubernetes.io/default-container": PROXY_NAME,
                    "prometheus.io/path": "/stats/prometheus",
                    "prometheus.io/port": "15020",
                    "prometheus.io/scrape": "true",
                    "sidecar.istio.io/inject": "false",
                },
            },
            "spec": { "serviceAccountName": account, "containers": [container], "volumes": volumes() },
        },
    })
}

/// The proxy configuration that a gateway's pods carry themselves: what of the mesh's differs from the built-in one.
fn own_config(installation: &Installation) -> Map<String, Value> {
    let default_config = installation.mesh_config.get("defaultConfig").and_then(Value::as_object);
    let mut config = default_config.cloned().unwrap_or_default();
    config.remove("discoveryAddress");
    config
}

fn labels(gateway: &Gateway) -> Value {
    Value::Object(gateway.labels.iter().map(|(key, value)| (key.clone(), json!(value))).collect())
}
