//! `gateway`: the pod is a proxy and nothing else.

use serde_json::{Value, json};

use crate::container::{PROXY_NAME, Proxy, empty_dir, limit, mount, value};

pub(super) fn pod(proxy: &Proxy<'_>) -> Value {
    let mut env = proxy.identity();
    env.extend([limit("ISTIO_CPU_LIMIT", "cpu"), proxy.proxy_config(), proxy.pod_ports()]);
    env.extend([limit("GOMEMLIMIT", "memory"), proxy.app_container_names()]);
    env.extend(proxy.place());
    env.push(value("ISTIO_META_INTERCEPTION_MODE", &proxy.interception_mode()));
    env.extend(proxy.belonging());
    env.extend(proxy.metadata());
    let mut container = json!({
        "name": PROXY_NAME,
        "image": proxy.image(),
        "args": proxy.args("router"),
        "env": env,
        "ports": [{ "containerPort": 15090, "name": "http-envoy-prom", "protocol": "TCP" }],
        "securityContext": { "runAsGroup": 1337, "runAsUser": 1337 },
        "volumeMounts": [
            mount("workload-socket", "/var/run/secrets/workload-spiffe-uds"),
            mount("credential-socket", "/var/run/secrets/credential-uds"),
            mount("workload-certs", "/var/run/secrets/workload-spiffe-credentials"),
            mount("istiod-ca-cert", "/var/run/secrets/istio"),
            mount("istio-data", "/var/lib/istio/data"),
            mount("istio-envoy", "/etc/istio/proxy"),
            mount("istio-token", "/var/run/secrets/tokens"),
            mount("istio-podinfo", "/etc/istio/pod"),
        ],
    });
    if let Some(probe) = proxy.readiness(15021) {
        container["readinessProbe"] = probe;
    }
    proxy.pull_policy(&mut container);
    let mut volumes =
        vec![empty_dir("workload-socket"), empty_dir("credential-socket"), empty_dir("workload-certs")];
    volumes.extend(proxy.volumes("istio-envoy"));
    let mut spec = json!({
        // Without root it may listen on low ports.
        "securityContext": { "sysctls": [{ "name": "net.ipv4.ip_unprivileged_port_start", "value": "0" }] },
        "containers": [container],
        "volumes": volumes,
    });
    let secrets = proxy.pull_secrets();
    if !secrets.is_empty() {
        spec["imagePullSecrets"] = json!(secrets);
    }
    json!({ "spec": spec })
}
