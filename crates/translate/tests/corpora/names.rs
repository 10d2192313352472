//! The name table.

use lateen_base::{Host, Labels, Namespace};
use lateen_proto::json::{Names, to_value};
use lateen_registry::{ExportTo, Protocol};
use lateen_translate::generate;
use serde_json::{Value, json};

use super::mesh::{World, corpora, proxy, rows};

/// A row's services and endpoints as manifests; endpoints of clusters are manifests of those clusters.
fn world(row: &Value) -> World {
    let mut world = World::new(&Value::Null, None);
    let services = row["services"].as_array().unwrap();
    let endpoints = row["endpoints"].as_array().unwrap();
    for (age, service) in services.iter().enumerate() {
        let created = format!("2020-01-01T00:00:0{age}Z");
        if service["registry"] == "Kubernetes"
            && service["hostname"].as_str().unwrap().ends_with(".svc.cluster.local")
        {
            let headless = service["address"] == "0.0.0.0";
            let ports: Vec<Value> = service["ports"]
                .as_array()
                .unwrap()
                .iter()
                .map(|port| json!({"name": port["name"], "port": port["port"]}))
                .collect();
            let object = json!({
                "apiVersion": "v1", "kind": "Service",
                "metadata": {"name": service["name"], "namespace": service["namespace"], "creationTimestamp": created},
                "spec": {"clusterIP": if headless { json!("None") } else { service["address"].clone() }, "ports": ports,
                    "publishNotReadyAddresses": service["publishNotReadyAddresses"]},
            });
            world = world.text("Kubernetes", "services", &object.to_string());
            for (at, endpoint) in endpoints.iter().enumerate() {
                let (slice, pod) = slice_of(service, endpoint, at);
                world = world.text("Kubernetes", "endpoints", &format!("{slice}\n---\n{pod}"));
            }
        } else {
            world = world.text("Kubernetes", "entries", &entry_of(service, endpoints, &created));
        }
    }
    world
}

fn slice_of(service: &Value, endpoint: &Value, at: usize) -> (Value, Value) {
    let (ready, terminating) = match endpoint["health"].as_str() {
        Some("unhealthy") => (false, false),
        Some("terminating") => (false, true),
        _ => (true, false),
    };
    let mut labels = serde_json::Map::new();
    if let Some(network) = endpoint["network"].as_str() {
        labels.insert("topology.istio.io/network".into(), network.into());
    }
    let name = format!("pod-{at}");
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": service["namespace"], "labels": labels},
        "spec": {"hostname": endpoint["hostname"], "subdomain": endpoint["subdomain"]},
        "status": {"podIP": endpoint["addresses"][0]},
    });
    let slice = json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {"name": format!("slice-{at}"), "namespace": service["namespace"],
            "labels": {"kubernetes.io/service-name": service["name"]}},
        "endpoints": [{"addresses": endpoint["addresses"], "hostname": endpoint["hostname"],
            "conditions": {"ready": ready, "terminating": terminating},
            "targetRef": {"kind": "Pod", "name": name}}],
        "ports": [{"name": service["ports"][0]["name"], "port": endpoint["port"]}],
    });
    (slice, pod)
}

