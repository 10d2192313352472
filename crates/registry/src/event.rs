//! What comes in and what goes out.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use lateen_api::{Kind, Object};
use lateen_base::{Host, Namespace};

use crate::kube_objects::{
    EndpointSlice, Endpoints, Ingress, IngressClass, Namespace as KubeNamespace, Node, Pod, Service,
};

/// An object of a cluster.
#[derive(Clone, Debug)]
pub enum Resource {
    /// `v1/Service`.
    Service(Arc<Service>),
    /// `discovery.k8s.io/v1` EndpointSlice.
    EndpointSlice(Arc<EndpointSlice>),
    /// `v1/Endpoints`.
    Endpoints(Arc<Endpoints>),
    /// `v1/Pod`.
    Pod(Arc<Pod>),
    /// `v1/Node`.
    Node(Arc<Node>),
    /// `v1/Namespace`.
    Namespace(Arc<KubeNamespace>),
    /// `networking.k8s.io/v1` Ingress; those of the configuration cluster count.
    Ingress(Arc<Ingress>),
    /// `networking.k8s.io/v1` IngressClass; those of the configuration cluster count.
    IngressClass(Arc<IngressClass>),
    /// One of Istio's kinds. There is one store of them: send those of the configuration cluster.
    Config(Arc<Object>),
}

impl Resource {
    /// What it is called.
    pub fn key(&self) -> Key {
        let pair =
            |meta: &crate::kube_objects::ObjectMeta| (Namespace::new(&meta.namespace), meta.name.clone());
        match self {
            Self::Service(object) => {
                let (namespace, name) = pair(&object.metadata);
                Key::Service(namespace, name)
            }
            Self::EndpointSlice(object) => {
                let (namespace, name) = pair(&object.metadata);
                Key::EndpointSlice(namespace, name)
            }
            Self::Endpoints(object) => {
                let (namespace, name) = pair(&object.metadata);
                Key::Endpoints(namespace, name)
            }
            Self::Pod(object) => {
                let (namespace, name) = pair(&object.metadata);
                Key::Pod(namespace, name)
            }
            Self::Node(object) => Key::Node(object.metadata.name.clone()),
            Self::Namespace(object) => Key::Namespace(Namespace::new(&object.metadata.name)),
            Self::Ingress(object) => {
                let (namespace, name) = pair(&object.metadata);
                Key::Ingress(namespace, name)
            }
            Self::IngressClass(object) => Key::IngressClass(object.metadata.name.clone()),
            Self::Config(object) => Key::Config(object.kind, object.namespace.clone(), object.name.clone()),
        }
    }
}

/// What an object is called.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Key {
    /// A service, by namespace and name.
    Service(Namespace, String),
    /// An endpoint slice, by namespace and name.
    EndpointSlice(Namespace, String),
    /// An Endpoints object, by namespace and name.
    Endpoints(Namespace, String),
    /// A pod, by namespace and name.
    Pod(Namespace, String),
    /// A node, by name.
    Node(String),
    /// A namespace, by name.
    Namespace(Namespace),
    /// An Ingress, by namespace and name.
    Ingress(Namespace, String),
    /// An IngressClass, by name.
    IngressClass(String),
    /// An Istio object, by kind, namespace and name.
    Config(Kind, Namespace, String),
}

impl Key {
    /// One key of each Kubernetes kind, its names empty.
    pub fn of_kube() -> [Self; 8] {
        let (namespace, name) = (Namespace::default, String::new);
        [
            Self::Service(namespace(), name()),
            Self::EndpointSlice(namespace(), name()),
            Self::Endpoints(namespace(), name()),
            Self::Pod(namespace(), name()),
            Self::Node(name()),
            Self::Namespace(namespace()),
            Self::Ingress(namespace(), name()),
            Self::IngressClass(name()),
        ]
    }

    /// Whether both are of one kind.
    pub fn same_kind(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Config(a, ..), Self::Config(b, ..)) => a == b,
            _ => std::mem::discriminant(self) == std::mem::discriminant(other),
        }
    }
}

/// Something that happened in a cluster.
#[derive(Clone, Debug)]
pub enum Event {
    /// The object is new or changed.
    Applied(Resource),
    /// The object is gone.
    Removed(Key),
    /// These are all objects of one kind: what is not among them is gone. `kind` is any key of that kind.
    Relisted {
        /// A key of the kind, its names ignored.
        kind: Key,
        /// The objects.
        resources: Vec<Resource>,
    },
    /// The cluster itself is gone, with all it had.
    ClusterRemoved,
}

/// Something that is different from before.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Change {
    /// A service of that host and namespace: its ports, addresses, visibility and so on.
    Service(Host, Namespace),
    /// The endpoints of that host and namespace.
    Endpoints(Host, Namespace),
    /// An Istio object.
    Config(Kind, Namespace, String),
    /// An Ingress, or the class of some.
    Ingress,
    /// The workload at an address: its labels and the like, so what selects it may differ.
    Workload(IpAddr),
    /// The labels of a namespace.
    Namespace(Namespace),
    /// Networks and their gateways.
    Networks,
    /// The settings, hence anything.
    Settings,
}

/// All that is different after an event.
pub type Changes = BTreeSet<Change>;
