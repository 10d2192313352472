//! `lateen kube-inject`: manifests with proxies in their pods.

use std::path::PathBuf;
use std::process::ExitCode;

use lateen_api::yaml_value;
use lateen_inject::{Settings, inject_object, review};
use lateen_kube::{Client, KubeError, ResourceKind};
use lateen_manifests::Installation;
use serde_json::{Value, json};

use super::{CliError, Outcome};
use crate::cluster::{self, block_on};
use crate::globals::Globals;
use crate::install::yaml;
use crate::manifest;

/// Arguments of `lateen kube-inject`.
#[derive(clap::Args)]
pub(crate) struct Cmd {
    /// Manifests: files, folders, or - for standard input
    #[arg(long = "filename", short, value_name = "PATH")]
    files: Vec<PathBuf>,
    /// A file for the result, in the place of standard output
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Settings of an installation, in the place of the cluster's (can be given several times)
    #[arg(long = "set", short = 's', value_name = "PATH=VALUE")]
    sets: Vec<String>,
    /// An IstioOperator file, in the place of the cluster's installation
    #[arg(long = "iop", visible_alias = "operatorFileName", value_name = "FILE")]
    operator: Option<PathBuf>,
    /// A file with the mesh configuration, in the place of the cluster's
    #[arg(long = "meshConfigFile", value_name = "FILE")]
    mesh_config: Option<PathBuf>,
    /// A file with the injector's configuration, in the place of the cluster's
    #[arg(long = "injectConfigFile", value_name = "FILE")]
    inject_config: Option<PathBuf>,
    /// A file with the injector's values, in the place of the cluster's
    #[arg(long = "valuesFile", value_name = "FILE")]
    values: Option<PathBuf>,
    /// Revision of the control plane
    #[arg(long, short)]
    revision: Option<String>,
    /// Not in use: names of the cluster's ConfigMaps follow from the revision
    #[arg(long = "injectConfigMapName", hide = true)]
    inject_map: Option<String>,
    /// Not in use
    #[arg(long = "meshConfigMapName", hide = true)]
    mesh_map: Option<String>,
    /// The input is an AdmissionReview, to be answered as the webhook answers it
    #[arg(long)]
    webhook: bool,
}

/// What the injector reads.
struct Sources {
    values: Value,
    config: Value,
    mesh: Value,
}

impl Cmd {
    pub(crate) fn run(self, globals: &Globals) -> Outcome {
        if self.files.is_empty() {
            return Err(CliError::new("which files? give them with -f, or - for standard input"));
        }
        let settings = self.settings(globals)?;
        let objects = manifest::read_whole(&self.files)?;
        let text = match self.webhook {
            true => {
                let answers: Vec<String> =
                    objects.iter().map(|asked| format!("{:#}\n", review(&asked.object, &settings))).collect();
                answers.concat()
            }
            false => {
                let namespace = globals.namespace.as_deref().unwrap_or("default");
                let mut injected = Vec::new();
                for document in objects {
                    check(&document)?;
                    let made = inject_object(&document.object, namespace, &settings);
                    injected.push(made.map_err(|error| {
                        CliError(format!("{}: {}: {error}", document.origin, reference(&document.object)))
                    })?);
                }
                yaml(&injected)?
            }
        };
        match self.output {
            None => print!("{text}"),
            Some(file) => std::fs::write(&file, text)
                .map_err(|error| CliError(format!("{}: {error}", file.display())))?,
        }
        Ok(ExitCode::SUCCESS)
    }

    fn settings(&self, globals: &Globals) -> Result<Settings, CliError> {
        let mut sources = self.sources(globals)?;
        for (file, place) in [
            (&self.mesh_config, &mut sources.mesh),
            (&self.inject_config, &mut sources.config),
            (&self.values, &mut sources.values),
        ] {
            if let Some(file) = file {
                let failed = |error: &dyn std::fmt::Display| CliError(format!("{}: {error}", file.display()));
                let text = std::fs::read_to_string(file).map_err(|error| failed(&error))?;
                *place = yaml_value(&text).map_err(|error| failed(&error))?;
            }
        }
        // As the control plane's own environment would say it.
        if let Ok(native) = std::env::var("ENABLE_NATIVE_SIDECARS") {
            sources.values["pilot"]["env"]["ENABLE_NATIVE_SIDECARS"] = json!(native);
        }
        Settings::build(&sources.values, &sources.config, &sources.mesh).map_err(CliError::new)
    }

