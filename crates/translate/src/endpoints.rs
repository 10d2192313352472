//! Load assignments: the endpoints of clusters of type EDS, as one proxy reaches them.

pub(crate) mod group;
pub(crate) mod locality;
pub(crate) mod network;

use std::collections::BTreeSet;
use std::sync::Arc;

use lateen_api::kinds::destination_rule::{ClientTlsMode, LoadBalancerSettings};
use lateen_api::mesh::MeshConfig;
use lateen_base::{ClusterId, Labels, Network};
use lateen_proto::envoy::config::endpoint::v3::ClusterLoadAssignment;
use lateen_registry::{Endpoint, EndpointSet, Health, Service};

use crate::cache::Shared;
use crate::clusters::policy::Policy;
use crate::names::{self, Direction};
use crate::snapshot::{MergedRule, MtlsMode, Scope, label_keys};
use crate::{Built, Proxy, Snapshot};
use locality::{Client, Rules};
use network::Gateways;

/// What of a proxy its endpoints depend on.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct View {
    client: Client,
    network: Network,
    cluster: ClusterId,
    node: String,
    wanted: BTreeSet<Network>,
}

impl View {
    /// The view of a proxy.
    pub(crate) fn of(snapshot: &Snapshot, proxy: &Proxy) -> Self {
        let workload = snapshot.workload_of(proxy);
        let metadata = &proxy.metadata;
        let network = match (&workload, metadata.network.is_empty()) {
            (Some(workload), true) => workload.network.clone(),
            _ => metadata.network.clone(),
        };
        let locality = snapshot.locality_of(proxy);
        let keys = &snapshot.label_keys;
        let mut labels = keys.routing(&proxy.labels);
        let node = match (&workload, metadata.node.is_empty()) {
            _ if !keys.nodes => String::new(),
            (Some(workload), true) => workload.node.clone(),
            _ => metadata.node.clone(),
        };
        let place = [
            ("topology.kubernetes.io/region", locality.region.as_str()),
            ("topology.kubernetes.io/zone", &locality.zone),
            ("topology.istio.io/subzone", &locality.subzone),
            ("topology.istio.io/cluster", metadata.cluster.as_str()),
            ("topology.istio.io/network", network.as_str()),
            (label_keys::NODE, &node),
        ];
        for (key, value) in place.into_iter().filter(|(_, value)| !value.is_empty()) {
            labels.0.entry(key.to_owned()).or_insert_with(|| value.to_owned());
        }
        Self {
            client: Client { locality, labels },
            network,
            cluster: metadata.cluster.clone(),
            node,
            wanted: metadata.network_view.clone(),
        }
    }
}

/// Everything that a load assignment is made from: equal inputs make equal assignments.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Input {
    name: String,
    service: Arc<Service>,
    port_name: String,
    port: u16,
    subset: String,
    set: Arc<EndpointSet>,
    rule: Option<Shared<MergedRule>>,
    gateways: Arc<Gateways>,
    view: Arc<View>,
    mesh: Shared<MeshConfig>,
    /// The endpoints (by place in the set) whose workloads refuse mTLS.
    refusing: BTreeSet<usize>,
}

/// The load assignments of those clusters; each name is answered, with nothing where nothing is known.
pub fn build(
    snapshot: &Snapshot,
    proxy: &Proxy,
    names: &BTreeSet<String>,
) -> Vec<Built<ClusterLoadAssignment>> {
    let scope = snapshot.scope(proxy);
    let view = Arc::new(View::of(snapshot, proxy));
    let gateways = Arc::new(Gateways::of(&snapshot.view.gateways));
    let one = |name: &String| match input(snapshot, &proxy.labels, &scope, &view, &gateways, name) {
        Some(input) => assignment(&input),
        None => empty(name),
    };
    names.iter().map(one).collect()
}

pub(crate) fn empty(name: &str) -> Built<ClusterLoadAssignment> {
    Built::new(name, ClusterLoadAssignment { cluster_name: name.to_owned(), ..Default::default() })
}

