//! `lateen proxy-config`: what a proxy was given, from the proxy itself or from a dump of it.

mod log;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use clap::CommandFactory;
use serde_json::Value;

use super::{CliError, Outcome};
use crate::cluster::{block_on, client};
use crate::globals::Globals;
use crate::pods::ProxyAdmin;
use crate::proxy_config::dump::Dump;
use crate::proxy_config::{bootstrap, clusters, endpoints, extensions, listeners, routes, secrets};
use crate::table;

/// Arguments of `lateen proxy-config`.
#[derive(clap::Args)]
pub(crate) struct Cmd {
    #[command(subcommand)]
    part: Option<Part>,
}

#[derive(clap::Subcommand)]
enum Part {
    /// Everything that the proxy was given
    #[command(visible_alias = "a")]
    All(Source),
    /// The bootstrap, and the versions that run there
    #[command(visible_alias = "b")]
    Bootstrap(Source),
    /// Clusters
    #[command(visible_aliases = ["clusters", "c"])]
    Cluster(ClusterArgs),
    /// Extension configurations that come by discovery
    #[command(visible_alias = "ec")]
    Ecds(Source),
    /// Endpoints as configured
    Eds(EndpointArgs),
    /// Endpoints as the proxy finds them
    #[command(visible_aliases = ["endpoints", "ep"])]
    Endpoint(EndpointArgs),
    /// Listeners
    #[command(visible_aliases = ["listeners", "l"])]
    Listener(ListenerArgs),
    /// Levels of the proxy's log
    #[command(visible_alias = "o")]
    Log(log::Args),
    /// Routes
    #[command(visible_aliases = ["routes", "r"])]
    Route(RouteArgs),
    /// Secrets
    #[command(visible_aliases = ["secrets", "s"])]
    Secret(Source),
}

/// Which proxy, and how it is printed.
#[derive(clap::Args)]
pub(super) struct Source {
    /// The pod: [TYPE/]NAME[.NAMESPACE]
    #[arg(value_name = "POD", required_unless_present = "file")]
    pod: Option<String>,
    /// A config dump in the place of a pod
    #[arg(short, long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Output format: short, json or yaml
    #[arg(short, long, default_value = "short")]
    pub(super) output: String,
}

#[derive(clap::Args)]
struct ClusterArgs {
    #[command(flatten)]
    source: Source,
    /// Only clusters with this in their name
    #[arg(long, default_value = "")]
    fqdn: String,
    /// Only clusters of this port
    #[arg(long, default_value_t = 0)]
    port: u32,
    /// Only clusters of this subset
    #[arg(long, default_value = "")]
    subset: String,
    /// Only clusters of this direction: inbound or outbound
    #[arg(long, default_value = "", value_parser = direction)]
    direction: String,
}

#[derive(clap::Args)]
struct EndpointArgs {
    #[command(flatten)]
    source: Source,
    /// Only endpoints of this address
    #[arg(long, default_value = "")]
    address: String,
    /// Only endpoints of this port
    #[arg(long, default_value_t = 0)]
    port: u32,
    /// Only endpoints of this cluster
    #[arg(long, default_value = "")]
    cluster: String,
    /// Only endpoints of this status, such as healthy
    #[arg(long, default_value = "", value_parser = status)]
    status: String,
}

#[derive(clap::Args)]
struct ListenerArgs {
    #[command(flatten)]
    source: Source,
    /// Only listeners of this address
    #[arg(long, default_value = "")]
    address: String,
    /// Only listeners of this port
    #[arg(long, default_value_t = 0)]
    port: u32,
    /// Only listeners of this type: HTTP, TCP or HTTP+TCP
    #[arg(long = "type", default_value = "", value_parser = listener_type)]
    kind: String,
    /// A row per filter chain (true), or per listener
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set, num_args = 0..=1, default_missing_value = "true")]
    verbose: bool,
}

#[derive(clap::Args)]
struct RouteArgs {
    #[command(flatten)]
    source: Source,
    /// Only the route configuration of this name
    #[arg(long, default_value = "")]
    name: String,
}

fn direction(text: &str) -> Result<String, String> {
    one_of(text, &["inbound", "outbound"])
}

fn status(text: &str) -> Result<String, String> {
    one_of(text, &["healthy", "unhealthy", "draining", "timeout", "degraded", "unknown"])
}

fn listener_type(text: &str) -> Result<String, String> {
    one_of(text, &["HTTP", "TCP", "HTTP+TCP", "UNKNOWN"])
}

/// One of these words, in upper or lower case; nothing stands for all.
fn one_of(text: &str, known: &[&str]) -> Result<String, String> {
    match known.iter().find(|word| word.eq_ignore_ascii_case(text)) {
        Some(word) => Ok((*word).to_owned()),
        None if text.is_empty() => Ok(String::new()),
        None => Err(format!("write one of {}", known.join(", "))),
    }
}

/// What is printed: the table for people, the value for programs.
pub(super) struct Shown {
    pub(super) short: String,
    pub(super) value: Value,
}

impl Shown {
    fn rows(rows: &[Vec<String>], value: impl Into<Value>) -> Self {
        Self { short: table::columns(rows), value: value.into() }
    }

    /// Prints it in a format.
    pub(super) fn print(&self, output: &str) -> Result<(), CliError> {
        match output {
            "short" | "table" => {
                self.short.lines().for_each(|line| println!("{}", line.trim_end()));
            }
            "json" => println!("{}", pretty(&self.value)?),
            "yaml" => print!("{}", serde_saphyr::to_string(&self.value).map_err(CliError::new)?),
            other => {
                return Err(CliError(format!("output format {other:?} not supported: short, json or yaml")));
            }
        }
        Ok(())
    }
}

