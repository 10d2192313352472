//! Everything that one proxy gets.
//!
//! Clusters of services and their endpoints are shared by all proxies of a class (see [`crate::upstream`]). The rest is
//! made from inputs that hold only what of the proxy matters, so that replicas, too, share it.

use std::collections::BTreeSet;
use std::sync::Arc;

use lateen_api::Kind;
use lateen_api::kinds::Sidecar;
use lateen_api::kinds::envoy_filter::ApplyTo;
use lateen_api::mesh::MeshConfig;
use lateen_base::Host;
use lateen_proto::envoy::config::cluster::v3::Cluster;
use lateen_proto::envoy::config::cluster::v3::cluster::{ClusterDiscoveryType, DiscoveryType};
use lateen_proto::envoy::config::core::v3::transport_socket::ConfigType;
use lateen_proto::envoy::extensions::transport_sockets::proxy_protocol::v3::ProxyProtocolUpstreamTransport;
use lateen_proto::envoy::extensions::transport_sockets::tls::v3::UpstreamTlsContext;
use lateen_proto::envoy::extensions::transport_sockets::tls::v3::common_tls_context::ValidationContextType;
use lateen_proto::istio::networking::nds::v1::NameTable;
use lateen_registry::EndpointSet;

use crate::cache::Shared;
use crate::clusters::Class;
use crate::list::List;
use crate::patches::bootstrap::BootstrapPatch;
use crate::patches::{
    Effects, Made, OF_CLUSTERS, OF_LISTENERS, OF_ROUTES, PatchSet, Patched, Patching, PortMap, Side,
};
use crate::routes::parts::RouteParts;
use crate::scoping::{self, AtStart, Named, Scoping};
use crate::snapshot::{MergedRule, Scope, ServiceTarget, VirtualServiceConfig};
use crate::upstream::Upstream;
use crate::{
    Built, Note, Proxy, Resource, Resources, Snapshot, clusters, endpoints, listeners, name_table, routes,
};

/// Everything that a proxy gets, in lists that it shares with others where it can.
#[derive(Debug)]
pub struct Generated {
    /// The clusters: of services, and the proxy's own.
    pub clusters: [Arc<List>; 2],
    /// The load assignments, likewise.
    pub endpoints: [Arc<List>; 2],
    /// The listeners.
    pub listeners: Arc<List>,
    /// The route configurations that the listeners refer to.
    pub routes: Arc<List>,
    /// The names that the agent's DNS server answers: one resource, or none where there are no names.
    pub name_table: Arc<List>,
    /// Configurations of extensions that filters ask for by name.
    pub extensions: Arc<List>,
    /// What agents are to merge into the bootstrap: one resource, or none.
    pub bootstrap: Arc<List>,
    /// What is to be said about no resource in particular.
    pub notes: Vec<Note>,
    /// The patches of EnvoyFilters that are meant for the proxy, and what they did.
    pub patched: Patched,
    /// Whether the proxy loads clusters on demand.
    pub scoping: Scoping,
    /// The clusters of services that it has from the start, where it loads the others on demand.
    pub at_start: Option<AtStart>,
    names: Arc<Names>,
    upstream: Arc<Upstream>,
    own: Arc<Own>,
    edge: Arc<Edge>,
    routed: Arc<[Arc<Resource>]>,
}

impl Generated {
    /// All of it in the order in which it is made, which is that of services and ports.
    pub fn into_resources(self) -> Resources {
        let patches = self.patched.reports(&Made {
            listeners: self.listeners.resources().iter().collect(),
            clusters: self.clusters.iter().flat_map(|list| list.resources()).collect(),
            routes: self.routes.resources().iter().collect(),
        });
        let own = &self.own.clusters;
        let mut secret_names = self.edge.secrets.clone();
        secret_names.extend(self.upstream.secrets.iter().cloned());
        secret_names.extend(own.iter().flat_map(|cluster| cluster.secrets.iter().cloned()));
        let mut clusters = self.upstream.clusters_in_order();
        clusters.extend(own.iter().map(|cluster| cluster.resource.clone()));
        let loaded = |at_start: &AtStart| {
            let names = self.upstream.clusters.resources().iter().map(|cluster| cluster.name.to_string());
            names.filter(|name| !at_start.has(name)).collect()
        };
        let on_demand = self.at_start.as_ref().map(loaded).unwrap_or_default();
        let endpoints = self.endpoints.iter().flat_map(|list| list.resources()).cloned().collect();
        Resources {
            listeners: self.edge.listeners.to_vec(),
            clusters,
            routes: self.routed.to_vec(),
            endpoints,
            secret_names,
            name_table: self.names.table.clone(),
            extensions: self.extensions.resources().to_vec(),
            patches,
            notes: self.notes,
            bootstrap: self.bootstrap.resources().first().cloned(),
            scoping: self.scoping,
            on_demand,
        }
    }
}