fn entry_of(service: &Value, endpoints: &[Value], created: &str) -> String {
    let ports: Vec<Value> = service["ports"]
        .as_array()
        .unwrap()
        .iter()
        .map(|port| json!({"name": port["name"], "number": port["port"], "protocol": port["protocol"]}))
        .collect();
    let unaddressed = service["address"] == "0.0.0.0";
    let addresses = match service["clusterVIPs"]["cl1"].as_array() {
        Some(own) => own.clone(),
        None if unaddressed => Vec::new(),
        None => vec![service["address"].clone()],
    };
    let mut spec = json!({
        "hosts": [service["hostname"]], "ports": ports, "resolution": service["resolution"], "addresses": addresses,
    });
    let mut documents = Vec::new();
    if let Some(labels) = service["labelSelectors"].as_object() {
        spec["workloadSelector"] = json!({"labels": labels});
        for (at, endpoint) in endpoints.iter().enumerate() {
            documents.push(json!({
                "apiVersion": "networking.istio.io/v1", "kind": "WorkloadEntry",
                "metadata": {"name": format!("we-{at}"), "namespace": service["namespace"], "labels": labels},
                "spec": {"address": endpoint["addresses"][0], "network": endpoint["network"].as_str().unwrap_or("")},
            }).to_string());
        }
    }
    documents.push(json!({
        "apiVersion": "networking.istio.io/v1", "kind": "ServiceEntry",
        "metadata": {"name": service["name"], "namespace": service["namespace"], "creationTimestamp": created},
        "spec": spec,
    }).to_string());
    documents.join("\n---\n")
}

#[test]
fn names_are_answered_by_service_and_pod() {
    let Some(folder) = corpora().map(|folder| folder.join("dns_nametable")) else { return };
    let mut failures = Vec::new();
    for row in rows(&folder.join("cases.json")) {
        // A Kubernetes service of a host that no Kubernetes service can have cannot be written as one.
        let free = |s: &Value| {
            s["registry"] == "Kubernetes" && !s["hostname"].as_str().unwrap().ends_with(".svc.cluster.local")
        };
        if row["services"].as_array().unwrap().iter().any(free) {
            continue;
        }
        let resources = generate(&world(&row).snapshot(), &proxy(&row["proxy"]));
        let got = to_value(resources.name_table.as_ref(), Names::Camel).unwrap();
        if got["table"] != row["expect"] {
            failures.push(format!("{}:\n want {}\n got  {}", row["id"], row["expect"], got["table"]));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// The rows of a table of `unit_tables/names.json`.
fn table(folder: &std::path::Path, name: &str) -> Vec<Value> {
    let tables = rows(&folder.join("names.json"));
    let table = tables.into_iter().find(|table| table["source"].as_str().unwrap().ends_with(name)).unwrap();
    table["rows"].as_array().unwrap().iter().map(|row| row["row"].clone()).collect()
}

#[test]
fn words_mean_what_the_tables_say() {
    let Some(folder) = corpora().map(|folder| folder.join("unit_tables")) else { return };
    let host = |value: &Value| Host::new(value.as_str().unwrap());
    for row in table(&folder, "#TestNameMatches") {
        assert_eq!(host(&row["a"]).matches(&host(&row["b"])), row["out"] == true, "{row}");
    }
    for row in table(&folder, "#TestNameSubsetOf") {
        assert_eq!(host(&row["b"]).contains(&host(&row["a"])), row["out"] == true, "{row}");
    }
    for row in table(&folder, "#TestConvertProtocol") {
        let port = row["port"].as_u64().unwrap_or_default() as u16;
        let got = Protocol::of_service_port(
            row["proto"].as_str().unwrap_or("TCP"),
            port,
            row["portName"].as_str().unwrap_or_default(),
            row["appProto"].as_str(),
        );
        assert_eq!(got.as_str(), row["expectedProto"], "{row}");
    }
    for row in table(&folder, "#TestServiceConversionWithExportToAnnotation") {
        let export = ExportTo::parse(row["Annotation"].as_str().unwrap().split(','));
        let owner = Namespace::new("owner");
        for namespace in row["Want"].as_object().unwrap().keys().filter(|name| name.starts_with("ns")) {
            assert!(export.shows(&owner, &namespace.as_str().into()), "{row}");
        }
        assert!(!export.shows(&owner, &"another".into()), "{row}");
    }
    let labels = |value: &Value| -> Labels { serde_json::from_value(value.clone()).unwrap() };
    for row in table(&folder, "#TestInstance") {
        let selects = labels(&row["left"]).selects(&labels(&row["right"]));
        assert_eq!(selects, row["expected"]["subsetOf"] == true, "{row}");
    }
}
