//! From raw objects to the view: recomputes what is stale, and only that.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use imbl::OrdSet;
use lateen_api::{Kind, Object, Spec};
use lateen_base::{ClusterId, Host, Labels, Namespace, Network};

use super::cluster::Cluster;
use super::{HostId, Id, Registry, Stale};
use crate::network::labelled;
use crate::{
    Change, Changes, Endpoint, EndpointSet, Key, Service, ServiceKey, Source, Workload, allocate, from_entry,
    from_kube,
};

impl Registry {
    /// Brings the derived state of one object up to date.
    pub(super) fn derive(&mut self, id: &ClusterId, key: &Key, changes: &mut Changes) {
        match key {
            Key::Pod(namespace, name) => {
                let pod = (namespace.clone(), name.clone());
                let workload = self.clusters.get(id).and_then(|state| self.workload(id, state, &pod));
                self.set_workload(id, &pod, workload, changes);
            }
            Key::Namespace(namespace) => {
                let labels = self.clusters.get(id).and_then(|state| state.namespaces.get(namespace));
                let at = (id.clone(), namespace.clone());
                match labels {
                    Some(object) => {
                        self.view.namespaces.insert(at, Arc::new(object.metadata.labels.clone()));
                    }
                    None => {
                        self.view.namespaces.remove(&at);
                    }
                }
                self.view.generations.networks += 1;
            }
            _ => {}
        }
    }

    fn workload(&self, id: &ClusterId, state: &Cluster, pod: &Id) -> Option<Arc<Workload>> {
        let object = state.pods.get(pod)?;
        let node = state.nodes.get(&object.spec.node_name).map(Arc::as_ref);
        let network = |address: Option<IpAddr>, labels: &Labels| self.network(id, state, address, labels);
        from_kube::workload(object, node, id, network, &self.settings).map(Arc::new)
    }

    /// The network of an address of a cluster: its own label, its cluster's, then what mesh networks say.
    fn network(&self, id: &ClusterId, state: &Cluster, address: Option<IpAddr>, labels: &Labels) -> Network {
        labelled(labels)
            .or_else(|| labelled(&state.namespaces.get(&self.settings.root_namespace)?.metadata.labels))
            .or_else(|| self.rules.network_of(id, address).cloned())
            .unwrap_or_default()
    }

    fn set_workload(&mut self, id: &ClusterId, pod: &Id, new: Option<Arc<Workload>>, changes: &mut Changes) {
        let Some(state) = self.clusters.get_mut(id) else { return };
        if state.workloads.get(pod) == new.as_ref() {
            return;
        }
        for address in state.set_workload(pod, new) {
            self.refresh_address(address, changes);
        }
    }

    /// Brings the workloads at an address up to date.
    fn refresh_address(&mut self, address: IpAddr, changes: &mut Changes) {
        let pods = self.clusters.values().flat_map(|state| state.workloads_at(address)).cloned();
        let entries =
            self.view.configs.of_kind(Kind::WorkloadEntry).filter_map(|object| match &object.spec {
                Spec::WorkloadEntry(entry) if entry.address.parse() == Ok(address) => {
                    Some(Arc::new(from_entry::workload(object, entry, &self.settings)))
                }
                _ => None,
            });
        let all: Vec<Arc<Workload>> = pods.chain(entries).collect();
        match all.is_empty() {
            true => drop(self.view.workloads.remove(&address)),
            false => drop(self.view.workloads.insert(address, Arc::new(all))),
        }
        self.view.generations.workloads += 1;
        changes.insert(Change::Workload(address));
    }

