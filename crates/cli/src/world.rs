//! Manifests in the place of a cluster: the offline commands read them through the control plane's own registry.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use lateen_api::mesh::{MeshConfig, MeshNetworks};
use lateen_api::{Document, Object, parse_yaml};
use lateen_base::{ClusterId, Namespace};
use lateen_registry::kube_objects::{self as kube, IntOrString};
use lateen_registry::{Event, Registry, Resource, Settings};
use lateen_translate::{Proxy, Snapshot};
use serde_json::{Value, json};

use crate::commands::CliError;
use crate::manifest;

/// The flags by which offline commands are given a mesh.
#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct WorldArgs {
    /// Manifests: files or folders (can be given several times)
    #[arg(short = 'f', long = "filename", value_name = "PATH")]
    pub(crate) files: Vec<PathBuf>,
    /// Manifests of a cluster of that name
    #[arg(long = "cluster", value_name = "NAME=PATH")]
    pub(crate) clusters: Vec<String>,
    /// Mesh configuration, as in the key `mesh` of the ConfigMap `istio`
    #[arg(long, value_name = "FILE", alias = "meshConfigFile")]
    pub(crate) mesh_config: Option<PathBuf>,
    /// Mesh networks, as in the key `meshNetworks` of the ConfigMap `istio`
    #[arg(long, value_name = "FILE", alias = "meshNetworksFile")]
    pub(crate) mesh_networks: Option<PathBuf>,
    /// Domain of the services of Kubernetes
    #[arg(long, default_value = "cluster.local")]
    pub(crate) domain: String,
    /// Environment of the control plane; what Lateen does not read is said and left out
    #[arg(long = "env", value_name = "NAME=VALUE")]
    pub(crate) env: Vec<String>,
}

/// A mesh out of manifests.
pub(crate) struct World {
    /// What configuration is made from.
    pub(crate) snapshot: Arc<Snapshot>,
}

impl World {
    /// Reads the manifests. Objects that are broken are said on standard error and left out, as the control plane does.
    pub(crate) fn read(args: &WorldArgs) -> Result<Self, CliError> {
        let mesh = Arc::new(mesh_config(args.mesh_config.as_deref())?);
        let networks = Arc::new(mesh_networks(args.mesh_networks.as_deref())?);
        for pair in &args.env {
            eprintln!("Warning: --env {pair} has no effect");
        }
        let mut inputs = vec![("Kubernetes".to_owned(), args.files.clone())];
        for pair in &args.clusters {
            let (name, path) =
                pair.split_once('=').ok_or_else(|| CliError(format!("--cluster {pair}: write NAME=PATH")))?;
            inputs.push((name.to_owned(), vec![PathBuf::from(path)]));
        }
        let settings = Settings {
            domain: args.domain.clone(),
            trust_domain: non_empty(&mesh.trust_domain, "cluster.local"),
            root_namespace: Namespace::new(non_empty(&mesh.root_namespace, "istio-system")),
            config_cluster: "Kubernetes".into(),
            networks: networks.clone(),
        };
        let mut registry = Registry::new(settings.clone());
        for (name, paths) in inputs {
            let mut objects = Objects::default();
            for (file, text) in manifest::texts_of(&paths)? {
                objects.read(&file, &text);
            }
            objects.complete();
            let cluster = ClusterId::new(name);
            for resource in objects.resources() {
                registry.apply(&cluster, Event::Applied(resource));
            }
        }
        Ok(Self { snapshot: Snapshot::build(mesh, networks, &settings, registry.view(), None) })
    }
}

/// Reads the proxy that a file describes.
pub(crate) fn proxy(path: &Path) -> Result<Proxy, CliError> {
    let wrong = |error: &dyn std::fmt::Display| CliError(format!("{}: {error}", path.display()));
    let text = std::fs::read_to_string(path).map_err(|error| wrong(&error))?;
    let json: Value = serde_json::from_str(&text).map_err(|error| wrong(&error))?;
    Proxy::from_json(&json).map_err(|error| wrong(&error))
}

fn non_empty(text: &str, otherwise: &str) -> String {
    if text.is_empty() { otherwise.to_owned() } else { text.to_owned() }
}

