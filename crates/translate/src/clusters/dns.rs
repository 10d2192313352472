//! Clusters whose endpoints the proxy resolves.

use lateen_api::mesh::MeshConfig;
use lateen_proto::Any;
use lateen_proto::envoy::config::cluster::v3 as cluster;
use lateen_proto::envoy::config::cluster::v3::cluster::{ClusterDiscoveryType, CustomClusterType, LbPolicy};
use lateen_proto::envoy::config::core::v3::TypedExtensionConfig;
use lateen_proto::envoy::extensions::clusters::dynamic_forward_proxy::v3::{
    ClusterConfig, cluster_config::ClusterImplementationSpecifier,
};
use lateen_proto::envoy::extensions::network::dns_resolver::cares::v3::CaresDnsResolverConfig;

use super::class::Class;
use super::outbound::lookup_family;
use crate::filters::dynamic_dns::dns_cache_for;
use crate::filters::wire::duration;

/// Spreads the questions of many proxies.
const JITTER: std::time::Duration = std::time::Duration::from_millis(100);

/// Writes how names are resolved into a cluster of type DNS.
// The fields are deprecated for a typed cluster extension that only the newest Envoys have.
#[allow(deprecated)]
pub(crate) fn apply(to: &mut cluster::Cluster, class: &Class, mesh: &MeshConfig) {
    to.dns_lookup_family = lookup_family(class).into();
    to.dns_refresh_rate = mesh.dns_refresh_rate.map(duration);
    to.dns_jitter = Some(duration(JITTER));
    to.respect_dns_ttl = true;
    // In loopback isolation the node's own DNS server is the bootstrap's; a resolver here would ask the machine's.
    if !class.loopback {
        to.typed_dns_resolver_config = Some(resolver());
    }
}

fn resolver() -> TypedExtensionConfig {
    let config = CaresDnsResolverConfig { udp_max_queries: Some(100), ..Default::default() };
    TypedExtensionConfig {
        name: "envoy.network.dns_resolver.cares".to_owned(),
        typed_config: Some(Any::pack(&config)),
    }
}

/// Makes a cluster one that resolves the host that the client asked for.
pub(crate) fn dynamic(to: &mut cluster::Cluster, class: &Class) {
    let config = ClusterConfig {
        cluster_implementation_specifier: Some(ClusterImplementationSpecifier::DnsCacheConfig(
            dns_cache_for(class.ipv4, class.ipv6),
        )),
        ..Default::default()
    };
    to.cluster_discovery_type = Some(ClusterDiscoveryType::ClusterType(CustomClusterType {
        name: "envoy.clusters.dynamic_forward_proxy".to_owned(),
        typed_config: Some(Any::pack(&config)),
    }));
    to.lb_policy = LbPolicy::ClusterProvided.into();
    to.lb_config = None;
}
