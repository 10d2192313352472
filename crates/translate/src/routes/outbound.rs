//! Route configurations of sidecars.

use std::collections::BTreeSet;
use std::sync::Arc;

use lateen_base::Host;
use lateen_proto::envoy::config::route::v3 as route;
use lateen_registry::{Port, Service};

use super::connect;
use super::destinations::Destinations;
use super::fallback::{Unknown, configuration, refuse};
use super::parts::{MadeHost, RouteParts};
use super::rules;
use super::virtual_hosts::{HostSet, OutboundHosts};
use super::virtual_service::Rule;
use crate::cache::Shared;
use crate::names;
use crate::sidecar::{self, HTTP_PROXY_ROUTES};
use crate::snapshot::{Egress, Scope};
use crate::{Proxy, Snapshot};

/// What a route configuration's name says that it is for.
enum Wanted<'n> {
    /// A port, on the wildcard.
    Port(u16),
    /// One service's port, on the service's own address.
    Service(Host, u16),
    /// A unix socket that a Sidecar listens on.
    Socket(&'n str),
    /// The forward proxy of loopback isolation.
    ForwardProxy,
}

/// The route configurations of a sidecar, of those names.
pub(crate) fn build(snapshot: &Snapshot, proxy: &Proxy, names: &BTreeSet<String>) -> Vec<RouteParts> {
    let scope = snapshot.scope(proxy);
    let destinations = sidecar::destinations(snapshot, proxy, &scope);
    let builder = Routes { snapshot, proxy, scope: &scope, destinations: &destinations };
    names.iter().filter_map(|name| builder.build(name)).collect()
}

struct Routes<'a> {
    snapshot: &'a Snapshot,
    proxy: &'a Proxy,
    scope: &'a Scope,
    destinations: &'a Destinations<'a>,
}

impl<'a> Routes<'a> {
    fn build(&self, name: &str) -> Option<RouteParts> {
        let wanted = wanted(name)?;
        let egress = self.egress(&wanted)?;
        let mut notes = Vec::new();
        let rules = rules::rules(&self.snapshot.virtual_services, &egress.virtual_services, &mut notes);
        let forward = self.is_forward(&wanted, egress);
        let loopback = matches!(wanted, Wanted::ForwardProxy);
        let services = self.services(&wanted, egress);
        let places = services.iter().enumerate().map(|(at, (service, _))| (&service.host, at)).collect();
        let hosts = OutboundHosts {
            services,
            places,
            rules: &rules,
            port: match wanted {
                Wanted::Port(port) | Wanted::Service(_, port) if !forward => Some(port),
                _ => None,
            },
            stands_for_http: loopback,
            client: sidecar::client(self.proxy),
            destinations: self.destinations,
            counted: self.counts_attempts(),
        };
        let mut set = hosts.build();
        if loopback {
            self.add_connect(&mut set, &hosts, &rules);
        }
        notes.append(&mut set.notes);
        let mut virtual_hosts = set.hosts;
        if !matches!(wanted, Wanted::Service(..)) {
            virtual_hosts.push(Arc::new(MadeHost::new(self.rest(loopback))));
        }
        let head = configuration(name, Vec::new(), !loopback);
        Some(RouteParts { head, hosts: virtual_hosts, notes })
    }

    /// The egress listener that a configuration is for: the one of its port, else the one for all ports.
    fn egress(&self, wanted: &Wanted<'_>) -> Option<&'a Egress> {
        let all = &self.scope.egress;
        let explicit = all.iter().find(|egress| {
            let Some(listener) = &egress.listener else { return false };
            match wanted {
                Wanted::Socket(path) => listener.bind == *path,
                Wanted::Port(port) | Wanted::Service(_, port) => {
                    listener.port.as_ref().is_some_and(|given| given.number == u32::from(*port))
                }
                Wanted::ForwardProxy => false,
            }
        });
        let rest = || {
            all.iter().find(|egress| egress.listener.as_ref().is_none_or(|listener| listener.port.is_none()))
        };
        explicit.or_else(rest)
    }

    /// Whether all ports meet in one listener, so that domains bear ports.
    fn is_forward(&self, wanted: &Wanted<'_>, egress: &Egress) -> bool {
        let by_sidecar = || {
            let port = egress.listener.as_ref().and_then(|listener| listener.port.as_ref());
            port.is_some_and(|port| port.protocol.eq_ignore_ascii_case("HTTP_PROXY"))
        };
        matches!(wanted, Wanted::Socket(_) | Wanted::ForwardProxy) || by_sidecar()
    }

    fn services(&self, wanted: &Wanted<'_>, egress: &'a Egress) -> Vec<(&'a Arc<Service>, Vec<&'a Port>)> {
        let all = egress.services.iter();
        let with_ports = |service: &'a Arc<Service>| {
            let ports: Vec<&Port> = service
                .ports
                .iter()
                .filter(|port| match wanted {
                    Wanted::Port(number) if !self.is_forward(wanted, egress) => port.number == *number,
                    Wanted::Service(host, number) => service.host == *host && port.number == *number,
                    _ => true,
                })
                .collect();
            (!ports.is_empty()).then_some((service, ports))
        };
        all.filter_map(with_ports).collect()
    }

