//! Serving: one access line per request, in the form of gunicorn's.

use std::net::SocketAddr;
use std::time::SystemTime;

use axum::Router;
use axum::extract::{ConnectInfo, Request};
use axum::middleware::{self, Next};
use axum::response::Response;
use http::header::{CONTENT_LENGTH, REFERER, USER_AGENT};
use http::{HeaderMap, HeaderName};
use http_body::Body as _;
use lateen_runtime::signals;
use tokio::net::TcpListener;

use crate::{AppError, Settings};

/// Serves until SIGTERM or SIGINT; requests under way are finished.
pub(crate) async fn serve(settings: &Settings, default_port: u16, app: Router) -> Result<(), AppError> {
    let address = settings.address(default_port)?;
    let listener = TcpListener::bind(address).await.map_err(|source| AppError::Bind { address, source })?;
    serve_on(listener, app).await
}

/// Serves on a listener that is bound already.
pub(crate) async fn serve_on(listener: TcpListener, app: Router) -> Result<(), AppError> {
    let app = app.layer(middleware::from_fn(log)).into_make_service_with_connect_info::<SocketAddr>();
    axum::serve(listener, app).with_graceful_shutdown(ended()).await.map_err(AppError::Serve)
}

/// Does nothing until SIGTERM or SIGINT.
pub(crate) async fn until_terminated() -> Result<(), AppError> {
    signals::terminated().await.map(|_| ()).map_err(AppError::Serve)
}

async fn ended() {
    // Without signal handlers the default action ends the process, which is as good an end.
    if signals::terminated().await.is_err() {
        std::future::pending::<()>().await;
    }
}

pub(crate) async fn log(
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    request: Request,
    next: Next,
) -> Response {
    // Over HTTP/2 the target is a whole URL; the line shows its path, as over HTTP/1.1.
    let target = request.uri().path_and_query().map_or("/", |path| path.as_str());
    let line = format!("{} {target} {:?}", request.method(), request.version());
    let referer = header(request.headers(), &REFERER);
    let agent = header(request.headers(), &USER_AGENT);
    let response = next.run(request).await;
    let size = match response.headers().get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()) {
        Some(length) => length.to_owned(),
        None => response.body().size_hint().exact().map_or_else(|| "-".to_owned(), |size| size.to_string()),
    };
    let status = response.status().as_u16();
    println!("{} - - [{}] \"{line}\" {status} {size} \"{referer}\" \"{agent}\"", peer.ip(), clf_time());
    response
}

fn header(headers: &HeaderMap, name: &HeaderName) -> String {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or("-").to_owned()
}

/// The time as `01/Dec/2022:09:29:11 +0000`.
pub(crate) fn clf_time() -> String {
    let now = time::OffsetDateTime::from(SystemTime::now());
    let month = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]
        [usize::from(u8::from(now.month())) - 1];
    let (hour, minute, second) = now.to_hms();
    format!("{:02}/{month}/{}:{hour:02}:{minute:02}:{second:02} +0000", now.day(), now.year())
}
