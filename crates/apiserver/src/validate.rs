//! Rules of the built-in kinds beyond the types of their fields.

use serde_json::{Value, json};

use crate::resource::Resource;
use crate::status::Cause;

/// What is wrong with the object; `old` is what it replaces.
pub(crate) fn causes(resource: &Resource, value: &Value, old: Option<&Value>) -> Vec<Cause> {
    let mut causes = Vec::new();
    if resource.custom().is_some() {
        return causes;
    }
    match resource.name.as_str() {
        "pods" => pod(value, old, &mut causes),
        "services" => service(value, old, &mut causes),
        "configmaps" | "secrets" => immutable_data(value, old, &mut causes),
        "deployments.apps" | "replicasets.apps" | "statefulsets.apps" | "daemonsets.apps" => {
            workload(value, old, &mut causes)
        }
        "jobs.batch" => job(value, &mut causes),
        crate::catalog::CRDS => causes.extend(crate::custom::resources(value).err().unwrap_or_default()),
        "mutatingwebhookconfigurations.admissionregistration.k8s.io"
        | "validatingwebhookconfigurations.admissionregistration.k8s.io" => {
            causes.extend(crate::admission::causes(value));
        }
        "rolebindings.rbac.authorization.k8s.io" | "clusterrolebindings.rbac.authorization.k8s.io" => {
            immutable(value, old, "roleRef", "cannot change roleRef", &mut causes);
        }
        _ => {}
    }
    causes
}

fn immutable(value: &Value, old: Option<&Value>, path: &str, why: &str, causes: &mut Vec<Cause>) {
    let at = |value: &'_ Value| path.split('.').fold(value.clone(), |at, step| at[step].clone());
    if let Some(old) = old
        && at(old) != at(value)
    {
        causes.push(Cause::invalid(path, &at(value), why));
    }
}

fn immutable_data(value: &Value, old: Option<&Value>, causes: &mut Vec<Cause>) {
    if let Some(old) = old.filter(|o| o["immutable"] == true) {
        for key in ["data", "binaryData", "immutable"] {
            if old[key] != value[key] {
                causes.push(Cause::forbidden(key, "field is immutable when `immutable` is set"));
            }
        }
    }
    immutable(value, old, "type", "field is immutable", causes);
}

fn job(value: &Value, causes: &mut Vec<Cause>) {
    let policy = &value["spec"]["template"]["spec"]["restartPolicy"];
    let allowed = ["OnFailure", "Never"];
    if !allowed.iter().any(|one| policy == one) {
        let field = "spec.template.spec.restartPolicy";
        causes.push(Cause::not_supported(field, policy, &allowed.map(str::to_owned)));
    }
}

fn service(value: &Value, old: Option<&Value>, causes: &mut Vec<Cause>) {
    let spec = &value["spec"];
    let kinds = ["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"];
    let kind = spec["type"].as_str().unwrap_or_default();
    if !kinds.contains(&kind) {
        causes.push(Cause::not_supported("spec.type", &spec["type"], &kinds.map(str::to_owned)));
    }
    let ports = spec["ports"].as_array().map(Vec::as_slice).unwrap_or_default();
    if ports.is_empty() && kind != "ExternalName" && spec["clusterIP"] != "None" {
        causes.push(Cause::required("spec.ports", ""));
    }
    for (index, port) in ports.iter().enumerate() {
        let at = format!("spec.ports[{index}]");
        port_number(&port["port"], &format!("{at}.port"), causes);
        if ports.len() > 1 && port["name"].as_str().unwrap_or_default().is_empty() {
            causes.push(Cause::required(format!("{at}.name"), ""));
        }
        let same = |o: &Value| !o["name"].is_null() && o["name"] == port["name"];
        if ports[..index].iter().any(same) {
            let message = format!("Duplicate value: {}", port["name"]);
            causes.push(Cause { reason: "FieldValueDuplicate", message, field: format!("{at}.name") });
        }
        if !matches!(port["protocol"].as_str(), Some("TCP" | "UDP" | "SCTP")) {
            let allowed = ["SCTP", "TCP", "UDP"].map(str::to_owned);
            causes.push(Cause::not_supported(format!("{at}.protocol"), &port["protocol"], &allowed));
        }
        if port["targetPort"].is_number() {
            port_number(&port["targetPort"], &format!("{at}.targetPort"), causes);
        }
    }
    if kind == "ExternalName" && spec["externalName"].as_str().unwrap_or_default().is_empty() {
        causes.push(Cause::required("spec.externalName", ""));
    }
    if let Some(old) = old.filter(|o| o["spec"]["type"] != "ExternalName" && kind != "ExternalName")
        && old["spec"]["clusterIP"].as_str().is_some_and(|ip| !ip.is_empty())
    {
        immutable(value, Some(old), "spec.clusterIP", "may not change once set", causes);
    }
}

