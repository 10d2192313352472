//! The agent put together: sockets, tasks, the bootstrap file.

use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::service::TowerToHyperService;
use lateen_base::Clock;
use lateen_proto::envoy::config::bootstrap::v3::Bootstrap;
use lateen_xds::server::secret_service;
use serde_json::Value;
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio_stream::wrappers::UnixListenerStream;

use crate::bootstrap;
use crate::envoy::{Envoy, EnvoyError};
use crate::forwarder::Forwarder;
use crate::health::{self, Admin, Health};
use crate::identity;
use crate::secrets::Secrets;
use crate::settings::Settings;
use crate::typed_bootstrap;

/// Why the agent cannot start.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// A file or folder.
    #[error("{path}: {source}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A port.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// Which.
        address: String,
        /// Why.
        source: io::Error,
    },
    /// The discovery address.
    #[error("discoveryAddress: {0}")]
    Discovery(#[from] lateen_xds::transport::TransportError),
}

/// A running agent; dropping it ends its tasks.
pub struct Agent {
    settings: Arc<Settings>,
    bootstrap: Value,
    health: Arc<Health>,
    admin: Admin,
    quit: Arc<Notify>,
    _tasks: JoinSet<()>,
}

impl Agent {
    /// Binds the sockets, writes the bootstrap, and starts to ask for a certificate.
    ///
    /// # Errors
    /// When a socket or port cannot be bound, or a file not written.
    pub async fn start(settings: Settings, clock: Arc<dyn Clock>) -> Result<Self, AgentError> {
        let settings = Arc::new(settings);
        let mut tasks = JoinSet::new();
        tracing::info!("CA Endpoint {}, provider Citadel", settings.ca_address);
        let root = settings.root_certificate_file();
        tracing::info!("Using CA {} cert with certs: {}", settings.ca_address, root.display());
        let (publish, workload) = watch::channel(None);
        tasks.spawn(identity::maintain(settings.clone(), clock, publish));
        serve_secrets(&settings, workload, &mut tasks)?;
        serve_discovery(&settings, &mut tasks)?;

        let admin = Admin::new(settings.admin());
        let quit = Arc::new(Notify::new());
        let health = Health::new(&settings, admin.clone(), quit.clone());
        serve_health(&settings, &health, &mut tasks).await?;

        let bootstrap = bootstrap::render(&settings);
        let path = settings.bootstrap_file();
        let text = format!("{bootstrap:#}\n");
        std::fs::write(&path, text).map_err(|source| AgentError::File { path, source })?;
        Ok(Self { settings, bootstrap, health, admin, quit, _tasks: tasks })
    }

    /// What the agent was told.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The bootstrap, as it is in the file.
    pub fn bootstrap(&self) -> &Value {
        &self.bootstrap
    }

    /// The part of the bootstrap that the proxy in this process acts on.
    pub fn typed_bootstrap(&self) -> Bootstrap {
        typed_bootstrap::build(&self.settings)
    }

    /// Whether the proxy is ready; why not, otherwise.
    ///
    /// # Errors
    /// The reason, when it is not.
    pub async fn ready(&self) -> Result<(), String> {
        self.health.check().await
    }

    /// Waits until somebody asks the agent to quit by its port.
    pub async fn quit(&self) {
        self.quit.notified().await;
    }

    /// Starts stock Envoy on the bootstrap.
    ///
    /// # Errors
    /// When the binary cannot be started.
    pub fn envoy(&self) -> Result<Envoy, EnvoyError> {
        Envoy::start(self.settings.clone(), self.admin.clone(), &self.settings.bootstrap_file())
    }
}

fn serve_secrets(
    settings: &Arc<Settings>,
    workload: watch::Receiver<Option<Arc<identity::Workload>>>,
    tasks: &mut JoinSet<()>,
) -> Result<(), AgentError> {
    let listener = unix(&settings.secrets_socket())?;
    let secrets = Arc::new(Secrets::start(settings.root.clone(), workload));
    let service = secret_service(secrets);
    tasks.spawn(async move {
        let incoming = UnixListenerStream::new(listener);
        let server = tonic::transport::Server::builder().add_service(service);
        if let Err(error) = server.serve_with_incoming(incoming).await {
            tracing::error!(target: "ads", "the secret service ended: {error}");
        }
    });
    Ok(())
}

fn serve_discovery(settings: &Arc<Settings>, tasks: &mut JoinSet<()>) -> Result<(), AgentError> {
    let listener = unix(&settings.discovery_socket())?;
    let forwarder = Forwarder::new(settings.clone())?;
    let service = tower::service_fn(move |request| {
        let forwarder = forwarder.clone();
        async move { Ok::<_, std::convert::Infallible>(forwarder.forward(request).await) }
    });
    tasks.spawn(async move {
        let mut connections = JoinSet::new();
        loop {
            while connections.try_join_next().is_some() {}
            let stream = match listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::error!(target: "xdsproxy", "accepting the proxy: {error}");
                    return;
                }
            };
            let service = TowerToHyperService::new(service.clone());
            connections.spawn(async move {
                let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                if let Err(error) = server.serve_connection(TokioIo::new(stream), service).await {
                    tracing::debug!(target: "xdsproxy", "the proxy's connection ended: {error}");
                }
            });
        }
    });
    Ok(())
}

async fn serve_health(
    settings: &Settings,
    health: &Arc<Health>,
    tasks: &mut JoinSet<()>,
) -> Result<(), AgentError> {
    let address = settings.status();
    let listener = TcpListener::bind(address)
        .await
        .map_err(|source| AgentError::Listen { address: address.to_string(), source })?;
    let router = health::router(health.clone()).into_make_service_with_connect_info::<SocketAddr>();
    tasks.spawn(async move {
        if let Err(error) = axum::serve(listener, router).await {
            tracing::error!("the status port ended: {error}");
        }
    });
    let health = health.clone();
    tasks.spawn(async move {
        let mut tick = tokio::time::interval(std::time::Duration::from_millis(200));
        while health.check().await.is_err() {
            tick.tick().await;
        }
    });
    Ok(())
}

/// Binds a Unix socket, in place of one that an earlier run left.
fn unix(path: &Path) -> Result<UnixListener, AgentError> {
    let file = |source| AgentError::File { path: path.to_owned(), source };
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(file)?;
    }
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(file(error)),
        _ => {}
    }
    let listener = UnixListener::bind(path)
        .map_err(|source| AgentError::Listen { address: path.display().to_string(), source })?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660)).map_err(file)?;
    Ok(listener)
}
