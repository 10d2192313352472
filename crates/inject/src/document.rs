//! `kube-inject`: any object of a manifest, with the proxy in the pods that it makes.

use serde_json::Value;

use crate::workload::template_path;
use crate::{Decision, InjectError, Settings, Workload, decide, inject};

/// The object with its pods injected; lists item by item; what makes no pods as it is. `default_namespace` counts where
/// the object names none.
///
/// # Errors
/// When a pod cannot be injected.
pub fn inject_object(
    object: &Value,
    default_namespace: &str,
    settings: &Settings,
) -> Result<Value, InjectError> {
    let kind = object["kind"].as_str().unwrap_or_default();
    if let Some(items) = object["items"].as_array() {
        let mut list = object.clone();
        let injected = items.iter().map(|item| inject_object(item, default_namespace, settings));
        list["items"] = Value::Array(injected.collect::<Result<_, _>>()?);
        return Ok(list);
    }
    let Some(path) = template_path(kind) else { return Ok(object.clone()) };
    let mut whole = object.clone();
    let Some(pod) = whole.pointer_mut(path).filter(|pod| pod["spec"].is_object()) else { return Ok(whole) };
    let namespace = object["metadata"]["namespace"].as_str().unwrap_or(default_namespace);
    let workload = match kind {
        "Pod" => Workload::of_pod(object, namespace),
        kind => Workload::named(
            object["apiVersion"].as_str().unwrap_or_default(),
            kind,
            object["metadata"]["name"].as_str().unwrap_or_default(),
            namespace,
        ),
    };
    if decide(pod, namespace, settings) == Decision::Inject {
        *pod = inject(pod, &workload, settings)?;
    }
    Ok(whole)
}
