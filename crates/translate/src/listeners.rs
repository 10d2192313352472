//! Listeners.

pub(crate) mod chain;
mod gateway;
mod inbound;
mod l4;
mod matrix;
mod outbound;
mod server_tls;
mod sidecar;

use std::collections::BTreeSet;

use lateen_proto::envoy::config::listener::v3::filter::ConfigType;
use lateen_proto::envoy::config::listener::v3::{FilterChain, Listener};
use lateen_proto::envoy::extensions::filters::network::http_connection_manager::v3::HttpConnectionManager;
use lateen_proto::envoy::extensions::filters::network::http_connection_manager::v3::http_connection_manager::RouteSpecifier;
use lateen_proto::envoy::extensions::transport_sockets::tls::v3::DownstreamTlsContext;
use lateen_proto::envoy::extensions::transport_sockets::tls::v3::common_tls_context::ValidationContextType;

use crate::snapshot::ServiceTarget;
use crate::{Built, Proxy, Snapshot};

/// The listeners of a proxy.
pub fn build(snapshot: &Snapshot, proxy: &Proxy) -> Vec<Built<Listener>> {
    build_for(snapshot, proxy, &snapshot.service_targets(proxy))
}

/// The listeners of a proxy that serves these services.
pub(crate) fn build_for(
    snapshot: &Snapshot,
    proxy: &Proxy,
    targets: &[ServiceTarget],
) -> Vec<Built<Listener>> {
    match proxy.is_router() {
        true => gateway::build(snapshot, proxy, targets),
        false => sidecar::build(snapshot, proxy, targets),
    }
}

/// The route configurations that listeners ask for by name.
pub fn route_names(listeners: &[Built<Listener>]) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for chain in listeners.iter().flat_map(chains) {
        for filter in &chain.filters {
            let Some(ConfigType::TypedConfig(config)) = &filter.config_type else { continue };
            let Ok(manager) = config.unpack::<HttpConnectionManager>() else { continue };
            if let Some(RouteSpecifier::Rds(rds)) = manager.route_specifier {
                names.insert(rds.route_config_name);
            }
        }
    }
    names
}

/// The secrets that listeners ask the control plane for, rather than the agent.
pub fn secret_names(listeners: &[Built<Listener>]) -> BTreeSet<String> {
    use lateen_proto::envoy::config::core::v3::transport_socket::ConfigType;
    let mut names = BTreeSet::new();
    for chain in listeners.iter().flat_map(chains) {
        let Some(ConfigType::TypedConfig(config)) =
            chain.transport_socket.as_ref().and_then(|socket| socket.config_type.as_ref())
        else {
            continue;
        };
        let Ok(context) = config.unpack::<DownstreamTlsContext>() else { continue };
        let Some(context) = context.common_tls_context else { continue };
        names.extend(context.tls_certificate_sds_secret_configs.into_iter().map(|secret| secret.name));
        if let Some(ValidationContextType::CombinedValidationContext(both)) = context.validation_context_type
        {
            names.extend(both.validation_context_sds_secret_config.map(|secret| secret.name));
        }
    }
    names.retain(|name| name.starts_with("kubernetes"));
    names
}

fn chains(listener: &Built<Listener>) -> impl Iterator<Item = &FilterChain> {
    listener.message.filter_chains.iter().chain(&listener.message.default_filter_chain)
}
