//! Inbound listeners of sidecars.

use std::collections::{BTreeMap, BTreeSet};

use lateen_base::Host;
use lateen_proto::envoy::config::core::v3::{self as core, TrafficDirection};
use lateen_proto::envoy::config::listener::v3::{Filter, Listener, ListenerFilter};
use lateen_proto::envoy::config::route::v3::RouteConfiguration;
use lateen_registry::Protocol;

use super::chain::{Chain, ChainMatch, bind};
use super::l4;
use super::matrix::{self, ChainShape, PortSpeaks, Speaks};
use crate::filters::access_log::for_listener;
use crate::filters::extensions::tcp_metadata_exchange;
use crate::filters::hcm::{HttpChain, HttpSettings};
use crate::filters::listener_filters::{
    disabled_for, enabled_for, http_inspector, original_dst, original_src, tls_inspector,
};
use crate::filters::tls::{self, Parameters};
use crate::filters::wire::{tcp_address, zero};
use crate::names;
use crate::routes::inbound;
use crate::snapshot::{MtlsMode, PeerPolicy};
use crate::{Built, Interception, Proxy};

/// The listener that interception hands inbound connections to.
pub(crate) const VIRTUAL_INBOUND: &str = "virtualInbound";
/// Its port.
pub(crate) const INBOUND_PORT: u16 = 15006;

/// A port that the workload serves.
#[derive(Clone, Debug)]
pub(crate) struct Served {
    /// The workload's port.
    pub(crate) port: u16,
    /// The service's port, as routes and statistics name it.
    pub(crate) service_port: u16,
    /// What it speaks.
    pub(crate) protocol: Protocol,
    /// The service's host.
    pub(crate) host: Host,
    /// The address that chains are named after, and that a listener of its own binds.
    pub(crate) address: String,
    /// TLS that a Sidecar asks for in the place of the mesh's.
    pub(crate) own_tls: Option<core::TransportSocket>,
    /// Whether a listener of its own binds the port.
    pub(crate) binds: bool,
}

/// What inbound listeners are made from.
pub(crate) struct Inbound<'a> {
    /// The proxy.
    pub(crate) proxy: &'a Proxy,
    /// What all connection managers share.
    pub(crate) settings: &'a HttpSettings,
    /// How mutual TLS is taken.
    pub(crate) policy: &'a PeerPolicy,
    /// Filters that check who connects, for bytes.
    pub(crate) security: &'a [Filter],
    /// Versions and ciphers of mutual TLS.
    pub(crate) parameters: &'a Parameters,
    /// The trust domains that clients must be of; empty: any that the roots vouch for.
    pub(crate) trust_domains: &'a [String],
}

/// What distinguishes the chains of one port from those of another.
struct PortChains<'a> {
    name: &'a str,
    stat_prefix: String,
    cluster: &'a str,
    port: Option<u16>,
    grpc_web: bool,
    routes: RouteConfiguration,
}

