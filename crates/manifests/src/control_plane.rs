//! The control plane: its identity, permissions, configuration, deployment and service.

use serde_json::{Value, json};

use crate::Installation;
use crate::object::{Maker, Part};
use crate::rbac::{bind, named, rule, service_account};
use crate::scaling::{autoscaler, budget};
use crate::settings::{Workload, field, value};

pub(crate) const APP: &str = "istiod";

/// Everything but the webhooks.
pub(crate) fn objects(installation: &Installation) -> Vec<Value> {
    let make = Maker { installation, part: Part::Pilot, app: APP };
    let (name, namespace) = (installation.revisioned(APP), installation.control_namespace());
    let mut objects = vec![account(&make, &name, namespace)];
    objects.extend(permissions(&make, &name, namespace));
    objects.extend(configuration(&make, namespace));
    let mut deployment = deployment(&make, &name, namespace);
    let mut service = service(&make, &name, namespace);
    let component = installation.spec().components.pilot.as_ref();
    let k8s = component.and_then(|component| component.k8s.as_ref());
    let settings = installation.value("pilot").cloned().unwrap_or_default();
    let workload = Workload { settings: &settings, k8s };
    workload.shape(&mut deployment, &mut service);
    let selector = deployment["spec"]["selector"]["matchLabels"].clone();
    objects.extend([deployment, service]);
    objects.extend(workload.scaler(|spec| autoscaler(&make, &settings, &name, namespace, spec)));
    objects.extend(workload.budget(|spec| budget(&make, &name, namespace, &selector, spec)));
    objects
}

fn account(make: &Maker<'_>, name: &str, namespace: &str) -> Value {
    let mut account = make.namespaced("v1", "ServiceAccount", name, namespace);
    let annotations = make.installation.value("pilot.serviceAccountAnnotations").and_then(Value::as_object);
    if let Some(annotations) = annotations.filter(|annotations| !annotations.is_empty()) {
        account["metadata"]["annotations"] = json!(annotations);
    }
    account
}

/// Read what the mesh is made of; write only status, the root certificate and the webhooks. Every right is in use: the
/// control plane lists and watches, and reads single objects only where that is said.
fn permissions(make: &Maker<'_>, name: &str, namespace: &str) -> Vec<Value> {
    let cluster_role = format!("{}-clusterrole-{namespace}", make.installation.revisioned(APP));
    let watch = &["list", "watch"];
    let istio = &["networking.istio.io", "security.istio.io", "telemetry.istio.io", "extensions.istio.io"];
    let webhooks = &["mutatingwebhookconfigurations", "validatingwebhookconfigurations"];
    let wide = vec![
        rule(istio, &["*"], watch),
        rule(istio, &["*/status"], &["patch"]),
        rule(&[""], &["services", "pods", "nodes", "namespaces", "endpoints", "secrets"], watch),
        rule(&["discovery.k8s.io"], &["endpointslices"], watch),
        rule(&["networking.k8s.io"], &["ingresses", "ingressclasses"], watch),
        // A right to create cannot be held to a name.
        rule(&[""], &["configmaps"], &["create"]),
        named(rule(&[""], &["configmaps"], &["list", "watch", "patch"]), "istio-ca-root-cert"),
        // Its own, which owns those ConfigMaps: they go with it.
        named(rule(&["rbac.authorization.k8s.io"], &["clusterroles"], &["get"]), &cluster_role),
        rule(&["admissionregistration.k8s.io"], webhooks, &["list", "watch", "update"]),
        rule(&["authentication.k8s.io"], &["tokenreviews"], &["create"]),
        rule(&["authorization.k8s.io"], &["subjectaccessreviews"], &["create"]),
    ];
    let own = vec![
        rule(&[""], &["configmaps"], watch),
        rule(&[""], &["secrets"], &["create"]),
        named(rule(&[""], &["secrets"], &["get"]), "istio-ca-secret"),
    ];
    let subjects = service_account(name, namespace);
    let mut objects = Vec::from(bind(make, "ClusterRole", &cluster_role, None, wide, &subjects));
    objects.extend(bind(make, "Role", name, Some(namespace), own, &subjects));
    objects
}

