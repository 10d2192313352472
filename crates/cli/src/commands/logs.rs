//! `lateen logs`: what a container has printed.

use std::io::Write as _;
use std::process::ExitCode;

use futures::AsyncBufReadExt as _;
use lateen_kube::LogOptions;

use super::{CliError, Outcome};
use crate::cluster::{Cluster, block_on};
use crate::globals::Globals;

/// Arguments of `lateen logs`.
#[derive(clap::Args)]
pub(crate) struct Cmd {
    /// The pod, or TYPE/NAME of what it belongs to (deployment/NAME)
    target: String,
    /// The container; the pod's only or default one when not given
    #[arg(long = "container", short, value_name = "CONTAINER")]
    container: Option<String>,
    /// The same, as a second word
    #[arg(hide = true)]
    positional_container: Option<String>,
    /// Stay for what is written later
    #[arg(long, short)]
    follow: bool,
    /// The container's run before the current one
    #[arg(long, short)]
    previous: bool,
    /// Only the last lines
    #[arg(long, value_name = "LINES")]
    tail: Option<i64>,
}

impl Cmd {
    pub(crate) fn run(self, globals: &Globals) -> Outcome {
        block_on(async {
            let cluster = Cluster::connect(globals).await?;
            let pod = pod_name(&cluster, &self.target).await?;
            let options = LogOptions {
                container: self.container.or(self.positional_container),
                follow: self.follow,
                tail: self.tail,
                previous: self.previous,
            };
            let mut log = cluster.client.logs(&cluster.namespace, &pod, &options).await?;
            let (mut out, mut line) = (std::io::stdout().lock(), Vec::new());
            loop {
                line.clear();
                if log.read_until(b'\n', &mut line).await.map_err(CliError::new)? == 0 {
                    return Ok(ExitCode::SUCCESS);
                }
                // A reader that has gone (`| head`) is the end, and no error.
                if out.write_all(&line).and_then(|()| out.flush()).is_err() {
                    return Ok(ExitCode::SUCCESS);
                }
            }
        })
    }
}

/// The pod itself, or the first one of a deployment.
async fn pod_name(cluster: &Cluster, target: &str) -> Result<String, CliError> {
    let Some((kind, name)) = target.split_once('/') else { return Ok(target.to_owned()) };
    let pods = cluster.kind("pods")?;
    let kind = cluster.kind(kind)?;
    if kind.kind == pods.kind {
        return Ok(name.to_owned());
    }
    let owner = cluster.client.get(kind, &cluster.namespace, name).await?;
    let labels = owner["spec"]["selector"]["matchLabels"].as_object();
    let selector: Vec<String> = labels
        .into_iter()
        .flatten()
        .map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default()))
        .collect();
    if selector.is_empty() {
        return Err(CliError(format!("{target} selects no pods by label; name a pod")));
    }
    let found = cluster.client.list(pods, Some(&cluster.namespace), Some(&selector.join(","))).await?;
    let first = found.first().and_then(|pod| pod["metadata"]["name"].as_str());
    first.map(str::to_owned).ok_or_else(|| CliError(format!("{target} has no pod")))
}
