//! The ports: gRPC in the clear and over TLS, HTTP in the clear and over TLS.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use axum::Router;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use lateen_ca::service::Holder;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tower::Service as _;

use crate::crowd::{Crowd, Full};
use crate::settings::Connections;
use crate::tls;

/// How long a TLS handshake may take.
const HANDSHAKE_WITHIN: Duration = Duration::from_secs(10);
/// How often an idle connection is asked whether it lives.
const KEEP_ALIVE: Duration = Duration::from_secs(30);

/// How long a connection that is too old may finish what it does.
const GRACE: Duration = Duration::from_secs(10);

/// The remote address, in a request's extensions.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PeerAddress(pub(crate) SocketAddr);

/// A TLS configuration that is replaced when its certificate is renewed.
pub(crate) type Tls = Arc<ArcSwap<ServerConfig>>;

/// Why a port cannot be served.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address} for {what}: {source}")]
pub struct ListenError {
    address: SocketAddr,
    what: &'static str,
    source: io::Error,
}

/// Binds a port.
pub(crate) async fn bind(address: SocketAddr, what: &'static str) -> Result<TcpListener, ListenError> {
    TcpListener::bind(address).await.map_err(|source| ListenError { address, what, source })
}

/// A port: what is served there (of axum or gRPC), and to how many.
pub(crate) struct Port {
    pub(crate) listener: TcpListener,
    pub(crate) tls: Option<Tls>,
    pub(crate) routes: Router,
    /// Connections older than this are told to come again, so that they spread over what control planes there are.
    pub(crate) age: Duration,
    pub(crate) limits: Connections,
}

/// Serves a port until the task is dropped.
pub(crate) async fn serve(port: Port) {
    let Port { listener, tls, routes, age, limits } = port;
    let crowd = Crowd::new(limits.most, limits.per_address);
    let mut crowded = false;
    loop {
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of file descriptors, most likely: others close theirs meanwhile.
                tracing::warn!("accepting connections: {error}");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let place = match crowd.enter(peer.ip().to_canonical()) {
            Ok(place) => place,
            Err(full) => {
                // Told once: whoever floods the port must not flood the log.
                if !std::mem::replace(&mut crowded, true) {
                    tracing::warn!("connections of {} are closed: {}", peer.ip(), described(full));
                }
                continue;
            }
        };
        crowded = false;
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!("{peer}: {error}");
        }
        let (routes, tls) = (routes.clone(), tls.clone());
        tokio::spawn(async move {
            let _place = place;
            let Some(tls) = tls else {
                return converse(stream, Caller { peer, holder: None }, routes, age, limits).await;
            };
            let handshake = TlsAcceptor::from(tls.load_full()).accept(stream);
            match tokio::time::timeout(HANDSHAKE_WITHIN, handshake).await {
                Ok(Ok(stream)) => {
                    let holder = tls::holder(stream.get_ref().1);
                    converse(stream, Caller { peer, holder }, routes, age, limits).await;
                }
                Ok(Err(error)) => tracing::debug!("TLS handshake of {peer}: {error}"),
                Err(_) => tracing::debug!("TLS handshake of {peer} takes too long"),
            }
        });
    }
}

fn described(full: Full) -> String {
    match full {
        Full::All(most) => format!("the port has {most} of them"),
        Full::Key(each) => format!("it has {each} of them (LATEEN_CONNECTIONS_PER_ADDRESS)"),
    }
}

/// Who is at the other end of a connection.
struct Caller {
    peer: SocketAddr,
    holder: Option<Holder>,
}

async fn converse<S>(stream: S, caller: Caller, routes: Router, age: Duration, limits: Connections)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let Caller { peer, holder } = caller;
    let asked = Arc::new(AtomicBool::new(false));
    let hears = asked.clone();
    let service = tower::service_fn(move |mut request: http::Request<Incoming>| {
        hears.store(true, Ordering::Relaxed);
        request.extensions_mut().insert(PeerAddress(peer));
        if let Some(holder) = &holder {
            request.extensions_mut().insert(holder.clone());
        }
        let mut routes = routes.clone();
        // A router is always ready, and answers errors itself.
        async move { Ok::<_, Infallible>(routes.call(request).await.unwrap_or_else(|never| match never {})) }
    });
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(KEEP_ALIVE)
        .max_concurrent_streams(limits.streams);
    builder.http1().timer(TokioTimer::new());
    let mut connection =
        pin!(builder.serve_connection_with_upgrades(TokioIo::new(stream), TowerToHyperService::new(service)));
    // Within a tenth more or less: connections that were made together do not all end together.
    let too_old = tokio::time::sleep(age * (90 + u32::from(peer.port() % 21)) / 100);
    let silent = async {
        tokio::time::sleep(limits.first_request).await;
        if asked.load(Ordering::Relaxed) {
            std::future::pending::<()>().await;
        }
    };
    let done = tokio::select! {
        done = connection.as_mut() => done,
        () = silent => return tracing::debug!("{peer} asks for nothing: its connection is closed"),
        () = too_old => {
            connection.as_mut().graceful_shutdown();
            // A discovery stream never ends by itself.
            tokio::time::timeout(GRACE, connection).await.unwrap_or(Ok(()))
        }
    };
    if let Err(error) = done {
        tracing::debug!("connection of {peer}: {error}");
    }
}
