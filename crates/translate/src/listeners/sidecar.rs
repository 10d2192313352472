//! All listeners of a sidecar.

use std::collections::BTreeSet;

use lateen_api::kinds::sidecar::{CaptureMode, IstioIngressListener};
use lateen_base::Host;
use lateen_proto::envoy::config::core::v3::TrafficDirection;
use lateen_proto::envoy::config::listener::v3::Listener;
use lateen_registry::Protocol;

use super::chain::{Chain, bind};
use super::inbound::{Inbound, Served};
use super::l4::L4;
use super::outbound::Outbound;
use super::server_tls;
use crate::filters::access_log::for_listener;
use crate::filters::dynamic_dns;
use crate::filters::extensions::TrafficClass;
use crate::filters::hcm::{HttpChain, HttpSettings};
use crate::filters::security::security;
use crate::filters::settings::{default_tls, mesh_tls};
use crate::filters::tls::{HTTP_ALPN, TCP_ALPN};
use crate::filters::wire::{tcp_address, zero};
use crate::routes::fallback::Unknown;
use crate::sidecar::{self, HTTP_PROXY_ROUTES};
use crate::snapshot::{MtlsMode, PeerPolicy, Scope, ServiceTarget};
use crate::{Built, Note, Proxy, Snapshot};

/// The listeners: outbound, the forward proxy, `virtualOutbound`, then inbound.
pub(crate) fn build(snapshot: &Snapshot, proxy: &Proxy, targets: &[ServiceTarget]) -> Vec<Built<Listener>> {
    let scope = snapshot.scope(proxy);
    let destinations = sidecar::destinations(snapshot, proxy, &scope);
    let mut notes = Vec::new();
    let settings = HttpSettings::of(snapshot, proxy, TrafficClass::Outbound, &mut notes);
    let unknown = sidecar::unknown(&destinations);
    let mut listeners = Vec::new();
    let l4 = L4 { destinations: &destinations, client: sidecar::client(proxy), settings: &settings };
    let mesh = &snapshot.mesh;
    let outbound = Outbound {
        snapshot,
        proxy,
        l4,
        settings: &settings,
        unknown: &unknown,
        detection: mesh.protocol_detection_timeout.unwrap_or_default(),
    };
    if proxy.is_loopback() {
        listeners.extend(forward_proxy(proxy, &settings, &sidecar::unknown_by_name(&destinations)));
    } else {
        listeners.extend(outbound.build(&scope.egress));
    }
    listeners.extend(inbound(snapshot, proxy, &scope, targets, &mut notes));
    if let Some(first) = listeners.first_mut() {
        first.notes.extend(notes);
    }
    listeners
}

/// The forward proxy of an application that nothing is redirected for.
fn forward_proxy(proxy: &Proxy, settings: &HttpSettings, unknown: &Unknown) -> Option<Built<Listener>> {
    let port = proxy.metadata.http_proxy_port;
    let address = proxy.addresses.first().filter(|_| port != 0)?.to_string();
    let name = format!("{address}_{port}");
    let mut manager = HttpChain::named(format!("outbound_{name}"), HTTP_PROXY_ROUTES);
    manager.forward_proxy = true;
    if *unknown == Unknown::Resolve {
        manager.last_filters.push(dynamic_dns::filter(proxy));
    }
    let chain = Chain { filters: vec![manager.into_filter(settings)], ..Default::default() };
    let mut listener = Listener {
        name: name.clone(),
        address: Some(tcp_address(&address, port)),
        filter_chains: vec![chain.into_message()],
        listener_filters_timeout: Some(zero()),
        continue_on_listener_filters_timeout: true,
        traffic_direction: TrafficDirection::Outbound.into(),
        access_log: for_listener(&settings.access_log),
        ..Default::default()
    };
    bind(&mut listener);
    Some(Built::new(name, listener))
}

fn inbound(
    snapshot: &Snapshot,
    proxy: &Proxy,
    scope: &Scope,
    targets: &[ServiceTarget],
    notes: &mut Vec<Note>,
) -> Vec<Built<Listener>> {
    let security = security(snapshot, proxy, notes);
    let mut settings = HttpSettings::of(snapshot, proxy, TrafficClass::Inbound, notes);
    settings.security = security.http;
    let policy = snapshot.peer_policy(&proxy.namespace, &proxy.labels);
    let mesh = &snapshot.mesh;
    let aliases = &mesh.trust_domain_aliases;
    let own = Some(&snapshot.settings.trust_domain).filter(|_| !aliases.is_empty());
    let trust_domains: Vec<String> = own.into_iter().chain(aliases).cloned().collect();
    let builder = Inbound {
        proxy,
        settings: &settings,
        policy: &policy,
        security: &security.tcp,
        parameters: &mesh_tls(snapshot),
        trust_domains: &trust_domains,
    };
    builder.build(&served(snapshot, proxy, scope, targets, &policy, notes))
}

