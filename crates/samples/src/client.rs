//! Calls to other services: directly, or through `http_proxy` in absolute form (RFC 9112 §3.2.2).

use std::env;
use std::time::Duration;

use bytes::Bytes;
use http::header::HOST;
use http::{HeaderMap, Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use crate::AppError;

/// The largest answer that is read.
const MAX_BODY: usize = 1 << 20;

/// How an application calls others.
#[derive(Clone, Debug, Default)]
pub struct Client {
    /// `host:port` of the proxy.
    proxy: Option<String>,
}

/// Why a call gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// It took longer than allowed.
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    /// The connection failed, or the answer was malformed or too large.
    #[error("{0}")]
    Transport(String),
}

/// An answer, whole.
#[derive(Debug)]
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// The body.
    pub body: Bytes,
}

impl Client {
    /// A client by the environment's `http_proxy`.
    ///
    /// # Errors
    /// When it is not of the form `http://host:port`.
    pub fn from_env() -> Result<Self, AppError> {
        let Some(text) = env::var("http_proxy").ok().filter(|text| !text.is_empty()) else {
            return Ok(Self::default());
        };
        let bad = || AppError::Setting(format!("http_proxy={text}: write http://host:port"));
        let uri: Uri = text.parse().map_err(|_| bad())?;
        let authority = uri.authority().ok_or_else(bad)?;
        Ok(Self::through(format!("{}:{}", authority.host(), authority.port_u16().unwrap_or(80))))
    }

    /// A client whose every call goes through the proxy at `host:port`.
    pub fn through(proxy: String) -> Self {
        Self { proxy: Some(proxy) }
    }

    /// `GET`s `http://host:port/path`.
    ///
    /// # Errors
    /// When there is no whole answer within `timeout`; any status is an answer.
    pub async fn get(
        &self,
        authority: &str,
        path: &str,
        headers: HeaderMap,
        timeout: Duration,
    ) -> Result<Answer, CallError> {
        tokio::time::timeout(timeout, self.exchange(authority, path, headers))
            .await
            .map_err(|_| CallError::Timeout(timeout))?
    }

    async fn exchange(&self, authority: &str, path: &str, headers: HeaderMap) -> Result<Answer, CallError> {
        let (connect_to, target) = match &self.proxy {
            Some(proxy) => (proxy.as_str(), format!("http://{authority}{path}")),
            None => (authority, path.to_owned()),
        };
        let stream = TcpStream::connect(connect_to).await.map_err(transport)?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(transport)?;
        let connection = tokio::spawn(connection);
        let mut request = Request::builder()
            .method(Method::GET)
            .uri(target)
            .body(Empty::<Bytes>::new())
            .map_err(transport)?;
        *request.headers_mut() = headers;
        request.headers_mut().insert(HOST, authority.parse().map_err(transport)?);
        let response = sender.send_request(request).await.map_err(transport)?;
        let status = response.status();
        let body =
            Limited::new(response.into_body(), MAX_BODY).collect().await.map_err(transport)?.to_bytes();
        connection.abort();
        Ok(Answer { status, body })
    }
}

fn transport(error: impl std::fmt::Display) -> CallError {
    CallError::Transport(error.to_string())
}
