//! Endpoints over clusters and networks.

use std::collections::BTreeMap;
use std::path::Path;

use lateen_translate::generate;
use serde_json::{Value, json};

use super::mesh::{World, corpora, named, proxy, rows};

/// `ADDRESS:PORT` and weight of every endpoint of a load assignment.
fn members(assignment: &Value) -> Vec<(String, u64)> {
    let list = |value: &Value, key: &str| value[key].as_array().cloned().unwrap_or_default();
    let localities = list(assignment, "endpoints");
    let endpoints = localities.iter().flat_map(|locality| list(locality, "lbEndpoints"));
    endpoints
        .map(|endpoint| {
            let address = &endpoint["endpoint"]["address"]["socketAddress"];
            let text =
                format!("{}:{}", address["address"].as_str().unwrap_or_default(), address["portValue"]);
            (text, endpoint["loadBalancingWeight"].as_u64().unwrap_or_default())
        })
        .collect()
}

fn world(folder: &Path, row: &Value) -> World {
    let networks = row["meshNetworks"].as_str().map(|file| folder.join(file));
    let mut world = World::new(&Value::Null, networks.as_deref());
    for (cluster, file) in row["clusters"].as_object().unwrap() {
        world = world.file(cluster, &folder.join(file.as_str().unwrap()));
    }
    world.file("Kubernetes", &folder.join(row["config"].as_str().unwrap()))
}

#[test]
fn endpoints_of_other_networks_are_their_gateways() {
    let Some(folder) = corpora().map(|folder| folder.join("mesh_network")) else { return };
    let mut failures = Vec::new();
    let mut checked = 0;
    for row in rows(&folder.join("cases.json")) {
        let snapshot = world(&folder, &row).snapshot();
        for client in row["proxies"].as_array().unwrap() {
            let described = json!({
                "type": "sidecar", "id": client["id"], "ipAddresses": [client["ip"]],
                "configNamespace": client["configNamespace"], "labels": client["labels"], "metadata": client["metadata"],
            });
            let resources = generate(&snapshot, &proxy(&described));
            let expected: BTreeMap<String, Vec<String>> =
                serde_json::from_value(client["expectEndpoints"].clone()).ok().unwrap_or_default();
            for (name, mut want) in expected {
                let got = named(&resources.endpoints, &name).map(|a| members(&a)).unwrap_or_default();
                let mut got: Vec<String> = got.into_iter().map(|(address, _)| address).collect();
                got.sort();
                want.sort();
                checked += 1;
                if got != want {
                    failures
                        .push(format!("{} {} {name}: want {want:?}, got {got:?}", row["id"], client["id"]));
                }
            }
        }
    }
    assert!(failures.is_empty(), "{} of {checked}:\n{}", failures.len(), failures.join("\n"));
}
