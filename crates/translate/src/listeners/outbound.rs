//! Outbound listeners of sidecars.

use std::collections::BTreeMap;
use std::net::IpAddr;

use lateen_api::kinds::sidecar::{CaptureMode, IstioEgressListener};
use lateen_proto::envoy::config::core::v3::TrafficDirection;
use lateen_proto::envoy::config::listener::v3::Listener;
use lateen_registry::{Port, Protocol, Service};

use super::chain::{Chain, ChainMatch, bind, block};
use super::l4::{self, L4};
use super::matrix::PLAIN_HTTP;
use crate::filters::access_log::for_listener;
use crate::filters::dynamic_dns;
use crate::filters::extensions::{MESH_HTTP2, MESH_HTTP11};
use crate::filters::hcm::{HttpChain, HttpSettings};
use crate::filters::listener_filters::{http_inspector, tls_inspector};
use crate::filters::wire::{duration, pipe_address, tcp_address};
use crate::names;
use crate::routes::fallback::Unknown;
use crate::routes::rules;
use crate::routes::virtual_service::Rule;
use crate::snapshot::{Egress, Snapshot};
use crate::{Built, Note, Proxy};

/// The listener that interception hands outbound connections to.
pub(crate) const VIRTUAL_OUTBOUND: &str = "virtualOutbound";
/// Its port.
pub(crate) const OUTBOUND_PORT: u16 = 15001;

/// What outbound listeners are made from.
pub(crate) struct Outbound<'a> {
    /// The snapshot.
    pub(crate) snapshot: &'a Snapshot,
    /// The proxy.
    pub(crate) proxy: &'a Proxy,
    /// What chains of bytes are made from.
    pub(crate) l4: L4<'a>,
    /// What all connection managers share.
    pub(crate) settings: &'a HttpSettings,
    /// What becomes of traffic to unknown services.
    pub(crate) unknown: &'a Unknown,
    /// How long a protocol is looked for; zero: without limit.
    pub(crate) detection: std::time::Duration,
}

/// A listener under construction.
#[derive(Default)]
struct Entry {
    /// The route configuration, when it takes requests.
    routes: Option<String>,
    /// Whether requests are told from bytes by looking.
    sniffed: bool,
    /// Whether it is a forward proxy that takes requests only.
    forward_proxy: bool,
    /// The chains of bytes.
    bytes: Vec<Chain>,
    /// Whether it binds a port of its own.
    binds: bool,
    /// Whether a Sidecar wrote it, so that no other service joins.
    locked: bool,
    /// Whether its protocol admits no other beside it.
    exclusive: bool,
    /// Whose it was first.
    owner: String,
    notes: Vec<Note>,
}

type Entries = BTreeMap<(String, u16), Entry>;

impl<'a> Outbound<'a> {
    /// All of them, `virtualOutbound` last.
    pub(crate) fn build(&self, egress: &[Egress]) -> Vec<Built<Listener>> {
        let mut entries = Entries::new();
        let explicit =
            |egress: &&Egress| egress.listener.as_ref().is_some_and(|listener| listener.port.is_some());
        for egress in egress.iter().filter(explicit) {
            self.add_egress(&mut entries, egress, true);
        }
        for egress in egress.iter().filter(|egress| !explicit(egress)) {
            self.add_egress(&mut entries, egress, false);
        }
        let mut listeners: Vec<_> =
            entries.into_iter().map(|((bind, port), entry)| self.listener(&bind, port, entry)).collect();
        if self.proxy.captures() {
            listeners.push(self.virtual_outbound());
        }
        listeners
    }

    fn add_egress(&self, entries: &mut Entries, egress: &Egress, explicit: bool) {
        let mut notes = Vec::new();
        let rules = rules::rules(&self.snapshot.virtual_services, &egress.virtual_services, &mut notes);
        match egress.listener.as_ref().filter(|_| explicit) {
            Some(listener) => self.add_explicit(entries, listener, egress, &rules),
            None => {
                let binds = !self.proxy.captures();
                for service in &egress.services {
                    for port in service.ports.iter().filter(|port| port.protocol != Protocol::Udp) {
                        self.add_port(entries, service, port, &rules, binds);
                    }
                }
            }
        }
    }

