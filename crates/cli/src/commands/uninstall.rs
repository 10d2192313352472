//! `lateen uninstall`: the mesh out of a cluster.

use std::process::ExitCode;

use lateen_kube::install::{Removal, key};

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
