//! The immutable picture of all clusters that readers hold.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use imbl::ordmap::DiffItem;
use imbl::{OrdMap, OrdSet};
use lateen_base::{ClusterId, Host, Labels, Namespace};

use crate::kube_objects::{Ingress, IngressClass};
use crate::{Configs, EndpointSet, NetworkGateway, Service, ServiceKey, Workload};

/// Numbers that grow with every change to a part of the view: equal numbers of one registry mean equal parts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Generations {
    /// Of the services.
    pub services: u64,
    /// Of the endpoints.
    pub endpoints: u64,
    /// Of the workloads.
    pub workloads: u64,
    /// Of the Istio objects; [`Configs::generation`] tells them apart by kind.
    pub configs: u64,
    /// Of the Ingress objects and their classes.
    pub ingresses: u64,
    /// Of networks, gateways and namespaces.
    pub networks: u64,
}

/// All services, endpoints, workloads and configurations: immutable, cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct View {
    /// The services.
    pub services: OrdMap<ServiceKey, Arc<Service>>,
    /// The endpoints of each host and namespace.
    pub endpoints: OrdMap<(Host, Namespace), Arc<EndpointSet>>,
    /// The workloads at each address; more than one where networks or clusters overlap.
    pub workloads: OrdMap<IpAddr, Arc<Vec<Arc<Workload>>>>,
    /// The hosts that have an endpoint at an address.
    pub hosts_at: OrdMap<IpAddr, OrdSet<(Host, Namespace)>>,
    /// Istio's objects.
    pub configs: Configs,
    /// Kubernetes' Ingress objects.
    pub ingresses: OrdMap<(Namespace, String), Arc<Ingress>>,
    /// The classes of Ingress objects.
    pub ingress_classes: OrdMap<String, Arc<IngressClass>>,
    /// Gateways into networks, ordered.
    pub gateways: Arc<Vec<NetworkGateway>>,
    /// Labels of namespaces, by cluster.
    pub namespaces: OrdMap<(ClusterId, Namespace), Arc<Labels>>,
    /// How often each part has changed.
    pub generations: Generations,
}

impl View {
    /// The endpoints of a service.
    pub fn endpoints_of(&self, service: &Service) -> Option<&Arc<EndpointSet>> {
        self.endpoints.get(&(service.host.clone(), service.namespace.clone()))
    }

    /// Whose endpoints are others than in an older picture of the same registry.
    pub fn endpoints_since(&self, older: &Self) -> BTreeSet<(Host, Namespace)> {
        let id = |item| match item {
            DiffItem::Add(id, _) | DiffItem::Remove(id, _) | DiffItem::Update { new: (id, _), .. } => id,
        };
        older.endpoints.diff(&self.endpoints).map(|item| id(item).clone()).collect()
    }

    /// The services of a host in a namespace, Kubernetes' first.
    pub fn services_of<'a>(
        &'a self,
        host: &'a Host,
        namespace: &'a Namespace,
    ) -> impl Iterator<Item = &'a Arc<Service>> {
        let first = ServiceKey {
            host: host.clone(),
            namespace: namespace.clone(),
            source: crate::Source::Kubernetes,
            name: String::new(),
        };
        self.services
            .range(first..)
            .take_while(move |(key, _)| key.host == *host && key.namespace == *namespace)
            .map(|(_, service)| service)
    }
}
