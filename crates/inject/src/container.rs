//! What the containers of all kinds of proxies have in common: arguments, environment, probes, mounts and volumes, as
//! users find them with `kubectl describe`.

use serde_json::{Map, Value, json};

use crate::annotations::Annotations;
use crate::quantity::canonical_resources;
use crate::{InjectError, Settings, Workload};

/// The name of the proxy's container.
pub const PROXY_NAME: &str = "istio-proxy";

/// A proxy that is about to be put into a pod.
pub(crate) struct Proxy<'a> {
    pub(crate) settings: &'a Settings,
    /// The pod as its owner wrote it.
    pub(crate) pod: &'a Value,
    pub(crate) annotations: Annotations<'a>,
    pub(crate) workload: &'a Workload,
    /// The proxy configuration that differs from the built-in one.
    pub(crate) config: Map<String, Value>,
    /// As a restartable init container.
    pub(crate) native: bool,
}

impl<'a> Proxy<'a> {
    pub(crate) fn new(
        settings: &'a Settings,
        pod: &'a Value,
        workload: &'a Workload,
    ) -> Result<Self, InjectError> {
        const CONFIG: &str = "proxy.istio.io/config";
        let annotations = Annotations::of(pod);
        annotations.check()?;
        let own = match annotations.yaml(CONFIG)? {
            None | Some(Value::Null) => None,
            Some(own) => {
                lateen_api::field::read::<lateen_api::mesh::MeshProxyConfig>(&own)
                    .map_err(|errors| crate::annotations::bad(CONFIG, errors.to_string()))?;
                Some(own)
            }
        };
        let native = annotations.flag("sidecar.istio.io/nativeSidecar")?.unwrap_or(settings.native_sidecar);
        let config = settings.proxy_config(own.as_ref());
        Ok(Self { settings, pod, annotations, workload, config, native })
    }

