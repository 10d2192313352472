//! Channels for gRPC: a Unix socket, TCP, or TLS over TCP with the caller's own rustls configuration.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use http::Uri;
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;
use tonic::transport::{Channel, Endpoint};

/// How long a connection attempt may take, the TLS handshake included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Where a server listens.
#[derive(Clone)]
pub enum Target {
    /// A Unix socket; the path may be relative to the working folder.
    Unix(PathBuf),
    /// `host:port`, in the clear.
    Tcp(String),
    /// `host:port`, in TLS.
    Tls {
        /// The address to connect to, `host:port`.
        address: String,
        /// The name that the server's certificate must have.
        server_name: String,
        /// Anchors, client certificate, versions; ALPN is set to `h2`. Asked for before every connection, so
        /// that renewed anchors and certificates are used.
        config: TlsConfig,
        /// Finds the address of the host, where the system's resolver does not know it.
        resolver: Option<Resolver>,
    },
}

/// Gives the TLS configuration of the next connection, or why there is none.
pub type TlsConfig = Arc<dyn Fn() -> Result<Arc<rustls::ClientConfig>, String> + Send + Sync>;

/// Turns `host:port` into a socket address.
pub type Resolver = Arc<dyn Fn(String) -> BoxFuture<'static, io::Result<SocketAddr>> + Send + Sync>;

/// Why no channel could be made.
#[derive(Debug, thiserror::Error)]
pub enum TransportError {
    /// Nobody answers, or the handshake failed.
    #[error("cannot connect to {target}: {reason}")]
    Connect {
        /// The target.
        target: String,
        /// The innermost reason.
        reason: String,
    },
    /// The target is not an address.
    #[error("{0:?} is not an address of the form host:port")]
    Address(String),
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Tcp(address) => f.write_str(address),
            Self::Tls { address, .. } => write!(f, "{address} (TLS)"),
        }
    }
}

impl Target {
    /// Connects.
    ///
    /// # Errors
    /// When the address is malformed, nobody answers, or TLS fails.
    pub async fn channel(&self) -> Result<Channel, TransportError> {
        let target = self.clone();
        let connector = tower::service_fn(move |_: Uri| dial(target.clone()));
        self.endpoint()?
            .connect_with_connector(connector)
            .await
            .map_err(|error| TransportError::Connect { target: self.to_string(), reason: innermost(&error) })
    }

    /// A channel that connects when it is first used, and again after it broke.
    ///
    /// # Errors
    /// When the address is malformed.
    pub fn lazy_channel(&self) -> Result<Channel, TransportError> {
        let target = self.clone();
        let connector = tower::service_fn(move |_: Uri| dial(target.clone()));
        Ok(self.endpoint()?.connect_with_connector_lazy(connector))
    }

    /// The HTTP/2 settings, and the authority that requests carry.
    fn endpoint(&self) -> Result<Endpoint, TransportError> {
        let uri = match self {
            Self::Unix(_) => "http://localhost".to_owned(),
            Self::Tcp(address) => format!("http://{address}"),
            Self::Tls { address, server_name, .. } => {
                let port = address.rsplit_once(':').map(|(_, port)| port).unwrap_or("443");
                format!("https://{server_name}:{port}")
            }
        };
        let endpoint = Endpoint::from_shared(uri.clone()).map_err(|_| TransportError::Address(uri))?;
        Ok(endpoint
            .connect_timeout(CONNECT_TIMEOUT)
            .http2_keep_alive_interval(Duration::from_secs(30))
            .keep_alive_while_idle(true)
            .initial_stream_window_size(1 << 20)
            .initial_connection_window_size(1 << 20))
    }
}

/// The streams that a channel may run over.
trait Io: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin {}
impl<T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin> Io for T {}

async fn dial(target: Target) -> io::Result<TokioIo<Box<dyn Io>>> {
    let stream: Box<dyn Io> = match target {
        Target::Unix(path) => Box::new(UnixStream::connect(path).await?),
        Target::Tcp(address) => Box::new(tcp(address).await?),
        Target::Tls { address, server_name, config, resolver } => {
            let mut config = (*config().map_err(io::Error::other)?).clone();
            config.alpn_protocols = vec![b"h2".to_vec()];
            let name = ServerName::try_from(server_name).map_err(io::Error::other)?;
            let stream = match resolver {
                Some(resolve) => tcp(resolve(address).await?).await?,
                None => tcp(address).await?,
            };
            Box::new(TlsConnector::from(Arc::new(config)).connect(name, stream).await?)
        }
    };
    Ok(TokioIo::new(stream))
}

async fn tcp(address: impl tokio::net::ToSocketAddrs) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// The reason at the bottom of a chain of errors, where the useful text is.
fn innermost(error: &dyn std::error::Error) -> String {
    let mut deepest = error;
    while let Some(source) = deepest.source() {
        deepest = source;
    }
    deepest.to_string()
}
