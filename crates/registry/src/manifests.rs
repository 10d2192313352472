//! Manifests in the place of a cluster: what offline commands feed the registry with.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use lateen_api::{Document, Object, parse_yaml};
use serde_json::{Value, json};

use crate::Resource;
use crate::kube_objects::{self as kube, IntOrString};

/// The objects of one cluster, read but not yet complete.
#[derive(Debug, Default)]
pub struct Manifests {
    services: Vec<kube::Service>,
    slices: Vec<kube::EndpointSlice>,
    endpoints: Vec<kube::Endpoints>,
    pods: Vec<kube::Pod>,
    nodes: Vec<kube::Node>,
    namespaces: Vec<kube::Namespace>,
    ingresses: Vec<kube::Ingress>,
    ingress_classes: Vec<kube::IngressClass>,
    configs: Vec<Object>,
    warnings: Vec<String>,
}

impl Manifests {
    /// Reads the documents of a file. What is broken is left out, with a warning.
    pub fn read(&mut self, file: &str, text: &str) {
        for document in parse_yaml(file, text) {
            match document {
                Ok(Document::Istio(object)) => self.configs.push(*object),
                Ok(Document::Other { value, origin }) => self.kube(&origin.to_string(), value),
                // Terse files leave out what goes without saying: what is told by its shape is taken for that.
                Err(error) if error.errors.iter().any(|e| e.path == "kind" || e.path == "apiVersion") => {
                    if !self.untitled(file, text) {
                        self.warnings.push(error.to_string());
                    }
                }
                Err(error) => self.warnings.push(error.to_string()),
            }
        }
    }

    /// Takes documents without kind by their shape; says whether there was any. Nodes are the only ones.
    fn untitled(&mut self, file: &str, text: &str) -> bool {
        let values = serde_saphyr::from_multiple::<Value>(text).unwrap_or_default();
        let mut found = false;
        for (at, mut value) in values.into_iter().enumerate() {
            if value.get("kind").is_none() && value.pointer("/status/addresses").is_some() {
                if value.pointer("/metadata/name").is_none() {
                    value["metadata"]["name"] = json!(format!("node-{at}"));
                }
                value["kind"] = json!("Node");
                self.kube(file, value);
                found = true;
            }
        }
        found
    }

    fn kube(&mut self, origin: &str, value: Value) {
        fn add<T: serde::de::DeserializeOwned>(
            to: &mut Vec<T>,
            value: Value,
        ) -> Result<(), serde_json::Error> {
            to.push(serde_json::from_value(value)?);
            Ok(())
        }
        let kind = value["kind"].as_str().unwrap_or_default().to_owned();
        let added = match kind.as_str() {
            "Service" => add(&mut self.services, value),
            "EndpointSlice" => add(&mut self.slices, value),
            "Endpoints" => add(&mut self.endpoints, value),
            "Pod" => add(&mut self.pods, value),
            "Node" => add(&mut self.nodes, value),
            "Namespace" => add(&mut self.namespaces, value),
            "Ingress" => add(&mut self.ingresses, value),
            "IngressClass" => add(&mut self.ingress_classes, value),
            // Everything else does not concern the mesh.
            _ => Ok(()),
        };
        if let Err(error) = added {
            self.warnings.push(format!("{origin}: {kind}: {error}"));
        }
    }

    /// Fills in what terse files leave out, as a cluster would: namespaces, and slices from pods. Gives back what a
    /// registry takes, and what was wrong.
    pub fn complete(mut self) -> (Vec<Resource>, Vec<String>) {
        let metas = (self.services.iter_mut().map(|o| &mut o.metadata))
            .chain(self.slices.iter_mut().map(|o| &mut o.metadata))
            .chain(self.endpoints.iter_mut().map(|o| &mut o.metadata))
            .chain(self.pods.iter_mut().map(|o| &mut o.metadata))
            .chain(self.ingresses.iter_mut().map(|o| &mut o.metadata));
        for meta in metas.filter(|meta| meta.namespace.is_empty()) {
            meta.namespace = "default".to_owned();
        }
        for object in self.configs.iter_mut().filter(|object| object.namespace.is_empty()) {
            object.namespace = "default".into();
        }
        self.place_pods();
        self.add_slices();
        let warnings = std::mem::take(&mut self.warnings);
        (self.resources().collect(), warnings)
    }

