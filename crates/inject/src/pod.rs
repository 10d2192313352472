//! A pod with its sidecar.

use serde_json::{Map, Value, json};

use crate::container::{PROXY_NAME, ProxyContainer, Role, volumes};
use crate::{Settings, SettingsError};

/// Why a pod was not injected although it should have been.
#[derive(Debug, thiserror::Error)]
pub enum InjectError {
    /// The pod's JSON has no `spec.containers`.
    #[error("the pod has no spec.containers")]
    NoContainers,
    /// An annotation is malformed.
    #[error("annotation {name}: {message}")]
    Annotation {
        /// Its name.
        name: &'static str,
        /// What is wrong with it.
        message: String,
    },
    /// The settings are malformed.
    #[error(transparent)]
    Settings(#[from] SettingsError),
}

/// The pod with a sidecar; `pod` is left as it was. `namespace` counts where the pod's own is not set yet.
///
/// # Errors
/// When the pod has no containers, or an annotation is malformed.
pub fn inject(pod: &Value, namespace: &str, settings: &Settings) -> Result<Value, InjectError> {
    let app_containers: Vec<&Value> = pod["spec"]["containers"]
        .as_array()
        .ok_or(InjectError::NoContainers)?
        .iter()
        .filter(|container| container["name"] != PROXY_NAME)
        .collect();
    let annotations = &pod["metadata"]["annotations"];
    let namespace = pod["metadata"]["namespace"].as_str().unwrap_or(namespace);
    let (workload, owner) = workload(pod, namespace);
    let proxy = ProxyContainer {
        role: Role::Sidecar,
        workload: &workload,
        owner: &owner,
        config: proxy_config(settings, annotations)?,
        app_ports: app_containers
            .iter()
            .flat_map(|c| c["ports"].as_array().into_iter().flatten().map(port))
            .collect(),
        app_containers: app_containers.iter().filter_map(|c| c["name"].as_str()).collect(),
        resources: resources(settings, annotations),
        ports: vec![],
    };
    let mut container = proxy.render(settings);
    if let Some(image) = text(annotations, "sidecar.istio.io/proxyImage") {
        container["image"] = json!(image);
    }
    for (annotation, flag) in [
        ("sidecar.istio.io/logLevel", "--proxyLogLevel="),
        ("sidecar.istio.io/componentLogLevel", "--proxyComponentLogLevel="),
        ("sidecar.istio.io/agentLogLevel", "--log_output_level="),
    ] {
        if let (Some(level), Some(args)) = (text(annotations, annotation), container["args"].as_array_mut()) {
            args.retain(|arg| !arg.as_str().is_some_and(|arg| arg.starts_with(flag)));
            args.push(json!(format!("{flag}{level}")));
        }
    }
    let hold = proxy.config.get("holdApplicationUntilProxyStarts") == Some(&Value::Bool(true));

    let mut injected = pod.clone();
    let spec = &mut injected["spec"];
    let init = init_container(settings, annotations);
    let mut init_containers =
        init.iter().filter_map(|c| c["name"].as_str()).map(str::to_owned).collect::<Vec<_>>();
    let mut containers = vec![];
    if let Some(init) = init {
        list(spec, "initContainers").push(init);
    }
    if native(settings, annotations)? {
        container["restartPolicy"] = json!("Always");
        init_containers.push(PROXY_NAME.to_owned());
        list(spec, "initContainers").push(container);
    } else {
        containers.push(PROXY_NAME.to_owned());
        let all = list(spec, "containers");
        let at = if hold { 0 } else { all.len() };
        all.insert(at, container);
    }
    let volume_names = add_volumes(spec);
    describe(
        &mut injected,
        settings,
        &init_containers,
        &containers,
        &volume_names,
        &workload,
        &app_containers,
    );
    Ok(injected)
}

/// The workload's name and `kubernetes://` reference: of the deployment above a replica set, else of the controller,
/// else of the pod itself.
fn workload(pod: &Value, namespace: &str) -> (String, String) {
    let metadata = &pod["metadata"];
    let own = metadata["name"].as_str().or(metadata["generateName"].as_str()).unwrap_or_default();
    let mut name = own.trim_end_matches('-').to_owned();
    let (mut kind, mut version) = ("pods".to_owned(), "v1".to_owned());
    let owners = metadata["ownerReferences"].as_array().into_iter().flatten();
    if let Some(owner) = owners.into_iter().find(|owner| owner["controller"] == Value::Bool(true)) {
        name = owner["name"].as_str().unwrap_or_default().to_owned();
        version = format!("apis/{}", owner["apiVersion"].as_str().unwrap_or_default());
        kind = format!("{}s", owner["kind"].as_str().unwrap_or_default().to_lowercase());
        let hash = metadata["labels"]["pod-template-hash"].as_str().unwrap_or_default();
        if let Some(deployment) =
            name.strip_suffix(&format!("-{hash}")).filter(|_| kind == "replicasets" && !hash.is_empty())
        {
            name = deployment.to_owned();
            kind = "deployments".to_owned();
        }
    }
    let owner = format!("kubernetes://{version}/namespaces/{namespace}/{kind}/{name}");
    (name, owner)
}

/// The mesh's `defaultConfig` without what is built in anyway, and the pod's `proxy.istio.io/config` over it.
fn proxy_config(settings: &Settings, annotations: &Value) -> Result<Map<String, Value>, InjectError> {
    const NAME: &str = "proxy.istio.io/config";
    let mut config = settings.default_config.clone();
    config.retain(|key, value| {
        let built_in = key == "discoveryAddress" && *value == settings.built_in_discovery_address().as_str();
        let empty = value.is_null() || value.as_object().is_some_and(Map::is_empty);
        !(built_in || empty)
    });
    if let Some(text) = text(annotations, NAME) {
        let bad = |message: String| InjectError::Annotation { name: NAME, message };
        match serde_saphyr::from_str::<Value>(text).map_err(|error| bad(error.to_string()))? {
            Value::Object(own) => {
                for (key, value) in own {
                    merge(config.entry(key).or_insert(Value::Null), value);
                }
            }
            Value::Null => {}
            _ => return Err(bad("expected fields of ProxyConfig".to_owned())),
        }
    }
    Ok(config)
}

fn merge(into: &mut Value, from: Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, value) in from {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (into, from) => *into = from,
    }
}

