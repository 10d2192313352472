//! ServiceEntries and WorkloadEntries as services, workloads and endpoints.

use std::collections::BTreeMap;
use std::time::UNIX_EPOCH;

use lateen_api::Object;
use lateen_api::kinds::WorkloadEntry;
use lateen_api::kinds::service_entry::{self, Location, ServiceEntry, ServicePort};
use lateen_base::{Host, Labels, Locality, Network};

use crate::from_kube::{self, TLS_MODE_LABEL, augmented, identity};
use crate::network::labelled;
use crate::{
    Endpoint, EndpointAddress, ExportTo, Health, Port, Protocol, Resolution, Service, Settings, Source,
    TargetPort, Workload, WorkloadSource,
};

/// One host of a ServiceEntry as a service.
pub(crate) fn service(object: &Object, entry: &ServiceEntry, host: &Host, settings: &Settings) -> Service {
    let addresses: Vec<String> = entry.addresses.iter().filter(|a| !a.is_empty()).cloned().collect();
    let annotation = |key: &str| object.annotations.get(key).cloned();
    Service {
        host: host.clone(),
        namespace: object.namespace.clone(),
        name: object.name.clone(),
        source: Source::External,
        object: object.reference(),
        ports: entry.ports.iter().map(port).collect(),
        targets: entry.ports.iter().filter_map(target).collect(),
        addresses: BTreeMap::from([(settings.config_cluster.clone(), addresses.clone())]),
        default_addresses: addresses,
        allocated: Vec::new(),
        resolution: match entry.resolution {
            service_entry::Resolution::None => Resolution::None,
            service_entry::Resolution::Static => Resolution::Static,
            service_entry::Resolution::Dns => Resolution::Dns,
            service_entry::Resolution::DnsRoundRobin => Resolution::DnsRoundRobin,
            service_entry::Resolution::DynamicDns => Resolution::DynamicDns,
        },
        mesh_external: entry.location == Location::MeshExternal,
        export_to: ExportTo::parse(entry.export_to.iter().map(String::as_str)),
        labels: object.labels.clone(),
        created: created(object),
        clusters: [settings.config_cluster.clone()].into(),
        selector: selector(entry).unwrap_or_default(),
        alias_of: None,
        subject_alt_names: entry.subject_alt_names.iter().cloned().collect(),
        publish_not_ready: false,
        node_local: false,
        traffic_distribution: annotation("networking.istio.io/traffic-distribution"),
    }
}

/// When an object was made, in seconds since 1970; 0 where unknown.
pub fn created(object: &Object) -> i64 {
    let since = object.created.and_then(|created| created.duration_since(UNIX_EPOCH).ok());
    since.map_or(0, |since| i64::try_from(since.as_secs()).unwrap_or(i64::MAX))
}

fn port(port: &ServicePort) -> Port {
    let number = port.number as u16;
    Port { name: port.name.clone(), number, protocol: protocol(port, number) }
}

fn protocol(port: &ServicePort, number: u16) -> Protocol {
    match port.protocol.as_str() {
        "" => Protocol::of_service_port("TCP", number, &port.name, None),
        text => text.parse().unwrap_or(Protocol::Auto),
    }
}

fn target(port: &ServicePort) -> Option<(u16, TargetPort)> {
    (port.target_port != 0).then_some((port.number as u16, TargetPort::Number(port.target_port as u16)))
}

/// Which workloads an entry selects.
pub(crate) fn selector(entry: &ServiceEntry) -> Option<Labels> {
    let selector = entry.workload_selector.as_ref()?;
    (!selector.labels.is_empty()).then(|| selector.labels.clone())
}

/// The labels by which a WorkloadEntry is selected: its spec's, over its object's.
pub(crate) fn labels_of(object: &Object, entry: &WorkloadEntry) -> Labels {
    let mut labels = object.labels.clone();
    labels.0.extend(entry.labels.0.clone());
    labels
}

/// A WorkloadEntry as a workload.
pub(crate) fn workload(object: &Object, entry: &WorkloadEntry, settings: &Settings) -> Workload {
    let labels = labels_of(object, entry);
    Workload {
        source: WorkloadSource::WorkloadEntry,
        cluster: settings.config_cluster.clone(),
        namespace: object.namespace.clone(),
        name: object.name.clone(),
        workload_name: object.name.clone(),
        addresses: entry.address.parse().into_iter().collect(),
        service_account: account(entry, object.namespace.as_str(), settings),
        locality: locality(entry, &labels),
        network: network(entry, &labels),
        node: String::new(),
        ports: entry.ports.iter().map(|(name, number)| (name.clone(), *number as u16)).collect(),
        ready: true,
        labels,
    }
}

fn account(entry: &WorkloadEntry, namespace: &str, settings: &Settings) -> String {
    match entry.service_account.as_str() {
        "" => String::new(),
        name => identity(settings, namespace, name),
    }
}

