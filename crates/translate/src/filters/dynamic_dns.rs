//! The dynamic forward proxy: hosts that nobody registered, resolved when a client names them.
//!
//! Filter and cluster (`AllowAnyDynamicDNSCluster`) share one cache, by this very configuration.

use lateen_proto::envoy::config::cluster::v3::cluster::DnsLookupFamily;
use lateen_proto::envoy::extensions::common::dynamic_forward_proxy::v3::DnsCacheConfig;
use lateen_proto::envoy::extensions::filters::http::dynamic_forward_proxy::v3::{
    FilterConfig, filter_config::ImplementationSpecifier,
};
use lateen_proto::envoy::extensions::filters::network::http_connection_manager::v3::HttpFilter;

use super::wire::http_filter;
use crate::Proxy;

/// The cache of names that a proxy resolves on demand.
pub(crate) fn dns_cache(proxy: &Proxy) -> DnsCacheConfig {
    dns_cache_for(proxy.is_ipv4(), proxy.is_ipv6())
}

/// The cache of a proxy with addresses of these families.
pub(crate) fn dns_cache_for(ipv4: bool, ipv6: bool) -> DnsCacheConfig {
    let family = match (ipv4, ipv6) {
        (true, true) => DnsLookupFamily::All,
        (false, true) => DnsLookupFamily::V6Only,
        _ => DnsLookupFamily::V4Only,
    };
    DnsCacheConfig {
        name: "dynamic_dns_cache".into(),
        dns_lookup_family: family.into(),
        ..Default::default()
    }
}

/// The filter that has names resolved before the router needs them.
pub(crate) fn filter(proxy: &Proxy) -> HttpFilter {
    let config = FilterConfig {
        implementation_specifier: Some(ImplementationSpecifier::DnsCacheConfig(dns_cache(proxy))),
        ..Default::default()
    };
    http_filter("envoy.filters.http.dynamic_forward_proxy", &config)
}
