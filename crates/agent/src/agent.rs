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

use crate::certificate_files::{self, CertificateFiles};
use crate::envoy::{Envoy, EnvoyError};
use crate::foreign;
use crate::forwarder::Forwarder;
use crate::health::{self, Admin, Health};
use crate::identity::{self, Source};
use crate::patched::Patches;
use crate::secrets::Secrets;
use crate::settings::Settings;
use crate::upstream::Learned;

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
    /// A socket that somebody else has to serve.
    #[error("WORKLOAD_IDENTITY_SOCKET_FILE is set, but nobody serves secrets on {0}; is its volume mounted?")]
    NoSocket(PathBuf),
    /// The discovery address.
    #[error("discoveryAddress: {0}")]
    Discovery(#[from] lateen_xds::transport::TransportError),
}

/// A running agent; dropping it ends its tasks.
pub struct Agent {
    settings: Arc<Settings>,
    bootstrap: Value,
    patches: Patches,
    health: Arc<Health>,
    admin: Admin,
    quit: Arc<Notify>,
    _tasks: JoinSet<()>,
}

impl Agent {
    /// Binds the sockets, starts to ask for a certificate, and writes the bootstrap. Where patches of it are to be asked
    /// for, it waits for the control plane.
    ///
    /// # Errors
    /// When a socket or port cannot be bound, or a file not written.
    pub async fn start(mut settings: Settings, clock: Arc<dyn Clock>) -> Result<Self, AgentError> {
        let source = source(&settings).await?;
        settings.socket_is_anothers = matches!(source, Source::Socket(_));
        let settings = Arc::new(settings);
        let mut tasks = JoinSet::new();
        tell(&settings, &source);
        let (publish, workload) = watch::channel(None);
        let learned = (source == Source::Authority).then(|| workload.clone());
        tasks.spawn(source.follow(settings.clone(), clock, publish));
        if let Some(folder) = &settings.output {
            tasks.spawn(certificate_files::write_out(folder.clone(), workload.clone()));
        }
        serve_secrets(&settings, workload, &mut tasks)?;
        serve_discovery(&settings, learned, &mut tasks)?;

        let admin = Admin::new(settings.admin());
        let quit = Arc::new(Notify::new());
        let health = Health::new(&settings, admin.clone(), quit.clone());
        serve_health(&settings, &health, &mut tasks).await?;

        let patches = Patches::ask(&settings).await;
        let bootstrap = patches.file(&settings);
        write(&settings, &bootstrap)?;
        Ok(Self { settings, bootstrap, patches, health, admin, quit, _tasks: tasks })
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
        self.patches.typed(&self.settings)
    }

    /// Whether the control plane patched the bootstrap.
    pub fn is_patched(&self) -> bool {
        self.patches.is_some()
    }

    /// The same without the control plane's patches, which tells why they were refused.
    pub fn unpatched_bootstrap(&self, refused: &str) -> Bootstrap {
        self.patches.plain_typed(&self.settings, refused)
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

    /// Starts stock Envoy on the bootstrap; without the control plane's patches where Envoy refuses them.
    ///
    /// # Errors
    /// When the binary cannot be started, or the bootstrap not be written.
    pub fn envoy(&self) -> Result<Envoy, EnvoyError> {
        if self.is_patched()
            && let Err(reason) = Envoy::validate(&self.settings, &self.settings.bootstrap_file())
        {
            tracing::error!("the bootstrap's patches are not applied: Envoy refuses them: {reason}");
            write(&self.settings, &self.patches.plain_file(&self.settings, &reason))
                .map_err(|error| EnvoyError::Bootstrap(error.to_string()))?;
        }
        Envoy::start(self.settings.clone(), self.admin.clone(), &self.settings.bootstrap_file())
    }
}

fn write(settings: &Settings, bootstrap: &Value) -> Result<(), AgentError> {
    let path = settings.bootstrap_file();
    std::fs::write(&path, format!("{bootstrap:#}\n")).map_err(|source| AgentError::File { path, source })
}

/// Where the workload's certificate comes from: a SPIFFE Workload API that is named, a socket that somebody else serves,
/// files, or the authority.
async fn source(settings: &Settings) -> Result<Source, AgentError> {
    if let Some(path) = &settings.workload_api {
        return Ok(Source::WorkloadApi(path.clone()));
    }
    let socket = settings.workload_socket();
    if foreign::answers(&socket).await {
        return Ok(Source::Socket(socket));
    }
    if settings.needs_socket {
        return Err(AgentError::NoSocket(socket));
    }
    Ok(match &settings.certificate_files {
        Some(files) => Source::Files(files.clone()),
        None => CertificateFiles::found(&settings.root).map_or(Source::Authority, Source::Files),
    })
}

fn tell(settings: &Settings, source: &Source) {
    match source {
        Source::Authority => {
            tracing::info!("CA Endpoint {}, provider Citadel", settings.ca_address);
            let root = settings.root_certificate_file();
            tracing::info!("Using CA {} cert with certs: {}", settings.ca_address, root.display());
        }
        Source::Files(files) => {
            tracing::info!(
                "Workload is using file mounted certificates ({}). Skipping connecting to CA",
                files.chain.display()
            );
        }
        Source::WorkloadApi(path) => {
            tracing::info!("Workload certificates come from the SPIFFE Workload API at {}", path.display());
        }
        Source::Socket(path) => {
            tracing::info!(
                "Existing workload SDS socket found at {}: certificates come from there",
                path.display()
            );
        }
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

fn serve_discovery(
    settings: &Arc<Settings>,
    learned: Learned,
    tasks: &mut JoinSet<()>,
) -> Result<(), AgentError> {
    let listener = unix(&settings.discovery_socket())?;
    let forwarder = Forwarder::new(settings.clone(), learned)?;
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
