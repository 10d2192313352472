//! Profiles and settings to the Kubernetes objects of an installation: pure, and the same for any cluster.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod control_plane;
mod gateway;
mod installation;
pub mod samples;
mod webhook;

use serde_json::{Value, json};

pub use gateway::Gateway;
pub use installation::{Installation, Profile, UnknownProfile};

/// The objects of an installation, in the order in which they are applied. The definitions of the Istio kinds come
/// first, the namespace before what lives in it.
pub fn render(installation: &Installation) -> Vec<Value> {
    let mut objects = lateen_api::crds();
    objects.push(json!({
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": { "name": installation.namespace },
    }));
    objects.extend(control_plane::objects(installation));
    objects.push(webhook::sidecar_injector(installation));
    objects.extend(installation.gateways.iter().flat_map(|gateway| gateway::objects(gateway, installation)));
    objects
}

/// An object of the core and its kin, with the installation's labels.
pub(crate) fn object(
    api_version: &str,
    kind: &str,
    name: &str,
    namespace: Option<&str>,
    installation: &Installation,
    component: &str,
) -> Value {
    let mut metadata = json!({
        "name": name,
        "labels": {
            "app": component,
            "istio.io/rev": installation.revision_name(),
            "operator.istio.io/component": component,
            "install.operator.istio.io/owning-resource": "installed-state",
        },
    });
    if let Some(namespace) = namespace {
        metadata["namespace"] = json!(namespace);
    }
    json!({ "apiVersion": api_version, "kind": kind, "metadata": metadata })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn demo() -> Vec<Value> {
        render(&Installation::of(Profile::Demo))
    }

    #[test]
    fn the_demo_profile_has_what_the_labs_look_for() {
        let objects = demo();
        let find = |kind: &str, name: &str| {
            objects.iter().find(|o| o["kind"] == kind && o["metadata"]["name"] == name).unwrap()
        };
        let ports: Vec<_> = find("Service", "istio-ingressgateway")["spec"]["ports"]
            .as_array()
            .unwrap()
            .iter()
            .map(|port| (port["name"].as_str().unwrap(), port["port"].as_u64().unwrap()))
            .collect();
        assert_eq!(
            ports,
            [("status-port", 15021), ("http2", 80), ("https", 443), ("tcp", 31400), ("tls", 15443)]
        );
        let mesh = find("ConfigMap", "istio")["data"]["mesh"].as_str().unwrap();
        assert!(mesh.contains("accessLogFile: /dev/stdout"));
        find("Deployment", "istiod");
        find("Deployment", "istio-egressgateway");
        find("MutatingWebhookConfiguration", "istio-sidecar-injector");
    }

    #[test]
    fn no_object_is_rendered_twice() {
        let mut seen = BTreeSet::new();
        for object in demo() {
            let key = (
                object["kind"].as_str().unwrap().to_owned(),
                object["metadata"]["namespace"].as_str().unwrap_or_default().to_owned(),
                object["metadata"]["name"].as_str().unwrap().to_owned(),
            );
            assert!(seen.insert(key.clone()), "{key:?}");
        }
    }

    #[test]
    fn a_revision_names_its_own_objects() {
        let mut installation = Installation::of(Profile::Minimal);
        installation.revision = "canary".into();
        let names: Vec<_> = render(&installation)
            .iter()
            .filter(|o| matches!(o["kind"].as_str(), Some("Deployment" | "ConfigMap" | "Service")))
            .map(|o| o["metadata"]["name"].as_str().unwrap().to_owned())
            .collect();
        assert_eq!(
            names,
            ["istio-canary", "istio-sidecar-injector-canary", "istiod-canary", "istiod-canary"]
        );
    }
}
