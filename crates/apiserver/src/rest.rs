//! The HTTP face: connections, and one generic way from a request to an operation.

mod discovery;
mod handler;
mod lists;
mod log;
mod negotiate;
mod options;
mod proxy;
mod remote;
mod request;
mod response;
mod reviews;
mod subresources;
mod table;
mod versions;
mod watch;

use std::sync::Arc;
use std::time::Duration;

use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use crate::access::User;
use crate::api::Api;

const HANDSHAKE: Duration = Duration::from_secs(10);
const DRAIN: Duration = Duration::from_secs(5);
/// Wait before accepting again when the process is out of file descriptors.
const BREATH: Duration = Duration::from_millis(100);

/// Serves until `stopped`.
pub(crate) async fn serve(
    api: Arc<Api>,
    listener: TcpListener,
    tls: Arc<ServerConfig>,
    mut stopped: tokio::sync::watch::Receiver<bool>,
) {
    let acceptor = TlsAcceptor::from(tls);
    let graceful = GracefulShutdown::new();
    let stops = stopped.clone();
    let mut connections = tokio::task::JoinSet::new();
    loop {
        tokio::select! {
            () = crate::server::until(&mut stopped) => break,
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    let connection = connection(api.clone(), acceptor.clone(), stream, graceful.watcher(), stops.clone());
                    connections.spawn(connection);
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(BREATH).await;
                }
            },
        }
    }
    drop(listener);
    // What does not end in time is cut off with the set.
    drop(tokio::time::timeout(DRAIN, graceful.shutdown()).await);
}

async fn connection(
    api: Arc<Api>,
    acceptor: TlsAcceptor,
    stream: TcpStream,
    watcher: hyper_util::server::graceful::Watcher,
    stopped: tokio::sync::watch::Receiver<bool>,
) {
    drop(stream.set_nodelay(true));
    let stream = match tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return tracing::debug!(%error, "TLS handshake failed"),
        Err(_) => return tracing::debug!("TLS handshake timed out"),
    };
    let certificates = stream.get_ref().1.peer_certificates();
    let user = certificates.and_then(|chain| chain.first()).and_then(crate::tls::user_of).map(Arc::new);
    let service = service_fn(move |request| {
        let (api, user, stopped) = (api.clone(), user.clone(), stopped.clone());
        async move { Ok::<_, std::convert::Infallible>(handler::answer(&api, user, request, stopped).await) }
    });
    let builder = auto::Builder::new(TokioExecutor::new());
    let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
    if let Err(error) = watcher.watch(connection.into_owned()).await {
        tracing::debug!(%error, "connection ended");
    }
}

/// A user known by its certificate, or nobody yet.
type CertificateUser = Option<Arc<User>>;
