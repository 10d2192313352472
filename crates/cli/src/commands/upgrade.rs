//! `lateen upgrade`: another version in the place of the one that is installed.

use std::process::ExitCode;

use lateen_kube::{Client, KubeError, ResourceKind};
use lateen_manifests::{Part, render};
use serde_json::Value;

use super::{CliError, Outcome};
use crate::cluster::{self, block_on};
use crate::globals::Globals;
use crate::install::{Manner, Settings, confirmed};

/// Arguments of `lateen upgrade`.
#[derive(clap::Args)]
pub(crate) struct Cmd {
    #[command(flatten)]
    settings: Settings,
    #[command(flatten)]
    manner: Manner,
}

impl Cmd {
    pub(crate) fn run(self, globals: &Globals) -> Outcome {
        let installation = self.settings.installation()?;
        block_on(async {
            let versions = installed_versions(&cluster::client(globals).await?, globals).await?;
            if versions.is_empty() {
                return Err(CliError("no control plane is installed: `install` is what to use".into()));
            }
            let target = installation.tag();
            println!("WARNING: Istio control planes installed: {}.", versions.join(", "));
            if versions.iter().any(|version| is_newer(version, &target)) {
                println!(
                    "WARNING: A newer installed version of Istio has been detected. Running this command will overwrite it."
                );
            }
            let titles: Vec<String> = render(&installation)?.iter().map(|part| quoted(part.part)).collect();
            let question = format!(
                "This will install the Istio {target} {} profile with [{}] components into the cluster. Proceed? (y/N)",
                installation.profile(),
                titles.join(" ")
            );
            let yes = self.manner.yes || self.manner.dry_run;
            if !confirmed(&question, yes, self.settings.takes_stdin())? {
                println!("Cancelled.");
                return Ok(ExitCode::FAILURE);
            }
            self.manner.install(&installation, globals).await?;
            println!(
                "\nSidecars keep their version until their pods are made anew: kubectl rollout restart deployment -n NAMESPACE"
            );
            Ok(ExitCode::SUCCESS)
        })
    }
}

fn quoted(part: Part) -> String {
    format!("{:?}", part.title())
}

/// The versions of the control planes in the cluster, by their images' tags.
pub(crate) async fn installed_versions(client: &Client, globals: &Globals) -> Result<Vec<String>, CliError> {
    let kind = ResourceKind::new("apps", "v1", "Deployment", "deployments", true);
    let listed = async {
        match client.list(&kind, None, Some("app=istiod")).await {
            Err(KubeError::Status { code: 404, .. }) => Ok(vec![]),
            found => found,
        }
    };
    let found = cluster::answer(globals, "listing deployments", listed).await?;
    let mut versions: Vec<String> = found.iter().filter_map(version).collect();
    versions.sort();
    versions.dedup();
    Ok(versions)
}

fn version(deployment: &Value) -> Option<String> {
    let image = deployment.pointer("/spec/template/spec/containers/0/image")?.as_str()?;
    Some(image.rsplit_once(':')?.1.to_owned())
}

/// Whether `a` is a later version than `b`; tags that are no versions are not compared.
fn is_newer(a: &str, b: &str) -> bool {
    let numbers = |text: &str| -> Option<Vec<u64>> {
        text.split('-').next()?.split('.').map(|part| part.parse().ok()).collect()
    };
    matches!((numbers(a), numbers(b)), (Some(a), Some(b)) if a > b)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_by_number() {
        assert!(is_newer("1.26.0", "1.9.3"));
        assert!(is_newer("1.26.1-distroless", "1.26.0"));
        assert!(!is_newer("1.26.0", "1.26.0"));
        assert!(!is_newer("latest", "1.26.0"));
    }
}
