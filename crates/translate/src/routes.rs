//! Route configurations: VirtualServices and services to virtual hosts and routes.

pub(crate) mod action;
mod connect;
mod cors;
mod delegate;
pub(crate) mod destinations;
mod domains;
pub(crate) mod fallback;
mod fault;
pub(crate) mod gateway;
mod headers;
pub(crate) mod inbound;
mod matches;
mod outbound;
pub(crate) mod parts;
mod retry;
pub(crate) mod rules;
mod virtual_hosts;
pub(crate) mod virtual_service;

use std::collections::BTreeSet;

use lateen_proto::envoy::config::route::v3::{RouteConfiguration, RouteMatch};

use crate::snapshot::ServiceTarget;
use crate::{Built, Proxy, Snapshot};
use parts::RouteParts;

/// The route configurations of a proxy, of those names. A name that nothing is known of gets a configuration that says what
/// becomes of unknown hosts.
pub fn build(snapshot: &Snapshot, proxy: &Proxy, names: &BTreeSet<String>) -> Vec<Built<RouteConfiguration>> {
    let parts = build_for(snapshot, proxy, names, &snapshot.service_targets(proxy));
    parts.into_iter().map(RouteParts::whole).collect()
}

/// The same for a proxy that serves these services.
pub(crate) fn build_for(
    snapshot: &Snapshot,
    proxy: &Proxy,
    names: &BTreeSet<String>,
    targets: &[ServiceTarget],
) -> Vec<RouteParts> {
    match proxy.is_router() {
        true => gateway::build(snapshot, proxy, names, targets).into_iter().map(Into::into).collect(),
        false => outbound::build(snapshot, proxy, names),
    }
}

/// The match of a route for every request.
pub(crate) fn everything() -> RouteMatch {
    matches::route_match(None, matches::Semantics::Istio)
}