    /// A listener that a Sidecar wrote.
    fn add_explicit(
        &self,
        entries: &mut Entries,
        listener: &IstioEgressListener,
        egress: &Egress,
        rules: &[Rule<'_>],
    ) {
        let Some(given) = &listener.port else { return };
        let number = u16::try_from(given.number).unwrap_or(0);
        let unix = listener.bind.starts_with("unix://");
        let binds = unix || listener.capture_mode == CaptureMode::None || !self.proxy.captures();
        let address = match listener.bind.as_str() {
            "" if binds => self.proxy.localhost().to_owned(),
            "" => self.proxy.wildcard().to_owned(),
            bind => bind.to_owned(),
        };
        let forward_proxy = given.protocol.eq_ignore_ascii_case("HTTP_PROXY");
        let protocol = given.protocol.parse::<Protocol>().unwrap_or(Protocol::Auto);
        let key = (address, number);
        if forward_proxy || protocol.is_http() {
            let entry = entries.entry(key).or_default();
            entry.routes = Some(if unix { listener.bind.clone() } else { number.to_string() });
            (entry.forward_proxy, entry.binds, entry.locked) = (forward_proxy || unix, binds, true);
            return;
        }
        for service in &egress.services {
            for port in service.ports.iter().filter(|port| number == 0 || port.number == number) {
                let chains = self.l4.service(service, port, &[], true, rules);
                let entry = entries.entry(key.clone()).or_default();
                entry.admit(service, port, chains);
                (entry.binds, entry.locked) = (binds, true);
            }
        }
    }

    /// A port of a service, on the listener that its protocol and address call for.
    fn add_port(
        &self,
        entries: &mut Entries,
        service: &Service,
        port: &Port,
        rules: &[Rule<'_>],
        binds: bool,
    ) {
        let wildcard = if binds { self.proxy.localhost() } else { self.proxy.wildcard() };
        if port.protocol.is_http() {
            let entry = entries.entry((wildcard.to_owned(), port.number)).or_default();
            if entry.refuses(service, port) {
                return;
            }
            entry.routes.get_or_insert_with(|| port.number.to_string());
            entry.binds = binds;
            entry.owned_by(service);
            return;
        }
        if binds {
            // Nothing redirects bytes to an address that nobody else has.
            return;
        }
        for place in self.places(service, port, wildcard) {
            let chains = self.l4.service(service, port, &place.blocks, place.shared, rules);
            let entry = entries.entry((place.bind.clone(), port.number)).or_default();
            if entry.refuses(service, port) {
                continue;
            }
            if port.protocol.is_auto() && entry.routes.is_none() {
                entry.sniffed = true;
                entry.routes = Some(match place.shared {
                    true => port.number.to_string(),
                    false => format!("{}:{}", service.host, port.number),
                });
            }
            entry.admit(service, port, chains);
        }
    }

    /// Where a service's bytes are met: its address; the wildcard, told by block, for blocks of addresses; the wildcard for
    /// services without address; each pod of a headless service.
    fn places(&self, service: &Service, port: &Port, wildcard: &str) -> Vec<Place> {
        let at = |bind: &str, blocks, shared| Place { bind: bind.to_owned(), blocks, shared };
        if service.is_headless() {
            return self.pods(service, port).map(|ip| at(&ip.to_string(), Vec::new(), false)).collect();
        }
        let addresses = self.l4.destinations.addresses(service);
        let blocks: Vec<_> =
            addresses.iter().filter(|text| text.contains('/')).filter_map(|text| block(text)).collect();
        if !blocks.is_empty() {
            let singles = addresses.iter().filter(|text| !text.contains('/')).filter_map(|text| block(text));
            let all = blocks.iter().cloned().chain(singles).collect();
            return vec![at(wildcard, all, true)];
        }
        match addresses.first() {
            Some(address) => vec![at(address, Vec::new(), false)],
            None => vec![at(wildcard, Vec::new(), true)],
        }
    }

    fn pods(&self, service: &Service, port: &Port) -> impl Iterator<Item = IpAddr> {
        let set = self.snapshot.view.endpoints_of(service);
        let own = &self.proxy.addresses;
        let network = &self.proxy.metadata.network;
        let mut pods: Vec<IpAddr> = set
            .into_iter()
            .flat_map(|set| set.of_port(&port.name))
            .filter(|endpoint| endpoint.network == *network || network.is_empty())
            .filter_map(|endpoint| endpoint.address.ip())
            .filter(|ip| !own.contains(ip))
            .collect();
        pods.sort();
        pods.dedup();
        pods.into_iter()
    }

    fn listener(&self, address: &str, port: u16, entry: Entry) -> Built<Listener> {
        let unix = address.strip_prefix("unix://");
        let name = match unix {
            Some(_) => address.to_owned(),
            None => format!("{address}_{port}"),
        };
        let mut listener = Listener {
            name: name.clone(),
            address: Some(match unix {
                Some(path) => pipe_address(path),
                None => tcp_address(address, port),
            }),
            bind_to_port: (!entry.binds).then_some(false),
            traffic_direction: TrafficDirection::Outbound.into(),
            continue_on_listener_filters_timeout: true,
            access_log: for_listener(&self.settings.access_log),
            ..Default::default()
        };
        if entry.binds {
            bind(&mut listener);
        }
        let notes = entry.notes.clone();
        self.add_chains(&mut listener, &name, entry);
        Built { name, message: listener, notes }
    }

    fn add_chains(&self, listener: &mut Listener, name: &str, entry: Entry) {
        let mut chains = Vec::new();
        if let Some(routes) = &entry.routes {
            let looked_at: &[&'static [&'static str]] =
                match (entry.forward_proxy, entry.sniffed && !self.settings.istio.alpn) {
                    (true, _) => &[&[]],
                    (false, false) => &[PLAIN_HTTP],
                    (false, true) => &[&["http/1.1"], &["h2c"]],
                };
            for alpn in looked_at {
                let mut manager = HttpChain::named(format!("outbound_{name}"), routes.clone());
                manager.forward_proxy = entry.forward_proxy;
                if *self.unknown == Unknown::Resolve {
                    manager.last_filters.push(dynamic_dns::filter(self.proxy));
                }
                manager.alpn = if *alpn == ["h2c"] { MESH_HTTP2 } else { MESH_HTTP11 };
                let transport = if entry.forward_proxy { "" } else { "raw_buffer" };
                chains.push(Chain {
                    matches: ChainMatch { transport, alpn, ..Default::default() },
                    filters: vec![manager.into_filter(self.settings)],
                    ..Default::default()
                });
            }
        }
        let by_name = entry.bytes.iter().any(|chain| !chain.matches.server_names.is_empty());
        let by_protocol = chains.iter().any(|chain| !chain.matches.alpn.is_empty());
        if by_name || by_protocol {
            listener.listener_filters.push(tls_inspector());
        }
        if by_protocol {
            listener.listener_filters.push(http_inspector());
        }
        listener.listener_filters_timeout =
            Some(duration(if by_protocol { self.detection } else { std::time::Duration::ZERO }));
        chains.extend(entry.bytes);
        let any = chains.iter().position(|chain| chain.matches.is_any());
        match any {
            Some(at) if chains.len() > 1 => {
                listener.default_filter_chain = Some(chains.remove(at).into_message());
            }
            Some(_) => {}
            None => listener.default_filter_chain = Some(self.fallback().into_message()),
        }
        listener.filter_chains = chains.into_iter().map(Chain::into_message).collect();
    }

    /// What takes connections that no chain of a port's listener matches.
    fn fallback(&self) -> Chain {
        Chain {
            name: "PassthroughFilterChain".into(),
            filters: l4::to_cluster(self.unknown.cluster(), self.settings, &self.settings.access_log),
            ..Default::default()
        }
    }

    fn virtual_outbound(&self) -> Built<Listener> {
        let chain = |name: &str, port, cluster: &str| {
            let filters = l4::to_cluster(cluster, self.settings, &self.settings.access_log);
            let matches = ChainMatch { port, ..Default::default() };
            Chain { name: name.into(), matches, filters, ..Default::default() }.into_message()
        };
        let hole = chain("virtualOutbound-blackhole", Some(OUTBOUND_PORT), names::BLACK_HOLE_CLUSTER);
        let rest = chain("virtualOutbound-catchall-tcp", None, self.unknown.cluster());
        let transparent = self.proxy.metadata.interception == crate::Interception::Tproxy;
        let mut listener = Listener {
            name: VIRTUAL_OUTBOUND.into(),
            address: Some(tcp_address(self.proxy.wildcard(), OUTBOUND_PORT)),
            filter_chains: vec![hole, rest],
            use_original_dst: Some(true),
            transparent: transparent.then_some(true),
            traffic_direction: TrafficDirection::Outbound.into(),
            access_log: for_listener(&self.settings.access_log),
            ..Default::default()
        };
        bind(&mut listener);
        Built::new(VIRTUAL_OUTBOUND, listener)
    }
}

/// Where bytes of a service are met.
struct Place {
    /// The address of the listener.
    bind: String,
    /// The blocks of addresses by which the service is told.
    blocks: Vec<(String, u8)>,
    /// Whether other services are met there, too.
    shared: bool,
}

impl Entry {
    fn owned_by(&mut self, service: &Service) {
        if self.owner.is_empty() {
            self.owner = service.host.to_string();
        }
    }

