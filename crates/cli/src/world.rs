//! Manifests in the place of a cluster: the offline commands read them through the control plane's own registry.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine as _;
use lateen_api::Document;
use lateen_api::mesh::{MeshConfig, MeshNetworks};
use lateen_base::ClusterId;
use lateen_control::Secrets;
use lateen_kube::WatchEvent;
use lateen_registry::manifests::Manifests;
use lateen_translate::offline::{self, CONFIG_CLUSTER};
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
    /// Environment of the control plane; what Lateen does not read is said
    #[arg(long = "env", value_name = "NAME=VALUE")]
    pub(crate) env: Vec<String>,
}

/// A mesh out of manifests.
pub(crate) struct World {
    /// What configuration is made from.
    pub(crate) snapshot: Arc<Snapshot>,
    /// The certificates among the manifests.
    pub(crate) secrets: Secrets,
}

impl World {
    /// Reads the manifests. Objects that are broken are said on standard error and left out, as the control plane does.
    pub(crate) fn read(args: &WorldArgs) -> Result<Self, CliError> {
        judge_environment(&args.env)?;
        let mut inputs = vec![(CONFIG_CLUSTER, args.files.clone())];
        for pair in &args.clusters {
            let (name, path) =
                pair.split_once('=').ok_or_else(|| CliError(format!("--cluster {pair}: write NAME=PATH")))?;
            inputs.push((name, vec![PathBuf::from(path)]));
        }
        let (mut clusters, mut secrets) = (Vec::new(), Vec::new());
        for (name, paths) in inputs {
            let mut manifests = Manifests::default();
            for (file, text) in manifest::texts_of(&paths)? {
                manifests.read(&file, &text);
                secrets.extend(secrets_of(&file, &text));
            }
            clusters.push((ClusterId::new(name), manifests));
        }
        let mesh = mesh_config(args.mesh_config.as_deref())?;
        let networks = mesh_networks(args.mesh_networks.as_deref())?;
        let (snapshot, warnings) = offline::snapshot(mesh, networks, &args.domain, clusters);
        for warning in warnings {
            eprintln!("Warning: {warning}");
        }
        let mut all = Secrets::default();
        all.take(&WatchEvent::Replaced(secrets));
        Ok(Self { snapshot, secrets: all })
    }
}

/// Says of each `NAME=VALUE` of a control plane's environment that would make a difference that it makes none here.
fn judge_environment(pairs: &[String]) -> Result<(), CliError> {
    for pair in pairs {
        let (name, value) =
            pair.split_once('=').ok_or_else(|| CliError(format!("--env {pair}: write NAME=VALUE")))?;
        match (name, value) {
            // Which of Istio's two ways gives addresses to hosts without: here there is one, stable as either. And what is
            // always on.
            ("PILOT_ENABLE_IP_AUTOALLOCATE", "true" | "false")
            | ("ENABLE_TLS_ON_SIDECAR_INGRESS", "true") => {}
            _ => eprintln!("Warning: --env {pair}: Lateen does not read it"),
        }
    }
    Ok(())
}

/// The Secrets of a manifest as a server keeps them: in a namespace, text encoded.
fn secrets_of(file: &str, text: &str) -> Vec<Value> {
    let documents = lateen_api::parse_yaml(file, text).into_iter().flatten();
    let secrets = documents.filter_map(|document| match document {
        Document::Other { value, .. } if value["kind"] == "Secret" => Some(value),
        _ => None,
    });
    let complete = |mut secret: Value| {
        if secret["metadata"]["namespace"].as_str().is_none_or(str::is_empty) {
            secret["metadata"]["namespace"] = "default".into();
        }
        let plain = secret["stringData"].as_object().cloned().unwrap_or_default();
        for (key, text) in plain {
            let text = text.as_str().unwrap_or_default();
            secret["data"][key] = base64::engine::general_purpose::STANDARD.encode(text).into();
        }
        secret
    };
    secrets.map(complete).collect()
}

/// Reads the proxy that a file describes.
pub(crate) fn proxy(path: &Path) -> Result<Proxy, CliError> {
    let wrong = |error: &dyn std::fmt::Display| CliError(format!("{}: {error}", path.display()));
    let text = std::fs::read_to_string(path).map_err(|error| wrong(&error))?;
    let json: Value = serde_json::from_str(&text).map_err(|error| wrong(&error))?;
    Proxy::from_json(&json).map_err(|error| wrong(&error))
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
