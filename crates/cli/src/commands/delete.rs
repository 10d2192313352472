//! `lateen delete`: delete objects, by manifest or by name.

use std::path::PathBuf;
use std::process::ExitCode;

use lateen_kube::ResourceKind;

use super::apply::{address, label};
use super::{CliError, Outcome};
use crate::cluster::{Cluster, block_on};
use crate::globals::Globals;
use crate::manifest;

/// Arguments of `lateen delete`.
#[derive(clap::Args)]
pub(crate) struct Cmd {
    /// Manifests: files, folders, or - for standard input
    #[arg(long = "filename", short, value_name = "PATH")]
    files: Vec<PathBuf>,
    /// Whether a missing object is no failure
    #[arg(long, num_args = 0..=1, default_missing_value = "true", default_value = "false", require_equals = true)]
    ignore_not_found: bool,
    /// A kind, and names of objects
    #[arg(value_name = "KIND NAME...")]
    names: Vec<String>,
}

impl Cmd {
    pub(crate) fn run(self, globals: &Globals) -> Outcome {
        let documents = manifest::read(&self.files)?;
        if documents.is_empty() && self.names.len() < 2 {
            return Err(CliError("say what: -f FILE, or KIND NAME".into()));
        }
        block_on(async {
            let cluster = Cluster::connect(globals).await?;
            let mut failed = false;
            let mut tell = |outcome: Result<Option<String>, CliError>| match outcome {
                Ok(line) => line.into_iter().for_each(|line| println!("{line}")),
                Err(error) => {
                    failed = true;
                    eprintln!("Error: {error}");
                }
            };
            for document in documents.iter().rev() {
                match address(&cluster, &document.object) {
                    Ok((kind, namespace, name)) => tell(self.one(&cluster, kind, namespace, name).await),
                    Err(error) => tell(Err(CliError(format!("{}: {error}", document.origin)))),
                }
            }
            if let [kind, names @ ..] = self.names.as_slice() {
                let kind = cluster.kind(kind)?;
                for name in names {
                    tell(self.one(&cluster, kind, &cluster.namespace, name).await);
                }
            }
            Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
        })
    }

    async fn one(
        &self,
        cluster: &Cluster,
        kind: &ResourceKind,
        namespace: &str,
        name: &str,
    ) -> Result<Option<String>, CliError> {
        match cluster.client.delete(kind, namespace, name).await {
            Ok(()) => {
                let label = label(kind, name);
                let (kind, name) = label.split_once('/').unwrap_or(("", &label));
                Ok(Some(format!("{kind} {name:?} deleted")))
            }
            Err(error) if error.is_not_found() && self.ignore_not_found => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}
