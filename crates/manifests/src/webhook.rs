//! The webhooks that have pods injected and objects checked when they are created.

use serde_json::{Value, json};

use crate::Installation;
use crate::control_plane::APP;
use crate::installation::non_empty;
use crate::object::{Maker, Part};

const ADMISSION: &str = "admissionregistration.k8s.io/v1";

/// Which control plane answers, and for whom.
pub(crate) struct Injector<'a> {
    /// The namespace of the control plane's service.
    pub(crate) namespace: &'a str,
    /// The control plane's service.
    pub(crate) service: &'a str,
    /// The value of `istio.io/rev` that asks for it.
    pub(crate) revision: &'a str,
    /// Whether it also answers for `istio-injection`, and for pods that ask for a sidecar and name nobody.
    pub(crate) is_default: bool,
    /// Where it is, when it is no service of the cluster.
    pub(crate) url: Option<&'a str>,
    pub(crate) path: &'a str,
    pub(crate) bundle: Option<&'a str>,
    pub(crate) reinvocation: &'a str,
    /// Whether pods get a sidecar in namespaces that say nothing.
    pub(crate) by_default: bool,
}

/// The injector of this installation.
pub(crate) fn sidecar_injector(installation: &Installation) -> Value {
    let make = Maker { installation, part: Part::Pilot, app: "sidecar-injector" };
    let name = installation.revisioned("istio-sidecar-injector");
    let name = match installation.control_namespace() {
        "istio-system" => name,
        namespace => format!("{name}-{namespace}"),
    };
    let text = |path: &str| installation.text(path);
    let (url, path) = (text("istiodRemote.injectionURL"), text("istiodRemote.injectionPath"));
    let (bundle, reinvocation) =
        (text("istiodRemote.injectionCABundle"), text("sidecarInjectorWebhook.reinvocationPolicy"));
    let remote =
        installation.spec().components.pilot.as_ref().is_none_or(|pilot| pilot.enabled != Some(true));
    let service = if remote { "istiod-remote".to_owned() } else { installation.revisioned(APP) };
    let injector = Injector {
        namespace: installation.control_namespace(),
        service: &service,
        revision: installation.revision_name(),
        is_default: installation.revision().is_empty(),
        url: non_empty(&url),
        path: &path,
        bundle: non_empty(&bundle),
        reinvocation: &reinvocation,
        by_default: installation.flag("sidecarInjectorWebhook.enableNamespacesByDefault"),
    };
    let mut configuration = make.object(ADMISSION, "MutatingWebhookConfiguration", &name);
    configuration["webhooks"] = json!(injector.webhooks());
    configuration
}

impl Injector<'_> {
    /// Webhooks of which at most one meets a pod: by the namespace's word or the pod's own, in terms of
    /// `istio-injection` or of `istio.io/rev`.
    pub(crate) fn webhooks(&self) -> Vec<Value> {
        let no_injection = expression("istio-injection", "DoesNotExist", &[]);
        let no_revision = expression("istio.io/rev", "DoesNotExist", &[]);
        let not_refused = expression("sidecar.istio.io/inject", "NotIn", &["false"]);
        let this_revision = expression("istio.io/rev", "In", &[self.revision]);
        let asked_for = expression("sidecar.istio.io/inject", "In", &["true"]);
        let mut webhooks = vec![
            self.webhook("rev.namespace", json!([this_revision, no_injection]), json!([not_refused])),
            self.webhook(
                "rev.object",
                json!([no_revision, no_injection]),
                json!([not_refused, this_revision]),
            ),
        ];
        if self.is_default {
            let enabled = expression("istio-injection", "In", &["enabled"]);
            webhooks.push(self.webhook("namespace", json!([enabled]), json!([not_refused])));
            webhooks.push(self.webhook(
                "object",
                json!([no_injection, no_revision]),
                json!([asked_for, no_revision]),
            ));
            if self.by_default {
                let system = expression(
                    "kubernetes.io/metadata.name",
                    "NotIn",
                    &["kube-system", "kube-public", "kube-node-lease", "local-path-storage"],
                );
                let silent = expression("sidecar.istio.io/inject", "DoesNotExist", &[]);
                webhooks.push(self.webhook(
                    "auto",
                    json!([no_injection, no_revision, system]),
                    json!([silent, no_revision]),
                ));
            }
        }
        webhooks
    }

    fn webhook(&self, name: &str, namespaces: Value, objects: Value) -> Value {
        let mut client = match self.url {
            Some(url) => json!({ "url": url }),
            None => json!({ "service": {
                "name": self.service, "namespace": self.namespace, "path": self.path, "port": 443,
            }}),
        };
        if let Some(bundle) = self.bundle {
            client["caBundle"] = json!(bundle);
        }
        json!({
            "name": format!("{name}.sidecar-injector.istio.io"),
            "clientConfig": client,
            "sideEffects": "None",
            "admissionReviewVersions": ["v1"],
            "failurePolicy": "Fail",
            "reinvocationPolicy": self.reinvocation,
            "timeoutSeconds": 10,
            "rules": [{
                "operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"],
            }],
            "namespaceSelector": { "matchExpressions": namespaces },
            "objectSelector": { "matchExpressions": objects },
        })
    }
}

/// The validation of Istio's objects that name this revision, and of those that name none where this one is the
/// default. The policy is Ignore: a control plane that is ready makes it Fail.
pub(crate) fn validators(installation: &Installation) -> Vec<Value> {
    if !installation.flag("global.configValidation") {
        return Vec::new();
    }
    let make = Maker { installation, part: Part::Pilot, app: APP };
    let namespace = installation.control_namespace();
    let one = |name: String, webhook: &str, selector: Value| {
        let mut configuration = make.object(ADMISSION, "ValidatingWebhookConfiguration", &name);
        configuration["metadata"]["labels"]["istio"] = json!("istiod");
        let service = installation.revisioned(APP);
        configuration["webhooks"] = json!([validator(webhook, &service, namespace, selector)]);
        configuration
    };
    let revision = installation.revision_name();
    let mut all = vec![one(
        format!("{}-{namespace}", installation.revisioned("istio-validator")),
        "rev.validation.istio.io",
        expression("istio.io/rev", "In", &[revision]),
    )];
    if installation.revision().is_empty() {
        all.push(one(
            "istiod-default-validator".to_owned(),
            "validation.istio.io",
            expression("istio.io/rev", "DoesNotExist", &[]),
        ));
    }
    all
}

pub(crate) fn validator(name: &str, service: &str, namespace: &str, selector: Value) -> Value {
    json!({
        "name": name,
        "clientConfig": {
            "service": { "name": service, "namespace": namespace, "path": "/validate", "port": 443 },
        },
        "sideEffects": "None",
        "admissionReviewVersions": ["v1"],
        "failurePolicy": "Ignore",
        "timeoutSeconds": 10,
        "rules": [{
            "operations": ["CREATE", "UPDATE"],
            "apiGroups": ["security.istio.io", "networking.istio.io", "telemetry.istio.io", "extensions.istio.io"],
            "apiVersions": ["*"],
            "resources": ["*"],
        }],
        "objectSelector": { "matchExpressions": [selector] },
    })
}

pub(crate) fn expression(key: &str, operator: &str, values: &[&str]) -> Value {
    let mut expression = json!({ "key": key, "operator": operator });
    if !values.is_empty() {
        expression["values"] = json!(values);
    }
    expression
}