    /// Whether a port cannot be met here; says why.
    fn refuses(&mut self, service: &Service, port: &Port) -> bool {
        let exclusive = matches!(port.protocol, Protocol::Mongo | Protocol::MySql);
        let empty = self.routes.is_none() && self.bytes.is_empty();
        let reason = if self.locked {
            "a Sidecar has a listener of its own there".to_owned()
        } else if !empty && (exclusive || self.exclusive) {
            format!("{} has it, and one of the two protocols shares no port", self.owner)
        } else {
            self.exclusive |= exclusive;
            return false;
        };
        self.conflict(service, port, &reason);
        true
    }

    /// Adds chains of bytes; of two that match the same the first stays.
    fn admit(&mut self, service: &Service, port: &Port, chains: Vec<Chain>) {
        self.owned_by(service);
        for chain in chains {
            if self.bytes.iter().any(|known| known.matches == chain.matches) {
                let reason = format!("{} has it", self.owner);
                self.conflict(service, port, &reason);
            } else {
                self.bytes.push(chain);
            }
        }
    }

    fn conflict(&mut self, service: &Service, port: &Port, reason: &str) {
        let text = format!("port {} of {} has no listener of its own: {reason}", port.number, service.host);
        self.notes.push(Note::on(&service.object, text));
    }
}
