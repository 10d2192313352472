//! Whether a pod gets a proxy.

use lateen_base::Labels;
use serde_json::Value;

use crate::Settings;

/// What happens to pods that neither ask for a sidecar nor refuse one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// They get one.
    Enabled,
    /// They get none.
    Disabled,
}

/// The answer, with its reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// The pod gets a sidecar.
    Inject,
    /// It stays as it is.
    Skip(String),
}

/// Namespaces that are never injected.
const SYSTEM_NAMESPACES: &[&str] = &["kube-system", "kube-public", "kube-node-lease", "local-path-storage"];

/// Decides for a pod by its own labels and annotations; the namespace's label was the webhook's selector.
/// A word of the pod (`sidecar.istio.io/inject`, label before annotation) beats the selectors, which beat the policy.
pub fn decide(pod: &Value, namespace: &str, settings: &Settings) -> Decision {
    let skip = |reason: &str| Decision::Skip(reason.to_owned());
    if SYSTEM_NAMESPACES.contains(&namespace) {
        return Decision::Skip(format!("namespace {namespace} is never injected"));
    }
    if pod["spec"]["hostNetwork"] == Value::Bool(true) {
        return skip("the pod uses the host's network");
    }
    if pod["metadata"]["annotations"].get("sidecar.istio.io/status").is_some() {
        return skip("the pod has its sidecar already");
    }
    let word = ["labels", "annotations"]
        .iter()
        .find_map(|place| pod["metadata"][place]["sidecar.istio.io/inject"].as_str());
    let labels = &pod["metadata"]["labels"];
    match word {
        Some("true" | "yes" | "on" | "y") => Decision::Inject,
        Some("false" | "no" | "off" | "n") => skip("sidecar.istio.io/inject says no"),
        _ if settings.never.iter().any(|selector| selector.matches(labels)) => {
            skip("neverInjectSelector matches its labels")
        }
        _ if settings.always.iter().any(|selector| selector.matches(labels)) => Decision::Inject,
        _ if settings.policy == Policy::Enabled => Decision::Inject,
        _ => skip("the policy is to inject only on request"),
    }
}

/// Whether a namespace's labels ask this revision for sidecars.
pub fn namespace_enabled(labels: &Labels, revision: &str) -> bool {
    match labels.value("istio-injection") {
        Some(word) => word == "enabled",
        None => labels.value("istio.io/rev") == Some(revision),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_pods_word_beats_selectors_and_they_the_policy() {
        let with = |policy: Policy, config: Value| {
            let mut settings = Settings::build(&Value::Null, &config, &Value::Null).unwrap();
            settings.policy = policy;
            settings
        };
        let plain = json!({});
        let pod =
            |place: &str, word: &str| json!({ "metadata": { place: { "sidecar.istio.io/inject": word } } });
        let disabled = with(Policy::Disabled, plain.clone());
        let enabled = with(Policy::Enabled, plain);
        assert_eq!(decide(&pod("labels", "true"), "default", &disabled), Decision::Inject);
        assert_ne!(decide(&pod("annotations", "false"), "default", &enabled), Decision::Inject);
        assert_eq!(decide(&json!({}), "default", &enabled), Decision::Inject);
        assert_ne!(decide(&json!({}), "kube-system", &enabled), Decision::Inject);
        assert_ne!(
            decide(&json!({ "spec": { "hostNetwork": true } }), "default", &enabled),
            Decision::Inject
        );
        let labelled = |key: &str| json!({ "metadata": { "labels": { key: "x" } } });
        let selectors = json!({
            "neverInjectSelector": [{ "matchExpressions": [{ "key": "never", "operator": "Exists" }] }],
            "alwaysInjectSelector": [{ "matchExpressions": [{ "key": "always", "operator": "Exists" }] }],
        });
        let never = with(Policy::Enabled, selectors.clone());
        assert_ne!(decide(&labelled("never"), "default", &never), Decision::Inject);
        let always = with(Policy::Disabled, selectors);
        assert_eq!(decide(&labelled("always"), "default", &always), Decision::Inject);
        assert_ne!(decide(&labelled("other"), "default", &always), Decision::Inject);
    }

    #[test]
    fn the_injection_label_beats_the_revision() {
        let labels = |pairs: &[(&str, &str)]| pairs.iter().copied().collect::<Labels>();
        assert!(namespace_enabled(&labels(&[("istio-injection", "enabled")]), "default"));
        assert!(namespace_enabled(&labels(&[("istio.io/rev", "canary")]), "canary"));
        assert!(!namespace_enabled(
            &labels(&[("istio-injection", "disabled"), ("istio.io/rev", "canary")]),
            "canary"
        ));
        assert!(!namespace_enabled(&labels(&[]), "default"));
    }
}
