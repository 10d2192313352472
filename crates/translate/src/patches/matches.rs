//! Which listeners, chains, filters, route configurations, virtual hosts, routes and clusters a patch means.

use lateen_api::kinds::envoy_filter::{
    ApplyTo, EnvoyConfigObjectMatch, FilterChainMatch, FilterMatch, ListenerMatch, PatchContext, RouteAction,
    VirtualHostMatch,
};
use lateen_proto::envoy::config::cluster::v3::Cluster;
use lateen_proto::envoy::config::core::v3::TrafficDirection;
use lateen_proto::envoy::config::core::v3::address::Address;
use lateen_proto::envoy::config::core::v3::socket_address::PortSpecifier;
use lateen_proto::envoy::config::listener::v3::{FilterChain, Listener};
use lateen_proto::envoy::config::route::v3 as route;
use lateen_proto::value::Kind;

use super::Patch;
use crate::Proxy;
use crate::names::{self, Direction};

const VIRTUAL_INBOUND: &str = "virtualInbound";
const VIRTUAL_OUTBOUND: &str = "virtualOutbound";

/// The side of a proxy that a listener is of.
pub(crate) fn side(proxy: &Proxy, listener: &Listener) -> PatchContext {
    match (proxy.is_router(), listener.traffic_direction()) {
        (true, _) => PatchContext::Gateway,
        (false, TrafficDirection::Inbound) => PatchContext::SidecarInbound,
        (false, _) => PatchContext::SidecarOutbound,
    }
}

/// The side of a proxy that what is for services outside of it is of.
pub(crate) fn outward(is_router: bool) -> PatchContext {
    if is_router { PatchContext::Gateway } else { PatchContext::SidecarOutbound }
}

/// Whether a listener is of those that all intercepted connections come to, whose chains tell ports apart.
fn is_virtual(listener: &Listener) -> bool {
    listener.name == VIRTUAL_INBOUND || listener.name == VIRTUAL_OUTBOUND
}

/// Whether a patch means a listener, or something of it.
pub(crate) fn listener(patch: &Patch, proxy: &Proxy, listener: &Listener) -> bool {
    let Some(wanted) = &patch.condition.listener else { return true };
    has_name(wanted, proxy, listener) && has_port(wanted, patch.apply_to, listener)
}

/// In loopback isolation every port of the workload has a listener of its own in the place of `virtualInbound`.
pub(crate) fn has_name(wanted: &ListenerMatch, proxy: &Proxy, listener: &Listener) -> bool {
    let inbound = || listener.traffic_direction() == TrafficDirection::Inbound && proxy.is_loopback();
    wanted.name.is_empty()
        || wanted.name == listener.name
        || (wanted.name == VIRTUAL_INBOUND && inbound() && !proxy.is_router())
}

/// The port of a virtual listener is that of its chains, except for patches of the listener itself.
pub(crate) fn has_port(wanted: &ListenerMatch, apply_to: ApplyTo, listener: &Listener) -> bool {
    wanted.port_number == 0
        || (apply_to != ApplyTo::Listener && is_virtual(listener))
        || port(listener) == Some(wanted.port_number)
}

/// The port that a listener binds.
pub(crate) fn port(listener: &Listener) -> Option<u32> {
    match listener.address.as_ref()?.address.as_ref()? {
        Address::SocketAddress(address) => match address.port_specifier.as_ref()? {
            PortSpecifier::PortValue(port) => Some(*port),
            PortSpecifier::NamedPort(_) => None,
        },
        _ => None,
    }
}

/// Whether a patch means a chain of a listener that it means.
pub(crate) fn chain(patch: &Patch, listener: &Listener, chain: &FilterChain) -> bool {
    let Some(wanted) = &patch.condition.listener else { return true };
    let matched = chain.filter_chain_match.clone().unwrap_or_default();
    let of_port = |port: u32| port == 0 || matched.destination_port == Some(port);
    if is_virtual(listener) && !of_port(wanted.port_number) {
        return false;
    }
    let Some(FilterChainMatch {
        name,
        sni,
        transport_protocol,
        application_protocols,
        filter: _,
        destination_port,
        transport_socket,
    }) = &wanted.filter_chain
    else {
        return true;
    };
    let socket = chain.transport_socket.as_ref().map(|socket| socket.name.as_str()).unwrap_or_default();
    let mut protocols = application_protocols.split(',').filter(|protocol| !protocol.is_empty());
    (name.is_empty() || *name == chain.name)
        && (sni.is_empty() || matched.server_names.contains(sni))
        && (transport_protocol.is_empty() || *transport_protocol == matched.transport_protocol)
        && (transport_socket.is_empty() || transport_socket == socket)
        && protocols.all(|wanted| matched.application_protocols.iter().any(|protocol| protocol == wanted))
        && of_port(*destination_port)
}

