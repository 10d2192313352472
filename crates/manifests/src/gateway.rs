//! Gateways: proxies of their own, at the mesh's edge.

use lateen_api::install::{GatewaySpec, layer};
use serde_json::{Value, json};

use crate::Installation;
use crate::installation::{non_empty, plain};
use crate::object::{Maker, Part};
use crate::rbac::{bind, rule, service_account};
use crate::scaling::{autoscaler, budget};
use crate::settings::{Workload, env_values, field, value};

/// A gateway with everything that is set for it.
struct Gateway<'a> {
    installation: &'a Installation,
    part: Part,
    spec: &'a GatewaySpec,
    name: &'a str,
    namespace: &'a str,
    labels: Value,
    settings: Value,
}

/// The objects of every gateway of this part that is on.
pub(crate) fn objects(installation: &Installation, part: Part) -> Vec<Value> {
    let components = &installation.spec().components;
    let gateways = match part {
        Part::EgressGateways => &components.egress_gateways,
        _ => &components.ingress_gateways,
    };
    gateways
        .iter()
        .filter(|gateway| gateway.enabled == Some(true))
        .flat_map(|spec| Gateway::new(installation, part, spec).objects())
        .collect()
}

impl<'a> Gateway<'a> {
    fn new(installation: &'a Installation, part: Part, spec: &'a GatewaySpec) -> Self {
        let built_in = match part {
            Part::EgressGateways => "istio-egressgateway",
            _ => "istio-ingressgateway",
        };
        let name = non_empty(&spec.name).unwrap_or(built_in);
        // A gateway without values of its own has those of the built-in one, as the charts do; ports of profiles too.
        let of = |name: &str| installation.value("gateways").and_then(|all| all.get(name)).cloned();
        let mut settings = of(built_in).unwrap_or_default();
        if name != built_in {
            let chart = lateen_api::install::default_values();
            settings["ports"] = chart["gateways"][built_in]["ports"].clone();
            settings["injectionTemplate"] = json!("");
            if let Some(own) = of(name) {
                layer::overlay(&mut settings, &own);
            }
        }
        let mut labels = json!({ "app": name, "istio": built_in.trim_start_matches("istio-") });
        for given in [settings["labels"].clone(), json!(spec.label.0)] {
            layer::overlay(&mut labels, &given);
        }
        let namespace = non_empty(&spec.namespace).unwrap_or(installation.namespace());
        Self { installation, part, spec, name, namespace, labels, settings }
    }

    /// Its identity, permission to read its namespace's secrets, deployment, service, scaling.
    fn objects(&self) -> Vec<Value> {
        let make = Maker { installation: self.installation, part: self.part, app: self.name };
        let (name, namespace) = (self.name, self.namespace);
        let account = format!("{name}-service-account");
        let rules = vec![rule(&[""], &["secrets"], &["get", "watch", "list"])];
        let subjects = service_account(&account, namespace);
        let mut objects = vec![make.namespaced("v1", "ServiceAccount", &account, namespace)];
        objects.extend(bind(&make, "Role", &format!("{name}-sds"), Some(namespace), rules, &subjects));
        let mut deployment = make.namespaced("apps/v1", "Deployment", name, namespace);
        deployment["spec"] = json!({
            "selector": { "matchLabels": self.labels },
            "template": self.template(&make, &account),
        });
        let mut service = self.service(&make);
        let workload = Workload { settings: &self.settings, k8s: self.spec.k8s.as_ref() };
        workload.shape(&mut deployment, &mut service);
        objects.extend([deployment, service]);
        objects.extend(workload.scaler(|spec| autoscaler(&make, &self.settings, name, namespace, spec)));
        objects.extend(workload.budget(|spec| budget(&make, name, namespace, &self.labels, spec)));
        for deployment in objects.iter_mut().filter(|object| object["kind"] == "Deployment") {
            deployment["metadata"]["labels"]["istio.io/dataplane-mode"] = json!("none");
        }
        for object in &mut objects {
            layer::overlay(&mut object["metadata"]["labels"], &self.labels);
        }
        objects
    }

    fn service(&self, make: &Maker<'_>) -> Value {
        let mut service = make.namespaced("v1", "Service", self.name, self.namespace);
        service["spec"] = json!({
            "type": self.settings["type"],
            "selector": self.labels,
            "ports": self.settings["ports"],
        });
        for key in ["loadBalancerIP", "loadBalancerClass", "externalTrafficPolicy"] {
            if let Some(text) = self.settings[key].as_str().and_then(non_empty) {
                service["spec"][key] = json!(text);
            }
        }
        for key in ["loadBalancerSourceRanges", "externalIPs"] {
            if let Some(list) = self.settings[key].as_array().filter(|list| !list.is_empty()) {
                service["spec"][key] = json!(list);
            }
        }
        service
    }

