//! `lateen apply`: create or change objects from manifests.

use std::path::PathBuf;
use std::process::ExitCode;

use lateen_kube::{KubeError, Patch, ResourceKind};
use serde_json::{Map, Value, json};

use super::{CliError, Outcome};
use crate::cluster::{Cluster, block_on};
use crate::globals::Globals;
use crate::manifest::{self, Document};

/// Where kubectl keeps what was last applied; we keep it there, too, so that the two can take turns.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// Arguments of `lateen apply`.
#[derive(clap::Args)]
pub(crate) struct Cmd {
    /// Manifests: files, folders, or - for standard input
    #[arg(long = "filename", short, required = true, value_name = "PATH")]
    files: Vec<PathBuf>,
}

impl Cmd {
    pub(crate) fn run(self, globals: &Globals) -> Outcome {
        let documents = manifest::read(&self.files)?;
        block_on(async {
            let cluster = Cluster::connect(globals).await?;
            let mut failed = false;
            for document in documents {
                match apply(&cluster, &document).await {
                    Ok(line) => println!("{line}"),
                    Err(error) => {
                        failed = true;
                        eprintln!("Error: {}: {error}", document.origin);
                    }
                }
            }
            Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
        })
    }
}

/// The kind, namespace and name of a manifest's object.
pub(crate) fn address<'a>(
    cluster: &'a Cluster,
    object: &'a Value,
) -> Result<(&'a ResourceKind, &'a str, &'a str), CliError> {
    let text =
        |value: &'a Value, field: &str| value.as_str().ok_or_else(|| CliError(format!("{field} is missing")));
    let api_version = text(&object["apiVersion"], "apiVersion")?;
    let kind_name = text(&object["kind"], "kind")?;
    let kind = cluster.discovery.by_type(api_version, kind_name).ok_or_else(|| {
        CliError(format!(
            "no kind {kind_name:?} of {api_version:?} on this server; is its definition installed?"
        ))
    })?;
    let namespace = object["metadata"]["namespace"].as_str().unwrap_or(&cluster.namespace);
    Ok((kind, namespace, text(&object["metadata"]["name"], "metadata.name")?))
}

/// `kind.group/name`, as kubectl names an object.
pub(crate) fn label(kind: &ResourceKind, name: &str) -> String {
    let lower = kind.kind.to_lowercase();
    if kind.group.is_empty() { format!("{lower}/{name}") } else { format!("{lower}.{}/{name}", kind.group) }
}

/// Creates the object, or changes it to what the manifest says.
pub(crate) async fn apply(cluster: &Cluster, document: &Document) -> Result<String, CliError> {
    let (kind, namespace, name) = address(cluster, &document.object)?;
    // A server prunes what it does not know, quietly unless asked; a misspelt field is said before.
    if lateen_api::KINDS.iter().any(|info| info.group == kind.group && info.name == kind.kind) {
        lateen_api::parse_json(&document.object).map_err(CliError::new)?;
    }
    let mut object = document.object.clone();
    if kind.namespaced {
        object["metadata"]["namespace"] = json!(namespace);
    }
    let stripped = object.to_string();
    object["metadata"]["annotations"][LAST_APPLIED] = json!(stripped + "\n");
    let label = label(kind, name);
    let current = match cluster.client.get(kind, namespace, name).await {
        Ok(current) => current,
        Err(KubeError::Status { code: 404, .. }) => {
            cluster.client.create(kind, namespace, object).await?;
            return Ok(format!("{label} created"));
        }
        Err(error) => return Err(error.into()),
    };
    let last: Value = current["metadata"]["annotations"][LAST_APPLIED]
        .as_str()
        .and_then(|text| serde_json::from_str(text).ok())
        .unwrap_or(Value::Null);
    let patch = three_way(&last, &document.object, object);
    let changed = cluster.client.patch(kind, namespace, name, &Patch::Merge(patch)).await?;
    let same = changed["metadata"]["resourceVersion"] == current["metadata"]["resourceVersion"];
    Ok(format!("{label} {}", if same { "unchanged" } else { "configured" }))
}

/// A merge patch that sets what the manifest says, and removes what the last one said and this one does not.
fn three_way(last: &Value, wanted: &Value, mut patch: Value) -> Value {
    remove_gone(last, wanted, &mut patch);
    patch
}

fn remove_gone(last: &Value, wanted: &Value, patch: &mut Value) {
    let (Value::Object(last), Value::Object(patch)) = (last, patch) else { return };
    let none = Map::new();
    let wanted = wanted.as_object().unwrap_or(&none);
    for (key, value) in last {
        match wanted.get(key) {
            None => {
                patch.entry(key.clone()).or_insert(Value::Null);
            }
            Some(still) => remove_gone(value, still, patch.entry(key.clone()).or_insert(Value::Null)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_manifest_no_longer_says_is_removed() {
        let last = json!({ "spec": { "timeout": "1s", "retries": { "attempts": 2, "on": "5xx" } } });
        let wanted = json!({ "spec": { "retries": { "attempts": 3 } } });
        assert_eq!(
            three_way(&last, &wanted, wanted.clone()),
            json!({ "spec": { "timeout": null, "retries": { "attempts": 3, "on": null } } })
        );
        assert_eq!(three_way(&Value::Null, &wanted, wanted.clone()), wanted);
    }
}