/// JSON as istioctl prints it: four spaces a level.
fn pretty(value: &Value) -> Result<String, CliError> {
    let mut bytes = Vec::new();
    let formatter = serde_json::ser::PrettyFormatter::with_indent(b"    ");
    let mut serializer = serde_json::Serializer::with_formatter(&mut bytes, formatter);
    serde::Serialize::serialize(value, &mut serializer).map_err(CliError::new)?;
    String::from_utf8(bytes).map_err(CliError::new)
}

impl Source {
    /// What the proxy was given.
    pub(super) fn dump(&self, globals: &Globals) -> Result<Dump, CliError> {
        Dump::parse(&self.text(globals, "/config_dump?include_eds")?)
    }

    /// The file's text, or what the pod's proxy answers.
    fn text(&self, globals: &Globals, path: &str) -> Result<String, CliError> {
        if let Some(file) = &self.file {
            return std::fs::read_to_string(file)
                .map_err(|error| CliError(format!("{}: {error}", file.display())));
        }
        let pod = self.pod.as_deref().unwrap_or_default();
        block_on(async {
            let proxy = ProxyAdmin::find(client(globals).await?, pod, globals).await?;
            Ok(proxy.json(path).await?.to_string())
        })
    }
}

impl Cmd {
    pub(crate) fn run(self, globals: &Globals) -> Outcome {
        let Some(part) = self.part else {
            let mut command = crate::Cli::command();
            if let Some(own) = command.find_subcommand_mut("proxy-config") {
                own.print_long_help().map_err(CliError::new)?;
            }
            return Ok(ExitCode::SUCCESS);
        };
        match part {
            Part::Log(args) => log::run(&args, globals)?,
            Part::All(source) => all(&source, globals)?,
            Part::Bootstrap(source) => {
                let section = bootstrap::select(&source.dump(globals)?)?;
                Shown { short: bootstrap::summary(&section), value: section }.print(&source.output)?;
            }
            Part::Cluster(args) => {
                let filter = clusters::Filter {
                    fqdn: args.fqdn,
                    port: args.port,
                    subset: args.subset,
                    direction: args.direction,
                };
                let dump = args.source.dump(globals)?;
                let found = clusters::select(&dump, &filter)?;
                let mut shown = Shown::rows(&clusters::table(&found), found);
                shown.short += &clusters::scoping(&dump).unwrap_or_default();
                shown.print(&args.source.output)?;
            }
            Part::Ecds(source) => {
                let section = extensions::select(&source.dump(globals)?);
                Shown::rows(&extensions::table(&section), section).print(&source.output)?;
            }
            Part::Eds(args) => {
                let found = endpoints::select(&args.source.dump(globals)?, &args.filter())?;
                Shown::rows(&endpoints::table(&found), found).print(&args.source.output)?;
            }
            Part::Endpoint(args) => args.show(globals)?,
            Part::Listener(args) => args.show(globals)?,
            Part::Route(args) => {
                let found = routes::select(&args.source.dump(globals)?, &args.name)?;
                Shown::rows(&routes::table(&found), found).print(&args.source.output)?;
            }
            Part::Secret(source) => {
                let section = secrets::select(&source.dump(globals)?)?;
                Shown::rows(&secrets::table(&section, now()), section).print(&source.output)?;
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

impl EndpointArgs {
    fn filter(&self) -> endpoints::Filter {
        endpoints::Filter {
            address: self.address.clone(),
            port: self.port,
            cluster: self.cluster.clone(),
            status: self.status.clone(),
        }
    }

    fn show(&self, globals: &Globals) -> Result<(), CliError> {
        let text = self.source.text(globals, "/clusters?format=json")?;
        let value: Value =
            serde_json::from_str(&text).map_err(|error| CliError(format!("no JSON: {error}")))?;
        let shown = if value.get("configs").is_some() {
            let found = endpoints::select(&Dump::parse(&text)?, &self.filter())?;
            Shown::rows(&endpoints::table(&found), found)
        } else {
            let found = endpoints::select_live(&value, &self.filter())?;
            Shown::rows(&endpoints::live_table(&found), found)
        };
        shown.print(&self.source.output)
    }
}

impl ListenerArgs {
    fn show(&self, globals: &Globals) -> Result<(), CliError> {
        let filter =
            listeners::Filter { address: self.address.clone(), port: self.port, kind: self.kind.clone() };
        let found = listeners::select(&self.source.dump(globals)?, &filter)?;
        let rows = if self.verbose { listeners::table(&found) } else { listeners::brief_table(&found) };
        Shown::rows(&rows, found).print(&self.source.output)
    }
}

/// Every part; those that the dump does not have are left out.
fn all(source: &Source, globals: &Globals) -> Result<(), CliError> {
    let text = source.text(globals, "/config_dump?include_eds")?;
    let dump = Dump::parse(&text)?;
    if source.output != "short" && source.output != "table" {
        let value: Value = serde_json::from_str(&text).map_err(CliError::new)?;
        return Shown { short: String::new(), value }.print(&source.output);
    }
    let parts = [
        clusters::select(&dump, &clusters::Filter::default()).map(|found| clusters::table(&found)),
        listeners::select(&dump, &listeners::Filter::default()).map(|found| listeners::table(&found)),
        routes::select(&dump, "").map(|found| routes::table(&found)),
        secrets::select(&dump).map(|section| secrets::table(&section, now())),
    ];
    for rows in parts.into_iter().flatten() {
        table::columns(&rows).lines().for_each(|line| println!("{}", line.trim_end()));
        println!();
    }
    Ok(())
}

/// Seconds since 1970.
fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}
