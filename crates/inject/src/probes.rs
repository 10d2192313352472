//! Probes of the application, asked by way of the agent: a kubelet has no certificate of the mesh.

use serde_json::{Map, Value, json};

use crate::describe::list_mut;

/// The field of a container, and how the agent's path ends.
const PROBES: &[(&str, &str)] =
    &[("readinessProbe", "readyz"), ("livenessProbe", "livez"), ("startupProbe", "startupz")];

/// Points the probes of a pod's containers at the agent, and gives what the agent is to ask: by path, for
/// `ISTIO_KUBE_APP_PROBERS`.
pub(crate) fn rewrite(pod: &mut Value, status_port: u64, proxy: &str) -> Map<String, Value> {
    let mut probers = Map::new();
    let restarted = |container: &Value| container["restartPolicy"] == "Always";
    for (list, which) in
        [("initContainers", &restarted as &dyn Fn(&Value) -> bool), ("containers", &|_: &Value| true)]
    {
        for container in list_mut(pod, list) {
            if container["name"] == proxy || !which(container) {
                continue;
            }
            rewrite_container(container, status_port, &mut probers);
        }
    }
    probers.sort_keys();
    probers
}

fn rewrite_container(container: &mut Value, status_port: u64, probers: &mut Map<String, Value>) {
    let name = container["name"].as_str().unwrap_or_default().to_owned();
    let ports = container["ports"].clone();
    for (field, end) in PROBES {
        let Some(probe) = container.get_mut(*field).and_then(Value::as_object_mut) else { continue };
        let Some(action) =
            ["httpGet", "tcpSocket", "grpc"].into_iter().find(|action| probe.contains_key(*action))
        else {
            continue;
        };
        let path = format!("/app-health/{name}/{end}");
        let mut asked = probe[action].clone();
        if action != "grpc" {
            asked["port"] = numbered(&asked["port"], &ports);
        }
        // What the agent answers for itself already.
        if asked["port"] == status_port {
            continue;
        }
        let mut prober = json!({ action: asked });
        if let Some(timeout) = probe.get("timeoutSeconds") {
            prober["timeoutSeconds"] = timeout.clone();
        }
        probers.insert(path.clone(), prober);
        let new = json!({ "path": path, "port": status_port });
        let entries: Vec<(String, Value)> = std::mem::take(probe).into_iter().collect();
        for (key, value) in entries {
            match key == action {
                true => probe.insert("httpGet".to_owned(), new.clone()),
                false => probe.insert(key, value),
            };
        }
    }
}

/// A port by its number.
fn numbered(port: &Value, ports: &Value) -> Value {
    let Some(name) = port.as_str() else { return port.clone() };
    let named = ports.as_array().into_iter().flatten().find(|known| known["name"] == name);
    match (named, name.parse::<u16>()) {
        (Some(known), _) => known["containerPort"].clone(),
        (None, Ok(number)) => json!(number),
        (None, Err(_)) => port.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_agent_is_asked_and_knows_what_to_ask() {
        let mut pod = json!({ "spec": { "containers": [
            { "name": "app", "ports": [{ "name": "http", "containerPort": 80 }],
              "livenessProbe": { "httpGet": { "port": "http", "path": "/live" }, "timeoutSeconds": 3 },
              "readinessProbe": { "exec": { "command": ["true"] } },
              "startupProbe": { "grpc": { "port": 90 } } },
            { "name": "istio-proxy", "readinessProbe": { "httpGet": { "port": 15021 } } },
        ]}});
        let probers = rewrite(&mut pod, 15020, "istio-proxy");
        assert_eq!(
            Value::Object(probers),
            json!({
                "/app-health/app/livez": { "httpGet": { "port": 80, "path": "/live" }, "timeoutSeconds": 3 },
                "/app-health/app/startupz": { "grpc": { "port": 90 } },
            })
        );
        let app = &pod["spec"]["containers"][0];
        assert_eq!(
            app["livenessProbe"],
            json!({ "httpGet": { "path": "/app-health/app/livez", "port": 15020 }, "timeoutSeconds": 3 })
        );
        assert_eq!(app["readinessProbe"], json!({ "exec": { "command": ["true"] } }));
        assert_eq!(pod["spec"]["containers"][1]["readinessProbe"]["httpGet"]["port"], 15021);
    }
}