/// The ports that the workload serves: as its Sidecar lists them, else as services do; ascending.
fn served(
    snapshot: &Snapshot,
    proxy: &Proxy,
    scope: &Scope,
    targets: &[ServiceTarget],
    policy: &PeerPolicy,
    notes: &mut Vec<Note>,
) -> Vec<Served> {
    let ingress = scope.sidecar.as_ref().map(|sidecar| sidecar.ingress.as_slice()).unwrap_or_default();
    let mut served: Vec<Served> = match ingress {
        [] => by_services(proxy, targets, notes),
        listed => listed
            .iter()
            .filter_map(|listener| by_sidecar(snapshot, proxy, targets, policy, listener))
            .collect(),
    };
    let mut seen = BTreeSet::new();
    served.retain(|port| seen.insert(port.port));
    served.sort_by_key(|port| port.port);
    served
}

/// Of several services on one port the oldest decides. Without interception there is nothing to take connections to services
/// from, except in loopback isolation, where each port is bound on the workload's address.
fn by_services(proxy: &Proxy, targets: &[ServiceTarget], notes: &mut Vec<Note>) -> Vec<Served> {
    let loopback = proxy.is_loopback();
    if !proxy.captures() && !loopback {
        return Vec::new();
    }
    let own = proxy.addresses.first().map(ToString::to_string).unwrap_or_default();
    let mut served: Vec<Served> = Vec::new();
    for target in targets {
        if target.port.protocol == Protocol::Udp {
            continue;
        }
        let found = served.iter().find(|known| known.port == target.target_port);
        if let Some(first) = found {
            if first.protocol != target.port.protocol {
                let text = format!(
                    "port {} of the workload is {} there, as {} says, which is older",
                    target.target_port, first.protocol, first.host
                );
                notes.push(Note::on(&target.service.object, text));
            }
            continue;
        }
        served.push(Served {
            port: target.target_port,
            service_port: target.port.number,
            protocol: target.port.protocol,
            host: target.service.host.clone(),
            address: if loopback { own.clone() } else { proxy.wildcard().to_owned() },
            own_tls: None,
            binds: loopback,
        });
    }
    served
}

fn by_sidecar(
    snapshot: &Snapshot,
    proxy: &Proxy,
    targets: &[ServiceTarget],
    policy: &PeerPolicy,
    listener: &IstioIngressListener,
) -> Option<Served> {
    let port = u16::try_from(listener.port.number).ok()?;
    let protocol = listener.port.protocol.parse().unwrap_or(Protocol::Auto);
    let own = proxy.addresses.first().map(ToString::to_string);
    let binds = listener.capture_mode == CaptureMode::None || !proxy.captures();
    let address = match listener.bind.as_str() {
        "" => own.unwrap_or_else(|| proxy.wildcard().to_owned()),
        bind => bind.to_owned(),
    };
    // The mesh's TLS and a server's own cannot both be ended on one port; only where the mesh's is off, the own one is.
    let own_tls = listener.tls.as_ref().filter(|_| policy.of_port(port) == MtlsMode::Disable).map(|tls| {
        let alpn: &[&str] = if protocol.is_http() { &HTTP_ALPN } else { &TCP_ALPN[1..] };
        server_tls::socket(tls, proxy, alpn, &default_tls(snapshot))
    });
    Some(Served {
        port,
        service_port: port,
        protocol,
        host: service_host(proxy, targets, port),
        address,
        own_tls,
        binds,
    })
}

/// The service that a port of the workload belongs to, or a made-up name.
fn service_host(proxy: &Proxy, targets: &[ServiceTarget], port: u16) -> Host {
    let found = targets.iter().find(|target| target.target_port == port).or(targets.first());
    match found {
        Some(target) => target.service.host.clone(),
        None => Host::new(format!("{}.{}", proxy.id, proxy.dns_domain)),
    }
}
