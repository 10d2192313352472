//! `x authz check`: which authorization policies a proxy has.

use super::Outcome;
use super::proxy_config::{Shown, Source};
use crate::globals::Globals;
use crate::proxy_config::authorization;
use crate::table;

/// What can be asked of policies.
#[derive(clap::Args)]
pub(crate) struct Cmd {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// List the authorization policies that a proxy enforces, by what it has rather than by what objects say
    #[command(visible_alias = "c")]
    Check(Source),
}

impl Cmd {
    /// Prints the list.
    pub(crate) fn run(self, globals: &Globals) -> Outcome {
        let Command::Check(source) = self.command;
        let found = authorization::select(&source.dump(globals)?)?;
        let short = table::narrow(&authorization::table(&found));
        Shown { short, value: authorization::value(&found) }.print(&source.output)?;
        Ok(std::process::ExitCode::SUCCESS)
    }
}
