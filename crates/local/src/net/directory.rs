//! What service names and addresses stand for now: an immutable snapshot of services and their ready endpoints.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Service, ServicePort};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use tokio::sync::watch;

use crate::addresses;
use crate::api::{name_of, namespace_of};
use crate::controllers::services::balancer_addresses;
use crate::outside::Names;

/// The names under which a cluster's services end.
pub(crate) const DOMAIN: &str = "cluster.local";

/// The present snapshot, to be read at any time.
pub(crate) type DirectoryHandle = watch::Receiver<Arc<Directory>>;

/// Services by namespace and name.
#[derive(Debug, Default)]
pub(crate) struct Directory {
    services: BTreeMap<(String, String), Entry>,
    by_address: BTreeMap<Ipv4Addr, (String, String)>,
    outside: Names,
}

/// One service.
#[derive(Debug, PartialEq, Eq)]
struct Entry {
    object: Arc<ServiceRef>,
    address: Option<Ipv4Addr>,
    balancers: Vec<Ipv4Addr>,
    external_name: Option<String>,
    ports: Vec<Port>,
    /// Addresses of ready endpoints, with their host names: what a headless name stands for.
    members: Vec<(Ipv4Addr, Option<String>)>,
}

/// Which service something belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ServiceRef {
    pub(crate) namespace: String,
    pub(crate) name: String,
}

#[derive(Debug, PartialEq, Eq)]
struct Port {
    number: u16,
    node_port: Option<u16>,
    backends: Arc<Backends>,
}

/// Who answers at an address of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Backends {
    pub(crate) service: Arc<ServiceRef>,
    pub(crate) endpoints: Vec<SocketAddr>,
    /// One client keeps one endpoint.
    pub(crate) sticky: bool,
    /// The endpoint sees the client's address, not the node's.
    pub(crate) keeps_source: bool,
}

/// What a name stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    Addresses(Vec<Ipv4Addr>),
    Alias(String),
    /// The name is the cluster's, and there is nothing of it.
    Nothing,
    /// The name is not the cluster's.
    Foreign,
}

impl Directory {
    /// The directory of these objects.
    pub(crate) fn new(services: &[Arc<Service>], slices: &[Arc<EndpointSlice>]) -> Self {
        let mut by_service: BTreeMap<(&str, &str), Vec<&EndpointSlice>> = BTreeMap::new();
        for slice in slices {
            let labels = slice.metadata.labels.as_ref();
            if let Some(name) = labels.and_then(|labels| labels.get("kubernetes.io/service-name")) {
                by_service.entry((namespace_of(&slice.metadata), name)).or_default().push(slice);
            }
        }
        let mut directory = Self::default();
        for service in services {
            let key = (namespace_of(&service.metadata), name_of(&service.metadata));
            let slices = by_service.get(&key).map_or(&[][..], Vec::as_slice);
            let entry = Entry::new(service, slices);
            let key = (key.0.to_owned(), key.1.to_owned());
            for address in entry.address.iter().chain(&entry.balancers) {
                directory.by_address.insert(*address, key.clone());
            }
            directory.services.insert(key, entry);
        }
        directory
    }

    /// The same with these names that are not the cluster's.
    pub(crate) fn with_outside(self, outside: Names) -> Self {
        Self { outside, ..self }
    }

    /// The address of a name of the outside.
    pub(crate) fn outside(&self, host: &str) -> Option<Ipv4Addr> {
        self.outside.address(host)
    }

    /// Every address to listen at, with who answers there. Without endpoints nobody listens: callers are refused.
    pub(crate) fn listeners(&self, node: Ipv4Addr) -> BTreeMap<SocketAddrV4, Arc<Backends>> {
        let mut out = BTreeMap::new();
        for entry in self.services.values() {
            for port in entry.ports.iter().filter(|port| !port.backends.endpoints.is_empty()) {
                for address in entry.address.iter().chain(&entry.balancers) {
                    out.insert(SocketAddrV4::new(*address, port.number), inside(&port.backends));
                }
                if let Some(node_port) = port.node_port {
                    out.entry(SocketAddrV4::new(node, node_port)).or_insert_with(|| port.backends.clone());
                }
            }
        }
        out
    }

    /// Who answers at a port of a service, by its name or address. `home` completes short names.
    pub(crate) fn backends(&self, host: &str, port: u16, home: &str) -> Option<Arc<Backends>> {
        let key = match host.parse::<Ipv4Addr>() {
            Ok(address) => self.by_address.get(&address)?.clone(),
            Err(_) => self.service_of(host, home)?,
        };
        let entry = self.services.get(&key)?;
        entry.ports.iter().find(|one| one.number == port).map(|one| inside(&one.backends))
    }

    /// A port of a service as its own process reaches it, for webhooks.
    pub(crate) fn endpoint(&self, namespace: &str, name: &str, port: u16) -> Option<SocketAddr> {
        let entry = self.services.get(&(namespace.to_owned(), name.to_owned()))?;
        entry.ports.iter().find(|one| one.number == port)?.backends.endpoints.first().copied()
    }

