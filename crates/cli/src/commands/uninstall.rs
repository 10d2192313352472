//! `lateen uninstall`: the mesh out of a cluster.

use std::process::ExitCode;

use lateen_kube::install::{Removal, key};
use serde_json::Value;

use super::{CliError, Outcome};
use crate::cluster::block_on;
use crate::globals::Globals;
use crate::install::{Progress, Settings, confirmed, installer};

/// Arguments of `lateen uninstall`.
#[derive(clap::Args)]
pub(crate) struct Cmd {
    #[command(flatten)]
    settings: Settings,
    /// Everything of every revision, the definitions of the kinds and all their objects included
    #[arg(long)]
    purge: bool,
    /// Do not ask
    #[arg(long = "skip-confirmation", short = 'y')]
    yes: bool,
    /// Say what would be removed, and remove nothing
    #[arg(long)]
    dry_run: bool,
}

impl Cmd {
    pub(crate) fn run(self, globals: &Globals) -> Outcome {
        let removal = self.removal()?;
        block_on(async {
            let installer = installer(globals, None).await?;
            let objects = installer.removable(&removal).await?;
            if objects.is_empty() {
                println!("Nothing of this installation is in the cluster.");
                return Ok(ExitCode::SUCCESS);
            }
            if self.dry_run {
                objects.iter().for_each(|(_, object)| println!("Would remove {}.", key(object)));
                return Ok(ExitCode::SUCCESS);
            }
            let what = match &removal {
                Removal::Everything => "All Istio resources will be pruned from the cluster".to_owned(),
                _ => format!("{} objects will be removed from the cluster", objects.len()),
            };
            println!("{what}");
            if let Some((_, secret)) = objects.iter().find(|(_, object)| is_authority(object)) {
                eprintln!("Warning: {}", of_authority(secret));
            }
            if !confirmed("Proceed? (y/N)", self.yes, self.settings.takes_stdin())? {
                println!("Cancelled.");
                return Ok(ExitCode::FAILURE);
            }
            let progress = Progress::new();
            let done = installer.remove(objects, &|step| progress.tell(&step)).await;
            progress.clear();
            done?;
            println!("✔ Uninstall complete");
            Ok(ExitCode::SUCCESS)
        })
    }

    fn removal(&self) -> Result<Removal, CliError> {
        if self.purge {
            return match self.settings.is_empty() && self.settings.revision().is_none() {
                true => Ok(Removal::Everything),
                false => Err(CliError("--purge is everything: leave -f, --set and --revision out".into())),
            };
        }
        match self.settings.revision() {
            Some(revision) if self.settings.is_empty() => Ok(Removal::Revision(revision.to_owned())),
            None if self.settings.is_empty() => Err(CliError(
                "say what to uninstall: --revision REVISION, -f FILE, or --purge for everything".into(),
            )),
            _ => Ok(Removal::Installation(Box::new(self.settings.installation()?))),
        }
    }
}

/// Whether an object holds the key of an authority that a control plane made.
fn is_authority(object: &Value) -> bool {
    object["type"] == "istio.io/ca-root"
}

/// What its removal means.
fn of_authority(secret: &Value) -> String {
    let text = |field: &str| secret["metadata"][field].as_str().unwrap_or_default().to_owned();
    let (namespace, name) = (text("namespace"), text("name"));
    format!(
        "secret {namespace}/{name} goes, too: the key of the mesh's certificate authority, which is nowhere else. The next \
         installation makes another root, and pods whose proxies go on running until then need a restart. To keep it: \
         kubectl get secret {name} -n {namespace} -o yaml > {name}.yaml"
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_authoritys_key_is_named_before_it_goes() {
        let secret = |kind: &str| json!({ "kind": "Secret", "type": kind, "metadata": { "namespace": "mesh", "name": "istio-ca-secret" } });
        assert!(is_authority(&secret("istio.io/ca-root")) && !is_authority(&secret("Opaque")));
        let text = of_authority(&secret("istio.io/ca-root"));
        assert!(text.contains("mesh/istio-ca-secret") && text.contains("-n mesh"), "{text}");
    }
}