fn read_file(path: &Path) -> Result<String, CliError> {
    std::fs::read_to_string(path).map_err(|error| CliError(format!("{}: {error}", path.display())))
}

fn mesh_config(path: Option<&Path>) -> Result<MeshConfig, CliError> {
    let Some(path) = path else { return Ok(MeshConfig::istio_default()) };
    MeshConfig::parse(&read_file(path)?).map_err(|error| CliError(format!("{}: {error}", path.display())))
}

fn mesh_networks(path: Option<&Path>) -> Result<MeshNetworks, CliError> {
    let Some(path) = path else { return Ok(MeshNetworks::default()) };
    let wrong = |error: &dyn std::fmt::Display| CliError(format!("{}: {error}", path.display()));
    let text = read_file(path)?;
    let value: Value = serde_saphyr::from_str(&text).map_err(|error| wrong(&error))?;
    if value.is_null() {
        return Ok(MeshNetworks::default());
    }
    lateen_api::field::read(&value).map_err(|error| wrong(&error))
}

/// The objects of one cluster, read but not yet complete.
#[derive(Default)]
struct Objects {
    services: Vec<kube::Service>,
    slices: Vec<kube::EndpointSlice>,
    endpoints: Vec<kube::Endpoints>,
    pods: Vec<kube::Pod>,
    nodes: Vec<kube::Node>,
    namespaces: Vec<kube::Namespace>,
    configs: Vec<Object>,
}

impl Objects {
    fn read(&mut self, file: &str, text: &str) {
        for document in parse_yaml(file, text) {
            match document {
                Ok(Document::Istio(object)) => self.configs.push(*object),
                Ok(Document::Other { value, origin }) => self.kube(&origin.to_string(), value),
                // Terse files leave out what goes without saying: what is told by its shape is taken for that.
                Err(error) if error.errors.iter().any(|e| e.path == "kind" || e.path == "apiVersion") => {
                    if !self.untitled(file, text) {
                        eprintln!("Warning: {error}");
                    }
                }
                Err(error) => eprintln!("Warning: {error}"),
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
        fn add<T: serde::de::DeserializeOwned>(to: &mut Vec<T>, origin: &str, value: Value) {
            let kind = value["kind"].as_str().unwrap_or_default().to_owned();
            match serde_json::from_value(value) {
                Ok(object) => to.push(object),
                Err(error) => eprintln!("Warning: {origin}: {kind}: {error}"),
            }
        }
        match value["kind"].as_str().unwrap_or_default() {
            "Service" => add(&mut self.services, origin, value),
            "EndpointSlice" => add(&mut self.slices, origin, value),
            "Endpoints" => add(&mut self.endpoints, origin, value),
            "Pod" => add(&mut self.pods, origin, value),
            "Node" => add(&mut self.nodes, origin, value),
            "Namespace" => add(&mut self.namespaces, origin, value),
            // Everything else does not concern the mesh.
            _ => {}
        }
    }

    /// Fills in what terse files leave out, as a cluster would: namespaces, and slices from pods.
    fn complete(&mut self) {
        let metas = (self.services.iter_mut().map(|o| &mut o.metadata))
            .chain(self.slices.iter_mut().map(|o| &mut o.metadata))
            .chain(self.endpoints.iter_mut().map(|o| &mut o.metadata))
            .chain(self.pods.iter_mut().map(|o| &mut o.metadata));
        for meta in metas.filter(|meta| meta.namespace.is_empty()) {
            meta.namespace = "default".to_owned();
        }
        for object in self.configs.iter_mut().filter(|object| object.namespace.is_empty()) {
            object.namespace = "default".into();
        }
        self.place_pods();
        self.add_slices();
    }

    /// Gives pods without address the one that a slice says they have.
    fn place_pods(&mut self) {
        let mut placed: BTreeMap<(String, String), String> = BTreeMap::new();
        for slice in &self.slices {
            for endpoint in &slice.endpoints {
                if let (Some(target), Some(address)) = (&endpoint.target_ref, endpoint.addresses.first()) {
                    let namespace = non_empty(&target.namespace, &slice.metadata.namespace);
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
        let configs = self.configs.into_iter().map(|o| Resource::Config(Arc::new(o)));
        namespaces.chain(nodes).chain(pods).chain(services).chain(slices).chain(endpoints).chain(configs)
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
