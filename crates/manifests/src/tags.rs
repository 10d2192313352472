//! Revision tags: names that stand for a revision, so that namespaces follow an upgrade without being relabelled.

use serde_json::{Value, json};

use crate::webhook::{Injector, expression, validator};

/// The label that names the tag of a webhook configuration.
pub const TAG_LABEL: &str = "istio.io/tag";

/// The tag that stands for the revision that serves `istio-injection=enabled`.
pub const DEFAULT_TAG: &str = "default";

/// What a tag is made of.
#[derive(Clone, Debug)]
pub struct Tag<'a> {
    /// The tag.
    pub name: &'a str,
    /// The revision that it stands for.
    pub revision: &'a str,
    /// The namespace of that revision's control plane.
    pub namespace: &'a str,
    /// The bundle by which its webhooks are trusted, where it is known.
    pub bundle: Option<&'a str>,
}

impl Tag<'_> {
    /// The name of the webhook configuration.
    pub fn object_name(&self) -> String {
        format!("istio-revision-tag-{}", self.name)
    }

    fn service(&self) -> String {
        match self.revision {
            "default" | "" => "istiod".to_owned(),
            revision => format!("istiod-{revision}"),
        }
    }

    /// Its webhook configurations: injection, and validation for the default.
    pub fn objects(&self) -> Vec<Value> {
        let service = self.service();
        let injector = Injector {
            namespace: self.namespace,
            service: &service,
            revision: self.name,
            is_default: self.name == DEFAULT_TAG,
            url: None,
            path: "/inject",
            bundle: self.bundle,
            reinvocation: "Never",
            by_default: false,
        };
        let object = |kind: &str, name: &str, webhooks: Vec<Value>| {
            json!({
                "apiVersion": "admissionregistration.k8s.io/v1",
                "kind": kind,
                "metadata": { "name": name, "labels": {
                    TAG_LABEL: self.name,
                    "istio.io/rev": self.revision,
                    "operator.istio.io/component": "Pilot",
                    "app": "sidecar-injector",
                    "install.operator.istio.io/owning-resource": "unknown",
                }},
                "webhooks": webhooks,
            })
        };
        let mut objects =
            vec![object("MutatingWebhookConfiguration", &self.object_name(), injector.webhooks())];
        if self.name == DEFAULT_TAG {
            let selector = expression("istio.io/rev", "DoesNotExist", &[]);
            let mut webhook = validator("validation.istio.io", &service, self.namespace, selector);
            if let Some(bundle) = self.bundle {
                webhook["clientConfig"]["caBundle"] = json!(bundle);
            }
            objects.push(object("ValidatingWebhookConfiguration", "istiod-default-validator", vec![webhook]));
        }
        objects
    }
}
