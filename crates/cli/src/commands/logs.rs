//! `lateen logs`: what containers have printed, with kubectl's flags.

use std::io::Write as _;
use std::pin::Pin;
use std::process::ExitCode;

use futures::{AsyncBufRead, AsyncBufReadExt as _};
use lateen_kube::LogOptions;
use serde_json::Value;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::{CliError, Outcome};
use crate::cluster::{Cluster, block_on};
use crate::containers;
use crate::globals::Globals;

/// With a selector, this many last lines of each log when nothing else is asked for.
const TAIL_OF_MANY: i64 = 10;
/// Not more logs than this are followed at once, when nothing else is asked for.
const FOLLOWED: usize = 5;

/// Arguments of `lateen logs`.
#[derive(clap::Args)]
pub(crate) struct Cmd {
    /// The pod, or TYPE/NAME of what it belongs to (deployment/NAME)
    #[arg(required_unless_present = "selector", conflicts_with = "selector")]
    target: Option<String>,
    /// The container; the pod's default or first one when not given
    #[arg(long = "container", short, value_name = "CONTAINER")]
    container: Option<String>,
    /// The same, as a second word
    #[arg(hide = true)]
    positional_container: Option<String>,
    /// All containers of the pod
    #[arg(long, conflicts_with_all = ["container", "positional_container"])]
    all_containers: bool,
    /// The pods with these labels (key=value,...)
    #[arg(long, short = 'l', value_name = "LABELS")]
    selector: Option<String>,
    /// Stay for what is written later
    #[arg(long, short)]
    follow: bool,
    /// The container's run before the current one
    #[arg(long, short)]
    previous: bool,
    /// Only the last lines; -1 shows all of them
    #[arg(long, value_name = "LINES", allow_negative_numbers = true)]
    tail: Option<i64>,
    /// Only what is not older than this, such as 5s, 2m or 3h
    #[arg(long, value_name = "DURATION")]
    since: Option<String>,
    /// Only what is not older than this moment (RFC 3339)
    #[arg(long, value_name = "TIME", conflicts_with = "since")]
    since_time: Option<String>,
    /// Each line with its time
    #[arg(long)]
    timestamps: bool,
    /// Each line with its pod and container
    #[arg(long)]
    prefix: bool,
    /// Not more than these bytes of each log
    #[arg(long, value_name = "BYTES")]
    limit_bytes: Option<i64>,
    /// Not more logs than this are followed at once
    #[arg(long, value_name = "COUNT", default_value_t = FOLLOWED)]
    max_log_requests: usize,
}

/// One log.
struct Log {
    namespace: String,
    pod: String,
    container: String,
}

type Lines = Pin<Box<dyn AsyncBufRead + Send>>;

impl Cmd {
    pub(crate) fn run(self, globals: &Globals) -> Outcome {
        let options = self.options()?;
        block_on(async {
            let cluster = Cluster::connect(globals).await?;
            let mut opened: Vec<(Lines, String)> = Vec::new();
            let logs = self.logs(&cluster).await?;
            if self.follow && logs.len() > self.max_log_requests {
                return Err(CliError(format!(
                    "you are attempting to follow {} log streams, but maximum allowed concurrency is {}, \
                     use --max-log-requests to increase the limit",
                    logs.len(),
                    self.max_log_requests
                )));
            }
            for log in logs {
                let options = LogOptions { container: Some(log.container.clone()), ..options.clone() };
                let lines = cluster.client.logs(&log.namespace, &log.pod, &options).await?;
                let prefix = match self.prefix {
                    true => format!("[pod/{}/{}] ", log.pod, log.container),
                    false => String::new(),
                };
                opened.push((Box::pin(lines), prefix));
            }
            if self.follow { together(opened).await } else { one_by_one(opened).await }
        })
    }

    fn options(&self) -> Result<LogOptions, CliError> {
        let since = self.since.as_deref().map(lateen_base::parse_duration).transpose();
        let since = since.map_err(|error| CliError(format!("--since: {error}")))?;
        let many = self.selector.is_some();
        let tail = self.tail.or(many.then_some(TAIL_OF_MANY)).filter(|lines| *lines >= 0);
        if self.tail.is_some_and(|lines| lines < -1) {
            return Err(CliError::new("--tail must be greater than or equal to -1"));
        }
        Ok(LogOptions {
            container: None,
            follow: self.follow,
            tail,
            since_seconds: since
                .map(|since| i64::try_from(since.as_secs_f64().ceil() as u64).unwrap_or(i64::MAX)),
            since_time: self.since_time.clone(),
            timestamps: self.timestamps,
            limit_bytes: self.limit_bytes,
            previous: self.previous,
        })
    }

    async fn logs(&self, cluster: &Cluster) -> Result<Vec<Log>, CliError> {
        let pods = match (&self.selector, &self.target) {
            (Some(labels), _) => {
                let kind = cluster.kind("pods")?;
                cluster.client.list(kind, Some(&cluster.namespace), Some(labels)).await?
            }
            (None, Some(target)) => vec![containers::pod(cluster, target).await?],
            (None, None) => return Err(CliError::new("which pod? name one, or give labels with -l")),
        };
        if pods.is_empty() {
            eprintln!("No resources found in {} namespace.", cluster.namespace);
        }
        let asked = self.container.as_deref().or(self.positional_container.as_deref());
        let mut logs = Vec::new();
        for pod in &pods {
            let names: Vec<String> = match self.all_containers {
                true => containers::all(pod).into_iter().map(str::to_owned).collect(),
                false => vec![containers::choose(pod, asked, false)?],
            };
            logs.extend(names.into_iter().map(|container| log(pod, container)));
        }
        Ok(logs)
    }
}

fn log(pod: &Value, container: String) -> Log {
    Log { namespace: containers::namespace(pod).to_owned(), pod: containers::name(pod).to_owned(), container }
}

/// Writes a line; false when nobody reads any more (`| head`), which is the end, and no error.
fn show(prefix: &str, line: &[u8]) -> bool {
    let mut out = std::io::stdout().lock();
    out.write_all(prefix.as_bytes()).and_then(|()| out.write_all(line)).and_then(|()| out.flush()).is_ok()
}

async fn one_by_one(opened: Vec<(Lines, String)>) -> Outcome {
    let mut line = Vec::new();
    for (mut lines, prefix) in opened {
        loop {
            line.clear();
            if lines.read_until(b'\n', &mut line).await.map_err(CliError::new)? == 0 {
                break;
            }
            if !show(&prefix, &line) {
                return Ok(ExitCode::SUCCESS);
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Every log's lines as they come.
async fn together(opened: Vec<(Lines, String)>) -> Outcome {
    let (sender, mut arriving) = mpsc::channel::<(String, Vec<u8>)>(64);
    let mut readers: JoinSet<std::io::Result<()>> = JoinSet::new();
    for (mut lines, prefix) in opened {
        let sender = sender.clone();
        readers.spawn(async move {
            let mut line = Vec::new();
            while lines.read_until(b'\n', &mut line).await? > 0 {
                if sender.send((prefix.clone(), std::mem::take(&mut line))).await.is_err() {
                    break;
                }
            }
            Ok(())
        });
    }
    drop(sender);
    while let Some((prefix, line)) = arriving.recv().await {
        if !show(&prefix, &line) {
            return Ok(ExitCode::SUCCESS);
        }
    }
    while let Some(done) = readers.join_next().await {
        done.map_err(CliError::new)?.map_err(CliError::new)?;
    }
    Ok(ExitCode::SUCCESS)
}