    /// The containers of the application.
    pub(crate) fn app_containers(&self) -> impl Iterator<Item = &'a Value> {
        let containers = self.pod["spec"]["containers"].as_array().into_iter().flatten();
        containers.filter(|container| container["name"] != PROXY_NAME)
    }

    /// The proxy's container as the pod's owner began it.
    pub(crate) fn own_container(&self) -> Option<&'a Value> {
        let lists = ["containers", "initContainers"].into_iter();
        lists
            .flat_map(|list| self.pod["spec"][list].as_array().into_iter().flatten())
            .find(|container| container["name"] == PROXY_NAME)
    }

    pub(crate) fn status_port(&self) -> String {
        self.annotations.or("status.sidecar.istio.io/port", self.settings.status_port())
    }

    pub(crate) fn interception_mode(&self) -> String {
        let own = self.config.get("interceptionMode").and_then(Value::as_str).unwrap_or("REDIRECT");
        self.annotations.or("sidecar.istio.io/interceptionMode", own)
    }

    pub(crate) fn holds_application(&self) -> bool {
        self.config.get("holdApplicationUntilProxyStarts") == Some(&Value::Bool(true))
            || self.settings.flag("global.proxy.holdApplicationUntilProxyStarts")
    }

    pub(crate) fn image(&self) -> String {
        let name = self.settings.text("global.proxy.image");
        let own = self.config.get("image").and_then(|image| image["imageType"].as_str());
        let kind = self.annotations.text("sidecar.istio.io/proxyImageType").or(own);
        let image = match self.annotations.text("sidecar.istio.io/proxyImage") {
            Some(image) => return self.settings.image(image),
            None => self.settings.image(&name),
        };
        match kind.filter(|kind| !kind.is_empty() && *kind != "default") {
            Some(kind) if !image.ends_with(&format!("-{kind}")) => format!("{image}-{kind}"),
            _ => image,
        }
    }

    /// `proxy sidecar` or `proxy router`, with its flags.
    pub(crate) fn args(&self, role: &str) -> Vec<String> {
        let settings = self.settings;
        let level = |annotation: &str, path: &str| self.annotations.or(annotation, settings.text(path));
        let mut args = vec![
            "proxy".to_owned(),
            role.to_owned(),
            "--domain".to_owned(),
            format!("$(POD_NAMESPACE).svc.{}", settings.text("global.proxy.clusterDomain")),
            format!("--proxyLogLevel={}", level("sidecar.istio.io/logLevel", "global.proxy.logLevel")),
            format!(
                "--proxyComponentLogLevel={}",
                level("sidecar.istio.io/componentLogLevel", "global.proxy.componentLogLevel")
            ),
            format!("--log_output_level={}", level("sidecar.istio.io/agentLogLevel", "global.logging.level")),
        ];
        if settings.flag("global.logAsJson") {
            args.push("--log_as_json".to_owned());
        }
        args
    }

    /// How many workers it is told to have, where it is told.
    pub(crate) fn concurrency(&self) -> Option<String> {
        let own = self.config.get("concurrency").map(Value::to_string);
        own.or_else(|| self.settings.value("global.proxy.concurrency").map(Value::to_string))
    }

    /// Who it is, and where it finds the control plane.
    pub(crate) fn identity(&self) -> Vec<Value> {
        let settings = self.settings;
        let policy = settings.text("global.jwtPolicy");
        let mut env = match policy.as_str() {
            "" => vec![],
            policy => vec![value("JWT_POLICY", policy)],
        };
        env.extend([
            value("PILOT_CERT_PROVIDER", &settings.text("global.pilotCertProvider")),
            value("CA_ADDR", &settings.ca_address()),
            field("POD_NAME", "metadata.name"),
            field("POD_NAMESPACE", "metadata.namespace"),
            field("INSTANCE_IP", "status.podIP"),
            field("SERVICE_ACCOUNT", "spec.serviceAccountName"),
            field("HOST_IP", "status.hostIP"),
        ]);
        env
    }

    pub(crate) fn proxy_config(&self) -> Value {
        value("PROXY_CONFIG", &format!("{}\n", Value::Object(self.config.clone())))
    }

    /// The ports of the pod, as the proxy's metadata has them.
    pub(crate) fn pod_ports(&self) -> Value {
        let containers = self.pod["spec"]["containers"].as_array().into_iter().flatten();
        let ports = containers.flat_map(|container| container["ports"].as_array()).flatten();
        let mut text = "[".to_owned();
        for (at, port) in ports.enumerate() {
            text.push_str(if at == 0 { "\n    " } else { "\n    ," });
            text.push_str(
                &ordered(port, &["name", "hostPort", "containerPort", "protocol", "hostIP"]).to_string(),
            );
        }
        value("ISTIO_META_POD_PORTS", &(text + "\n]"))
    }

    pub(crate) fn app_container_names(&self) -> Value {
        let names: Vec<&str> =
            self.app_containers().filter_map(|container| container["name"].as_str()).collect();
        match names.is_empty() {
            true => json!({ "name": "ISTIO_META_APP_CONTAINERS" }),
            false => value("ISTIO_META_APP_CONTAINERS", &names.join(",")),
        }
    }

    /// The cluster and the node.
    pub(crate) fn place(&self) -> Vec<Value> {
        let cluster = match self.settings.text("global.multiCluster.clusterName") {
            name if name.is_empty() => "Kubernetes".to_owned(),
            name => name,
        };
        vec![value("ISTIO_META_CLUSTER_ID", &cluster), field("ISTIO_META_NODE_NAME", "spec.nodeName")]
    }

    /// The network, the workload, the mesh.
    pub(crate) fn belonging(&self) -> Vec<Value> {
        let settings = self.settings;
        let labels = &self.pod["metadata"]["labels"];
        let network = labels["topology.istio.io/network"].as_str().map(str::to_owned);
        let network = network.unwrap_or_else(|| settings.text("global.network"));
        let mut env = vec![];
        if !network.is_empty() {
            env.push(value("ISTIO_META_NETWORK", &network));
        }
        if !self.workload.name.is_empty() {
            env.push(value("ISTIO_META_WORKLOAD_NAME", &self.workload.name));
            env.push(value("ISTIO_META_OWNER", &self.workload.owner));
        }
        if self.annotations.text("sidecar.istio.io/bootstrapOverride").is_some() {
            env.push(value("ISTIO_BOOTSTRAP_OVERRIDE", "/etc/istio/custom-bootstrap/custom_bootstrap.json"));
        }
        let mesh_id = match settings.text("global.meshID") {
            id if id.is_empty() => settings.trust_domain.clone(),
            id => id,
        };
        env.extend([value("ISTIO_META_MESH_ID", &mesh_id), value("TRUST_DOMAIN", &settings.trust_domain)]);
        env
    }

    /// What the configuration adds to the environment.
    pub(crate) fn metadata(&self) -> Vec<Value> {
        let metadata = self.config.get("proxyMetadata").and_then(Value::as_object);
        let text = |text: &Value| text.as_str().map_or_else(|| text.to_string(), str::to_owned);
        metadata.into_iter().flatten().map(|(name, given)| value(name, &text(given))).collect()
    }

    pub(crate) fn resources(&self) -> Value {
        const FIELDS: &[(&str, &str, &str)] = &[
            ("sidecar.istio.io/proxyCPU", "requests", "cpu"),
            ("sidecar.istio.io/proxyMemory", "requests", "memory"),
            ("sidecar.istio.io/proxyCPULimit", "limits", "cpu"),
            ("sidecar.istio.io/proxyMemoryLimit", "limits", "memory"),
        ];
        let mut resources = Value::Null;
        for (name, group, key) in FIELDS {
            if let Some(amount) = self.annotations.text(name) {
                resources[*group][*key] = json!(amount);
            }
        }
        let built = self.settings.value("global.proxy.resources");
        canonical_resources(if resources.is_null() { built.unwrap_or(&Value::Null) } else { &resources })
    }

    /// Readiness; none when the status port is switched off.
    pub(crate) fn readiness(&self, port: u64) -> Option<Value> {
        if self.status_port() == "0" {
            return None;
        }
        let number = |annotation: &str, path: &str| {
            let annotation = format!("readiness.status.sidecar.istio.io/{annotation}");
            self.annotations.or(&annotation, self.settings.text(path)).parse::<u64>().unwrap_or(0)
        };
        let mut probe = json!({
            "failureThreshold": number("failureThreshold", "global.proxy.readinessFailureThreshold"),
            "httpGet": { "path": "/healthz/ready", "port": port },
            "periodSeconds": number("periodSeconds", "global.proxy.readinessPeriodSeconds"),
            "timeoutSeconds": 3,
        });
        let delay = number("initialDelaySeconds", "global.proxy.readinessInitialDelaySeconds");
        if delay > 0 {
            probe["initialDelaySeconds"] = json!(delay);
        }
        Some(probe)
    }

    pub(crate) fn pull_policy(&self, container: &mut Value) {
        let policy = self.settings.text("global.imagePullPolicy");
        if !policy.is_empty() {
            container["imagePullPolicy"] = json!(policy);
        }
    }

    pub(crate) fn pull_secrets(&self) -> Vec<Value> {
        let secrets = self.settings.value("global.imagePullSecrets").and_then(Value::as_array);
        secrets.into_iter().flatten().map(|name| json!({ "name": name })).collect()
    }

    /// The volumes that every proxy has; `data` is where its configuration goes.
    pub(crate) fn volumes(&self, data: &str) -> Vec<Value> {
        vec![
            json!({ "name": data, "emptyDir": { "medium": "Memory" } }),
            json!({ "name": "istio-data", "emptyDir": {} }),
            json!({ "name": "istio-podinfo", "downwardAPI": { "items": [
                { "path": "labels", "fieldRef": { "fieldPath": "metadata.labels" } },
                { "path": "annotations", "fieldRef": { "fieldPath": "metadata.annotations" } },
            ]}}),
            json!({ "name": "istio-token", "projected": { "sources": [{ "serviceAccountToken": {
                "audience": self.settings.text("global.sds.token.aud"),
                "expirationSeconds": 43200,
                "path": "istio-token",
            }}]}}),
            json!({ "name": "istiod-ca-cert", "configMap": { "name": "istio-ca-root-cert" } }),
        ]
    }
}

