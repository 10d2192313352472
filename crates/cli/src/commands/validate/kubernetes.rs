//! What the mesh needs of Kubernetes objects: names of ports, labels of workloads.

use lateen_api::FieldError;
use serde_json::Value;

/// Where Istio says how ports are named.
const HELP: &str = "See https://istio.io/docs/ops/deployment/application-requirements/";

/// Prefixes of port names, and values of `appProtocol`.
const PROTOCOLS: &[&str] =
    &["grpc", "grpc-web", "http", "http2", "https", "mongo", "mysql", "redis", "tcp", "tls", "udp", "hbone"];

/// Values of `appProtocol` that Kubernetes itself defines.
const KUBERNETES_PROTOCOLS: &[&str] = &["kubernetes.io/h2c", "kubernetes.io/ws", "kubernetes.io/wss"];

/// Errors and warnings of an object; what runs the mesh itself is left alone.
pub(super) fn check(object: &Value, istio_namespace: &str) -> (Vec<FieldError>, Vec<FieldError>) {
    let (mut errors, mut warnings) = (Vec::new(), Vec::new());
    let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    if text("/metadata/namespace") == istio_namespace {
        return (errors, warnings);
    }
    match text("/kind") {
        "Service" => {
            let ports = object.pointer("/spec/ports").and_then(Value::as_array);
            for (i, port) in ports.into_iter().flatten().enumerate() {
                errors.extend(port_problem(port).map(|(field, message)| FieldError {
                    path: format!("spec.ports[{i}].{field}"),
                    message: format!("{message}. {HELP}"),
                }));
            }
        }
        "Deployment" => {
            let labels = object.pointer("/spec/template/metadata/labels");
            let missing: Vec<String> = ["app", "version"]
                .into_iter()
                .filter(|key| labels.and_then(|labels| labels.get(key)).is_none())
                .map(|key| format!("{key:?}"))
                .collect();
            if !missing.is_empty() {
                let (word, missing) =
                    (if missing.len() > 1 { "labels" } else { "label" }, missing.join(" and "));
                warnings.push(FieldError {
                    path: "spec.template.metadata.labels".to_owned(),
                    message: format!(
                        "without the {word} {missing} metrics and telemetry are incomplete. {HELP}"
                    ),
                });
            }
        }
        _ => {}
    }
    (errors, warnings)
}

fn port_problem(port: &Value) -> Option<(&'static str, String)> {
    let text = |key: &str| port.get(key).and_then(Value::as_str);
    if text("protocol").is_some_and(|protocol| protocol.eq_ignore_ascii_case("udp")) {
        return None;
    }
    if let Some(protocol) = text("appProtocol") {
        let lower = protocol.to_ascii_lowercase();
        let known = PROTOCOLS.contains(&lower.as_str()) || KUBERNETES_PROTOCOLS.contains(&lower.as_str());
        return (!known)
            .then(|| ("appProtocol", format!("appProtocol {protocol:?} is not one that the mesh knows")));
    }
    let Some(name) = text("name").filter(|name| !name.is_empty()) else {
        return Some(("name", "the port has no name: its protocol is guessed from its bytes".to_owned()));
    };
    let lower = name.to_ascii_lowercase();
    let follows =
        PROTOCOLS.iter().any(|p| lower == *p || lower.strip_prefix(p).is_some_and(|r| r.starts_with('-')));
    (!follows).then(|| {
        ("name", format!("port {name:?} does not follow the Istio naming convention, <protocol>[-<suffix>]"))
    })
}
