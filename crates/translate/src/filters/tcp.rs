//! The TCP proxy filter.

use std::time::Duration;

use lateen_proto::envoy::config::accesslog::v3::AccessLog;
use lateen_proto::envoy::config::listener::v3::Filter;
use lateen_proto::envoy::extensions::filters::network::tcp_proxy::v3 as tcp;
use lateen_proto::envoy::extensions::filters::network::tcp_proxy::v3::tcp_proxy;
use lateen_proto::envoy::r#type::v3 as types;

use super::wire::{duration, network_filter};

/// Where the bytes of a connection go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum TcpTarget {
    /// To one cluster.
    Cluster(String),
    /// To several, by weight.
    Weighted(Vec<(String, u32)>),
}

/// A TCP proxy.
#[derive(Clone, Debug)]
pub(crate) struct TcpProxy<'a> {
    /// The prefix of its statistics.
    pub(crate) stat_prefix: String,
    /// Where to.
    pub(crate) target: TcpTarget,
    /// How long a silent connection lives; Envoy's hour when none is given.
    pub(crate) idle: Option<Duration>,
    /// Where its connections are logged.
    pub(crate) access_log: &'a [AccessLog],
    /// By which hash the cluster's ring is entered.
    pub(crate) hash_by_source_ip: bool,
    /// Whether the bytes travel in a tunnel: its host and port, and whether by POST.
    pub(crate) tunnel: Option<(String, bool)>,
}

impl TcpProxy<'_> {
    /// The filter.
    pub(crate) fn into_filter(self) -> Filter {
        let hash = types::HashPolicy {
            policy_specifier: Some(types::hash_policy::PolicySpecifier::SourceIp(Default::default())),
        };
        let config = tcp::TcpProxy {
            stat_prefix: self.stat_prefix,
            idle_timeout: self.idle.map(duration),
            access_log: self.access_log.to_vec(),
            hash_policy: self.hash_by_source_ip.then_some(hash).into_iter().collect(),
            tunneling_config: self.tunnel.map(|(hostname, use_post)| tcp_proxy::TunnelingConfig {
                hostname,
                use_post,
                ..Default::default()
            }),
            cluster_specifier: Some(target(self.target)),
            ..Default::default()
        };
        network_filter("envoy.filters.network.tcp_proxy", &config)
    }
}

fn target(target: TcpTarget) -> tcp_proxy::ClusterSpecifier {
    match target {
        TcpTarget::Cluster(name) => tcp_proxy::ClusterSpecifier::Cluster(name),
        TcpTarget::Weighted(clusters) => {
            let clusters = clusters
                .into_iter()
                .map(|(name, weight)| tcp_proxy::weighted_cluster::ClusterWeight {
                    name,
                    weight,
                    metadata_match: None,
                })
                .collect();
            tcp_proxy::ClusterSpecifier::WeightedClusters(tcp_proxy::WeightedCluster { clusters })
        }
    }
}
