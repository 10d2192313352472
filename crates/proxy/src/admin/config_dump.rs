//! `/config_dump`: the resources as they came, in Envoy's frame.

use std::time::SystemTime;

use lateen_proto::Any;
use lateen_proto::envoy::config::bootstrap::v3::Bootstrap;
use lateen_proto::json::{self, Names};
use lateen_route::tls::SecretValue;
use serde_json::{Map, Value, json};

use super::{Query, timestamp};
use crate::store::{Source, Store};

const PREFIX: &str = "type.googleapis.com/envoy.admin.v3.";

/// The dump, or the part of it that a query names.
///
/// # Errors
/// When the query names a part that there is not, or a malformed expression.
pub(super) fn json(
    store: &Store,
    bootstrap: &Bootstrap,
    started: SystemTime,
    query: &Query,
) -> Result<Value, String> {
    let name = match query.value("name_regex") {
        None => None,
        Some(text) => Some(regex::Regex::new(&format!("^(?:{text})$")).map_err(|error| error.to_string())?),
    };
    let wanted = |candidate: &str| name.as_ref().is_none_or(|name| name.is_match(candidate));
    let bootstrap = Bootstrap { node: Some(crate::source::discovery::node(bootstrap)), ..bootstrap.clone() };
    let mut configs = vec![
        json!({
            "@type": format!("{PREFIX}BootstrapConfigDump"),
            "bootstrap": json::to_value(&bootstrap, Names::Proto).unwrap_or_default(),
            "last_updated": timestamp(started),
        }),
        clusters(store, &wanted),
    ];
    if query.has("include_eds") || query.value("resource").is_some_and(|part| part.contains("endpoint")) {
        configs.push(endpoints(store, &wanted));
    }
    configs.push(listeners(store, &wanted));
    configs.push(json!({"@type": format!("{PREFIX}ScopedRoutesConfigDump")}));
    configs.push(routes(store, &wanted));
    configs.push(secrets(store, &wanted));
    if let Some(part) = query.value("resource") {
        configs = pick(configs, part)?;
    }
    if let Some(paths) = query.value("mask") {
        configs = configs.into_iter().map(|config| mask(&config, paths)).collect();
    }
    Ok(json!({"configs": configs}))
}

/// The elements of one list, as resources of their own.
fn pick(configs: Vec<Value>, part: &str) -> Result<Vec<Value>, String> {
    let known =
        configs.iter().find_map(|config| Some((config.get(part)?.as_array()?.clone(), config.get("@type")?)));
    match known {
        Some((items, kind)) => {
            let kind = kind.as_str().unwrap_or_default();
            let element = element_type(kind, part);
            Ok(items
                .into_iter()
                .map(|item| {
                    let mut object = Map::from_iter([("@type".to_owned(), Value::String(element.clone()))]);
                    object.extend(item.as_object().cloned().unwrap_or_default());
                    Value::Object(object)
                })
                .collect())
        }
        None if PARTS.contains(&part) => Ok(Vec::new()),
        None => Err(format!("{part} not found in config dump\n")),
    }
}

const PARTS: &[&str] = &[
    "static_clusters",
    "dynamic_active_clusters",
    "dynamic_warming_clusters",
    "static_listeners",
    "dynamic_listeners",
    "static_route_configs",
    "dynamic_route_configs",
    "static_secrets",
    "dynamic_active_secrets",
    "dynamic_warming_secrets",
    "static_endpoint_configs",
    "dynamic_endpoint_configs",
];

fn element_type(frame: &str, part: &str) -> String {
    let element = match part {
        "static_clusters" => "StaticCluster",
        "dynamic_active_clusters" | "dynamic_warming_clusters" => "DynamicCluster",
        "static_listeners" => "StaticListener",
        "dynamic_listeners" => "DynamicListener",
        "static_route_configs" => "StaticRouteConfig",
        "dynamic_route_configs" => "DynamicRouteConfig",
        "static_secrets" => "StaticSecret",
        "static_endpoint_configs" => "StaticEndpointConfig",
        "dynamic_endpoint_configs" => "DynamicEndpointConfig",
        _ => "DynamicSecret",
    };
    format!("{frame}.{element}")
}

