//! Whether Envoy would take a resource: the bounds of its types, and what it checks beyond them.

use std::collections::BTreeSet;

use lateen_proto::envoy::config::cluster::v3::Cluster;
use lateen_proto::envoy::config::cluster::v3::cluster::{ClusterDiscoveryType, DiscoveryType, LbPolicy};
use lateen_proto::envoy::config::listener::v3::filter::ConfigType;
use lateen_proto::envoy::config::listener::v3::listener::ListenerSpecifier;
use lateen_proto::envoy::config::listener::v3::{FilterChain, Listener};
use lateen_proto::envoy::config::route::v3::RouteConfiguration;
use lateen_proto::envoy::extensions::filters::network::http_connection_manager::v3::HttpConnectionManager;
use lateen_proto::envoy::extensions::filters::network::http_connection_manager::v3::http_connection_manager::RouteSpecifier;
use lateen_proto::{Message, Name, rules};

/// Network filters that nothing may come after.
const TERMINAL: &[&str] = &[
    "envoy.filters.network.http_connection_manager",
    "envoy.filters.network.tcp_proxy",
    "envoy.filters.network.redis_proxy",
    "envoy.filters.network.thrift_proxy",
    "envoy.filters.network.dubbo_proxy",
    "envoy.filters.network.direct_response",
    "envoy.filters.network.echo",
];
/// The HTTP filter that nothing may come after.
pub(crate) const ROUTER: &str = "envoy.filters.http.router";

/// A resource that can be judged.
pub(crate) trait Sound: Message + Name + Default + Clone {
    /// What Envoy checks beyond the bounds of its types.
    fn beyond(&self) -> Result<(), String>;

    /// Why Envoy would refuse it.
    fn sound(&self) -> Result<(), String> {
        rules::check(self).map_err(|violation| violation.to_string())?;
        self.beyond()
    }
}

impl Sound for Cluster {
    fn beyond(&self) -> Result<(), String> {
        let original = Some(ClusterDiscoveryType::Type(DiscoveryType::OriginalDst.into()));
        let own_kind = matches!(self.cluster_discovery_type, Some(ClusterDiscoveryType::ClusterType(_)));
        let provided = self.lb_policy() == LbPolicy::ClusterProvided;
        if self.cluster_discovery_type == original && !provided && self.load_balancing_policy.is_none() {
            return Err("lb_policy: a cluster of type ORIGINAL_DST needs CLUSTER_PROVIDED".into());
        }
        if provided && self.cluster_discovery_type != original && !own_kind {
            return Err("lb_policy: CLUSTER_PROVIDED is for clusters of type ORIGINAL_DST".into());
        }
        let eds = Some(ClusterDiscoveryType::Type(DiscoveryType::Eds.into()));
        if self.cluster_discovery_type == eds && self.eds_cluster_config.is_none() {
            return Err("eds_cluster_config: a cluster of type EDS needs it".into());
        }
        Ok(())
    }
}

impl Sound for Listener {
    fn beyond(&self) -> Result<(), String> {
        let inside = matches!(self.listener_specifier, Some(ListenerSpecifier::InternalListener(_)));
        if self.address.is_none() && !inside && self.api_listener.is_none() {
            return Err("address: is required".into());
        }
        let datagrams = self.udp_listener_config.is_some();
        if self.filter_chains.is_empty() && self.default_filter_chain.is_none() && !inside && !datagrams {
            return Err("filter_chains: there has to be one".into());
        }
        let mut seen = Vec::new();
        for (index, chain) in self.filter_chains.iter().enumerate() {
            let matched = chain.filter_chain_match.clone().unwrap_or_default();
            if seen.contains(&matched) {
                return Err(format!("filter_chains[{index}].filter_chain_match: another chain has the same"));
            }
            seen.push(matched);
        }
        self.filter_chains.iter().chain(&self.default_filter_chain).try_for_each(sound_chain)
    }
}

fn sound_chain(chain: &FilterChain) -> Result<(), String> {
    for (index, filter) in chain.filters.iter().enumerate() {
        if TERMINAL.contains(&filter.name.as_str()) && index + 1 != chain.filters.len() {
            return Err(format!("filters: {} has to be the last", filter.name));
        }
        let Some(ConfigType::TypedConfig(config)) = &filter.config_type else { continue };
        if !config.is::<HttpConnectionManager>() {
            continue;
        }
        let manager: HttpConnectionManager = config.unpack().map_err(|error| error.to_string())?;
        let filters = &manager.http_filters;
        let router = filters.iter().position(|filter| filter.name == ROUTER);
        if router.is_some_and(|at| at + 1 != filters.len()) {
            return Err(format!("http_filters: {ROUTER} has to be the last; use INSERT_BEFORE it"));
        }
        if filters.is_empty() {
            return Err("http_filters: there has to be one that ends the chain".into());
        }
        if let Some(RouteSpecifier::RouteConfig(routes)) = &manager.route_specifier {
            routes.beyond()?;
        }
    }
    Ok(())
}

impl Sound for RouteConfiguration {
    fn beyond(&self) -> Result<(), String> {
        let (mut names, mut domains) = (BTreeSet::new(), BTreeSet::new());
        for host in &self.virtual_hosts {
            if !names.insert(&host.name) {
                return Err(format!("virtual_hosts: two have the name {}", host.name));
            }
            let twice = host.domains.iter().find(|domain| !domains.insert(domain.to_ascii_lowercase()));
            if let Some(domain) = twice {
                return Err(format!("virtual_hosts: two have the domain {domain}"));
            }
        }
        Ok(())
    }
}