    /// What the flags describe; else what the cluster has; without a cluster the default profile.
    fn sources(&self, globals: &Globals) -> Result<Sources, CliError> {
        let described = !self.sets.is_empty()
            || self.operator.is_some()
            || (self.mesh_config.is_some() && (self.values.is_some() || self.inject_config.is_none()));
        let configured = globals.kubeconfig.is_some()
            || globals.context.is_some()
            || std::env::var_os("KUBECONFIG").is_some_and(|files| !files.is_empty())
            || std::env::var_os("HOME").is_some_and(|home| PathBuf::from(home).join(".kube/config").exists());
        if described || !configured {
            return self.installation();
        }
        block_on(async {
            let client = cluster::client(globals).await?;
            self.installed(&client, &globals.istio_namespace).await
        })
    }

    fn installation(&self) -> Result<Sources, CliError> {
        let files: Vec<PathBuf> = self.operator.iter().cloned().collect();
        let operators: Vec<Value> =
            manifest::read(&files)?.into_iter().map(|document| document.object).collect();
        let revision = self.revision.iter().map(|revision| format!("revision={revision}"));
        let sets: Vec<String> = self.sets.iter().cloned().chain(revision).collect();
        let installation = Installation::build(&operators, &sets)?;
        Ok(Sources {
            values: installation.injector_values(),
            config: installation.injector_config(),
            mesh: Value::Object(installation.mesh_config()),
        })
    }

    async fn installed(&self, client: &Client, namespace: &str) -> Result<Sources, CliError> {
        let suffix = match self.revision.as_deref() {
            None | Some("" | "default") => String::new(),
            Some(revision) => format!("-{revision}"),
        };
        let kind = ResourceKind::core("ConfigMap", "configmaps");
        let map = async |name: &str| {
            let name = format!("{name}{suffix}");
            match client.get(&kind, namespace, &name).await {
                Err(KubeError::Status { code: 404, .. }) => Err(CliError(format!(
                    "the cluster has no ConfigMap {namespace}/{name}: is the mesh installed? \
                     `--set profile=default` injects without asking a cluster"
                ))),
                found => Ok(found?),
            }
        };
        let (injector, mesh) = (map("istio-sidecar-injector").await?, map("istio").await?);
        let read = |map: &Value, key: &str| {
            let text = map["data"][key].as_str().unwrap_or_default();
            yaml_value(text)
                .map_err(|error| CliError(format!("ConfigMap {}: {key}: {error}", map["metadata"]["name"])))
        };
        Ok(Sources {
            values: read(&injector, "values")?,
            config: read(&injector, "config")?,
            mesh: read(&mesh, "mesh")?,
        })
    }
}

/// An object of a manifest says what it is.
fn check(document: &manifest::Document) -> Result<(), CliError> {
    let missing = ["apiVersion", "kind"].into_iter().find(|field| !document.object[*field].is_string());
    match missing {
        None => Ok(()),
        Some(field) => {
            Err(CliError(format!("{}: no Kubernetes object: {field} is missing", document.origin)))
        }
    }
}

fn reference(object: &Value) -> String {
    lateen_api::reference_of(object).map(|object| object.to_string()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_object_is_named() {
        let document = |object: Value| manifest::Document { origin: "a.yaml (document 2)".into(), object };
        assert!(check(&document(json!({"apiVersion": "v1", "kind": "Pod"}))).is_ok());
        let error = check(&document(json!({"x": 1}))).unwrap_err().to_string();
        assert_eq!(error, "a.yaml (document 2): no Kubernetes object: apiVersion is missing");
    }
}