/// Keeps the members that a field mask names; `@type` stays.
fn mask(value: &Value, paths: &str) -> Value {
    let mut out = Map::new();
    if let Some(kind) = value.get("@type") {
        out.insert("@type".to_owned(), kind.clone());
    }
    for path in paths.split(',') {
        copy_path(value, path.trim(), &mut out);
    }
    Value::Object(out)
}

fn copy_path(from: &Value, path: &str, to: &mut Map<String, Value>) {
    let (first, rest) = path.split_once('.').map_or((path, None), |(first, rest)| (first, Some(rest)));
    let Some(found) = from.get(first) else { return };
    match (rest, found) {
        (None, _) => drop(to.insert(first.to_owned(), found.clone())),
        (Some(rest), Value::Object(_)) => {
            let inner = to.entry(first).or_insert_with(|| Value::Object(Map::new()));
            if let Value::Object(inner) = inner {
                if let Some(kind) = found.get("@type") {
                    inner.insert("@type".to_owned(), kind.clone());
                }
                copy_path(found, rest, inner);
            }
        }
        (Some(_), _) => {}
    }
}

fn typed(any: &Any) -> Value {
    json::any_to_value(any, Names::Proto)
        .unwrap_or_else(|error| json!({"@type": any.type_url, "error": error.to_string()}))
}

