//! `lateen proxy`: the data plane.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use lateen_proxy::Config;

use super::{CliError, Outcome};
use crate::globals::Globals;

/// Run the data-plane proxy
#[derive(clap::Args)]
pub(crate) struct Cmd {
    /// Take listeners, clusters, routes, endpoints and secrets from this file instead of a control plane
    #[arg(long, value_name = "FILE")]
    xds_file: Option<PathBuf>,
    /// Worker threads
    #[arg(long, default_value_t = 2)]
    concurrency: usize,
    /// How long connections may go on after SIGTERM, in seconds
    #[arg(long, default_value_t = 5, value_name = "SECONDS")]
    drain_time: u64,
}

impl Cmd {
    pub(crate) fn run(self, _globals: &Globals) -> Outcome {
        let Some(xds_file) = self.xds_file else {
            return Err(CliError::new("proxy: give --xds-file FILE, or a role: sidecar, router"));
        };
        let config = Config {
            xds_file: Some(xds_file),
            concurrency: self.concurrency,
            drain_time: Duration::from_secs(self.drain_time),
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
}
