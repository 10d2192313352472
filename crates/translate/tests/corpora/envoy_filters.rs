//! EnvoyFilters: what each operation does to what a proxy gets, what is said of it, and whether stock Envoy takes it.

use lateen_translate::PatchReport;
use serde_json::{Value, json};
use testkit::envoy::Envoy;

use crate::world::{Configured, snapshot};

const WORLD: &str = include_str!("envoy_filters.yaml");

/// A sidecar whose workload serves `web` on 8080.
fn sidecar() -> Value {
    json!({"type": "sidecar", "id": "web.shop", "ipAddresses": ["10.1.0.9"], "configNamespace": "shop",
        "labels": {"app": "web"}, "metadata": {"NAMESPACE": "shop", "ISTIO_VERSION": "1.26.0", "STAGE": "test"}})
}

fn loopback() -> Value {
    let mut proxy = sidecar();
    proxy["ipAddresses"] = json!(["127.11.0.9"]);
    proxy["metadata"] = json!({"NAMESPACE": "shop", "INTERCEPTION_MODE": "NONE", "HTTP_PROXY_PORT": "15007",
        "LATEEN_APP_ADDRESS": "127.111.0.9"});
    proxy
}

fn gateway() -> Value {
    json!({"type": "router", "id": "gw.istio-system", "ipAddresses": ["10.1.0.8"],
        "configNamespace": "istio-system", "labels": {"istio": "ingressgateway"},
        "metadata": {"NAMESPACE": "istio-system"}})
}

/// An EnvoyFilter of the root namespace with these patches.
fn filter(patches: &str) -> String {
    named("istio-system", "ef", &format!("configPatches:\n{patches}"))
}

fn named(namespace: &str, name: &str, spec: &str) -> String {
    let spec = spec.replace('\n', "\n  ");
    format!(
        "apiVersion: networking.istio.io/v1alpha3\nkind: EnvoyFilter\nmetadata: {{name: {name}, namespace: {namespace}}}\nspec:\n  {spec}\n"
    )
}

fn made(proxy: &Value, filters: &[String]) -> Configured {
    let world = format!("{WORLD}\n---\n{}", filters.join("\n---\n"));
    Configured::of(&snapshot(&world, None), proxy)
}

fn configured(proxy: &Value, filters: &[String]) -> Configured {
    let configured = made(proxy, filters);
    if let Some(envoy) = Envoy::find()
        && let Err(error) = envoy.validate(&configured.dump())
    {
        panic!("{error}\n{}", filters.join("\n---\n"));
    }
    configured
}

/// What a proxy gets with these patches, and what is said of each.
fn patched(proxy: &Value, patches: &str) -> (Value, Vec<String>) {
    let configured = configured(proxy, &[filter(patches)]);
    (configured.dump(), said(&configured))
}

fn said(configured: &Configured) -> Vec<String> {
    configured.resources.patches.iter().map(PatchReport::to_string).collect()
}

fn find<'a>(dump: &'a Value, kind: &str, name: &str) -> Option<&'a Value> {
    dump[kind].as_array().unwrap().iter().find(|resource| resource["name"] == name)
}

/// The names of the HTTP filters of each chain of a listener that has any, with the port that the chain is for.
fn http_filters(dump: &Value, listener: &str) -> Vec<(u64, Vec<String>)> {
    let chains = find(dump, "listeners", listener).unwrap()["filterChains"].as_array().unwrap();
    let managers = chains.iter().flat_map(|chain| {
        let port = chain["filterChainMatch"]["destinationPort"].as_u64().unwrap_or_default();
        let filters = chain["filters"].as_array().unwrap().iter();
        filters
            .filter_map(move |filter| Some((port, filter["typedConfig"]["httpFilters"].as_array()?.clone())))
    });
    let name = |filter: &Value| filter["name"].as_str().unwrap().to_owned();
    managers.map(|(port, filters)| (port, filters.iter().map(name).collect())).collect()
}

const HCM: &str = "envoy.filters.network.http_connection_manager";
const LUA: &str = "{name: lua, typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.http.lua.v3.Lua, \
    default_source_code: {inline_string: 'function envoy_on_request(h) end'}}}";

