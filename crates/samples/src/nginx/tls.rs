//! nginx's side of TLS: certificates from the pod's files, the server by the name that the client asks for.

use std::path::Path;

use lateen_ca::tls::{
    ClientAuth, Offers, PeerChecks, Server, ServerSettings, Trust, Version, identity, server_config,
};
use tokio::net::TcpStream;
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::rustls::server::Acceptor;
use tokio_rustls::server::TlsStream;

use super::config::{self, Verify};
use crate::AppError;

/// The configuration of a server with certificates.
pub(super) fn server(wanted: &config::Tls, root: &Path) -> Result<Server, AppError> {
    let certificate = read(root, wanted.certificate.as_deref())?;
    let key = read(root, wanted.key.as_deref())?;
    let bad = |what: &Option<String>, why: &dyn std::fmt::Display| {
        AppError::Setting(format!("nginx: [emerg] {}: {why}", what.as_deref().unwrap_or_default()))
    };
    let own = identity(&certificate, &key).map_err(|error| bad(&wanted.certificate, &error))?;
    let client_auth = match wanted.verify {
        Verify::Off => ClientAuth::None,
        Verify::On | Verify::Optional => {
            let anchors = read(root, wanted.client_ca.as_deref())?;
            let trust = Trust::from_pem(&anchors).map_err(|error| bad(&wanted.client_ca, &error))?;
            ClientAuth::Optional(PeerChecks::trusting(trust))
        }
    };
    let settings = ServerSettings {
        identities: vec![own],
        client_auth,
        alpn: vec![b"http/1.1".to_vec()],
        versions: (Version::Tls12, Version::Tls13),
        offers: Offers::default(),
        resumption: true,
    };
    server_config(settings).map_err(|error| bad(&wanted.certificate, &error))
}

fn read(root: &Path, path: Option<&str>) -> Result<Vec<u8>, AppError> {
    let path = path.unwrap_or_default();
    let file = root.join(path.trim_start_matches('/'));
    std::fs::read(file)
        .map_err(|error| AppError::Setting(format!("nginx: [emerg] cannot load {path:?}: {error}")))
}

/// Shakes hands, with the configuration for the name that the client asks for.
pub(crate) async fn accept(
    stream: TcpStream,
    offered: impl Fn(Option<&str>) -> Option<Server>,
) -> Result<TlsStream<TcpStream>, String> {
    let start =
        LazyConfigAcceptor::new(Acceptor::default(), stream).await.map_err(|error| error.to_string())?;
    let hello = start.client_hello();
    let server = offered(hello.server_name()).ok_or("this server has no certificate")?;
    let config = server.for_client(hello.alpn().into_iter().flatten());
    start.into_stream(config).await.map_err(|error| error.to_string())
}
