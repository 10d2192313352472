//! Clusters.

use lateen_proto::envoy::config::cluster::v3::Cluster;

use crate::{Built, Proxy, Snapshot};

/// The clusters of a proxy.
pub fn build(_snapshot: &Snapshot, _proxy: &Proxy) -> Vec<Built<Cluster>> {
    Vec::new()
}
