//! What of a proxy its clusters depend on: proxies that agree in it share their clusters.

use std::net::IpAddr;

use lateen_base::{Labels, Locality, Namespace};

use crate::{Proxy, ProxyKind, Snapshot};

/// The extension that speaks metadata exchange over TCP.
pub(crate) const METADATA_EXCHANGE: &str = "istio.metadata_exchange";

/// What of a proxy its clusters depend on.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Class {
    /// Its kind.
    pub kind: ProxyKind,
    /// Its namespace.
    pub namespace: Namespace,
    /// Those of its workload's labels that matter: destination rules may select clients, failover compares labels.
    pub labels: Labels,
    /// Where it runs.
    pub locality: Locality,
    /// Whether it has IPv4 addresses.
    pub ipv4: bool,
    /// Whether it has IPv6 addresses.
    pub ipv6: bool,
    /// Whether it speaks metadata exchange.
    pub metadata_exchange: bool,
    /// Whether its application has an address of its own.
    pub loopback: bool,
    /// Whether the kernel hands it the workload's traffic.
    pub captures: bool,
    /// Files of the client certificate that takes the place of the agent's: chain, key, roots.
    pub client_files: Option<(String, String, String)>,
}

impl Class {
    /// The class of a proxy.
    pub fn of(snapshot: &Snapshot, proxy: &Proxy) -> Self {
        let metadata = &proxy.metadata;
        let files = (
            metadata.tls_client_cert_chain.clone(),
            metadata.tls_client_key.clone(),
            metadata.tls_client_root_cert.clone(),
        );
        Self {
            kind: proxy.kind,
            namespace: proxy.namespace.clone(),
            labels: snapshot.label_keys.routing(&proxy.labels),
            locality: snapshot.locality_of(proxy),
            ipv4: proxy.is_ipv4(),
            ipv6: proxy.is_ipv6(),
            metadata_exchange: proxy.has_extension(METADATA_EXCHANGE),
            loopback: proxy.is_loopback(),
            captures: proxy.captures(),
            client_files: (!files.0.is_empty()).then_some(files),
        }
    }

    /// Whether it is a gateway.
    pub fn is_router(&self) -> bool {
        self.kind == ProxyKind::Router
    }
}

impl Snapshot {
    /// Where a proxy runs: what it says itself, else what is known of its workload.
    pub fn locality_of(&self, proxy: &Proxy) -> Locality {
        if !proxy.locality.is_empty() {
            return proxy.locality.clone();
        }
        self.workload_of(proxy).map(|workload| workload.locality.clone()).unwrap_or_default()
    }
}

/// Whether an address is of the loopback block.
pub(crate) fn is_loopback(address: Option<IpAddr>) -> bool {
    address.is_some_and(|address| address.is_loopback())
}
