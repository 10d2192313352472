//! Scopes of the running process and their levels, as Istio's ControlZ shows and changes them (`/scopej`).

use axum::body::Bytes;
use axum::extract::Path;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde_json::{Value, json};

use crate::logs::{self, Levels, LogError, Verbosity};

/// Why a scope is not shown or changed.
#[derive(Debug, thiserror::Error)]
pub enum ScopeError {
    /// Nobody logs under this name.
    #[error("there is no scope {name:?}; there are: {known}")]
    Unknown {
        /// What was asked for.
        name: String,
        /// What there is.
        known: String,
    },
    /// The body of a change.
    #[error("{0}; write {{\"output_level\": LEVEL}} with one of none, error, warn, info, debug")]
    Body(String),
    /// The logs themselves.
    #[error(transparent)]
    Logs(#[from] LogError),
}

/// The scopes that a process logs under. `default` is everything that names no scope, and every scope whose level was
/// not set by itself.
#[derive(Clone, Copy, Debug)]
pub struct Scopes(pub &'static [&'static str]);

impl Scopes {
    /// `GET /scopej`, `GET` and `PUT /scopej/{scope}`. Whoever reaches it may change what is logged.
    pub fn router(self) -> Router {
        let list = move || async move { answer(self.list()) };
        let show = move |Path(scope): Path<String>| async move { answer(self.show(&scope)) };
        let change =
            move |Path(scope): Path<String>, body: Bytes| async move { changed(self.change(&scope, &body)) };
        Router::new()
            .route("/scopej", get(list))
            .route("/scopej/", get(list))
            .route("/scopej/{scope}", get(show).put(change))
    }

    /// All scopes with their levels.
    ///
    /// # Errors
    /// When this process has not set up its logs.
    pub fn list(self) -> Result<Value, ScopeError> {
        let levels = levels()?;
        Ok(self.names().map(|name| shown(name, &levels)).collect())
    }

    /// One scope.
    ///
    /// # Errors
    /// When there is no such scope.
    pub fn show(self, name: &str) -> Result<Value, ScopeError> {
        let levels = levels()?;
        Ok(shown(self.known(name)?, &levels))
    }

    /// Changes a scope's level to the body's `output_level`.
    ///
    /// # Errors
    /// When there is no such scope or level.
    pub fn change(self, name: &str, body: &[u8]) -> Result<(), ScopeError> {
        let name = self.known(name)?;
        let body: Value =
            serde_json::from_slice(body).map_err(|error| ScopeError::Body(format!("no JSON: {error}")))?;
        let level = body["output_level"].as_str().unwrap_or_default();
        let level =
            Verbosity::parse(level).ok_or_else(|| ScopeError::Body(format!("{level:?} is no level")))?;
        let mut levels = levels()?;
        match name {
            "default" => levels.default = level,
            name => drop(levels.scopes.insert(name.to_owned(), level)),
        }
        logs::set_levels(levels)?;
        // Said whatever the level, since it tells why there is more or less of the log from here on.
        tracing::error!(target: "controlz", "scope {name} logs at {} from now on", istio_name(level));
        Ok(())
    }

    fn names(self) -> impl Iterator<Item = &'static str> {
        std::iter::once("default").chain(self.0.iter().copied())
    }

    fn known(self, name: &str) -> Result<&'static str, ScopeError> {
        self.names().find(|known| *known == name).ok_or_else(|| ScopeError::Unknown {
            name: name.to_owned(),
            known: self.names().collect::<Vec<_>>().join(", "),
        })
    }
}

fn answer(outcome: Result<Value, ScopeError>) -> Response {
    outcome.map_or_else(|error| refused(&error), |value| Json(value).into_response())
}

fn changed(outcome: Result<(), ScopeError>) -> Response {
    outcome.map_or_else(|error| refused(&error), |()| StatusCode::ACCEPTED.into_response())
}

fn refused(error: &ScopeError) -> Response {
    let status = match error {
        ScopeError::Unknown { .. } => StatusCode::NOT_FOUND,
        ScopeError::Body(_) => StatusCode::BAD_REQUEST,
        ScopeError::Logs(_) => StatusCode::INTERNAL_SERVER_ERROR,
    };
    (status, format!("{error}\n")).into_response()
}

fn levels() -> Result<Levels, ScopeError> {
    Ok(logs::levels().ok_or(LogError::NotSetUp)?)
}

fn shown(name: &str, levels: &Levels) -> Value {
    json!({
        "name": name,
        "output_level": istio_name(levels.of(name)),
        "stack_trace_level": "none",
        "log_callers": false,
    })
}

/// Istio's name of a level. Steps below its most verbose one are that one.
fn istio_name(level: Verbosity) -> &'static str {
    match level {
        Verbosity::Off => "none",
        Verbosity::Error => "error",
        Verbosity::Warning => "warn",
        Verbosity::Info => "info",
        Verbosity::Debug | Verbosity::Trace => "debug",
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::http::Request;
    use http_body_util::BodyExt as _;
    use tower::ServiceExt as _;

    use super::*;

    const SCOPES: Scopes = Scopes(&["ads", "model"]);

    async fn ask(method: &str, path: &str, body: &str) -> (u16, String) {
        let request = Request::builder().method(method).uri(path).body(Body::from(body.to_owned()));
        let response = SCOPES.router().oneshot(request.unwrap_or_default()).await;
        let response = response.unwrap_or_else(|never| match never {});
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
        (status, String::from_utf8_lossy(&body).into_owned())
    }

    async fn level(name: &str) -> String {
        let (_, text) = ask("GET", &format!("/scopej/{name}"), "").await;
        let scope: Value = serde_json::from_str(&text).unwrap_or_default();
        scope["output_level"].as_str().unwrap_or_default().to_owned()
    }

    /// The process's logs are set up once: one test for all that changes them.
    #[tokio::test]
    async fn levels_change_while_the_process_runs() {
        let config = logs::Config { levels: Some("default:info,model:warn".into()), json: false };
        logs::init(&config).unwrap_or_else(|error| panic!("{error}"));
        let (status, all) = ask("GET", "/scopej/", "").await;
        let all: Vec<Value> = serde_json::from_str(&all).unwrap_or_default();
        assert_eq!((status, all.len(), &all[0]["name"]), (200, 3, &json!("default")));
        assert_eq!((level("ads").await, level("model").await), ("info".into(), "warn".into()));
        assert!(!tracing::enabled!(target: "ads", tracing::Level::DEBUG));
        let debug = r#"{"name": "ads", "output_level": "debug"}"#;
        assert_eq!(ask("PUT", "/scopej/ads", debug).await.0, 202);
        assert!(tracing::enabled!(target: "ads", tracing::Level::DEBUG));
        assert_eq!((level("ads").await, level("default").await), ("debug".into(), "info".into()));
        assert_eq!(ask("PUT", "/scopej/default", r#"{"output_level": "none"}"#).await.0, 202);
        assert!(!tracing::enabled!(tracing::Level::ERROR));
        let (status, text) = ask("GET", "/scopej/nobody", "").await;
        assert!(status == 404 && text.contains("there are: default, ads, model"), "{text}");
        for body in ["loud", r#"{"output_level": "loud"}"#, "{}"] {
            let (status, text) = ask("PUT", "/scopej/ads", body).await;
            assert!(status == 400 && text.contains("output_level"), "{text}");
        }
    }
}
