//! What the commands that install have in common: settings, questions, progress.

use std::io::{BufRead as _, IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::time::Duration;

use lateen_api::install::IstioOperator;
use lateen_base::parse_duration;
use lateen_kube::install::{InstallError, Installer, Step};
use lateen_manifests::{Installation, InstallationError, Part, Rendered, render};
use serde_json::Value;

use crate::cluster;
use crate::commands::CliError;
use crate::globals::Globals;
use crate::manifest;

impl From<InstallationError> for CliError {
    fn from(error: InstallationError) -> Self {
        Self::new(error)
    }
}

impl From<InstallError> for CliError {
    fn from(error: InstallError) -> Self {
        Self::new(error)
    }
}

/// What is to be installed, by flags.
#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct Settings {
    /// Files with IstioOperator objects, each over the one before; - is standard input
    #[arg(long = "filename", short, value_name = "FILE", value_delimiter = ',')]
    files: Vec<PathBuf>,
    /// Sets a field, such as profile=demo or meshConfig.accessLogFile=/dev/stdout (can be given several times)
    #[arg(long = "set", short = 's', value_name = "PATH=VALUE")]
    sets: Vec<String>,
    /// Revision of the control plane
    #[arg(long, short = 'r')]
    revision: Option<String>,
    /// Not in use: the manifests are built in
    #[arg(long, short = 'd', visible_alias = "charts", value_name = "PATH", hide = true)]
    manifests: Option<String>,
    /// Go on where validation finds something
    #[arg(long, hide = true)]
    force: bool,
}

impl Settings {
    /// The installation.
    pub(crate) fn installation(&self) -> Result<Installation, CliError> {
        if self.manifests.is_some() {
            return Err(CliError(
                "--manifests: the manifests are built into this binary; leave it out".into(),
            ));
        }
        Ok(Installation::build(&self.operators()?, &self.all_sets())?)
    }

    /// The objects of the files.
    pub(crate) fn operators(&self) -> Result<Vec<Value>, CliError> {
        let mut operators = Vec::new();
        for document in manifest::read(&self.files)? {
            // Read alone first, so that the message names the file.
            IstioOperator::read(&document.object)
                .map_err(|errors| CliError(format!("{}: {errors}", document.origin)))?;
            operators.push(document.object);
        }
        Ok(operators)
    }

    /// The flags, `--revision` among them.
    pub(crate) fn all_sets(&self) -> Vec<String> {
        let revision = self.revision.iter().map(|revision| format!("revision={revision}"));
        self.sets.iter().cloned().chain(revision).collect()
    }

    /// Whether nothing was said.
    pub(crate) fn is_empty(&self) -> bool {
        self.files.is_empty() && self.sets.is_empty()
    }

    /// Whether standard input is taken for a file.
    pub(crate) fn takes_stdin(&self) -> bool {
        self.files.iter().any(|file| file.as_os_str() == "-")
    }

    /// The revision that was asked for.
    pub(crate) fn revision(&self) -> Option<&str> {
        self.revision.as_deref()
    }
}

/// How to go about it.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Manner {
    /// Do not ask
    #[arg(long = "skip-confirmation", short = 'y')]
    pub(crate) yes: bool,
    /// Say what would be done, and do nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// How long to wait until everything is ready
    #[arg(long, default_value = "5m", value_parser = parse_duration, value_name = "DURATION")]
    readiness_timeout: Duration,
}

impl Manner {
    /// Installs, and tells of it as it goes.
    pub(crate) async fn install(
        &self,
        installation: &Installation,
        globals: &Globals,
    ) -> Result<(), CliError> {
        if self.dry_run {
            for Rendered { part, objects } in render(installation)? {
                println!("{} would be installed: {} objects", part.title(), objects.len());
            }
            return Ok(());
        }
        let installer = installer(globals, Some(self.readiness_timeout)).await?;
        let progress = Progress::new();
        let done = installer.install(installation, &|step| progress.tell(&step)).await;
        progress.clear();
        done?;
        println!("✔ Installation complete");
        Ok(())
    }
}

/// An installer by the common flags, which says on standard error why it asks the server again.
pub(crate) async fn installer(globals: &Globals, patience: Option<Duration>) -> Result<Installer, CliError> {
    let client = cluster::frank_client(globals).await?;
    Ok(Installer::new(client, patience).asking(globals.answer_within, |why| eprintln!("Waiting: {why}")))
}

/// Lines on standard output; on a terminal with a line below them that says what is waited for.
pub(crate) struct Progress {
    bar: Option<indicatif::ProgressBar>,
}

impl Progress {
    /// With a moving line where there is a terminal.
    pub(crate) fn new() -> Self {
        let bar = std::io::stdout().is_terminal().then(|| {
            let bar = indicatif::ProgressBar::new_spinner();
            bar.enable_steady_tick(Duration::from_millis(100));
            bar
        });
        Self { bar }
    }

    /// Tells a step.
    pub(crate) fn tell(&self, step: &Step) {
        match step {
            Step::Installing(part) => {
                if let Some(bar) = &self.bar {
                    bar.set_message(format!("Processing resources for {}.", part.title()));
                }
            }
            Step::Waiting(object) => {
                if let Some(bar) = &self.bar {
                    bar.set_message(format!("Waiting until {object} is ready."));
                }
            }
            Step::Installed(part) => self.line(&installed(*part)),
            Step::Pruning => self.line("- Pruning removed resources"),
            Step::Removed(object) => self.line(&format!("  Removed {object}.")),
            Step::MadeDefault => {
                self.line("Making this installation the default for injection and validation.")
            }
        }
    }

    fn line(&self, line: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| println!("{line}")),
            None => println!("{line}"),
        }
    }

    /// Takes the moving line away.
    pub(crate) fn clear(&self) {
        self.bar.iter().for_each(indicatif::ProgressBar::finish_and_clear);
    }
}

fn installed(part: Part) -> String {
    format!("✔ {} installed {}", part.title(), part.sign())
}

/// Asks; yes where it was said beforehand. Standard input that is no terminal may have the answer.
pub(crate) fn confirmed(question: &str, yes: bool, stdin_taken: bool) -> Result<bool, CliError> {
    if yes {
        return Ok(true);
    }
    print!("{question} ");
    std::io::stdout().flush().map_err(CliError::new)?;
    let mut answer = String::new();
    let read = match stdin_taken {
        true => 0,
        false => std::io::stdin().lock().read_line(&mut answer).map_err(CliError::new)?,
    };
    if read == 0 {
        println!();
        return Err(CliError("nobody is there to answer: add -y (--skip-confirmation) to go on".into()));
    }
    Ok(matches!(answer.trim().to_lowercase().as_str(), "y" | "yes"))
}

/// The objects as a stream of YAML documents.
pub(crate) fn yaml<'a>(objects: impl IntoIterator<Item = &'a Value>) -> Result<String, CliError> {
    let mut text = String::new();
    for object in objects {
        text.push_str(&serde_saphyr::to_string(object).map_err(CliError::new)?);
        text.push_str("---\n");
    }
    Ok(text)
}
