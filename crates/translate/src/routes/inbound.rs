//! Routes of inbound listeners: everything to the application.

use lateen_base::Host;
use lateen_proto::envoy::config::route::v3 as route;
use lateen_proto::envoy::config::route::v3::route_action::{ClusterSpecifier, MaxStreamDuration};
use lateen_registry::Protocol;

use super::fallback::configuration;
use super::matches::route_match;
use super::retry;
use crate::filters::wire::zero;

/// The routes of a service's port.
pub(crate) fn of_service(
    cluster: &str,
    host: &Host,
    port: u16,
    protocol: Protocol,
) -> route::RouteConfiguration {
    let retries = (!protocol.is_grpc()).then(retry::inbound);
    inline(cluster, format!("inbound|http|{port}"), format!("{host}:{port}/*"), retries)
}

/// The routes of what no service names.
pub(crate) fn passthrough(cluster: &str) -> route::RouteConfiguration {
    inline(cluster, "inbound|http|0".into(), ":0/*".into(), Some(retry::inbound()))
}

fn inline(
    cluster: &str,
    virtual_host: String,
    operation: String,
    retry_policy: Option<route::RetryPolicy>,
) -> route::RouteConfiguration {
    let action = route::RouteAction {
        timeout: Some(zero()),
        retry_policy,
        max_stream_duration: Some(MaxStreamDuration {
            max_stream_duration: Some(zero()),
            grpc_timeout_header_max: Some(zero()),
            ..Default::default()
        }),
        cluster_specifier: Some(ClusterSpecifier::Cluster(cluster.to_owned())),
        ..Default::default()
    };
    let route = route::Route {
        name: "default".into(),
        r#match: Some(route_match(None, Default::default())),
        decorator: Some(route::Decorator { operation, propagate: None }),
        action: Some(route::route::Action::Route(action)),
        ..Default::default()
    };
    let host = route::VirtualHost {
        name: virtual_host,
        domains: vec!["*".into()],
        routes: vec![route],
        ..Default::default()
    };
    configuration(cluster, vec![host], true)
}
