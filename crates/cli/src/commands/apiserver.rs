//! `lateen apiserver` (hidden): the embedded Kubernetes API alone, without controllers and nodes.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use super::{CliError, Outcome};
use crate::globals::Globals;

/// Arguments of `lateen apiserver`.
#[derive(clap::Args)]
pub(crate) struct Cmd {
    /// Folder of the state; made when missing
    #[arg(long, value_name = "FOLDER")]
    data_dir: PathBuf,
    /// Address to listen on; port 0 takes a free one
    #[arg(long, default_value = "127.0.0.1:6443", value_name = "ADDRESS")]
    bind: SocketAddr,
}

impl Cmd {
    pub(crate) fn run(self, _globals: &Globals) -> Outcome {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        runtime.map_err(CliError::new)?.block_on(self.serve())
    }

    async fn serve(self) -> Outcome {
        let config = lateen_apiserver::Config::new(self.data_dir, self.bind);
        let server = config.build().await.map_err(CliError::new)?;
        println!("serving on https://{}", server.address());
        println!("export KUBECONFIG={}", server.kubeconfig_path().display());
        let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())
            .map_err(CliError::new)?;
        tokio::select! {
            _ = terminate.recv() => {}
            done = tokio::signal::ctrl_c() => done.map_err(CliError::new)?,
        }
        server.shutdown().await;
        Ok(ExitCode::SUCCESS)
    }
}