/// The condition on network filters.
pub(crate) fn filter(condition: &EnvoyConfigObjectMatch) -> Option<&FilterMatch> {
    condition.listener.as_ref()?.filter_chain.as_ref()?.filter.as_ref()
}

/// The name of the HTTP filter that is meant.
pub(crate) fn sub_filter(condition: &EnvoyConfigObjectMatch) -> Option<&str> {
    Some(filter(condition)?.sub_filter.as_ref()?.name.as_str())
}

/// The name of the listener filter that is meant.
pub(crate) fn listener_filter(condition: &EnvoyConfigObjectMatch) -> Option<&str> {
    let name = condition.listener.as_ref()?.listener_filter.as_str();
    (!name.is_empty()).then_some(name)
}

/// The condition on virtual hosts.
pub(crate) fn virtual_host_condition(condition: &EnvoyConfigObjectMatch) -> Option<&VirtualHostMatch> {
    condition.route_configuration.as_ref()?.vhost.as_ref()
}

/// Whether a patch means a virtual host of a route configuration that it means.
pub(crate) fn virtual_host(patch: &Patch, host: &route::VirtualHost) -> bool {
    virtual_host_condition(&patch.condition).is_none_or(|wanted| {
        (wanted.name.is_empty() || wanted.name == host.name)
            && (wanted.domain_name.is_empty() || host.domains.contains(&wanted.domain_name))
    })
}

/// Whether a patch says which routes it means.
pub(crate) fn picks_routes(patch: &Patch) -> bool {
    virtual_host_condition(&patch.condition).is_some_and(|wanted| wanted.route.is_some())
}

/// Whether a patch means a route of a virtual host that it means.
pub(crate) fn route(patch: &Patch, route: &route::Route) -> bool {
    use route::route::Action;
    let Some(wanted) = virtual_host_condition(&patch.condition).and_then(|host| host.route.as_ref()) else {
        return true;
    };
    let does = match wanted.action {
        RouteAction::Any => true,
        RouteAction::Route => matches!(route.action, Some(Action::Route(_))),
        RouteAction::Redirect => matches!(route.action, Some(Action::Redirect(_))),
        RouteAction::DirectResponse => matches!(route.action, Some(Action::DirectResponse(_))),
    };
    does && (wanted.name.is_empty() || wanted.name == route.name)
}

/// Whether a patch means a cluster. Those of the workload itself have no host in their names; their services count.
pub(crate) fn cluster(patch: &Patch, cluster: &Cluster) -> bool {
    let Some(wanted) = &patch.condition.cluster else { return true };
    if !wanted.name.is_empty() {
        return wanted.name == cluster.name;
    }
    let Some((direction, port, subset, host)) = names::parse_cluster(&cluster.name) else {
        return wanted.subset.is_empty() && wanted.service.is_empty() && wanted.port_number == 0;
    };
    let serves = || match direction {
        Direction::Outbound => host.as_str() == wanted.service,
        Direction::Inbound => services(cluster).any(|service| service == wanted.service),
    };
    (wanted.subset.is_empty() || wanted.subset == subset)
        && (wanted.port_number == 0 || wanted.port_number == u32::from(port))
        && (wanted.service.is_empty() || serves())
}

/// The side of a proxy that a cluster is of.
pub(crate) fn side_of_cluster(is_router: bool, cluster: &Cluster) -> PatchContext {
    let inbound = cluster.name.starts_with("inbound|") || cluster.name == names::INBOUND_PASSTHROUGH_CLUSTER;
    if inbound { PatchContext::SidecarInbound } else { outward(is_router) }
}

/// The hosts of the services that a cluster says it stands for.
fn services(cluster: &Cluster) -> impl Iterator<Item = &str> {
    let istio = cluster.metadata.as_ref().and_then(|metadata| metadata.filter_metadata.get("istio"));
    let listed = istio.and_then(|istio| istio.fields.get("services"));
    let services = match listed.and_then(|value| value.kind.as_ref()) {
        Some(Kind::ListValue(list)) => list.values.as_slice(),
        _ => &[],
    };
    services.iter().filter_map(|service| match service.kind.as_ref()? {
        Kind::StructValue(service) => match service.fields.get("host")?.kind.as_ref()? {
            Kind::StringValue(host) => Some(host.as_str()),
            _ => None,
        },
        _ => None,
    })
}
