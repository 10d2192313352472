//! The bootstrap as messages, for the proxy that runs in the agent's own process: the same as the file, without
//! the reflection that JSON would need (a test holds the two together).

use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use lateen_proto::envoy::config::bootstrap::v3::bootstrap::{DynamicResources, StaticResources};
use lateen_proto::envoy::config::bootstrap::v3::{Admin, Bootstrap, ClusterManager};
use lateen_proto::envoy::config::cluster::v3::Cluster;
use lateen_proto::envoy::config::cluster::v3::cluster::{ClusterDiscoveryType, DiscoveryType};
use lateen_proto::envoy::config::core::v3::address::Address as AddressKind;
use lateen_proto::envoy::config::core::v3::api_config_source::ApiType;
use lateen_proto::envoy::config::core::v3::config_source::ConfigSourceSpecifier;
use lateen_proto::envoy::config::core::v3::grpc_service::{EnvoyGrpc, TargetSpecifier};
use lateen_proto::envoy::config::core::v3::socket_address::PortSpecifier;
use lateen_proto::envoy::config::core::v3::{
    Address, AggregatedConfigSource, ApiConfigSource, ApiVersion, BindConfig, ConfigSource, GrpcService,
    Node, Pipe, SocketAddress, TypedExtensionConfig,
};
use lateen_proto::envoy::config::endpoint::v3::lb_endpoint::HostIdentifier;
use lateen_proto::envoy::config::endpoint::v3::{
    ClusterLoadAssignment, Endpoint, LbEndpoint, LocalityLbEndpoints,
};
use lateen_proto::envoy::config::listener::v3::filter::ConfigType;
use lateen_proto::envoy::config::listener::v3::{Filter, FilterChain, Listener};
use lateen_proto::envoy::config::route::v3::route::Action;
use lateen_proto::envoy::config::route::v3::route_action::ClusterSpecifier;
use lateen_proto::envoy::config::route::v3::route_match::PathSpecifier;
use lateen_proto::envoy::config::route::v3::{
    Route, RouteAction, RouteConfiguration, RouteMatch, VirtualHost,
};
use lateen_proto::envoy::extensions::filters::http::router::v3::Router;
use lateen_proto::envoy::extensions::filters::network::http_connection_manager::v3::http_connection_manager::RouteSpecifier;
use lateen_proto::envoy::extensions::filters::network::http_connection_manager::v3::{
    HttpConnectionManager, HttpFilter, http_filter,
};
use lateen_proto::envoy::extensions::network::dns_resolver::cares::v3::CaresDnsResolverConfig;
use lateen_proto::{Any, Duration, Struct, Value, value};
use serde_json::Value as Json;

use crate::bootstrap::{METRICS_PORT, READINESS_PORT, reachable};
use crate::files;
use crate::settings::Settings;

/// The part of the bootstrap that the proxy acts on: node, admin, sources, static resources, addresses.
pub(crate) fn build(settings: &Settings) -> Bootstrap {
    Bootstrap {
        node: Some(Node {
            id: settings.node_id(),
            cluster: settings.service_cluster.clone(),
            metadata: Some(structure(&settings.metadata)),
            ..Default::default()
        }),
        admin: Some(Admin { address: Some(address(settings.admin())), ..Default::default() }),
        dynamic_resources: Some(dynamic()),
        static_resources: Some(StaticResources {
            clusters: clusters(settings),
            listeners: vec![
                listener(settings, METRICS_PORT, "/stats/prometheus", "prometheus_stats"),
                listener(settings, READINESS_PORT, "/healthz/ready", "agent"),
            ],
            ..Default::default()
        }),
        cluster_manager: settings.shares_loopback().then(|| ClusterManager {
            upstream_bind_config: Some(BindConfig {
                source_address: Some(socket_address(SocketAddr::new(settings.address(), 0))),
                ..Default::default()
            }),
            ..Default::default()
        }),
        typed_dns_resolver_config: settings.dns.map(|server| TypedExtensionConfig {
            name: "envoy.network.dns_resolver.cares".to_owned(),
            typed_config: Some(Any::pack(&CaresDnsResolverConfig {
                resolvers: vec![address(server)],
                ..Default::default()
            })),
        }),
        ..Default::default()
    }
}

/// Adds to the node's metadata.
pub(crate) fn tell(bootstrap: &mut Bootstrap, key: &str, value: &Json) {
    let metadata = bootstrap.node.get_or_insert_default().metadata.get_or_insert_default();
    metadata.fields.insert(key.to_owned(), value_of(value));
}

