//! `lateen version`.

use std::process::ExitCode;

use serde_json::json;

use super::Outcome;
use crate::globals::Globals;

/// The version of Istio whose API this build speaks.
const ISTIO_API: &str = "1.26";

/// Arguments of `lateen version`.
#[derive(clap::Args)]
pub(crate) struct Cmd {
    /// Only the number
    #[arg(long, short)]
    short: bool,
    /// Only the client's version, without asking a control plane
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set)]
    remote: bool,
    /// Output format: json or yaml
    #[arg(long, short)]
    output: Option<String>,
}

impl Cmd {
    pub(crate) fn run(self, _globals: &Globals) -> Outcome {
        let version = env!("CARGO_PKG_VERSION");
        let value = json!({ "clientVersion": { "version": version, "istio_api": ISTIO_API } });
        match self.output.as_deref() {
            Some("json") => println!("{value:#}"),
            Some("yaml") => println!("clientVersion:\n  istio_api: \"{ISTIO_API}\"\n  version: {version}"),
            Some(other) => {
                return Err(super::CliError(format!("unknown output format {other:?}: json or yaml")));
            }
            None if self.short => println!("{version}"),
            None => println!("client version: {version} (Istio API {ISTIO_API})"),
        }
        Ok(ExitCode::SUCCESS)
    }
}
