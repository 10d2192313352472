//! Worlds of the corpora: manifests through the registry into a snapshot.

use std::path::Path;
use std::sync::Arc;

use lateen_api::mesh::{MeshConfig, MeshNetworks};
use lateen_api::{Document, parse_yaml};
use lateen_proto::json::{self, Names};
use lateen_proto::{Message, Name};
use lateen_registry::{Event, Registry, Resource, Settings};
use lateen_translate::{Proxy, Resource as Made, Resources, Snapshot, generate};
use serde_json::{Value, json};

/// The JSON of a case file.
pub(crate) fn cases(path: &Path) -> Vec<Value> {
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

/// A snapshot of manifests; Kubernetes' objects and Istio's without namespace are in `default`.
pub(crate) fn snapshot(manifests: &str, mesh: Option<&Value>) -> Arc<Snapshot> {
    let mesh = Arc::new(match mesh.filter(|mesh| !mesh.is_null()) {
        Some(given) => MeshConfig::parse(&given.to_string()).unwrap(),
        None => MeshConfig::istio_default(),
    });
    let networks = Arc::new(MeshNetworks::default());
    let settings = Settings {
        domain: "cluster.local".into(),
        trust_domain: mesh.trust_domain.clone(),
        root_namespace: "istio-system".into(),
        config_cluster: "Kubernetes".into(),
        networks: networks.clone(),
    };
    let mut registry = Registry::new(settings.clone());
    for document in parse_yaml("world.yaml", manifests) {
        let resource = match document {
            Ok(Document::Istio(mut object)) => {
                if object.namespace.is_empty() {
                    object.namespace = "default".into();
                }
                Some(Resource::Config(Arc::new(*object)))
            }
            Ok(Document::Other { value, .. }) => kube(value),
            Err(error) => panic!("{error}"),
        };
        if let Some(resource) = resource {
            registry.apply(&"Kubernetes".into(), Event::Applied(resource));
        }
    }
    Snapshot::build(mesh, networks, &settings, registry.view(), None)
}

fn kube(mut value: Value) -> Option<Resource> {
    if value.pointer("/metadata/namespace").is_none() {
        value["metadata"]["namespace"] = json!("default");
    }
    let kind = value["kind"].as_str().unwrap_or_default().to_owned();
    let read = |value| serde_json::from_value(value);
    Some(match kind.as_str() {
        "Service" => Resource::Service(Arc::new(serde_json::from_value(value).unwrap())),
        "EndpointSlice" => Resource::EndpointSlice(Arc::new(serde_json::from_value(value).unwrap())),
        "Ingress" => Resource::Ingress(Arc::new(serde_json::from_value(value).unwrap())),
        "Pod" => Resource::Pod(Arc::new(read(value).unwrap())),
        "Node" => Resource::Node(Arc::new(serde_json::from_value(value).unwrap())),
        _ => return None,
    })
}

/// A proxy and everything that it gets.
pub(crate) struct Configured {
    /// The proxy.
    pub(crate) proxy: Proxy,
    /// What it gets.
    pub(crate) resources: Resources,
}

impl Configured {
    /// Configures the proxy of a case.
    pub(crate) fn of(snapshot: &Snapshot, proxy: &Value) -> Self {
        let proxy = Proxy::from_json(proxy).unwrap();
        let resources = generate(snapshot, &proxy);
        Self { proxy, resources }
    }

    /// The messages of a type.
    pub(crate) fn messages<M: Message + Name + Default>(made: &[Arc<Made>]) -> Vec<M> {
        made.iter().map(|resource| resource.any.unpack().unwrap()).collect()
    }

    /// The dump that `x dump-xds` prints.
    pub(crate) fn dump(&self) -> Value {
        let list = |made: &[Arc<Made>]| -> Vec<Value> {
            made.iter()
                .map(|resource| {
                    let mut value = json::any_to_value(&resource.any, Names::Camel).unwrap();
                    value.as_object_mut().unwrap().remove("@type");
                    value
                })
                .collect()
        };
        json!({
            "listeners": list(&self.resources.listeners),
            "clusters": list(&self.resources.clusters),
            "routes": list(&self.resources.routes),
            "endpoints": list(&self.resources.endpoints),
        })
    }
}
