//! External authorization: providers of the mesh configuration that CUSTOM policies ask.

use std::time::Duration;

use lateen_api::mesh::ExtensionProvider;
use lateen_api::mesh::providers::{ExtAuthzGrpcProvider, ExtAuthzHttpProvider, ExtAuthzRequestBody};
use lateen_base::Host;
use lateen_proto::envoy::config::core::v3 as core;
use lateen_proto::envoy::config::listener::v3::Filter;
use lateen_proto::envoy::extensions::filters::http::ext_authz::v3 as http;
use lateen_proto::envoy::extensions::filters::network::ext_authz::v3 as network;
use lateen_proto::envoy::extensions::filters::network::http_connection_manager::v3::HttpFilter;
use lateen_proto::envoy::r#type::matcher::v3::{ListStringMatcher, MetadataMatcher, StringMatcher};
use lateen_proto::envoy::r#type::v3::HttpStatus;

use super::patterns::{metadata, string, text_value};
use crate::filters::wire::{duration, http_filter, network_filter};
use crate::names::{self, Direction};

pub(crate) const HTTP_FILTER: &str = "envoy.filters.http.ext_authz";
pub(crate) const TCP_FILTER: &str = "envoy.filters.network.ext_authz";
/// What follows the prefix of the filter before, in the name under which its metadata has the policy that asks.
const POLICY: &str = "shadow_effective_policy_id";
/// How long a provider may take that sets no limit.
const TIMEOUT: Duration = Duration::from_secs(600);

/// The filter that asks a provider about requests which the filter before has chosen; its metadata have this prefix.
pub(crate) fn http(provider: &ExtensionProvider, prefix: &str) -> Option<HttpFilter> {
    let enabled = enabled("envoy.filters.http.rbac", prefix, &provider.name);
    let config = if let Some(given) = &provider.envoy_ext_authz_grpc {
        http::ExtAuthz {
            services: Some(http::ext_authz::Services::GrpcService(grpc(given)?)),
            failure_mode_allow: given.fail_open,
            status_on_error: status(&given.status_on_error),
            with_request_body: given.include_request_body_in_check.as_ref().map(body),
            clear_route_cache: given.clear_route_cache,
            ..base(enabled)
        }
    } else {
        let given = provider.envoy_ext_authz_http.as_ref()?;
        let headers = match given.include_request_headers_in_check.is_empty() {
            true => &given.include_headers_in_check,
            false => &given.include_request_headers_in_check,
        };
        http::ExtAuthz {
            services: Some(http::ext_authz::Services::HttpService(http_service(given)?)),
            failure_mode_allow: given.fail_open,
            status_on_error: status(&given.status_on_error),
            with_request_body: given.include_request_body_in_check.as_ref().map(body),
            clear_route_cache: given.clear_route_cache,
            allowed_headers: names_list(headers),
            ..base(enabled)
        }
    };
    Some(http_filter(HTTP_FILTER, &config))
}

/// The filter that asks a provider about connections; only those that speak gRPC can be.
pub(crate) fn tcp(provider: &ExtensionProvider, prefix: &str) -> Option<Filter> {
    let given = provider.envoy_ext_authz_grpc.as_ref()?;
    let config = network::ExtAuthz {
        stat_prefix: "tcp.".into(),
        grpc_service: Some(grpc(given)?),
        failure_mode_allow: given.fail_open,
        transport_api_version: core::ApiVersion::V3.into(),
        filter_enabled_metadata: Some(enabled("envoy.filters.network.rbac", prefix, &provider.name)),
        ..Default::default()
    };
    Some(network_filter(TCP_FILTER, &config))
}

fn base(enabled: MetadataMatcher) -> http::ExtAuthz {
    http::ExtAuthz {
        transport_api_version: core::ApiVersion::V3.into(),
        filter_enabled_metadata: Some(enabled),
        ..Default::default()
    }
}

fn enabled(filter: &str, prefix: &str, provider: &str) -> MetadataMatcher {
    let named = string(&format!("istio-ext-authz-{provider}*"));
    metadata(filter, &[&format!("{prefix}{POLICY}")], text_value(named))
}

fn grpc(given: &ExtAuthzGrpcProvider) -> Option<core::GrpcService> {
    let (cluster, host) = cluster(&given.service, given.port)?;
    Some(core::GrpcService {
        timeout: Some(duration(given.timeout.unwrap_or(TIMEOUT))),
        target_specifier: Some(core::grpc_service::TargetSpecifier::EnvoyGrpc(
            core::grpc_service::EnvoyGrpc { cluster_name: cluster, authority: host, ..Default::default() },
        )),
        ..Default::default()
    })
}

fn http_service(given: &ExtAuthzHttpProvider) -> Option<http::HttpService> {
    let (cluster, host) = cluster(&given.service, given.port)?;
    let additions = given.include_additional_headers_in_check.iter().map(|(key, value)| core::HeaderValue {
        key: key.clone(),
        value: value.clone(),
        ..Default::default()
    });
    let additions: Vec<_> = additions.collect();
    let response = http::AuthorizationResponse {
        allowed_upstream_headers: names_list(&given.headers_to_upstream_on_allow),
        allowed_client_headers: names_list(&given.headers_to_downstream_on_deny),
        allowed_client_headers_on_success: names_list(&given.headers_to_downstream_on_allow),
        ..Default::default()
    };
    Some(http::HttpService {
        server_uri: Some(core::HttpUri {
            uri: format!("http://{host}"),
            timeout: Some(duration(given.timeout.unwrap_or(TIMEOUT))),
            http_upstream_type: Some(core::http_uri::HttpUpstreamType::Cluster(cluster)),
        }),
        path_prefix: given.path_prefix.clone(),
        authorization_request: (!additions.is_empty())
            .then(|| http::AuthorizationRequest { headers_to_add: additions, ..Default::default() }),
        authorization_response: (response != http::AuthorizationResponse::default()).then_some(response),
        ..Default::default()
    })
}

/// The cluster and host of a provider's service, written `NAMESPACE/HOST` or `HOST`.
fn cluster(service: &str, port: u32) -> Option<(String, String)> {
    let host = Host::new(service.rsplit('/').next().unwrap_or_default());
    let port = u16::try_from(port).ok()?;
    Some((names::cluster(Direction::Outbound, port, "", &host), host.to_string()))
}

fn status(text: &str) -> Option<HttpStatus> {
    text.parse().ok().map(|code| HttpStatus { code })
}

fn body(given: &ExtAuthzRequestBody) -> http::BufferSettings {
    http::BufferSettings {
        max_request_bytes: given.max_request_bytes,
        allow_partial_message: given.allow_partial_message,
        pack_as_bytes: given.pack_as_bytes,
    }
}

fn names_list(names: &[String]) -> Option<ListStringMatcher> {
    let patterns = names.iter().map(|name| StringMatcher { ignore_case: true, ..string(name) }).collect();
    (!names.is_empty()).then_some(ListStringMatcher { patterns })
}
