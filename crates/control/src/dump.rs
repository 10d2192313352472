//! What a proxy gets, in the form of Envoy's `/config_dump`.

use std::sync::Arc;

use lateen_proto::json::{Names, any_to_value};
use lateen_xds::{Catalog as _, types};
use serde_json::{Value, json};

use crate::catalog::ProxyCatalog;

/// The sections of the dump. Of clusters that are loaded on demand it has those that were asked for.
pub(crate) fn of(catalog: &ProxyCatalog, asked: &[Arc<str>]) -> Result<Vec<Value>, String> {
    let has = |cluster: &Arc<str>| {
        let known = catalog.contains(types::CLUSTER, cluster);
        !known || catalog.covers(types::CLUSTER, cluster) || asked.contains(cluster)
    };
    let section = |kind: &str| -> Result<Vec<(String, String, Value)>, String> {
        catalog
            .of_type(kind)
            .filter(|resource| ![types::CLUSTER, types::ENDPOINT].contains(&kind) || has(&resource.name))
            .map(|resource| {
                let value = any_to_value(&resource.any, Names::Camel)
                    .map_err(|error| format!("{}: {error}", resource.name))?;
                Ok((resource.name.to_string(), resource.version.to_string(), value))
            })
            .collect()
    };
    let simple = |kind: &str, member: &str| -> Result<Vec<Value>, String> {
        let entries = section(kind)?.into_iter();
        Ok(entries.map(|(_, version, value)| json!({ "versionInfo": version, member: value })).collect())
    };
    let listeners: Vec<Value> = section(types::LISTENER)?
        .into_iter()
        .map(|(name, version, value)| {
            json!({ "name": name, "activeState": { "versionInfo": version, "listener": value } })
        })
        .collect();
    let dump = |name: &str, mut body: Value| {
        body["@type"] = json!(format!("type.googleapis.com/envoy.admin.v3.{name}"));
        body
    };
    Ok(vec![
        dump("ClustersConfigDump", json!({ "dynamicActiveClusters": simple(types::CLUSTER, "cluster")? })),
        dump(
            "EndpointsConfigDump",
            json!({ "dynamicEndpointConfigs": simple(types::ENDPOINT, "endpointConfig")? }),
        ),
        dump("ListenersConfigDump", json!({ "dynamicListeners": listeners })),
        dump("RoutesConfigDump", json!({ "dynamicRouteConfigs": simple(types::ROUTE, "routeConfig")? })),
    ])
}
