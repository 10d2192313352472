//! Manifests in the place of a cluster: the offline commands read them through the control plane's own registry.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use lateen_api::mesh::{MeshConfig, MeshNetworks};
use lateen_base::{ClusterId, Namespace};
use lateen_registry::manifests::Manifests;
use lateen_registry::{Event, Registry, Settings};
use lateen_translate::{Proxy, Snapshot};
use serde_json::Value;

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
            let mut manifests = Manifests::default();
            for (file, text) in manifest::texts_of(&paths)? {
                manifests.read(&file, &text);
            }
            let (resources, warnings) = manifests.complete();
            for warning in warnings {
                eprintln!("Warning: {warning}");
            }
            let cluster = ClusterId::new(name);
            for resource in resources {
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