impl Inbound<'_> {
    /// `virtualInbound` where connections are intercepted, then the listeners that bind ports of their own.
    pub(crate) fn build(&self, served: &[Served]) -> Vec<Built<Listener>> {
        let intercepted: Vec<&Served> = served.iter().filter(|port| !port.binds).collect();
        let mut listeners = Vec::new();
        if self.proxy.captures() {
            listeners.push(self.virtual_inbound(&intercepted));
        }
        listeners.extend(served.iter().filter(|port| port.binds).map(|port| self.bound(port)));
        listeners
    }

    fn virtual_inbound(&self, served: &[&Served]) -> Built<Listener> {
        let logs = &self.settings.access_log;
        let mut chains = vec![Chain {
            name: "virtualInbound-blackhole".into(),
            matches: ChainMatch { port: Some(INBOUND_PORT), ..Default::default() },
            filters: l4::to_cluster(names::BLACK_HOLE_CLUSTER, self.settings, logs),
            ..Default::default()
        }];
        chains.extend(self.passthrough(None, self.policy.mode));
        let ports: BTreeSet<u16> = served.iter().map(|port| port.port).collect();
        for (port, mode) in self.policy.ports.iter().filter(|(port, _)| !ports.contains(port)) {
            chains.extend(self.passthrough(Some(*port), *mode));
        }
        for port in served {
            chains.extend(self.chains(port, Some(port.port)));
        }
        let transparent = self.proxy.metadata.interception == Interception::Tproxy;
        let mut listener = self.listener(VIRTUAL_INBOUND, self.proxy.wildcard(), INBOUND_PORT, chains);
        listener.listener_filters = self.inspectors(served);
        listener.transparent = transparent.then_some(true);
        Built::new(VIRTUAL_INBOUND, listener)
    }

    /// The listener of a port that nobody redirects: the proxy's address and the workload's port.
    fn bound(&self, served: &Served) -> Built<Listener> {
        let name = format!("{}_{}", served.address, served.port);
        let mode = self.policy.of_port(served.port);
        let (tls, http) = matrix::inspectors(speaks(served.protocol), mode);
        let mut listener = self.listener(&name, &served.address, served.port, self.chains(served, None));
        if tls || served.own_tls.is_some() {
            listener.listener_filters.push(tls_inspector());
        }
        if http {
            listener.listener_filters.push(http_inspector());
        }
        Built::new(name, listener)
    }

    fn listener(&self, name: &str, address: &str, port: u16, chains: Vec<Chain>) -> Listener {
        let mut listener = Listener {
            name: name.to_owned(),
            address: Some(tcp_address(address, port)),
            filter_chains: chains.into_iter().map(Chain::into_message).collect(),
            listener_filters_timeout: Some(zero()),
            continue_on_listener_filters_timeout: true,
            traffic_direction: TrafficDirection::Inbound.into(),
            access_log: for_listener(&self.settings.access_log),
            ..Default::default()
        };
        bind(&mut listener);
        listener
    }

    fn chains(&self, served: &Served, port: Option<u16>) -> Vec<Chain> {
        let name = format!("{}_{}", served.address, served.port);
        let cluster = names::inbound_cluster(served.port);
        let of = PortChains {
            name: &name,
            stat_prefix: format!("inbound_{name}"),
            cluster: &cluster,
            port,
            grpc_web: served.protocol == Protocol::GrpcWeb,
            routes: inbound::of_service(&cluster, &served.host, served.service_port, served.protocol),
        };
        if let Some(socket) = &served.own_tls {
            let speaks = if served.protocol.is_http() { Speaks::Http } else { Speaks::Tcp };
            let shape = ChainShape { transport: "tls", alpn: &[], terminates: false, speaks };
            return vec![Chain { tls: Some(socket.clone()), ..self.chain(&of, &shape) }];
        }
        let shapes = matrix::chains(speaks(served.protocol), self.policy.of_port(served.port));
        shapes.iter().map(|shape| self.chain(&of, shape)).collect()
    }

    /// What takes connections to ports that no service names.
    fn passthrough(&self, port: Option<u16>, mode: MtlsMode) -> Vec<Chain> {
        let cluster = names::INBOUND_PASSTHROUGH_CLUSTER;
        let routes = inbound::passthrough(cluster);
        let of = |name| PortChains {
            name,
            stat_prefix: cluster.to_owned(),
            cluster,
            port,
            grpc_web: false,
            routes: routes.clone(),
        };
        let chain = |shape: &ChainShape| match shape.speaks {
            Speaks::Http => self.chain(&of("virtualInbound-catchall-http"), shape),
            Speaks::Tcp => self.chain(&of(VIRTUAL_INBOUND), shape),
        };
        matrix::chains(PortSpeaks::Auto, mode).iter().map(chain).collect()
    }

    fn chain(&self, of: &PortChains<'_>, shape: &ChainShape) -> Chain {
        let exchange = self.settings.istio.metadata_exchange.then(tcp_metadata_exchange);
        let mut filters: Vec<Filter> = exchange.into_iter().collect();
        match shape.speaks {
            Speaks::Http => {
                let mut manager = HttpChain::inline(of.stat_prefix.clone(), of.routes.clone());
                manager.grpc_web = of.grpc_web;
                filters.push(manager.into_filter(self.settings));
            }
            Speaks::Tcp => {
                filters.extend(self.security.iter().cloned());
                filters.extend(l4::to_cluster(of.cluster, self.settings, &self.settings.access_log));
            }
        }
        let (port, transport, alpn) = (of.port, shape.transport, shape.alpn);
        Chain {
            name: of.name.to_owned(),
            matches: ChainMatch { port, transport, alpn, ..Default::default() },
            tls: shape.terminates.then(|| self.mesh_tls(shape.speaks)),
            filters,
            metadata: None,
            handshake_deadline: false,
        }
    }

    /// Mutual TLS of the mesh. Proxies without metadata exchange do not offer the protocol that only it speaks.
    fn mesh_tls(&self, speaks: Speaks) -> core::TransportSocket {
        let alpn: &[&str] = match (speaks, self.settings.istio.metadata_exchange) {
            (Speaks::Tcp, true) => &tls::TCP_ALPN,
            _ => &tls::HTTP_ALPN,
        };
        tls::socket(&tls::mesh_mutual(alpn, self.parameters.clone(), self.trust_domains))
    }

    /// The listener filters of `virtualInbound`; each inspector looks only where some chain depends on it.
    fn inspectors(&self, served: &[&Served]) -> Vec<ListenerFilter> {
        let (mut tls, mut http): (BTreeMap<u16, bool>, BTreeMap<u16, bool>) = Default::default();
        for (port, mode) in &self.policy.ports {
            tls.insert(*port, *mode != MtlsMode::Disable);
        }
        for port in served {
            let mode = self.policy.of_port(port.port);
            let (of_tls, of_http) = matrix::inspectors(speaks(port.protocol), mode);
            tls.insert(port.port, of_tls || port.own_tls.is_some());
            http.insert(port.port, of_http);
        }
        let mut filters = vec![original_dst()];
        if self.proxy.metadata.interception == Interception::Tproxy {
            filters.push(original_src());
        }
        let ports = |by_port: &BTreeMap<u16, bool>, wanted: bool| -> Vec<u16> {
            by_port.iter().filter(|(_, needed)| **needed == wanted).map(|(port, _)| *port).collect()
        };
        if self.policy.mode != MtlsMode::Disable {
            filters.push(disabled_for(tls_inspector(), &ports(&tls, false)));
        } else if tls.values().any(|needed| *needed) {
            filters.push(enabled_for(tls_inspector(), &ports(&tls, true)));
        }
        filters.push(disabled_for(http_inspector(), &ports(&http, false)));
        filters
    }
}

fn speaks(protocol: Protocol) -> PortSpeaks {
    match protocol {
        protocol if protocol.is_http() => PortSpeaks::Http,
        protocol if protocol.is_auto() => PortSpeaks::Auto,
        _ => PortSpeaks::Tcp,
    }
}