/// The ConfigMaps `istio` and `istio-sidecar-injector`.
fn configuration(make: &Maker<'_>, namespace: &str) -> Vec<Value> {
    let installation = make.installation;
    let map = |name: &str, data: Value| {
        let mut map = make.namespaced("v1", "ConfigMap", &installation.revisioned(name), namespace);
        map["data"] = data;
        map
    };
    let networks = installation.value("global.meshNetworks").cloned().unwrap_or_default();
    let networks = match networks.as_object() {
        Some(given) if !given.is_empty() => networks,
        _ => json!({}),
    };
    let mut maps = vec![map(
        "istio",
        json!({
            "mesh": yaml(&Value::Object(installation.mesh_config())),
            "meshNetworks": yaml(&json!({ "networks": networks })),
        }),
    )];
    if !installation.flag("global.omitSidecarInjectorConfigMap") {
        let values = format!("{:#}", installation.injector_values());
        let config = yaml(&installation.injector_config());
        maps.push(map("istio-sidecar-injector", json!({ "config": config, "values": values })));
    }
    maps
}

fn deployment(make: &Maker<'_>, name: &str, namespace: &str) -> Value {
    let installation = make.installation;
    let mut labels = make.labels();
    labels["istio"] = json!("pilot");
    let selector = match installation.revision() {
        "" => json!({ "istio": "pilot" }),
        revision => json!({ "app": APP, "istio.io/rev": revision }),
    };
    let mut pod_labels = labels.clone();
    pod_labels.as_object_mut().map(|labels| labels.shift_remove("release"));
    if !installation.revision().is_empty() {
        // The service of the unnamed revision selects `pilot`, and has to find its own pods only.
        pod_labels["istio"] = json!("istiod");
    }
    pod_labels["istio.io/dataplane-mode"] = json!("none");
    pod_labels["sidecar.istio.io/inject"] = json!("false");
    let monitoring = json!({
        "prometheus.io/port": "15014",
        "prometheus.io/scrape": "true",
        "sidecar.istio.io/inject": "false",
    });
    let mut deployment = make.namespaced("apps/v1", "Deployment", name, namespace);
    deployment["metadata"]["labels"] = labels;
    deployment["spec"] = json!({
        "selector": { "matchLabels": selector },
        "template": {
            "metadata": { "annotations": monitoring, "labels": pod_labels },
            "spec": {
                "serviceAccountName": name,
                "tolerations": [{ "key": "cni.istio.io/not-ready", "operator": "Exists" }],
                "containers": [container(installation)],
                "volumes": [
                    { "name": "local-certs", "emptyDir": { "medium": "Memory" } },
                    { "name": "istio-token", "projected": { "sources": [{ "serviceAccountToken": {
                        "audience": installation.text("global.sds.token.aud"),
                        "expirationSeconds": 43200, "path": "istio-token" } }] } },
                    { "name": "cacerts", "secret": { "secretName": "cacerts", "optional": true } },
                    { "name": "istio-kubeconfig", "secret": { "secretName": "istio-kubeconfig", "optional": true } },
                    { "name": "istio-csr-dns-cert", "secret": { "secretName": "istiod-tls", "optional": true } },
                    { "name": "istio-csr-ca-configmap", "configMap": {
                        "name": "istio-ca-root-cert", "defaultMode": 420, "optional": true } },
                ],
            },
        },
    });
    deployment
}

fn container(installation: &Installation) -> Value {
    let component = installation.spec().components.pilot.as_ref();
    let (hub, tag) = component.map_or((String::new(), String::new()), |pilot| {
        (pilot.hub.clone(), crate::installation::plain(&pilot.tag))
    });
    let or = |own: String, value: &str| if own.is_empty() { installation.text(value) } else { own };
    let (hub, tag) = (or(hub, "pilot.hub"), or(tag, "pilot.tag"));
    let mut container = json!({
        "name": "discovery",
        "image": installation.image(&installation.text("pilot.image"), &hub, &tag),
        "args": args(installation),
        "ports": [
            { "containerPort": 8080, "name": "http-debug", "protocol": "TCP" },
            { "containerPort": 15010, "name": "grpc-xds", "protocol": "TCP" },
            { "containerPort": 15012, "name": "tls-xds", "protocol": "TCP" },
            { "containerPort": 15017, "name": "https-webhooks", "protocol": "TCP" },
            { "containerPort": 15014, "name": "http-monitoring", "protocol": "TCP" },
        ],
        "readinessProbe": {
            "httpGet": { "path": "/ready", "port": 8080 },
            "initialDelaySeconds": 1,
            "periodSeconds": 3,
            "timeoutSeconds": 5,
        },
        "env": env(installation),
        "resources": installation.value("pilot.resources"),
        "securityContext": {
            "allowPrivilegeEscalation": false,
            "readOnlyRootFilesystem": true,
            "runAsNonRoot": true,
            "capabilities": { "drop": ["ALL"] },
        },
        "volumeMounts": [
            { "name": "istio-token", "mountPath": "/var/run/secrets/tokens", "readOnly": true },
            { "name": "local-certs", "mountPath": "/var/run/secrets/istio-dns" },
            { "name": "cacerts", "mountPath": "/etc/cacerts", "readOnly": true },
            { "name": "istio-kubeconfig", "mountPath": "/var/run/secrets/remote", "readOnly": true },
            { "name": "istio-csr-dns-cert", "mountPath": "/var/run/secrets/istiod/tls", "readOnly": true },
            { "name": "istio-csr-ca-configmap", "mountPath": "/var/run/secrets/istiod/ca", "readOnly": true },
        ],
    });
    let policy = installation.text("global.imagePullPolicy");
    if !policy.is_empty() {
        container["imagePullPolicy"] = json!(policy);
    }
    container
}