    /// Gives pods without address the one that a slice says they have.
    fn place_pods(&mut self) {
        let mut placed: BTreeMap<(String, String), String> = BTreeMap::new();
        for slice in &self.slices {
            for endpoint in &slice.endpoints {
                if let (Some(target), Some(address)) = (&endpoint.target_ref, endpoint.addresses.first()) {
                    let namespace = match target.namespace.is_empty() {
                        true => slice.metadata.namespace.clone(),
                        false => target.namespace.clone(),
                    };
                    placed.insert((namespace, target.name.clone()), address.clone());
                }
            }
        }
        for pod in self.pods.iter_mut().filter(|pod| pod.status.pod_ip.is_empty()) {
            let id = (pod.metadata.namespace.clone(), pod.metadata.name.clone());
            pod.status.pod_ip = placed.get(&id).cloned().unwrap_or_default();
        }
    }

    /// Makes the slices that a cluster's controller would make of services that select pods.
    fn add_slices(&mut self) {
        let listed: BTreeSet<(String, String)> = (self.slices.iter())
            .filter_map(|slice| {
                let service = slice.metadata.labels.value("kubernetes.io/service-name")?;
                Some((slice.metadata.namespace.clone(), service.to_owned()))
            })
            .chain(self.endpoints.iter().map(|e| (e.metadata.namespace.clone(), e.metadata.name.clone())))
            .collect();
        for service in &self.services {
            let id = (service.metadata.namespace.clone(), service.metadata.name.clone());
            if service.spec.selector.is_empty() || listed.contains(&id) {
                continue;
            }
            let selected = self.pods.iter().filter(|pod| {
                pod.metadata.namespace == id.0
                    && !pod.status.pod_ip.is_empty()
                    && service.spec.selector.selects(&pod.metadata.labels)
            });
            let slices: Vec<_> = selected.map(|pod| slice_of(service, pod)).collect();
            self.slices.extend(slices);
        }
    }

    fn resources(self) -> impl Iterator<Item = Resource> {
        let namespaces = self.namespaces.into_iter().map(|o| Resource::Namespace(Arc::new(o)));
        let nodes = self.nodes.into_iter().map(|o| Resource::Node(Arc::new(o)));
        let pods = self.pods.into_iter().map(|o| Resource::Pod(Arc::new(o)));
        let services = self.services.into_iter().map(|o| Resource::Service(Arc::new(o)));
        let slices = self.slices.into_iter().map(|o| Resource::EndpointSlice(Arc::new(o)));
        let endpoints = self.endpoints.into_iter().map(|o| Resource::Endpoints(Arc::new(o)));
        let classes = self.ingress_classes.into_iter().map(|o| Resource::IngressClass(Arc::new(o)));
        let ingresses = self.ingresses.into_iter().map(|o| Resource::Ingress(Arc::new(o)));
        let configs = self.configs.into_iter().map(|o| Resource::Config(Arc::new(o)));
        namespaces
            .chain(nodes)
            .chain(pods)
            .chain(services)
            .chain(slices)
            .chain(endpoints)
            .chain(classes)
            .chain(ingresses)
            .chain(configs)
    }
}

/// The slice of one pod of a service: named target ports are the pod's own.
fn slice_of(service: &kube::Service, pod: &kube::Pod) -> kube::EndpointSlice {
    let (meta, spec) = (&service.metadata, &service.spec);
    let named = |name: &str| {
        let ports = pod.spec.containers.iter().flat_map(|container| &container.ports);
        ports.into_iter().find(|port| port.name == name).map(|port| port.container_port)
    };
    let number = |port: &kube::ServicePort| match &port.target_port {
        None => Some(port.port),
        Some(IntOrString::Int(number)) => Some(*number),
        Some(IntOrString::String(name)) => name.parse().ok().or_else(|| named(name)),
    };
    let ports = spec.ports.iter().filter_map(|port| {
        Some(kube::EndpointPort {
            name: port.name.clone(),
            port: Some(number(port)?),
            protocol: String::new(),
        })
    });
    kube::EndpointSlice {
        metadata: kube::ObjectMeta {
            name: format!("{}-{}", meta.name, pod.metadata.name),
            namespace: meta.namespace.clone(),
            labels: [("kubernetes.io/service-name", meta.name.as_str())].into_iter().collect(),
            ..Default::default()
        },
        address_type: String::new(),
        endpoints: vec![kube::SliceEndpoint {
            addresses: vec![pod.status.pod_ip.clone()],
            target_ref: Some(kube::ObjectReference {
                kind: "Pod".to_owned(),
                name: pod.metadata.name.clone(),
                namespace: pod.metadata.namespace.clone(),
            }),
            ..Default::default()
        }],
        ports: ports.collect(),
    }
}