fn port_number(value: &Value, path: &str, causes: &mut Vec<Cause>) {
    if !value.as_u64().is_some_and(|n| (1..=65535).contains(&n)) {
        causes.push(Cause::invalid(path, value, "must be between 1 and 65535, inclusive"));
    }
}

fn containers(spec: &Value, path: &str, causes: &mut Vec<Cause>) {
    let main = spec["containers"].as_array().map(Vec::as_slice).unwrap_or_default();
    if main.is_empty() {
        causes.push(Cause::required(format!("{path}.containers"), ""));
    }
    let mut names: Vec<&str> = Vec::new();
    for key in ["containers", "initContainers"] {
        for (index, container) in spec[key].as_array().into_iter().flatten().enumerate() {
            let at = format!("{path}.{key}[{index}]");
            let name = container["name"].as_str().unwrap_or_default();
            if name.is_empty() {
                causes.push(Cause::required(format!("{at}.name"), ""));
            } else if names.contains(&name) {
                let message = format!("Duplicate value: \"{name}\"");
                causes.push(Cause { reason: "FieldValueDuplicate", message, field: format!("{at}.name") });
            }
            names.push(name);
            if container["image"].as_str().unwrap_or_default().is_empty() {
                causes.push(Cause::required(format!("{at}.image"), ""));
            }
            for (number, port) in container["ports"].as_array().into_iter().flatten().enumerate() {
                port_number(&port["containerPort"], &format!("{at}.ports[{number}].containerPort"), causes);
            }
            mounts(spec, container, &at, causes);
        }
    }
}

fn mounts(spec: &Value, container: &Value, at: &str, causes: &mut Vec<Cause>) {
    for (index, mount) in container["volumeMounts"].as_array().into_iter().flatten().enumerate() {
        let known = |volume: &Value| volume["name"] == mount["name"];
        if !spec["volumes"].as_array().into_iter().flatten().any(known) {
            causes.push(Cause {
                reason: "FieldValueNotFound",
                message: format!("Not found: {}", mount["name"]),
                field: format!("{at}.volumeMounts[{index}].name"),
            });
        }
    }
}

fn pod(value: &Value, old: Option<&Value>, causes: &mut Vec<Cause>) {
    match old {
        None => containers(&value["spec"], "spec", causes),
        Some(old) if fixed(old) != fixed(value) => {
            let why = "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,\
                       `spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),\
                       `spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";
            causes.push(Cause::forbidden("spec", why));
        }
        Some(old) => {
            let bound = old["spec"]["nodeName"].as_str().is_some_and(|node| !node.is_empty());
            immutable(value, Some(old).filter(|_| bound), "spec.nodeName", "may not change once set", causes);
        }
    }
}

/// What may not change in a pod. The binding to a node is made once, by an update.
fn fixed(pod: &Value) -> Value {
    let mut spec = pod["spec"].clone();
    if let Some(map) = spec.as_object_mut() {
        for free in [
            "nodeName",
            "tolerations",
            "activeDeadlineSeconds",
            "terminationGracePeriodSeconds",
            "ephemeralContainers",
        ] {
            map.remove(free);
        }
    }
    for key in ["containers", "initContainers"] {
        for container in spec.get_mut(key).and_then(Value::as_array_mut).into_iter().flatten() {
            if let Some(map) = container.as_object_mut() {
                map.remove("image");
            }
        }
    }
    spec
}

fn workload(value: &Value, old: Option<&Value>, causes: &mut Vec<Cause>) {
    let spec = &value["spec"];
    let labels = &spec["selector"]["matchLabels"];
    let expressions = spec["selector"]["matchExpressions"].as_array().is_some_and(|e| !e.is_empty());
    let any = labels.as_object().is_some_and(|l| !l.is_empty());
    if !any && !expressions {
        causes.push(Cause::required("spec.selector", ""));
    }
    let own = &spec["template"]["metadata"]["labels"];
    if labels.as_object().into_iter().flatten().any(|(key, wanted)| &own[key] != wanted) {
        let why = "`selector` does not match template `labels`";
        causes.push(Cause::invalid("spec.template.metadata.labels", &json!(own), why));
    }
    if spec["replicas"].as_i64().is_some_and(|n| n < 0) {
        causes.push(Cause::invalid("spec.replicas", &spec["replicas"], "must be greater than or equal to 0"));
    }
    containers(&spec["template"]["spec"], "spec.template.spec", causes);
    immutable(value, old, "spec.selector", "field is immutable", causes);
}