fn of_router(context: &str, port: &str, operation: &str, value: &str) -> String {
    format!(
        "- applyTo: HTTP_FILTER
  match: {{context: {context}, listener: {{{port} filterChain: {{filter: {{name: {HCM}, subFilter: {{name: envoy.filters.http.router}}}}}}}}}}
  patch: {{operation: {operation}, value: {value}}}"
    )
}

#[test]
fn the_header_names_the_endpoint_as_in_the_seed() {
    let patches = "- applyTo: CLUSTER
  match: {cluster: {name: 'outbound|9080|v1|productpage.shop.svc.cluster.local'}}
  patch: {operation: MERGE, value: {original_dst_lb_config: {use_http_header: true}}}";
    let selected =
        format!("workloadSelector: {{labels: {{istio: ingressgateway}}}}\nconfigPatches:\n{patches}");
    let own = named("istio-system", "lb-passthrough", &selected);
    let edge = configured(&gateway(), std::slice::from_ref(&own));
    let dump = edge.dump();
    let cluster = find(&dump, "clusters", "outbound|9080|v1|productpage.shop.svc.cluster.local").unwrap();
    assert_eq!(
        (&cluster["type"], &cluster["lbPolicy"]),
        (&json!("ORIGINAL_DST"), &json!("CLUSTER_PROVIDED"))
    );
    assert_eq!(cluster["originalDstLbConfig"], json!({"useHttpHeader": true}));
    assert_eq!(
        said(&edge),
        [
            "EnvoyFilter istio-system/lb-passthrough, patch 0 (CLUSTER MERGE): changed outbound|9080|v1|productpage.shop.svc.cluster.local"
        ]
    );
    let beside = configured(&sidecar(), &[own]);
    assert!(said(&beside).is_empty(), "it selects gateways only");
}

#[test]
fn http_filters_are_inserted_by_side_port_and_filter() {
    let (dump, said) =
        patched(&sidecar(), &of_router("SIDECAR_INBOUND", "portNumber: 8080,", "INSERT_BEFORE", LUA));
    for (port, filters) in http_filters(&dump, "virtualInbound") {
        let before_router = filters.len() - 2;
        assert_eq!(filters[before_router] == "lua", port == 8080, "{port}: {filters:?}");
        assert_eq!(filters.last().unwrap(), "envoy.filters.http.router");
    }
    assert!(http_filters(&dump, "0.0.0.0_9080").iter().all(|(_, f)| !f.contains(&"lua".to_owned())));
    assert!(said[0].ends_with("(HTTP_FILTER INSERT_BEFORE): changed virtualInbound"), "{said:?}");

    // In loopback isolation each port has its own listener.
    let (dump, said) =
        patched(&loopback(), &of_router("SIDECAR_INBOUND", "name: virtualInbound,", "INSERT_BEFORE", LUA));
    assert!(
        http_filters(&dump, "127.11.0.9_8080").iter().all(|(_, f)| f.contains(&"lua".to_owned())),
        "{said:?}"
    );
}

#[test]
fn the_order_of_http_filters_is_that_of_operations_and_classes() {
    let patches = [
        of_router("GATEWAY", "", "INSERT_FIRST", LUA),
        of_router("GATEWAY", "", "INSERT_AFTER", LUA),
        format!("- applyTo: HTTP_FILTER\n  match: {{context: GATEWAY}}\n  patch: {{operation: ADD, filterClass: STATS, value: {}}}",
            LUA.replace("name: lua", "name: stats")),
        format!("- applyTo: HTTP_FILTER\n  match: {{context: GATEWAY}}\n  patch: {{operation: ADD, filterClass: AUTHN, value: {}}}",
            LUA.replace("name: lua", "name: authn")),
        "- applyTo: HTTP_FILTER
  match: {context: GATEWAY, listener: {filterChain: {filter: {name: envoy.filters.network.http_connection_manager, subFilter: {name: envoy.filters.http.cors}}}}}
  patch: {operation: REMOVE}".to_owned(),
        of_router("GATEWAY", "", "MERGE", "{typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.http.router.v3.Router, suppress_envoy_headers: true}}"),
    ];
    let (dump, said) = patched(&gateway(), &patches.join("\n"));
    let filters = &http_filters(&dump, "0.0.0.0_80")[0].1;
    assert_eq!(filters[0], "lua");
    assert!(!filters.contains(&"envoy.filters.http.cors".to_owned()), "{filters:?}");
    let place = |name: &str| filters.iter().position(|filter| filter == name).unwrap();
    assert!(
        place("authn") < place("envoy.filters.http.fault") && place("stats") == filters.len() - 2,
        "{filters:?}"
    );
    let chain = &find(&dump, "listeners", "0.0.0.0_80").unwrap()["filterChains"][0];
    let router = chain["filters"][0]["typedConfig"]["httpFilters"].as_array().unwrap().last().unwrap();
    assert_eq!(router["typedConfig"]["suppressEnvoyHeaders"], true);
    let after = said.iter().find(|text| text.contains("patch 1 ")).unwrap();
    assert!(
        after.contains("not applied: 0.0.0.0_80: http_filters: envoy.filters.http.router has to be the last"),
        "{after}"
    );
}