/// Makes all resources of a proxy. What was made of equal inputs before, for this snapshot or one that it was built
/// upon, for this proxy or another of its class, is taken from there.
pub fn generate(snapshot: &Snapshot, proxy: &Proxy) -> Resources {
    generate_lists(snapshot, proxy).into_resources()
}

/// As [`generate`], in lists.
pub fn generate_lists(snapshot: &Snapshot, proxy: &Proxy) -> Generated {
    let scoping = Scoping::of(snapshot, proxy);
    let on_demand = scoping == Scoping::Automatic;
    let scoped;
    let proxy = match on_demand {
        true => {
            scoped = Proxy { loads_on_demand: true, ..proxy.clone() };
            &scoped
        }
        false => proxy,
    };
    let (scope_key, scope) = snapshot.scope_and_key(proxy);
    let selection = snapshot.patches(proxy);
    let patches = &selection.patches;
    let upstream = snapshot.upstream(proxy, &scope, scope_key, patches.among(OF_CLUSTERS));
    let targets = snapshot.service_targets(proxy);
    let own = own(snapshot, proxy, &scope, &targets, patches.among(OF_CLUSTERS));
    let sets = headless(snapshot, &scope);
    let edge = edge(snapshot, proxy, &scope, &targets, &sets, patches.among(OF_LISTENERS));
    let routed = routed(snapshot, proxy, &scope, &targets, &edge.route_names, patches.among(OF_ROUTES));
    let names = names(snapshot, proxy, &scope, sets);
    let mut extending = Patching::new(patches);
    let extensions = extending.extensions();
    let mut effects = extending.effects;
    let made = [&upstream.effects, &own.effects, &edge.effects, &routed.effects];
    made.into_iter().for_each(|more| effects.add(more));
    let bootstrap = bootstrap(snapshot, proxy, patches.among(&[ApplyTo::Bootstrap]));
    effects.add(&bootstrap.effects(proxy));
    let named = || [edge.named.clone(), own.named.clone(), routed.named.clone(), named(&extensions)];
    let at_start = on_demand.then(|| AtStart::new(named()));
    Generated {
        clusters: [upstream.clusters.clone(), own.cluster_list.clone()],
        endpoints: [upstream.endpoints.clone(), own.endpoint_list.clone()],
        listeners: edge.list.clone(),
        routes: routed.list.clone(),
        name_table: names.list.clone(),
        extensions: Arc::new(List::new(extensions)),
        patched: Patched { proxy: proxy.clone(), selection, effects },
        notes: if proxy.is_router() { snapshot.ingress.notes.clone() } else { Vec::new() },
        bootstrap: Arc::new(List::new(bootstrap.resource.iter().cloned().collect())),
        scoping,
        at_start,
        routed: routed.resources.clone(),
        names,
        upstream,
        own,
        edge,
    }
}

/// A cluster, and what else has to be known of it.
#[derive(Clone, Debug)]
pub(crate) struct MadeCluster {
    /// The cluster.
    pub(crate) resource: Arc<Resource>,
    /// The name by which it asks for endpoints.
    pub(crate) endpoints: Option<String>,
    /// The secrets that it asks for over the stream that everything comes over.
    pub(crate) secrets: Vec<String>,
}

