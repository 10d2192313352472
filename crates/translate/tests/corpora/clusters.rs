//! Which services a proxy sees, and what their clusters say.

use std::collections::{BTreeMap, BTreeSet};

use lateen_translate::{generate, names};
use serde_json::{Value, json};

use super::mesh::{World, corpora, named, proxy, rows, sidecar};

/// Rows whose worlds do not hold what their expectation is about: a Kubernetes service written as an entry.
const UNTOLD: &[&str] = &["scope-47-k8s-service-take-precedence-over-external-service"];

#[test]
fn a_sidecar_sees_what_its_scope_imports() {
    let Some(folder) = corpora().map(|folder| folder.join("xds_routes")) else { return };
    let mut failures = Vec::new();
    for row in rows(&folder.join("sidecar_scope.json")) {
        let id = row["id"].as_str().unwrap();
        if UNTOLD.contains(&id) {
            continue;
        }
        let world = World::new(&Value::Null, None);
        let world = world.file("Kubernetes", &folder.join(row["world"].as_str().unwrap()));
        let resources = generate(&world.snapshot(), &proxy(&row["proxy"]));
        let mut got: BTreeMap<String, BTreeSet<u64>> = BTreeMap::new();
        for cluster in &resources.clusters {
            if let Some((names::Direction::Outbound, port, "", host)) = names::parse_cluster(&cluster.name) {
                got.entry(host.to_string()).or_default().insert(port.into());
            }
        }
        let want: BTreeMap<String, BTreeSet<u64>> = row["expectServices"]
            .as_array()
            .unwrap()
            .iter()
            .map(|service| {
                let ports = service["ports"].as_array().unwrap().iter().filter_map(Value::as_u64).collect();
                (service["host"].as_str().unwrap().to_owned(), ports)
            })
            .collect();
        if got != want {
            failures.push(format!("{id}: want {want:?}, got {got:?}"));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn subsets_have_clusters_of_their_own() {
    let Some(folder) = corpora().map(|folder| folder.join("xds_routes")) else { return };
    let mut failures = Vec::new();
    let of_services =
        |row: &&Value| row["clusterMode"] == "outbound" && row["id"] != "dr-00-nil-destination-rule";
    for row in rows(&folder.join("destination_rules.json")).iter().filter(of_services) {
        let world = World::new(&row["meshConfig"], None);
        let world = world.file("Kubernetes", &folder.join(row["world"].as_str().unwrap()));
        let resources = generate(&world.snapshot(), &sidecar());
        let port = row["servicePort"]["port"].to_string();
        let subset = |name: &str| {
            let parts: Vec<&str> = name.split('|').collect();
            parts.len() == 4 && parts[1] == port && !parts[2].is_empty()
        };
        let got: BTreeSet<&str> =
            resources.clusters.iter().map(|c| c.name.as_ref()).filter(|name| subset(name)).collect();
        let expected = row["expectSubsetClusters"].as_array().unwrap();
        let want: BTreeSet<&str> = expected.iter().filter_map(|cluster| cluster["name"].as_str()).collect();
        if got != want {
            failures.push(format!("{}: want {want:?}, got {got:?}", row["id"]));
        }
        for cluster in expected {
            let Some(got) = named(&resources.clusters, cluster["name"].as_str().unwrap()) else { continue };
            for key in ["type", "altStatName"] {
                if !cluster[key].is_null() && cluster[key] != got[key] {
                    failures.push(format!("{} {key}: want {}, got {}", row["id"], cluster[key], got[key]));
                }
            }
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn tls_is_what_the_rule_says() {
    let Some(folder) = corpora().map(|folder| folder.join("xds_routes")) else { return };
    let mut failures = Vec::new();
    for row in rows(&folder.join("upstream_tls.json")) {
        let upgrade = if row["h2"] == true { "UPGRADE" } else { "DEFAULT" };
        let mut rule = json!({
            "apiVersion": "networking.istio.io/v1", "kind": "DestinationRule",
            "metadata": {"name": "tls", "namespace": "default"},
            "spec": {"host": "foo.com", "trafficPolicy": {
                "tls": row["clientTls"], "connectionPool": {"http": {"h2UpgradePolicy": upgrade}},
            }},
        });
        if row["opts"]["isDrWithSelector"] == true {
            rule["spec"]["workloadSelector"] = json!({"matchLabels": {"app": "client"}});
        }
        let entry = json!({
            "apiVersion": "networking.istio.io/v1", "kind": "ServiceEntry",
            "metadata": {"name": "foo", "namespace": "default"},
            "spec": {"hosts": ["foo.com"], "resolution": "STATIC", "location": "MESH_EXTERNAL",
                "ports": [{"number": 80, "name": "http", "protocol": "HTTP"}], "endpoints": [{"address": "1.2.3.4"}]},
        });
        let world =
            World::new(&Value::Null, None).text("Kubernetes", "world", &format!("{rule}\n---\n{entry}"));
        let client = json!({
            "type": row["proxyType"], "ipAddresses": ["1.1.1.1"], "configNamespace": "default",
            "labels": {"app": "client"},
        });
        let resources = generate(&world.snapshot(), &proxy(&client));
        let cluster = named(&resources.clusters, "outbound|80||foo.com").unwrap();
        let mut got = without_nothing(&cluster["transportSocket"]["typedConfig"]);
        if let Some(object) = got.as_object_mut() {
            object.remove("@type");
        }
        let want = without_nothing(&row["expectUpstreamTlsContext"]);
        if got != want {
            failures.push(format!("{}:\n want {want}\n got  {got}", row["id"]));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// JSON without what says nothing, which rows write in several ways.
fn without_nothing(value: &Value) -> Value {
    match value {
        Value::Object(object) => {
            let kept = object.iter().map(|(key, value)| (key.clone(), without_nothing(value)));
            let kept: serde_json::Map<_, _> = kept.filter(|(_, value)| !value.is_null()).collect();
            if kept.is_empty() { Value::Null } else { kept.into() }
        }
        Value::Array(list) => list.iter().map(without_nothing).collect(),
        other => other.clone(),
    }
}

/// Services and endpoints of a row as manifests: entries, since their hosts and addresses are free.
fn inbound_world(row: &Value) -> String {
    let mut documents: Vec<String> =
        row["configs"].as_array().unwrap().iter().map(Value::to_string).collect();
    for service in row["services"].as_array().unwrap() {
        let host = service["hostname"].as_str().unwrap();
        let name = host.split('.').next().unwrap();
        let ports: Vec<Value> = service["ports"].as_array().unwrap().iter().map(|port| {
            json!({"name": format!("http-{}", port["name"].as_str().unwrap()), "port": port["port"]})
        }).collect();
        documents.push(
            json!({
                "apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": "default"},
                "spec": {"clusterIP": service["address"], "ports": ports},
            })
            .to_string(),
        );
        let own = row["instances"].as_array().unwrap().iter().filter(|instance| instance["hostname"] == host);
        for (at, instance) in own.enumerate() {
            let all = service["ports"].as_array().unwrap();
            let port = all.iter().find(|port| port["port"] == instance["servicePort"]).unwrap();
            documents.push(json!({
                "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
                "metadata": {"name": format!("{name}-{at}"), "namespace": "default",
                    "labels": {"kubernetes.io/service-name": name}},
                "endpoints": [{"addresses": instance["addresses"]}],
                "ports": [{"name": format!("http-{}", port["name"].as_str().unwrap()), "port": instance["targetPort"]}],
            }).to_string());
        }
    }
    documents.join("\n---\n")
}

#[test]
fn inbound_clusters_are_by_port_of_the_workload() {
    let Some(folder) = corpora().map(|folder| folder.join("simulation")) else { return };
    let mut failures = Vec::new();
    for row in rows(&folder.join("inbound_clusters.json")) {
        let mode = if row["disableInboundPassthrough"] == true { "LOCALHOST" } else { "PASSTHROUGH" };
        let mesh = json!({"inboundTrafficPolicy": {"mode": mode}});
        let world = World::new(&mesh, None).text("Kubernetes", "world", &inbound_world(&row));
        let client = json!({"type": "sidecar", "ipAddresses": ["1.2.3.4"], "configNamespace": "default"});
        let resources = generate(&world.snapshot(), &proxy(&client));
        let mut got = serde_json::Map::new();
        let mut telemetry = serde_json::Map::new();
        for cluster in resources.clusters.iter().filter(|cluster| cluster.name.starts_with("inbound|")) {
            let json = named(std::slice::from_ref(cluster), &cluster.name).unwrap();
            got.insert(cluster.name.to_string(), addresses(&json));
            let services = json.pointer("/metadata/filterMetadata/istio/services").and_then(Value::as_array);
            if let Some(services) = services {
                let hosts: BTreeSet<&str> = services.iter().filter_map(|s| s["host"].as_str()).collect();
                telemetry.insert(cluster.name.to_string(), json!(hosts));
            }
        }
        if Value::Object(got.clone()) != row["expectClusters"] {
            failures.push(format!("{}: want {}, got {got:?}", row["name"], row["expectClusters"]));
        }
        if Value::Object(telemetry.clone()) != row["expectTelemetryServices"] {
            failures
                .push(format!("{}: want {}, got {telemetry:?}", row["name"], row["expectTelemetryServices"]));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// The addresses that a cluster names itself, or null.
fn addresses(cluster: &Value) -> Value {
    let Some(list) = cluster.pointer("/loadAssignment/endpoints/0/lbEndpoints").and_then(Value::as_array)
    else {
        return Value::Null;
    };
    let text = |endpoint: &Value| {
        let address = &endpoint["endpoint"]["address"];
        match address["pipe"]["path"].as_str() {
            Some(path) => path.to_owned(),
            None => {
                let socket = &address["socketAddress"];
                format!("{}:{}", socket["address"].as_str().unwrap_or_default(), socket["portValue"])
            }
        }
    };
    list.iter().map(text).collect()
}
