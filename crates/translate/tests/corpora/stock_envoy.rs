//! Stock Envoy takes what is made.

use std::path::Path;

use serde_json::{Value, json};
use testkit::envoy::Envoy;

use crate::world::{Configured, cases, snapshot};

/// Cases that Envoy cannot take here: names without roots to vouch for them, which Istio emits, too; and files of revoked
/// certificates that are not on this machine.
const REFUSED: &[&str] = &["gateway-tls-06", "gateway-tls-01", "gateway-tls-14"];

#[test]
fn stock_envoy_takes_all_worlds() {
    let Some(envoy) = Envoy::find() else { return };
    let mut wrong = Vec::new();
    let mut count = 0;
    for (corpus, file) in
        [("simulation", "cases.json"), ("simulation", "sidecar_routes.json"), ("xds_routes", "cases.json")]
    {
        let Some(folder) = testkit::corpora::folder(corpus) else { return };
        for case in cases(&folder.join(file)) {
            let id = case["id"].as_str().unwrap();
            if REFUSED.iter().any(|head| id.starts_with(head)) {
                continue;
            }
            let world = snapshot(&manifests(&folder, &case), None);
            let configured = Configured::of(&world, &case["proxy"]);
            count += 1;
            if let Err(error) = envoy.validate(&configured.dump()) {
                wrong.push(format!("{id}: {error}"));
            }
        }
    }
    eprintln!("stock envoy: {count} worlds");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn manifests(folder: &Path, case: &Value) -> String {
    let files = ["config", "kube", "world"].map(|key| case[key].as_str());
    let texts = files.into_iter().flatten().map(|file| std::fs::read_to_string(folder.join(file)).unwrap());
    texts.collect::<Vec<_>>().join("\n---\n")
}

/// A shop in which everything that a VirtualService can say is said.
const SHOP: &str = include_str!("shop.yaml");

#[test]
fn stock_envoy_takes_every_feature() {
    let Some(envoy) = Envoy::find() else { return };
    let mesh = json!({
        "accessLogFile": "/dev/stdout",
        "defaultConfig": {"tracing": {"sampling": 100}},
    });
    let world = snapshot(SHOP, Some(&mesh));
    let plain = json!({"type": "sidecar", "id": "web.shop", "ipAddresses": ["10.1.0.9"], "configNamespace": "shop",
        "labels": {"app": "web"}, "metadata": {"NAMESPACE": "shop", "CLUSTER_ID": "Kubernetes"}});
    let mut loopback = plain.clone();
    loopback["ipAddresses"] = json!(["127.11.0.9"]);
    loopback["metadata"] = json!({"NAMESPACE": "shop", "INTERCEPTION_MODE": "NONE", "HTTP_PROXY_PORT": "15007",
        "LATEEN_APP_ADDRESS": "127.111.0.9"});
    let edge = json!({"type": "router", "id": "gw.istio-system", "ipAddresses": ["10.1.0.8"],
        "configNamespace": "istio-system", "labels": {"istio": "ingressgateway"},
        "metadata": {"NAMESPACE": "istio-system"}});
    for proxy in [plain, loopback, edge] {
        let configured = Configured::of(&world, &proxy);
        assert!(!configured.resources.listeners.is_empty());
        if let Err(error) = envoy.validate(&configured.dump()) {
            panic!("{}: {error}", configured.proxy.id);
        }
    }
}
