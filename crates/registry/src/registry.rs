//! The registry: raw objects of each cluster, and what follows from them.

mod cluster;
mod gateways;
mod ingress;
mod settle;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use lateen_api::mesh::MeshNetworks;
use lateen_api::{Kind, Object, Spec};
use lateen_base::{ClusterId, Host, Labels, Namespace};

use crate::network::NetworkRules;
use crate::{Change, Changes, Event, Key, Resource, View, from_entry, from_kube};
use cluster::Cluster;

/// What the registry has to know besides objects.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// The domain of Kubernetes services.
    pub domain: String,
    /// The trust domain of identities.
    pub trust_domain: String,
    /// The namespace whose labels tell a cluster's network.
    pub root_namespace: Namespace,
    /// The cluster whose Istio objects count, and where ServiceEntries are.
    pub config_cluster: ClusterId,
    /// Networks as the mesh configuration names them.
    pub networks: Arc<MeshNetworks>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            domain: "cluster.local".to_owned(),
            trust_domain: "cluster.local".to_owned(),
            root_namespace: "istio-system".into(),
            config_cluster: "Kubernetes".into(),
            networks: Arc::default(),
        }
    }
}

/// A namespace and a name in it.
pub(crate) type Id = (Namespace, String);
/// A host and the namespace of the objects that define it: what services and endpoints are recomputed by.
pub(crate) type HostId = (Host, Namespace);

/// Services, workloads, endpoints and configurations of N clusters.
#[derive(Debug, Default)]
pub struct Registry {
    settings: Settings,
    rules: NetworkRules,
    clusters: BTreeMap<ClusterId, Cluster>,
    /// The ServiceEntries that name a host.
    entries_of: BTreeMap<HostId, BTreeSet<String>>,
    /// The addresses made up for hosts without any.
    allocated: BTreeMap<HostId, Vec<IpAddr>>,
    view: View,
}

/// What an event makes stale.
#[derive(Debug, Default)]
pub(crate) struct Stale {
    hosts: BTreeSet<HostId>,
    gateways: bool,
    allocations: bool,
    everything: bool,
}

impl Registry {
    /// An empty registry.
    pub fn new(settings: Settings) -> Self {
        let rules = NetworkRules::of(&settings.networks);
        Self { settings, rules, ..Self::default() }
    }

    /// The settings.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Takes other settings, and works everything out anew.
    pub fn configure(&mut self, settings: Settings) -> Changes {
        if self.settings == settings {
            return Changes::new();
        }
        self.rules = NetworkRules::of(&settings.networks);
        self.settings = settings;
        let mut changes = Changes::from([Change::Settings, Change::Networks]);
        let stale = Stale { everything: true, gateways: true, allocations: true, ..Stale::default() };
        self.settle(stale, &mut changes);
        changes
    }

    /// The immutable picture of now.
    pub fn view(&self) -> View {
        self.view.clone()
    }

    /// Takes an event of a cluster, and says what is different.
    pub fn apply(&mut self, cluster: &ClusterId, event: Event) -> Changes {
        let mut stale = Stale::default();
        let mut changes = Changes::new();
        match event {
            Event::Applied(resource) => self.put(cluster, resource, &mut stale, &mut changes),
            Event::Removed(key) => self.remove(cluster, &key, &mut stale, &mut changes),
            Event::Relisted { kind, resources } => {
                let kept: BTreeSet<Key> = resources.iter().map(Resource::key).collect();
                for key in self.keys(cluster, &kind) {
                    if !kept.contains(&key) {
                        self.remove(cluster, &key, &mut stale, &mut changes);
                    }
                }
                for resource in resources {
                    self.put(cluster, resource, &mut stale, &mut changes);
                }
            }
            Event::ClusterRemoved => self.remove_cluster(cluster, &mut stale, &mut changes),
        }
        self.settle(stale, &mut changes);
        changes
    }

