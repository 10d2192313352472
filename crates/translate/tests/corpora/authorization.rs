//! AuthorizationPolicy as filters, against `authz_rbac`.

use lateen_proto::envoy::config::listener::v3::filter::ConfigType;
use lateen_proto::envoy::config::listener::v3::{Filter, Listener};
use lateen_proto::envoy::extensions::filters::network::http_connection_manager::v3::{
    HttpConnectionManager, HttpFilter,
};
use lateen_proto::json::{self, Names};
use serde_json::{Value, json};

use crate::world::{Configured, cases, snapshot};

const OURS: [&str; 4] = [
    "envoy.filters.http.rbac",
    "envoy.filters.http.ext_authz",
    "envoy.filters.network.rbac",
    "envoy.filters.network.ext_authz",
];

#[test]
fn policies_become_the_filters_of_the_corpus() {
    let Some(folder) = testkit::corpora::folder("authz_rbac") else { return };
    let (mut right, mut wrong) = (0, Vec::new());
    for case in cases(&folder.join("cases.json")) {
        let id = case["id"].as_str().unwrap();
        let read = |name: &Value| {
            std::fs::read_to_string(folder.join("files").join(name.as_str().unwrap())).unwrap()
        };
        let mut mesh = case["meshConfig"].as_object().cloned().unwrap_or_default();
        if let Some(domain) = case["trustDomain"].as_object() {
            mesh.insert("trustDomain".into(), domain["trustDomain"].clone());
            mesh.insert("trustDomainAliases".into(), domain["aliases"].clone());
        }
        let world = snapshot(&read(&case["input"]), Some(&Value::Object(mesh)));
        let proxy = json!({"type": "sidecar", "id": "httpbin.foo", "ipAddresses": ["1.1.1.1"],
            "configNamespace": case["proxy"]["namespace"], "labels": case["proxy"]["labels"]});
        let configured = Configured::of(&world, &proxy);
        let listeners = Configured::messages::<Listener>(&configured.resources.listeners);
        let inbound = listeners.iter().find(|listener| listener.name == "virtualInbound").unwrap();
        let chain = match case["kind"].as_str() {
            Some("tcp") => "virtualInbound",
            _ => "virtualInbound-catchall-http",
        };
        let chain = inbound.filter_chains.iter().find(|known| known.name == chain).unwrap();
        let got: Vec<Value> = match case["kind"].as_str() {
            Some("tcp") => chain.filters.iter().map(of_filter).collect(),
            _ => http_filters(&chain.filters),
        };
        let got: Vec<Value> =
            got.into_iter().filter(|filter| OURS.contains(&filter["name"].as_str().unwrap())).collect();
        let expected: Vec<Value> =
            case["expected"].as_array().unwrap().iter().map(|name| normal(&read(name))).collect();
        match got == expected {
            true => right += 1,
            false => wrong.push(format!("{id}:\n  got      {}\n  expected {}", json!(got), json!(expected))),
        }
    }
    eprintln!("authz_rbac: {right} of {}", right + wrong.len());
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn of_filter(filter: &Filter) -> Value {
    json::to_value(filter, Names::Camel).unwrap()
}

fn http_filters(filters: &[Filter]) -> Vec<Value> {
    let manager = filters.iter().find_map(|filter| match &filter.config_type {
        Some(ConfigType::TypedConfig(any)) => any.unpack::<HttpConnectionManager>().ok(),
        _ => None,
    });
    let filters = manager.unwrap().http_filters;
    filters.iter().map(|filter| json::to_value(filter, Names::Camel).unwrap()).collect()
}

/// An expected filter in the form that our JSON has.
fn normal(yaml: &str) -> Value {
    let value: Value = serde_saphyr::from_str(yaml).unwrap();
    match value["name"].as_str().unwrap().starts_with("envoy.filters.http") {
        true => json::to_value(&json::from_value::<HttpFilter>(&value).unwrap(), Names::Camel).unwrap(),
        false => json::to_value(&json::from_value::<Filter>(&value).unwrap(), Names::Camel).unwrap(),
    }
}
