//! The agent's own port: readiness of the proxy, merged metrics, and the order to quit.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::{ConnectInfo, Request, State};
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use lateen_runtime::scopes::Scopes;
use tokio::sync::Notify;

use crate::metrics::Metrics;
use crate::probes::Probes;
use crate::settings::Settings;

const ANSWER_WITHIN: Duration = Duration::from_secs(3);
const LARGEST_ANSWER: usize = 64 << 20;

/// Talks to the proxy's admin interface.
#[derive(Clone)]
pub(crate) struct Admin {
    address: SocketAddr,
    client: Client<HttpConnector, Empty<Bytes>>,
}

impl Admin {
    pub(crate) fn new(address: SocketAddr) -> Self {
        Self { address, client: Client::builder(TokioExecutor::new()).build_http() }
    }

    pub(crate) async fn get(&self, path: &str) -> Result<(StatusCode, Bytes), String> {
        self.send(http::Method::GET, path).await
    }

    pub(crate) async fn post(&self, path: &str) -> Result<(StatusCode, Bytes), String> {
        self.send(http::Method::POST, path).await
    }

    async fn send(&self, method: http::Method, path: &str) -> Result<(StatusCode, Bytes), String> {
        let request = http::Request::builder()
            .method(method)
            .uri(format!("http://{}{path}", self.address))
            .body(Empty::new())
            .map_err(|e| e.to_string())?;
        let exchange = async {
            let response = self.client.request(request).await.map_err(|e| e.to_string())?;
            let status = response.status();
            let body = Limited::new(response.into_body(), LARGEST_ANSWER).collect().await;
            Ok((status, body.map_err(|e| e.to_string())?.to_bytes()))
        };
        tokio::time::timeout(ANSWER_WITHIN, exchange)
            .await
            .unwrap_or_else(|_| Err(format!("{} does not answer", self.address)))
    }
}

/// What the port's handlers share.
pub(crate) struct Health {
    admin: Admin,
    started: Instant,
    was_ready: AtomicBool,
    quit: Arc<Notify>,
    metrics: Metrics,
    probes: Probes,
    /// Where the application is.
    application: IpAddr,
    /// The pod's own addresses.
    own: Vec<IpAddr>,
}

impl Health {
    pub(crate) fn new(settings: &Settings, admin: Admin, quit: Arc<Notify>) -> Arc<Self> {
        Arc::new(Self {
            admin,
            started: Instant::now(),
            was_ready: AtomicBool::new(false),
            quit,
            metrics: Metrics::new(settings.scrape.clone()),
            probes: settings.probes.clone(),
            application: settings.application(),
            own: settings.addresses.clone(),
        })
    }

    /// Whether the proxy has its configuration and serves; why not, otherwise.
    pub(crate) async fn check(&self) -> Result<(), String> {
        let (status, body) = self.admin.get("/ready").await?;
        if status != StatusCode::OK {
            return Err(format!("the proxy is {}", String::from_utf8_lossy(&body).trim()));
        }
        if !self.was_ready.swap(true, Ordering::SeqCst) {
            self.metrics.started(self.started.elapsed());
            tracing::info!("Readiness succeeded in {:?}", self.started.elapsed());
            tracing::info!("Envoy proxy is ready");
        }
        Ok(())
    }
}

impl Health {
    /// Whether a request comes from the pod itself. Other addresses of 127.0.0.0/8 are those of pods, on a cluster that lives
    /// on the loopback.
    fn is_own(&self, peer: SocketAddr) -> bool {
        let address = peer.ip().to_canonical();
        let local = matches!(address, IpAddr::V4(Ipv4Addr::LOCALHOST) | IpAddr::V6(Ipv6Addr::LOCALHOST));
        local || self.own.contains(&address)
    }
}

/// What the agent, and a proxy in its process, log under.
const SCOPES: Scopes = Scopes(&["admin", "ads", "cache", "config", "connection", "upstream", "xdsproxy"]);
const FOREIGN: &str = "only requests from the pod itself are allowed\n";

/// What is logged is the pod's own affair.
async fn from_the_pod(
    State(health): State<Arc<Health>>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    request: Request,
    next: Next,
) -> Response {
    if health.is_own(peer) {
        next.run(request).await
    } else {
        (StatusCode::FORBIDDEN, FOREIGN).into_response()
    }
}

