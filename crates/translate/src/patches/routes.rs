//! Patches of route configurations, virtual hosts and routes.

use std::collections::{BTreeMap, BTreeSet};

use lateen_api::kinds::envoy_filter::{
    ApplyTo, EnvoyConfigObjectMatch, PatchContext, PatchOperation, RouteConfigurationMatch,
};
use lateen_proto::envoy::config::route::v3::{Route, RouteConfiguration, VirtualHost};

use super::edit::{self, Edited, ListEdit};
use super::{Patch, Patching, matches};
use crate::Built;
use crate::sidecar::HTTP_PROXY_ROUTES;
use crate::snapshot::ServiceTarget;

/// The ports of services by the ports that a gateway listens on for them.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct PortMap(BTreeMap<u16, BTreeSet<u16>>);

impl PortMap {
    /// Those of the services that a proxy serves.
    pub(crate) fn of(targets: &[ServiceTarget]) -> Self {
        let mut map = Self::default();
        for target in targets {
            map.0.entry(target.target_port).or_default().insert(target.port.number);
        }
        map
    }

    /// Whether what is served on a port is known by this number.
    fn knows(&self, target: u16, wanted: u32) -> bool {
        match self.0.get(&target) {
            Some(ports) => ports.iter().any(|port| u32::from(*port) == wanted),
            None => u32::from(target) == wanted,
        }
    }
}

/// Which side of a proxy routes are of, and the ports that its services have.
#[derive(Clone, Copy)]
pub(crate) struct Side<'a> {
    /// The side.
    pub(crate) context: PatchContext,
    /// The ports.
    pub(crate) ports: &'a PortMap,
}

impl<'a> Side<'a> {
    /// The side that leads outwards.
    pub(crate) fn outward(is_router: bool, ports: &'a PortMap) -> Self {
        Self { context: matches::outward(is_router), ports }
    }

    /// Whether a patch means a route configuration.
    pub(crate) fn means(&self, condition: &EnvoyConfigObjectMatch, name: &str) -> bool {
        let Some(wanted) = &condition.route_configuration else { return true };
        let RouteConfigurationMatch { port_number, port_name, gateway, vhost: _, name: wanted_name } = wanted;
        let named = wanted_name.is_empty() || wanted_name == name;
        if self.context != PatchContext::Gateway {
            // One route configuration is for all ports where applications are told of a proxy.
            let all_ports = name == HTTP_PROXY_ROUTES;
            let named = named || (all_ports && wanted_name.parse::<u16>().is_ok());
            return named && (*port_number == 0 || all_ports || port_of(name) == Some(*port_number));
        }
        let parts = GatewayName::parse(name);
        named
            && (*port_number == 0 || parts.port.is_some_and(|port| self.ports.knows(port, *port_number)))
            && (port_name.is_empty() || *port_name == parts.port_name)
            && (gateway.is_empty() || *gateway == parts.gateway)
    }

    /// Whether a patch means a virtual host of a route configuration that it means.
    fn means_host(&self, patch: &Patch, configuration: &str, host: &VirtualHost) -> bool {
        let of_port = |wanted: &RouteConfigurationMatch| {
            let named = wanted.name.parse().unwrap_or(wanted.port_number);
            configuration != HTTP_PROXY_ROUTES || named == 0 || host.name.ends_with(&format!(":{named}"))
        };
        matches::virtual_host(patch, host) && patch.condition.route_configuration.as_ref().is_none_or(of_port)
    }
}

/// The port in the name of a sidecar's route configuration: `PORT`, `HOST:PORT`, or `inbound|PORT||`.
fn port_of(name: &str) -> Option<u32> {
    match name.strip_prefix("inbound|") {
        Some(rest) => rest.split('|').next()?.parse().ok(),
        None => name.rsplit(':').next()?.parse().ok(),
    }
}

/// What the name of a gateway's route configuration says.
#[derive(Debug, Default, PartialEq)]
struct GatewayName {
    port: Option<u16>,
    port_name: String,
    gateway: String,
}

