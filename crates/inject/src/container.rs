//! How a proxy's container looks: arguments, environment, ports, probes, mounts and volumes, as users find them with
//! `kubectl describe`.

use serde_json::{Map, Value, json};

use crate::Settings;

/// The name of the proxy's container.
pub const PROXY_NAME: &str = "istio-proxy";

/// Beside an application, or alone as a gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// `proxy sidecar`.
    Sidecar,
    /// `proxy router`.
    Router,
}

/// What a proxy's container is made of, beside the settings.
#[derive(Clone, Debug)]
pub struct ProxyContainer<'a> {
    /// Its role.
    pub role: Role,
    /// The workload's name, such as the deployment's.
    pub workload: &'a str,
    /// `kubernetes://apis/...` of the object that owns the pods.
    pub owner: &'a str,
    /// The proxy configuration that differs from the built-in one.
    pub config: Map<String, Value>,
    /// The ports of the application's containers.
    pub app_ports: Vec<Value>,
    /// The names of the application's containers.
    pub app_containers: Vec<&'a str>,
    /// `resources`.
    pub resources: Value,
    /// The `name`s and `containerPort`s that the container itself declares, before 15090.
    pub ports: Vec<Value>,
}

impl ProxyContainer<'_> {
    /// The container.
    pub fn render(&self, settings: &Settings) -> Value {
        let mut container = json!({
            "name": PROXY_NAME,
            "image": settings.image_reference(),
            "args": self.args(settings),
            "env": self.env(settings),
            "ports": self.ports.iter().cloned().chain([json!(
                { "containerPort": 15090, "name": "http-envoy-prom", "protocol": "TCP" }
            )]).collect::<Vec<_>>(),
            "readinessProbe": probe(settings.readiness),
            "resources": self.resources,
            "securityContext": {
                "allowPrivilegeEscalation": false,
                "capabilities": { "drop": ["ALL"] },
                "privileged": false,
                "readOnlyRootFilesystem": true,
                "runAsGroup": 1337,
                "runAsNonRoot": true,
                "runAsUser": 1337,
            },
            "volumeMounts": MOUNTS
                .iter()
                .map(|(name, path)| json!({ "name": name, "mountPath": path }))
                .collect::<Vec<_>>(),
        });
        if self.role == Role::Sidecar {
            container["startupProbe"] = probe([0, 1, 600]);
        }
        if !settings.image_pull_policy.is_empty() {
            container["imagePullPolicy"] = json!(settings.image_pull_policy);
        }
        container
    }

    fn args(&self, settings: &Settings) -> Vec<String> {
        let role = match self.role {
            Role::Sidecar => "sidecar",
            Role::Router => "router",
        };
        let mut args = vec![
            "proxy".to_owned(),
            role.to_owned(),
            "--domain".to_owned(),
            format!("$(POD_NAMESPACE).svc.{}", settings.cluster_domain),
            format!("--proxyLogLevel={}", settings.log_level),
            format!("--proxyComponentLogLevel={}", settings.component_log_level),
            format!("--log_output_level={}", settings.agent_log_level),
        ];
        if let Some(concurrency) = self.config.get("concurrency").and_then(Value::as_u64) {
            args.extend(["--concurrency".to_owned(), concurrency.to_string()]);
        }
        args
    }

    fn env(&self, settings: &Settings) -> Vec<Value> {
        let mesh_id = if settings.mesh_id.is_empty() { &settings.trust_domain } else { &settings.mesh_id };
        let config = Value::Object(self.config.clone());
        let mut env = vec![
            value("PILOT_CERT_PROVIDER", "istiod"),
            value("CA_ADDR", &settings.discovery_address()),
            field("POD_NAME", "metadata.name"),
            field("POD_NAMESPACE", "metadata.namespace"),
            field("INSTANCE_IP", "status.podIP"),
            field("SERVICE_ACCOUNT", "spec.serviceAccountName"),
            field("HOST_IP", "status.hostIP"),
            value("PROXY_CONFIG", &format!("{config}\n")),
        ];
        if self.role == Role::Sidecar {
            let ports: Vec<String> = self.app_ports.iter().map(|port| format!("    {port}")).collect();
            let listed =
                if ports.is_empty() { "[\n]".to_owned() } else { format!("[\n{}\n]", ports.join(",\n")) };
            env.push(value("ISTIO_META_POD_PORTS", &listed));
            env.push(value("ISTIO_META_APP_CONTAINERS", &self.app_containers.join(",")));
        }
        env.extend([
            value("ISTIO_META_CLUSTER_ID", &settings.cluster_id),
            field("ISTIO_META_NODE_NAME", "spec.nodeName"),
        ]);
        if self.role == Role::Sidecar {
            env.push(value("ISTIO_META_INTERCEPTION_MODE", &settings.interception_mode));
        }
        if !settings.network.is_empty() {
            env.push(value("ISTIO_META_NETWORK", &settings.network));
        }
        env.extend([
            value("ISTIO_META_WORKLOAD_NAME", self.workload),
            value("ISTIO_META_OWNER", self.owner),
            value("ISTIO_META_MESH_ID", mesh_id),
            value("TRUST_DOMAIN", &settings.trust_domain),
        ]);
        let metadata = self.config.get("proxyMetadata").and_then(Value::as_object);
        for (name, text) in metadata.into_iter().flatten() {
            env.push(value(name, text.as_str().unwrap_or_default()));
        }
        env
    }
}