/// Gathers what a load assignment is made from; `None` for names of no service that the proxy sees.
pub(crate) fn input(
    snapshot: &Snapshot,
    labels: &Labels,
    scope: &Scope,
    view: &Arc<View>,
    gateways: &Arc<Gateways>,
    name: &str,
) -> Option<Input> {
    let (direction, number, subset, host) = names::parse_cluster(name)?;
    if direction != Direction::Outbound {
        return None;
    }
    let service = scope.service(&host)?;
    let port = service.port(number)?;
    let set = snapshot.view.endpoints_of(service)?;
    let refuses = |endpoint: &Endpoint| {
        let policy = snapshot.peer_policy(&endpoint.namespace, &endpoint.labels);
        policy.of_port(endpoint.port) == MtlsMode::Disable
    };
    let mut refusing = BTreeSet::new();
    if snapshot.has_peer_policies() {
        let of_port = set.endpoints.iter().enumerate().filter(|(_, e)| e.service_port == port.name);
        refusing.extend(of_port.filter(|(_, endpoint)| refuses(endpoint)).map(|(at, _)| at));
    }
    Some(Input {
        name: name.to_owned(),
        service: service.clone(),
        port_name: port.name.clone(),
        port: number,
        subset: subset.to_owned(),
        set: set.clone(),
        rule: scope.destination_rule(&host, labels).cloned().map(Shared),
        gateways: gateways.clone(),
        view: view.clone(),
        mesh: Shared(snapshot.mesh.clone()),
        refusing,
    })
}

/// The load assignment of an input.
pub(crate) fn assignment(input: &Input) -> Built<ClusterLoadAssignment> {
    let subset = input.rule.iter().flat_map(|rule| &rule.spec.subsets).find(|s| s.name == input.subset);
    if !input.subset.is_empty() && subset.is_none() {
        return empty(&input.name);
    }
    let of_rule = input.rule.as_ref().and_then(|rule| rule.spec.traffic_policy.as_ref());
    let of_subset = subset.and_then(|subset| subset.traffic_policy.as_ref());
    let policy = Policy::at(of_rule, of_subset, input.port).or_mesh(&input.mesh);
    let labels = subset.map(|subset| &subset.labels);
    let chosen = input.set.endpoints.iter().enumerate().filter(|(_, endpoint)| {
        endpoint.service_port == input.port_name && shown(input, endpoint, labels, &policy)
    });
    let refusing: BTreeSet<*const Endpoint> =
        input.refusing.iter().filter_map(|at| input.set.endpoints.get(*at)).map(std::ptr::from_ref).collect();
    let takes_mtls = |endpoint: &Endpoint| {
        endpoint.mtls && !refusing.contains(&std::ptr::from_ref(endpoint)) && rule_allows(input, &policy)
    };
    let reachable = network::reachable(
        chosen.map(|(_, endpoint)| endpoint),
        &input.view.network,
        &input.gateways,
        takes_mtls,
    );
    let distribution = input.service.traffic_distribution.as_deref();
    let balancer: Option<&LoadBalancerSettings> = policy.load_balancer.as_ref();
    let rules = Rules::of(balancer, distribution, &input.mesh, policy.outlier.is_some());
    let groups = group::by_locality(reachable);
    Built::new(
        input.name.clone(),
        ClusterLoadAssignment {
            cluster_name: input.name.clone(),
            endpoints: locality::arrange(groups, &input.view.client, rules.as_ref()),
            ..Default::default()
        },
    )
}

/// Whether an endpoint is for this client at all.
fn shown(input: &Input, endpoint: &Endpoint, subset: Option<&Labels>, policy: &Policy) -> bool {
    let view = &input.view;
    let healthy = match endpoint.health {
        Health::Healthy | Health::Draining => true,
        Health::Terminating => false,
        // With a minimum of healthy endpoints, panic would send requests to those that are not even ready.
        Health::Unhealthy => {
            let panics = policy.outlier.as_ref().is_some_and(|outlier| outlier.min_health_percent > 0);
            input.service.publish_not_ready || !panics
        }
    };
    let node = !input.service.node_local || endpoint.node == view.node;
    let cluster = !endpoint.cluster_local || endpoint.cluster == view.cluster;
    let network =
        view.wanted.is_empty() || endpoint.network.is_empty() || view.wanted.contains(&endpoint.network);
    healthy && node && cluster && network && subset.is_none_or(|subset| subset.selects(&endpoint.labels))
}

/// Whether connections to the cluster are mTLS of the mesh: a rule's own TLS decides, else whether it is automatic.
fn rule_allows(input: &Input, policy: &Policy) -> bool {
    match policy.tls.as_ref().map(|tls| tls.mode) {
        Some(mode) => mode == ClientTlsMode::IstioMutual,
        None => input.mesh.enable_auto_mtls.unwrap_or(true),
    }
}
