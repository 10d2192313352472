//! `x`: experimental commands, one module each beside this one.

use super::{Outcome, authz, ca, dump_xds, precheck, uninstall};
use crate::globals::Globals;

/// The group of experimental commands.
#[derive(clap::Args)]
pub(crate) struct Cmd {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Ask about authorization policies
    Authz(authz::Cmd),
    /// Make certificate authorities, and exchange the mesh's for another
    Ca(ca::Cmd),
    /// Print the Envoy resources that a proxy would get from manifests
    DumpXds(dump_xds::Cmd),
    /// Say whether a cluster can take the mesh
    Precheck(precheck::Cmd),
    /// Take the mesh out of a cluster; the same as `uninstall`
    #[command(hide = true)]
    Uninstall(uninstall::Cmd),
}

impl Cmd {
    /// Whether it prints an answer and ends.
    pub(crate) fn only_prints(&self) -> bool {
        !matches!(self.command, Command::Uninstall(_) | Command::Ca(_))
    }

    /// Runs the command.
    pub(crate) fn run(self, globals: &Globals) -> Outcome {
        match self.command {
            Command::Authz(cmd) => cmd.run(globals),
            Command::Ca(cmd) => cmd.run(globals),
            Command::DumpXds(cmd) => cmd.run(globals),
            Command::Precheck(cmd) => cmd.run(globals),
            Command::Uninstall(cmd) => cmd.run(globals),
        }
    }
}
