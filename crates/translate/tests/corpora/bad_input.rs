//! Input that contradicts itself or is too much: an answer, never a stall, and stock Envoy takes what is made.

use lateen_api::{Document, Severity, parse_yaml, validate};
use serde_json::{Value, json};
use testkit::envoy::Envoy;

use crate::world::{Configured, snapshot};

const SERVICES: &str = "
apiVersion: v1
kind: Service
metadata: {name: a, namespace: shop}
spec: {clusterIP: 10.2.0.1, selector: {app: a}, ports: [{name: http, port: 80, targetPort: 8080}]}
---
apiVersion: v1
kind: Service
metadata: {name: edge, namespace: shop}
spec: {clusterIP: 10.2.0.2, selector: {istio: gw}, ports: [{name: http, port: 80, targetPort: 8080}]}
---
apiVersion: v1
kind: Pod
metadata: {name: gw, namespace: shop, labels: {istio: gw}}
status: {podIP: 10.1.0.8}
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: edge, namespace: shop}
spec: {selector: {istio: gw}, servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: ['*']}]}
";

fn sidecar() -> Value {
    json!({"type": "sidecar", "id": "web.shop", "ipAddresses": ["10.1.0.9"], "configNamespace": "shop"})
}

fn gateway() -> Value {
    json!({"type": "router", "id": "gw.shop", "ipAddresses": ["10.1.0.8"], "configNamespace": "shop", "labels": {"istio": "gw"}})
}

fn dump(proxy: &Value, objects: &str) -> Value {
    let configured = Configured::of(&snapshot(&format!("{SERVICES}---\n{objects}"), None), proxy);
    let dump = configured.dump();
    if let Some(envoy) = Envoy::find()
        && let Err(error) = envoy.validate(&dump)
    {
        panic!("{error}\n{objects}");
    }
    dump
}

fn object(kind: &str, spec: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: {kind}\nmetadata: {{name: x, namespace: shop}}\nspec: {spec}\n"
    )
}

/// What validation says of an object: errors, and warnings.
fn judged(text: &str) -> (Vec<String>, Vec<String>) {
    match parse_yaml("x", text).remove(0) {
        Ok(Document::Istio(object)) => {
            let problems = validate(&object);
            let of = |severity| {
                let mine = problems.iter().filter(|problem| problem.severity == severity);
                mine.map(|problem| problem.message.clone()).collect()
            };
            (of(Severity::Error), of(Severity::Warning))
        }
        Ok(_) => (vec![], vec![]),
        Err(error) => (error.errors.iter().map(ToString::to_string).collect(), vec![]),
    }
}

#[test]
fn of_two_subsets_of_one_name_the_first_counts() {
    let rule = object("DestinationRule", "{host: a, subsets: [
      {name: v1, labels: {version: v1}, trafficPolicy: {loadBalancer: {simple: RANDOM}}}, {name: v1, labels: {version: v2}}]}");
    assert!(judged(&rule).1[0].contains("duplicate subset"));
    let dump = dump(&sidecar(), &rule);
    let clusters = dump["clusters"].as_array().unwrap().iter();
    let mut named = clusters.filter(|cluster| cluster["name"] == "outbound|80|v1|a.shop.svc.cluster.local");
    assert_eq!(named.next().unwrap()["lbPolicy"], "RANDOM");
    assert!(named.next().is_none(), "one name, one cluster");
}