    fn template(&self, make: &Maker<'_>, account: &str) -> Value {
        let mut labels = make.labels();
        labels["service.istio.io/canonical-name"] = json!(self.name);
        labels["service.istio.io/canonical-revision"] = json!("latest");
        labels["istio.io/dataplane-mode"] = json!("none");
        labels["sidecar.istio.io/inject"] = json!("false");
        layer::overlay(&mut labels, &self.labels);
        let mut annotations = json!({
            "istio.io/rev": self.installation.revision_name(),
            "prometheus.io/path": "/stats/prometheus",
            "prometheus.io/port": "15020",
            "prometheus.io/scrape": "true",
            "sidecar.istio.io/inject": "false",
        });
        let mut spec = json!({
            "securityContext": { "runAsUser": 1337, "runAsGroup": 1337, "runAsNonRoot": true },
            "serviceAccountName": account,
            "containers": [self.container()],
            "volumes": self.volumes(),
        });
        if let Some(template) = self.settings["injectionTemplate"].as_str().and_then(non_empty) {
            labels["sidecar.istio.io/inject"] = json!("true");
            annotations = json!({ "inject.istio.io/templates": template });
            spec = json!({
                "serviceAccountName": account,
                "containers": [{ "name": "istio-proxy", "image": "auto", "ports": self.container_ports(),
                                 "resources": self.settings["resources"], "env": self.own_env() }],
            });
        }
        json!({ "metadata": { "annotations": annotations, "labels": labels }, "spec": spec })
    }

    fn container_ports(&self) -> Vec<Value> {
        let own = self.spec.k8s.as_ref().and_then(|k8s| k8s.service["ports"].as_array());
        let ports = own.or_else(|| self.settings["ports"].as_array()).into_iter().flatten();
        ports
            .map(|port| {
                let number = if port["targetPort"].is_number() { &port["targetPort"] } else { &port["port"] };
                json!({ "containerPort": number, "protocol": port["protocol"].as_str().unwrap_or("TCP") })
            })
            .chain([json!({ "containerPort": 15090, "protocol": "TCP", "name": "http-envoy-prom" })])
            .collect()
    }

    fn container(&self) -> Value {
        let i = self.installation;
        let mut args = vec![
            "proxy".to_owned(),
            "router".to_owned(),
            "--domain".to_owned(),
            format!("$(POD_NAMESPACE).svc.{}", i.text("global.proxy.clusterDomain")),
            format!("--proxyLogLevel={}", i.text("global.proxy.logLevel")),
            format!("--proxyComponentLogLevel={}", i.text("global.proxy.componentLogLevel")),
            format!("--log_output_level={}", i.text("global.logging.level")),
        ];
        if i.flag("global.logAsJson") {
            args.push("--log_as_json".to_owned());
        }
        let image = i.text("global.proxy.image");
        let mut container = json!({
            "name": "istio-proxy",
            "image": i.image(&image, &self.spec.hub, &plain(&self.spec.tag)),
            "ports": self.container_ports(),
            "args": args,
            "securityContext": {
                "allowPrivilegeEscalation": false,
                "capabilities": { "drop": ["ALL"] },
                "privileged": false,
                "readOnlyRootFilesystem": true,
            },
            "readinessProbe": {
                "failureThreshold": 30,
                "httpGet": { "path": "/healthz/ready", "port": 15021, "scheme": "HTTP" },
                "initialDelaySeconds": 1,
                "periodSeconds": 2,
                "successThreshold": 1,
                "timeoutSeconds": 1,
            },
            "resources": self.settings["resources"],
            "env": self.env(),
            "volumeMounts": self.mounts(),
        });
        let policy = i.text("global.imagePullPolicy");
        if !policy.is_empty() {
            container["imagePullPolicy"] = json!(policy);
        }
        container
    }