impl From<Built<Cluster>> for MadeCluster {
    fn from(cluster: Built<Cluster>) -> Self {
        Self {
            endpoints: endpoints_name(&cluster),
            secrets: secrets(&cluster.message),
            resource: cluster.pack(),
        }
    }
}

/// The fixed clusters of a proxy and those of its own workload.
#[derive(Debug)]
pub(crate) struct Own {
    clusters: Vec<MadeCluster>,
    cluster_list: Arc<List>,
    endpoint_list: Arc<List>,
    /// The clusters of services that they name.
    named: Arc<Named>,
    effects: Effects,
}

/// What the clusters of the proxy's own workload are made from.
#[derive(Debug, PartialEq)]
pub(crate) struct OwnInput {
    proxy: Proxy,
    class: Class,
    targets: Vec<ServiceTarget>,
    rules: Vec<Option<Shared<MergedRule>>>,
    sidecar: Option<Shared<Sidecar>>,
    mesh: Shared<MeshConfig>,
    patches: PatchSet,
}

fn own(
    snapshot: &Snapshot,
    proxy: &Proxy,
    scope: &Scope,
    targets: &[ServiceTarget],
    patches: PatchSet,
) -> Arc<Own> {
    let rule = |target: &ServiceTarget| scope.destination_rule(&target.service.host, &proxy.labels);
    let input = OwnInput {
        proxy: proxy.clone(),
        class: Class::of(snapshot, proxy),
        targets: targets.to_vec(),
        rules: targets.iter().map(|target| rule(target).cloned().map(Shared)).collect(),
        sidecar: scope.sidecar.clone().map(Shared),
        mesh: Shared(snapshot.mesh.clone()),
        patches,
    };
    snapshot.cache.own.get(proxy.id.clone(), input, snapshot.number, |input| {
        let built = clusters::own(snapshot, &input.proxy, scope, &input.targets);
        let mut patching = Patching::new(&input.patches);
        let mut built = patching.clusters(input.proxy.is_router(), built);
        built.extend(patching.added_clusters(input.proxy.is_router(), &built));
        let clusters: Vec<MadeCluster> = built.into_iter().map(MadeCluster::from).collect();
        let names: BTreeSet<&String> =
            clusters.iter().filter_map(|cluster| cluster.endpoints.as_ref()).collect();
        let endpoints = names.into_iter().map(|name| endpoints::empty(name).pack()).collect();
        Arc::new(Own {
            named: named(clusters.iter().map(|made| &made.resource)),
            cluster_list: Arc::new(List::new(clusters.iter().map(|made| made.resource.clone()).collect())),
            endpoint_list: Arc::new(List::new(endpoints)),
            clusters,
            effects: patching.effects,
        })
    })
}

/// The clusters of services that resources name.
fn named<'a>(resources: impl IntoIterator<Item = &'a Arc<Resource>>) -> Arc<Named> {
    let mut names = BTreeSet::new();
    resources.into_iter().for_each(|resource| scoping::find_named(&resource.any.value, &mut names));
    Named::new(names)
}

/// Headless services and their endpoints, which listeners and names depend on.
type Headless = Vec<(Host, Shared<EndpointSet>)>;

fn headless(snapshot: &Snapshot, scope: &Scope) -> Headless {
    let set = |service: &Arc<lateen_registry::Service>| {
        Some((service.host.clone(), Shared(snapshot.view.endpoints_of(service)?.clone())))
    };
    scope.headless.iter().filter_map(set).collect()
}

/// What listeners are made from. The generations stand for services and Istio objects that they read as a whole.
#[derive(Debug, PartialEq)]
pub(crate) struct EdgeInput {
    proxy: Proxy,
    mesh: Shared<MeshConfig>,
    services: u64,
    networks: u64,
    /// All Istio objects; of virtual services a sidecar's listeners read those of bytes only.
    configs: u64,
    of_bytes: Vec<Shared<VirtualServiceConfig>>,
    targets: Vec<ServiceTarget>,
    headless: Headless,
    patches: PatchSet,
}

