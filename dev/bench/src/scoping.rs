//! `bench scoping`: what a sidecar is given and holds in a mesh of many services, all of it and scoped automatically.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use lateen_translate::Resources;
use serde_json::{Value, json};

use crate::BenchError;
use crate::process::{Process, free_port};
use crate::proxies::identity;
use crate::resources::{self, CLIENT, Protocol, World};

/// Settings of a run.
#[derive(clap::Args)]
pub(crate) struct Bench {
    /// Services of the mesh
    #[arg(long, default_value_t = 1_000)]
    services: usize,
    /// The Envoy binary
    #[arg(long, env = "ENVOY", default_value = "envoy")]
    envoy: PathBuf,
}

impl Bench {
    /// Runs it. Memory is that of idle proxies of one worker that have loaded nothing.
    pub(crate) fn run(self) -> Result<(), BenchError> {
        let folder = tempfile::tempdir()?;
        println!("{:<10} {:>9} {:>12} {:>9} {:>9}", "SCOPING", "CLUSTERS", "BYTES", "OURS MB", "ENVOY MB");
        for scoped in [false, true] {
            let port = free_port()?;
            let (log, identity) = (folder.path().join("idle.log"), identity()?);
            let log = log.to_string_lossy();
            let world = World { protocol: Protocol::Http1, origin: port, log: &log, identity: &identity };
            let generated = world.scoped(port, self.services, scoped)?;
            let mut resources = world.frozen(&generated)?;
            // Nothing serves discovery here, and the filter asks for it.
            strip(&mut resources);
            let (ours, envoy) =
                (self.ours(&resources, port, folder.path())?, self.stock(&resources, port, folder.path())?);
            println!(
                "{:<10} {:>9} {:>12} {ours:>9.1} {envoy:>9.1}",
                if scoped { "automatic" } else { "off" },
                generated.clusters.len(),
                bytes(&generated),
            );
        }
        Ok(())
    }

    fn ours(&self, resources: &Value, port: u16, folder: &Path) -> Result<f64, BenchError> {
        let file = folder.join("ours.pb");
        std::fs::write(
            &file,
            lateen_proxy::Resources::from_json(resources).map_err(BenchError::Text)?.encode(),
        )?;
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("serve").arg(&file).args(["--concurrency", "1"]);
        resident(Process::start("our proxy", &mut command, &folder.join("ours.out"))?, port)
    }

    fn stock(&self, resources: &Value, port: u16, folder: &Path) -> Result<f64, BenchError> {
        let file = folder.join("envoy.json");
        std::fs::write(&file, resources::bootstrap(resources, free_port()?).to_string())?;
        let mut command = Command::new(&self.envoy);
        command.args(["--disable-hot-restart", "--log-level", "warn", "--concurrency", "1", "-c"]).arg(&file);
        resident(Process::start("envoy", &mut command, &folder.join("envoy.out"))?, port)
    }
}

fn resident(mut process: Process, port: u16) -> Result<f64, BenchError> {
    process.wait_for((CLIENT, port).into())?;
    std::thread::sleep(Duration::from_secs(2));
    process.resident_mb()
}

/// How much goes over the wire when the proxy starts.
fn bytes(resources: &Resources) -> usize {
    let lists = [&resources.clusters, &resources.endpoints, &resources.listeners, &resources.routes];
    lists.into_iter().flatten().map(|resource| resource.any.value.len()).sum()
}

/// Takes the filter of on-demand discovery out.
fn strip(value: &mut Value) {
    match value {
        Value::Array(items) => {
            items.retain(|item| item.get("name") != Some(&json!("envoy.filters.http.on_demand")));
            items.iter_mut().for_each(strip);
        }
        Value::Object(members) => members.values_mut().for_each(strip),
        _ => {}
    }
}
