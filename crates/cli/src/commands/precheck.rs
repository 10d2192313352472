//! `lateen x precheck`: whether a cluster can take the mesh.

use std::process::ExitCode;

use lateen_kube::{Client, ResourceKind};
use lateen_manifests::{Installation, render};
use serde_json::json;

use super::{CliError, Outcome};
use crate::cluster::{self, block_on};
use crate::globals::Globals;

/// The oldest minor version of Kubernetes 1 whose APIs an installation needs (autoscaling/v2 is of 1.23).
const OLDEST: u32 = 23;

/// Arguments of `lateen x precheck`.
#[derive(clap::Args)]
pub(crate) struct Cmd {
    /// Not in use
    #[arg(long, hide = true)]
    from_version: Option<String>,
}

impl Cmd {
    pub(crate) fn run(self, globals: &Globals) -> Outcome {
        let issues = block_on(async {
            let client = cluster::client(globals).await?;
            let mut issues = version(&client, globals).await?;
            issues.extend(permissions(&client, globals).await?);
            Ok(issues)
        })?;
        if issues.is_empty() {
            println!(
                "✔ No issues found when checking the cluster. Istio is safe to install or upgrade!\n  \
                 To get started, check out https://istio.io/latest/docs/setup/getting-started/"
            );
            return Ok(ExitCode::SUCCESS);
        }
        issues.iter().for_each(|issue| println!("{issue}"));
        Err(CliError(
            "Issues found when checking the cluster. Istio may not be safe to install or upgrade.".into(),
        ))
    }
}

async fn version(client: &Client, globals: &Globals) -> Result<Vec<String>, CliError> {
    let version =
        cluster::answer(globals, "reading /version", client.raw_get("/version", "application/json")).await?;
    let digits = |field: &str| -> String {
        let text = version[field].as_str().unwrap_or_default();
        text.chars().take_while(char::is_ascii_digit).collect()
    };
    let (major, minor) = (digits("major"), digits("minor"));
    let old = major == "1" && minor.parse::<u32>().is_ok_and(|minor| minor < OLDEST);
    Ok(old
        .then(|| {
            format!(
                "Error [IST0142] The Kubernetes Version \"v{major}.{minor}\" is lower than the minimum version: v1.{OLDEST}"
            )
        })
        .into_iter()
        .collect())
}

/// What of an installation the user may not create.
async fn permissions(client: &Client, globals: &Globals) -> Result<Vec<String>, CliError> {
    let review = ResourceKind::new(
        "authorization.k8s.io",
        "v1",
        "SelfSubjectAccessReview",
        "selfsubjectaccessreviews",
        false,
    );
    let mut kinds: Vec<ResourceKind> = render(&Installation::of("default")?)?
        .iter()
        .flat_map(|part| &part.objects)
        .filter_map(|object| lateen_kube::install::kind_of(object["kind"].as_str()?))
        .collect();
    kinds.sort();
    kinds.dedup();
    let mut issues = Vec::new();
    for kind in kinds {
        let asked = json!({
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "metadata": {},
            "spec": { "resourceAttributes": {
                "namespace": if kind.namespaced { globals.istio_namespace.as_str() } else { "" },
                "verb": "create", "group": kind.group, "version": kind.version, "resource": kind.plural,
            }},
        });
        let answer = client.create(&review, "", asked);
        let answer = cluster::answer(globals, "asking what you may do", answer).await?;
        if answer["status"]["allowed"] != true {
            issues.push(format!(
                "Error [IST0141] Missing required permission to create resource {}",
                kind.plural
            ));
        }
    }
    Ok(issues)
}