    /// What a name stands for, asked for in full (as DNS clients do).
    pub(crate) fn look_up(&self, host: &str) -> Answer {
        let host = host.trim_end_matches('.').to_ascii_lowercase();
        let ours = host == DOMAIN || host.ends_with(&format!(".{DOMAIN}")) || host.ends_with(".svc");
        let found = self.split(&host).and_then(|(first, key)| Some((first, self.services.get(&key)?)));
        let Some((first, entry)) = found else {
            return match self.outside(&host) {
                Some(address) => Answer::Addresses(vec![address]),
                None if ours => Answer::Nothing,
                None => Answer::Foreign,
            };
        };
        if let Some(alias) = &entry.external_name {
            return Answer::Alias(alias.clone());
        }
        let addresses: Vec<Ipv4Addr> = match (first, entry.address) {
            (None, Some(address)) => vec![address],
            (None, None) => entry.members.iter().map(|(address, _)| *address).collect(),
            (Some(host), _) => {
                let named = entry.members.iter().filter(|(_, name)| name.as_deref() == Some(host));
                named.map(|(address, _)| *address).collect()
            }
        };
        if addresses.is_empty() { Answer::Nothing } else { Answer::Addresses(addresses) }
    }

    fn service_of(&self, host: &str, home: &str) -> Option<(String, String)> {
        let host = host.trim_end_matches('.').to_ascii_lowercase();
        if !host.contains('.') {
            return Some((home.to_owned(), host));
        }
        match self.split(&host) {
            Some((None, key)) => Some(key),
            _ => None,
        }
    }

    /// `[HOST.]NAME.NAMESPACE[.svc[.cluster.local]]`.
    fn split<'a>(&self, host: &'a str) -> Option<(Option<&'a str>, (String, String))> {
        let short = host.strip_suffix(DOMAIN).and_then(|rest| rest.strip_suffix('.')).unwrap_or(host);
        let in_svc = short.strip_suffix(".svc");
        if in_svc.is_none() && short != host {
            return None;
        }
        let labels: Vec<&str> = in_svc.unwrap_or(short).split('.').collect();
        let key = |name: &str, namespace: &str| (namespace.to_owned(), name.to_owned());
        match labels[..] {
            [name, namespace] => Some((None, key(name, namespace))),
            [host, name, namespace] if in_svc.is_some() => Some((Some(host), key(name, namespace))),
            _ => None,
        }
    }
}

/// Inside the cluster clients are seen as they are.
fn inside(backends: &Arc<Backends>) -> Arc<Backends> {
    if backends.keeps_source {
        return backends.clone();
    }
    Arc::new(Backends { keeps_source: true, ..(**backends).clone() })
}

impl Entry {
    fn new(service: &Service, slices: &[&EndpointSlice]) -> Self {
        let object = Arc::new(ServiceRef {
            namespace: namespace_of(&service.metadata).to_owned(),
            name: name_of(&service.metadata).to_owned(),
        });
        let spec = service.spec.clone().unwrap_or_default();
        let sticky = spec.session_affinity.as_deref() == Some("ClientIP");
        let keeps_source = spec.external_traffic_policy.as_deref() == Some("Local");
        let ports = spec.ports.iter().flatten().filter(|port| is_tcp(port)).filter_map(|port| {
            let endpoints = endpoints(port, slices);
            let service = object.clone();
            Some(Port {
                number: u16::try_from(port.port).ok()?,
                node_port: port.node_port.and_then(|port| u16::try_from(port).ok()).filter(|port| *port != 0),
                backends: Arc::new(Backends { service, endpoints, sticky, keeps_source }),
            })
        });
        Self {
            ports: ports.collect(),
            address: addresses::parse(spec.cluster_ip.as_deref()),
            balancers: balancer_addresses(service)
                .iter()
                .filter_map(|address| addresses::parse(Some(address)))
                .collect(),
            external_name: spec
                .external_name
                .clone()
                .filter(|_| spec.type_.as_deref() == Some("ExternalName")),
            members: ready(slices)
                .flat_map(|(_, endpoint)| {
                    let hostname = endpoint.hostname.clone();
                    let ips = endpoint.addresses.iter().filter_map(|ip| addresses::parse(Some(ip)));
                    ips.map(move |ip| (ip, hostname.clone())).collect::<Vec<_>>()
                })
                .collect(),
            object,
        }
    }
}

fn is_tcp(port: &ServicePort) -> bool {
    port.protocol.as_deref().unwrap_or("TCP") == "TCP"
}

fn ready<'a>(
    slices: &'a [&'a EndpointSlice],
) -> impl Iterator<Item = (&'a EndpointSlice, &'a k8s_openapi::api::discovery::v1::Endpoint)> {
    let all = slices.iter().flat_map(|slice| slice.endpoints.iter().map(move |one| (*slice, one)));
    // Not said means ready (discovery/v1 EndpointConditions).
    all.filter(|(_, one)| one.conditions.as_ref().and_then(|conditions| conditions.ready) != Some(false))
}

