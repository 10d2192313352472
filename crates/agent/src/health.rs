//! The agent's own port: readiness of the proxy, merged metrics, and the order to quit.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use tokio::sync::Notify;

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
}

impl Health {
    pub(crate) fn new(admin: Admin, quit: Arc<Notify>) -> Arc<Self> {
        Arc::new(Self { admin, started: Instant::now(), was_ready: AtomicBool::new(false), quit })
    }

    /// Whether the proxy has its configuration and serves; why not, otherwise.
    pub(crate) async fn check(&self) -> Result<(), String> {
        let (status, body) = self.admin.get("/ready").await?;
        if status != StatusCode::OK {
            return Err(format!("the proxy is {}", String::from_utf8_lossy(&body).trim()));
        }
        if !self.was_ready.swap(true, Ordering::SeqCst) {
            tracing::info!("Readiness succeeded in {:?}", self.started.elapsed());
            tracing::info!("Envoy proxy is ready");
        }
        Ok(())
    }
}

/// The port's routes.
pub(crate) fn router(health: Arc<Health>) -> Router {
    Router::new()
        .route("/healthz/ready", get(ready))
        .route("/stats/prometheus", get(metrics))
        .route("/quitquitquit", post(quit))
        .with_state(health)
}

async fn ready(State(health): State<Arc<Health>>) -> Response {
    match health.check().await {
        Ok(()) => StatusCode::OK.into_response(),
        Err(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")).into_response(),
    }
}

async fn metrics(State(health): State<Arc<Health>>) -> Response {
    match health.admin.get("/stats/prometheus").await {
        Ok((status, body)) => (status, [(http::header::CONTENT_TYPE, "text/plain")], body).into_response(),
        Err(reason) => (StatusCode::BAD_GATEWAY, format!("{reason}\n")).into_response(),
    }
}

async fn quit(State(health): State<Arc<Health>>) -> &'static str {
    health.quit.notify_one();
    "OK\n"
}
