//! `lateen app`: a built-in sample application, as a container of the local cluster runs it.

use std::process::ExitCode;

use super::{CliError, Outcome, fortio};
use crate::globals::Globals;

/// Arguments of `lateen app`.
#[derive(clap::Args)]
pub(crate) struct Cmd {
    /// Which application
    name: String,
    /// The version it plays, such as v2
    #[arg(long = "app-version", default_value = "v1")]
    version: String,
    /// The port to listen on, instead of the image's own
    #[arg(long)]
    port: Option<u16>,
    /// What the container's image would take as its command line
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<String>,
}

impl Cmd {
    pub(crate) fn run(self, globals: &Globals) -> Outcome {
        if self.name == "fortio" {
            // A container of this image may be a server or a client.
            return fortio::Cmd::of_container(&self.args).run(globals);
        }
        lateen_samples::run(&self.name, &self.version, self.port, &self.args).map_err(CliError::new)?;
        Ok(ExitCode::SUCCESS)
    }
}
