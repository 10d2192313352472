//! `lateen proxy sidecar|router`: the agent, and the data plane beside it, with pilot-agent's flags.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use lateen_agent::{Agent, Arguments, Role, Settings};
use lateen_base::SystemClock;

use super::{CliError, Outcome};

/// Which role the proxy has.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub(crate) enum RoleName {
    /// Beside an application
    Sidecar,
    /// Alone, as a gateway
    Router,
}

/// Flags of a proxy that takes its configuration from the control plane.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct RoleArgs {
    /// DNS domain of the node
    #[arg(long)]
    domain: Option<String>,
    /// Level of the proxy's logs
    #[arg(long = "proxyLogLevel", value_name = "LEVEL")]
    proxy_log_level: Option<String>,
    /// Levels of the proxy's logs by component
    #[arg(long = "proxyComponentLogLevel", value_name = "LEVELS")]
    proxy_component_log_level: Option<String>,
    /// Levels of the agent's logs, as scope:level,...
    #[arg(long = "log_output_level", value_name = "LEVELS")]
    log_output_level: Option<String>,
    /// Logs as JSON
    #[arg(long = "log_as_json")]
    log_as_json: bool,
    /// What runs as the data plane: lateen or envoy
    #[arg(long, env = "LATEEN_DATA_PLANE", default_value = "lateen", value_name = "NAME", hide = true)]
    data_plane: String,
    /// Root of the pod's files
    #[arg(long, env = "LATEEN_POD_ROOT", default_value = "/", hide = true)]
    pod_root: PathBuf,
}

impl RoleArgs {
    /// Runs agent and data plane until the process is asked to end.
    pub(crate) fn run(self, role: RoleName, concurrency: Option<u32>) -> Outcome {
        let logs =
            lateen_runtime::logs::Config { levels: self.log_output_level.clone(), json: self.log_as_json };
        lateen_runtime::logs::init(&logs).map_err(CliError::new)?;
        // Sockets have short, relative paths: a Unix socket's may not be longer than 107 bytes.
        std::env::set_current_dir(&self.pod_root)
            .map_err(|e| CliError::new(format!("{}: {e}", self.pod_root.display())))?;
        let settings = self.settings(role, concurrency)?;
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(CliError::new)?;
        runtime.block_on(async {
            let agent = Agent::start(settings, Arc::new(SystemClock)).await.map_err(CliError::new)?;
            match self.data_plane.as_str() {
                "lateen" => with_own_proxy(&agent).await,
                "envoy" => beside_envoy(&agent).await,
                other => Err(CliError::new(format!("LATEEN_DATA_PLANE={other}: write lateen or envoy"))),
            }
        })
    }

    fn settings(&self, role: RoleName, concurrency: Option<u32>) -> Result<Settings, CliError> {
        let role = match role {
            RoleName::Sidecar => Role::Sidecar,
            RoleName::Router => Role::Router,
        };
        let arguments = Arguments {
            domain: self.domain.clone(),
            concurrency,
            log_level: self.proxy_log_level.clone(),
            component_log_level: self.proxy_component_log_level.clone(),
        };
        let env: BTreeMap<String, String> = std::env::vars().collect();
        Settings::read(role, &arguments, ".".into(), &env).map_err(CliError::new)
    }
}

/// Our proxy, in this process: it takes the same bootstrap and the same sockets as stock Envoy would.
async fn with_own_proxy(agent: &Agent) -> Outcome {
    let settings = agent.settings();
    let build = |bootstrap| {
        let config = lateen_proxy::Config {
            bootstrap,
            concurrency: super::proxy::workers(Some(settings.concurrency)),
            drain_time: settings.config.termination_drain_duration,
            ..lateen_proxy::Config::default()
        };
        config.build()
    };
    let proxy = match build(agent.typed_bootstrap()) {
        Err(error) if agent.is_patched() => {
            tracing::error!("the bootstrap's patches are not applied: {error}");
            build(agent.unpatched_bootstrap(&error.to_string()))
        }
        built => built,
    };
    let proxy = proxy.map_err(CliError::new)?;
    tokio::select! {
        signal = lateen_runtime::signals::terminated() => {
            tracing::info!("{}: draining", signal.map_err(CliError::new)?);
        }
        () = proxy.quit() => tracing::info!("asked to quit by admin: draining"),
        () = agent.quit() => tracing::info!("asked to quit: draining"),
    }
    proxy.drain().await;
    Ok(ExitCode::SUCCESS)
}

async fn beside_envoy(agent: &Agent) -> Outcome {
    let mut envoy = agent.envoy().map_err(CliError::new)?;
    tokio::select! {
        ended = envoy.ended() => return Err(CliError::new(ended)),
        signal = lateen_runtime::signals::terminated() => {
            tracing::info!("{}: draining", signal.map_err(CliError::new)?);
        }
        () = agent.quit() => tracing::info!("asked to quit: draining"),
    }
    envoy.drain().await;
    Ok(ExitCode::SUCCESS)
}