fn args(installation: &Installation) -> Vec<String> {
    let mut args = vec![
        "discovery".to_owned(),
        "--monitoringAddr=:15014".to_owned(),
        format!("--log_output_level={}", installation.text("global.logging.level")),
        "--domain".to_owned(),
        installation.text("global.proxy.clusterDomain"),
        "--keepaliveMaxServerConnectionAge".to_owned(),
        installation.text("pilot.keepaliveMaxServerConnectionAge"),
    ];
    if installation.flag("global.logAsJson") {
        args.insert(3, "--log_as_json".to_owned());
    }
    let extra = installation.value("pilot.extraContainerArgs").and_then(Value::as_array);
    args.extend(extra.into_iter().flatten().map(crate::installation::plain));
    args
}

fn env(installation: &Installation) -> Vec<Value> {
    let node_account = |key: &str, default: &str| {
        let text = installation.text(key);
        if text.is_empty() { default.to_owned() } else { text }
    };
    let ztunnel = format!(
        "{}/{}",
        node_account("pilot.trustedZtunnelNamespace", installation.control_namespace()),
        node_account("pilot.trustedZtunnelName", "ztunnel")
    );
    let mut env = vec![
        value("REVISION", installation.revision_name()),
        value("PILOT_CERT_PROVIDER", &installation.text("global.pilotCertProvider")),
        field("POD_NAME", "metadata.name"),
        field("POD_NAMESPACE", "metadata.namespace"),
        field("SERVICE_ACCOUNT", "spec.serviceAccountName"),
        value("KUBECONFIG", "/var/run/secrets/remote/config"),
        value("CA_TRUSTED_NODE_ACCOUNTS", &ztunnel),
    ];
    let own = installation.value("pilot.env").and_then(Value::as_object);
    for (name, text) in own.into_iter().flatten() {
        env.push(value(name, &crate::installation::plain(text)));
    }
    env.extend([
        value("PILOT_TRACE_SAMPLING", &installation.text("pilot.traceSampling")),
        value("PILOT_ENABLE_ANALYSIS", &installation.flag("global.istiod.enableAnalysis").to_string()),
        value("CLUSTER_ID", &installation.cluster_id()),
    ]);
    let external = installation.text("global.remotePilotAddress");
    if !external.is_empty() {
        // Sidecars of this cluster call it by the name of the one elsewhere, and its certificate has to have both.
        let host = format!("istiod-remote.{}.svc", installation.control_namespace());
        env.push(value("ISTIOD_CUSTOM_HOST", &host));
    }
    env.push(json!({
        "name": "GOMAXPROCS",
        "valueFrom": { "resourceFieldRef": { "resource": "limits.cpu", "divisor": "1" } },
    }));
    env.push(value("PLATFORM", &installation.text("global.platform")));
    env
}

fn service(make: &Maker<'_>, name: &str, namespace: &str) -> Value {
    let installation = make.installation;
    let mut service = make.namespaced("v1", "Service", name, namespace);
    service["metadata"]["labels"]["istio"] = json!("pilot");
    let mut selector = json!({ "app": APP });
    match installation.revision() {
        "" => selector["istio"] = json!("pilot"),
        revision => selector["istio.io/rev"] = json!(revision),
    }
    service["spec"] = json!({
        "ports": [
            { "name": "grpc-xds", "port": 15010, "protocol": "TCP" },
            { "name": "https-dns", "port": 15012, "protocol": "TCP" },
            { "name": "https-webhook", "port": 443, "targetPort": 15017, "protocol": "TCP" },
            { "name": "http-monitoring", "port": 15014, "protocol": "TCP" },
        ],
        "selector": selector,
    });
    service
}

/// The value as YAML.
pub(crate) fn yaml(value: &Value) -> String {
    // JSON values have no part that YAML cannot say, and JSON itself is YAML.
    serde_saphyr::to_string(value).unwrap_or_else(|_| value.to_string())
}