    /// Brings the workload of a WorkloadEntry up to date.
    pub(super) fn derive_entry_workload(
        &mut self,
        kind: Kind,
        ns: &Namespace,
        name: &str,
        changes: &mut Changes,
    ) {
        if kind != Kind::WorkloadEntry {
            return;
        }
        let mut touched: BTreeSet<IpAddr> = self
            .view
            .workloads
            .iter()
            .filter(|(_, all)| {
                all.iter().any(|w| {
                    w.source == crate::WorkloadSource::WorkloadEntry && w.namespace == *ns && w.name == name
                })
            })
            .map(|(address, _)| *address)
            .collect();
        if let Some(object) = self.view.configs.object(kind, ns, name)
            && let Spec::WorkloadEntry(entry) = &object.spec
        {
            touched.extend(entry.address.parse::<IpAddr>().ok());
        }
        for address in touched {
            self.refresh_address(address, changes);
        }
    }

    /// Recomputes what is stale.
    pub(super) fn settle(&mut self, mut stale: Stale, changes: &mut Changes) {
        if stale.everything {
            self.rebuild_workloads(changes);
            self.mark_all(&mut stale);
        }
        if stale.allocations {
            stale.hosts.extend(self.allocate());
        }
        for host in std::mem::take(&mut stale.hosts) {
            self.settle_services(&host, changes);
            self.settle_endpoints(&host, changes);
        }
        if stale.gateways {
            self.settle_gateways(changes);
        }
    }

    fn rebuild_workloads(&mut self, changes: &mut Changes) {
        let mut fresh = Vec::new();
        for (id, state) in &self.clusters {
            for pod in state.pods.keys() {
                fresh.push((id.clone(), pod.clone(), self.workload(id, state, pod)));
            }
        }
        for (id, pod, workload) in fresh {
            self.set_workload(&id, &pod, workload, changes);
        }
        let entries =
            self.view.configs.of_kind(Kind::WorkloadEntry).filter_map(|object| match &object.spec {
                Spec::WorkloadEntry(entry) => entry.address.parse().ok(),
                _ => None,
            });
        for address in entries.collect::<BTreeSet<IpAddr>>() {
            self.refresh_address(address, changes);
        }
    }

    fn mark_all(&self, stale: &mut Stale) {
        let known = self.view.services.keys().map(|key| (key.host.clone(), key.namespace.clone()));
        stale.hosts.extend(known);
        stale.hosts.extend(self.view.endpoints.keys().cloned());
        stale.hosts.extend(self.entries_of.keys().cloned());
        for state in self.clusters.values() {
            stale.hosts.extend(state.services.keys().map(|(ns, name)| self.kube_host(ns, name)));
        }
    }

    /// The hosts whose allocated addresses are now others.
    fn allocate(&mut self) -> Vec<HostId> {
        let entries = self.view.configs.of_kind(Kind::ServiceEntry);
        let fresh = allocate::allocate(entries.filter_map(|object| match &object.spec {
            Spec::ServiceEntry(entry) => Some((&object.namespace, entry.as_ref())),
            _ => None,
        }));
        let old = std::mem::replace(&mut self.allocated, fresh);
        let differs = |id: &&HostId| old.get(*id) != self.allocated.get(*id);
        let all: BTreeSet<&HostId> = old.keys().chain(self.allocated.keys()).collect();
        all.into_iter().filter(differs).cloned().collect()
    }

    fn settle_services(&mut self, (host, namespace): &HostId, changes: &mut Changes) {
        let fresh: Vec<Arc<Service>> = self.services((host, namespace)).into_iter().map(Arc::new).collect();
        let old: Vec<Arc<Service>> = self.view.services_of(host, namespace).cloned().collect();
        if old == fresh {
            return;
        }
        for service in old {
            self.view.services.remove(&service.key());
        }
        for service in fresh {
            self.view.services.insert(service.key(), service);
        }
        self.view.generations.services += 1;
        changes.insert(Change::Service(host.clone(), namespace.clone()));
    }

