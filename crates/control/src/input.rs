//! What the control plane hears.

use lateen_api::{KINDS, Kind};
use lateen_base::ClusterId;
use lateen_kube::{ResourceKind, Scope, WatchEvent};

use crate::settings::Settings;

/// A kind of object that is watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Watched {
    /// `v1/Service`.
    Service,
    /// `discovery.k8s.io/v1` EndpointSlice.
    EndpointSlice,
    /// `v1/Endpoints`.
    Endpoints,
    /// `v1/Pod`.
    Pod,
    /// `v1/Node`.
    Node,
    /// `v1/Namespace`.
    Namespace,
    /// `networking.k8s.io/v1` Ingress.
    Ingress,
    /// `networking.k8s.io/v1` IngressClass.
    IngressClass,
    /// `v1/Secret`, of which gateways take their certificates.
    Secret,
    /// `v1/ConfigMap` of the control plane's namespace: mesh configuration and the injector's.
    ConfigMap,
    /// The ConfigMaps that hold the mesh's root certificate, of every namespace.
    RootMap,
    /// Mutating webhooks, of whose the control plane's own it keeps the CA bundle.
    Webhook,
    /// Validating webhooks, likewise.
    Validator,
    /// One of Istio's kinds.
    Istio(Kind),
}

/// Something that happened in a cluster.
#[derive(Clone, Debug)]
pub struct Input {
    /// The cluster.
    pub cluster: ClusterId,
    /// Of what kind.
    pub kind: Watched,
    /// What happened.
    pub event: WatchEvent,
}

impl Watched {
    /// Every kind that is watched in the cluster that holds the configuration.
    pub fn all() -> Vec<Self> {
        let kube = [
            Self::Namespace,
            Self::Node,
            Self::Pod,
            Self::Service,
            Self::EndpointSlice,
            Self::Endpoints,
            Self::Ingress,
            Self::IngressClass,
            Self::Secret,
            Self::ConfigMap,
            Self::RootMap,
            Self::Webhook,
            Self::Validator,
        ];
        kube.into_iter().chain(KINDS.iter().map(|info| Self::Istio(info.kind))).collect()
    }

    /// Its name on the API server.
    pub fn resource(self) -> ResourceKind {
        match self {
            Self::Service => ResourceKind::core("Service", "services"),
            Self::EndpointSlice => {
                ResourceKind::new("discovery.k8s.io", "v1", "EndpointSlice", "endpointslices", true)
            }
            Self::Endpoints => ResourceKind::core("Endpoints", "endpoints"),
            Self::Pod => ResourceKind::core("Pod", "pods"),
            Self::Node => ResourceKind::new("", "v1", "Node", "nodes", false),
            Self::Namespace => ResourceKind::new("", "v1", "Namespace", "namespaces", false),
            Self::Ingress => ResourceKind::new("networking.k8s.io", "v1", "Ingress", "ingresses", true),
            Self::IngressClass => {
                ResourceKind::new("networking.k8s.io", "v1", "IngressClass", "ingressclasses", false)
            }
            Self::Secret => ResourceKind::core("Secret", "secrets"),
            Self::ConfigMap | Self::RootMap => ResourceKind::core("ConfigMap", "configmaps"),
            Self::Webhook => ResourceKind::new(
                "admissionregistration.k8s.io",
                "v1",
                "MutatingWebhookConfiguration",
                "mutatingwebhookconfigurations",
                false,
            ),
            Self::Validator => ResourceKind::new(
                "admissionregistration.k8s.io",
                "v1",
                "ValidatingWebhookConfiguration",
                "validatingwebhookconfigurations",
                false,
            ),
            Self::Istio(kind) => {
                let info = kind.info();
                ResourceKind::new(info.group, info.storage, info.name, info.plural, true)
            }
        }
    }

    /// What of it is watched.
    pub fn scope(self, settings: &Settings) -> Scope {
        match self {
            Self::ConfigMap => Scope { namespace: Some(settings.namespace.clone()), ..Scope::default() },
            Self::RootMap => Scope {
                fields: Some(format!("metadata.name={}", crate::roots::ROOT_MAP)),
                ..Scope::default()
            },
            _ => Scope::default(),
        }
    }
}
