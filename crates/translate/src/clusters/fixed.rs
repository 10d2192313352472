//! The clusters that every proxy has.

use std::time::Duration;

use lateen_api::kinds::destination_rule::ClientTlsSettings;
use lateen_api::mesh::MeshConfig;
use lateen_api::mesh::config::MeshOutboundMode;
use lateen_proto::Any;
use lateen_proto::envoy::config::cluster::v3 as cluster;
use lateen_proto::envoy::config::cluster::v3::cluster::{ClusterDiscoveryType, DiscoveryType, LbPolicy};
use lateen_proto::envoy::config::core::v3 as core;
use lateen_proto::envoy::config::core::v3::socket_address::PortSpecifier;
use lateen_proto::udpa::r#type::v1::TypedStruct;
use lateen_proto::{Value, value};

use super::class::Class;
use super::dns;
use super::outbound;
use super::policy::Policy;
use super::pool::{self, HttpVersion};
use super::tls::{self, Peer, Security};
use crate::filters::wire::{duration, structure, text};
use crate::names::{
    BLACK_HOLE_CLUSTER, DYNAMIC_DNS_CLUSTER, INBOUND_PASSTHROUGH_CLUSTER, PASSTHROUGH_CLUSTER,
};
use crate::{Built, Note};

/// When idle connections of passed-through traffic end.
const PASSTHROUGH_IDLE: Duration = Duration::from_secs(300);

/// The address that inbound traffic has in the application's eyes, by which the kernel lets it pass.
fn inbound_source(class: &Class) -> &'static str {
    if class.ipv4 { "127.0.0.6" } else { "::6" }
}

/// Traffic to nowhere.
pub(crate) fn black_hole(mesh: &MeshConfig) -> Built<cluster::Cluster> {
    let mut to = named(BLACK_HOLE_CLUSTER, DiscoveryType::Static, mesh);
    to.lb_policy = LbPolicy::RoundRobin.into();
    Built::new(BLACK_HOLE_CLUSTER, to)
}

/// Traffic to where the client wanted it.
pub(crate) fn passthrough(class: &Class, mesh: &MeshConfig) -> Built<cluster::Cluster> {
    let mut to = passing(PASSTHROUGH_CLUSTER, mesh);
    if class.metadata_exchange {
        to.filters.push(metadata_exchange());
    }
    Built::new(PASSTHROUGH_CLUSTER, to)
}

/// Traffic to the application as it came.
pub(crate) fn inbound_passthrough(class: &Class, mesh: &MeshConfig) -> Built<cluster::Cluster> {
    let mut to = passing(INBOUND_PASSTHROUGH_CLUSTER, mesh);
    to.upstream_bind_config = Some(source(inbound_source(class)));
    Built::new(INBOUND_PASSTHROUGH_CLUSTER, to)
}

/// Whether the mesh has requests to unknown hosts resolved by name (outbound mode ALLOW_ANY_DYNAMIC_DNS).
pub(crate) fn resolves_unknown(mesh: &MeshConfig) -> bool {
    let policy = mesh.outbound_traffic_policy.as_ref();
    policy.is_some_and(|policy| policy.mode == MeshOutboundMode::AllowAnyDynamicDns)
}

/// Traffic to the host that the client named.
pub(crate) fn dynamic_dns(class: &Class, mesh: &MeshConfig) -> Built<cluster::Cluster> {
    let mut to = named(DYNAMIC_DNS_CLUSTER, DiscoveryType::Static, mesh);
    let mut notes = Vec::new();
    dns::dynamic(&mut to, class);
    let policy = Policy::default().or_mesh(mesh);
    let mut http = pool::apply(&mut to, policy.pool.as_ref(), None, HttpVersion::Default, mesh);
    let unknown = mesh.outbound_traffic_policy.as_ref().filter(|_| resolves_unknown(mesh));
    if let Some(settings) = unknown.and_then(|policy| policy.tls.as_ref()) {
        match tls::of_rule(settings, class, &Peer::default(), mesh) {
            Ok(Security::Tls(context)) => {
                to.transport_socket = Some(tls::socket(&context));
                outbound::set_istio(&mut to, "alpn_override", text("false"));
                http.upstream = Some(by_request(settings)).filter(|_| settings.sni.is_empty());
            }
            Ok(Security::Plain | Security::Auto(_)) => {}
            Err(error) => {
                let text = format!("meshConfig.outboundTrafficPolicy.{error}: hosts are asked in the clear");
                notes.push(Note { text, object: None });
            }
        }
    }
    http.write(&mut to);
    if class.loopback {
        to.upstream_bind_config = Some(any_source());
    }
    Built { notes, ..Built::new(DYNAMIC_DNS_CLUSTER, to) }
}

/// What TLS takes from the request: the name that is asked for and, unless told otherwise, that the certificate has it.
pub(crate) fn by_request(settings: &ClientTlsSettings) -> core::UpstreamHttpProtocolOptions {
    let verify = settings.subject_alt_names.is_empty() && !settings.insecure_skip_verify.unwrap_or(false);
    core::UpstreamHttpProtocolOptions { auto_sni: true, auto_san_validation: verify, ..Default::default() }
}

fn passing(name: &str, mesh: &MeshConfig) -> cluster::Cluster {
    let mut to = named(name, DiscoveryType::OriginalDst, mesh);
    to.lb_policy = LbPolicy::ClusterProvided.into();
    let policy = Policy::default().or_mesh(mesh);
    let mut http = pool::apply(&mut to, policy.pool.as_ref(), None, HttpVersion::Downstream, mesh);
    http.common.idle_timeout.get_or_insert(duration(PASSTHROUGH_IDLE));
    http.write(&mut to);
    to
}

fn named(name: &str, kind: DiscoveryType, mesh: &MeshConfig) -> cluster::Cluster {
    cluster::Cluster {
        name: name.to_owned(),
        alt_stat_name: format!("{name};"),
        cluster_discovery_type: Some(ClusterDiscoveryType::Type(kind.into())),
        connect_timeout: mesh.connect_timeout.map(duration),
        ..Default::default()
    }
}

/// Connections from one address.
pub(crate) fn source(address: &str) -> core::BindConfig {
    core::BindConfig {
        source_address: Some(core::SocketAddress {
            address: address.to_owned(),
            port_specifier: Some(PortSpecifier::PortValue(0)),
            ..Default::default()
        }),
        ..Default::default()
    }
}

/// Connections from whatever address the kernel chooses: from a loopback address nothing outside is reached.
pub(crate) fn any_source() -> core::BindConfig {
    source("0.0.0.0")
}

/// The address of inbound traffic for the application.
pub(crate) fn from_inbound(class: &Class) -> core::BindConfig {
    source(inbound_source(class))
}

/// The filter by which two proxies tell each other who they are over TCP.
pub(crate) fn metadata_exchange() -> cluster::Filter {
    let on = Value { kind: Some(value::Kind::BoolValue(true)) };
    let config = TypedStruct {
        type_url: "type.googleapis.com/envoy.tcp.metadataexchange.config.MetadataExchange".to_owned(),
        value: Some(structure([("protocol", text("istio-peer-exchange")), ("enable_discovery", on)])),
    };
    cluster::Filter {
        name: super::class::METADATA_EXCHANGE.to_owned(),
        typed_config: Some(Any::pack(&config)),
        ..Default::default()
    }
}