fn endpoints(port: &ServicePort, slices: &[&EndpointSlice]) -> Vec<SocketAddr> {
    let name = port.name.as_deref().unwrap_or_default();
    let mut out: Vec<SocketAddr> = ready(slices)
        .flat_map(|(slice, endpoint)| {
            let number = slice
                .ports
                .iter()
                .flatten()
                .find(|one| one.name.as_deref().unwrap_or_default() == name)
                .and_then(|one| u16::try_from(one.port?).ok());
            let ips = endpoint.addresses.iter().filter_map(|ip| addresses::parse(Some(ip)));
            ips.filter_map(|ip| Some(SocketAddr::from((ip, number?)))).collect::<Vec<_>>()
        })
        .collect();
    out.sort_unstable();
    out.dedup();
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn object<T: serde::de::DeserializeOwned>(value: Value) -> Arc<T> {
        Arc::new(serde_json::from_value(value).unwrap())
    }

    fn slice(service: &str, endpoints: Value) -> Arc<EndpointSlice> {
        object(json!({"metadata": {"name": service, "namespace": "ns",
                "labels": {"kubernetes.io/service-name": service}}, "addressType": "IPv4",
            "endpoints": endpoints, "ports": [{"name": "http", "port": 8080}]}))
    }

    fn directory() -> Directory {
        let services = [
            object(
                json!({"metadata": {"name": "web", "namespace": "ns"}, "spec": {"clusterIP": "127.210.0.20",
                "type": "LoadBalancer", "ports": [{"name": "http", "port": 80, "nodePort": 30080}]},
                "status": {"loadBalancer": {"ingress": [{"ip": "127.210.0.21"}]}}}),
            ),
            object(json!({"metadata": {"name": "db", "namespace": "ns"}, "spec": {"clusterIP": "None",
                "ports": [{"name": "http", "port": 8080}]}})),
            object(json!({"metadata": {"name": "out", "namespace": "ns"}, "spec": {"type": "ExternalName",
                "externalName": "example.com"}})),
            object(json!({"metadata": {"name": "empty", "namespace": "ns"}, "spec": {
                "clusterIP": "127.210.0.22", "ports": [{"name": "http", "port": 80}]}})),
        ];
        let slices = [
            slice(
                "web",
                json!([{"addresses": ["127.10.0.11"]},
                {"addresses": ["127.10.0.12"], "conditions": {"ready": false}}]),
            ),
            slice("db", json!([{"addresses": ["127.10.0.13"], "hostname": "db-0"}])),
        ];
        let outside = Names::new([("httpbin.org", Ipv4Addr::new(127, 10, 254, 1))]);
        Directory::new(&services, &slices).with_outside(outside)
    }

    #[test]
    fn services_are_answered_at_their_addresses_and_node_ports() {
        let listeners = directory().listeners(Ipv4Addr::new(127, 10, 0, 1));
        let places: Vec<String> = listeners.keys().map(ToString::to_string).collect();
        assert_eq!(places, ["127.10.0.1:30080", "127.210.0.20:80", "127.210.0.21:80"]);
        let endpoints: Vec<SocketAddr> = vec!["127.10.0.11:8080".parse().unwrap()];
        assert!(listeners.values().all(|backends| backends.endpoints == endpoints));
    }

    #[test]
    fn names_stand_for_addresses() {
        let directory = directory();
        let one = |ip: [u8; 4]| Answer::Addresses(vec![ip.into()]);
        for name in ["web.ns.svc.cluster.local.", "web.ns.svc", "web.ns", "WEB.ns"] {
            assert_eq!(directory.look_up(name), one([127, 210, 0, 20]), "{name}");
        }
        assert_eq!(directory.look_up("db.ns.svc.cluster.local"), one([127, 10, 0, 13]));
        assert_eq!(directory.look_up("db-0.db.ns.svc.cluster.local"), one([127, 10, 0, 13]));
        assert_eq!(directory.look_up("out.ns.svc.cluster.local"), Answer::Alias("example.com".into()));
        assert_eq!(directory.look_up("no.ns.svc.cluster.local"), Answer::Nothing);
        assert_eq!(directory.look_up("example.com"), Answer::Foreign);
        assert_eq!(directory.look_up("HTTPBIN.org."), one([127, 10, 254, 1]));
        assert_eq!(directory.look_up("www.httpbin.org"), Answer::Foreign);
        assert!(directory.backends("httpbin.org", 80, "ns").is_none(), "the outside is no service");
    }

    #[test]
    fn the_forwarder_finds_services_by_short_name_and_address() {
        let directory = directory();
        assert!(directory.backends("web", 80, "ns").is_some());
        assert!(directory.backends("web", 80, "other").is_none());
        assert!(directory.backends("web.ns", 81, "ns").is_none());
        assert!(directory.backends("127.210.0.20", 80, "other").is_some());
        assert_eq!(directory.endpoint("ns", "web", 80), Some("127.10.0.11:8080".parse().unwrap()));
    }
}
