//! Listeners of gateways.

use std::collections::BTreeMap;

use lateen_api::kinds::gateway::ServerTlsMode;
use lateen_proto::envoy::config::core::v3::TrafficDirection;
use lateen_proto::envoy::config::listener::v3::{Filter, Listener};
use lateen_registry::Protocol;

use super::chain::{Chain, ChainMatch, bind};
use super::l4::{L4, server_names, to_cluster};
use super::{matrix, server_tls};
use crate::clusters::by_sni;
use crate::edge::EdgeObjects;
use crate::filters::access_log::for_listener;
use crate::filters::extensions::TrafficClass;
use crate::filters::hcm::{HttpChain, HttpSettings};
use crate::filters::listener_filters::{proxy_protocol, tls_inspector};
use crate::filters::security::security;
use crate::filters::settings::{default_tls, proxy_config};
use crate::filters::tls::{HTTP_ALPN, Parameters, TCP_ALPN};
use crate::filters::wire::{provenance, tcp_address};
use crate::gateways::{Merged, PortKind, PortServers, Running};
use crate::names;
use crate::routes::gateway::intersection;
use crate::routes::virtual_service::{Client, Rule, port_applies};
use crate::snapshot::ServiceTarget;
use crate::{Built, Proxy, Snapshot, sidecar};

/// What gateway listeners are made from.
pub(crate) struct GatewayListeners<'a> {
    /// The proxy.
    pub(crate) proxy: &'a Proxy,
    /// What chains of bytes are made from; its client's gateway is set per server.
    pub(crate) l4: L4<'a>,
    /// What all connection managers share.
    pub(crate) settings: &'a HttpSettings,
    /// Versions and ciphers where servers say nothing.
    pub(crate) parameters: &'a Parameters,
    /// The VirtualServices of each Gateway, in order of precedence.
    pub(crate) rules: &'a BTreeMap<String, Vec<Rule<'a>>>,
    /// Filters that check who connects, for bytes.
    pub(crate) security: &'a [Filter],
    /// Whether clients speak the PROXY protocol.
    pub(crate) proxy_protocol: bool,
}

