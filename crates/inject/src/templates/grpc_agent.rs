//! `grpc-agent`: applications that speak xDS themselves, and an agent that has certificates and configuration for them.

use serde_json::{Value, json};

use crate::container::{PROXY_NAME, Proxy, empty_dir, mount, value};

pub(super) fn pod(proxy: &Proxy<'_>) -> Value {
    let mut containers = vec![agent(proxy)];
    containers.extend(proxy.app_containers().map(|container| {
        json!({
            "name": container["name"],
            "env": [
                value("GRPC_XDS_EXPERIMENTAL_SECURITY_SUPPORT", "true"),
                value("GRPC_XDS_BOOTSTRAP", "/etc/istio/proxy/grpc-bootstrap.json"),
            ],
            "volumeMounts": [
                mount("istio-data", "/var/lib/istio/data"),
                mount("istio-xds", "/etc/istio/proxy"),
                mount("workload-certs", "/var/run/secrets/workload-spiffe-credentials"),
            ],
        })
    }));
    let mut volumes = vec![empty_dir("workload-socket"), empty_dir("workload-certs")];
    volumes.extend(proxy.volumes("istio-xds"));
    let mut spec = json!({ "containers": containers, "volumes": volumes });
    let secrets = proxy.pull_secrets();
    if !secrets.is_empty() {
        spec["imagePullSecrets"] = json!(secrets);
    }
    json!({
        "metadata": { "annotations": { "sidecar.istio.io/rewriteAppHTTPProbers": "false" } },
        "spec": spec,
    })
}

fn agent(proxy: &Proxy<'_>) -> Value {
    let port = proxy.status_port().parse::<u64>().unwrap_or(15020);
    let mut env = vec![value("ISTIO_META_GENERATOR", "grpc"), value("OUTPUT_CERTS", "/var/lib/istio/data")];
    env.extend(proxy.identity());
    env.extend([proxy.proxy_config(), proxy.pod_ports(), proxy.app_container_names()]);
    env.extend(proxy.place());
    env.extend(proxy.belonging());
    env.extend(proxy.metadata());
    env.extend([value("ISTIO_META_DNS_CAPTURE", "false"), value("DISABLE_ENVOY", "true")]);
    let url = format!("--url=http://localhost:{port}/healthz/ready");
    let mut container = json!({
        "name": PROXY_NAME,
        "image": proxy.image(),
        "args": proxy.args("sidecar"),
        "env": env,
        "lifecycle": { "postStart": { "exec": { "command": ["pilot-agent", "wait", url] } } },
        "ports": [{ "containerPort": port, "name": "mesh-metrics", "protocol": "TCP" }],
        "resources": proxy.resources(),
        "volumeMounts": [
            mount("workload-socket", "/var/run/secrets/workload-spiffe-uds"),
            mount("workload-certs", "/var/run/secrets/workload-spiffe-credentials"),
            mount("istiod-ca-cert", "/var/run/secrets/istio"),
            mount("istio-data", "/var/lib/istio/data"),
            mount("istio-xds", "/etc/istio/proxy"),
            mount("istio-token", "/var/run/secrets/tokens"),
            mount("istio-podinfo", "/etc/istio/pod"),
        ],
    });
    if let Some(probe) = proxy.readiness(port) {
        container["readinessProbe"] = probe;
    }
    proxy.pull_policy(&mut container);
    container
}