#[test]
fn network_and_listener_filters_and_chains_are_patched() {
    let patches = "- applyTo: NETWORK_FILTER
  match: {context: SIDECAR_OUTBOUND, listener: {portNumber: 9080, filterChain: {filter: {name: envoy.filters.network.http_connection_manager}}}}
  patch: {operation: MERGE, value: {typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager, xff_num_trusted_hops: 3, common_http_protocol_options: {idle_timeout: 30s}}}}
- applyTo: NETWORK_FILTER
  match: {context: SIDECAR_INBOUND, listener: {filterChain: {destinationPort: 8080}}}
  patch: {operation: INSERT_FIRST, value: {name: limit, typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.network.connection_limit.v3.ConnectionLimit, stat_prefix: limit, max_connections: 7}}}
- applyTo: NETWORK_FILTER
  match: {context: SIDECAR_INBOUND, listener: {filterChain: {destinationPort: 8080, filter: {name: limit}}}}
  patch: {operation: MERGE, value: {typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.network.connection_limit.v3.ConnectionLimit, max_connections: 8}}}
- applyTo: LISTENER_FILTER
  match: {context: SIDECAR_INBOUND, listener: {listenerFilter: envoy.filters.listener.tls_inspector}}
  patch: {operation: MERGE, value: {typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector, initial_read_buffer_size: 8192}}}
- applyTo: FILTER_CHAIN
  match: {context: SIDECAR_INBOUND, listener: {filterChain: {destinationPort: 8080, transportProtocol: tls, applicationProtocols: 'istio-h2,istio'}}}
  patch: {operation: MERGE, value: {transport_socket: {name: envoy.transport_sockets.tls, typed_config: {'@type': type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext, common_tls_context: {tls_params: {tls_minimum_protocol_version: TLSv1_3}}}}}}
- applyTo: LISTENER
  match: {context: SIDECAR_INBOUND, listener: {name: virtualInbound}}
  patch: {operation: MERGE, value: {per_connection_buffer_limit_bytes: 4096}}
- applyTo: NETWORK_FILTER
  match: {context: SIDECAR_OUTBOUND}
  patch: {operation: REMOVE}";
    let (dump, said) = patched(&sidecar(), patches);
    let inbound = find(&dump, "listeners", "virtualInbound").unwrap();
    assert_eq!(inbound["perConnectionBufferLimitBytes"], 4096);
    let inspector = inbound["listenerFilters"].as_array().unwrap().iter();
    let mut inspector = inspector.filter(|f| f["name"] == "envoy.filters.listener.tls_inspector");
    assert_eq!(inspector.next().unwrap()["typedConfig"]["initialReadBufferSize"], 8192);
    for chain in inbound["filterChains"].as_array().unwrap() {
        let of_port = chain["filterChainMatch"]["destinationPort"] == 8080;
        assert_eq!(chain["filters"][0]["name"] == "limit", of_port);
        if of_port {
            assert_eq!(chain["filters"][0]["typedConfig"]["maxConnections"], "8");
            let tls = &chain["transportSocket"]["typedConfig"]["commonTlsContext"];
            if tls.is_object() {
                assert_eq!(tls["tlsParams"]["tlsMinimumProtocolVersion"], "TLSv1_3");
                assert!(tls["tlsCertificateSdsSecretConfigs"].is_array(), "the rest is there");
            }
        }
    }
    let manager =
        &find(&dump, "listeners", "0.0.0.0_9080").unwrap()["filterChains"][0]["filters"][0]["typedConfig"];
    assert_eq!(
        (&manager["xffNumTrustedHops"], &manager["commonHttpProtocolOptions"]["idleTimeout"]),
        (&json!(3), &json!("30s"))
    );
    let removal = said.iter().find(|text| text.contains("patch 6 ")).unwrap();
    assert!(removal.contains("REMOVE needs it"), "{removal}");
    assert_eq!(said.iter().filter(|text| text.contains(": changed ")).count(), 6, "{said:?}");
}

