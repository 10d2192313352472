//! The raw objects of one cluster, and the workloads among them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use lateen_base::Namespace;

use super::Id;
use crate::from_kube::{self, SERVICE_NAME_LABEL};
use crate::kube_objects as kube;
use crate::{Key, Resource, Workload};

/// What an endpoint says it is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Member {
    Pod(Id),
    Address(IpAddr),
}

/// The objects of one cluster.
#[derive(Debug, Default)]
pub(crate) struct Cluster {
    pub(crate) services: BTreeMap<Id, Arc<kube::Service>>,
    pub(crate) slices: BTreeMap<Id, Arc<kube::EndpointSlice>>,
    pub(crate) endpoints: BTreeMap<Id, Arc<kube::Endpoints>>,
    pub(crate) pods: BTreeMap<Id, Arc<kube::Pod>>,
    pub(crate) nodes: BTreeMap<String, Arc<kube::Node>>,
    pub(crate) namespaces: BTreeMap<Namespace, Arc<kube::Namespace>>,
    pub(crate) workloads: BTreeMap<Id, Arc<Workload>>,
    pods_at: BTreeMap<IpAddr, BTreeSet<Id>>,
    slices_of: BTreeMap<Id, BTreeSet<String>>,
    /// Members to the services that list them, with how often they do.
    listed: BTreeMap<Member, BTreeMap<Id, usize>>,
}

/// The service that a slice belongs to.
pub(crate) fn service_of(slice: &kube::EndpointSlice) -> Option<&str> {
    slice.metadata.labels.value(SERVICE_NAME_LABEL)
}

impl Cluster {
    /// Whether the resource is new or other than what is there.
    pub(crate) fn differs(&self, key: &Key, resource: &Resource) -> bool {
        let id = |namespace: &Namespace, name: &str| (namespace.clone(), name.to_owned());
        match (key, resource) {
            (Key::Service(ns, name), Resource::Service(new)) => self.services.get(&id(ns, name)) != Some(new),
            (Key::EndpointSlice(ns, name), Resource::EndpointSlice(new)) => {
                self.slices.get(&id(ns, name)) != Some(new)
            }
            (Key::Endpoints(ns, name), Resource::Endpoints(new)) => {
                self.endpoints.get(&id(ns, name)) != Some(new)
            }
            (Key::Pod(ns, name), Resource::Pod(new)) => self.pods.get(&id(ns, name)) != Some(new),
            (Key::Node(name), Resource::Node(new)) => {
                self.nodes.get(name).is_none_or(|old| node_facts(old) != node_facts(new))
            }
            (Key::Namespace(name), Resource::Namespace(new)) => {
                self.namespaces.get(name).is_none_or(|old| old.metadata.labels != new.metadata.labels)
            }
            _ => true,
        }
    }

    /// Stores a resource.
    pub(crate) fn put(&mut self, resource: Resource) {
        let id = |meta: &kube::ObjectMeta| (Namespace::new(&meta.namespace), meta.name.clone());
        match resource {
            Resource::Service(object) => {
                self.services.insert(id(&object.metadata), object);
            }
            Resource::EndpointSlice(object) => {
                let key = id(&object.metadata);
                self.remove_slice(&key);
                self.list(from_kube::of_slice(&object), service_of(&object), &key.0, true);
                if let Some(service) = service_of(&object) {
                    let of = self.slices_of.entry((key.0.clone(), service.to_owned())).or_default();
                    of.insert(key.1.clone());
                }
                self.slices.insert(key, object);
            }
            Resource::Endpoints(object) => {
                let key = id(&object.metadata);
                self.remove_endpoints(&key);
                self.list(from_kube::of_endpoints(&object), Some(&key.1), &key.0, true);
                self.endpoints.insert(key, object);
            }
            Resource::Pod(object) => {
                self.pods.insert(id(&object.metadata), object);
            }
            Resource::Node(object) => {
                self.nodes.insert(object.metadata.name.clone(), object);
            }
            Resource::Namespace(object) => {
                self.namespaces.insert(Namespace::new(&object.metadata.name), object);
            }
            Resource::Config(_) | Resource::Ingress(_) | Resource::IngressClass(_) => {}
        }
    }

    /// Forgets an object.
    pub(crate) fn remove(&mut self, key: &Key) {
        match key {
            Key::Service(ns, name) => drop(self.services.remove(&(ns.clone(), name.clone()))),
            Key::EndpointSlice(ns, name) => self.remove_slice(&(ns.clone(), name.clone())),
            Key::Endpoints(ns, name) => self.remove_endpoints(&(ns.clone(), name.clone())),
            Key::Pod(ns, name) => drop(self.pods.remove(&(ns.clone(), name.clone()))),
            Key::Node(name) => drop(self.nodes.remove(name)),
            Key::Namespace(name) => drop(self.namespaces.remove(name)),
            Key::Config(..) | Key::Ingress(..) | Key::IngressClass(_) => {}
        }
    }

