//! The control plane: its identity, permissions, configuration, deployment and service.

use serde_json::{Value, json};

use crate::{Installation, object};

const APP: &str = "istiod";

/// Everything but the webhooks.
pub(crate) fn objects(installation: &Installation) -> Vec<Value> {
    let mut objects = vec![service_account(installation)];
    objects.extend(permissions(installation));
    objects.extend([mesh_config(installation), injector_config(installation)]);
    objects.extend([deployment(installation), service(installation)]);
    objects
}

fn named(kind: (&str, &str), name: &str, namespaced: bool, installation: &Installation) -> Value {
    let namespace = namespaced.then_some(installation.namespace.as_str());
    object(kind.0, kind.1, name, namespace, installation, APP)
}

fn service_account(installation: &Installation) -> Value {
    named(("v1", "ServiceAccount"), &installation.revisioned(APP), true, installation)
}

/// Read what the mesh is made of; write only its own status, its root certificate and its webhooks.
fn permissions(installation: &Installation) -> Vec<Value> {
    const RBAC: &str = "rbac.authorization.k8s.io/v1";
    let account = installation.revisioned(APP);
    let cluster_role = format!("{}-clusterrole-{}", installation.revisioned(APP), installation.namespace);
    let rule = |groups: &[&str], resources: &[&str], verbs: &[&str]| json!({ "apiGroups": groups, "resources": resources, "verbs": verbs });
    let read = &["get", "list", "watch"];
    let istio = &["networking.istio.io", "security.istio.io", "telemetry.istio.io", "extensions.istio.io"];
    let subject = json!([{ "kind": "ServiceAccount", "name": account, "namespace": installation.namespace }]);
    let bind = |kind: &str, name: &str| json!({ "apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": name });

    let mut wide = named((RBAC, "ClusterRole"), &cluster_role, false, installation);
    wide["rules"] = json!([
        rule(istio, &["*"], read),
        rule(istio, &["*/status"], &["get", "update", "patch"]),
        rule(&[""], &["services", "pods", "nodes", "namespaces", "endpoints", "serviceaccounts"], read),
        rule(&["discovery.k8s.io"], &["endpointslices"], read),
        rule(&["networking.k8s.io"], &["ingresses", "ingressclasses"], read),
        rule(&[""], &["configmaps"], &["get", "list", "watch", "create", "update", "patch"]),
        rule(&[""], &["secrets"], read),
        rule(&["apiextensions.k8s.io"], &["customresourcedefinitions"], read),
        rule(
            &["admissionregistration.k8s.io"],
            &["mutatingwebhookconfigurations"],
            &["get", "list", "watch", "patch", "update"]
        ),
        rule(&["authentication.k8s.io"], &["tokenreviews"], &["create"]),
        rule(&["authorization.k8s.io"], &["subjectaccessreviews"], &["create"]),
    ]);
    let mut wide_binding = named((RBAC, "ClusterRoleBinding"), &cluster_role, false, installation);
    wide_binding["roleRef"] = bind("ClusterRole", &cluster_role);
    wide_binding["subjects"] = subject.clone();

    let mut own = named((RBAC, "Role"), &account, true, installation);
    own["rules"] = json!([
        rule(&[""], &["secrets"], &["get", "list", "watch", "create", "update"]),
        rule(&["coordination.k8s.io"], &["leases"], &["get", "create", "update", "patch"]),
    ]);
    let mut own_binding = named((RBAC, "RoleBinding"), &account, true, installation);
    own_binding["roleRef"] = bind("Role", &account);
    own_binding["subjects"] = subject;
    vec![wide, wide_binding, own, own_binding]
}

fn mesh_config(installation: &Installation) -> Value {
    let mut map = named(("v1", "ConfigMap"), &installation.revisioned("istio"), true, installation);
    map["data"] = json!({
        "mesh": yaml(&Value::Object(installation.mesh_config.clone())),
        "meshNetworks": "networks: {}\n",
    });
    map
}

fn injector_config(installation: &Installation) -> Value {
    let mut map =
        named(("v1", "ConfigMap"), &installation.revisioned("istio-sidecar-injector"), true, installation);
    map["data"] = json!({ "values": format!("{:#}", installation.injector_values()) });
    map
}

fn deployment(installation: &Installation) -> Value {
    let name = installation.revisioned(APP);
    let labels = json!({ "app": APP, "istio": "pilot", "istio.io/rev": installation.revision_name(),
                         "sidecar.istio.io/inject": "false" });
    let env = |name: &str, value: &str| json!({ "name": name, "value": value });
    let field =
        |name: &str, path: &str| json!({ "name": name, "valueFrom": { "fieldRef": { "fieldPath": path } } });
    let mut deployment = named(("apps/v1", "Deployment"), &name, true, installation);
    deployment["spec"] = json!({
        "replicas": 1,
        "selector": { "matchLabels": { "app": APP, "istio.io/rev": installation.revision_name() } },
        "template": {
            "metadata": { "labels": labels },
            "spec": {
                "serviceAccountName": name,
                "containers": [{
                    "name": "discovery",
                    "image": format!("{}/pilot:{}", installation.hub, installation.tag),
                    "args": [
                        "discovery",
                        "--monitoringAddr=:15014",
                        "--log_output_level=default:info",
                        "--domain",
                        "cluster.local",
                    ],
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
                    "env": [
                        env("REVISION", installation.revision_name()),
                        env("PILOT_CERT_PROVIDER", "istiod"),
                        field("POD_NAME", "metadata.name"),
                        field("POD_NAMESPACE", "metadata.namespace"),
                        field("SERVICE_ACCOUNT", "spec.serviceAccountName"),
                        env("CLUSTER_ID", &installation.cluster_id),
                    ],
                    "resources": { "requests": { "cpu": "10m", "memory": "100Mi" } },
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
                    ],
                }],
                "volumes": [
                    { "name": "local-certs", "emptyDir": { "medium": "Memory" } },
                    { "name": "istio-token", "projected": { "sources": [{ "serviceAccountToken": {
                        "audience": "istio-ca", "expirationSeconds": 43200, "path": "istio-token" } }] } },
                    { "name": "cacerts", "secret": { "secretName": "cacerts", "optional": true } },
                ],
            },
        },
    });
    deployment
}

fn service(installation: &Installation) -> Value {
    let mut service = named(("v1", "Service"), &installation.revisioned(APP), true, installation);
    service["spec"] = json!({
        "ports": [
            { "name": "grpc-xds", "port": 15010, "protocol": "TCP" },
            { "name": "https-dns", "port": 15012, "protocol": "TCP" },
            { "name": "https-webhook", "port": 443, "targetPort": 15017, "protocol": "TCP" },
            { "name": "http-monitoring", "port": 15014, "protocol": "TCP" },
        ],
        "selector": { "app": APP, "istio.io/rev": installation.revision_name() },
    });
    service
}

/// The value as YAML.
fn yaml(value: &Value) -> String {
    // JSON values have no part that YAML cannot say, and JSON itself is YAML.
    serde_saphyr::to_string(value).unwrap_or_else(|_| value.to_string())
}
