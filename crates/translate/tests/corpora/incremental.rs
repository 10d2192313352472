//! What is made upon an earlier snapshot is what is made from nothing.

use std::sync::Arc;

use lateen_api::mesh::{MeshConfig, MeshNetworks};
use lateen_base::ClusterId;
use lateen_registry::manifests::Manifests;
use lateen_registry::{Event, Registry, Resource, Settings};
use lateen_translate::{Proxy, Resources, Snapshot, generate};
use serde_json::json;

const SHOP: &str = include_str!("shop.yaml");

/// Changes that come one after the other, each a manifest or a removal by kind, namespace and name.
const CHANGES: &[&str] = &[
    "{apiVersion: networking.istio.io/v1, kind: DestinationRule, metadata: {name: dr, namespace: default},
      spec: {host: incremental.com, subsets: [{name: v1, labels: {version: v1}}]}}",
    "{apiVersion: networking.istio.io/v1, kind: ServiceEntry, metadata: {name: se, namespace: default},
      spec: {hosts: [incremental.com], resolution: STATIC, ports: [{number: 80, name: http, protocol: HTTP}],
        endpoints: [{address: 1.2.3.4, labels: {version: v1}}]}}",
    "{apiVersion: networking.istio.io/v1, kind: ServiceEntry, metadata: {name: se, namespace: default},
      spec: {hosts: [incremental.com], resolution: STATIC, ports: [{number: 80, name: http, protocol: HTTP}],
        endpoints: [{address: 1.2.3.5, labels: {version: v1}}, {address: 1.2.3.6}]}}",
    "{apiVersion: security.istio.io/v1, kind: PeerAuthentication, metadata: {name: pa, namespace: istio-system},
      spec: {mtls: {mode: STRICT}}}",
    "{apiVersion: security.istio.io/v1, kind: PeerAuthentication, metadata: {name: pa, namespace: istio-system},
      spec: {mtls: {mode: DISABLE}}}",
    "{apiVersion: networking.istio.io/v1, kind: DestinationRule, metadata: {name: dr, namespace: default},
      spec: {host: incremental.com, trafficPolicy: {loadBalancer: {simple: RANDOM}, tls: {mode: ISTIO_MUTUAL}}}}",
    "{apiVersion: networking.istio.io/v1, kind: VirtualService, metadata: {name: vs, namespace: default},
      spec: {hosts: [incremental.com], http: [{route: [{destination: {host: incremental.com}}], timeout: 1s}]}}",
    "{apiVersion: networking.istio.io/v1, kind: Sidecar, metadata: {name: sc, namespace: default},
      spec: {egress: [{hosts: ['./incremental.com']}]}}",
    "{apiVersion: v1, kind: Pod, metadata: {name: own, namespace: default, labels: {app: own}}, status: {podIP: 1.1.1.1}}",
    "{apiVersion: v1, kind: Service, metadata: {name: own, namespace: default},
      spec: {clusterIP: 10.1.1.1, selector: {app: own}, ports: [{name: http, port: 80, targetPort: 8080}]}}",
    "{apiVersion: v1, kind: Service, metadata: {name: headless, namespace: default},
      spec: {clusterIP: None, selector: {app: own}, ports: [{name: tcp, port: 90}]}}",
];

fn resources(text: &str) -> Vec<Resource> {
    let mut manifests = Manifests::default();
    manifests.read("changes", text);
    let (resources, warnings) = manifests.complete();
    assert!(warnings.is_empty(), "{warnings:?}");
    resources
}

fn same(a: &Resources, b: &Resources) -> bool {
    a.listeners == b.listeners
        && a.clusters == b.clusters
        && a.routes == b.routes
        && a.endpoints == b.endpoints
        && a.secret_names == b.secret_names
        && a.name_table == b.name_table
}

#[test]
fn snapshots_upon_snapshots_make_the_same() {
    let cluster = ClusterId::new("Kubernetes");
    let settings = Settings::default();
    let mesh = Arc::new(MeshConfig::istio_default());
    let networks = Arc::new(MeshNetworks::default());
    let proxies: Vec<Proxy> = [
        json!({"type": "sidecar", "id": "own.default", "ipAddresses": ["1.1.1.1"], "configNamespace": "default"}),
        json!({"type": "router", "id": "gw.default", "ipAddresses": ["1.1.1.2"], "configNamespace": "default",
            "labels": {"istio": "ingressgateway"}}),
        json!({"type": "sidecar", "id": "loop.default", "ipAddresses": ["127.11.0.2"], "configNamespace": "default",
            "metadata": {"INTERCEPTION_MODE": "NONE", "HTTP_PROXY_PORT": "15007", "LATEEN_APP_ADDRESS": "127.111.0.2"}}),
    ]
    .iter()
    .map(|json| Proxy::from_json(json).unwrap())
    .collect();

    let mut registry = Registry::new(settings.clone());
    for resource in resources(SHOP) {
        registry.apply(&cluster, Event::Applied(resource));
    }
    let build = |registry: &Registry, previous: Option<&Snapshot>| {
        Snapshot::build(mesh.clone(), networks.clone(), &settings, registry.view(), previous)
    };
    let mut upon = build(&registry, None);
    let applied = CHANGES.iter().flat_map(|text| resources(text)).map(Event::Applied);
    let removed = CHANGES.iter().rev().flat_map(|text| resources(text)).map(|r| Event::Removed(r.key()));
    for event in applied.chain(removed) {
        let what = format!("{event:?}");
        registry.apply(&cluster, event);
        upon = build(&registry, Some(&upon));
        let fresh = build(&registry, None);
        for proxy in &proxies {
            let (upon, fresh) = (generate(&upon, proxy), generate(&fresh, proxy));
            assert!(same(&upon, &fresh), "{} after {what}", proxy.id);
        }
    }
}