    fn remove_slice(&mut self, key: &Id) {
        let Some(old) = self.slices.remove(key) else { return };
        self.list(from_kube::of_slice(&old), service_of(&old), &key.0, false);
        if let Some(service) = service_of(&old) {
            let id = (key.0.clone(), service.to_owned());
            if let Some(names) = self.slices_of.get_mut(&id) {
                names.remove(&key.1);
                if names.is_empty() {
                    self.slices_of.remove(&id);
                }
            }
        }
    }

    fn remove_endpoints(&mut self, key: &Id) {
        if let Some(old) = self.endpoints.remove(key) {
            self.list(from_kube::of_endpoints(&old), Some(&key.1), &key.0, false);
        }
    }

    /// Counts what a slice lists in or out.
    fn list<'a>(
        &mut self,
        raw: impl Iterator<Item = from_kube::RawEndpoint<'a>>,
        service: Option<&str>,
        namespace: &Namespace,
        add: bool,
    ) {
        let Some(service) = service else { return };
        let id = (namespace.clone(), service.to_owned());
        for endpoint in raw {
            let pod = endpoint.pod.map(Member::Pod);
            let address = endpoint.address.parse().ok().map(Member::Address);
            for member in pod.into_iter().chain(address) {
                let services = self.listed.entry(member.clone()).or_default();
                let count = services.entry(id.clone()).or_default();
                *count = if add { *count + 1 } else { count.saturating_sub(1) };
                if *count == 0 {
                    services.remove(&id);
                }
                if services.is_empty() {
                    self.listed.remove(&member);
                }
            }
        }
    }

    /// The services that list a pod, by name or by address.
    pub(crate) fn referring<'a>(
        &'a self,
        pod: &Id,
        addresses: &'a [IpAddr],
    ) -> impl Iterator<Item = &'a Id> + 'a {
        let by_name = self.listed.get(&Member::Pod(pod.clone()));
        let by_address = addresses.iter().filter_map(|address| self.listed.get(&Member::Address(*address)));
        by_name.into_iter().chain(by_address).flat_map(BTreeMap::keys)
    }

    /// The slices of a service.
    pub(crate) fn slices_of<'a>(
        &'a self,
        service: &Id,
    ) -> impl Iterator<Item = &'a kube::EndpointSlice> + 'a {
        let namespace = service.0.clone();
        let names = self.slices_of.get(service).into_iter().flatten();
        names.filter_map(move |name| self.slices.get(&(namespace.clone(), name.clone()))).map(Arc::as_ref)
    }

    /// Takes the workload that a pod now is, or forgets it; gives back the addresses it touches.
    pub(crate) fn set_workload(&mut self, id: &Id, workload: Option<Arc<Workload>>) -> BTreeSet<IpAddr> {
        let mut touched = BTreeSet::new();
        if let Some(old) = self.workloads.remove(id) {
            for address in &old.addresses {
                touched.insert(*address);
                if let Some(pods) = self.pods_at.get_mut(address) {
                    pods.remove(id);
                    if pods.is_empty() {
                        self.pods_at.remove(address);
                    }
                }
            }
        }
        if let Some(new) = workload {
            for address in &new.addresses {
                touched.insert(*address);
                self.pods_at.entry(*address).or_default().insert(id.clone());
            }
            self.workloads.insert(id.clone(), new);
        }
        touched
    }

    /// The workloads at an address.
    pub(crate) fn workloads_at(&self, address: IpAddr) -> impl Iterator<Item = &Arc<Workload>> {
        self.pods_at.get(&address).into_iter().flatten().filter_map(|id| self.workloads.get(id))
    }

    /// The keys of all objects of the kind of `kind`.
    pub(crate) fn keys(&self, kind: &Key) -> Vec<Key> {
        fn pairs<T>(map: &BTreeMap<Id, T>, key: fn(Namespace, String) -> Key) -> Vec<Key> {
            map.keys().map(|(ns, name)| key(ns.clone(), name.clone())).collect()
        }
        match kind {
            Key::Service(..) => pairs(&self.services, Key::Service),
            Key::EndpointSlice(..) => pairs(&self.slices, Key::EndpointSlice),
            Key::Endpoints(..) => pairs(&self.endpoints, Key::Endpoints),
            Key::Pod(..) => pairs(&self.pods, Key::Pod),
            Key::Node(_) => self.nodes.keys().cloned().map(Key::Node).collect(),
            Key::Namespace(_) => self.namespaces.keys().cloned().map(Key::Namespace).collect(),
            Key::Config(..) | Key::Ingress(..) | Key::IngressClass(_) => Vec::new(),
        }
    }
}

/// What of a node the mesh reads.
fn node_facts(node: &kube::Node) -> (&lateen_base::Labels, &[kube::NodeAddress]) {
    (&node.metadata.labels, &node.status.addresses)
}
