//! `lateen profile`: the starting points of installations.

use std::process::ExitCode;

use lateen_api::install::SetPath;
use lateen_manifests::{Installation, diff, profile, profiles};
use serde_json::Value;

use super::{CliError, Outcome};
use crate::globals::Globals;
use crate::install::{Settings, yaml};

/// The group.
#[derive(clap::Args)]
pub(crate) struct Cmd {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Name them
    List,
    /// Print one, complete
    Dump(Dump),
    /// Say what differs between two (exit status 1 when something does)
    Diff {
        /// One profile
        a: String,
        /// The other
        b: String,
    },
}

/// Arguments of `profile dump`.
#[derive(clap::Args)]
struct Dump {
    /// The profile
    profile: Option<String>,
    #[command(flatten)]
    settings: Settings,
    /// Only what is below this path
    #[arg(long, short = 'p', value_name = "PATH")]
    config_path: Option<String>,
    /// Output format: yaml or json
    #[arg(long, short, default_value = "yaml")]
    output: String,
}

impl Cmd {
    pub(crate) fn run(self, _globals: &Globals) -> Outcome {
        match self.command {
            Command::List => {
                println!("Istio configuration profiles:");
                profiles().for_each(|name| println!("    {name}"));
                Ok(ExitCode::SUCCESS)
            }
            Command::Dump(dump) => dump.run(),
            Command::Diff { a, b } => {
                let text = |name: &str| yaml([&profile(name).map_err(CliError::new)?]);
                let (first, second) = (text(&a)?, text(&b)?);
                match diff((&a, &first), (&b, &second)).map_err(CliError::new)? {
                    same if same.is_empty() => {
                        println!("Profiles are identical");
                        Ok(ExitCode::SUCCESS)
                    }
                    text => {
                        println!("The difference between profiles:\n{}", text.trim_end());
                        Ok(ExitCode::FAILURE)
                    }
                }
            }
        }
    }
}

impl Dump {
    fn run(self) -> Outcome {
        let object = match (&self.profile, self.settings.is_empty()) {
            (Some(_), false) => {
                return Err(CliError("a profile's name, or -f and --set: not both".into()));
            }
            (Some(name), true) => Installation::of(name)?.object().clone(),
            (None, _) => self.settings.installation()?.object().clone(),
        };
        let shown = match &self.config_path {
            None => object,
            Some(path) => below(&object["spec"], path)?,
        };
        match self.output.as_str() {
            "yaml" => print!("{}", serde_saphyr::to_string(&shown).map_err(CliError::new)?),
            "json" => println!("{shown:#}"),
            other => return Err(CliError(format!("unknown output format {other:?}: yaml or json"))),
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn below(spec: &Value, path: &str) -> Result<Value, CliError> {
    let missing = || CliError(format!("{path}: the profile has nothing there"));
    SetPath::parse(path).map_err(CliError::new)?.get(spec).cloned().ok_or_else(missing)
}
