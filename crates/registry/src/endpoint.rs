//! The endpoints of a service: where it is served, over all clusters.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;

use lateen_base::{ClusterId, Labels, Locality, Namespace, Network};

/// Where an endpoint listens.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EndpointAddress {
    /// At an address.
    Ip(IpAddr),
    /// At a name that the proxy resolves.
    Name(String),
    /// At a socket in the file system.
    Unix(String),
    /// Somewhere behind the gateway of its network.
    Gateway,
}

impl EndpointAddress {
    /// Reads an address as users write it: an IP, `unix://PATH`, a name, or nothing.
    pub fn parse(text: &str) -> Self {
        match (text.strip_prefix("unix://"), text.parse()) {
            (Some(path), _) => Self::Unix(path.to_owned()),
            (None, Ok(ip)) => Self::Ip(ip),
            (None, Err(_)) if text.is_empty() => Self::Gateway,
            (None, Err(_)) => Self::Name(text.to_owned()),
        }
    }

    /// The address, where it is one.
    pub fn ip(&self) -> Option<IpAddr> {
        match self {
            Self::Ip(ip) => Some(*ip),
            _ => None,
        }
    }
}

impl fmt::Display for EndpointAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(ip) => write!(f, "{ip}"),
            Self::Name(name) => f.write_str(name),
            Self::Unix(path) => write!(f, "unix://{path}"),
            Self::Gateway => Ok(()),
        }
    }
}

/// Whether an endpoint takes traffic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Health {
    /// It does.
    #[default]
    Healthy,
    /// It does not.
    Unhealthy,
    /// Only for sessions it already has.
    Draining,
    /// It is about to go.
    Terminating,
}

/// One port of one workload, as a member of a service.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Endpoint {
    /// Where it listens.
    pub address: EndpointAddress,
    /// The port there.
    pub port: u16,
    /// The name of the service port.
    pub service_port: String,
    /// The workload's labels, with the topology labels that Istio adds.
    pub labels: Labels,
    /// The workload's identity: `spiffe://TRUST-DOMAIN/ns/NAMESPACE/sa/ACCOUNT`, or empty.
    pub service_account: String,
    /// The workload's namespace.
    pub namespace: Namespace,
    /// The workload's name: that of the Deployment or the like, not of the pod.
    pub workload: String,
    /// Where it runs.
    pub locality: Locality,
    /// The network it is in.
    pub network: Network,
    /// The cluster it is in.
    pub cluster: ClusterId,
    /// The node it is on.
    pub node: String,
    /// Its share; 0 means not given, which counts as 1.
    pub weight: u32,
    /// Whether it takes traffic.
    pub health: Health,
    /// Whether a sidecar there takes mTLS (label security.istio.io/tlsMode=istio).
    pub mtls: bool,
    /// Its own name in a headless service.
    pub hostname: String,
    /// The headless service it has a name under.
    pub subdomain: String,
    /// Whether only clients of its own cluster may use it.
    pub cluster_local: bool,
}

impl Endpoint {
    /// Its share, at least 1.
    pub fn weight(&self) -> u32 {
        self.weight.max(1)
    }
}

/// The endpoints of one host and namespace, over all ports and clusters, in a fixed order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EndpointSet {
    /// The endpoints, ordered by cluster, then as their objects list them.
    pub endpoints: Vec<Endpoint>,
    /// The identities of their workloads.
    pub service_accounts: BTreeSet<String>,
}

impl EndpointSet {
    /// The set of these.
    pub fn new(endpoints: Vec<Endpoint>) -> Self {
        let accounts = endpoints.iter().map(|e| e.service_account.clone()).filter(|a| !a.is_empty());
        Self { service_accounts: accounts.collect(), endpoints }
    }

    /// The endpoints of a service port.
    pub fn of_port<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Endpoint> + 'a {
        self.endpoints.iter().filter(move |endpoint| endpoint.service_port == name)
    }
}