fn resources(settings: &Settings, annotations: &Value) -> Value {
    const FIELDS: &[(&str, &str, &str)] = &[
        ("sidecar.istio.io/proxyCPU", "requests", "cpu"),
        ("sidecar.istio.io/proxyMemory", "requests", "memory"),
        ("sidecar.istio.io/proxyCPULimit", "limits", "cpu"),
        ("sidecar.istio.io/proxyMemoryLimit", "limits", "memory"),
    ];
    let given: Vec<_> =
        FIELDS.iter().filter_map(|(name, group, key)| Some((text(annotations, name)?, group, key))).collect();
    if given.is_empty() {
        return settings.resources.clone();
    }
    let mut resources = json!({});
    for (amount, group, key) in given {
        resources[*group][*key] = json!(amount);
    }
    resources
}

/// The container that sets interception up; none where nothing is intercepted.
fn init_container(settings: &Settings, annotations: &Value) -> Option<Value> {
    let mode = text(annotations, "sidecar.istio.io/interceptionMode").unwrap_or(&settings.interception_mode);
    if mode == "NONE" {
        return None;
    }
    let traffic = |name: &str| text(annotations, &format!("traffic.sidecar.istio.io/{name}"));
    let excluded_in = traffic("excludeInboundPorts").map(|ports| format!(",{ports}")).unwrap_or_default();
    let mut args: Vec<String> =
        ["istio-iptables", "-p", "15001", "-z", "15006", "-u", "1337", "-m", mode].map(str::to_owned).into();
    let mut flag = |name: &str, value: &str| args.extend([name.to_owned(), value.to_owned()]);
    flag("-i", traffic("includeOutboundIPRanges").unwrap_or("*"));
    flag("-x", traffic("excludeOutboundIPRanges").unwrap_or(""));
    flag("-b", traffic("includeInboundPorts").unwrap_or("*"));
    flag("-d", &format!("15090,15021,{}{excluded_in}", settings.status_port));
    if let Some(ports) = traffic("includeOutboundPorts") {
        flag("-q", ports);
    }
    if let Some(ports) = traffic("excludeOutboundPorts") {
        flag("-o", ports);
    }
    args.push(format!("--log_output_level={}", settings.agent_log_level));
    Some(json!({
        "name": "istio-init",
        "image": settings.image_reference(),
        "args": args,
        "resources": settings.resources,
        "securityContext": {
            "allowPrivilegeEscalation": false,
            "capabilities": { "add": ["NET_ADMIN", "NET_RAW"], "drop": ["ALL"] },
            "privileged": false,
            "readOnlyRootFilesystem": false,
            "runAsGroup": 0,
            "runAsNonRoot": false,
            "runAsUser": 0,
        },
    }))
}

