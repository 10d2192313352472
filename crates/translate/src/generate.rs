//! Everything that one proxy gets.

use std::collections::BTreeSet;
use std::sync::Arc;

use lateen_proto::envoy::config::cluster::v3::Cluster;
use lateen_proto::envoy::config::cluster::v3::cluster::{ClusterDiscoveryType, DiscoveryType};

use crate::{Built, Proxy, Resources, Snapshot, clusters, endpoints, listeners, name_table, routes};

/// Makes all resources of a proxy.
pub fn generate(snapshot: &Snapshot, proxy: &Proxy) -> Resources {
    let listeners = listeners::build(snapshot, proxy);
    let clusters = clusters::build(snapshot, proxy);
    let eds = eds_names(&clusters);
    let endpoints = endpoints::build(snapshot, proxy, &eds);
    let routes = routes::build(snapshot, proxy, &listeners::route_names(&listeners));
    let secret_names = listeners::secret_names(&listeners);
    Resources {
        listeners: listeners.into_iter().map(Built::pack).collect(),
        clusters: clusters.into_iter().map(Built::pack).collect(),
        routes: routes.into_iter().map(Built::pack).collect(),
        endpoints: endpoints.into_iter().map(Built::pack).collect(),
        secret_names,
        name_table: Arc::new(name_table::build(snapshot, proxy)),
        notes: Vec::new(),
    }
}

/// The names by which clusters of type EDS ask for their endpoints.
fn eds_names(clusters: &[Built<Cluster>]) -> BTreeSet<String> {
    let eds = Some(ClusterDiscoveryType::Type(DiscoveryType::Eds.into()));
    let of_eds = clusters.iter().filter(|cluster| cluster.message.cluster_discovery_type == eds);
    of_eds
        .map(|cluster| match &cluster.message.eds_cluster_config {
            Some(config) if !config.service_name.is_empty() => config.service_name.clone(),
            _ => cluster.name.clone(),
        })
        .collect()
}
