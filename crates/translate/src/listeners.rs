//! Listeners.

use lateen_proto::envoy::config::listener::v3::Listener;

use crate::{Built, Proxy, Snapshot};

/// The listeners of a proxy.
pub fn build(_snapshot: &Snapshot, _proxy: &Proxy) -> Vec<Built<Listener>> {
    Vec::new()
}
