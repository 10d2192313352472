//! A service as the mesh sees it, whatever registry it came from.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use lateen_base::{ClusterId, Host, Labels, Namespace, ObjectRef};

use crate::{Protocol, TargetPort};

/// What tells one service from another: the same host may come from several objects.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceKey {
    /// The host.
    pub host: Host,
    /// The namespace of the object.
    pub namespace: Namespace,
    /// The kind of registry.
    pub source: Source,
    /// The name of the object: services of Kubernetes in several clusters share it and are one.
    pub name: String,
}

/// Where a service is from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Source {
    /// A Kubernetes service; before ServiceEntries where both name one host.
    Kubernetes,
    /// A ServiceEntry.
    External,
}

impl Source {
    /// The name that Istio prints.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Kubernetes => "Kubernetes",
            Self::External => "External",
        }
    }
}

/// A port of a service.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Port {
    /// The name.
    pub name: String,
    /// The number.
    pub number: u16,
    /// What it speaks.
    pub protocol: Protocol,
}

/// How the addresses of a service's endpoints are found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Resolution {
    /// The registry lists them; the client balances (Istio's ClientSideLB).
    Static,
    /// The proxy resolves the endpoints' names, and balances over all answers.
    Dns,
    /// The proxy resolves one name and uses the first answer.
    DnsRoundRobin,
    /// The address that the client asked for (Istio's Passthrough).
    None,
    /// The proxy resolves the very host that the client asked for.
    DynamicDns,
    /// Another service stands behind this name.
    Alias,
}

impl Resolution {
    /// Whether the proxy asks DNS.
    pub fn is_dns(self) -> bool {
        matches!(self, Self::Dns | Self::DnsRoundRobin)
    }
}

/// Whom a service or a configuration is shown to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Visibility {
    /// Everyone: `*`.
    Public,
    /// Its own namespace: `.`.
    Private,
    /// No one: `~`.
    None,
    /// That namespace.
    Namespace(Namespace),
}

impl Visibility {
    /// Reads one word of an exportTo list.
    pub fn parse(text: &str) -> Self {
        match text.trim() {
            "*" => Self::Public,
            "." => Self::Private,
            "~" => Self::None,
            name => Self::Namespace(name.into()),
        }
    }
}

/// An exportTo list; empty means the mesh's default.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ExportTo(pub BTreeSet<Visibility>);

impl ExportTo {
    /// Reads the words of a list.
    pub fn parse<'a>(words: impl IntoIterator<Item = &'a str>) -> Self {
        Self(words.into_iter().map(str::trim).filter(|w| !w.is_empty()).map(Visibility::parse).collect())
    }

    /// Whether what lives in `owner` is shown to `viewer`; the empty list says nothing, so it shows nothing.
    pub fn shows(&self, owner: &Namespace, viewer: &Namespace) -> bool {
        self.0.iter().any(|visibility| match visibility {
            Visibility::Public => true,
            Visibility::Private => owner == viewer,
            Visibility::None => false,
            Visibility::Namespace(namespace) => namespace == viewer,
        })
    }

    /// Whether everyone sees it.
    pub fn is_public(&self) -> bool {
        self.0.contains(&Visibility::Public)
    }
}

/// A service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// The host by which clients name it, possibly a wildcard.
    pub host: Host,
    /// The namespace of its object.
    pub namespace: Namespace,
    /// The name of its object.
    pub name: String,
    /// Where it is from.
    pub source: Source,
    /// The object, for provenance.
    pub object: ObjectRef,
    /// Its ports, in the order given.
    pub ports: Vec<Port>,
    /// The port of the workload, by port number, where it is not that number itself.
    pub targets: BTreeMap<u16, TargetPort>,
    /// Its addresses in each cluster: IP addresses or CIDR blocks; none for headless services and for entries
    /// without addresses. ServiceEntries have the same in all clusters, under the id of the config cluster.
    pub addresses: BTreeMap<ClusterId, Vec<String>>,
    /// Its addresses in the order of the oldest cluster: what a proxy of a cluster without the service uses.
    pub default_addresses: Vec<String>,
    /// Addresses that the mesh made up for a host without any: of 240.240.0.0/16 and 2001:2::/48.
    pub allocated: Vec<IpAddr>,
    /// How endpoints are found.
    pub resolution: Resolution,
    /// Whether it is outside the mesh (no mTLS is expected).
    pub mesh_external: bool,
    /// Whom it is shown to.
    pub export_to: ExportTo,
    /// Its labels.
    pub labels: Labels,
    /// When its object was made, in seconds since 1970; 0 where unknown.
    pub created: i64,
    /// The clusters that have it.
    pub clusters: BTreeSet<ClusterId>,
    /// Which workloads serve it; empty where none is selected by labels.
    pub selector: Labels,
    /// The host that it is an alias of.
    pub alias_of: Option<Host>,
    /// Identities that its servers may have, besides those of its endpoints.
    pub subject_alt_names: BTreeSet<String>,
    /// Whether endpoints count before they are ready.
    pub publish_not_ready: bool,
    /// Whether only endpoints on the client's node count (internal traffic policy Local).
    pub node_local: bool,
    /// `PreferClose`, `PreferSameZone` or `PreferSameNode`, from annotation, field or ServiceEntry label.
    pub traffic_distribution: Option<String>,
}

impl Service {
    /// Its key.
    pub fn key(&self) -> ServiceKey {
        ServiceKey {
            host: self.host.clone(),
            namespace: self.namespace.clone(),
            source: self.source,
            name: self.name.clone(),
        }
    }

    /// Oldest first, then by name and namespace: the order in which conflicts are decided.
    pub fn by_age(&self, other: &Self) -> Ordering {
        (self.created, &self.name, &self.namespace, &self.host, self.source).cmp(&(
            other.created,
            &other.name,
            &other.namespace,
            &other.host,
            other.source,
        ))
    }

    /// The port of this number.
    pub fn port(&self, number: u16) -> Option<&Port> {
        self.ports.iter().find(|port| port.number == number)
    }

    /// The port of the workload that stands behind a port.
    pub fn target_of(&self, port: u16) -> TargetPort {
        self.targets.get(&port).cloned().unwrap_or(TargetPort::Number(port))
    }

    /// The port of this name.
    pub fn port_named(&self, name: &str) -> Option<&Port> {
        self.ports.iter().find(|port| port.name == name)
    }

    /// Its own addresses in a cluster, or the default ones; never the allocated.
    pub fn addresses_in(&self, cluster: &ClusterId) -> &[String] {
        match self.addresses.get(cluster) {
            Some(addresses) if !addresses.is_empty() => addresses,
            _ => &self.default_addresses,
        }
    }

    /// Whether it has no address of its own anywhere.
    pub fn is_unaddressed(&self) -> bool {
        self.default_addresses.is_empty()
    }

    /// Whether it is a Kubernetes service without address whose clients pick an endpoint themselves.
    pub fn is_headless(&self) -> bool {
        self.source == Source::Kubernetes && self.resolution == Resolution::None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn export_lists_show_and_hide() {
        let (a, b) = (Namespace::new("a"), Namespace::new("b"));
        assert!(ExportTo::parse(["*"]).shows(&a, &b));
        assert!(ExportTo::parse(["."]).shows(&a, &a));
        assert!(!ExportTo::parse(["."]).shows(&a, &b));
        assert!(ExportTo::parse(["b", "c"]).shows(&a, &b));
        assert!(!ExportTo::parse(["~"]).shows(&a, &a));
        assert!(ExportTo::parse(["~", "*"]).is_public());
    }
}
