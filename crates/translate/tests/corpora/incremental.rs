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
    "{apiVersion: networking.istio.io/v1alpha3, kind: EnvoyFilter, metadata: {name: ef, namespace: default},
      spec: {configPatches: [
        {applyTo: CLUSTER, match: {cluster: {service: incremental.com}},
          patch: {operation: MERGE, value: {connect_timeout: 3s}}},
        {applyTo: VIRTUAL_HOST, match: {routeConfiguration: {vhost: {name: 'incremental.com:80'}}},
          patch: {operation: MERGE, value: {include_attempt_count_in_response: true}}},
        {applyTo: EXTENSION_CONFIG, patch: {operation: ADD, value: {name: ext, typed_config:
          {'@type': type.googleapis.com/envoy.extensions.filters.http.cors.v3.Cors}}}}]}}",
    "{apiVersion: networking.istio.io/v1alpha3, kind: EnvoyFilter, metadata: {name: ef, namespace: default},
      spec: {configPatches: [
        {applyTo: CLUSTER, patch: {operation: ADD, value: {name: added, connect_timeout: 3s, type: STATIC}}},
        {applyTo: HTTP_FILTER, match: {listener: {filterChain: {filter: {
            name: envoy.filters.network.http_connection_manager, subFilter: {name: envoy.filters.http.router}}}}},
          patch: {operation: INSERT_BEFORE, value: {name: envoy.filters.http.cors, typed_config:
            {'@type': type.googleapis.com/envoy.extensions.filters.http.cors.v3.Cors}}}}]}}",
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
        && a.extensions == b.extensions
        && a.patches == b.patches
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

/// Objects that come, change and go in any order.
mod any_order {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    #[derive(Clone, Debug)]
    pub(super) struct Step {
        kind: usize,
        which: usize,
        form: usize,
        remove: bool,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = (0..11usize, 0..3usize, 0..4usize, prop::bool::weighted(0.25))
            .prop_map(|(kind, which, form, remove)| Step { kind, which, form, remove });
        prop::collection::vec(step, 1..25)
    }