impl GatewayName {
    /// Reads `http.PORT[.BIND]` and `https.PORT.PORT-NAME.GATEWAY.NAMESPACE[.BIND]`.
    fn parse(name: &str) -> Self {
        let mut parts = name.split('.');
        let kind = parts.next().unwrap_or_default();
        let port = parts.next().and_then(|port| port.parse().ok());
        if kind != "https" {
            return Self { port, ..Self::default() };
        }
        let mut next = || parts.next().unwrap_or_default();
        let (port_name, gateway, namespace) = (next().to_owned(), next(), next());
        Self { port, port_name, gateway: format!("{namespace}/{gateway}") }
    }
}

impl Patching<'_> {
    /// Patches a route configuration, level by level: itself, its virtual hosts, their routes; what is added comes last.
    pub(crate) fn routes(&mut self, side: Side<'_>, built: &mut Built<RouteConfiguration>) {
        let set = self.patches;
        let of = |apply_to: ApplyTo| set.of(apply_to).filter(move |patch| patch.is_for(side.context));
        for patch in of(ApplyTo::RouteConfiguration) {
            self.attempt_routes(side, patch, built, |routes| itself(patch, routes));
        }
        let adds = |patch: &&std::sync::Arc<Patch>| patch.operation == PatchOperation::Add;
        for patch in of(ApplyTo::VirtualHost).filter(|patch| !adds(patch)) {
            self.attempt_routes(side, patch, built, |routes| hosts(side, patch, routes));
        }
        let inside =
            |patch: &&std::sync::Arc<Patch>| patch.merges() || patch.operation == PatchOperation::Remove;
        for patch in
            of(ApplyTo::HttpRoute).filter(inside).chain(of(ApplyTo::HttpRoute).filter(|p| !inside(p)))
        {
            self.attempt_routes(side, patch, built, |routes| routes_of_hosts(side, patch, routes));
        }
        for patch in of(ApplyTo::VirtualHost).filter(adds) {
            self.attempt_routes(side, patch, built, |routes| hosts(side, patch, routes));
        }
    }

    fn attempt_routes(
        &mut self,
        side: Side<'_>,
        patch: &Patch,
        built: &mut Built<RouteConfiguration>,
        edit: impl FnOnce(&mut RouteConfiguration) -> Edited,
    ) {
        if side.means(&patch.condition, &built.message.name) {
            self.attempt(patch, built, edit);
        }
    }
}

fn itself(patch: &Patch, routes: &mut RouteConfiguration) -> Edited {
    let merged = patch.message::<RouteConfiguration>().and_then(|value| {
        let name = routes.name.clone();
        edit::plain(routes, &value, edit::lists(patch.operation))?;
        routes.name = name;
        Ok(1)
    });
    merged.into()
}

fn hosts(side: Side<'_>, patch: &Patch, routes: &mut RouteConfiguration) -> Edited {
    let name = routes.name.clone();
    let wanted = |host: &VirtualHost| side.means_host(patch, &name, host);
    ListEdit { patch, picks: true, wanted: &wanted, merge: &edit::plain }.apply(&mut routes.virtual_hosts)
}

fn routes_of_hosts(side: Side<'_>, patch: &Patch, routes: &mut RouteConfiguration) -> Edited {
    let mut edited = Edited::default();
    let wanted = |route: &Route| matches::route(patch, route);
    let edit = ListEdit { patch, picks: matches::picks_routes(patch), wanted: &wanted, merge: &edit::plain };
    let name = routes.name.clone();
    for host in routes.virtual_hosts.iter_mut().filter(|host| side.means_host(patch, &name, host)) {
        edited.add(edit.apply(&mut host.routes));
    }
    edited
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_route_configurations_are_read() {
        for (name, port) in
            [("80", Some(80)), ("a.b:8080", Some(8080)), ("inbound|9080||", Some(9080)), ("x", None)]
        {
            assert_eq!(port_of(name), port, "{name}");
        }
        let https = GatewayName::parse("https.8443.web.edge.shop");
        assert_eq!(
            (https.port, https.port_name.as_str(), https.gateway.as_str()),
            (Some(8443), "web", "shop/edge")
        );
        assert_eq!(GatewayName::parse("http.8080.10.0.0.1").port, Some(8080));
    }

    #[test]
    fn ports_of_gateways_are_those_of_their_services() {
        let map = PortMap([(8080, [80, 81].into())].into());
        assert!(
            map.knows(8080, 80) && map.knows(8080, 81) && !map.knows(8080, 8080) && map.knows(9090, 9090)
        );
    }
}