pub(crate) fn empty_dir(name: &str) -> Value {
    json!({ "name": name, "emptyDir": {} })
}

pub(crate) fn mount(name: &str, path: &str) -> Value {
    json!({ "name": name, "mountPath": path })
}

/// A variable of a fixed value.
pub(crate) fn value(name: &str, value: &str) -> Value {
    json!({ "name": name, "value": value })
}

/// A variable that is a field of the pod.
pub(crate) fn field(name: &str, path: &str) -> Value {
    json!({ "name": name, "valueFrom": { "fieldRef": { "fieldPath": path } } })
}

/// A variable that is a limit of the container.
pub(crate) fn limit(name: &str, resource: &str) -> Value {
    json!({ "name": name, "valueFrom": { "resourceFieldRef": { "divisor": "1", "resource": format!("limits.{resource}") } } })
}

/// The object's fields in this order, others after them.
pub(crate) fn ordered(object: &Value, order: &[&str]) -> Value {
    let fields = object.as_object().cloned().unwrap_or_default();
    let known = order.iter().filter_map(|key| Some(((*key).to_owned(), fields.get(*key)?.clone())));
    let mut sorted: Map<String, Value> = known.collect();
    for (key, value) in &fields {
        sorted.entry(key.clone()).or_insert_with(|| value.clone());
    }
    Value::Object(sorted)
}