    /// The services of a host, ordered by key.
    fn services(&self, (host, namespace): (&Host, &Namespace)) -> Vec<Service> {
        let mut services: Vec<Service> = self.kube_service(host, namespace).into_iter().collect();
        for object in self.entries(host, namespace) {
            let Spec::ServiceEntry(entry) = &object.spec else { continue };
            let mut service = from_entry::service(object, entry, host, &self.settings);
            if service.is_unaddressed()
                && let Some(allocated) = self.allocated.get(&(host.clone(), namespace.clone()))
            {
                service.allocated = allocated.clone();
            }
            if let Some(first) = services.first_mut().filter(|first| first.source == Source::Kubernetes) {
                first.subject_alt_names.extend(service.subject_alt_names.iter().cloned());
            }
            services.push(service);
        }
        services.sort_by_key(Service::key);
        services
    }

    fn entries(&self, host: &Host, namespace: &Namespace) -> impl Iterator<Item = &Arc<Object>> {
        let namespace = namespace.clone();
        let names = self.entries_of.get(&(host.clone(), namespace.clone())).into_iter().flatten();
        names.filter_map(move |name| self.view.configs.object(Kind::ServiceEntry, &namespace, name))
    }

    /// The Kubernetes service of a host, over all clusters: the configuration cluster's object decides.
    fn kube_service(&self, host: &Host, namespace: &Namespace) -> Option<Service> {
        let id = (namespace.clone(), self.kube_name(host, namespace)?.to_owned());
        let mut objects: Vec<_> = self
            .clusters
            .iter()
            .filter_map(|(cluster, state)| Some((cluster.clone(), state.services.get(&id)?.as_ref())))
            .collect();
        objects.sort_by_key(|(cluster, _)| *cluster != self.settings.config_cluster);
        from_kube::service(&objects, &self.settings)
    }

