//! The services that a proxy's own workload serves, and on which ports.

use std::collections::BTreeSet;
use std::sync::Arc;

use lateen_base::{Host, Labels, Namespace};
use lateen_registry::{Endpoint, Port, Resolution, Service, Source, TargetPort, Workload, WorkloadSource};

use super::Snapshot;
use crate::Proxy;

/// A port of a service that a proxy's workload serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceTarget {
    /// The service.
    pub service: Arc<Service>,
    /// The port of the service.
    pub port: Port,
    /// The port that the workload listens on.
    pub target_port: u16,
}

impl Snapshot {
    /// The services that select the proxy's workload, oldest first, each port with the workload's.
    ///
    /// The workload is the one at the proxy's address; where none is known yet, the proxy's own labels stand for it.
    pub fn service_targets(&self, proxy: &Proxy) -> Vec<ServiceTarget> {
        let workload = self.workload_of(proxy);
        let mut targets = Vec::new();
        let here = proxy.addresses.iter().filter_map(|address| self.view.hosts_at.get(address));
        for service in self.services.candidates(here.flatten(), &proxy.namespace) {
            if service.resolution == Resolution::Alias || service.resolution.is_dns() {
                continue;
            }
            let found = self.by_endpoints(service, proxy);
            if !found.is_empty() {
                targets.extend(found);
            } else if service.source == Source::Kubernetes && service.namespace == proxy.namespace {
                targets.extend(by_selector(service, workload.as_deref(), &proxy.labels, proxy));
            }
        }
        targets
    }

    /// The workload at the proxy's address, in its own cluster and namespace.
    pub fn workload_of(&self, proxy: &Proxy) -> Option<Arc<Workload>> {
        let at = proxy.addresses.iter().filter_map(|address| self.view.workloads.get(address));
        let mut candidates = at.flat_map(|all| all.iter());
        let cluster = &proxy.metadata.cluster;
        candidates
            .find(|w| (cluster.is_empty() || w.cluster == *cluster) && w.namespace == proxy.namespace)
            .cloned()
    }

    /// The ports of a service that have an endpoint at the proxy's address.
    fn by_endpoints(&self, service: &Arc<Service>, proxy: &Proxy) -> Vec<ServiceTarget> {
        let id: (Host, Namespace) = (service.host.clone(), service.namespace.clone());
        let here = |address| self.view.hosts_at.get(address).is_some_and(|hosts| hosts.contains(&id));
        if !proxy.addresses.iter().any(here) {
            return Vec::new();
        }
        let Some(set) = self.view.endpoints_of(service) else { return Vec::new() };
        let own = |endpoint: &&Endpoint| {
            let cluster = &proxy.metadata.cluster;
            endpoint.address.ip().is_some_and(|ip| proxy.addresses.contains(&ip))
                && (cluster.is_empty() || service.source == Source::External || endpoint.cluster == *cluster)
        };
        let mut seen = BTreeSet::new();
        let mut targets = Vec::new();
        for endpoint in set.endpoints.iter().filter(own) {
            let ports = service.ports.iter().filter(|port| port.name == endpoint.service_port);
            for port in ports.filter(|port| seen.insert((port.number, endpoint.port))) {
                targets.push(ServiceTarget {
                    service: service.clone(),
                    port: port.clone(),
                    target_port: endpoint.port,
                });
            }
        }
        targets
    }
}

/// The ports of a Kubernetes service whose selector has the workload, before endpoints are known.
fn by_selector(
    service: &Arc<Service>,
    workload: Option<&Workload>,
    own: &Labels,
    proxy: &Proxy,
) -> Vec<ServiceTarget> {
    let labels = workload.map_or(own, |workload| &workload.labels);
    let entry = workload.is_some_and(|workload| workload.source == WorkloadSource::WorkloadEntry);
    let here = proxy.metadata.cluster.is_empty() || service.clusters.contains(&proxy.metadata.cluster);
    if service.selector.is_empty() || !service.selector.selects(labels) || !(here || entry) {
        return Vec::new();
    }
    let number = |port: &Port| match service.target_of(port.number) {
        TargetPort::Number(number) => Some(number),
        TargetPort::Name(name) => workload.and_then(|workload| workload.ports.get(&name).copied()),
    };
    let target = |port: &Port| {
        Some(ServiceTarget { service: service.clone(), port: port.clone(), target_port: number(port)? })
    };
    service.ports.iter().filter_map(target).collect()
}