fn dynamic() -> DynamicResources {
    let from_ads = ConfigSource {
        initial_fetch_timeout: Some(Duration::default()),
        resource_api_version: ApiVersion::V3.into(),
        config_source_specifier: Some(ConfigSourceSpecifier::Ads(AggregatedConfigSource {})),
        ..Default::default()
    };
    let grpc = EnvoyGrpc { cluster_name: "xds-grpc".to_owned(), ..Default::default() };
    DynamicResources {
        cds_config: Some(from_ads.clone()),
        lds_config: Some(from_ads),
        ads_config: Some(ApiConfigSource {
            api_type: ApiType::DeltaGrpc.into(),
            transport_api_version: ApiVersion::V3.into(),
            set_node_on_first_message_only: true,
            grpc_services: vec![GrpcService {
                target_specifier: Some(TargetSpecifier::EnvoyGrpc(grpc)),
                ..Default::default()
            }],
            ..Default::default()
        }),
        ..Default::default()
    }
}

fn clusters(settings: &Settings) -> Vec<Cluster> {
    vec![
        cluster("prometheus_stats", address(settings.admin())),
        cluster("agent", address(reachable(settings, settings.config.status_port))),
        cluster("sds-grpc", pipe(&settings.secrets_socket())),
        cluster("xds-grpc", pipe(&settings.discovery_socket())),
    ]
}

fn cluster(name: &str, at: Address) -> Cluster {
    let endpoint = Endpoint { address: Some(at), ..Default::default() };
    let endpoint =
        LbEndpoint { host_identifier: Some(HostIdentifier::Endpoint(endpoint)), ..Default::default() };
    let locality = LocalityLbEndpoints { lb_endpoints: vec![endpoint], ..Default::default() };
    Cluster {
        name: name.to_owned(),
        cluster_discovery_type: Some(ClusterDiscoveryType::Type(DiscoveryType::Static.into())),
        load_assignment: Some(ClusterLoadAssignment {
            cluster_name: name.to_owned(),
            endpoints: vec![locality],
            ..Default::default()
        }),
        ..Default::default()
    }
}

fn listener(settings: &Settings, port: u16, prefix: &str, cluster: &str) -> Listener {
    let route = Route {
        r#match: Some(RouteMatch {
            path_specifier: Some(PathSpecifier::Prefix(prefix.to_owned())),
            ..Default::default()
        }),
        action: Some(Action::Route(RouteAction {
            cluster_specifier: Some(ClusterSpecifier::Cluster(cluster.to_owned())),
            ..Default::default()
        })),
        ..Default::default()
    };
    let host = VirtualHost {
        name: "backend".to_owned(),
        domains: vec!["*".to_owned()],
        routes: vec![route],
        ..Default::default()
    };
    let router = HttpFilter {
        name: "envoy.filters.http.router".to_owned(),
        config_type: Some(http_filter::ConfigType::TypedConfig(Any::pack(&Router::default()))),
        ..Default::default()
    };
    let manager = HttpConnectionManager {
        stat_prefix: cluster.to_owned(),
        http_filters: vec![router],
        route_specifier: Some(RouteSpecifier::RouteConfig(RouteConfiguration {
            virtual_hosts: vec![host],
            ..Default::default()
        })),
        ..Default::default()
    };
    let filter = Filter {
        name: "envoy.filters.network.http_connection_manager".to_owned(),
        config_type: Some(ConfigType::TypedConfig(Any::pack(&manager))),
    };
    Listener {
        name: format!("static_{port}"),
        address: Some(address(SocketAddr::new(settings.wildcard(), port))),
        filter_chains: vec![FilterChain { filters: vec![filter], ..Default::default() }],
        ..Default::default()
    }
}

fn address(at: SocketAddr) -> Address {
    Address { address: Some(AddressKind::SocketAddress(socket_address(at))) }
}

fn socket_address(at: SocketAddr) -> SocketAddress {
    SocketAddress {
        address: IpAddr::to_string(&at.ip()),
        port_specifier: Some(PortSpecifier::PortValue(at.port().into())),
        ..Default::default()
    }
}

fn pipe(path: &Path) -> Address {
    Address { address: Some(AddressKind::Pipe(Pipe { path: files::text(path), mode: 0 })) }
}

fn structure(map: &serde_json::Map<String, Json>) -> Struct {
    Struct { fields: map.iter().map(|(key, json)| (key.clone(), value_of(json))).collect() }
}

fn value_of(json: &Json) -> Value {
    let kind = match json {
        Json::Null => value::Kind::NullValue(0),
        Json::Bool(flag) => value::Kind::BoolValue(*flag),
        Json::Number(number) => value::Kind::NumberValue(number.as_f64().unwrap_or_default()),
        Json::String(text) => value::Kind::StringValue(text.clone()),
        Json::Array(items) => {
            value::Kind::ListValue(prost_types::ListValue { values: items.iter().map(value_of).collect() })
        }
        Json::Object(map) => value::Kind::StructValue(structure(map)),
    };
    Value { kind: Some(kind) }
}
