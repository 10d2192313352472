//! Everything that one proxy gets.

use std::collections::BTreeSet;
use std::sync::Arc;

use lateen_api::mesh::MeshConfig;
use lateen_base::Host;
use lateen_proto::envoy::config::cluster::v3::Cluster;
use lateen_proto::envoy::config::cluster::v3::cluster::{ClusterDiscoveryType, DiscoveryType};
use lateen_proto::envoy::config::core::v3::transport_socket::ConfigType;
use lateen_proto::envoy::extensions::transport_sockets::tls::v3::UpstreamTlsContext;
use lateen_proto::envoy::extensions::transport_sockets::tls::v3::common_tls_context::ValidationContextType;
use lateen_registry::{EndpointSet, Resolution};

use crate::cache::{Edge, MadeCluster, Shared};
use crate::clusters::outbound;
use crate::endpoints::network::Gateways;
use crate::endpoints::{self, View};
use crate::snapshot::{Scope, ServiceTarget};
use crate::{Built, Proxy, Resource, Resources, Snapshot, clusters, listeners, name_table, routes};

/// Makes all resources of a proxy. What was made of equal inputs before, for this snapshot or one that it was built
/// upon, is taken from there.
pub fn generate(snapshot: &Snapshot, proxy: &Proxy) -> Resources {
    let scope = snapshot.scope(proxy);
    let edge = edge(snapshot, proxy, &scope);
    let made: Vec<MadeCluster> = clusters::inputs(snapshot, proxy)
        .into_iter()
        .flat_map(|input| clusters_of(snapshot, input).to_vec())
        .chain(clusters::own(snapshot, proxy).into_iter().map(made_cluster))
        .collect();
    let mut secret_names = edge.secret_names.clone();
    secret_names.extend(made.iter().flat_map(|cluster| cluster.secrets.iter().cloned()));
    let names: BTreeSet<String> = made.iter().filter_map(|cluster| cluster.endpoints.clone()).collect();
    Resources {
        listeners: edge.listeners.clone(),
        clusters: made.into_iter().map(|cluster| cluster.resource).collect(),
        routes: edge.routes.clone(),
        endpoints: assignments(snapshot, proxy, &scope, &names),
        secret_names,
        name_table: edge.name_table.clone(),
        notes: edge.notes.clone(),
    }
}

/// What listeners, routes and names are made from. Generations stand for the parts of the registry that they read as a
/// whole; of endpoints they read those of the proxy's own workload and of headless services.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct EdgeInput {
    proxy: Proxy,
    mesh: Shared<MeshConfig>,
    services: u64,
    configs: u64,
    networks: u64,
    targets: Vec<ServiceTarget>,
    headless: Vec<(Host, Shared<EndpointSet>)>,
}

fn edge(snapshot: &Snapshot, proxy: &Proxy, scope: &Scope) -> Arc<Edge> {
    let generations = snapshot.generations();
    let headless = scope.services.iter().filter(|service| service.resolution == Resolution::None);
    let sets = headless.filter_map(|service| {
        Some((service.host.clone(), Shared(snapshot.view.endpoints_of(service)?.clone())))
    });
    let input = EdgeInput {
        proxy: proxy.clone(),
        mesh: Shared(snapshot.mesh.clone()),
        services: generations.services,
        configs: generations.configs,
        networks: generations.networks,
        targets: snapshot.service_targets(proxy),
        headless: sets.collect(),
    };
    snapshot.cache.edges.get(proxy.id.clone(), input, snapshot.number, |input| {
        let proxy = &input.proxy;
        let listeners = listeners::build(snapshot, proxy);
        let routes = routes::build(snapshot, proxy, &listeners::route_names(&listeners));
        Arc::new(Edge {
            secret_names: listeners::secret_names(&listeners),
            listeners: listeners.into_iter().map(Built::pack).collect(),
            routes: routes.into_iter().map(Built::pack).collect(),
            name_table: Arc::new(name_table::build(snapshot, proxy)),
            notes: if proxy.is_router() { snapshot.ingress.notes.clone() } else { Vec::new() },
        })
    })
}

fn clusters_of(snapshot: &Snapshot, input: outbound::Input) -> Arc<Vec<MadeCluster>> {
    let key = (input.service.host.clone(), input.port.number, input.by_sni, input.class.clone());
    snapshot.cache.clusters.get(key, input, snapshot.number, |input| {
        Arc::new(outbound::build(input).into_iter().map(made_cluster).collect())
    })
}

fn assignments(
    snapshot: &Snapshot,
    proxy: &Proxy,
    scope: &Scope,
    names: &BTreeSet<String>,
) -> Vec<Arc<Resource>> {
    let view = Arc::new(View::of(snapshot, proxy));
    let gateways = Arc::new(Gateways::of(&snapshot.view.gateways));
    let one = |name: &String| match endpoints::input(snapshot, proxy, scope, &view, &gateways, name) {
        Some(input) => {
            let key = (name.clone(), view.clone());
            let made = |input: &endpoints::Input| endpoints::assignment(input).pack();
            snapshot.cache.endpoints.get(key, input, snapshot.number, made)
        }
        None => endpoints::empty(name).pack(),
    };
    names.iter().map(one).collect()
}

fn made_cluster(cluster: Built<Cluster>) -> MadeCluster {
    MadeCluster {
        endpoints: endpoints_name(&cluster),
        secrets: secrets(&cluster.message),
        resource: cluster.pack(),
    }
}

/// The name by which a cluster of type EDS asks for its endpoints.
fn endpoints_name(cluster: &Built<Cluster>) -> Option<String> {
    let eds = Some(ClusterDiscoveryType::Type(DiscoveryType::Eds.into()));
    let config = cluster.message.eds_cluster_config.as_ref();
    (cluster.message.cluster_discovery_type == eds).then(|| match config {
        Some(config) if !config.service_name.is_empty() => config.service_name.clone(),
        _ => cluster.name.clone(),
    })
}

/// The secrets of the Kubernetes cluster that a cluster's TLS asks for.
fn secrets(cluster: &Cluster) -> Vec<String> {
    let socket = cluster.transport_socket.as_ref().and_then(|socket| socket.config_type.as_ref());
    let Some(ConfigType::TypedConfig(config)) = socket else { return Vec::new() };
    let Ok(context) = config.unpack::<UpstreamTlsContext>() else { return Vec::new() };
    let common = context.common_tls_context.unwrap_or_default();
    let roots = match common.validation_context_type {
        Some(ValidationContextType::CombinedValidationContext(combined)) => {
            combined.validation_context_sds_secret_config
        }
        _ => None,
    };
    let all = common.tls_certificate_sds_secret_configs.into_iter().chain(roots);
    all.map(|secret| secret.name).filter(|name| name.starts_with("kubernetes://")).collect()
}