    /// Ways into ports that carry bytes, by CONNECT; ports that carry requests take CONNECT, too.
    fn add_connect(&self, set: &mut HostSet, hosts: &OutboundHosts<'_>, rules: &[Rule<'_>]) {
        for (service, ports) in &hosts.services {
            for port in ports.iter().filter(|port| port.protocol != lateen_registry::Protocol::Udp) {
                let clusters = self.byte_clusters(service, port, rules);
                let has_filter = self.destinations.has_alpn_filter();
                let Some(route) = connect::to_clusters("connect", &clusters, has_filter) else { continue };
                let name = format!("{}:{}", service.host, port.number);
                match set.hosts.iter_mut().find(|host| host.message.name == name) {
                    Some(host) => {
                        let mut message = host.message.clone();
                        message.routes.insert(0, route);
                        *host = Arc::new(MadeHost::new(message));
                    }
                    None => {
                        let names = hosts.service_names(service, port.number);
                        let routes = Shared(Arc::new(vec![route]));
                        set.add(hosts, &service.host, port.number, names, (&routes, 0), None);
                    }
                }
            }
        }
        set.hosts.sort_by(|a, b| a.message.name.cmp(&b.message.name));
    }

    /// Where the bytes of a service's port go: as the first TCP or TLS route for it says, else to the service.
    fn byte_clusters(&self, service: &Service, port: &Port, rules: &[Rule<'_>]) -> Vec<(String, u32)> {
        let client = sidecar::client(self.proxy);
        let mine =
            rules.iter().filter(|rule| rule.config.hosts.iter().any(|host| host.contains(&service.host)));
        for rule in mine {
            let spec = &rule.config.spec;
            let tcp = spec.tcp.iter().find(|route| {
                route.r#match.is_empty()
                    || route.r#match.iter().any(|wanted| {
                        super::virtual_service::port_applies(wanted.port, port.number)
                            && client.is_among(
                                &wanted.gateways,
                                &wanted.source_labels,
                                &wanted.source_namespace,
                            )
                    })
            });
            let tls = spec.tls.iter().find(|route| {
                route.r#match.iter().any(|wanted| {
                    super::virtual_service::port_applies(wanted.port, port.number)
                        && client.is_among(&wanted.gateways, &wanted.source_labels, &wanted.source_namespace)
                        && wanted.sni_hosts.iter().any(|name| Host::new(name).contains(&service.host))
                })
            });
            let route = tls.filter(|_| port.protocol.is_tls()).map(|route| &route.route);
            let route = route.or(tcp.filter(|_| !port.protocol.is_tls()).map(|route| &route.route));
            if let Some(route) = route {
                let cluster = |to: &lateen_api::kinds::virtual_service::RouteDestination| {
                    let owner = &rule.config.namespace;
                    let target = self.destinations.target(&to.destination, owner, port.number);
                    (target.cluster, u32::try_from(to.weight).unwrap_or(0))
                };
                return route.iter().filter(|to| route.len() == 1 || to.weight > 0).map(cluster).collect();
            }
        }
        vec![(self.destinations.own_target(service, port).cluster, 1)]
    }

    fn rest(&self, loopback: bool) -> route::VirtualHost {
        if !loopback {
            return sidecar::unknown(self.destinations).virtual_host();
        }
        let unknown = sidecar::unknown_by_name(self.destinations);
        let mut host = unknown.virtual_host();
        let has_filter = self.destinations.has_alpn_filter();
        let name = host.name.clone();
        let connect = match &unknown {
            Unknown::Refuse => Some(connect::refusing(&name, refuse(502))),
            Unknown::Proxy(cluster) => connect::to_clusters(&name, &[(cluster.clone(), 1)], has_filter),
            Unknown::Allow | Unknown::Resolve => {
                connect::to_clusters(&name, &[(names::DYNAMIC_DNS_CLUSTER.to_owned(), 1)], has_filter)
            }
        };
        if let Some(connect) = connect {
            host.routes.insert(0, connect);
        }
        host
    }

    fn counts_attempts(&self) -> bool {
        let config = crate::filters::settings::proxy_config(self.snapshot, self.proxy);
        let switch = config.proxy_headers.and_then(|headers| headers.attempt_count);
        switch.is_none_or(|switch| switch.disabled != Some(true))
    }
}

fn wanted(name: &str) -> Option<Wanted<'_>> {
    if name == HTTP_PROXY_ROUTES {
        return Some(Wanted::ForwardProxy);
    }
    if name.starts_with("unix://") {
        return Some(Wanted::Socket(name));
    }
    if let Ok(port) = name.parse() {
        return Some(Wanted::Port(port));
    }
    let (host, port) = name.rsplit_once(':')?;
    Some(Wanted::Service(Host::new(host), port.parse().ok()?))
}
