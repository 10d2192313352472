//! Whether a pod gets a sidecar.

use lateen_base::Labels;
use serde_json::Value;

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
/// A word of the pod (`sidecar.istio.io/inject`, label before annotation) beats the policy.
pub fn decide(pod: &Value, namespace: &str, policy: Policy) -> Decision {
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
    match (word, policy) {
        (Some("true" | "yes" | "on" | "y"), _) => Decision::Inject,
        (Some("false" | "no" | "off" | "n"), _) => skip("sidecar.istio.io/inject says no"),
        (_, Policy::Enabled) => Decision::Inject,
        (_, Policy::Disabled) => skip("the policy is to inject only on request"),
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
    fn the_pods_word_beats_the_policy() {
        let pod =
            |place: &str, word: &str| json!({ "metadata": { place: { "sidecar.istio.io/inject": word } } });
        assert_eq!(decide(&pod("labels", "true"), "default", Policy::Disabled), Decision::Inject);
        assert_ne!(decide(&pod("annotations", "false"), "default", Policy::Enabled), Decision::Inject);
        assert_eq!(decide(&json!({}), "default", Policy::Enabled), Decision::Inject);
        assert_ne!(decide(&json!({}), "kube-system", Policy::Enabled), Decision::Inject);
        assert_ne!(
            decide(&json!({ "spec": { "hostNetwork": true } }), "default", Policy::Enabled),
            Decision::Inject
        );
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
