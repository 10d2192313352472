//! The environment of a container: values, references to other objects, and `$(VAR)`.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    ConfigMap, ConfigMapKeySelector, Container, EnvFromSource, EnvVar, EnvVarSource, Pod, Secret,
    SecretKeySelector,
};

use crate::node::downward::{self, FieldError};

/// Where a container's environment is looked up.
pub(crate) trait Lookup {
    /// A config map of the pod's namespace.
    fn config_map(&self, name: &str) -> Option<ConfigMap>;
    /// A secret of the pod's namespace.
    fn secret(&self, name: &str) -> Option<Secret>;
}

/// Why a container has no environment: shown as `CreateContainerConfigError`.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum EnvError {
    #[error("{kind} \"{name}\" not found")]
    NoObject { kind: &'static str, name: String },
    #[error("couldn't find key {key} in {kind} {namespace}/{name}")]
    NoKey { kind: &'static str, namespace: String, name: String, key: String },
    #[error("environment variable {name}: {source}")]
    Field { name: String, source: FieldError },
    #[error("environment variable {name}: the value of key {key} of secret {secret} is not UTF-8")]
    NotText { name: String, key: String, secret: String },
}

/// The variables of a container in the order of their names, references resolved.
pub(crate) fn variables(
    pod: &Pod,
    container: &Container,
    objects: &dyn Lookup,
) -> Result<BTreeMap<String, String>, EnvError> {
    let mut variables = BTreeMap::new();
    for source in container.env_from.iter().flatten() {
        variables.extend(all_of(source, objects)?);
    }
    for variable in container.env.iter().flatten() {
        let value = match &variable.value_from {
            Some(source) => referenced(pod, container, variable, source, objects)?,
            None => Some(expand(variable.value.as_deref().unwrap_or_default(), &variables)),
        };
        if let Some(value) = value {
            variables.insert(variable.name.clone(), value);
        }
    }
    Ok(variables)
}

/// Replaces `$(NAME)` by the variable's value; `$$` stands for `$`, an unknown name stays as it is
/// (Kubernetes' rules for `env`, `command` and `args`).
pub(crate) fn expand(text: &str, variables: &BTreeMap<String, String>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        let after = &rest[at + 1..];
        if let Some(escaped) = after.strip_prefix('$') {
            out.push('$');
            rest = escaped;
        } else if let Some((name, tail)) = after.strip_prefix('(').and_then(|open| open.split_once(')')) {
            match variables.get(name) {
                Some(value) => out.push_str(value),
                None => out.extend(["$(", name, ")"]),
            }
            rest = tail;
        } else {
            out.push('$');
            rest = after;
        }
    }
    out.push_str(rest);
    out
}

fn all_of(source: &EnvFromSource, objects: &dyn Lookup) -> Result<BTreeMap<String, String>, EnvError> {
    let prefix = source.prefix.as_deref().unwrap_or_default();
    let prefixed = |(key, value): (String, String)| (format!("{prefix}{key}"), value);
    if let Some(reference) = &source.config_map_ref {
        return match objects.config_map(&reference.name) {
            Some(map) => Ok(map.data.unwrap_or_default().into_iter().map(prefixed).collect()),
            None if reference.optional == Some(true) => Ok(BTreeMap::new()),
            None => Err(EnvError::NoObject { kind: "configmap", name: reference.name.clone() }),
        };
    }
    let Some(reference) = &source.secret_ref else { return Ok(BTreeMap::new()) };
    match objects.secret(&reference.name) {
        Some(secret) => Ok(secret
            .data
            .unwrap_or_default()
            .into_iter()
            .filter_map(|(key, value)| Some((key, String::from_utf8(value.0).ok()?)))
            .map(prefixed)
            .collect()),
        None if reference.optional == Some(true) => Ok(BTreeMap::new()),
        None => Err(EnvError::NoObject { kind: "secret", name: reference.name.clone() }),
    }
}

fn referenced(
    pod: &Pod,
    container: &Container,
    variable: &EnvVar,
    source: &EnvVarSource,
    objects: &dyn Lookup,
) -> Result<Option<String>, EnvError> {
    let field = |source| EnvError::Field { name: variable.name.clone(), source };
    if let Some(reference) = &source.field_ref {
        return downward::field(pod, &reference.field_path).map(Some).map_err(field);
    }
    if let Some(reference) = &source.resource_field_ref {
        return downward::resource(pod, container, reference).map(Some).map_err(field);
    }
    if let Some(key) = &source.config_map_key_ref {
        return of_config_map(pod, key, objects);
    }
    if let Some(key) = &source.secret_key_ref {
        return of_secret(pod, variable, key, objects);
    }
    Ok(None)
}

