//! Roles and their bindings.

use serde_json::{Value, json};

use crate::object::Maker;

const RBAC: &str = "rbac.authorization.k8s.io";

/// A rule: verbs on resources of groups.
pub(crate) fn rule(groups: &[&str], resources: &[&str], verbs: &[&str]) -> Value {
    json!({ "apiGroups": groups, "resources": resources, "verbs": verbs })
}

/// The rule, for the object of this name only. Lists and watches are then allowed that select it by `metadata.name`.
pub(crate) fn named(mut rule: Value, name: &str) -> Value {
    rule["resourceNames"] = json!([name]);
    rule
}

/// A service account as the subject of a binding.
pub(crate) fn service_account(name: &str, namespace: &str) -> Value {
    json!([{ "kind": "ServiceAccount", "name": name, "namespace": namespace }])
}

/// A `Role` or `ClusterRole` of these rules, bound to the subjects.
pub(crate) fn bind(
    make: &Maker<'_>,
    kind: &str,
    name: &str,
    namespace: Option<&str>,
    rules: Vec<Value>,
    subjects: &Value,
) -> [Value; 2] {
    let version = format!("{RBAC}/v1");
    let object = |kind: &str| match namespace {
        Some(namespace) => make.namespaced(&version, kind, name, namespace),
        None => make.object(&version, kind, name),
    };
    let mut role = object(kind);
    role["rules"] = json!(rules);
    let mut binding = object(&format!("{kind}Binding"));
    binding["roleRef"] = json!({ "apiGroup": RBAC, "kind": kind, "name": name });
    binding["subjects"] = subjects.clone();
    [role, binding]
}