fn native(settings: &Settings, annotations: &Value) -> Result<bool, InjectError> {
    const NAME: &str = "sidecar.istio.io/nativeSidecar";
    match text(annotations, NAME) {
        Some("true") => Ok(true),
        Some("false") => Ok(false),
        Some(other) => {
            Err(InjectError::Annotation { name: NAME, message: format!("{other:?}: write true or false") })
        }
        None => Ok(settings.native_sidecar),
    }
}

fn add_volumes(spec: &mut Value) -> Vec<String> {
    let all = list(spec, "volumes");
    let mut names = vec![];
    for volume in volumes() {
        names.extend(volume["name"].as_str().map(str::to_owned));
        if !all.iter().any(|known| known["name"] == volume["name"]) {
            all.push(volume);
        }
    }
    names
}

/// Labels and annotations that tell what was done.
fn describe(
    pod: &mut Value,
    settings: &Settings,
    init_containers: &[String],
    containers: &[String],
    volumes: &[String],
    workload: &str,
    app_containers: &[&Value],
) {
    let names = |names: &[String]| if names.is_empty() { Value::Null } else { json!(names) };
    let status = json!({
        "initContainers": names(init_containers),
        "containers": names(containers),
        "volumes": volumes,
        "imagePullSecrets": null,
        "revision": settings.revision_name(),
    });
    let labels = &pod["metadata"]["labels"];
    let label = |name: &str| labels[name].as_str().map(str::to_owned);
    let canonical_name = label("service.istio.io/canonical-name")
        .or_else(|| label("app.kubernetes.io/name"))
        .or_else(|| label("app"))
        .unwrap_or_else(|| workload.chars().take(63).collect());
    let canonical_revision = label("service.istio.io/canonical-revision")
        .or_else(|| label("app.kubernetes.io/version"))
        .or_else(|| label("version"))
        .unwrap_or_else(|| "latest".to_owned());
    let default_container = app_containers.first().map(|container| container["name"].clone());

    let metadata = &mut pod["metadata"];
    let annotations = map(metadata, "annotations");
    annotations.insert("istio.io/rev".into(), json!(settings.revision_name()));
    if let Some(name) = default_container {
        annotations.entry("kubectl.kubernetes.io/default-container").or_insert(name.clone());
        annotations.entry("kubectl.kubernetes.io/default-logs-container").or_insert(name);
    }
    if annotations.get("prometheus.istio.io/merge-metrics").and_then(Value::as_str) != Some("false") {
        annotations.insert("prometheus.io/path".into(), json!("/stats/prometheus"));
        annotations.insert("prometheus.io/port".into(), json!(settings.status_port.to_string()));
        annotations.insert("prometheus.io/scrape".into(), json!("true"));
    }
    annotations.insert("sidecar.istio.io/status".into(), json!(status.to_string()));
    let labels = map(metadata, "labels");
    labels.entry("security.istio.io/tlsMode").or_insert(json!("istio"));
    labels.insert("service.istio.io/canonical-name".into(), json!(canonical_name));
    labels.insert("service.istio.io/canonical-revision".into(), json!(canonical_revision));
}

/// A container port, as the metadata of a proxy lists it.
fn port(port: &Value) -> Value {
    let mut kept = Map::new();
    for key in ["name", "containerPort", "hostPort", "protocol"] {
        if let Some(value) = port.get(key) {
            kept.insert(key.to_owned(), value.clone());
        }
    }
    Value::Object(kept)
}

fn text<'a>(annotations: &'a Value, name: &str) -> Option<&'a str> {
    annotations.get(name).and_then(Value::as_str)
}

/// The list at `key`, made where there is none.
fn list<'a>(object: &'a mut Value, key: &str) -> &'a mut Vec<Value> {
    if !object[key].is_array() {
        object[key] = json!([]);
    }
    // An array as of the lines above.
    object[key].as_array_mut().expect("an array")
}

/// The map at `key`, made where there is none.
fn map<'a>(object: &'a mut Value, key: &str) -> &'a mut Map<String, Value> {
    if !object[key].is_object() {
        object[key] = json!({});
    }
    // An object as of the lines above.
    object[key].as_object_mut().expect("an object")
}