/// Listeners, and what is known of them.
#[derive(Debug, Default)]
pub(crate) struct Edge {
    listeners: Vec<Arc<Resource>>,
    list: Arc<List>,
    route_names: BTreeSet<String>,
    secrets: BTreeSet<String>,
    /// The clusters of services that they name.
    named: Arc<Named>,
    effects: Effects,
}

fn edge(
    snapshot: &Snapshot,
    proxy: &Proxy,
    scope: &Scope,
    targets: &[ServiceTarget],
    sets: &Headless,
    patches: PatchSet,
) -> Arc<Edge> {
    let generations = snapshot.generations();
    // Of EnvoyFilters only the patches for the proxy count.
    let others = generations.configs - snapshot.view.configs.generation(Kind::EnvoyFilter);
    let all = scope.egress.iter().flat_map(|egress| &egress.virtual_services);
    let (configs, of_bytes) = match proxy.is_router() {
        true => (others, Vec::new()),
        false => (
            others - snapshot.view.configs.generation(Kind::VirtualService),
            all.filter(|config| config.carries_bytes()).cloned().map(Shared).collect(),
        ),
    };
    let labels = snapshot.label_keys.listening(&proxy.labels);
    let input = EdgeInput {
        proxy: proxy.shared(labels, needs_address(proxy, scope, sets)),
        mesh: Shared(snapshot.mesh.clone()),
        services: generations.services,
        networks: generations.networks,
        configs,
        of_bytes,
        targets: targets.to_vec(),
        headless: sets.clone(),
        patches,
    };
    let key = (input.proxy.fingerprint(), target_names(targets), input.patches.fingerprint());
    snapshot.cache.edges.get(key, input, snapshot.number, |input| {
        let listeners = listeners::build_for(snapshot, &input.proxy, &input.targets);
        let mut patching = Patching::new(&input.patches);
        let listeners = patching.listeners(&input.proxy, listeners);
        let route_names = listeners::route_names(&listeners);
        let secrets = listeners::secret_names(&listeners);
        let listeners: Vec<_> = listeners.into_iter().map(Built::pack).collect();
        let (list, effects) = (Arc::new(List::new(listeners.clone())), patching.effects);
        Arc::new(Edge { named: named(&listeners), list, listeners, route_names, secrets, effects })
    })
}

/// Whether listeners bear the proxy's own address: where it has to bind it, or must not take connections to itself away.
fn needs_address(proxy: &Proxy, scope: &Scope, sets: &Headless) -> bool {
    let sidecar = scope.sidecar.as_ref().is_some_and(|sidecar| !sidecar.ingress.is_empty());
    let own = |set: &Shared<EndpointSet>| {
        let mut all = set.endpoints.iter().filter_map(|endpoint| endpoint.address.ip());
        all.any(|ip| proxy.addresses.contains(&ip))
    };
    let binds = proxy.is_loopback() || (!proxy.is_router() && !proxy.captures());
    binds || sidecar || sets.iter().any(|(_, set)| own(set))
}

fn target_names(targets: &[ServiceTarget]) -> Vec<(Host, u16)> {
    targets.iter().map(|target| (target.service.host.clone(), target.port.number)).collect()
}

/// What route configurations are made from.
#[derive(Debug, PartialEq)]
pub(crate) struct RoutesInput {
    proxy: Proxy,
    names: BTreeSet<String>,
    mesh: Shared<MeshConfig>,
    services: u64,
    /// Of the kinds that routes read.
    configs: [u64; 4],
    targets: Vec<ServiceTarget>,
    patches: PatchSet,
}

/// Route configurations.
#[derive(Debug)]
pub(crate) struct Routed {
    resources: Arc<[Arc<Resource>]>,
    list: Arc<List>,
    /// The clusters that they name beside those that requests go to.
    named: Arc<Named>,
    effects: Effects,
}

