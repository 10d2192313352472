//! Which lists of the built-in kinds are merged by which key.

/// How a field is merged by a strategic merge patch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rule {
    /// Type of the value, or of a list's items.
    pub(crate) of: &'static str,
    pub(crate) list: List,
    /// Only the keys that the patch lists stay.
    pub(crate) retain_keys: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum List {
    /// Replaced as a whole.
    Atomic,
    /// Items are objects, the same one when they agree in this field.
    ByKey(&'static str),
    /// A set of strings or numbers.
    Set,
}

const NONE: Rule = Rule { of: "", list: List::Atomic, retain_keys: false };

const fn object(of: &'static str) -> Rule {
    Rule { of, ..NONE }
}

const fn keyed(of: &'static str, key: &'static str) -> Rule {
    Rule { of, list: List::ByKey(key), retain_keys: false }
}

const fn retained(rule: Rule) -> Rule {
    Rule { retain_keys: true, ..rule }
}

const SET: Rule = Rule { of: "", list: List::Set, retain_keys: false };

/// (type, field, rule); types are kinds at the root and otherwise Kubernetes' names of types.
const RULES: &[(&str, &str, Rule)] = &[
    ("ObjectMeta", "ownerReferences", keyed("", "uid")),
    ("ObjectMeta", "finalizers", SET),
    ("Pod", "spec", object("PodSpec")),
    ("Pod", "status", object("PodStatus")),
    ("Deployment", "spec", object("DeploymentSpec")),
    ("DeploymentSpec", "template", object("PodTemplate")),
    ("DeploymentSpec", "strategy", retained(NONE)),
    ("ReplicaSet", "spec", object("WorkloadSpec")),
    ("StatefulSet", "spec", object("WorkloadSpec")),
    ("DaemonSet", "spec", object("WorkloadSpec")),
    ("ReplicationController", "spec", object("WorkloadSpec")),
    ("Job", "spec", object("WorkloadSpec")),
    ("CronJob", "spec", object("CronJobSpec")),
    ("CronJobSpec", "jobTemplate", object("JobTemplate")),
    ("JobTemplate", "metadata", object("ObjectMeta")),
    ("JobTemplate", "spec", object("WorkloadSpec")),
    ("WorkloadSpec", "template", object("PodTemplate")),
    ("PodTemplate", "metadata", object("ObjectMeta")),
    ("PodTemplate", "spec", object("PodSpec")),
    ("PodSpec", "containers", keyed("Container", "name")),
    ("PodSpec", "initContainers", keyed("Container", "name")),
    ("PodSpec", "ephemeralContainers", keyed("Container", "name")),
    ("PodSpec", "volumes", retained(keyed("", "name"))),
    ("PodSpec", "imagePullSecrets", keyed("", "name")),
    ("PodSpec", "hostAliases", keyed("", "ip")),
    ("PodSpec", "topologySpreadConstraints", keyed("", "topologyKey")),
    ("PodSpec", "resourceClaims", retained(keyed("", "name"))),
    ("PodSpec", "schedulingGates", keyed("", "name")),
    ("Container", "env", keyed("", "name")),
    ("Container", "ports", keyed("", "containerPort")),
    ("Container", "volumeMounts", keyed("", "mountPath")),
    ("Container", "volumeDevices", keyed("", "devicePath")),
    ("PodStatus", "conditions", keyed("", "type")),
    ("PodStatus", "podIPs", keyed("", "ip")),
    ("PodStatus", "hostIPs", keyed("", "ip")),
    ("Service", "spec", object("ServiceSpec")),
    ("ServiceSpec", "ports", keyed("", "port")),
    ("ServiceAccount", "secrets", keyed("", "name")),
    ("Node", "spec", object("NodeSpec")),
    ("Node", "status", object("NodeStatus")),
    ("NodeSpec", "podCIDRs", SET),
    ("NodeStatus", "addresses", keyed("", "type")),
    ("NodeStatus", "conditions", keyed("", "type")),
    ("MutatingWebhookConfiguration", "webhooks", keyed("", "name")),
    ("ValidatingWebhookConfiguration", "webhooks", keyed("", "name")),
    ("Status", "conditions", keyed("", "type")),
];

/// The rule of a field; an unlisted one is an object of no particular type, or an atomic list.
pub(crate) fn rule(of: &str, field: &str, root: bool) -> Rule {
    let listed =
        RULES.iter().find(|(parent, name, _)| *parent == of && *name == field).map(|(_, _, rule)| *rule);
    listed.unwrap_or(match (root, field) {
        (true, "metadata") => object("ObjectMeta"),
        (true, "status") => object("Status"),
        _ => NONE,
    })
}
