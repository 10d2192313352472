//! `sidecar`: a proxy beside the application, and what redirects its traffic.

use serde_json::{Map, Value, json};

use crate::InjectError;
use crate::container::{PROXY_NAME, Proxy, empty_dir, limit, mount, value};

const NAMES: &[&str] = &["name", "mountPath", "readOnly", "subPath", "subPathExpr", "mountPropagation"];
const VOLUMES: &[&str] = &[
    "name",
    "secret",
    "configMap",
    "emptyDir",
    "persistentVolumeClaim",
    "hostPath",
    "projected",
    "downwardAPI",
    "csi",
];

pub(super) fn pod(proxy: &Proxy<'_>) -> Result<Value, InjectError> {
    let mut init: Vec<Value> = interception(proxy).into_iter().collect();
    let mut containers = vec![];
    let own = container(proxy)?;
    match proxy.native {
        true => init.push(own),
        false => containers.push(own),
    }
    let mut spec = json!({ "containers": containers, "volumes": volumes(proxy)? });
    if !init.is_empty() {
        spec["initContainers"] = json!(init);
    }
    let secrets = proxy.pull_secrets();
    if !secrets.is_empty() {
        spec["imagePullSecrets"] = json!(secrets);
    }
    let labels = &proxy.pod["metadata"]["labels"];
    let mode = labels["security.istio.io/tlsMode"].as_str().unwrap_or("istio");
    Ok(json!({
        "metadata": { "labels": { "security.istio.io/tlsMode": mode }, "annotations": plug_in(proxy) },
        "spec": spec,
    }))
}

/// Whether the node's network plug-in redirects, so that the pod needs no privilege for it.
fn by_plug_in(proxy: &Proxy<'_>) -> bool {
    proxy.settings.flag("istio_cni.enabled") || proxy.settings.flag("pilot.cni.enabled")
}

/// What the network plug-in reads.
fn plug_in(proxy: &Proxy<'_>) -> Map<String, Value> {
    let mut all = Map::new();
    if !by_plug_in(proxy) {
        return all;
    }
    let provider = |path: &str| proxy.settings.text(path) == "multus";
    if provider("cni.provider") || provider("istio_cni.provider") || provider("pilot.cni.provider") {
        const NETWORKS: &str = "k8s.v1.cni.cncf.io/networks";
        let networks = match proxy.annotations.text(NETWORKS).map(str::trim) {
            None | Some("") => "default/istio-cni".to_owned(),
            Some(list) if list.starts_with('[') => match serde_saphyr::from_str::<Vec<Value>>(list) {
                Ok(mut items) => {
                    items.push(json!({ "name": "istio-cni", "namespace": "default" }));
                    json!(items).to_string()
                }
                Err(_) => list.to_owned(),
            },
            Some(list) => format!("{list}, default/istio-cni"),
        };
        all.insert(NETWORKS.to_owned(), json!(networks));
    }
    let traffic = traffic(proxy);
    let mut add = |name: &str, text: String| {
        if !text.is_empty() {
            all.insert(name.to_owned(), json!(text));
        }
    };
    add("sidecar.istio.io/interceptionMode", proxy.interception_mode());
    add("traffic.sidecar.istio.io/includeOutboundIPRanges", traffic.include_ranges);
    add("traffic.sidecar.istio.io/excludeOutboundIPRanges", traffic.exclude_ranges);
    add("traffic.sidecar.istio.io/includeInboundPorts", traffic.include_ports);
    add("traffic.sidecar.istio.io/excludeInboundPorts", traffic.exclude_ports);
    add("traffic.sidecar.istio.io/includeOutboundPorts", traffic.include_outbound);
    add("traffic.sidecar.istio.io/excludeOutboundPorts", traffic.exclude_outbound);
    all
}

struct Traffic {
    include_ranges: String,
    exclude_ranges: String,
    include_ports: String,
    exclude_ports: String,
    include_outbound: String,
    exclude_outbound: String,
}

fn traffic(proxy: &Proxy<'_>) -> Traffic {
    let of = |annotation: &str, path: &str| {
        let name = format!("traffic.sidecar.istio.io/{annotation}");
        proxy.annotations.or(&name, proxy.settings.text(&format!("global.proxy.{path}")))
    };
    let status = proxy.status_port();
    let excluded = of("excludeInboundPorts", "excludeInboundPorts");
    let mut ports: Vec<&str> = excluded.split(',').map(str::trim).filter(|port| !port.is_empty()).collect();
    if !ports.contains(&status.as_str()) {
        ports.insert(0, &status);
    }
    Traffic {
        include_ranges: of("includeOutboundIPRanges", "includeIPRanges"),
        exclude_ranges: of("excludeOutboundIPRanges", "excludeIPRanges"),
        include_ports: of("includeInboundPorts", "includeInboundPorts"),
        exclude_ports: ports.join(","),
        include_outbound: of("includeOutboundPorts", "includeOutboundPorts"),
        exclude_outbound: of("excludeOutboundPorts", "excludeOutboundPorts"),
    }
}