fn routed(
    snapshot: &Snapshot,
    proxy: &Proxy,
    scope: &Scope,
    targets: &[ServiceTarget],
    names: &BTreeSet<String>,
    patches: PatchSet,
) -> Arc<Routed> {
    let kinds = [Kind::VirtualService, Kind::DestinationRule, Kind::Sidecar, Kind::Gateway];
    let targets = if proxy.is_router() { targets.to_vec() } else { Vec::new() };
    let sidecar = scope.sidecar.is_some();
    let input = RoutesInput {
        proxy: proxy.shared(snapshot.label_keys.routing(&proxy.labels), proxy.is_loopback() || sidecar),
        names: names.clone(),
        mesh: Shared(snapshot.mesh.clone()),
        services: snapshot.generations().services,
        configs: kinds.map(|kind| snapshot.generation(kind)),
        targets,
        patches,
    };
    let (proxy, patches) = (input.proxy.fingerprint(), input.patches.fingerprint());
    let key = (proxy, target_names(&input.targets), input.names.clone(), patches);
    snapshot.cache.routes.get(key, input, snapshot.number, |input| {
        let parts = routes::build_for(snapshot, &input.proxy, &input.names, &input.targets);
        let mut patching = Patching::new(&input.patches);
        let (ports, is_router) = (PortMap::of(&input.targets), input.proxy.is_router());
        let mut beside = BTreeSet::new();
        let patched = |parts: RouteParts| {
            if input.patches.is_empty() {
                beside.extend(parts.hosts.iter().flat_map(|host| host.beside.iter().cloned()));
                return parts.pack();
            }
            let mut routes = parts.whole();
            patching.routes(Side::outward(is_router, &ports), &mut routes);
            scoping::find_beside_all(&routes.message, &mut beside);
            routes.pack()
        };
        let resources: Arc<[Arc<Resource>]> = parts.into_iter().map(patched).collect();
        let (list, effects) = (Arc::new(List::new(resources.to_vec())), patching.effects);
        Arc::new(Routed { list, resources, named: Named::new(beside), effects })
    })
}

fn bootstrap(snapshot: &Snapshot, proxy: &Proxy, patches: PatchSet) -> Arc<BootstrapPatch> {
    let (key, input) = ((patches.fingerprint(), proxy.is_router()), (patches, proxy.is_router()));
    let make = |(patches, is_router): &(PatchSet, bool)| Arc::new(BootstrapPatch::of(patches, *is_router));
    snapshot.cache.bootstraps.get(key, input, snapshot.number, make)
}

/// What the names are made from.
#[derive(Debug, PartialEq)]
pub(crate) struct NamesInput {
    proxy: Proxy,
    services: u64,
    mesh: Shared<MeshConfig>,
    configs: [u64; 2],
    headless: Headless,
}

/// A name table, as it is and as the resource that it is served as.
#[derive(Debug)]
pub(crate) struct Names {
    table: Arc<NameTable>,
    list: Arc<List>,
}

fn names(snapshot: &Snapshot, proxy: &Proxy, scope: &Scope, headless: Headless) -> Arc<Names> {
    let labels = match scope.sidecar {
        Some(_) => snapshot.label_keys.routing(&proxy.labels),
        None => Default::default(),
    };
    let input = NamesInput {
        proxy: proxy.shared(labels, false),
        services: snapshot.generations().services,
        mesh: Shared(snapshot.mesh.clone()),
        configs: [Kind::Sidecar, Kind::VirtualService].map(|kind| match scope.sidecar {
            Some(_) => snapshot.generation(kind),
            None => snapshot.generation(Kind::Sidecar),
        }),
        headless,
    };
    let key = input.proxy.fingerprint();
    snapshot.cache.names.get(key, input, snapshot.number, |input| {
        let table = Arc::new(name_table::build(snapshot, &input.proxy));
        let resource = |table: &Arc<NameTable>| Arc::new(Resource::pack("", &**table, vec![]));
        let resources = Some(&table).filter(|table| !table.table.is_empty()).map(resource);
        Arc::new(Names { list: Arc::new(List::new(resources.into_iter().collect())), table })
    })
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
    // The PROXY protocol comes before TLS, around it.
    let outer =
        config.unpack::<ProxyProtocolUpstreamTransport>().ok().and_then(|outer| outer.transport_socket);
    let inner = outer.and_then(|socket| socket.config_type);
    let config = match &inner {
        Some(ConfigType::TypedConfig(inner)) => inner,
        None => config,
    };
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