impl GatewayListeners<'_> {
    /// The listeners of the merged Gateways; a port without any chain has none.
    pub(crate) fn build(&self, merged: &Merged<'_>) -> Vec<Built<Listener>> {
        merged
            .ports
            .iter()
            .filter_map(|((bind, port), servers)| self.listener(bind, *port, servers))
            .collect()
    }

    fn listener(&self, address: &str, port: u16, servers: &PortServers<'_>) -> Option<Built<Listener>> {
        let address = if address.is_empty() { self.proxy.wildcard() } else { address };
        let name = format!("{address}_{port}");
        let chains: Vec<Chain> = match servers.kind {
            PortKind::Http => {
                servers.servers.first().map(|first| self.http(first, &name)).into_iter().collect()
            }
            PortKind::Tls => servers.servers.iter().flat_map(|server| self.tls(server, &name)).collect(),
            PortKind::Tcp => servers.servers.iter().flat_map(|server| self.tcp(server, None)).collect(),
        };
        if chains.is_empty() {
            return None;
        }
        // In loopback isolation all pods share one host: what would be every address is the pod's own.
        let own = self.proxy.addresses.first().filter(|_| self.proxy.is_loopback()).map(ToString::to_string);
        let place = own.as_deref().filter(|_| address == self.proxy.wildcard()).unwrap_or(address);
        let mut listener = Listener {
            name: name.clone(),
            address: Some(tcp_address(place, port)),
            traffic_direction: TrafficDirection::Outbound.into(),
            access_log: for_listener(&self.settings.access_log),
            ..Default::default()
        };
        bind(&mut listener);
        if self.proxy_protocol {
            listener.listener_filters.push(proxy_protocol(false));
        }
        let inspected = |chain: &Chain| {
            chain.tls.is_some() || !chain.matches.server_names.is_empty() || !chain.matches.alpn.is_empty()
        };
        if chains.iter().any(inspected) {
            listener.listener_filters.push(tls_inspector());
        }
        listener.filter_chains = chains.into_iter().map(Chain::into_message).collect();
        Some(Built::new(name, listener))
    }

    fn http(&self, server: &Running<'_>, listener: &str) -> Chain {
        let routes = server.route_name().unwrap_or_default();
        let prefix = match server.server.name.as_str() {
            name if server.tls_mode().is_some() && !name.is_empty() => name.to_owned(),
            _ => format!("outbound_{listener}"),
        };
        let mut manager = HttpChain::named(prefix, routes);
        manager.edge = true;
        manager.grpc_web = server.protocol == Protocol::GrpcWeb;
        Chain { filters: vec![manager.into_filter(self.settings)], ..Default::default() }
    }

    fn tls(&self, server: &Running<'_>, listener: &str) -> Vec<Chain> {
        let Some(settings) = &server.server.tls else { return Vec::new() };
        let hosts = server.hosts();
        let matches =
            ChainMatch { server_names: server_names(hosts.iter().map(AsRef::as_ref)), ..Default::default() };
        let end = |alpn: &[&str]| server_tls::socket(settings, self.proxy, alpn, self.parameters);
        match settings.mode {
            ServerTlsMode::Passthrough => self.by_server_name(server),
            ServerTlsMode::AutoPassthrough => self.automatic(server),
            _ if server.protocol == Protocol::Https => vec![Chain {
                matches,
                tls: Some(end(&HTTP_ALPN)),
                handshake_deadline: true,
                ..self.http(server, listener)
            }],
            mode => {
                let exchange = mode == ServerTlsMode::IstioMutual && self.settings.istio.metadata_exchange;
                let alpn: &[&str] = if exchange { &TCP_ALPN } else { &HTTP_ALPN };
                let mut chains = self.tcp(server, Some(&matches));
                for chain in &mut chains {
                    chain.tls = Some(end(alpn));
                    chain.handshake_deadline = true;
                }
                chains
            }
        }
    }

    /// The rules of a server's Gateway that have a host in common with it.
    fn rules_of(&self, server: &Running<'_>) -> impl Iterator<Item = &Rule<'_>> {
        let of_gateway = self.rules.get(&server.gateway_name()).map(Vec::as_slice).unwrap_or_default();
        of_gateway.iter().filter(|rule| {
            let own: Vec<_> = server.hosts_for(&rule.config.namespace).collect();
            server.server.hosts.is_empty() || !intersection(&own, &rule.config.hosts).is_empty()
        })
    }

    /// The chain of the first TCP route that applies.
    fn tcp(&self, server: &Running<'_>, matches: Option<&ChainMatch>) -> Vec<Chain> {
        let gateway = server.gateway_name();
        let client = Client { gateway: &gateway, ..self.l4.client };
        let l4 = L4 { client, ..self.l4 };
        for rule in self.rules_of(server) {
            for route in &rule.config.spec.tcp {
                let applies = route.r#match.is_empty()
                    || route.r#match.iter().any(|wanted| {
                        port_applies(wanted.port, server.port)
                            && client.is_among(
                                &wanted.gateways,
                                &wanted.source_labels,
                                &wanted.source_namespace,
                            )
                    });
                if applies {
                    let matches = matches.cloned().unwrap_or_default();
                    return vec![self.guarded(l4.routed(rule, &route.route, server.port, matches))];
                }
            }
        }
        Vec::new()
    }

    /// A chain of bytes behind the filters that check who connects.
    fn guarded(&self, mut chain: Chain) -> Chain {
        chain.filters.splice(0..0, self.security.iter().cloned());
        chain
    }

    /// Chains by the server names of TLS routes.
    fn by_server_name(&self, server: &Running<'_>) -> Vec<Chain> {
        let gateway = server.gateway_name();
        let client = Client { gateway: &gateway, ..self.l4.client };
        let l4 = L4 { client, ..self.l4 };
        let mut chains: Vec<Chain> = Vec::new();
        for rule in self.rules_of(server) {
            for route in &rule.config.spec.tls {
                for wanted in &route.r#match {
                    let ours = port_applies(wanted.port, server.port)
                        && client.is_among(&wanted.gateways, &wanted.source_labels, &wanted.source_namespace);
                    if !ours {
                        continue;
                    }
                    let matches = ChainMatch {
                        server_names: server_names(wanted.sni_hosts.iter().map(String::as_str)),
                        ..Default::default()
                    };
                    if chains.iter().all(|known| known.matches != matches) {
                        chains.push(self.guarded(l4.routed(rule, &route.route, server.port, matches)));
                    }
                }
            }
        }
        chains
    }

    /// A chain for each service and subset: the server name of mesh mTLS says where to.
    fn automatic(&self, server: &Running<'_>) -> Vec<Chain> {
        let destinations = self.l4.destinations;
        let hosts = server.hosts();
        let mut chains = Vec::new();
        for service in &destinations.scope.services {
            if !by_sni(service) || !hosts.iter().any(|host| host.contains(&service.host)) {
                continue;
            }
            let rule = destinations.scope.destination_rule(&service.host, &self.proxy.labels);
            let subsets = rule.into_iter().flat_map(|rule| &rule.spec.subsets).map(|s| s.name.as_str());
            let subsets: Vec<&str> = [""].into_iter().chain(subsets).collect();
            for port in service.ports.iter().filter(|port| port.protocol != Protocol::Udp) {
                for subset in &subsets {
                    let cluster = names::sni_cluster(port.number, subset, &service.host);
                    chains.push(self.guarded(Chain {
                        matches: ChainMatch {
                            server_names: vec![cluster.clone()],
                            alpn: matrix::MESH_ALL,
                            ..Default::default()
                        },
                        filters: to_cluster(&cluster, self.settings, &self.settings.access_log),
                        metadata: Some(provenance(server.gateway)),
                        ..Default::default()
                    }));
                }
            }
        }
        chains
    }
}

/// The listeners of a gateway proxy.
pub(crate) fn build(snapshot: &Snapshot, proxy: &Proxy, targets: &[ServiceTarget]) -> Vec<Built<Listener>> {
    let scope = snapshot.scope(proxy);
    let destinations = sidecar::destinations(snapshot, proxy, &scope);
    let mut notes = Vec::new();
    let security = security(snapshot, proxy, &mut notes);
    let mut settings = HttpSettings::of(snapshot, proxy, TrafficClass::Gateway, &mut notes);
    settings.security = security.http;
    let objects = EdgeObjects::of(snapshot, proxy, targets);
    let merged = objects.merged(proxy);
    let rules = objects.rules(snapshot, &mut notes);
    let topology = proxy_config(snapshot, proxy).gateway_topology;
    let builder = GatewayListeners {
        proxy,
        l4: L4 { destinations: &destinations, client: sidecar::client(proxy), settings: &settings },
        settings: &settings,
        parameters: &default_tls(snapshot),
        rules: &rules,
        security: &security.tcp,
        proxy_protocol: topology.is_some_and(|topology| topology.proxy_protocol.is_some()),
    };
    let mut listeners = builder.build(&merged);
    notes.extend(merged.notes);
    if let Some(first) = listeners.first_mut() {
        first.notes.extend(notes);
    }
    listeners
}