    fn object(step: &Step) -> Value {
        let Step { which, form, .. } = step;
        let app = format!("a{}", form % 2);
        let istio = |group: &str, kind: &str, spec: Value| {
            json!({ "apiVersion": format!("{group}.istio.io/v1"), "kind": kind,
                "metadata": { "name": format!("x{which}"), "namespace": if *which == 2 { "istio-system" } else { "shop" } },
                "spec": spec })
        };
        let meta = |name: String| json!({ "name": name, "namespace": "shop" });
        match step.kind {
            0 => json!({ "apiVersion": "v1", "kind": "Service", "metadata": meta(format!("s{which}")),
                "spec": { "clusterIP": if *form == 3 { "None".to_owned() } else { format!("10.0.0.{which}") },
                    "selector": { "app": app }, "trafficDistribution": if *form == 2 { "PreferSameNode" } else { "" },
                    "ports": [{ "name": if form % 2 == 0 { "http" } else { "tcp" }, "port": 80 + form % 2, "targetPort": 8080 }] } }),
            1 => json!({ "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
                "metadata": { "name": format!("e{which}"), "namespace": "shop",
                    "labels": { "kubernetes.io/service-name": format!("s{which}") } },
                "endpoints": [{ "addresses": [format!("1.1.1.{form}")] }, { "addresses": ["1.1.1.9"] }],
                "ports": [{ "name": if form % 2 == 0 { "http" } else { "tcp" }, "port": 8080 }] }),
            2 => json!({ "apiVersion": "v1", "kind": "Pod",
                "metadata": { "name": format!("p{which}"), "namespace": "shop", "labels": { "app": app, "version": format!("v{form}") } },
                "spec": { "nodeName": format!("n{form}") }, "status": { "podIP": format!("1.1.1.{which}") } }),
            3 => istio(
                "networking",
                "DestinationRule",
                json!({ "host": format!("s{form}.shop.svc.cluster.local"),
                "workloadSelector": if *form == 1 { json!({ "matchLabels": { "app": app } }) } else { Value::Null },
                "trafficPolicy": { "loadBalancer": { "localityLbSetting": { "failoverPriority": [if *form == 2 { "version" } else { "tier" }] } },
                    "outlierDetection": { "consecutive5xxErrors": form } },
                "subsets": [{ "name": "v1", "labels": { "version": format!("v{form}") } }] }),
            ),
            4 => istio(
                "networking",
                "VirtualService",
                json!({ "hosts": [format!("s{which}.shop.svc.cluster.local")],
                "http": [{ "match": [{ "sourceLabels": if *form == 1 { json!({ "app": app }) } else { json!({}) } , "uri": { "prefix": "/" } }],
                    "timeout": format!("{}s", form + 1), "route": [{ "destination": { "host": format!("s{form}.shop.svc.cluster.local") } }] }] }),
            ),
            5 => istio(
                "networking",
                "VirtualService",
                json!({ "hosts": [format!("s{which}.shop.svc.cluster.local")],
                "tcp": [{ "match": [{ "port": 81, "sourceLabels": if *form == 1 { json!({ "tier": "front" }) } else { json!({}) } }],
                    "route": [{ "destination": { "host": format!("s{form}.shop.svc.cluster.local"), "port": { "number": 81 } } }] }] }),
            ),
            6 => istio(
                "networking",
                "Sidecar",
                json!({
                "workloadSelector": if *form == 0 { json!({ "labels": { "app": "a0" } }) } else { Value::Null },
                "ingress": if *form == 3 { json!([{ "port": { "number": 9090, "protocol": "HTTP", "name": "http" }, "defaultEndpoint": "127.0.0.1:8080" }]) } else { json!([]) },
                "egress": [{ "hosts": [format!("./s{which}.shop.svc.cluster.local"), "istio-system/*"] }] }),
            ),
            7 => istio(
                "security",
                "PeerAuthentication",
                json!({
                "selector": if *form == 1 { json!({ "matchLabels": { "app": app } }) } else { Value::Null },
                "mtls": { "mode": if *form == 2 { "DISABLE" } else { "STRICT" } } }),
            ),
            8 => istio(
                "networking",
                "Gateway",
                json!({ "selector": { "istio": if *form == 3 { "other" } else { "gw" } },
                "servers": [{ "port": { "number": 80 + which, "name": "http", "protocol": "HTTP" }, "hosts": ["*"] },
                    { "port": { "number": 15443, "name": "tls", "protocol": "TLS" }, "hosts": ["*.local"],
                      "tls": { "mode": if form % 2 == 0 { "AUTO_PASSTHROUGH" } else { "PASSTHROUGH" } } }] }),
            ),
            9 => {
                json!({ "apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "metadata": { "name": format!("i{which}"), "namespace": "shop",
                    "annotations": { "kubernetes.io/ingress.class": "istio" } },
                "spec": { "rules": [{ "host": format!("h{which}.com"), "http": { "paths": [{ "path": format!("/{form}"), "pathType": "Prefix",
                    "backend": { "service": { "name": format!("s{which}"), "port": { "name": if form % 2 == 0 { "http" } else { "tcp" } } } } }] } }] } })
            }
            _ => istio(
                "security",
                "AuthorizationPolicy",
                json!({ "selector": { "matchLabels": { "app": app } },
                "rules": [{ "from": [{ "source": { "namespaces": [format!("n{form}")] } }] }] }),
            ),
        }
    }

    /// Replicas, a proxy of another version, a gateway, and proxies that nothing is redirected for.
    fn proxies() -> Vec<Proxy> {
        let proxy = |kind: &str, last: u8, labels: Value, metadata: Value| {
            Proxy::from_json(&json!({ "type": kind, "id": format!("p{last}.shop"), "ipAddresses": [format!("1.1.1.{last}")],
                "configNamespace": "shop", "labels": labels, "metadata": metadata })).unwrap()
        };
        vec![
            proxy(
                "sidecar",
                0,
                json!({ "app": "a0", "version": "v0", "pod-template-hash": "1" }),
                json!({ "NODE_NAME": "n0" }),
            ),
            proxy(
                "sidecar",
                1,
                json!({ "app": "a0", "version": "v0", "pod-template-hash": "1" }),
                json!({ "NODE_NAME": "n1" }),
            ),
            proxy("sidecar", 2, json!({ "app": "a1", "version": "v1", "tier": "front" }), json!({})),
            proxy("sidecar", 200, json!({ "app": "a1", "version": "v2" }), json!({})),
            proxy("sidecar", 201, json!({ "app": "a1" }), json!({ "INTERCEPTION_MODE": "NONE" })),
            proxy(
                "sidecar",
                202,
                json!({ "app": "a0" }),
                json!({ "INTERCEPTION_MODE": "NONE", "HTTP_PROXY_PORT": "15007", "LATEEN_APP_ADDRESS": "127.111.0.2" }),
            ),
            proxy("router", 203, json!({ "istio": "gw" }), json!({})),
            proxy("router", 204, json!({ "istio": "gw", "version": "v1" }), json!({})),
        ]
    }

    /// What builders make for the proxy itself, sharing nothing.
    fn unshared(snapshot: &Snapshot, proxy: &Proxy) -> [Vec<(String, Vec<u8>)>; 4] {
        use lateen_proto::Message;
        fn packed<M: Message>(built: Vec<lateen_translate::Built<M>>) -> Vec<(String, Vec<u8>)> {
            built.into_iter().map(|built| (built.name, built.message.encode_to_vec())).collect()
        }
        let listeners = lateen_translate::listeners::build(snapshot, proxy);
        let names = lateen_translate::listeners::route_names(&listeners);
        let clusters = lateen_translate::clusters::build(snapshot, proxy);
        let eds: std::collections::BTreeSet<String> = clusters
            .iter()
            .filter_map(|cluster| cluster.message.eds_cluster_config.as_ref())
            .map(|config| config.service_name.clone())
            .collect();
        [
            packed(listeners),
            packed(clusters),
            packed(lateen_translate::routes::build(snapshot, proxy, &names)),
            packed(lateen_translate::endpoints::build(snapshot, proxy, &eds)),
        ]
    }

    fn bytes(resources: &Resources) -> [Vec<(String, Vec<u8>)>; 4] {
        [&resources.listeners, &resources.clusters, &resources.routes, &resources.endpoints]
            .map(|list| list.iter().map(|r| (r.name.to_string(), r.any.value.to_vec())).collect())
    }

    fn sorted(mut made: [Vec<(String, Vec<u8>)>; 4]) -> [Vec<(String, Vec<u8>)>; 4] {
        made.iter_mut().for_each(|list| list.sort());
        made
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 40, max_shrink_iters: 200, ..ProptestConfig::default() })]

        /// Whatever happens: what is made upon earlier snapshots is what is made from nothing, and sharing changes nothing.
        #[test]
        fn a_push_upon_pushes_is_a_rebuild(steps in steps()) {
            let cluster = ClusterId::new("Kubernetes");
            let settings = Settings::default();
            let mesh = Arc::new(MeshConfig::istio_default());
            let networks = Arc::new(MeshNetworks::default());
            let proxies = proxies();
            let mut registry = Registry::new(settings.clone());
            let build = |registry: &Registry, previous: Option<&Snapshot>| {
                Snapshot::build(mesh.clone(), networks.clone(), &settings, registry.view(), previous)
            };
            let mut upon = build(&registry, None);
            for step in &steps {
                for resource in resources(&object(step).to_string()) {
                    let event = match step.remove {
                        true => Event::Removed(resource.key()),
                        false => Event::Applied(resource),
                    };
                    registry.apply(&cluster, event);
                }
                upon = build(&registry, Some(&upon));
                let fresh = build(&registry, None);
                for proxy in &proxies {
                    let (a, b) = (generate(&upon, proxy), generate(&fresh, proxy));
                    prop_assert!(same(&a, &b), "{} after {step:?}", proxy.id);
                    prop_assert!(
                        sorted(bytes(&a)) == sorted(unshared(&fresh, proxy)),
                        "{} after {step:?}: what is shared is not what is its own", proxy.id
                    );
                }
            }
        }
    }
}
