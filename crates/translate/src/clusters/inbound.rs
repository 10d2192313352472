//! The clusters that lead to the workload itself.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use lateen_api::kinds::destination_rule::ConnectionPoolSettings;
use lateen_api::kinds::sidecar::IstioIngressListener;
use lateen_api::mesh::MeshConfig;
use lateen_api::mesh::config::MeshInboundMode;
use lateen_proto::envoy::config::cluster::v3 as cluster;
use lateen_proto::envoy::config::cluster::v3::cluster::{ClusterDiscoveryType, DiscoveryType, LbPolicy};
use lateen_proto::envoy::config::core::v3 as core;
use lateen_proto::envoy::config::endpoint::v3 as endpoint;
use lateen_proto::envoy::config::endpoint::v3::lb_endpoint::HostIdentifier;
use lateen_registry::{Protocol, Service};

use super::class::Class;
use super::outbound::services;
use super::policy::Policy;
use super::pool::{self, HttpVersion};
use super::{fixed, stat_name_of};
use crate::filters::wire::{duration, pipe_address, structure, tcp_address};
use crate::snapshot::{Scope, ServiceTarget};
use crate::{Built, Proxy, names};

/// Never: such clusters forget no address by time.
const NEVER: Duration = Duration::from_secs(9_223_372_035);

/// Where a cluster leads.
#[derive(Clone, Debug, PartialEq)]
enum Place {
    /// To the address that the client asked for.
    AsAsked,
    /// To one address.
    At(core::Address),
}

/// Everything that one inbound cluster is made from.
#[derive(Clone, Debug, PartialEq)]
struct Input {
    port: u16,
    protocol: Protocol,
    services: Vec<Arc<Service>>,
    service_port: (String, u16),
    place: Place,
    pool: Option<ConnectionPoolSettings>,
    class: Arc<Class>,
    mesh: Arc<MeshConfig>,
}

/// The clusters of a sidecar's own workload, by port.
pub(crate) fn build(
    proxy: &Proxy,
    scope: &Scope,
    targets: &[ServiceTarget],
    class: &Arc<Class>,
    mesh: &Arc<MeshConfig>,
) -> Vec<Built<cluster::Cluster>> {
    let ingress = scope.sidecar.as_ref().map(|sidecar| sidecar.ingress.as_slice()).unwrap_or_default();
    if !ingress.is_empty() {
        let of = |listener| of_ingress(listener, proxy, scope, targets, class, mesh);
        return ingress.iter().filter_map(of).map(|input| one(&input)).collect();
    }
    // Without interception, and without an address of the application's own, nothing tells inbound traffic apart.
    if !class.captures && !class.loopback {
        return Vec::new();
    }
    let mut by_port: BTreeMap<u16, Vec<&ServiceTarget>> = BTreeMap::new();
    for target in targets.iter().filter(|target| target.port.protocol != Protocol::Udp) {
        by_port.entry(target.target_port).or_default().push(target);
    }
    by_port
        .into_iter()
        .map(|(port, targets)| one(&of_services(port, &targets, proxy, scope, class, mesh)))
        .collect()
}

fn of_services(
    port: u16,
    targets: &[&ServiceTarget],
    proxy: &Proxy,
    scope: &Scope,
    class: &Arc<Class>,
    mesh: &Arc<MeshConfig>,
) -> Input {
    // The oldest service decides what the port speaks.
    let first = targets[0];
    let mut all: Vec<Arc<Service>> = Vec::new();
    for target in targets {
        if !all.iter().any(|known| known.host == target.service.host) {
            all.push(target.service.clone());
        }
    }
    let local = mesh.inbound_traffic_policy.as_ref().is_some_and(|p| p.mode == MeshInboundMode::Localhost);
    let place = match proxy.metadata.app_address {
        Some(address) => Place::At(tcp_address(&address.to_string(), port)),
        None if local => Place::At(tcp_address(proxy.localhost(), port)),
        None => Place::AsAsked,
    };
    Input {
        port,
        protocol: first.port.protocol,
        service_port: (first.port.name.clone(), first.port.number),
        pool: pool_of(None, Some(first), proxy, scope),
        services: all,
        place,
        class: class.clone(),
        mesh: mesh.clone(),
    }
}