fn framed(kind: &str, lists: impl IntoIterator<Item = (&'static str, Vec<Value>)>) -> Value {
    let mut object = Map::from_iter([("@type".to_owned(), Value::String(format!("{PREFIX}{kind}")))]);
    for (name, list) in lists {
        if !list.is_empty() {
            object.insert(name.to_owned(), Value::Array(list));
        }
    }
    Value::Object(object)
}

/// `version_info`, the resource, `last_updated`; static resources have no version.
fn entry(source: &Source, member: &str) -> Value {
    let mut object = Map::new();
    if !source.is_static {
        object.insert("version_info".to_owned(), Value::String(source.version.to_string()));
    }
    object.insert(member.to_owned(), typed(&source.any));
    object.insert("last_updated".to_owned(), Value::String(timestamp(source.updated)));
    Value::Object(object)
}

fn clusters(store: &Store, wanted: &dyn Fn(&str) -> bool) -> Value {
    let (mut fixed, mut active, mut warming) = (Vec::new(), Vec::new(), Vec::new());
    for (_, cluster) in store.clusters.iter().filter(|(name, _)| wanted(name)) {
        let list = match (cluster.source.is_static, cluster.is_warm()) {
            (true, _) => &mut fixed,
            (false, true) => &mut active,
            (false, false) => &mut warming,
        };
        list.push(entry(&cluster.source, "cluster"));
    }
    let lists = [
        ("static_clusters", fixed),
        ("dynamic_active_clusters", active),
        ("dynamic_warming_clusters", warming),
    ];
    framed("ClustersConfigDump", lists)
}

fn listeners(store: &Store, wanted: &dyn Fn(&str) -> bool) -> Value {
    let (mut fixed, mut dynamic) = (Vec::new(), Vec::new());
    for (name, listener) in store.listeners.iter().filter(|(name, _)| wanted(name)) {
        if listener.source.is_static {
            fixed.push(entry(&listener.source, "listener"));
            continue;
        }
        let state = if listener.warming { "warming_state" } else { "active_state" };
        let mut object = json!({"name": &**name, state: entry(&listener.source, "listener")});
        if let Some(error) = refusal(store, &listener.source.any.type_url, name) {
            object["error_state"] = error;
        }
        dynamic.push(object);
    }
    for (kind, name) in store.rejected.keys() {
        let unknown = !store.listeners.contains_key(name.as_str());
        if kind.ends_with(".Listener") && unknown && wanted(name) {
            dynamic.push(json!({"name": name, "error_state": refusal(store, kind, name)}));
        }
    }
    framed("ListenersConfigDump", [("static_listeners", fixed), ("dynamic_listeners", dynamic)])
}

fn refusal(store: &Store, kind: &str, name: &str) -> Option<Value> {
    let refusal = store.rejected.get(&(kind.to_owned(), name.to_owned()))?;
    Some(json!({
        "failed_configuration": typed(&refusal.any),
        "last_update_attempt": timestamp(refusal.at),
        "details": refusal.reason,
    }))
}

fn routes(store: &Store, wanted: &dyn Fn(&str) -> bool) -> Value {
    let (mut fixed, mut dynamic) = (Vec::new(), Vec::new());
    for (_, route) in store.routes.iter().filter(|(name, _)| wanted(name)) {
        let Some(source) = &route.source else { continue };
        if source.is_static {
            fixed.push(entry(source, "route_config"))
        } else {
            dynamic.push(entry(source, "route_config"))
        }
    }
    fixed.extend(inline_routes(store, wanted));
    framed("RoutesConfigDump", [("static_route_configs", fixed), ("dynamic_route_configs", dynamic)])
}

/// Route configurations that are part of a listener.
fn inline_routes(store: &Store, wanted: &dyn Fn(&str) -> bool) -> Vec<Value> {
    use lateen_proto::envoy::config::listener::v3::{Listener, filter::ConfigType};
    use lateen_proto::envoy::extensions::filters::network::http_connection_manager::v3 as hcm;
    let mut out = Vec::new();
    for listener in store.listeners.values() {
        let Ok(message) = listener.source.any.unpack::<Listener>() else { continue };
        for filter in
            message.filter_chains.iter().chain(&message.default_filter_chain).flat_map(|c| &c.filters)
        {
            let Some(ConfigType::TypedConfig(any)) = &filter.config_type else { continue };
            let Ok(manager) = any.unpack::<hcm::HttpConnectionManager>() else { continue };
            if let Some(hcm::http_connection_manager::RouteSpecifier::RouteConfig(table)) =
                manager.route_specifier
                && wanted(&table.name)
            {
                out.push(json!({
                    "route_config": typed(&Any::pack(&table)),
                    "last_updated": timestamp(listener.source.updated),
                }));
            }
        }
    }
    out
}

fn endpoints(store: &Store, wanted: &dyn Fn(&str) -> bool) -> Value {
    use lateen_proto::envoy::config::cluster::v3::Cluster;
    let mut fixed = Vec::new();
    for cluster in store.clusters.values() {
        let Ok(message) = cluster.source.any.unpack::<Cluster>() else { continue };
        if let Some(load) = message.load_assignment.filter(|load| wanted(&load.cluster_name)) {
            fixed.push(json!({"endpoint_config": typed(&Any::pack(&load))}));
        }
    }
    let dynamic: Vec<Value> = store
        .endpoints
        .iter()
        .filter(|(name, _)| wanted(name))
        .map(|(_, endpoints)| json!({"endpoint_config": typed(&endpoints.source.any)}))
        .collect();
    framed("EndpointsConfigDump", [("static_endpoint_configs", fixed), ("dynamic_endpoint_configs", dynamic)])
}

fn secrets(store: &Store, wanted: &dyn Fn(&str) -> bool) -> Value {
    let (mut fixed, mut active) = (Vec::new(), Vec::new());
    for (name, secret) in store.secrets.iter().filter(|(name, _)| wanted(name)) {
        let mut object = entry(&secret.source, "secret");
        if matches!(secret.secret.value, SecretValue::Certificate(_) | SecretValue::Generic(_)) {
            redact(&mut object);
        }
        object["name"] = Value::String(name.to_string());
        if secret.source.is_static { fixed.push(object) } else { active.push(object) }
    }
    framed("SecretsConfigDump", [("static_secrets", fixed), ("dynamic_active_secrets", active)])
}

/// Private keys are never shown: base64 of `[redacted]` stands in their place, as in Envoy's dump.
fn redact(value: &mut Value) {
    match value {
        Value::Object(members) => {
            for (name, member) in members {
                if name == "private_key" || name == "password" || name == "generic_secret" {
                    *member = json!({"inline_bytes": "W3JlZGFjdGVkXQ=="});
                } else {
                    redact(member);
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(redact),
        _ => {}
    }
}