    fn kube_name<'a>(&self, host: &'a Host, namespace: &Namespace) -> Option<&'a str> {
        let tail = format!(".{namespace}.svc.{}", self.settings.domain);
        host.as_str().strip_suffix(tail.as_str()).filter(|name| !name.contains('.'))
    }

    fn settle_endpoints(&mut self, host: &HostId, changes: &mut Changes) {
        let fresh = EndpointSet::new(self.endpoints(host));
        let old = self.view.endpoints.get(host).cloned();
        let exists = self.view.services_of(&host.0, &host.1).next().is_some();
        match old {
            Some(old) if exists && *old == fresh => return,
            None if !exists => return,
            _ => {}
        }
        for address in old.iter().flat_map(|set| &set.endpoints).filter_map(|e| e.address.ip()) {
            let empty = self.view.hosts_at.get_mut(&address).is_some_and(|hosts| {
                hosts.remove(host);
                hosts.is_empty()
            });
            if empty {
                self.view.hosts_at.remove(&address);
            }
        }
        for address in fresh.endpoints.iter().filter_map(|endpoint| endpoint.address.ip()) {
            let hosts: &mut OrdSet<HostId> = self.view.hosts_at.entry(address).or_default();
            hosts.insert(host.clone());
        }
        match exists {
            true => drop(self.view.endpoints.insert(host.clone(), Arc::new(fresh))),
            false => drop(self.view.endpoints.remove(host)),
        }
        self.view.generations.endpoints += 1;
        changes.insert(Change::Endpoints(host.0.clone(), host.1.clone()));
    }

    /// The endpoints of a host over all clusters, in a fixed order.
    fn endpoints(&self, host: &HostId) -> Vec<Endpoint> {
        let mut all = Vec::new();
        let first = ServiceKey {
            host: host.0.clone(),
            namespace: host.1.clone(),
            source: Source::Kubernetes,
            name: String::new(),
        };
        let services = self.view.services.range(first..).map(|(_, service)| service);
        for service in services.take_while(|s| s.host == host.0 && s.namespace == host.1) {
            match service.source {
                Source::Kubernetes => self.kube_endpoints(service, &mut all),
                Source::External => self.entry_endpoints(service, &mut all),
            }
        }
        all
    }

    fn kube_endpoints(&self, service: &Service, all: &mut Vec<Endpoint>) {
        let id = (service.namespace.clone(), service.name.clone());
        for (cluster, state) in &self.clusters {
            if !state.services.contains_key(&id) {
                continue;
            }
            let before = all.len();
            for slice in state.slices_of(&id) {
                self.listed(from_kube::of_slice(slice), service, cluster, state, all);
            }
            if let Some(object) = state.endpoints.get(&id).filter(|_| all.len() == before) {
                self.listed(from_kube::of_endpoints(object), service, cluster, state, all);
            }
        }
        dedup(all);
        if !service.selector.is_empty() {
            for (object, entry) in self.workload_entries(&service.namespace) {
                if service.selector.selects(&from_entry::labels_of(object, entry)) {
                    all.extend(from_entry::member(object, entry, service, None, &self.settings));
                }
            }
        }
    }

    fn listed<'a>(
        &self,
        raw: impl Iterator<Item = from_kube::RawEndpoint<'a>>,
        service: &Service,
        cluster: &ClusterId,
        state: &Cluster,
        all: &mut Vec<Endpoint>,
    ) {
        let network =
            |address: Option<IpAddr>, labels: &Labels| self.network(cluster, state, address, labels);
        for endpoint in raw {
            let workload = match &endpoint.pod {
                // What the slice says is a pod has to be known as one: its labels decide on mTLS.
                Some(pod) => match state.workloads.get(pod) {
                    Some(workload) => Some(workload),
                    None => continue,
                },
                None => endpoint.address.parse().ok().and_then(|ip| state.workloads_at(ip).next()),
            };
            let subdomain = endpoint.pod.as_ref().and_then(|pod| state.pods.get(pod));
            let subdomain = subdomain.map(|pod| pod.spec.subdomain.clone()).unwrap_or_default();
            let workload = workload.map(Arc::as_ref);
            all.extend(from_kube::endpoints(&endpoint, workload, &subdomain, service, cluster, network));
        }
    }

    fn workload_entries(
        &self,
        namespace: &Namespace,
    ) -> impl Iterator<Item = (&Arc<Object>, &lateen_api::kinds::WorkloadEntry)> {
        let of = self.view.configs.of_kind(Kind::WorkloadEntry);
        of.filter(move |object| object.namespace == *namespace).filter_map(|object| match &object.spec {
            Spec::WorkloadEntry(entry) => Some((object, entry.as_ref())),
            _ => None,
        })
    }

    fn entry_endpoints(&self, service: &Service, all: &mut Vec<Endpoint>) {
        let object = self.view.configs.object(Kind::ServiceEntry, &service.namespace, &service.name);
        let Some(Spec::ServiceEntry(entry)) = object.map(|object| &object.spec) else { return };
        all.extend(from_entry::listed(entry, service, &self.settings));
        let Some(selector) = from_entry::selector(entry) else { return };
        for (object, workload) in self.workload_entries(&service.namespace) {
            if selector.selects(&from_entry::labels_of(object, workload)) {
                all.extend(from_entry::member(object, workload, service, Some(entry), &self.settings));
            }
        }
        if !matches!(service.resolution, crate::Resolution::Static | crate::Resolution::None) {
            return;
        }
        for state in self.clusters.values() {
            let first = (service.namespace.clone(), String::new());
            let own = state.workloads.range(first..).take_while(|((ns, _), _)| *ns == service.namespace);
            for (_, pod) in own.filter(|(_, pod)| selector.selects(&pod.labels)) {
                all.extend(from_entry::pod_member(pod, entry));
            }
        }
    }
}

/// A slice and its successor may both list an endpoint while the controller moves it: the first one counts.
fn dedup(endpoints: &mut Vec<Endpoint>) {
    let mut seen = BTreeSet::new();
    endpoints.retain(|e| seen.insert((e.cluster.clone(), e.address.clone(), e.port, e.service_port.clone())));
}
