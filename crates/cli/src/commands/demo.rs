//! `lateen demo`: a local cluster with Bookinfo in it, shown and checked.

mod checks;
mod page;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use lateen_kube::{Access, Client, Discovery};
use lateen_local::Progress;
use lateen_local::background::Life;
use lateen_local::state::{RunRecord, StateFolder};
use lateen_manifests::samples;
use serde_json::{Value, json};

use self::checks::Check;
use super::up::{UpOptions, on_stderr};
use super::{CliError, Outcome, apply, down, env};
use crate::cluster::{Cluster, block_on};
use crate::globals::Globals;
use crate::manifest::Document;

/// How often something that is awaited is looked at.
const LOOK: Duration = Duration::from_millis(50);

/// Arguments of `lateen demo`.
#[derive(clap::Args)]
pub(crate) struct Cmd {
    #[command(flatten)]
    options: UpOptions,
    /// Return when Bookinfo is ready; the cluster runs on
    #[arg(long, short)]
    detach: bool,
    /// Check what was started, report, and end it
    #[arg(long, conflicts_with = "detach")]
    check: bool,
    /// Output format: text or json
    #[arg(long, short, default_value = "text")]
    output: String,
}

/// Where Bookinfo is.
struct Place {
    state: StateFolder,
    run: RunRecord,
    url: String,
}

impl Cmd {
    pub(crate) fn run(self, globals: &Globals) -> Outcome {
        if !matches!(self.output.as_str(), "text" | "json") {
            return Err(CliError(format!("unknown output format {:?}: text or json", self.output)));
        }
        let begun = Instant::now();
        // Interrupted at any point, a demo in the foreground leaves nothing running.
        let life = if self.detach { Life::Own } else { Life::OfStarter };
        // What the demo itself has made goes with it; what was there before it stays.
        let own = !self.options.name.state()?.exists();
        let (state, run, started) = self.options.ensure(life)?;
        let shown = block_on(self.show(globals, &state, run, begun));
        match shown {
            Ok(good) if self.detach || (!self.check && !started) => Ok(code(good)),
            Ok(good) if self.check => {
                if started {
                    down::end(&state, own)?;
                }
                Ok(code(good))
            }
            Ok(good) => {
                eprintln!("Ctrl-C ends the cluster");
                block_on(async { lateen_runtime::signals::terminated().await.map_err(CliError::new) })?;
                down::end(&state, own)?;
                Ok(code(good))
            }
            Err(error) => {
                if started && !self.detach {
                    down::end(&state, own)?;
                }
                Err(error)
            }
        }
    }

    /// Starts Bookinfo, waits for its first page, checks where asked to, and tells. True when all is well.
    async fn show(
        &self,
        globals: &Globals,
        state: &StateFolder,
        run: RunRecord,
        begun: Instant,
    ) -> Result<bool, CliError> {
        let progress = on_stderr();
        let gateway = env::variables(state, &run).into_iter().find(|(name, _)| *name == "GATEWAY_URL");
        let (_, gateway) = gateway.ok_or_else(|| CliError::new("the ingress gateway has no port http2"))?;
        let place = Place { state: state.clone(), run, url: format!("http://{gateway}/productpage") };
        let cluster = connect(globals, state).await?;
        let patience = Duration::from_secs(self.options.timeout);
        progress.say("Applying Bookinfo");
        for text in [samples::BOOKINFO, samples::BOOKINFO_GATEWAY, samples::BOOKINFO_DESTINATION_RULES] {
            apply_text(&cluster, text).await?;
        }
        let pods = bookinfo_pods(&cluster, patience, &progress).await?;
        let first = page::first(&place.url, patience).await?;
        let seconds = begun.elapsed().as_secs_f64();
        progress.say(format!("First page through the gateway after {seconds:.1} s ({first})"));
        let checks = match self.check {
            true => checks::run(&cluster, &place.url, patience, &progress).await,
            false => Vec::new(),
        };
        let good = checks.iter().all(|check| check.ok);
        match self.output.as_str() {
            "json" => println!("{:#}", report(&place, &pods, &checks, seconds)),
            _ => summary(&place, &pods, &checks, seconds),
        }
        Ok(good)
    }
}