fn of_config_map(
    pod: &Pod,
    reference: &ConfigMapKeySelector,
    objects: &dyn Lookup,
) -> Result<Option<String>, EnvError> {
    let kind = "configmap";
    let optional = reference.optional == Some(true);
    let Some(map) = objects.config_map(&reference.name) else {
        return absent(optional, EnvError::NoObject { kind, name: reference.name.clone() });
    };
    match map.data.unwrap_or_default().remove(&reference.key) {
        Some(value) => Ok(Some(value)),
        None => absent(optional, no_key(kind, pod, &reference.name, &reference.key)),
    }
}

fn of_secret(
    pod: &Pod,
    variable: &EnvVar,
    reference: &SecretKeySelector,
    objects: &dyn Lookup,
) -> Result<Option<String>, EnvError> {
    let kind = "secret";
    let optional = reference.optional == Some(true);
    let Some(secret) = objects.secret(&reference.name) else {
        return absent(optional, EnvError::NoObject { kind, name: reference.name.clone() });
    };
    let Some(value) = secret.data.unwrap_or_default().remove(&reference.key) else {
        return absent(optional, no_key(kind, pod, &reference.name, &reference.key));
    };
    String::from_utf8(value.0).map(Some).map_err(|_| EnvError::NotText {
        name: variable.name.clone(),
        key: reference.key.clone(),
        secret: reference.name.clone(),
    })
}

fn absent(optional: bool, error: EnvError) -> Result<Option<String>, EnvError> {
    if optional { Ok(None) } else { Err(error) }
}

fn no_key(kind: &'static str, pod: &Pod, name: &str, key: &str) -> EnvError {
    let namespace = pod.metadata.namespace.clone().unwrap_or_default();
    EnvError::NoKey { kind, namespace, name: name.to_owned(), key: key.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    struct Objects;

    impl Lookup for Objects {
        fn config_map(&self, name: &str) -> Option<ConfigMap> {
            let map = json!({"data": {"mesh": "x: y", "B": "2"}});
            (name == "istio").then(|| serde_json::from_value(map).unwrap())
        }
        fn secret(&self, name: &str) -> Option<Secret> {
            let secret = json!({"data": {"password": "c2VzYW1l", "raw": "/w=="}});
            (name == "db").then(|| serde_json::from_value(secret).unwrap())
        }
    }

    fn env(env: serde_json::Value) -> Result<BTreeMap<String, String>, EnvError> {
        let pod = json!({"metadata": {"name": "p", "namespace": "ns", "labels": {"app": "a"}},
            "spec": {"containers": [{"name": "c", "env": env}], "serviceAccountName": "sa"},
            "status": {"podIP": "127.10.0.9", "hostIP": "127.10.0.1"}});
        let pod: Pod = serde_json::from_value(pod).unwrap();
        let container = pod.spec.as_ref().unwrap().containers[0].clone();
        variables(&pod, &container, &Objects)
    }

    #[test]
    fn variables_come_from_the_pod_and_its_namespace() {
        let found = env(json!([
            {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
            {"name": "APP", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['app']"}}},
            {"name": "MESH", "valueFrom": {"configMapKeyRef": {"name": "istio", "key": "mesh"}}},
            {"name": "PASS", "valueFrom": {"secretKeyRef": {"name": "db", "key": "password"}}},
            {"name": "NONE", "valueFrom": {"secretKeyRef": {"name": "no", "key": "k", "optional": true}}},
            {"name": "URL", "value": "http://$(APP)@$(IP)/$(LATER)$$(IP)"},
            {"name": "LATER", "value": "x"},
        ]))
        .unwrap();
        assert_eq!(found["URL"], "http://a@127.10.0.9/$(LATER)$(IP)");
        assert_eq!((&*found["MESH"], &*found["PASS"]), ("x: y", "sesame"));
        assert!(!found.contains_key("NONE"));
    }

    #[test]
    fn what_is_missing_is_named() {
        let of = |source: serde_json::Value| {
            env(json!([{"name": "V", "valueFrom": source}])).unwrap_err().to_string()
        };
        assert_eq!(of(json!({"configMapKeyRef": {"name": "no", "key": "k"}})), "configmap \"no\" not found");
        assert_eq!(
            of(json!({"secretKeyRef": {"name": "db", "key": "k"}})),
            "couldn't find key k in secret ns/db"
        );
        assert!(of(json!({"secretKeyRef": {"name": "db", "key": "raw"}})).contains("not UTF-8"));
        assert!(of(json!({"fieldRef": {"fieldPath": "spec.nope"}})).contains("spec.nope"));
    }

    #[test]
    fn expansion_leaves_half_references_alone() {
        let variables = BTreeMap::from([("A".to_owned(), "1".to_owned())]);
        for (text, want) in
            [("$(A)$", "1$"), ("$(A", "$(A"), ("$A", "$A"), ("$$$(A)", "$1"), ("é$(A)é", "é1é")]
        {
            assert_eq!(expand(text, &variables), want);
        }
    }

    proptest::proptest! {
        #[test]
        fn expansion_survives_any_text(text in "[$()A-Bé ]{0,40}") {
            let variables = BTreeMap::from([("A".to_owned(), "$(B)".to_owned())]);
            expand(&text, &variables);
        }
    }
}
