//! What a cluster has once, whatever control planes run in it: the definitions of the kinds, the identity by which
//! control planes of other clusters read this one, the validation of objects that name no revision.

use serde_json::{Value, json};

use crate::Installation;
use crate::object::{Maker, Part, extend};
use crate::rbac::{bind, rule, service_account};

/// The account that remote secrets are made for.
const READER: &str = "istio-reader-service-account";

pub(crate) fn objects(installation: &Installation) -> Vec<Value> {
    let make = Maker { installation, part: Part::Base, app: "istio-reader" };
    let mut objects = Vec::new();
    if installation.flag("base.enableIstioConfigCRDs") {
        let excluded = installation.value("base.excludedCRDs").and_then(Value::as_array).cloned();
        let excluded = excluded.unwrap_or_default();
        let definitions = Maker { installation, part: Part::Base, app: "istio-crds" };
        let labels = json!({ "metadata": { "labels": definitions.labels() } });
        objects.extend(
            lateen_api::crds().into_iter().filter(|crd| !excluded.contains(&crd["metadata"]["name"])),
        );
        objects.iter_mut().for_each(|crd| extend(crd, &labels));
    }
    let namespace = installation.namespace();
    let mut account = make.namespaced("v1", "ServiceAccount", READER, namespace);
    let secrets = installation.value("global.imagePullSecrets").and_then(Value::as_array);
    if let Some(secrets) = secrets.filter(|secrets| !secrets.is_empty()) {
        account["imagePullSecrets"] = secrets.iter().map(|name| json!({ "name": name })).collect();
    }
    let name = format!("istio-reader-clusterrole-{namespace}");
    let read = &["get", "list", "watch"];
    let istio = &["networking.istio.io", "security.istio.io", "telemetry.istio.io", "extensions.istio.io"];
    let rules = vec![
        rule(istio, &["*"], read),
        // Credentials of this cluster's gateways are handed out by the primary cluster's control plane.
        rule(&[""], &["endpoints", "pods", "services", "nodes", "namespaces", "secrets"], read),
        rule(&["discovery.k8s.io"], &["endpointslices"], read),
        rule(&["authentication.k8s.io"], &["tokenreviews"], &["create"]),
        rule(&["authorization.k8s.io"], &["subjectaccessreviews"], &["create"]),
    ];
    objects.push(account);
    objects.extend(bind(&make, "ClusterRole", &name, None, rules, &service_account(READER, namespace)));
    objects
}