const MOUNTS: &[(&str, &str)] = &[
    ("workload-socket", "/var/run/secrets/workload-spiffe-uds"),
    ("credential-socket", "/var/run/secrets/credential-uds"),
    ("workload-certs", "/var/run/secrets/workload-spiffe-credentials"),
    ("istiod-ca-cert", "/var/run/secrets/istio"),
    ("istio-data", "/var/lib/istio/data"),
    ("istio-envoy", "/etc/istio/proxy"),
    ("istio-token", "/var/run/secrets/tokens"),
    ("istio-podinfo", "/etc/istio/pod"),
];

/// The volumes that the mounts refer to.
pub fn volumes() -> Vec<Value> {
    vec![
        json!({ "name": "workload-socket", "emptyDir": {} }),
        json!({ "name": "credential-socket", "emptyDir": {} }),
        json!({ "name": "workload-certs", "emptyDir": {} }),
        json!({ "name": "istio-envoy", "emptyDir": { "medium": "Memory" } }),
        json!({ "name": "istio-data", "emptyDir": {} }),
        json!({ "name": "istio-podinfo", "downwardAPI": { "items": [
            { "path": "labels", "fieldRef": { "fieldPath": "metadata.labels" } },
            { "path": "annotations", "fieldRef": { "fieldPath": "metadata.annotations" } },
        ]}}),
        json!({ "name": "istio-token", "projected": { "sources": [
            { "serviceAccountToken": { "audience": "istio-ca", "expirationSeconds": 43200, "path": "istio-token" } },
        ]}}),
        json!({ "name": "istiod-ca-cert", "configMap": { "name": "istio-ca-root-cert" } }),
    ]
}

fn probe([delay, period, failures]: [u32; 3]) -> Value {
    let mut probe = json!({
        "failureThreshold": failures,
        "httpGet": { "path": "/healthz/ready", "port": 15021 },
        "periodSeconds": period,
        "timeoutSeconds": 3,
    });
    if delay > 0 {
        probe["initialDelaySeconds"] = json!(delay);
    }
    probe
}

fn value(name: &str, value: &str) -> Value {
    json!({ "name": name, "value": value })
}

fn field(name: &str, path: &str) -> Value {
    json!({ "name": name, "valueFrom": { "fieldRef": { "fieldPath": path } } })
}
