//! nginx: a static server, obeying the part of `nginx.conf` that the labs of meshes mount.
//!
//! It reads `/etc/nginx/nginx.conf` of the pod, or `/etc/nginx/conf.d/*.conf`, and refuses every directive that it does
//! not play by name. As nginx does it asks for client certificates without ending the handshake of a client that has none:
//! such a client gets a 400. One whose certificate is not from the right authority is refused in the handshake.

mod config;
mod files;
mod format;
mod syntax;
pub(crate) mod tls;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};

use crate::{AppError, Settings, server};
use config::{Config, Listen, Server};
use format::Line;

/// What is wrong with a configuration.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what}{}", place(*line))]
struct ConfigError {
    /// From 1; 0 when it is about no line.
    line: usize,
    what: String,
}

fn place(line: usize) -> String {
    if line == 0 { String::new() } else { format!(" in line {line}") }
}

/// Serves what the pod's configuration says.
pub(crate) async fn serve(settings: &Settings) -> Result<(), AppError> {
    let config = configuration(&settings.root)?;
    let mut sites = Vec::new();
    for server in config.servers {
        sites.push(Site::new(server, &settings.root)?);
    }
    let sites: Arc<[Site]> = sites.into();
    let mut addresses: Vec<SocketAddr> = Vec::new();
    for listen in sites.iter().flat_map(|site| &site.server.listens) {
        if !addresses.contains(&listen.address) {
            addresses.push(listen.address);
        }
    }
    let graceful = Arc::new(GracefulShutdown::new());
    for address in addresses {
        let own = SocketAddr::new(settings.own_address(address.ip())?, address.port());
        let bound = TcpListener::bind(own).await;
        let listener = bound.map_err(|source| AppError::Bind { address: own, source })?;
        println!("nginx: listening on {own}");
        let port = Port { address, sites: sites.clone() };
        tokio::spawn(port.accept(listener, graceful.clone()));
    }
    server::until_terminated().await
}

/// The pod's own configuration, else the image's.
fn configuration(root: &Path) -> Result<Config, AppError> {
    // Users know their files by the pod's paths.
    let refuse = |path: &Path, why: &dyn std::fmt::Display| {
        let shown = Path::new("/").join(path.strip_prefix(root).unwrap_or(path));
        AppError::Setting(format!("nginx: [emerg] {}: {why}", shown.display()))
    };
    let read = |path: &Path| std::fs::read_to_string(path).map_err(|error| refuse(path, &error));
    let main = root.join("etc/nginx/nginx.conf");
    if main.exists() {
        return Config::main(&read(&main)?).map_err(|error| refuse(&main, &error));
    }
    let folder = root.join("etc/nginx/conf.d");
    let listed = std::fs::read_dir(&folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut files: Vec<PathBuf> =
        listed.filter(|path| path.extension().is_some_and(|end| end == "conf")).collect();
    files.sort();
    let mut servers = Vec::new();
    for file in &files {
        servers.extend(Config::included(&read(file)?).map_err(|error| refuse(file, &error))?.servers);
    }
    if files.is_empty() { Ok(Config::preset()) } else { Ok(Config { servers }) }
}

/// A server with what it needs to serve.
struct Site {
    server: Server,
    tls: Option<lateen_ca::tls::Server>,
    root: PathBuf,
}

impl Site {
    fn new(server: Server, root: &Path) -> Result<Self, AppError> {
        let wanted = server.listens.iter().any(|listen| listen.tls);
        let tls = if wanted { Some(tls::server(&server.tls, root)?) } else { None };
        Ok(Self { server, tls, root: root.to_owned() })
    }

    fn listen(&self, address: SocketAddr) -> Option<Listen> {
        self.server.listens.iter().find(|listen| listen.address == address).copied()
    }
}

/// One address with the servers that listen on it.
#[derive(Clone)]
struct Port {
    address: SocketAddr,
    sites: Arc<[Site]>,
}

impl Port {
    async fn accept(self, listener: TcpListener, graceful: Arc<GracefulShutdown>) {
        loop {
            match listener.accept().await {
                Ok((stream, peer)) => {
                    let (port, graceful) = (self.clone(), graceful.clone());
                    tokio::spawn(async move {
                        if let Err(error) = port.connection(stream, peer, &graceful).await {
                            println!("nginx: [info] client {}: {error}", peer.ip());
                        }
                    });
                }
                Err(error) => println!("nginx: [alert] accept: {error}"),
            }
        }
    }

    async fn connection(
        self,
        stream: TcpStream,
        peer: SocketAddr,
        graceful: &GracefulShutdown,
    ) -> Result<(), String> {
        if !self.site("").listen(self.address).is_some_and(|listen| listen.tls) {
            return self.requests(stream, peer, None, graceful).await;
        }
        let offered = |name: Option<&str>| self.site(name.unwrap_or_default()).tls.clone();
        let stream = tls::accept(stream, offered).await?;
        let shown = stream.get_ref().1.peer_certificates().is_some_and(|chain| !chain.is_empty());
        self.requests(stream, peer, Some(shown), graceful).await
    }

    /// The server of a name on this address: the one named so, else the default, else the first.
    fn site(&self, host: &str) -> &Site {
        let here = || self.sites.iter().filter(|site| site.listen(self.address).is_some());
        let is_default = |site: &&Site| site.listen(self.address).is_some_and(|listen| listen.default);
        here()
            .find(|site| site.server.is_named(host))
            .or_else(|| here().find(is_default))
            .or_else(|| here().next())
            .unwrap_or(&self.sites[0]) // an address is listened on because a server says so
    }

    /// `certified`: over TLS, whether the client has shown a certificate.
    async fn requests(
        self,
        stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
        peer: SocketAddr,
        certified: Option<bool>,
        graceful: &GracefulShutdown,
    ) -> Result<(), String> {
        let service = service_fn(move |request| {
            let port = self.clone();
            async move { Ok::<_, std::convert::Infallible>(port.respond(request, peer, certified).await) }
        });
        let builder = auto::Builder::new(TokioExecutor::new());
        let connection = builder.serve_connection(TokioIo::new(stream), service).into_owned();
        graceful.watch(connection).await.map_err(|error| error.to_string())
    }

    async fn respond(
        &self,
        request: Request<Incoming>,
        peer: SocketAddr,
        certified: Option<bool>,
    ) -> Response<Full<Bytes>> {
        let named = request.headers().get(http::header::HOST).and_then(|host| host.to_str().ok());
        let host = named.or_else(|| request.uri().host()).unwrap_or_default().to_lowercase();
        let host = host.rsplit_once(':').map_or(host.as_str(), |(name, _)| name);
        let site = self.site(host);
        let response = if certified == Some(false) && site.server.tls.verify == config::Verify::On {
            files::page(StatusCode::BAD_REQUEST, "400 No required SSL certificate was sent")
        } else {
            files::answer(
                site.server.place(request.uri().path()),
                &site.root,
                request.method(),
                request.uri(),
            )
            .await
        };
        if let Some(format) = &site.server.log {
            let uri = request.uri().path_and_query().map_or("/", |path| path.as_str());
            println!(
                "{}",
                format.line(&Line {
                    peer: peer.ip(),
                    method: request.method(),
                    uri,
                    version: request.version(),
                    host,
                    headers: request.headers(),
                    status: response.status().as_u16(),
                    bytes: if request.method() == http::Method::HEAD { 0 } else { files::size(&response) },
                })
            );
        }
        response
    }
}

#[cfg(test)]
mod tests;
