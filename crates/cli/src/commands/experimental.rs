//! `x`: experimental commands, one module each beside this one.

use super::{Outcome, dump_xds};
use crate::globals::Globals;

/// The group of experimental commands.
#[derive(clap::Args)]
pub(crate) struct Cmd {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Print the Envoy resources that a proxy would get from manifests
    DumpXds(dump_xds::Cmd),
}

impl Cmd {
    /// Runs the command.
    pub(crate) fn run(self, globals: &Globals) -> Outcome {
        match self.command {
            Command::DumpXds(cmd) => cmd.run(globals),
        }
    }
}
