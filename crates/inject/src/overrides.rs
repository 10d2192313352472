//! What the pod's owner says of containers that a template has, too: it wins.

use serde_json::{Map, Value, json};

use crate::container::{PROXY_NAME, ordered};
use crate::merge::overlay;

/// Where it is kept, so that it can be told apart from what was injected.
pub(crate) const ANNOTATION: &str = "proxy.istio.io/overrides";

/// The order of a container's fields in Kubernetes' own JSON.
const ORDER: &[&str] = &[
    "name",
    "image",
    "command",
    "args",
    "workingDir",
    "ports",
    "envFrom",
    "env",
    "resources",
    "resizePolicy",
    "restartPolicy",
    "volumeMounts",
    "volumeDevices",
    "livenessProbe",
    "readinessProbe",
    "startupProbe",
    "lifecycle",
    "terminationMessagePath",
    "terminationMessagePolicy",
    "imagePullPolicy",
    "securityContext",
    "stdin",
    "stdinOnce",
    "tty",
];

/// Lays the containers of the original pod over those that a template has merged with them, and gives what was laid,
/// for the annotation; none when there was nothing.
pub(crate) fn reapply(merged: &mut Value, original: &Value, template: &Value) -> Option<Value> {
    let mut kept = Map::new();
    for list in ["containers", "initContainers"] {
        let mut own = vec![];
        for rendered in template["spec"][list].as_array().into_iter().flatten() {
            let name = &rendered["name"];
            let Some(container) = written(original, list, name) else { continue };
            let mut container = container.clone();
            if container["image"] == "auto"
                && let Some(fields) = container.as_object_mut()
            {
                fields.shift_remove("image");
            }
            if container["resources"].is_null() {
                container["resources"] = json!({});
            }
            overlay(&mut merged["spec"], &json!({ list: [container] }));
            own.push(ordered(&container, ORDER));
        }
        if !own.is_empty() {
            kept.insert(list.to_owned(), json!(own));
        }
    }
    (!kept.is_empty()).then_some(Value::Object(kept))
}

/// The container of this name as the pod's owner wrote it. The proxy's is written among the containers, wherever the
/// template puts it.
fn written<'a>(pod: &'a Value, list: &str, name: &Value) -> Option<&'a Value> {
    let lists: &[&str] = if name == PROXY_NAME { &["containers", "initContainers"] } else { &[list] };
    let mut all = lists.iter().flat_map(|list| pod["spec"][*list].as_array().into_iter().flatten());
    all.find(|container| container["name"] == *name)
}