#[test]
fn listeners_and_clusters_come_and_go() {
    let patches = "- applyTo: LISTENER
  match: {context: SIDECAR_OUTBOUND, listener: {name: 0.0.0.0_9080}}
  patch: {operation: REMOVE}
- applyTo: LISTENER
  patch: {operation: ADD, value: {name: added, address: {socket_address: {address: 127.0.0.1, port_value: 7777}}, filter_chains: [{filters: [{name: envoy.filters.network.tcp_proxy, typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy, stat_prefix: x, cluster: added}}]}]}}
- applyTo: CLUSTER
  patch: {operation: ADD, value: {name: added, connect_timeout: 1s, type: STRICT_DNS, load_assignment: {cluster_name: added, endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: localhost, port_value: 80}}}}]}]}}}
- applyTo: CLUSTER
  match: {cluster: {service: reviews.shop.svc.cluster.local, portNumber: 9080}}
  patch: {operation: REMOVE}
- applyTo: CLUSTER
  patch: {operation: ADD, value: {name: added, connect_timeout: 1s}}";
    let (dump, said) = patched(&sidecar(), patches);
    assert!(
        find(&dump, "listeners", "0.0.0.0_9080").is_none() && find(&dump, "listeners", "added").is_some()
    );
    assert!(find(&dump, "clusters", "added").is_some());
    let reviews = "outbound|9080||reviews.shop.svc.cluster.local";
    assert!(find(&dump, "clusters", reviews).is_none());
    let assignments = dump["endpoints"].as_array().unwrap();
    assert!(assignments.iter().all(|assignment| assignment["clusterName"] != reviews));
    assert!(said[4].contains("not applied: there is a cluster added already"), "{said:?}");
}

#[test]
fn clusters_are_merged_into_by_service_port_and_subset() {
    let patches = "- applyTo: CLUSTER
  match: {context: SIDECAR_INBOUND, cluster: {service: web.shop.svc.cluster.local}}
  patch: {operation: MERGE, value: {connect_timeout: 3s}}
- applyTo: CLUSTER
  match: {context: SIDECAR_OUTBOUND, cluster: {subset: v2}}
  patch: {operation: MERGE, value: {transport_socket: {name: envoy.transport_sockets.tls, typed_config: {'@type': type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext, max_session_keys: 0}}, connect_timeout: 4s}}
- applyTo: CLUSTER
  match: {context: SIDECAR_OUTBOUND, cluster: {portNumber: 9080}}
  patch: {operation: MERGE_AND_REPLACE_LIST, value: {circuit_breakers: {thresholds: [{max_connections: 5}]}}}
- applyTo: CLUSTER
  match: {cluster: {name: PassthroughCluster}}
  patch: {operation: MERGE, value: {connect_timeout: 5s}}";
    let (dump, said) = patched(&sidecar(), patches);
    assert_eq!(find(&dump, "clusters", "inbound|8080||").unwrap()["connectTimeout"], "3s");
    let v2 = find(&dump, "clusters", "outbound|9080|v2|reviews.shop.svc.cluster.local").unwrap();
    let socket = &v2["transportSocketMatches"][0]["transportSocket"]["typedConfig"];
    assert_eq!((&socket["maxSessionKeys"], &v2["connectTimeout"]), (&json!(0), &json!("4s")), "{v2}");
    assert!(socket["sni"].is_string() && v2["transportSocket"].is_null());
    let thresholds = json!([{"maxConnections": 5}]);
    assert_eq!(v2["circuitBreakers"]["thresholds"], thresholds);
    let plain = find(&dump, "clusters", "outbound|80||web.shop.svc.cluster.local").unwrap();
    assert_ne!(plain["circuitBreakers"]["thresholds"], thresholds);
    assert_eq!(find(&dump, "clusters", "PassthroughCluster").unwrap()["connectTimeout"], "5s");
    assert!(said.iter().all(|text| text.contains(": changed ")), "{said:?}");
}