fn locality(entry: &WorkloadEntry, labels: &Labels) -> Locality {
    match entry.locality.as_str() {
        "" => from_kube::locality(labels, None),
        text => text.parse().unwrap_or_default(),
    }
}

fn network(entry: &WorkloadEntry, labels: &Labels) -> Network {
    match entry.network.as_str() {
        "" => labelled(labels).unwrap_or_default(),
        name => name.into(),
    }
}

/// The endpoints that an entry itself lists; for names without endpoints, the host.
pub(crate) fn listed(entry: &ServiceEntry, service: &Service, settings: &Settings) -> Vec<Endpoint> {
    if entry.endpoints.is_empty() && selector(entry).is_none() {
        if !service.resolution.is_dns() || service.host.is_wildcard() {
            return Vec::new();
        }
        let host = WorkloadEntry { address: service.host.to_string(), ..WorkloadEntry::default() };
        // The host stands for the entry, so subsets choose it by the labels of the entry.
        return members(&host, service.labels.clone(), "", service, Some(entry), settings);
    }
    let inline = entry.endpoints.iter();
    inline
        .flat_map(|endpoint| {
            let labels = endpoint.labels.clone();
            members(endpoint, labels, "", service, Some(entry), settings)
        })
        .collect()
}

/// A WorkloadEntry as a member of a service: of a ServiceEntry (`entry`), or of a Kubernetes service.
pub(crate) fn member(
    object: &Object,
    workload: &WorkloadEntry,
    service: &Service,
    entry: Option<&ServiceEntry>,
    settings: &Settings,
) -> Vec<Endpoint> {
    members(workload, labels_of(object, workload), &object.name, service, entry, settings)
}

fn members(
    workload: &WorkloadEntry,
    own: Labels,
    name: &str,
    service: &Service,
    entry: Option<&ServiceEntry>,
    settings: &Settings,
) -> Vec<Endpoint> {
    let address = EndpointAddress::parse(&workload.address);
    let locality = locality(workload, &own);
    let network = network(workload, &own);
    let labels = augmented(&own, &settings.config_cluster, &locality, &network, "");
    let mtls = match own.value(TLS_MODE_LABEL) {
        Some(mode) => mode == "istio",
        None => !workload.service_account.is_empty(),
    };
    let of_port = |port: &Port| Endpoint {
        address: address.clone(),
        port: match address {
            EndpointAddress::Unix(_) => 0,
            _ => target_port(workload, port, service, entry.is_none()),
        },
        service_port: port.name.clone(),
        labels: labels.clone(),
        service_account: account(workload, service.namespace.as_str(), settings),
        namespace: service.namespace.clone(),
        workload: name.to_owned(),
        locality: locality.clone(),
        network: network.clone(),
        cluster: settings.config_cluster.clone(),
        node: String::new(),
        weight: workload.weight,
        health: Health::Healthy,
        mtls,
        hostname: String::new(),
        subdomain: String::new(),
        cluster_local: false,
    };
    service.ports.iter().map(of_port).collect()
}

/// The port that a workload serves a service port on: what it maps the port's name to, else the service's target.
fn target_port(workload: &WorkloadEntry, port: &Port, service: &Service, by_target_name: bool) -> u16 {
    let mapped = |name: &str| workload.ports.get(name).map(|number| *number as u16);
    match service.target_of(port.number) {
        TargetPort::Name(name) if by_target_name => mapped(&name).or_else(|| mapped(&port.name)),
        TargetPort::Number(number) => mapped(&port.name).or(Some(number)),
        TargetPort::Name(_) => mapped(&port.name),
    }
    .unwrap_or(port.number)
}

/// A pod as a member of a ServiceEntry that selects it, at each of its addresses.
pub(crate) fn pod_member(pod: &Workload, entry: &ServiceEntry) -> Vec<Endpoint> {
    let labels = augmented(&pod.labels, &pod.cluster, &pod.locality, &pod.network, &pod.node);
    let Some(address) = pod.addresses.first() else { return Vec::new() };
    let of_port = |port: &ServicePort| Endpoint {
        address: EndpointAddress::Ip(*address),
        port: if port.target_port == 0 { port.number as u16 } else { port.target_port as u16 },
        service_port: port.name.clone(),
        labels: labels.clone(),
        service_account: pod.service_account.clone(),
        namespace: pod.namespace.clone(),
        workload: pod.workload_name.clone(),
        locality: pod.locality.clone(),
        network: pod.network.clone(),
        cluster: pod.cluster.clone(),
        node: pod.node.clone(),
        weight: 0,
        health: if pod.ready { Health::Healthy } else { Health::Unhealthy },
        mtls: pod.labels.value(TLS_MODE_LABEL) == Some("istio"),
        hostname: String::new(),
        subdomain: String::new(),
        cluster_local: false,
    };
    entry.ports.iter().map(of_port).collect()
}
