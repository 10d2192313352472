//! `explain`: where a call goes and why, decided by the code that decides in the proxy.

use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use lateen_proto::{Message, Name};
use lateen_route::explain::{Answer, Call, World as Judge};
use lateen_translate::{Proxy, Resource, Resources, generate};

use super::{CliError, Outcome};
use crate::globals::Globals;
use crate::world::{self, World, WorldArgs};

/// Tell which listener, route, cluster and endpoint a call meets, or why it fails.
#[derive(clap::Args)]
pub(crate) struct Cmd {
    /// The proxy that the call passes: {type, id, ipAddresses, configNamespace, labels, metadata} as JSON
    #[arg(long, value_name = "FILE")]
    proxy: PathBuf,
    /// The call: {port, address, path, hostHeader, headers, protocol, callMode, tls, sni, alpn} as JSON
    #[arg(long, value_name = "FILE")]
    call: PathBuf,
    /// A header of the call beside those of the file, such as 'authorization: Bearer TOKEN'; may be repeated
    #[arg(long, value_name = "NAME: VALUE", value_parser = header)]
    header: Vec<(String, String)>,
    #[command(flatten)]
    world: WorldArgs,
    /// Output format: json; words without
    #[arg(long, short, value_parser = ["json"])]
    output: Option<String>,
}

impl Cmd {
    /// Prints the answer. The exit code is 0 also for a call that fails: that is an answer.
    pub(crate) fn run(self, _globals: &Globals) -> Outcome {
        let proxy = world::proxy(&self.proxy)?;
        let mut call = call(&self.call)?;
        for (name, value) in self.header {
            call.headers.entry(name).or_default().push(value);
        }
        let world = World::read(&self.world)?;
        let resources = generate(&world.snapshot, &proxy);
        for patch in &resources.patches {
            eprintln!("Note: {patch}");
        }
        let judge = judge(&resources)?;
        for refused in &judge.refused {
            eprintln!("Warning: the proxy would reject {refused}");
        }
        let mut answer = judge.explain(&call, address(&proxy), proxy.is_router());
        if let Some(cluster) =
            answer.cluster_matched.as_ref().filter(|name| resources.on_demand.contains(*name))
        {
            let step = format!("cluster {cluster} is loaded on demand: the first request waits for it");
            answer.why.push(step);
        }
        match self.output {
            Some(_) => println!("{}", serde_json::to_string_pretty(&answer).map_err(CliError::new)?),
            None => print!("{}", words(&answer)),
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// The call in a file; it takes place now, unless the file says when.
fn call(path: &Path) -> Result<Call, CliError> {
    let wrong = |error: &dyn std::fmt::Display| CliError(format!("{}: {error}", path.display()));
    let text = std::fs::read_to_string(path).map_err(|error| wrong(&error))?;
    let mut call: Call = serde_json::from_str(&text).map_err(|error| wrong(&error))?;
    if call.now == 0 {
        call.now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    }
    Ok(call)
}

/// `NAME: VALUE`
fn header(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once(':').ok_or("expected NAME: VALUE")?;
    let name = name.trim().parse::<http::HeaderName>().map_err(|error| error.to_string())?;
    http::HeaderValue::from_str(value.trim()).map_err(|error| error.to_string())?;
    Ok((name.to_string(), value.trim().to_owned()))
}

fn address(proxy: &Proxy) -> IpAddr {
    let unknown = IpAddr::V4(Ipv4Addr::LOCALHOST);
    proxy.addresses.first().copied().unwrap_or(unknown)
}

fn judge(resources: &Resources) -> Result<Judge, CliError> {
    Ok(Judge::compile(
        &messages(&resources.listeners)?,
        &messages(&resources.routes)?,
        &messages(&resources.clusters)?,
        &messages(&resources.endpoints)?,
    ))
}

fn messages<M: Message + Name + Default>(resources: &[Arc<Resource>]) -> Result<Vec<M>, CliError> {
    resources.iter().map(|resource| resource.any.unpack().map_err(CliError::new)).collect()
}

/// The answer as a person reads it.
fn words(answer: &Answer) -> String {
    let mut out = String::new();
    let mut line = |name: &str, value: Option<&str>| {
        if let Some(value) = value.filter(|value| !value.is_empty()) {
            out.push_str(&format!("{name:<14}{value}\n"));
        }
    };
    line("Listener", answer.listener_matched.as_deref());
    line("Filter chain", answer.filter_chain_matched.as_deref());
    line("Route config", answer.route_config_matched.as_deref());
    line("Virtual host", answer.virtual_host_matched.as_deref());
    line("Route", answer.route_matched.as_deref());
    line("Cluster", answer.cluster_matched.as_deref());
    let response = answer.response.as_ref().map(|response| match &response.location {
        Some(location) => format!("{} to {location}", response.status),
        None => response.status.to_string(),
    });
    line("Response", response.as_deref());
    let tls = answer.tls.as_ref().map(|tls| match tls.upstream {
        Some(upstream) => format!("{} from the caller, {upstream} to the endpoint", tls.downstream),
        None => format!("{} from the caller", tls.downstream),
    });
    line("TLS", tls.as_deref());
    line("Error", answer.error.map(|error| error.to_string()).as_deref());
    out.push_str("Why:\n");
    for step in &answer.why {
        out.push_str(&format!("  - {step}\n"));
    }
    out
}
