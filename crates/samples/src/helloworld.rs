//! helloworld: says which version and which instance answered.

use axum::Router;
use axum::routing::get;

use crate::Settings;

pub(crate) fn app(settings: &Settings) -> Router {
    let text = format!("Hello version: {}, instance: {}\n", settings.version, settings.pod);
    Router::new()
        .route("/hello", get(|| async move { text }))
        .route("/health", get(|| async { "Helloworld is healthy" }))
}
