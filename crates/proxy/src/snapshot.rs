//! The configuration in force: what workers look things up in.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use lateen_route::FastMap;

use crate::listener::{Bound, Served};
use crate::upstream::cluster::Cluster;

/// One state of the configuration. Published whole; a request looks at one.
#[derive(Debug, Default)]
pub(crate) struct Snapshot {
    /// Clusters by name.
    pub clusters: FastMap<Arc<str>, Arc<Cluster>>,
    /// Listeners by address, for connections that another listener hands over.
    pub listeners: HashMap<SocketAddr, Arc<Bound>>,
}

impl Snapshot {
    /// A cluster.
    #[inline]
    pub(crate) fn cluster(&self, name: &str) -> Option<&Arc<Cluster>> {
        self.clusters.get(name)
    }

    /// The listener that takes connections to `destination` over from `from`: the one of the very address, else the
    /// one of its port on any address.
    pub(crate) fn listener_for(&self, destination: SocketAddr, from: &Served) -> Option<Arc<Served>> {
        let any: IpAddr =
            if destination.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        let exact = self.listeners.get(&destination);
        let found = exact.or_else(|| self.listeners.get(&SocketAddr::new(any, destination.port())))?;
        let served = found.served.load_full();
        (!std::ptr::eq(&*served, from)).then_some(served)
    }
}
