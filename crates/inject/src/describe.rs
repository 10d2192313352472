//! Labels and annotations of an injected pod: what was done, what it is called, where its metrics are.

use serde_json::{Map, Value, json};

use crate::Settings;
use crate::annotations::Annotations;
use crate::container::{PROXY_NAME, Proxy};

/// The annotation that names several places of metrics.
const TARGETS: &str = "prometheus.istio.io/scrape-targets";
/// The longest value of a label.
const LABEL: usize = 63;

/// `sidecar.istio.io/status`: what came from templates.
pub(crate) fn status(template: &Value, settings: &Settings) -> String {
    let names = |list: &str| {
        let items = template["spec"][list].as_array();
        let names: Vec<&Value> = items.into_iter().flatten().map(|item| &item["name"]).collect();
        if names.is_empty() { Value::Null } else { json!(names) }
    };
    json!({
        "initContainers": names("initContainers"),
        "containers": names("containers"),
        "volumes": names("volumes"),
        "imagePullSecrets": names("imagePullSecrets"),
        "revision": settings.revision_name(),
    })
    .to_string()
}

/// The names by which the workload is known to telemetry.
pub(crate) fn canonical(pod: &mut Value, workload: &str) {
    let labels = &pod["metadata"]["labels"];
    let label = |name: &str| labels[name].as_str().map(str::to_owned);
    let name = label("service.istio.io/canonical-name")
        .or_else(|| label("app.kubernetes.io/name"))
        .or_else(|| label("app"))
        .unwrap_or_else(|| shortened(workload));
    let revision = label("service.istio.io/canonical-revision")
        .or_else(|| label("app.kubernetes.io/version"))
        .or_else(|| label("version"))
        .unwrap_or_else(|| "latest".to_owned());
    let labels = map(&mut pod["metadata"], "labels");
    labels.insert("service.istio.io/canonical-name".into(), json!(name));
    labels.insert("service.istio.io/canonical-revision".into(), json!(revision));
}

/// As much of a name as a label takes; a label does not end with a sign.
fn shortened(name: &str) -> String {
    let short: String = name.chars().take(LABEL).collect();
    short.trim_end_matches(|c: char| !c.is_ascii_alphanumeric()).to_owned()
}

/// Where `kubectl exec` and `kubectl logs` go: to the application.
pub(crate) fn default_container(pod: &mut Value) {
    let containers = pod["spec"]["containers"].as_array().into_iter().flatten();
    let first = containers.map(|container| &container["name"]).find(|name| *name != PROXY_NAME).cloned();
    if let Some(name) = first {
        let annotations = map(&mut pod["metadata"], "annotations");
        annotations.entry("kubectl.kubernetes.io/default-container").or_insert(name.clone());
        annotations.entry("kubectl.kubernetes.io/default-logs-container").or_insert(name);
    }
}

/// The proxy serves the application's metrics with its own: scrapers are sent to it, and it is told where the
/// application has its metrics.
pub(crate) fn metrics(pod: &mut Value, proxy: &Proxy<'_>) {
    let annotations = Annotations::of(proxy.pod);
    let merge = annotations.text("prometheus.istio.io/merge-metrics");
    if merge == Some("false") || (merge.is_none() && !proxy.settings.merge_metrics) {
        return;
    }
    let of = |key: &str| {
        let dotted = format!("prometheus.io.{key}");
        annotations
            .text(&format!("prometheus.io/{key}"))
            .or_else(|| annotations.text(&dotted))
            .map(str::to_owned)
    };
    let (scrape, path, port) = (of("scrape"), of("path"), of("port"));
    if scrape.as_deref() == Some("false") {
        return;
    }
    let targets = targets(annotations);
    if scrape.is_some() || path.is_some() || port.is_some() {
        let first = targets.first();
        let mut told = json!({
            "scrape": scrape.unwrap_or_default(),
            "path": path.or_else(|| first.map(|(_, path)| path.clone())).unwrap_or_default(),
            "port": port.or_else(|| first.map(|(port, _)| port.clone())).unwrap_or_default(),
        });
        if !targets.is_empty() {
            let target = |(port, path): &(String, String)| json!({ "port": port, "path": path });
            told["targets"] = targets.iter().map(target).collect();
        }
        add_env(pod, "ISTIO_PROMETHEUS_ANNOTATIONS", &told.to_string());
    }
    let port = proxy.config.get("statusPort").map_or_else(|| "15020".to_owned(), Value::to_string);
    let annotations = map(&mut pod["metadata"], "annotations");
    annotations.shift_remove(TARGETS);
    annotations.insert("prometheus.io/path".into(), json!("/stats/prometheus"));
    annotations.insert("prometheus.io/port".into(), json!(port));
    annotations.insert("prometheus.io/scrape".into(), json!("true"));
}

/// Several places of metrics: `PORT:PATH,...`.
fn targets(annotations: Annotations<'_>) -> Vec<(String, String)> {
    let text = annotations.text(TARGETS).unwrap_or_default();
    let target = |part: &str| {
        let (port, path) = part.trim().split_once(':').unwrap_or((part.trim(), "/metrics"));
        (!port.is_empty()).then(|| (port.to_owned(), path.to_owned()))
    };
    text.split(',').filter_map(target).collect()
}

/// Adds a variable to the proxy's container.
pub(crate) fn add_env(pod: &mut Value, name: &str, value: &str) {
    for list in ["containers", "initContainers"] {
        for container in list_mut(pod, list) {
            if container["name"] == PROXY_NAME
                && let Some(env) = container.get_mut("env").and_then(Value::as_array_mut)
            {
                env.push(json!({ "name": name, "value": value }));
            }
        }
    }
}

/// The containers of a list; none where there is no such list, which is not made.
pub(crate) fn list_mut<'a>(pod: &'a mut Value, list: &str) -> impl Iterator<Item = &'a mut Value> {
    pod["spec"].get_mut(list).and_then(Value::as_array_mut).into_iter().flatten()
}

/// The map at `key`, made where there is none.
pub(crate) fn map<'a>(object: &'a mut Value, key: &str) -> &'a mut Map<String, Value> {
    if !object[key].is_object() {
        object[key] = json!({});
    }
    // An object as of the lines above.
    object[key].as_object_mut().expect("an object")
}
