//! The table of built-in resources.

use crate::resource::{Origin, Resource, ResourceName, Scale};

struct Row {
    group: &'static str,
    version: &'static str,
    plural: &'static str,
    kind: &'static str,
    short_names: &'static [&'static str],
    flags: &'static str,
}

const fn row(
    group: &'static str,
    version: &'static str,
    plural: &'static str,
    kind: &'static str,
    short_names: &'static [&'static str],
    flags: &'static str,
) -> Row {
    Row { group, version, plural, kind, short_names, flags }
}

const ADMISSION: &str = "admissionregistration.k8s.io";
const AUTHORIZATION: &str = "authorization.k8s.io";
const RBAC: &str = "rbac.authorization.k8s.io";

/// Flags: `n` namespaced, `s` status subresource, `c` scale subresource, `g` generation counted, `a` category `all`,
/// `e` category `api-extensions`.
const ROWS: &[Row] = &[
    row("", "v1", "namespaces", "Namespace", &["ns"], "s"),
    row("", "v1", "nodes", "Node", &["no"], "s"),
    row("", "v1", "pods", "Pod", &["po"], "nsa"),
    row("", "v1", "services", "Service", &["svc"], "nsa"),
    row("", "v1", "endpoints", "Endpoints", &["ep"], "n"),
    row("", "v1", "configmaps", "ConfigMap", &["cm"], "n"),
    row("", "v1", "secrets", "Secret", &[], "n"),
    row("", "v1", "serviceaccounts", "ServiceAccount", &["sa"], "n"),
    row("", "v1", "events", "Event", &["ev"], "n"),
    row("", "v1", "persistentvolumeclaims", "PersistentVolumeClaim", &["pvc"], "ns"),
    row("", "v1", "persistentvolumes", "PersistentVolume", &["pv"], "s"),
    row("", "v1", "replicationcontrollers", "ReplicationController", &["rc"], "nscga"),
    row("", "v1", "resourcequotas", "ResourceQuota", &["quota"], "ns"),
    row("", "v1", "limitranges", "LimitRange", &["limits"], "n"),
    row("apps", "v1", "deployments", "Deployment", &["deploy"], "nscga"),
    row("apps", "v1", "replicasets", "ReplicaSet", &["rs"], "nscga"),
    row("apps", "v1", "statefulsets", "StatefulSet", &["sts"], "nscga"),
    row("apps", "v1", "daemonsets", "DaemonSet", &["ds"], "nsga"),
    row("apps", "v1", "controllerrevisions", "ControllerRevision", &[], "n"),
    row("batch", "v1", "jobs", "Job", &[], "nsga"),
    row("batch", "v1", "cronjobs", "CronJob", &["cj"], "nsga"),
    row("discovery.k8s.io", "v1", "endpointslices", "EndpointSlice", &[], "ng"),
    row(
        "apiextensions.k8s.io",
        "v1",
        "customresourcedefinitions",
        "CustomResourceDefinition",
        &["crd", "crds"],
        "sge",
    ),
    row(ADMISSION, "v1", "mutatingwebhookconfigurations", "MutatingWebhookConfiguration", &[], "ge"),
    row(ADMISSION, "v1", "validatingwebhookconfigurations", "ValidatingWebhookConfiguration", &[], "ge"),
    row("authentication.k8s.io", "v1", "tokenreviews", "TokenReview", &[], ""),
    row("authentication.k8s.io", "v1", "selfsubjectreviews", "SelfSubjectReview", &[], ""),
    row("authentication.k8s.io", "v1beta1", "selfsubjectreviews", "SelfSubjectReview", &[], ""),
    row(AUTHORIZATION, "v1", "selfsubjectaccessreviews", "SelfSubjectAccessReview", &[], ""),
    row(AUTHORIZATION, "v1", "selfsubjectrulesreviews", "SelfSubjectRulesReview", &[], ""),
    row(AUTHORIZATION, "v1", "subjectaccessreviews", "SubjectAccessReview", &[], ""),
    row(AUTHORIZATION, "v1", "localsubjectaccessreviews", "LocalSubjectAccessReview", &[], "n"),
    row(RBAC, "v1", "roles", "Role", &[], "n"),
    row(RBAC, "v1", "rolebindings", "RoleBinding", &[], "n"),
    row(RBAC, "v1", "clusterroles", "ClusterRole", &[], ""),
    row(RBAC, "v1", "clusterrolebindings", "ClusterRoleBinding", &[], ""),
    row("coordination.k8s.io", "v1", "leases", "Lease", &[], "n"),
    row("autoscaling", "v2", "horizontalpodautoscalers", "HorizontalPodAutoscaler", &["hpa"], "nsa"),
    row("autoscaling", "v1", "horizontalpodautoscalers", "HorizontalPodAutoscaler", &["hpa"], "nsa"),
    row("policy", "v1", "poddisruptionbudgets", "PodDisruptionBudget", &["pdb"], "nsg"),
    row("networking.k8s.io", "v1", "ingresses", "Ingress", &["ing"], "nsg"),
    row("networking.k8s.io", "v1", "ingressclasses", "IngressClass", &[], "g"),
    row("networking.k8s.io", "v1", "networkpolicies", "NetworkPolicy", &["netpol"], "ng"),
    row("events.k8s.io", "v1", "events", "Event", &["ev"], "n"),
    row("storage.k8s.io", "v1", "storageclasses", "StorageClass", &["sc"], ""),
    row("scheduling.k8s.io", "v1", "priorityclasses", "PriorityClass", &["pc"], ""),
];

/// All built-in resources, in the order of discovery.
pub(crate) fn resources() -> Vec<Resource> {
    ROWS.iter().map(Row::resource).collect()
}

impl Row {
    fn has(&self, flag: char) -> bool {
        self.flags.contains(flag)
    }

    fn resource(&self) -> Resource {
        let mut categories = Vec::new();
        if self.has('a') {
            categories.push("all".to_owned());
        }
        if self.has('e') {
            categories.push("api-extensions".to_owned());
        }
        // Events are one resource served in two groups, as in Kubernetes.
        let group_of_store = if self.plural == "events" { "" } else { self.group };
        Resource {
            name: ResourceName::new(group_of_store, self.plural),
            group: self.group.into(),
            version: self.version.into(),
            singular: self.kind.to_lowercase(),
            kind: self.kind.into(),
            list_kind: format!("{}List", self.kind),
            short_names: self.short_names.iter().map(|&s| s.to_owned()).collect(),
            categories,
            namespaced: self.has('n'),
            status: self.has('s'),
            scale: self.has('c').then(replicas),
            generation: self.has('g'),
            origin: Origin::BuiltIn,
        }
    }
}

fn replicas() -> Scale {
    Scale {
        spec_replicas: vec!["spec".into(), "replicas".into()],
        status_replicas: vec!["status".into(), "replicas".into()],
        selector: None,
    }
}
