//! Start and stop.

use std::net::{Ipv4Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::access::User;
use crate::api::Api;
use crate::client::Client;
use crate::defaults::Allocator;
use crate::pki::{Pki, PkiError, write_private};
use crate::providers::{PodLogs, PodStreams, ServiceResolver};
use crate::store::{Store, StoreError};
use crate::token::Tokens;
use crate::{bootstrap, housekeeping, rest, tls};

/// Settings of the API server.
#[derive(Debug, Clone)]
pub struct Config {
    /// Folder of the state: database, keys, kubeconfig. Made when missing.
    pub data_dir: PathBuf,
    /// Address to listen on; port 0 takes a free one.
    pub bind: SocketAddr,
    /// Further names and addresses in the server's certificate.
    pub names: Vec<String>,
    /// Name of the cluster, in the kubeconfig.
    pub cluster: String,
    /// Network of service addresses (address, prefix length). `None`: a controller gives them.
    pub service_network: Option<(Ipv4Addr, u8)>,
    /// Ports of services of type NodePort and LoadBalancer.
    pub node_ports: RangeInclusive<u16>,
    /// `iss` of service-account tokens.
    pub token_issuer: String,
}

/// Why the server did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The state.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Keys, certificates, kubeconfig.
    #[error(transparent)]
    Pki(#[from] PkiError),
    /// TLS.
    #[error("TLS of the API server: {0}")]
    Tls(String),
    /// The address.
    #[error(
        "cannot listen on {address}: {source}; stop what uses the port, or choose another address (--bind)"
    )]
    Bind {
        /// The address.
        address: SocketAddr,
        /// The system's answer.
        source: std::io::Error,
    },
    /// The objects every cluster has could not be made.
    #[error("cannot make the first objects: {0}")]
    Bootstrap(#[from] crate::status::Status),
}

/// A running server. Dropping it stops the server abruptly; see [`Handle::shutdown`].
pub struct Handle {
    api: Arc<Api>,
    address: SocketAddr,
    ca: String,
    kubeconfig: PathBuf,
    stop: watch::Sender<bool>,
    tasks: Vec<JoinHandle<()>>,
}

impl Config {
    /// The usual settings.
    pub fn new(data_dir: impl Into<PathBuf>, bind: SocketAddr) -> Self {
        Self {
            data_dir: data_dir.into(),
            bind,
            names: Vec::new(),
            cluster: "lateen".into(),
            service_network: Some((Ipv4Addr::new(10, 96, 0, 0), 16)),
            node_ports: 30000..=32767,
            token_issuer: "https://kubernetes.default.svc.cluster.local".into(),
        }
    }

    /// Opens the state, listens, serves. The kubeconfig is at [`Handle::kubeconfig_path`] when this returns.
    pub async fn build(self) -> Result<Handle, StartError> {
        let (dir, names) = (self.data_dir.clone(), self.certificate_names());
        let opened = tokio::task::spawn_blocking(move || -> Result<_, StartError> {
            Ok((Store::open(&dir)?, Pki::load(&dir.join("pki"), &names)?))
        });
        let (store, pki) = opened.await.map_err(|e| StartError::Tls(e.to_string()))??;
        let bind_error = |source| StartError::Bind { address: self.bind, source };
        let listener = TcpListener::bind(self.bind).await.map_err(bind_error)?;
        let address = listener.local_addr().map_err(bind_error)?;
        let tokens = Tokens::new(&pki.token_key, self.token_issuer.clone()).map_err(StartError::Tls)?;
        let allocator = self.service_network.map(|network| Allocator::new(network, self.node_ports.clone()));
        let api = Arc::new(Api::new(store, tokens, allocator));
        bootstrap::run(&api, &pki.ca).await?;
        let tls = tls::server_config(&pki).map_err(StartError::Tls)?;
        let kubeconfig = self.data_dir.join("kubeconfig");
        write_private(&kubeconfig, kubeconfig_text(&self.cluster, address, &pki).as_bytes())?;
        let (stop, stopped) = watch::channel(false);
        let tasks = vec![
            tokio::spawn(rest::serve(api.clone(), listener, tls, stopped.clone())),
            tokio::spawn(housekeeping::run(api.clone(), stopped)),
        ];
        Ok(Handle { api, address, ca: pki.ca, kubeconfig, stop, tasks })
    }

    fn certificate_names(&self) -> Vec<String> {
        let mut names: Vec<String> = [
            "localhost",
            "127.0.0.1",
            "::1",
            "kubernetes",
            "kubernetes.default",
            "kubernetes.default.svc",
            "kubernetes.default.svc.cluster.local",
        ]
        .map(str::to_owned)
        .into();
        if !self.bind.ip().is_unspecified() {
            names.push(self.bind.ip().to_string());
        }
        if let Some((network, _)) = self.service_network {
            names.push(Ipv4Addr::from(u32::from(network).wrapping_add(1)).to_string());
        }
        names.extend(self.names.iter().cloned());
        names.sort();
        names.dedup();
        names
    }
}

impl Handle {
    /// A client in this process that may do everything.
    pub fn client(&self) -> Client {
        Client::new(self.api.clone(), Arc::new(User::master("system:lateen")))
    }

    /// Where the server listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The certificate that clients have to trust, PEM.
    pub fn ca(&self) -> &str {
        &self.ca
    }

    /// The administrator's kubeconfig (mode 0600).
    pub fn kubeconfig_path(&self) -> &Path {
        &self.kubeconfig
    }

    /// Who answers `pods/log` from now on.
    pub fn serve_logs(&self, logs: Arc<dyn PodLogs>) {
        self.api.providers.set_logs(logs);
    }

    /// Who answers `pods/exec` and `pods/portforward` from now on.
    pub fn serve_streams(&self, streams: Arc<dyn PodStreams>) {
        self.api.providers.set_streams(streams);
    }

    /// Who tells where services of webhooks are from now on.
    pub fn resolve_services(&self, services: Arc<dyn ServiceResolver>) {
        self.api.providers.set_services(services);
    }

    /// Stops accepting, ends watches, lets running requests finish, closes the state.
    pub async fn shutdown(mut self) {
        self.stop.send_replace(true);
        for task in std::mem::take(&mut self.tasks) {
            // A task that panicked has nothing left to finish.
            drop(task.await);
        }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

/// Returns when the server stops.
pub(crate) async fn until(stopped: &mut watch::Receiver<bool>) {
    drop(stopped.wait_for(|stop| *stop).await);
}

fn kubeconfig_text(cluster: &str, address: SocketAddr, pki: &Pki) -> String {
    let word = |pem: &str| base64::Engine::encode(&base64::engine::general_purpose::STANDARD, pem);
    let host = match address.ip() {
        ip if ip.is_unspecified() => SocketAddr::from((Ipv4Addr::LOCALHOST, address.port())),
        _ => address,
    };
    let (ca, certificate, key) = (word(&pki.ca), word(&pki.admin_certificate), word(&pki.admin_key));
    format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: {cluster}\n\
         clusters:\n- name: {cluster}\n  cluster:\n    server: https://{host}\n    certificate-authority-data: {ca}\n\
         users:\n- name: {cluster}-admin\n  user:\n    client-certificate-data: {certificate}\n    client-key-data: {key}\n\
         contexts:\n- name: {cluster}\n  context:\n    cluster: {cluster}\n    user: {cluster}-admin\n    namespace: default\n"
    )
}