    fn remove_cluster(&mut self, id: &ClusterId, stale: &mut Stale, changes: &mut Changes) {
        for kind in Key::of_kube() {
            for key in self.keys(id, &kind) {
                self.remove(id, &key, stale, changes);
            }
        }
        self.clusters.remove(id);
        stale.gateways = true;
    }

    /// The keys of all objects of the kind of `kind`.
    fn keys(&self, cluster: &ClusterId, kind: &Key) -> Vec<Key> {
        if let Key::Config(kind, ..) = kind {
            let key = |o: &Arc<Object>| Key::Config(o.kind, o.namespace.clone(), o.name.clone());
            return self.view.configs.of_kind(*kind).map(key).collect();
        }
        match kind {
            Key::Ingress(..) | Key::IngressClass(_) => self.ingress_keys(cluster, kind),
            kind => self.clusters.get(cluster).map(|state| state.keys(kind)).unwrap_or_default(),
        }
    }

    fn put(&mut self, id: &ClusterId, resource: Resource, stale: &mut Stale, changes: &mut Changes) {
        let key = resource.key();
        match resource {
            Resource::Config(object) => self.put_config(object, stale, changes),
            Resource::Ingress(object) => self.put_ingress(id, object, changes),
            Resource::IngressClass(object) => self.put_ingress_class(id, object, changes),
            resource => {
                let state = self.clusters.entry(id.clone()).or_default();
                if !state.differs(&key, &resource) {
                    return;
                }
                self.mark(id, &key, stale, changes);
                self.clusters.entry(id.clone()).or_default().put(resource);
                self.derive(id, &key, changes);
                self.mark(id, &key, stale, changes);
            }
        }
    }

    fn remove(&mut self, id: &ClusterId, key: &Key, stale: &mut Stale, changes: &mut Changes) {
        if let Key::Config(kind, namespace, name) = key {
            return self.remove_config(*kind, namespace, name, stale, changes);
        }
        if matches!(key, Key::Ingress(..) | Key::IngressClass(_)) {
            return self.remove_ingress(id, key, changes);
        }
        self.mark(id, key, stale, changes);
        if let Some(state) = self.clusters.get_mut(id) {
            state.remove(key);
        }
        self.derive(id, key, changes);
    }

    /// Notes what depends on an object as it is now; called before and after it changes.
    fn mark(&self, id: &ClusterId, key: &Key, stale: &mut Stale, changes: &mut Changes) {
        let Some(state) = self.clusters.get(id) else { return };
        match key {
            Key::Service(namespace, name) => {
                let host = self.kube_host(namespace, name);
                stale.gateways |= state.services.get(&(namespace.clone(), name.clone())).is_some_and(|s| {
                    s.metadata.labels.value(crate::network::NETWORK_LABEL).is_some()
                        || self.rules.named_gateways.iter().any(|gateway| gateway.host == host.0)
                });
                stale.hosts.insert(host);
            }
            Key::EndpointSlice(namespace, name) => {
                let slice = state.slices.get(&(namespace.clone(), name.clone()));
                if let Some(service) = slice.and_then(|slice| cluster::service_of(slice)) {
                    stale.hosts.insert(self.kube_host(namespace, service));
                }
            }
            Key::Endpoints(namespace, name) => {
                stale.hosts.insert(self.kube_host(namespace, name));
            }
            Key::Pod(namespace, name) => {
                self.mark_pod(state, &(namespace.clone(), name.clone()), stale, changes)
            }
            Key::Node(_) => {
                stale.everything = true;
                stale.gateways = true;
            }
            Key::Namespace(namespace) => {
                changes.insert(Change::Namespace(namespace.clone()));
                if *namespace == self.settings.root_namespace {
                    stale.everything = true;
                    changes.insert(Change::Networks);
                }
            }
            Key::Config(..) | Key::Ingress(..) | Key::IngressClass(_) => {}
        }
    }

