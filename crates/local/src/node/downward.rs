//! The downward API: fields of a pod for its own containers.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, Pod, ResourceFieldSelector};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

/// What is wrong with a reference to a field.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FieldError {
    #[error(
        "field path {0} is not supported; it can be metadata.{{name,namespace,uid,labels,annotations,labels['KEY'],\
         annotations['KEY']}}, spec.{{nodeName,serviceAccountName}} or status.{{podIP,podIPs,hostIP,hostIPs}}"
    )]
    Unknown(String),
    #[error(
        "resource {0} is not supported; it can be limits or requests of cpu, memory or ephemeral-storage"
    )]
    Resource(String),
    #[error("no container {0}")]
    Container(String),
    #[error("{0:?} is not a quantity")]
    Quantity(String),
}

/// The value of a field path.
pub(crate) fn field(pod: &Pod, path: &str) -> Result<String, FieldError> {
    let meta = &pod.metadata;
    let spec = pod.spec.as_ref();
    let status = pod.status.as_ref();
    let text = |value: Option<&String>| value.cloned().unwrap_or_default();
    if let Some(key) = subscript(path, "metadata.labels") {
        return Ok(text(meta.labels.as_ref().and_then(|labels| labels.get(key))));
    }
    if let Some(key) = subscript(path, "metadata.annotations") {
        return Ok(text(meta.annotations.as_ref().and_then(|annotations| annotations.get(key))));
    }
    Ok(match path {
        "metadata.name" => text(meta.name.as_ref()),
        "metadata.namespace" => text(meta.namespace.as_ref()),
        "metadata.uid" => text(meta.uid.as_ref()),
        "metadata.labels" => quoted(meta.labels.as_ref()),
        "metadata.annotations" => quoted(meta.annotations.as_ref()),
        "spec.nodeName" => text(spec.and_then(|spec| spec.node_name.as_ref())),
        "spec.serviceAccountName" => text(spec.and_then(|spec| spec.service_account_name.as_ref())),
        "status.podIP" | "status.podIPs" => text(status.and_then(|status| status.pod_ip.as_ref())),
        "status.hostIP" | "status.hostIPs" => text(status.and_then(|status| status.host_ip.as_ref())),
        _ => return Err(FieldError::Unknown(path.to_owned())),
    })
}

fn subscript<'a>(path: &'a str, map: &str) -> Option<&'a str> {
    path.strip_prefix(map)?.strip_prefix("['")?.strip_suffix("']")
}

/// A map as the downward API writes it into a file: `key="value"`, one a line, escaped as Go quotes strings.
fn quoted(map: Option<&BTreeMap<String, String>>) -> String {
    let lines: Vec<String> =
        map.into_iter().flatten().map(|(key, value)| format!("{key}={}", go_quote(value))).collect();
    lines.join("\n")
}

fn go_quote(value: &str) -> String {
    let mut out = String::with_capacity(value.len() + 2);
    out.push('"');
    for c in value.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c.is_control() => out.push_str(&format!("\\x{:02x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// The value of a resource field: a whole number of divisors, rounded up. A limit that is not set is the
/// node's capacity, a request that is not set is nothing.
pub(crate) fn resource(
    pod: &Pod,
    own: &Container,
    reference: &ResourceFieldSelector,
) -> Result<String, FieldError> {
    let container = match &reference.container_name {
        Some(name) => container(pod, name).ok_or_else(|| FieldError::Container(name.clone()))?,
        None => own,
    };
    let unknown = || FieldError::Resource(reference.resource.clone());
    let (kind, name) = reference.resource.split_once('.').ok_or_else(unknown)?;
    if !matches!(name, "cpu" | "memory" | "ephemeral-storage") {
        return Err(unknown());
    }
    let resources = container.resources.as_ref();
    let (set, absent) = match kind {
        "limits" => (resources.and_then(|all| all.limits.as_ref()), capacity(name)),
        "requests" => (resources.and_then(|all| all.requests.as_ref()), 0.0),
        _ => return Err(unknown()),
    };
    let value = match set.and_then(|set| set.get(name)) {
        Some(Quantity(text)) => quantity(text)?,
        None => absent,
    };
    let divisor = match &reference.divisor {
        Some(Quantity(text)) if !text.is_empty() && text != "0" => quantity(text)?,
        _ => 1.0,
    };
    Ok(format!("{:.0}", (value / divisor).ceil()))
}

fn container<'a>(pod: &'a Pod, name: &str) -> Option<&'a Container> {
    let spec = pod.spec.as_ref()?;
    spec.containers.iter().chain(spec.init_containers.iter().flatten()).find(|one| one.name == name)
}

fn capacity(resource: &str) -> f64 {
    match resource {
        "cpu" => std::thread::available_parallelism().map_or(1.0, |cores| cores.get() as f64),
        _ => memory_of_the_machine().unwrap_or(0.0),
    }
}

fn memory_of_the_machine() -> Option<f64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let kibibytes: f64 = text
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))?
        .split_whitespace()
        .next()?
        .parse()
        .ok()?;
    Some(kibibytes * 1024.0)
}

/// Reads a Kubernetes quantity: decimal and binary suffixes, milli, exponents.
pub(crate) fn quantity(text: &str) -> Result<f64, FieldError> {
    const SUFFIXES: &[(&str, f64)] = &[
        ("Ki", 1024.0),
        ("Mi", 1_048_576.0),
        ("Gi", 1_073_741_824.0),
        ("Ti", 1_099_511_627_776.0),
        ("m", 1e-3),
        ("k", 1e3),
        ("M", 1e6),
        ("G", 1e9),
        ("T", 1e12),
    ];
    let (number, factor) = SUFFIXES
        .iter()
        .find_map(|(suffix, factor)| Some((text.strip_suffix(suffix)?, *factor)))
        .unwrap_or((text, 1.0));
    match number.parse::<f64>() {
        Ok(value) if value.is_finite() => Ok(value * factor),
        _ => Err(FieldError::Quantity(text.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod() -> Pod {
        let pod = json!({"metadata": {"name": "p", "labels": {"b": "2", "a": "say \"hi\"\n"}},
            "spec": {"containers": [{"name": "c", "resources": {"limits": {"cpu": "1500m", "memory": "1Gi"}}}]}});
        serde_json::from_value(pod).unwrap()
    }

    #[test]
    fn a_file_of_labels_is_quoted_line_by_line() {
        assert_eq!(field(&pod(), "metadata.labels").unwrap(), "a=\"say \\\"hi\\\"\\n\"\nb=\"2\"");
        assert_eq!(field(&pod(), "metadata.labels['b']").unwrap(), "2");
        assert_eq!(field(&pod(), "metadata.labels['none']").unwrap(), "");
    }

    #[test]
    fn resources_are_whole_divisors_rounded_up() {
        let of = |reference: serde_json::Value| {
            let pod = pod();
            let reference = serde_json::from_value(reference).unwrap();
            resource(&pod, &pod.spec.as_ref().unwrap().containers[0], &reference)
        };
        assert_eq!(of(json!({"resource": "limits.cpu"})).unwrap(), "2");
        assert_eq!(of(json!({"resource": "limits.cpu", "divisor": "1m"})).unwrap(), "1500");
        assert_eq!(of(json!({"resource": "limits.memory", "divisor": "1Mi"})).unwrap(), "1024");
        assert_eq!(of(json!({"resource": "requests.memory"})).unwrap(), "0");
        assert!(of(json!({"resource": "limits.gpu"})).is_err());
        assert!(of(json!({"resource": "limits.cpu", "containerName": "x"})).is_err());
    }
}
