//! `lateen x ca`: certificate authorities made, and the mesh's exchanged for another.

mod files;
mod gate;
mod look;
mod rotate;
mod store;

use super::Outcome;
use crate::globals::Globals;

/// The group of commands about certificate authorities.
#[derive(clap::Args)]
pub(crate) struct Cmd {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Make a root: root-key.pem and root-cert.pem
    Root(files::Root),
    /// Make the intermediate of a cluster, signed by the root: the four files of the secret cacerts
    Intermediate(files::Intermediate),
    /// Exchange the mesh's root for another, step by step, and only as far as every proxy follows
    Rotate(rotate::Rotate),
    /// Show the mesh's authority, and which proxies trust and show what
    Status(rotate::Status),
}

impl Cmd {
    pub(crate) fn run(self, globals: &Globals) -> Outcome {
        match self.command {
            Command::Root(cmd) => cmd.run(),
            Command::Intermediate(cmd) => cmd.run(),
            Command::Rotate(cmd) => cmd.run(globals),
            Command::Status(cmd) => cmd.run(globals),
        }
    }
}
