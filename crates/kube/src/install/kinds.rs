//! The kinds that an installation consists of.

use crate::ResourceKind;

/// API group, version, kind, plural, namespaced; in the order in which they are removed.
const KINDS: &[(&str, &str, &str, &str, bool)] = &[
    (
        "admissionregistration.k8s.io",
        "v1",
        "ValidatingWebhookConfiguration",
        "validatingwebhookconfigurations",
        false,
    ),
    (
        "admissionregistration.k8s.io",
        "v1",
        "MutatingWebhookConfiguration",
        "mutatingwebhookconfigurations",
        false,
    ),
    ("autoscaling", "v2", "HorizontalPodAutoscaler", "horizontalpodautoscalers", true),
    ("apps", "v1", "Deployment", "deployments", true),
    ("", "v1", "Service", "services", true),
    ("", "v1", "Endpoints", "endpoints", true),
    ("", "v1", "ConfigMap", "configmaps", true),
    ("", "v1", "ServiceAccount", "serviceaccounts", true),
    ("rbac.authorization.k8s.io", "v1", "RoleBinding", "rolebindings", true),
    ("rbac.authorization.k8s.io", "v1", "Role", "roles", true),
    ("policy", "v1", "PodDisruptionBudget", "poddisruptionbudgets", true),
    ("rbac.authorization.k8s.io", "v1", "ClusterRoleBinding", "clusterrolebindings", false),
    ("rbac.authorization.k8s.io", "v1", "ClusterRole", "clusterroles", false),
    ("apiextensions.k8s.io", "v1", "CustomResourceDefinition", "customresourcedefinitions", false),
];

/// Every kind of an installation.
pub(super) fn all() -> impl Iterator<Item = ResourceKind> {
    KINDS.iter().map(|(group, version, kind, plural, namespaced)| {
        ResourceKind::new(group, version, kind, plural, *namespaced)
    })
}

/// The kind of this name, where installations have it.
pub fn kind_of(name: &str) -> Option<ResourceKind> {
    all().find(|kind| kind.kind == name)
}

pub(super) fn namespace() -> ResourceKind {
    ResourceKind::new("", "v1", "Namespace", "namespaces", false)
}

pub(super) fn mutating() -> ResourceKind {
    ResourceKind::new(
        "admissionregistration.k8s.io",
        "v1",
        "MutatingWebhookConfiguration",
        "mutatingwebhookconfigurations",
        false,
    )
}

pub(super) fn pod() -> ResourceKind {
    ResourceKind::core("Pod", "pods")
}
