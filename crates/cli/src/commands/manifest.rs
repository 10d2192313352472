//! `lateen manifest`: what an installation consists of.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use lateen_manifests::{chart, diff, render};

use super::{CliError, Outcome, install};
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
    /// Print the objects of an installation, for kubectl or to keep
    Generate(Generate),
    /// Say what differs between two manifests (exit status 1 when something does)
    Diff(Diff),
    /// Write a Helm chart of an installation into a folder
    Chart(Chart),
    /// Install; the same as `install`
    #[command(visible_alias = "install")]
    Apply(install::Cmd),
}

/// Arguments of `manifest generate`.
#[derive(clap::Args)]
struct Generate {
    #[command(flatten)]
    settings: Settings,
    /// Only these parts: Base, Pilot, IstiodRemote, IngressGateways, EgressGateways
    #[arg(long, value_delimiter = ',')]
    component: Vec<String>,
    /// A folder for a file of each part, in the place of standard output
    #[arg(long, short)]
    output: Option<PathBuf>,
}

/// Arguments of `manifest chart`.
#[derive(clap::Args)]
struct Chart {
    /// The folder
    folder: PathBuf,
    #[command(flatten)]
    settings: Settings,
}

/// Arguments of `manifest diff`.
#[derive(clap::Args)]
struct Diff {
    /// One manifest
    a: PathBuf,
    /// The other
    b: PathBuf,
}

impl Cmd {
    /// Whether it only prints.
    pub(crate) fn only_prints(&self) -> bool {
        !matches!(self.command, Command::Apply(_))
    }

    pub(crate) fn run(self, globals: &Globals) -> Outcome {
        match self.command {
            Command::Generate(generate) => generate.run(),
            Command::Diff(diff) => diff.run(),
            Command::Chart(chart) => chart.run(),
            Command::Apply(cmd) => cmd.run(globals),
        }
    }
}

impl Generate {
    fn run(self) -> Outcome {
        let mut parts = render(&self.settings.installation()?)?;
        if !self.component.is_empty() {
            let named = |label: &str| self.component.iter().any(|name| name.eq_ignore_ascii_case(label));
            parts.retain(|part| named(part.part.label()));
        }
        let Some(folder) = self.output else {
            print!("{}", yaml(parts.iter().flat_map(|part| &part.objects))?);
            return Ok(ExitCode::SUCCESS);
        };
        let failed = |path: &Path, error: std::io::Error| CliError(format!("{}: {error}", path.display()));
        std::fs::create_dir_all(&folder).map_err(|error| failed(&folder, error))?;
        for part in &parts {
            let file = folder.join(format!("{}.yaml", part.part.label()));
            std::fs::write(&file, yaml(&part.objects)?).map_err(|error| failed(&file, error))?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

impl Chart {
    fn run(self) -> Outcome {
        for file in chart(&self.settings.operators()?, &self.settings.all_sets())? {
            let path = self.folder.join(&file.path);
            let failed = |error: std::io::Error| CliError(format!("{}: {error}", path.display()));
            path.parent().map_or(Ok(()), std::fs::create_dir_all).map_err(failed)?;
            std::fs::write(&path, file.text).map_err(failed)?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

impl Diff {
    fn run(self) -> Outcome {
        let read = |path: &Path| {
            std::fs::read_to_string(path).map_err(|error| CliError(format!("{}: {error}", path.display())))
        };
        let (a, b) = (read(&self.a)?, read(&self.b)?);
        let (name_a, name_b) = (self.a.display().to_string(), self.b.display().to_string());
        let text = diff((&name_a, &a), (&name_b, &b)).map_err(CliError::new)?;
        if text.is_empty() {
            println!("Manifests are identical");
            return Ok(ExitCode::SUCCESS);
        }
        println!("Differences in manifests are:\n\n{}", text.trim_end());
        Ok(ExitCode::FAILURE)
    }
}
