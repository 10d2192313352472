//! What becomes of requests for hosts that nobody knows, and what surrounds all virtual hosts.

use lateen_proto::envoy::config::core::v3::DataSource;
use lateen_proto::envoy::config::route::v3 as route;
use lateen_proto::envoy::config::route::v3::route_action::ClusterSpecifier;

use super::matches::route_match;
use crate::filters::wire::zero;
use crate::names;

/// Direct responses are no longer than this.
const MAX_DIRECT_RESPONSE: u32 = 1 << 20;

/// What becomes of traffic to unknown services.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Unknown {
    /// It goes where the client meant.
    Allow,
    /// It goes to the host that the client names, which the proxy resolves.
    Resolve,
    /// It goes to a proxy.
    Proxy(String),
    /// It is refused.
    Refuse,
}

impl Unknown {
    /// The cluster that bytes to unknown places go to.
    pub(crate) fn cluster(&self) -> &str {
        match self {
            Self::Allow | Self::Resolve => names::PASSTHROUGH_CLUSTER,
            Self::Proxy(cluster) => cluster,
            Self::Refuse => names::BLACK_HOLE_CLUSTER,
        }
    }

    /// The virtual host that takes what no other does.
    pub(crate) fn virtual_host(&self) -> route::VirtualHost {
        let (name, action) = match self {
            Self::Allow => ("allow_any", forward(names::PASSTHROUGH_CLUSTER)),
            Self::Resolve => ("allow_any_dynamic_dns", forward(names::DYNAMIC_DNS_CLUSTER)),
            Self::Proxy(cluster) => ("allow_any", forward(cluster)),
            Self::Refuse => ("block_all", refuse(502)),
        };
        route::VirtualHost {
            name: name.into(),
            domains: vec!["*".into()],
            routes: vec![route::Route {
                name: name.into(),
                r#match: Some(route_match(None, Default::default())),
                action: Some(action),
                ..Default::default()
            }],
            include_request_attempt_count: true,
            ..Default::default()
        }
    }
}

/// A route configuration of these virtual hosts.
pub(crate) fn configuration(
    name: impl Into<String>,
    virtual_hosts: Vec<route::VirtualHost>,
    ignore_port: bool,
) -> route::RouteConfiguration {
    route::RouteConfiguration {
        name: name.into(),
        virtual_hosts,
        validate_clusters: Some(false),
        max_direct_response_body_size_bytes: Some(MAX_DIRECT_RESPONSE),
        ignore_port_in_host_matching: ignore_port,
        ..Default::default()
    }
}

// `max_grpc_timeout` is deprecated, and what Istio sends.
#[allow(deprecated)]
fn forward(cluster: &str) -> route::route::Action {
    route::route::Action::Route(route::RouteAction {
        timeout: Some(zero()),
        max_grpc_timeout: Some(zero()),
        cluster_specifier: Some(ClusterSpecifier::Cluster(cluster.to_owned())),
        ..Default::default()
    })
}

/// An answer without body.
pub(crate) fn refuse(status: u32) -> route::route::Action {
    route::route::Action::DirectResponse(route::DirectResponseAction {
        status,
        body: None::<DataSource>,
        ..Default::default()
    })
}
