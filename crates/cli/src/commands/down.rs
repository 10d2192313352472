//! `lateen down`: the end of a local cluster.

use std::process::ExitCode;
use std::time::Duration;

use lateen_local::background;
use lateen_local::state::StateFolder;

use super::up::Name;
use super::{CliError, Outcome};
use crate::globals::Globals;

/// How long the cluster's process may take to end its pods.
const PATIENCE: Duration = Duration::from_secs(30);

/// Arguments of `lateen down`.
#[derive(clap::Args)]
pub(crate) struct Cmd {
    #[command(flatten)]
    name: Name,
    /// End all local clusters of this user
    #[arg(long, conflicts_with = "name")]
    all: bool,
    /// Remove the cluster's state, too: its objects, keys and logs
    #[arg(long)]
    purge: bool,
}

impl Cmd {
    pub(crate) fn run(self, _globals: &Globals) -> Outcome {
        let states = if self.all {
            let names = StateFolder::names().map_err(CliError::new)?;
            names.iter().map(|name| StateFolder::locate(name)).collect::<Result<_, _>>()
        } else {
            StateFolder::locate(&self.name.name).map(|state| vec![state])
        };
        for state in states.map_err(CliError::new)? {
            end(&state, self.purge)?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Ends one cluster.
pub(crate) fn end(state: &StateFolder, purge: bool) -> Result<(), CliError> {
    let name = state.name();
    let stopped = background::stop(state, PATIENCE).map_err(CliError::new)?;
    if stopped.ran {
        eprintln!("Cluster {name} has ended");
    } else {
        eprintln!("Cluster {name} is not running");
    }
    if stopped.reaped > 0 {
        eprintln!("Ended {} processes that an earlier run had left", stopped.reaped);
    }
    if purge {
        state.purge().map_err(CliError::new)?;
        eprintln!("Its state is removed");
    } else if state.exists() {
        eprintln!("Its state stays in {} (--purge removes it)", state.path().display());
    }
    Ok(())
}
