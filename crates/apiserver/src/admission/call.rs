//! The HTTPS call to a webhook.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::pki_types::{CertificateDer, ServerName, pem::PemObject};
use rustls::{ClientConfig, RootCertStore};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::webhooks::Webhook;
use crate::api::Api;

/// Answers larger than this are refused.
const LARGEST_ANSWER: usize = 8 << 20;

/// Where a webhook is and how it is known.
pub(super) struct Target {
    address: SocketAddr,
    /// Name in the certificate.
    host: String,
    port: u16,
    path: String,
    /// PEM; empty: nobody is trusted.
    authorities: Vec<u8>,
    timeout: Duration,
}

impl Target {
    /// From a webhook's `clientConfig`.
    pub(super) async fn of(api: &Api, webhook: &Webhook) -> Result<Self, String> {
        let config = &webhook.client;
        let bundle = config["caBundle"].as_str().unwrap_or_default();
        let authorities = STANDARD.decode(bundle).map_err(|e| format!("caBundle is not base64: {e}"))?;
        let timeout = webhook.timeout;
        let (address, host, port, path) = match (config["url"].as_str(), config["service"].as_object()) {
            (Some(url), _) => from_url(url).await?,
            (None, Some(_)) => from_service(api, &config["service"]).await?,
            (None, None) => return Err("clientConfig has neither url nor service".into()),
        };
        let separator = if path.contains('?') { '&' } else { '?' };
        let path = format!("{path}{separator}timeout={}s", timeout.as_secs());
        Ok(Self { address, host, port, path, authorities, timeout })
    }
}

async fn from_url(url: &str) -> Result<(SocketAddr, String, u16, String), String> {
    let uri: http::Uri = url.parse().map_err(|e| format!("url {url}: {e}"))?;
    let host = uri.host().ok_or_else(|| format!("url {url}: no host"))?.trim_matches(['[', ']']).to_owned();
    if uri.scheme_str() != Some("https") {
        return Err(format!("url {url}: want https"));
    }
    let port = uri.port_u16().unwrap_or(443);
    let found = tokio::net::lookup_host((host.as_str(), port)).await;
    let first = found.map_err(|e| format!("{host}: {e}"))?.next();
    let address = first.ok_or_else(|| format!("{host}: no address"))?;
    let path = uri.path_and_query().map_or("/", |p| p.as_str()).to_owned();
    Ok((address, host, port, path))
}

async fn from_service(api: &Api, service: &Value) -> Result<(SocketAddr, String, u16, String), String> {
    let text = |key: &str| service[key].as_str().unwrap_or_default();
    let (namespace, name) = (text("namespace"), text("name"));
    let port = service["port"].as_u64().and_then(|p| u16::try_from(p).ok()).unwrap_or(443);
    let resolver = api.providers.services().ok_or_else(|| {
        format!("service {namespace}/{name} cannot be reached: this API server runs without services")
    })?;
    let address = resolver.resolve(namespace, name, port).await.map_err(|status| status.to_string())?;
    let path =
        if text("path").starts_with('/') { text("path").to_owned() } else { format!("/{}", text("path")) };
    Ok((address, format!("{name}.{namespace}.svc"), port, path))
}

impl Target {
    /// Posts the review and returns the answer's body.
    pub(super) async fn call(self, review: &Value) -> Result<Value, String> {
        let timeout = self.timeout;
        let url = format!("https://{}:{}{}", self.host, self.port, self.path);
        match tokio::time::timeout(timeout, post(self, review)).await {
            Ok(done) => done.map_err(|why| format!("Post \"{url}\": {why}")),
            Err(_) => Err(format!(
                "Post \"{url}\": context deadline exceeded (no answer within {} s)",
                timeout.as_secs()
            )),
        }
    }
}

async fn post(target: Target, review: &Value) -> Result<Value, String> {
    let Target { address, host, path, authorities, .. } = target;
    let reason = |e: &dyn std::error::Error| format!("dial tcp {address}: {e}");
    let stream = TcpStream::connect(address).await.map_err(|e| reason(&e))?;
    let name = ServerName::try_from(host.clone()).map_err(|e| reason(&e))?;
    let connector = TlsConnector::from(Arc::new(client_config(&authorities)?));
    let stream = connector.connect(name, stream).await.map_err(|e| reason(&e))?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|e| reason(&e))?;
    let connection = tokio::spawn(connection);
    let request = http::Request::post(&path)
        .header("host", &host)
        .header("content-type", "application/json")
        .header("accept", "application/json")
        .body(Full::new(Bytes::from(review.to_string())))
        .map_err(|e| reason(&e))?;
    let answer = sender.send_request(request).await.map_err(|e| reason(&e));
    let answer = match answer {
        Ok(answer) => read(answer).await,
        Err(why) => Err(why),
    };
    connection.abort();
    answer
}

async fn read(answer: http::Response<hyper::body::Incoming>) -> Result<Value, String> {
    let status = answer.status();
    let body = Limited::new(answer.into_body(), LARGEST_ANSWER)
        .collect()
        .await
        .map_err(|e| e.to_string())?
        .to_bytes();
    if !status.is_success() {
        return Err(format!("answered {status}: {}", String::from_utf8_lossy(&body[..body.len().min(200)])));
    }
    serde_json::from_slice(&body).map_err(|e| format!("the answer is not JSON: {e}"))
}

fn client_config(authorities: &[u8]) -> Result<ClientConfig, String> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(authorities) {
        let certificate = certificate.map_err(|e| format!("caBundle: {e}"))?;
        roots.add(certificate).map_err(|e| format!("caBundle: {e}"))?;
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| e.to_string())?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}
