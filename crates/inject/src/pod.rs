//! A pod with its proxy.

use serde_json::{Value, json};

use crate::container::{PROXY_NAME, Proxy};
use crate::describe::{self, map};
use crate::merge::overlay;
use crate::{Settings, SettingsError, Workload, overrides, probes, templates};

/// Why a pod was not injected although it should have been.
#[derive(Debug, thiserror::Error)]
pub enum InjectError {
    /// The pod's JSON has no `spec.containers`.
    #[error("the pod has no spec.containers")]
    NoContainers,
    /// An annotation is malformed.
    #[error("annotation {name}: {message}")]
    Annotation {
        /// Its name.
        name: &'static str,
        /// What is wrong with it.
        message: String,
    },
    /// A template that nobody has made.
    #[error("annotation inject.istio.io/templates: there is no template {name:?}; there are: {known}")]
    NoTemplate {
        /// What was asked for.
        name: String,
        /// What there is.
        known: String,
    },
    /// A template that users have added is malformed.
    #[error("template {name:?}: {message}")]
    Template {
        /// Its name.
        name: String,
        /// What is wrong with it.
        message: String,
    },
    /// The settings are malformed.
    #[error(transparent)]
    Settings(#[from] SettingsError),
}

/// The pod with a proxy; `pod` is left as it was. The templates are those that the pod names, else the settings'.
///
/// What comes of it, as Istio's injector does it: templates are laid over the pod in their order; what the pod's owner
/// said of a container that a template has is laid over the result; then come labels, annotations, probes, metrics, and
/// the order of containers.
///
/// # Errors
/// When the pod has no containers, an annotation is malformed, or a template does not exist or does not parse.
pub fn inject(pod: &Value, workload: &Workload, settings: &Settings) -> Result<Value, InjectError> {
    if !pod["spec"]["containers"].is_array() {
        return Err(InjectError::NoContainers);
    }
    let proxy = Proxy::new(settings, pod, workload)?;
    let mut merged = pod.clone();
    let mut template = json!({ "metadata": {}, "spec": {} });
    for name in names(&proxy) {
        let rendered = templates::render(&name, &proxy)?;
        overlay(&mut merged, &rendered);
        overlay(&mut template, &rendered);
    }
    let native = has(&template, "initContainers", PROXY_NAME);
    if native && !has(&template, "containers", PROXY_NAME) {
        remove(&mut merged, "containers", PROXY_NAME);
    }
    let own = overrides::reapply(&mut merged, pod, &template);
    let annotations = map(&mut merged["metadata"], "annotations");
    annotations.extend(settings.annotations.clone());
    annotations.insert("istio.io/rev".into(), json!(settings.revision_name()));
    annotations.insert("sidecar.istio.io/status".into(), json!(describe::status(&template, settings)));
    if let Some(own) = own {
        annotations.entry(overrides::ANNOTATION).or_insert_with(|| json!(own.to_string()));
    }
    describe::canonical(&mut merged, &workload.name);
    describe::default_container(&mut merged);
    describe::metrics(&mut merged, &proxy);
    rewrite_probes(&mut merged, &proxy)?;
    order(&mut merged, native, proxy.holds_application());
    Ok(merged)
}

/// The templates that the pod names, else those of the settings.
fn names(proxy: &Proxy<'_>) -> Vec<String> {
    let given = proxy.annotations.text("inject.istio.io/templates").unwrap_or_default();
    let names: Vec<String> =
        given.split(',').map(str::trim).filter(|name| !name.is_empty()).map(str::to_owned).collect();
    if names.is_empty() { proxy.settings.default_templates.clone() } else { names }
}

fn rewrite_probes(pod: &mut Value, proxy: &Proxy<'_>) -> Result<(), InjectError> {
    const NAME: &str = "sidecar.istio.io/rewriteAppHTTPProbers";
    let said = crate::annotations::Annotations::of(pod).flag(NAME)?;
    let wanted = said.unwrap_or_else(|| proxy.settings.flag("sidecarInjectorWebhook.rewriteAppHTTPProbe"));
    let port = proxy.status_port().parse::<u64>().unwrap_or(0);
    if !wanted || port == 0 {
        return Ok(());
    }
    let probers = probes::rewrite(pod, port, PROXY_NAME);
    if !probers.is_empty() {
        describe::add_env(pod, "ISTIO_KUBE_APP_PROBERS", &Value::Object(probers).to_string());
    }
    Ok(())
}

fn has(pod: &Value, list: &str, name: &str) -> bool {
    pod["spec"][list].as_array().into_iter().flatten().any(|container| container["name"] == name)
}

fn remove(pod: &mut Value, list: &str, name: &str) {
    if let Some(containers) = pod["spec"].get_mut(list).and_then(Value::as_array_mut) {
        containers.retain(|container| container["name"] != name);
    }
}

/// The proxy is last, so that the application is the container that tools take; first when the application waits for
/// it. As an init container it comes before those of the application, which are in the mesh then; the redirection
/// before it. Without, the redirection is last, for nothing would serve the init containers after it.
fn order(pod: &mut Value, native: bool, hold: bool) {
    move_to(pod, "containers", PROXY_NAME, hold);
    if native {
        for name in [PROXY_NAME, "istio-validation", "istio-init"] {
            move_to(pod, "initContainers", name, true);
        }
    } else {
        move_to(pod, "initContainers", "istio-validation", true);
        move_to(pod, "initContainers", "istio-init", false);
    }
}

fn move_to(pod: &mut Value, list: &str, name: &str, first: bool) {
    let Some(containers) = pod["spec"].get_mut(list).and_then(Value::as_array_mut) else { return };
    let Some(at) = containers.iter().position(|container| container["name"] == name) else { return };
    let container = containers.remove(at);
    let to = if first { 0 } else { containers.len() };
    containers.insert(to, container);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn injected(pod: &Value, values: &Value) -> Result<Value, InjectError> {
        let settings = Settings::build(values, &Value::Null, &Value::Null).unwrap();
        inject(pod, &Workload::of_pod(pod, "default"), &settings)
    }

    fn annotated(annotations: Value) -> Value {
        json!({ "metadata": { "annotations": annotations }, "spec": { "containers": [{ "name": "app" }] } })
    }

    #[test]
    fn an_application_that_waits_comes_after_its_proxy() {
        let pod = annotated(json!({
            "proxy.istio.io/config": "holdApplicationUntilProxyStarts: true",
            "sidecar.istio.io/nativeSidecar": "false",
        }));
        let spec = &injected(&pod, &Value::Null).unwrap()["spec"];
        assert_eq!(spec["containers"][0]["name"], PROXY_NAME);
        assert_eq!(
            spec["containers"][0]["lifecycle"]["postStart"]["exec"]["command"],
            json!(["pilot-agent", "wait"])
        );
    }

    #[test]
    fn nothing_is_null_that_was_not_there() {
        let pod = json!({
            "metadata": { "annotations": { "inject.istio.io/templates": "gateway" } },
            "spec": { "containers": [{ "name": "istio-proxy", "image": "auto" }] },
        });
        let spec = &injected(&pod, &Value::Null).unwrap()["spec"];
        assert!(spec.get("initContainers").is_none(), "{spec}");
        let text = injected(&annotated(json!({})), &Value::Null).unwrap()["spec"].to_string();
        assert!(!text.contains(":null"), "{text}");
    }

    #[test]
    fn mounts_are_read_whatever_the_case_of_their_keys() {
        let pod = annotated(json!({
            "sidecar.istio.io/userVolume": r#"[{"name":"c","secret":{"secretName":"s"}}]"#,
            "sidecar.istio.io/userVolumeMount": r#"[{"name":"c", "mountpath":"/etc/c", "readonly":true}]"#,
            "sidecar.istio.io/nativeSidecar": "false",
        }));
        let spec = &injected(&pod, &Value::Null).unwrap()["spec"];
        let mounts = spec["containers"][1]["volumeMounts"].as_array().unwrap();
        assert!(mounts.contains(&json!({ "name": "c", "mountPath": "/etc/c", "readOnly": true })));
        assert!(spec["volumes"].as_array().unwrap().iter().any(|volume| volume["name"] == "c"));
    }

    #[test]
    fn what_is_malformed_is_refused_by_its_name() {
        for (annotation, text, want) in [
            (
                "inject.istio.io/templates",
                "sidcar",
                "there is no template \"sidcar\"; there are: gateway, grpc-agent, sidecar, own",
            ),
            ("inject.istio.io/templates", "own", "template \"own\": actions"),
            ("proxy.istio.io/config", "concurency: 2", "did you mean \"concurrency\"?"),
            ("sidecar.istio.io/userVolume", "7", "annotation sidecar.istio.io/userVolume"),
            ("status.sidecar.istio.io/port", "x", "annotation status.sidecar.istio.io/port"),
        ] {
            let values = json!({ "sidecarInjectorWebhook": { "templates": { "own": "spec: {{ .Spec }}" } } });
            let said = injected(&annotated(json!({ annotation: text })), &values).unwrap_err().to_string();
            assert!(said.contains(want), "{said}");
        }
    }
}