/// The user and group that the proxy runs as, and whose traffic is not redirected.
fn user(proxy: &Proxy<'_>) -> (u64, u64) {
    let own = proxy.own_container().map(|container| &container["securityContext"]);
    let of = |key: &str| own.and_then(|context| context[key].as_u64()).unwrap_or(1337);
    (of("runAsUser"), of("runAsGroup"))
}

/// The init container that redirects, or that waits until the plug-in has; none where nothing is redirected.
fn interception(proxy: &Proxy<'_>) -> Option<Value> {
    let mode = proxy.interception_mode();
    if mode == "NONE" {
        return None;
    }
    let traffic = traffic(proxy);
    let (user, _) = user(proxy);
    let mut args: Vec<String> = vec!["istio-iptables".into()];
    let mut flag = |name: &str, value: &str| args.extend([name.to_owned(), value.to_owned()]);
    flag("-p", "15001");
    flag("-z", "15006");
    flag("-u", &user.to_string());
    flag("-m", &mode);
    flag("-i", &traffic.include_ranges);
    flag("-x", &traffic.exclude_ranges);
    flag("-b", &traffic.include_ports);
    flag("-d", &format!("15090,15021,{}", traffic.exclude_ports));
    for (name, value) in [("-q", &traffic.include_outbound), ("-o", &traffic.exclude_outbound)] {
        if !value.is_empty() {
            flag(name, value);
        }
    }
    let annotations = proxy.annotations;
    let virtual_interfaces = annotations
        .text("istio.io/reroute-virtual-interfaces")
        .or(annotations.text("traffic.sidecar.istio.io/kubevirtInterfaces"));
    if let Some(interfaces) = virtual_interfaces {
        flag("-k", interfaces);
    }
    if let Some(interfaces) = annotations.text("traffic.sidecar.istio.io/excludeInterfaces") {
        flag("-c", interfaces);
    }
    let level = annotations.or("sidecar.istio.io/agentLogLevel", proxy.settings.text("global.logging.level"));
    args.push(format!("--log_output_level={level}"));
    let privileged = proxy.settings.flag("global.proxy.privileged");
    let mut container = json!({
        "name": "istio-init",
        "image": init_image(proxy),
        "args": args,
        "resources": init_resources(proxy),
        "securityContext": {
            "allowPrivilegeEscalation": privileged,
            "capabilities": { "add": ["NET_ADMIN", "NET_RAW"], "drop": ["ALL"] },
            "privileged": privileged,
            "readOnlyRootFilesystem": false,
            "runAsGroup": 0,
            "runAsNonRoot": false,
            "runAsUser": 0,
        },
    });
    if by_plug_in(proxy) {
        let (user, group) = self::user(proxy);
        container["name"] = json!("istio-validation");
        container["args"] =
            args.iter().map(String::as_str).chain(["--run-validation", "--skip-rule-apply"]).collect();
        container["securityContext"] = json!({
            "allowPrivilegeEscalation": privileged,
            "capabilities": { "drop": ["ALL"] },
            "privileged": privileged,
            "readOnlyRootFilesystem": true,
            "runAsGroup": group,
            "runAsNonRoot": true,
            "runAsUser": user,
        });
    }
    let metadata = proxy.metadata();
    if !metadata.is_empty() {
        container["env"] = json!(metadata);
    }
    proxy.pull_policy(&mut container);
    Some(container)
}

fn init_image(proxy: &Proxy<'_>) -> String {
    let (init, own) =
        (proxy.settings.text("global.proxy_init.image"), proxy.settings.text("global.proxy.image"));
    match proxy.annotations.text("sidecar.istio.io/proxyImage") {
        None if init != own => proxy.settings.image(&init),
        _ => proxy.image(),
    }
}

fn init_resources(proxy: &Proxy<'_>) -> Value {
    match proxy.settings.value("global.proxy_init.resources").and_then(Value::as_object) {
        Some(resources) if !resources.is_empty() => {
            crate::quantity::canonical_resources(&Value::Object(resources.clone()))
        }
        _ => proxy.resources(),
    }
}

fn container(proxy: &Proxy<'_>) -> Result<Value, InjectError> {
    let settings = proxy.settings;
    let mut args = proxy.args("sidecar");
    if let Some(concurrency) = proxy.concurrency() {
        args.extend(["--concurrency".to_owned(), concurrency]);
    }
    let outlier = settings.text("global.proxy.outlierLogPath");
    if !outlier.is_empty() {
        args.push(format!("--outlierLogPath={outlier}"));
    }
    let mut env = match settings.inbound_to_localhost {
        true => vec![value("REWRITE_PROBE_LEGACY_LOCALHOST_DESTINATION", "true")],
        false => vec![],
    };
    env.extend(proxy.identity());
    env.extend([limit("ISTIO_CPU_LIMIT", "cpu"), proxy.proxy_config(), proxy.pod_ports()]);
    env.extend([proxy.app_container_names(), limit("GOMEMLIMIT", "memory")]);
    env.extend(proxy.place());
    env.push(value("ISTIO_META_INTERCEPTION_MODE", &proxy.interception_mode()));
    env.extend(proxy.belonging());
    env.extend(proxy.metadata());
    let mut container = json!({
        "name": PROXY_NAME,
        "image": proxy.image(),
        "args": args,
        "env": env,
        "ports": [{ "containerPort": 15090, "name": "http-envoy-prom", "protocol": "TCP" }],
        "resources": proxy.resources(),
        "securityContext": security(proxy),
        "volumeMounts": mounts(proxy)?,
    });
    if let Some(probe) = proxy.readiness(15021) {
        container["readinessProbe"] = probe;
    }
    if settings.flag("global.proxy.startupProbe.enabled") {
        container["startupProbe"] = json!({
            "failureThreshold": settings.value("global.proxy.startupProbe.failureThreshold"),
            "httpGet": { "path": "/healthz/ready", "port": 15021 },
            "periodSeconds": 1,
            "timeoutSeconds": 3,
        });
    }
    if let Some(lifecycle) = lifecycle(proxy) {
        container["lifecycle"] = lifecycle;
    }
    if proxy.native {
        container["restartPolicy"] = json!("Always");
    }
    proxy.pull_policy(&mut container);
    Ok(container)
}