    fn mark_pod(&self, state: &Cluster, id: &Id, stale: &mut Stale, changes: &mut Changes) {
        let Some(workload) = state.workloads.get(id) else {
            stale
                .hosts
                .extend(state.referring(id, &[]).map(|service| self.kube_host(&service.0, &service.1)));
            return;
        };
        changes.extend(workload.addresses.iter().map(|address| Change::Workload(*address)));
        let referring = state.referring(id, &workload.addresses);
        stale.hosts.extend(referring.map(|service| self.kube_host(&service.0, &service.1)));
        self.mark_selecting(&id.0, &workload.labels, stale);
    }

    /// Notes the ServiceEntries of a namespace that select these labels.
    fn mark_selecting(&self, namespace: &Namespace, labels: &Labels, stale: &mut Stale) {
        for object in self.view.configs.of_kind(Kind::ServiceEntry) {
            let Spec::ServiceEntry(entry) = &object.spec else { continue };
            let selects = from_entry::selector(entry).is_some_and(|selector| selector.selects(labels));
            if object.namespace == *namespace && selects {
                stale.hosts.extend(entry.hosts.iter().map(|host| (Host::new(host), namespace.clone())));
            }
        }
    }

    fn put_config(&mut self, object: Arc<Object>, stale: &mut Stale, changes: &mut Changes) {
        let (kind, namespace, name) = (object.kind, object.namespace.clone(), object.name.clone());
        if self.view.configs.object(kind, &namespace, &name).is_some_and(|old| **old == *object) {
            return;
        }
        self.mark_config(kind, &namespace, &name, stale, false);
        self.view.configs.insert(object);
        self.view.generations.configs += 1;
        self.mark_config(kind, &namespace, &name, stale, true);
        self.derive_entry_workload(kind, &namespace, &name, changes);
        changes.insert(Change::Config(kind, namespace, name));
    }

    fn remove_config(
        &mut self,
        kind: Kind,
        namespace: &Namespace,
        name: &str,
        stale: &mut Stale,
        changes: &mut Changes,
    ) {
        self.mark_config(kind, namespace, name, stale, false);
        if self.view.configs.remove(kind, namespace, name).is_some() {
            self.view.generations.configs += 1;
            self.derive_entry_workload(kind, namespace, name, changes);
            changes.insert(Change::Config(kind, namespace.clone(), name.to_owned()));
        }
    }

    /// Notes what depends on an Istio object as it is now, and keeps the index of ServiceEntries.
    fn mark_config(
        &mut self,
        kind: Kind,
        namespace: &Namespace,
        name: &str,
        stale: &mut Stale,
        present: bool,
    ) {
        let Some(object) = self.view.configs.object(kind, namespace, name).cloned() else { return };
        match &object.spec {
            Spec::ServiceEntry(entry) => {
                stale.allocations = true;
                for host in &entry.hosts {
                    let id = (Host::new(host), namespace.clone());
                    let names = self.entries_of.entry(id.clone()).or_default();
                    match present {
                        true => names.insert(name.to_owned()),
                        false => names.remove(name),
                    };
                    if names.is_empty() {
                        self.entries_of.remove(&id);
                    }
                    stale.hosts.insert(id);
                }
            }
            Spec::WorkloadEntry(entry) => {
                let labels = from_entry::labels_of(&object, entry);
                self.mark_selecting(namespace, &labels, stale);
                self.mark_services_selecting(namespace, &labels, stale);
            }
            _ => {}
        }
    }

    /// Notes the Kubernetes services of a namespace that select these labels: they take WorkloadEntries, too.
    fn mark_services_selecting(&self, namespace: &Namespace, labels: &Labels, stale: &mut Stale) {
        for state in self.clusters.values() {
            let first = (namespace.clone(), String::new());
            let own = state.services.range(first..).take_while(|((ns, _), _)| ns == namespace);
            for ((ns, name), service) in own {
                if !service.spec.selector.is_empty() && service.spec.selector.selects(labels) {
                    stale.hosts.insert(self.kube_host(ns, name));
                }
            }
        }
    }

    fn kube_host(&self, namespace: &Namespace, name: &str) -> HostId {
        (from_kube::host_of(name, namespace.as_str(), &self.settings.domain), namespace.clone())
    }
}