#[test]
fn routes_are_patched_level_by_level() {
    let patches = "- applyTo: ROUTE_CONFIGURATION
  match: {context: SIDECAR_OUTBOUND, routeConfiguration: {name: '9080'}}
  patch: {operation: MERGE, value: {response_headers_to_add: [{header: {key: x-patched, value: all}}]}}
- applyTo: VIRTUAL_HOST
  match: {context: SIDECAR_OUTBOUND, routeConfiguration: {portNumber: 9080, vhost: {domainName: reviews}}}
  patch: {operation: MERGE, value: {include_attempt_count_in_response: true}}
- applyTo: HTTP_ROUTE
  match: {context: SIDECAR_OUTBOUND, routeConfiguration: {vhost: {name: 'reviews.shop.svc.cluster.local:9080', route: {action: ROUTE}}}}
  patch: {operation: MERGE, value: {route: {timeout: 7s}}}
- applyTo: HTTP_ROUTE
  match: {context: SIDECAR_OUTBOUND, routeConfiguration: {vhost: {name: 'reviews.shop.svc.cluster.local:9080'}}}
  patch: {operation: INSERT_FIRST, value: {name: first, match: {path: /first}, direct_response: {status: 418}}}
- applyTo: VIRTUAL_HOST
  match: {context: SIDECAR_OUTBOUND, routeConfiguration: {name: '9080'}}
  patch: {operation: ADD, value: {name: added, domains: [added.com], routes: [{match: {prefix: /}, redirect: {https_redirect: true}}]}}
- applyTo: VIRTUAL_HOST
  match: {context: SIDECAR_OUTBOUND, routeConfiguration: {name: '9080'}}
  patch: {operation: ADD, value: {name: again, domains: [ADDED.com], routes: []}}
- applyTo: HTTP_ROUTE
  match: {context: SIDECAR_INBOUND, routeConfiguration: {vhost: {name: 'inbound|http|80'}}}
  patch: {operation: MERGE, value: {route: {timeout: 8s}}}
- applyTo: HTTP_ROUTE
  match: {context: SIDECAR_OUTBOUND, routeConfiguration: {name: '9080'}}
  patch: {operation: MERGE, value: {route: {idle_timeout: 9s}}}";
    let (dump, said) = patched(&sidecar(), patches);
    let routes = find(&dump, "routes", "9080").unwrap();
    assert_eq!(routes["responseHeadersToAdd"][0]["header"]["key"], "x-patched");
    let hosts = routes["virtualHosts"].as_array().unwrap();
    let host = |name: &str| hosts.iter().find(|host| host["name"] == name);
    let reviews = host("reviews.shop.svc.cluster.local:9080").unwrap();
    assert_eq!(reviews["includeAttemptCountInResponse"], true);
    assert_eq!(
        (&reviews["routes"][0]["name"], &reviews["routes"][1]["route"]["timeout"]),
        (&json!("first"), &json!("7s"))
    );
    assert!(host("added").is_some() && host("again").is_none());
    assert!(
        said.iter().any(|text| text.contains("patch 5 ") && text.contains("two have the domain ADDED.com")),
        "{said:?}"
    );
    let inbound = find(&dump, "listeners", "virtualInbound").unwrap().to_string();
    assert!(inbound.contains(r#""timeout":"8s""#), "the routes of inbound listeners are part of them");
    // Of the routes that a patch means, only those change that stay what Envoy takes.
    assert_eq!(reviews["routes"][1]["route"]["idleTimeout"], "9s");
    let old = &host("productpage.shop.svc.cluster.local:9080").unwrap()["routes"][0];
    assert!(old["redirect"].is_object() && old["route"].is_null(), "{old}");
    let mixed: Vec<&String> = said.iter().filter(|text| text.contains("patch 7 ")).collect();
    assert!(mixed.len() == 2 && mixed.iter().any(|text| text.contains("cluster_specifier")), "{mixed:?}");

    // One route configuration serves all ports in loopback isolation; virtual hosts have the port.
    let (dump, _) = patched(
        &loopback(),
        "- applyTo: VIRTUAL_HOST
  match: {context: SIDECAR_OUTBOUND, routeConfiguration: {portNumber: 9080}}
  patch: {operation: MERGE, value: {include_attempt_count_in_response: true}}",
    );
    for host in find(&dump, "routes", "http_proxy").unwrap()["virtualHosts"].as_array().unwrap() {
        let of_port = host["name"].as_str().unwrap().ends_with(":9080");
        assert_eq!(host["includeAttemptCountInResponse"] == true, of_port, "{}", host["name"]);
    }
}

#[test]
fn gateways_routes_are_found_by_the_ports_and_names_of_servers() {
    let merge = |matched: &str| {
        format!(
            "- applyTo: ROUTE_CONFIGURATION
  match: {{context: GATEWAY, routeConfiguration: {{{matched}}}}}
  patch: {{operation: MERGE, value: {{max_direct_response_body_size_bytes: 99}}}}"
        )
    };
    for (matched, hits) in [
        ("portNumber: 80", vec!["http.80"]),
        ("portNumber: 443, portName: https, gateway: shop/edge", vec!["https.443.https.edge.shop"]),
        ("gateway: shop/other", vec![]),
        ("portName: https", vec!["https.443.https.edge.shop"]),
    ] {
        let (dump, said) = patched(&gateway(), &merge(matched));
        let changed = dump["routes"].as_array().unwrap().iter();
        let changed = changed.filter(|routes| routes["maxDirectResponseBodySizeBytes"] == 99);
        let changed: Vec<&str> = changed.map(|routes| routes["name"].as_str().unwrap()).collect();
        assert_eq!(changed, hits, "{matched}: {said:?}");
    }
}

#[test]
fn what_is_wrong_is_said_and_nothing_breaks() {
    let without = configured(&sidecar(), &[]).dump();
    for (patch, word) in [
        ("- {applyTo: CLUSTER, patch: {operation: MERGE, value: {connect_timeout: soon}}}", "patch.value: "),
        (
            "- {applyTo: CLUSTER, patch: {operation: MERGE, value: {connect_timeout: -1s}}}",
            "connect_timeout: -1s has to be greater than 0s",
        ),
        (
            "- {applyTo: CLUSTER, match: {cluster: {portNumber: 9080}}, patch: {operation: MERGE, value: {ring_hash_lb_config: {minimum_ring_size: 99999999}}}}",
            "has to be at most 8388608",
        ),
        (
            "- {applyTo: CLUSTER, match: {cluster: {portNumber: 9080}}, patch: {operation: MERGE, value: {type: ORIGINAL_DST}}}",
            "needs CLUSTER_PROVIDED",
        ),
        (
            "- {applyTo: HTTP_FILTER, patch: {operation: INSERT_FIRST, value: {name: x, typed_config: {'@type': type.googleapis.com/no.such.Type}}}}",
            "no.such.Type",
        ),
        (
            "- {applyTo: HTTP_FILTER, patch: {operation: INSERT_FIRST, value: {typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.http.cors.v3.Cors}}}}",
            "name: needs at least 1 characters",
        ),
        (
            "- {applyTo: HTTP_FILTER, match: {listener: {filterChain: {filter: {name: envoy.filters.network.http_connection_manager, subFilter: {name: envoy.filters.http.router}}}}}, patch: {operation: MERGE, value: {typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.http.cors.v3.Cors}}}}",
            "use REPLACE",
        ),
        ("- {applyTo: BOOTSTRAP, patch: {operation: ADD, value: {}}}", "use MERGE"),
        ("- {applyTo: ROUTE_CONFIGURATION, patch: {operation: REMOVE}}", "use MERGE"),
        ("- {applyTo: CLUSTER, patch: {operation: REPLACE, value: {name: x}}}", "use REMOVE and ADD"),
        ("- {applyTo: LISTENER, patch: {operation: ADD, value: {name: x}}}", "address: is required"),
        (
            "- {applyTo: FILTER_CHAIN, match: {context: SIDECAR_OUTBOUND, listener: {name: virtualOutbound}}, patch: {operation: REMOVE}}",
            "filter_chains: there has to be one",
        ),
        (
            "- {applyTo: CLUSTER, match: {context: WAYPOINT, waypoint: {}}, patch: {operation: MERGE, value: {}}}",
            "no waypoints",
        ),
    ] {
        let (dump, said) = patched(&sidecar(), patch);
        assert!(
            said.iter().any(|text| text.contains("not applied: ") && text.contains(word)),
            "{patch}: {said:?}"
        );
        for kind in ["listeners", "routes", "endpoints"] {
            assert!(dump[kind] == without[kind], "{patch} changed {kind}");
        }
    }
    let (dump, said) = patched(
        &sidecar(),
        "- {applyTo: CLUSTER, match: {cluster: {name: PassthroughCluster}}, patch: {operation: MERGE, value: {connect_timeout: 9s, no_such_field: 1}}}",
    );
    assert_eq!(find(&dump, "clusters", "PassthroughCluster").unwrap()["connectTimeout"], "9s");
    assert!(
        said[0].contains("warning: patch.value: left out what is unknown")
            && said[0].contains("no_such_field"),
        "{said:?}"
    );
}

#[test]
fn a_patch_that_matches_nothing_says_why() {
    for (patch, word) in [
        (
            "- {applyTo: CLUSTER, match: {cluster: {name: 'outbound|9080|v9|reviews.shop.svc.cluster.local'}}, patch: {operation: MERGE, value: {connect_timeout: 1s}}}",
            "matched nothing: no cluster has name outbound|9080|v9|reviews.shop.svc.cluster.local; that host has outbound|9080|v2|reviews.shop.svc.cluster.local, outbound|9080||reviews.shop.svc.cluster.local",
        ),
        (
            "- {applyTo: CLUSTER, match: {context: GATEWAY}, patch: {operation: MERGE, value: {connect_timeout: 1s}}}",
            "its context is GATEWAY, the proxy is a sidecar",
        ),
        (
            "- {applyTo: LISTENER, match: {context: SIDECAR_OUTBOUND, listener: {name: nope}}, patch: {operation: MERGE, value: {per_connection_buffer_limit_bytes: 1}}}",
            "no listener is named nope; there are 0.0.0.0_80, 0.0.0.0_9080, virtualOutbound",
        ),
        (
            "- {applyTo: LISTENER, match: {context: SIDECAR_OUTBOUND, listener: {portNumber: 7}}, patch: {operation: REMOVE}}",
            "no listener has the port 7",
        ),
        (
            "- {applyTo: FILTER_CHAIN, match: {listener: {filterChain: {sni: nope}}}, patch: {operation: REMOVE}}",
            "no filter chain meets match.listener",
        ),
        (
            "- {applyTo: NETWORK_FILTER, match: {listener: {filterChain: {filter: {name: nope}}}}, patch: {operation: REMOVE}}",
            "no network filter is named nope; there are envoy.filters.network.http_connection_manager",
        ),
        (
            "- {applyTo: HTTP_FILTER, match: {listener: {filterChain: {filter: {name: envoy.filters.network.http_connection_manager, subFilter: {name: nope}}}}}, patch: {operation: REMOVE}}",
            "no HTTP filter is named nope; there are ",
        ),
        (
            "- {applyTo: VIRTUAL_HOST, match: {routeConfiguration: {name: nope}}, patch: {operation: REMOVE}}",
            "no route configuration meets match.routeConfiguration; there are 80, 9080",
        ),
        (
            "- {applyTo: VIRTUAL_HOST, match: {routeConfiguration: {vhost: {name: nope}}}, patch: {operation: REMOVE}}",
            "no virtual host meets",
        ),
        (
            "- {applyTo: HTTP_ROUTE, match: {routeConfiguration: {vhost: {route: {name: nope}}}}, patch: {operation: REMOVE}}",
            "no route meets",
        ),
    ] {
        let said = said(&made(&sidecar(), &[filter(patch)]));
        assert!(said.len() == 1 && said[0].contains(word), "{patch}: {said:?}");
    }
}

#[test]
fn patches_are_in_the_order_of_priority_namespace_and_age() {
    let set = |name: &str, priority: i32, timeout: &str, namespace: &str| {
        let spec = format!("priority: {priority}\nconfigPatches:
- {{applyTo: CLUSTER, match: {{cluster: {{name: PassthroughCluster}}}}, patch: {{operation: MERGE, value: {{connect_timeout: {timeout}}}}}}}");
        named(namespace, name, &spec)
    };
    let last = |filters: &[String]| {
        let configured = configured(&sidecar(), filters);
        find(&configured.dump(), "clusters", "PassthroughCluster").unwrap()["connectTimeout"].clone()
    };
    let (root, own) = ("istio-system", "shop");
    assert_eq!(
        last(&[set("a", 0, "1s", own), set("b", 0, "2s", root)]),
        "1s",
        "the root namespace comes first"
    );
    assert_eq!(last(&[set("a", -1, "1s", own), set("b", 0, "2s", root)]), "2s", "priority counts more");
    assert_eq!(last(&[set("a", 0, "1s", own), set("b", 0, "2s", own)]), "2s", "then the name");
    let old =
        set("b", 0, "1s", own).replace("{name: b,", "{creationTimestamp: '2020-01-01T00:00:00Z', name: b,");
    let new =
        set("a", 0, "2s", own).replace("{name: a,", "{creationTimestamp: '2021-01-01T00:00:00Z', name: a,");
    assert_eq!(last(&[old, new]), "2s", "the younger is the last");
    assert_eq!(last(&[set("a", 0, "1s", "default")]), "10s", "another namespace's are not for it");
}

#[test]
fn versions_metadata_and_targets_choose_proxies() {
    let patch = |proxy: &str| {
        format!(
            "- {{applyTo: CLUSTER, match: {{proxy: {{{proxy}}}, cluster: {{name: PassthroughCluster}}}}, patch: {{operation: MERGE, value: {{connect_timeout: 1s}}}}}}"
        )
    };
    for (proxy, hits) in [
        ("proxyVersion: '^1\\.26.*'", true),
        ("proxyVersion: '^1\\.2\\..*'", false),
        ("metadata: {STAGE: test}", true),
        ("metadata: {STAGE: live}", false),
    ] {
        let (_, said) = patched(&sidecar(), &patch(proxy));
        assert_eq!(said.len(), usize::from(hits), "{proxy}: {said:?}");
    }
    let merge = "configPatches:\n- {applyTo: CLUSTER, match: {cluster: {name: BlackHoleCluster}}, patch: {operation: MERGE, value: {connect_timeout: 1s}}}";
    let targeted = named(
        "istio-system",
        "ef",
        &format!("targetRefs: [{{group: gateway.networking.k8s.io, kind: Gateway, name: edge}}]\n{merge}"),
    );
    assert!(said(&configured(&gateway(), std::slice::from_ref(&targeted))).is_empty());
    let mut of_gateway = gateway();
    of_gateway["labels"]["gateway.networking.k8s.io/gateway-name"] = json!("edge");
    assert_eq!(said(&configured(&of_gateway, &[targeted])).len(), 1);
}

#[test]
fn configurations_of_extensions_are_served_by_name() {
    let patches = "- {applyTo: EXTENSION_CONFIG, patch: {operation: ADD, value: {name: ext, typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.http.cors.v3.Cors}}}}";
    let configured = configured(&gateway(), &[filter(patches)]);
    let names: Vec<&str> = configured.resources.extensions.iter().map(|made| &*made.name).collect();
    assert_eq!(names, ["ext"]);
    assert!(said(&configured)[0].ends_with("(EXTENSION_CONFIG ADD): changed ext"));
}

#[test]
fn the_samples_of_rate_limiting_apply() {
    let Some(folder) = testkit::corpora::folder("samples") else { return };
    let read = |file: &str| std::fs::read_to_string(folder.join(file)).unwrap();
    let edge = configured(&gateway(), &[read("bookinfo/policy/productpage_envoy_ratelimit.yaml")]);
    assert_eq!(said(&edge).len(), 3);
    assert!(said(&edge).iter().all(|text| text.contains(": changed ")), "{:?}", said(&edge));
    let local = read("ratelimit/local-rate-limit-service.yaml")
        .replace("app: productpage", "app: web")
        .replace("inbound|http|8000", "inbound|http|80");
    let beside = configured(&sidecar(), &[local]);
    assert!(said(&beside).iter().all(|text| text.contains(": changed ")), "{:?}", said(&beside));
}
