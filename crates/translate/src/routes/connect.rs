//! CONNECT routes: how applications behind a forward proxy reach ports that carry bytes (loopback isolation).

use lateen_proto::Any;
use lateen_proto::envoy::config::route::v3 as route;
use lateen_proto::envoy::config::route::v3::route_action::{ClusterSpecifier, UpgradeConfig, upgrade_config};
use lateen_proto::envoy::config::route::v3::route_match::{ConnectMatcher, PathSpecifier};
use lateen_proto::envoy::config::route::v3::weighted_cluster::ClusterWeight;

use super::action::{UpstreamAlpn, alpn_overrides};
use crate::filters::wire::zero;

/// A route that ends CONNECT here and sends the bytes on to a cluster, or to several by weight.
pub(crate) fn to_clusters(
    name: &str,
    clusters: &[(String, u32)],
    has_alpn_filter: bool,
) -> Option<route::Route> {
    let specifier = match clusters {
        [] => return None,
        [(cluster, _)] => ClusterSpecifier::Cluster(cluster.clone()),
        several => ClusterSpecifier::WeightedClusters(route::WeightedCluster {
            clusters: several
                .iter()
                .map(|(cluster, weight)| ClusterWeight {
                    name: cluster.clone(),
                    weight: Some(*weight),
                    ..Default::default()
                })
                .collect(),
            ..Default::default()
        }),
    };
    let connect = UpgradeConfig {
        upgrade_type: "CONNECT".into(),
        connect_config: Some(upgrade_config::ConnectConfig::default()),
        ..Default::default()
    };
    let action = route::RouteAction {
        timeout: Some(zero()),
        upgrade_configs: vec![connect],
        cluster_specifier: Some(specifier),
        ..Default::default()
    };
    Some(of(name, route::route::Action::Route(action), has_alpn_filter))
}

/// A route that refuses CONNECT.
pub(crate) fn refusing(name: &str, action: route::route::Action) -> route::Route {
    of(name, action, true)
}

// The bytes inside are no requests of ours: they are offered upstream as the cluster says, as bytes are.
fn of(name: &str, action: route::route::Action, has_alpn_filter: bool) -> route::Route {
    let overrides: std::collections::BTreeMap<String, Any> =
        alpn_overrides(UpstreamAlpn::Cluster, has_alpn_filter);
    route::Route {
        name: name.to_owned(),
        r#match: Some(route::RouteMatch {
            path_specifier: Some(PathSpecifier::ConnectMatcher(ConnectMatcher {})),
            ..Default::default()
        }),
        typed_per_filter_config: overrides,
        action: Some(action),
        ..Default::default()
    }
}
