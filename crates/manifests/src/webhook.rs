//! The webhook that has pods injected when they are created.

use serde_json::{Value, json};

use crate::{Installation, object};

/// Four webhooks, of which at most one meets a pod: by the namespace's word or the pod's own, in terms of
/// `istio-injection` or of `istio.io/rev`.
pub(crate) fn sidecar_injector(installation: &Installation) -> Value {
    let revision = installation.revision_name();
    let expression = |key: &str, operator: &str, values: &[&str]| {
        let mut expression = json!({ "key": key, "operator": operator });
        if !values.is_empty() {
            expression["values"] = json!(values);
        }
        expression
    };
    let no_injection = expression("istio-injection", "DoesNotExist", &[]);
    let no_revision = expression("istio.io/rev", "DoesNotExist", &[]);
    let not_refused = expression("sidecar.istio.io/inject", "NotIn", &["false"]);
    let this_revision = expression("istio.io/rev", "In", &[revision]);
    let asked_for = expression("sidecar.istio.io/inject", "In", &["true"]);

    let mut webhooks = vec![
        webhook(installation, "rev.namespace", json!([this_revision, no_injection]), json!([not_refused])),
        webhook(
            installation,
            "rev.object",
            json!([no_revision, no_injection]),
            json!([not_refused, this_revision]),
        ),
    ];
    if installation.revision.is_empty() {
        let enabled = expression("istio-injection", "In", &["enabled"]);
        webhooks.push(webhook(installation, "namespace", json!([enabled]), json!([not_refused])));
        webhooks.push(webhook(
            installation,
            "object",
            json!([no_injection, no_revision]),
            json!([asked_for, no_revision]),
        ));
    }
    let name = installation.revisioned("istio-sidecar-injector");
    let mut configuration = object(
        "admissionregistration.k8s.io/v1",
        "MutatingWebhookConfiguration",
        &name,
        None,
        installation,
        "sidecar-injector",
    );
    configuration["webhooks"] = json!(webhooks);
    configuration
}

fn webhook(installation: &Installation, name: &str, namespaces: Value, objects: Value) -> Value {
    json!({
        "name": format!("{name}.sidecar-injector.istio.io"),
        "clientConfig": {
            "service": {
                "name": installation.revisioned("istiod"),
                "namespace": installation.namespace,
                "path": "/inject",
                "port": 443,
            },
        },
        "sideEffects": "None",
        "admissionReviewVersions": ["v1"],
        "failurePolicy": "Fail",
        "reinvocationPolicy": "Never",
        "timeoutSeconds": 10,
        "rules": [{ "operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"] }],
        "namespaceSelector": { "matchExpressions": namespaces },
        "objectSelector": { "matchExpressions": objects },
    })
}
