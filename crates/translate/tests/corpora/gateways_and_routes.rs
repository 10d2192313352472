//! Virtual hosts, listener names and TLS contexts of `xds_routes` and `simulation/sidecar_routes.json`.

use std::collections::{BTreeMap, BTreeSet};

use lateen_proto::envoy::config::route::v3::virtual_host::TlsRequirementType;
use lateen_proto::envoy::config::route::v3::{
    Route, RouteConfiguration, route, route_action::ClusterSpecifier,
};
use serde_json::{Value, json};

use crate::world::{Configured, cases, snapshot};

fn short(name: &str) -> String {
    name.replace(".svc.cluster.local", "").to_ascii_lowercase()
}

fn clusters(route: &Route) -> Vec<String> {
    let Some(route::Action::Route(action)) = &route.action else { return Vec::new() };
    match &action.cluster_specifier {
        Some(ClusterSpecifier::Cluster(name)) => vec![name.clone()],
        Some(ClusterSpecifier::WeightedClusters(all)) => {
            all.clusters.iter().map(|cluster| cluster.name.clone()).collect()
        }
        _ => Vec::new(),
    }
}

fn table(configured: &Configured, name: &Value) -> Option<RouteConfiguration> {
    let all = Configured::messages::<RouteConfiguration>(&configured.resources.routes);
    all.into_iter().find(|table| table.name == name.as_str().unwrap())
}

#[test]
fn sidecar_routes_lead_where_the_corpus_says() {
    let Some(folder) = testkit::corpora::folder("simulation") else { return };
    let mut checked = 0;
    for case in cases(&folder.join("sidecar_routes.json")) {
        // The same worlds as HTTPRoutes come with the Gateway API.
        if case["variant"] != "virtualservice" {
            continue;
        }
        let id = &case["id"];
        let text = std::fs::read_to_string(folder.join(case["world"].as_str().unwrap())).unwrap();
        let configured = Configured::of(&snapshot(&text, None), &case["proxy"]);
        let table = table(&configured, &case["routeName"]);
        assert_eq!(table.is_none(), case["expectRouteMissing"] == true, "{id}");
        let hosts = table.map(|table| table.virtual_hosts).unwrap_or_default();
        for (domain, expected) in case["expectVirtualHosts"].as_object().unwrap() {
            let host = hosts.iter().find(|host| host.domains.contains(domain));
            let got = host.map(|host| host.routes.iter().flat_map(clusters).collect::<Vec<_>>());
            assert_eq!(json!(got), *expected, "{id}: {domain}");
        }
        checked += 1;
    }
    eprintln!("sidecar_routes: {checked} cases");
}

#[test]
fn virtual_hosts_listeners_and_tls_are_the_corpus_s() {
    let Some(folder) = testkit::corpora::folder("xds_routes") else { return };
    let mut checked = 0;
    for case in cases(&folder.join("cases.json")) {
        let id = case["id"].as_str().unwrap().to_owned();
        let text = std::fs::read_to_string(folder.join(case["world"].as_str().unwrap())).unwrap();
        let configured = Configured::of(&snapshot(&text, case.get("meshConfig")), &case["proxy"]);
        if case.get("expectVirtualHosts").is_some() {
            virtual_hosts(&id, &case, &configured);
        } else if let Some(expected) = case.get("expectListeners") {
            let got: BTreeSet<&str> =
                configured.resources.listeners.iter().map(|listener| listener.name.as_ref()).collect();
            let expected: BTreeSet<&str> =
                expected.as_array().unwrap().iter().filter_map(Value::as_str).collect();
            assert_eq!(got, expected, "{id}");
        } else if let Some(expected) = case.get("expectDownstreamTlsContext") {
            let dump = configured.dump();
            let mut got =
                dump.pointer("/listeners/0/filterChains/0/transportSocket/typedConfig").unwrap().clone();
            got.as_object_mut().unwrap().remove("@type");
            if got.get("requireClientCertificate").is_none() {
                got["requireClientCertificate"] = json!(false);
            }
            assert_eq!(got, *expected, "{id}");
        } else {
            continue;
        }
        checked += 1;
    }
    eprintln!("xds_routes: {checked} cases of routes, listeners and TLS");
}

fn virtual_hosts(id: &str, case: &Value, configured: &Configured) {
    let table = table(configured, &case["routeName"]).unwrap_or_else(|| panic!("{id}: no such table"));
    let domains = |all: &[String]| all.iter().map(|domain| short(domain)).collect::<BTreeSet<_>>();
    let got: BTreeMap<_, _> =
        table.virtual_hosts.iter().map(|host| (short(&host.name), domains(&host.domains))).collect();
    let words = |value: &Value| -> Vec<String> {
        value.as_array().unwrap().iter().filter_map(Value::as_str).map(str::to_owned).collect()
    };
    let expected: BTreeMap<_, _> = case["expectVirtualHosts"]
        .as_object()
        .unwrap()
        .iter()
        .map(|(name, list)| (short(name), domains(&words(list))))
        .collect();
    assert_eq!(got, expected, "{id}");
    for host in &table.virtual_hosts {
        if let Some(count) = case.pointer("/expectRouteCounts").and_then(|counts| counts.get(&host.name)) {
            assert_eq!(json!(host.routes.len()), *count, "{id}: {}", host.name);
        }
        if let Some(first) = case.pointer("/expectFirstRouteCluster").and_then(|all| all.get(&host.name)) {
            assert_eq!(json!(clusters(&host.routes[0])), json!([first]), "{id}: {}", host.name);
        }
    }
    if let Some(redirect) = case.get("expectTlsRedirect").and_then(Value::as_bool) {
        let all = i32::from(TlsRequirementType::All);
        assert_eq!(table.virtual_hosts.iter().any(|host| host.require_tls == all), redirect, "{id}");
    }
}
