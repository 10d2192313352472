//! A world out of manifests.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use lateen_api::mesh::{MeshConfig, MeshNetworks};
use lateen_proto::json::{Names, any_to_value};
use lateen_registry::manifests::Manifests;
use lateen_registry::{Event, Registry, Settings};
use lateen_translate::{Proxy, Resource, Snapshot};
use serde_json::{Value, json};

/// The folder of the corpora, or a word that the test was skipped.
pub(crate) fn corpora() -> Option<PathBuf> {
    let folder = std::env::var_os("LATEEN_CORPORA").map(PathBuf::from);
    if folder.is_none() {
        eprintln!("skipped: LATEEN_CORPORA is not set");
    }
    folder
}

/// The rows of a file.
pub(crate) fn rows(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    match serde_json::from_str(&text).unwrap() {
        Value::Array(rows) => rows,
        other => panic!("{}: expected rows, found {other}", path.display()),
    }
}

/// A mesh in the making.
pub(crate) struct World {
    registry: Registry,
    mesh: MeshConfig,
    networks: MeshNetworks,
}

impl World {
    /// An empty mesh with these settings over Istio's.
    pub(crate) fn new(mesh: &Value, networks: Option<&Path>) -> Self {
        let mesh = MeshConfig::istio_default().overlaid(mesh).unwrap();
        let networks = match networks {
            Some(path) => {
                let text = std::fs::read_to_string(path).unwrap();
                let value: Value = serde_saphyr::from_str(&text).unwrap();
                if value.is_null() {
                    MeshNetworks::default()
                } else {
                    lateen_api::field::read(&value).unwrap()
                }
            }
            None => MeshNetworks::default(),
        };
        let settings = Settings { networks: Arc::new(networks.clone()), ..Settings::default() };
        Self { registry: Registry::new(settings), mesh, networks }
    }

    /// Adds the manifests of a file to a cluster.
    pub(crate) fn file(self, cluster: &str, path: &Path) -> Self {
        let text =
            std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        self.text(cluster, &path.display().to_string(), &text)
    }

    /// Adds manifests to a cluster.
    pub(crate) fn text(mut self, cluster: &str, name: &str, text: &str) -> Self {
        let mut manifests = Manifests::default();
        manifests.read(name, text);
        let (resources, _) = manifests.complete();
        for resource in resources {
            self.registry.apply(&cluster.into(), Event::Applied(resource));
        }
        self
    }

    /// The mesh at this moment.
    pub(crate) fn snapshot(&self) -> Arc<Snapshot> {
        let (mesh, networks) = (Arc::new(self.mesh.clone()), Arc::new(self.networks.clone()));
        Snapshot::build(mesh, networks, self.registry.settings(), self.registry.view(), None)
    }
}

/// A proxy out of what a row says of it.
pub(crate) fn proxy(row: &Value) -> Proxy {
    Proxy::from_json(row).unwrap()
}

/// A sidecar of the default namespace.
pub(crate) fn sidecar() -> Proxy {
    proxy(
        &json!({"type": "sidecar", "id": "app.default", "ipAddresses": ["1.1.1.1"], "configNamespace": "default"}),
    )
}

/// The resource of a name, as JSON.
pub(crate) fn named(resources: &[Arc<Resource>], name: &str) -> Option<Value> {
    let resource = resources.iter().find(|resource| resource.name.as_ref() == name)?;
    Some(any_to_value(&resource.any, Names::Camel).unwrap())
}