fn of_ingress(
    listener: &IstioIngressListener,
    proxy: &Proxy,
    scope: &Scope,
    targets: &[ServiceTarget],
    class: &Arc<Class>,
    mesh: &Arc<MeshConfig>,
) -> Option<Input> {
    let port = listener.port.number as u16;
    let target = targets.iter().find(|target| target.target_port == port);
    let local = mesh.inbound_traffic_policy.as_ref().is_some_and(|p| p.mode == MeshInboundMode::Localhost);
    Some(Input {
        port,
        protocol: listener.port.protocol.parse().unwrap_or(Protocol::Auto),
        services: target.map(|target| target.service.clone()).into_iter().collect(),
        service_port: (listener.port.name.clone(), port),
        place: default_endpoint(&listener.default_endpoint, port, proxy, local)?,
        pool: pool_of(Some(listener), target, proxy, scope),
        class: class.clone(),
        mesh: mesh.clone(),
    })
}

/// The place that a Sidecar names: a socket, the local host, the instance's own address, or nothing.
fn default_endpoint(text: &str, port: u16, proxy: &Proxy, local: bool) -> Option<Place> {
    if text.is_empty() {
        return Some(match proxy.metadata.app_address {
            Some(address) => Place::At(tcp_address(&address.to_string(), port)),
            None if local => Place::At(tcp_address(proxy.localhost(), port)),
            None => Place::AsAsked,
        });
    }
    if let Some(path) = text.strip_prefix("unix://") {
        return Some(Place::At(pipe_address(path)));
    }
    let (host, number) = text.rsplit_once(':')?;
    let address: IpAddr = host.trim_matches(['[', ']']).parse().ok()?;
    let number = number.parse().ok()?;
    let address = match (address, proxy.metadata.app_address) {
        // In loopback isolation the application has an address of its own in the place of the local host.
        (_, Some(own)) => own.to_string(),
        (address, None) if address.is_loopback() => proxy.localhost().to_owned(),
        (_, None) => proxy.addresses.first()?.to_string(),
    };
    Some(Place::At(tcp_address(&address, number)))
}

/// The pool that holds: the ingress listener's, the Sidecar's for all ports, the service's destination rule's.
fn pool_of(
    listener: Option<&IstioIngressListener>,
    target: Option<&ServiceTarget>,
    proxy: &Proxy,
    scope: &Scope,
) -> Option<ConnectionPoolSettings> {
    let own = listener.and_then(|listener| listener.connection_pool.clone());
    let sidecar = || scope.sidecar.as_ref()?.inbound_connection_pool.clone();
    let rule = || {
        let target = target?;
        let rule = scope.destination_rule(&target.service.host, &proxy.labels)?;
        Policy::at(rule.spec.traffic_policy.as_ref(), None, target.port.number).pool
    };
    own.or_else(sidecar).or_else(rule)
}

fn one(input: &Input) -> Built<cluster::Cluster> {
    let name = names::inbound_cluster(input.port);
    let (port_name, port) = (&input.service_port.0, input.service_port.1);
    let pattern = &input.mesh.inbound_cluster_stat_name;
    let mut to = cluster::Cluster {
        alt_stat_name: match input.services.first() {
            Some(service) => stat_name_of(pattern, &name, service, port_name, port, ""),
            None => format!("{name};"),
        },
        connect_timeout: input.mesh.connect_timeout.map(duration),
        name: name.clone(),
        ..Default::default()
    };
    if !input.services.is_empty() {
        let fields = structure([("services", services(&input.services))]);
        to.metadata = Some(core::Metadata {
            filter_metadata: [("istio".to_owned(), fields)].into(),
            ..Default::default()
        });
    }
    let kind = match &input.place {
        Place::AsAsked => {
            to.lb_policy = LbPolicy::ClusterProvided.into();
            to.cleanup_interval = Some(duration(NEVER));
            to.upstream_bind_config = Some(fixed::from_inbound(&input.class));
            DiscoveryType::OriginalDst
        }
        Place::At(address) => {
            to.lb_policy = LbPolicy::RoundRobin.into();
            to.load_assignment = Some(single(&name, address));
            DiscoveryType::Static
        }
    };
    to.cluster_discovery_type = Some(ClusterDiscoveryType::Type(kind.into()));
    let version = HttpVersion::of(input.protocol, input.pool.as_ref(), &MeshConfig::default());
    let http = pool::apply(&mut to, input.pool.as_ref(), None, version, &input.mesh);
    http.write(&mut to);
    Built::new(name, to)
}

fn single(name: &str, address: &core::Address) -> endpoint::ClusterLoadAssignment {
    let host = endpoint::Endpoint { address: Some(address.clone()), ..Default::default() };
    let lb_endpoint =
        endpoint::LbEndpoint { host_identifier: Some(HostIdentifier::Endpoint(host)), ..Default::default() };
    endpoint::ClusterLoadAssignment {
        cluster_name: name.to_owned(),
        endpoints: vec![endpoint::LocalityLbEndpoints {
            lb_endpoints: vec![lb_endpoint],
            ..Default::default()
        }],
        ..Default::default()
    }
}
