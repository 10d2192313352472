//! Every setting of clusters, and what stock Envoy says to it.

use lateen_translate::names;
use serde_json::{Value, json};
use testkit::envoy::Envoy;

use crate::world::{Configured, snapshot};

const FEATURES: &str = include_str!("features.yaml");

fn of(proxy: Value) -> Configured {
    Configured::of(&snapshot(FEATURES, None), &proxy)
}

fn cluster(configured: &Configured, name: &str) -> Value {
    let dump = configured.dump();
    let found = dump["clusters"].as_array().unwrap().iter().find(|cluster| cluster["name"] == name).cloned();
    found.unwrap_or_else(|| panic!("no cluster {name}"))
}

fn sidecar() -> Value {
    json!({"type": "sidecar", "id": "own.default", "ipAddresses": ["127.11.0.2"], "configNamespace": "default",
        "locality": {"region": "a", "zone": "x", "subzone": "1"}})
}

fn loopback() -> Value {
    let mut proxy = sidecar();
    proxy["metadata"] = json!({
        "INTERCEPTION_MODE": "NONE", "HTTP_PROXY_PORT": "15007", "LATEEN_APP_ADDRESS": "127.111.0.2",
    });
    proxy
}

fn gateway() -> Value {
    json!({"type": "router", "id": "gw.default", "ipAddresses": ["10.2.2.2"], "configNamespace": "default",
        "labels": {"istio": "eastwestgateway"}})
}

#[test]
fn stock_envoy_takes_every_cluster() {
    let Some(envoy) = Envoy::find() else { return };
    for proxy in [sidecar(), loopback(), gateway()] {
        let configured = of(proxy);
        if let Err(error) = envoy.validate(&configured.dump()) {
            panic!("{}: {error}", configured.proxy.id);
        }
    }
}

#[test]
fn rules_of_ports_and_subsets_show_in_clusters() {
    let sidecar = of(sidecar());
    let plain = cluster(&sidecar, "outbound|80||static.com");
    assert_eq!(plain["lbPolicy"], Value::Null, "ROUND_ROBIN is the default of the wire");
    assert_eq!(plain["circuitBreakers"]["thresholds"][0]["maxConnections"], 10);
    assert_eq!(plain["outlierDetection"]["enforcingSuccessRate"], 0);
    assert_eq!(plain["transportSocketMatches"][0]["name"], "tlsMode-istio");
    let tcp = cluster(&sidecar, "outbound|82||static.com");
    assert_eq!(tcp["lbPolicy"], "RANDOM");
    assert!(tcp["outlierDetection"].is_null() && tcp["transportSocketMatches"].is_null());
    assert_eq!(tcp["transportSocket"]["typedConfig"]["sni"], "outbound_.82_._.static.com");
    assert_eq!(cluster(&sidecar, "outbound|80|v1|static.com")["lbPolicy"], "RING_HASH");
    assert_eq!(cluster(&sidecar, "outbound|80|through|static.com")["type"], "ORIGINAL_DST");
    assert_eq!(cluster(&sidecar, "outbound|9000||none.com")["type"], "ORIGINAL_DST");
    let names = cluster(&sidecar, "outbound|80||names.com");
    let options =
        &names["typedExtensionProtocolOptions"]["envoy.extensions.upstreams.http.v3.HttpProtocolOptions"];
    assert_eq!(options["upstreamHttpProtocolOptions"], json!({"autoSni": true, "autoSanValidation": true}));
}

#[test]
fn a_gateway_has_clusters_by_sni() {
    let gateway = of(gateway());
    let by_sni = cluster(&gateway, "outbound_.80_.v1_.static.com");
    assert!(by_sni["transportSocketMatches"].is_null() && by_sni["transportSocket"].is_null());
    assert!(gateway.resources.endpoints.iter().any(|e| e.name.as_ref() == "outbound_.80_.v1_.static.com"));
}

#[test]
fn loopback_leads_to_the_application_and_out_of_the_block() {
    let sidecar = of(loopback());
    let inbound = cluster(&sidecar, &names::inbound_cluster(8080));
    let address = "/loadAssignment/endpoints/0/lbEndpoints/0/endpoint/address/socketAddress/address";
    assert_eq!(inbound.pointer(address), Some(&json!("127.111.0.2")));
    for name in ["outbound|80||static.com", "outbound|80||names.com", names::DYNAMIC_DNS_CLUSTER] {
        assert_eq!(
            cluster(&sidecar, name)["upstreamBindConfig"]["sourceAddress"]["address"],
            "0.0.0.0",
            "{name}"
        );
    }
    assert!(cluster(&sidecar, "outbound|80||own.default.svc.cluster.local")["upstreamBindConfig"].is_null());
}