#[test]
fn weights_are_shares_of_their_sum() {
    let routes = |first: i64, second: i64| {
        object("VirtualService", &format!("{{hosts: [a], http: [{{route: [
          {{destination: {{host: a}}, weight: {first}}}, {{destination: {{host: a, subset: v2}}, weight: {second}}}]}}]}}"))
    };
    let dump = dump(&sidecar(), &routes(30, 30));
    let found = dump["routes"].to_string();
    assert!(found.contains(r#""weight":30"#), "{found}");
    for (first, second) in [(0, 0), (-1, 2)] {
        let (errors, _) = judged(&routes(first, second));
        assert!(!errors.is_empty(), "{first} and {second}");
    }
}

#[test]
fn an_unknown_subset_leads_to_a_cluster_that_is_not_there() {
    let rule =
        object("VirtualService", "{hosts: [a], http: [{route: [{destination: {host: a, subset: nope}}]}]}");
    let dump = dump(&sidecar(), &rule);
    let routes = dump["routes"].to_string();
    assert!(
        routes.contains("outbound|80|nope|a.shop.svc.cluster.local")
            && routes.contains(r#""validateClusters":false"#)
    );
}

#[test]
fn expressions_that_are_wrong_or_too_big_are_refused() {
    for wrong in ["(", "a{0,5000}{0,5000}{0,5000}", "(?<=a)b", "[z-a]"] {
        for object in [
            object(
                "VirtualService",
                &format!(
                    "{{hosts: [a], http: [{{match: [{{uri: {{regex: {wrong:?}}}}}], route: [{{destination: {{host: a}}}}]}}]}}"
                ),
            ),
            object(
                "VirtualService",
                &format!(
                    "{{hosts: [a], http: [{{rewrite: {{uriRegexRewrite: {{match: {wrong:?}, rewrite: x}}}}, route: [{{destination: {{host: a}}}}]}}]}}"
                ),
            ),
        ] {
            let (errors, _) = judged(&object);
            assert!(errors.iter().any(|error| error.contains("regular expression")), "{wrong}: {errors:?}");
        }
    }
}

#[test]
fn sizes_of_rings_and_tables_have_bounds() {
    for hash in [
        "ringHash: {minimumRingSize: 8388609}",
        "minimumRingSize: 99999999999",
        "maglev: {tableSize: 5000013}",
        "maglev: {tableSize: 10}",
    ] {
        let rule = object(
            "DestinationRule",
            &format!(
                "{{host: a, trafficPolicy: {{loadBalancer: {{consistentHash: {{useSourceIp: true, {hash}}}}}}}}}"
            ),
        );
        assert!(!judged(&rule).0.is_empty(), "{hash}");
    }
    let most = object(
        "DestinationRule",
        "{host: a, trafficPolicy: {loadBalancer: {consistentHash: {useSourceIp: true, ringHash: {minimumRingSize: 8388608}}}}}",
    );
    assert!(judged(&most).0.is_empty());
    dump(&sidecar(), &most);
}

#[test]
fn a_route_that_leads_a_gateway_to_itself_is_made_as_it_is_written() {
    let rule = object(
        "VirtualService",
        "{hosts: ['*'], gateways: [edge], http: [{route: [{destination: {host: edge}}]}]}",
    );
    let dump = dump(&gateway(), &rule);
    let routes = dump["routes"].to_string();
    assert!(routes.contains("outbound|80||edge.shop.svc.cluster.local"), "{routes}");
}

#[test]
fn ten_thousand_routes_are_ten_thousand_routes() {
    let route =
        |at: usize| format!("{{match: [{{uri: {{exact: /{at}}}}}], route: [{{destination: {{host: a}}}}]}}");
    let routes: Vec<String> = (0..10_000).map(route).collect();
    let rule = object("VirtualService", &format!("{{hosts: [a], http: [{}]}}", routes.join(", ")));
    let edge = rule.replace("hosts: [a]", "hosts: ['*'], gateways: [edge]");
    for (proxy, rule, name) in [(sidecar(), rule, "80"), (gateway(), edge, "http.8080")] {
        let dump = Configured::of(&snapshot(&format!("{SERVICES}---\n{rule}"), None), &proxy).dump();
        let found = dump["routes"].as_array().unwrap().iter().find(|routes| routes["name"] == name).unwrap();
        let hosts = found["virtualHosts"].as_array().unwrap().iter();
        let most = hosts.map(|host| host["routes"].as_array().map_or(0, Vec::len)).max();
        assert_eq!(most, Some(10_000), "{name}");
    }
}