    fn env(&self) -> Vec<Value> {
        let i = self.installation;
        let mesh = i.mesh_config();
        let trust_domain = mesh.get("trustDomain").map(plain).unwrap_or_default();
        let mesh_id = non_empty(&i.text("global.meshID")).unwrap_or(&trust_domain).to_owned();
        let address = i.text("global.caAddress");
        let mut env = vec![
            value("PILOT_CERT_PROVIDER", &i.text("global.pilotCertProvider")),
            value("CA_ADDR", non_empty(&address).unwrap_or(&i.discovery_address())),
            field("NODE_NAME", "spec.nodeName"),
            field("POD_NAME", "metadata.name"),
            field("POD_NAMESPACE", "metadata.namespace"),
            field("INSTANCE_IP", "status.podIP"),
            field("HOST_IP", "status.hostIP"),
            json!({ "name": "ISTIO_CPU_LIMIT",
                    "valueFrom": { "resourceFieldRef": { "resource": "limits.cpu", "divisor": "1" } } }),
            json!({ "name": "SERVICE_ACCOUNT",
                    "valueFrom": { "fieldRef": { "fieldPath": "spec.serviceAccountName" } } }),
            value("ISTIO_META_WORKLOAD_NAME", self.name),
            value(
                "ISTIO_META_OWNER",
                &format!("kubernetes://apis/apps/v1/namespaces/{}/deployments/{}", self.namespace, self.name),
            ),
            value("ISTIO_META_MESH_ID", &mesh_id),
            value("TRUST_DOMAIN", &trust_domain),
            value("ISTIO_META_UNPRIVILEGED_POD", "true"),
        ];
        env.extend(self.own_env());
        let network = i.text("global.network");
        if !network.is_empty() && self.labels.get("topology.istio.io/network").is_none() {
            env.push(value("ISTIO_META_NETWORK", &network));
        }
        env.extend([
            value("ISTIO_META_CLUSTER_ID", &i.cluster_id()),
            json!({ "name": "ISTIO_META_NODE_NAME", "valueFrom": { "fieldRef": { "fieldPath": "spec.nodeName" } } }),
        ]);
        env
    }

    fn own_env(&self) -> Vec<Value> {
        env_values(&self.settings["env"])
    }

    fn secrets(&self) -> impl Iterator<Item = &Value> {
        self.settings["secretVolumes"].as_array().into_iter().flatten()
    }

    fn mounts(&self) -> Vec<Value> {
        let mut mounts = vec![
            json!({ "name": "workload-socket", "mountPath": "/var/run/secrets/workload-spiffe-uds" }),
            json!({ "name": "credential-socket", "mountPath": "/var/run/secrets/credential-uds" }),
            json!({ "name": "workload-certs", "mountPath": "/var/run/secrets/workload-spiffe-credentials" }),
            json!({ "name": "istio-envoy", "mountPath": "/etc/istio/proxy" }),
            json!({ "name": "config-volume", "mountPath": "/etc/istio/config" }),
            json!({ "name": "istiod-ca-cert", "mountPath": "/var/run/secrets/istio" }),
            json!({ "name": "istio-token", "mountPath": "/var/run/secrets/tokens", "readOnly": true }),
            json!({ "name": "istio-data", "mountPath": "/var/lib/istio/data" }),
            json!({ "name": "podinfo", "mountPath": "/etc/istio/pod" }),
        ];
        let secrets = self.secrets();
        mounts.extend(secrets.map(
            |secret| json!({ "name": secret["name"], "mountPath": secret["mountPath"], "readOnly": true }),
        ));
        mounts
    }

    fn volumes(&self) -> Vec<Value> {
        let mut volumes = vec![
            json!({ "name": "workload-socket", "emptyDir": {} }),
            json!({ "name": "credential-socket", "emptyDir": {} }),
            json!({ "name": "workload-certs", "emptyDir": {} }),
            json!({ "name": "istiod-ca-cert", "configMap": { "name": "istio-ca-root-cert" } }),
            json!({ "name": "podinfo", "downwardAPI": { "items": [
                { "path": "labels", "fieldRef": { "fieldPath": "metadata.labels" } },
                { "path": "annotations", "fieldRef": { "fieldPath": "metadata.annotations" } },
            ]}}),
            json!({ "name": "istio-envoy", "emptyDir": {} }),
            json!({ "name": "istio-data", "emptyDir": {} }),
            json!({ "name": "istio-token", "projected": { "sources": [{ "serviceAccountToken": {
                "path": "istio-token",
                "expirationSeconds": 43200,
                "audience": self.installation.text("global.sds.token.aud"),
            } }] } }),
            json!({ "name": "config-volume", "configMap": {
                "name": self.installation.revisioned("istio"), "optional": true } }),
        ];
        volumes.extend(self.secrets().map(|secret| {
            json!({ "name": secret["name"],
                    "secret": { "secretName": secret["secretName"], "optional": true } })
        }));
        volumes
    }
}
