//! What listeners and routes of one sidecar share: scope, settings, policies.

use lateen_api::kinds::sidecar::OutboundTrafficMode;
use lateen_api::kinds::virtual_service::Destination;
use lateen_api::mesh::config::MeshOutboundMode;

use crate::filters::extensions::IstioFilters;
use crate::routes::destinations::Destinations;
use crate::routes::fallback::Unknown;
use crate::routes::virtual_service::Client;
use crate::snapshot::{MESH_GATEWAY, Scope};
use crate::{Proxy, Snapshot};

/// The route configuration of the forward proxy that applications are told of in loopback isolation.
pub(crate) const HTTP_PROXY_ROUTES: &str = "http_proxy";

/// What destinations stand for, for a proxy.
pub(crate) fn destinations<'a>(
    snapshot: &'a Snapshot,
    proxy: &'a Proxy,
    scope: &'a Scope,
) -> Destinations<'a> {
    let istio = IstioFilters::among(proxy.extensions.iter().map(String::as_str));
    Destinations { snapshot, proxy, scope, has_alpn_filter: istio.alpn }
}

/// The sidecar as a client of VirtualServices.
pub(crate) fn client(proxy: &Proxy) -> Client<'_> {
    Client { gateway: MESH_GATEWAY, namespace: &proxy.namespace, labels: &proxy.labels }
}

/// What becomes of traffic to unknown services: as the Sidecar says, else as the mesh says.
pub(crate) fn unknown(destinations: &Destinations<'_>) -> Unknown {
    let snapshot = destinations.snapshot;
    let own = destinations.scope.outbound_policy();
    if let Some(proxy) = own.and_then(|policy| policy.egress_proxy.as_ref()) {
        return Unknown::Proxy(proxy_cluster(destinations, proxy));
    }
    match own.map(|policy| policy.mode) {
        Some(OutboundTrafficMode::RegistryOnly) => Unknown::Refuse,
        Some(OutboundTrafficMode::AllowAny) => Unknown::Allow,
        None => match snapshot.mesh.outbound_traffic_policy.as_ref().map(|policy| policy.mode) {
            Some(MeshOutboundMode::RegistryOnly) => Unknown::Refuse,
            Some(MeshOutboundMode::AllowAnyDynamicDns) => Unknown::Resolve,
            Some(MeshOutboundMode::AllowAny) | None => Unknown::Allow,
        },
    }
}

/// The same for a forward proxy: where the client names the host, it is the host that is resolved.
pub(crate) fn unknown_by_name(destinations: &Destinations<'_>) -> Unknown {
    match unknown(destinations) {
        Unknown::Allow => Unknown::Resolve,
        other => other,
    }
}

fn proxy_cluster(destinations: &Destinations<'_>, proxy: &Destination) -> String {
    destinations.target(proxy, &destinations.proxy.namespace, 0).cluster
}