fn lifecycle(proxy: &Proxy<'_>) -> Option<Value> {
    match proxy.settings.value("global.proxy.lifecycle").and_then(Value::as_object) {
        Some(own) if !own.is_empty() => return Some(json!(own)),
        _ => {}
    }
    let port = format!("--debug-port={}", proxy.status_port());
    let exec = |command: Vec<&str>| json!({ "exec": { "command": command } });
    match (proxy.native, proxy.holds_application()) {
        (true, _) => Some(json!({ "preStop": exec(vec!["pilot-agent", "request", &port, "POST", "drain"]) })),
        (false, true) => Some(json!({ "postStart": exec(vec!["pilot-agent", "wait"]) })),
        (false, false) => None,
    }
}

fn security(proxy: &Proxy<'_>) -> Value {
    let privileged = proxy.settings.flag("global.proxy.privileged");
    let (user, group) = user(proxy);
    let transparent = proxy.interception_mode() == "TPROXY";
    let mut context = json!({
        "allowPrivilegeEscalation": privileged,
        "capabilities": { "drop": ["ALL"] },
        "privileged": privileged,
        "readOnlyRootFilesystem": !proxy.settings.flag("global.proxy.enableCoreDump"),
        "runAsGroup": group,
        "runAsNonRoot": !transparent,
        "runAsUser": if transparent { 0 } else { user },
    });
    if transparent {
        context["capabilities"]["add"] = json!(["NET_ADMIN"]);
    }
    if let Some(profile) = proxy.settings.value("global.proxy.seccompProfile").and_then(Value::as_object)
        && !profile.is_empty()
    {
        context["seccompProfile"] = json!(profile);
    }
    context
}

fn mounts(proxy: &Proxy<'_>) -> Result<Vec<Value>, InjectError> {
    let mut mounts = vec![
        mount("workload-socket", "/var/run/secrets/workload-spiffe-uds"),
        mount("credential-socket", "/var/run/secrets/credential-uds"),
        mount("workload-certs", "/var/run/secrets/workload-spiffe-credentials"),
        mount("istiod-ca-cert", "/var/run/secrets/istio"),
        mount("istio-ca-crl", "/var/run/secrets/istio/crl"),
        mount("istio-data", "/var/lib/istio/data"),
    ];
    if proxy.annotations.text("sidecar.istio.io/bootstrapOverride").is_some() {
        mounts.push(mount("custom-bootstrap-volume", "/etc/istio/custom-bootstrap"));
    }
    mounts
        .extend([mount("istio-envoy", "/etc/istio/proxy"), mount("istio-token", "/var/run/secrets/tokens")]);
    if proxy.settings.flag("global.mountMtlsCerts") {
        mounts.push(json!({ "name": "istio-certs", "mountPath": "/etc/certs/", "readOnly": true }));
    }
    mounts.push(mount("istio-podinfo", "/etc/istio/pod"));
    mounts.extend(proxy.annotations.named("sidecar.istio.io/userVolumeMount", NAMES)?);
    Ok(mounts)
}

fn volumes(proxy: &Proxy<'_>) -> Result<Vec<Value>, InjectError> {
    let mut volumes =
        vec![empty_dir("workload-socket"), empty_dir("credential-socket"), empty_dir("workload-certs")];
    if let Some(name) = proxy.annotations.text("sidecar.istio.io/bootstrapOverride") {
        volumes.push(json!({ "name": "custom-bootstrap-volume", "configMap": { "name": name } }));
    }
    volumes.extend(proxy.volumes("istio-envoy"));
    volumes
        .push(json!({ "name": "istio-ca-crl", "configMap": { "name": "istio-ca-crl", "optional": true } }));
    if proxy.settings.flag("global.mountMtlsCerts") {
        let account = proxy.pod["spec"]["serviceAccountName"].as_str().unwrap_or("default");
        let name = format!("istio.{account}");
        volumes.push(json!({ "name": "istio-certs", "secret": { "optional": true, "secretName": name } }));
    }
    volumes.extend(proxy.annotations.named("sidecar.istio.io/userVolume", VOLUMES)?);
    Ok(volumes)
}