/// The port's routes.
pub(crate) fn router(health: Arc<Health>) -> Router {
    Router::new()
        .route("/healthz/ready", get(ready))
        .route("/stats/prometheus", get(metrics))
        .route("/app-health/{container}/{probe}", get(probe))
        .route("/drain", post(drain))
        .route("/quitquitquit", post(quit))
        .with_state(health.clone())
        .merge(SCOPES.router().layer(middleware::from_fn_with_state(health, from_the_pod)))
}

async fn ready(State(health): State<Arc<Health>>) -> Response {
    match health.check().await {
        Ok(()) => StatusCode::OK.into_response(),
        Err(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")).into_response(),
    }
}

async fn metrics(State(health): State<Arc<Health>>, headers: HeaderMap) -> Response {
    let text = health.metrics.merged(&health.admin, health.application, &headers).await;
    ([(http::header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response()
}

async fn probe(State(health): State<Arc<Health>>, uri: Uri, headers: HeaderMap) -> Response {
    health.probes.run(uri.path(), &headers, health.application).await.into_response()
}

/// What native sidecars call before they stop: nothing new comes in, what is there goes on.
async fn drain(State(health): State<Arc<Health>>, ConnectInfo(peer): ConnectInfo<SocketAddr>) -> Response {
    if !health.is_own(peer) {
        return (StatusCode::FORBIDDEN, FOREIGN).into_response();
    }
    match health.admin.post("/drain_listeners?graceful&inboundonly").await {
        Ok((StatusCode::OK, _)) => "OK\n".into_response(),
        Ok((status, body)) => (status, body).into_response(),
        Err(reason) => (StatusCode::BAD_GATEWAY, format!("{reason}\n")).into_response(),
    }
}

/// Only the pod itself may end its proxy, as Istio has it.
async fn quit(State(health): State<Arc<Health>>, ConnectInfo(peer): ConnectInfo<SocketAddr>) -> Response {
    if !health.is_own(peer) {
        return (StatusCode::FORBIDDEN, FOREIGN).into_response();
    }
    health.quit.notify_one();
    "OK\n".into_response()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use axum::body::Body;
    use tower::ServiceExt as _;

    use super::*;
    use crate::settings::{Arguments, Role};

    /// An admin interface that says what it was asked.
    async fn admin() -> (SocketAddr, tokio::sync::mpsc::UnboundedReceiver<String>) {
        let (asked, asks) = tokio::sync::mpsc::unbounded_channel();
        let answer = move |uri: Uri| async move { drop(asked.send(uri.to_string())) };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move { axum::serve(listener, Router::new().fallback(answer)).await });
        (address, asks)
    }

    async fn ask(router: &Router, method: &str, path: &str, from: [u8; 4]) -> StatusCode {
        let mut request = Request::builder().method(method).uri(path).body(Body::empty()).unwrap();
        request.extensions_mut().insert(ConnectInfo(SocketAddr::from((from, 9))));
        router.clone().oneshot(request).await.unwrap().status()
    }

    #[tokio::test]
    async fn only_the_pod_itself_drains_quits_and_sees_levels() {
        let env = [("POD_NAME", "p"), ("POD_NAMESPACE", "ns"), ("INSTANCE_IP", "10.1.2.3")];
        let env: BTreeMap<String, String> =
            env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let settings = Settings::read(Role::Sidecar, &Arguments::default(), "/".into(), &env).unwrap();
        let (address, mut asks) = admin().await;
        let router = router(Health::new(&settings, Admin::new(address), Arc::new(Notify::new())));
        for (method, path) in [("POST", "/drain"), ("POST", "/quitquitquit"), ("GET", "/scopej")] {
            for other in [[10, 9, 9, 9], [127, 11, 0, 9]] {
                assert_eq!(ask(&router, method, path, other).await, StatusCode::FORBIDDEN, "{path}");
            }
        }
        assert_eq!(ask(&router, "POST", "/drain", [10, 1, 2, 3]).await, StatusCode::OK);
        assert_eq!(asks.try_recv().unwrap(), "/drain_listeners?graceful&inboundonly");
        assert_eq!(ask(&router, "POST", "/quitquitquit", [127, 0, 0, 1]).await, StatusCode::OK);
        // No logs are set up in this test: the request has come through.
        assert_eq!(ask(&router, "GET", "/scopej", [10, 1, 2, 3]).await, StatusCode::INTERNAL_SERVER_ERROR);
    }
}
