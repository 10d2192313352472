//! `lateen proxy`: the data plane, beside its agent or from a file.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use lateen_proxy::Config;

use super::proxy_role::{RoleArgs, RoleName};
use super::{CliError, Outcome};
use crate::globals::Globals;

/// Run the data-plane proxy
#[derive(clap::Args)]
pub(crate) struct Cmd {
    /// Beside an application or alone; takes the configuration from the control plane
    role: Option<RoleName>,
    /// Take listeners, clusters, routes, endpoints and secrets from this file instead of a control plane
    #[arg(long, value_name = "FILE", conflicts_with = "role")]
    xds_file: Option<PathBuf>,
    /// Worker threads; 0 is one for each processor
    #[arg(long)]
    concurrency: Option<u32>,
    /// How long connections may go on after SIGTERM, in seconds
    #[arg(long, default_value_t = 5, value_name = "SECONDS")]
    drain_time: u64,
    #[command(flatten)]
    of_role: RoleArgs,
}

impl Cmd {
    pub(crate) fn run(self, _globals: &Globals) -> Outcome {
        match (self.role, self.xds_file) {
            (Some(role), _) => self.of_role.run(role, self.concurrency),
            (None, Some(file)) => from_file(file, self.concurrency, Duration::from_secs(self.drain_time)),
            (None, None) => Err(CliError::new("proxy: give --xds-file FILE, or a role: sidecar, router")),
        }
    }
}

/// The number of workers that a flag means; two when it says nothing.
pub(crate) fn workers(concurrency: Option<u32>) -> usize {
    match concurrency {
        Some(0) => std::thread::available_parallelism().map_or(2, usize::from),
        Some(count) => usize::try_from(count).unwrap_or(2),
        None => 2,
    }
}

fn from_file(xds_file: PathBuf, concurrency: Option<u32>, drain_time: Duration) -> Outcome {
    let config = Config {
        xds_file: Some(xds_file),
        concurrency: workers(concurrency),
        drain_time,
        ..Config::default()
    };
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(CliError::new)?;
    lateen_runtime::logs::init(&lateen_runtime::logs::Config::default()).map_err(CliError::new)?;
    runtime.block_on(async {
        let proxy = config.build().map_err(CliError::new)?;
        tracing::info!("the proxy is ready");
        lateen_runtime::signals::terminated().await.map_err(CliError::new)?;
        tracing::info!("draining");
        proxy.drain().await;
        Ok(ExitCode::SUCCESS)
    })
}