fn code(good: bool) -> ExitCode {
    if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

async fn connect(globals: &Globals, state: &StateFolder) -> Result<Cluster, CliError> {
    // The demo's own cluster, whatever KUBECONFIG says.
    let access = Access::Kubeconfig { path: Some(state.kubeconfig()), context: None };
    let client = Client::connect(&access).await?;
    let discovery = Discovery::of(&client).await?;
    let namespace = globals.namespace.clone().unwrap_or_else(|| "default".to_owned());
    Ok(Cluster { client, discovery, namespace })
}

/// Applies every document of a manifest.
async fn apply_text(cluster: &Cluster, text: &str) -> Result<(), CliError> {
    let objects = serde_saphyr::from_multiple::<Value>(text).map_err(CliError::new)?;
    for object in objects.into_iter().filter(|object| !object.is_null()) {
        let document = Document { origin: "built-in sample".to_owned(), object };
        apply::apply(cluster, &document).await?;
    }
    Ok(())
}

/// Waits until every pod of Bookinfo is ready; returns name and readiness (`2/2`) of each.
async fn bookinfo_pods(
    cluster: &Cluster,
    patience: Duration,
    progress: &Progress,
) -> Result<Vec<(String, String)>, CliError> {
    let kind = cluster.kind("pods")?;
    let deployments = cluster.kind("deployments")?;
    let deadline = Instant::now() + patience;
    loop {
        let wanted = cluster.client.list(deployments, Some(&cluster.namespace), None).await?.len();
        let pods = cluster.client.list(kind, Some(&cluster.namespace), None).await?;
        let rows: Vec<(String, String, bool)> = pods.iter().map(row).collect();
        if rows.len() >= wanted && rows.iter().all(|(_, _, ready)| *ready) {
            progress.say(format!("{} pods are ready", rows.len()));
            return Ok(rows.into_iter().map(|(name, ready, _)| (name, ready)).collect());
        }
        if Instant::now() >= deadline {
            let waiting: Vec<String> = rows
                .into_iter()
                .filter(|(_, _, ready)| !ready)
                .map(|(name, ready, _)| format!("  {name} {ready}"))
                .collect();
            return Err(CliError(format!(
                "Bookinfo is not ready after {} s:\n{}\n`lateen get pods` and `lateen logs POD` say more",
                patience.as_secs(),
                waiting.join("\n")
            )));
        }
        tokio::time::sleep(LOOK).await;
    }
}

fn row(pod: &Value) -> (String, String, bool) {
    let statuses = pod["status"]["containerStatuses"].as_array();
    let ready = statuses.into_iter().flatten().filter(|status| status["ready"] == true).count();
    let all = pod["spec"]["containers"].as_array().map_or(0, Vec::len);
    let name = pod["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    (name, format!("{ready}/{all}"), ready == all)
}

fn report(place: &Place, pods: &[(String, String)], checks: &[Check], seconds: f64) -> Value {
    json!({
        "ok": checks.iter().all(|check| check.ok),
        "url": place.url,
        "seconds_to_first_page": (seconds * 1000.0).round() / 1000.0,
        "data_plane": place.run.data_plane,
        "kubeconfig": place.state.kubeconfig(),
        "pods": pods.iter().map(|(name, ready)| json!({"name": name, "ready": ready})).collect::<Vec<_>>(),
        "checks": checks.iter().map(Check::to_json).collect::<Vec<_>>(),
    })
}

fn summary(place: &Place, pods: &[(String, String)], checks: &[Check], seconds: f64) {
    let name = env::flag(place.state.name());
    println!(
        "\nBookinfo runs through the mesh ({seconds:.1} s to the first page, data plane: {}).\n",
        place.run.data_plane
    );
    println!("  Page           {}   (reload it: the stars change with the version of reviews)", place.url);
    println!("  Running        {} pods in namespace default, each with a sidecar:", pods.len());
    for (pod, ready) in pods {
        println!("                   {pod} {ready}");
    }
    for check in checks {
        println!("  {}  {}: {}", if check.ok { "ok    " } else { "FAILED" }, check.name, check.detail);
    }
    println!("\nNext, in another shell:");
    println!("  eval \"$(lateen env{name})\"");
    println!("  kubectl get pods,virtualservices,destinationrules,gateways");
    println!("  curl -s $GATEWAY_URL/productpage | grep -o '<title>.*</title>'");
    println!("  lateen proxy-status");
    println!("  lateen logs deployment/productpage-v1 --container istio-proxy");
    println!("  lateen down{name}\n");
}
