//! `lateen install`, also `manifest apply`: the mesh into a cluster.

use std::io::IsTerminal as _;
use std::process::ExitCode;

use super::Outcome;
use crate::cluster::block_on;
use crate::globals::Globals;
use crate::install::{Manner, Settings, confirmed};

/// A lateen sail, drawn for those who watch.
const SAIL: &str = r"
             /|
            / |
           /  |
          /   |
         /    |
        /_____|
   _____|_____|____
    \_           _/
  ~~~~~~~~~~~~~~~~~~~
";

/// Arguments of `lateen install`.
#[derive(clap::Args)]
pub(crate) struct Cmd {
    #[command(flatten)]
    settings: Settings,
    #[command(flatten)]
    manner: Manner,
    /// Not in use: what was installed is always verified
    #[arg(long, hide = true)]
    verify: bool,
}

impl Cmd {
    pub(crate) fn run(self, globals: &Globals) -> Outcome {
        let installation = self.settings.installation()?;
        if std::io::stdout().is_terminal() && !self.manner.yes {
            println!("{SAIL}");
        }
        let question = format!(
            "This will install the Istio {} profile {:?} into the cluster. Proceed? (y/N)",
            installation.tag(),
            installation.profile()
        );
        let yes = self.manner.yes || self.manner.dry_run;
        if !confirmed(&question, yes, self.settings.takes_stdin())? {
            println!("Cancelled.");
            return Ok(ExitCode::FAILURE);
        }
        block_on(self.manner.install(&installation, globals))?;
        Ok(ExitCode::SUCCESS)
    }
}
