//! The application beside the proxy, asked as kubelet or Prometheus would: its probes and its metrics.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper_util::rt::TokioIo;
use lateen_ca::tls::{ClientSettings, Offers, PeerChecks, Version, client_config};
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// An answer, whole.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) body: Bytes,
}

/// What is asked of the application.
#[derive(Debug)]
pub(crate) struct Question<'a> {
    /// Where it is.
    pub(crate) address: SocketAddr,
    /// Whether it speaks TLS; its certificate is not looked at, as kubelet does not.
    pub(crate) tls: bool,
    /// Path and query.
    pub(crate) path: &'a str,
    /// The headers.
    pub(crate) headers: HeaderMap,
    /// How long the answer may take.
    pub(crate) within: Duration,
    /// How long it may be, in bytes.
    pub(crate) longest: usize,
}

/// Asks; an error says what failed.
pub(crate) async fn ask(question: Question<'_>) -> Result<Answer, String> {
    let (address, within) = (question.address, question.within);
    let exchange = async {
        let stream = TcpStream::connect(address).await.map_err(|error| error.to_string())?;
        match question.tls {
            false => converse(stream, question).await,
            true => converse(secured(stream, address.ip()).await?, question).await,
        }
    };
    let answer = tokio::time::timeout(within, exchange).await;
    answer
        .unwrap_or_else(|_| Err(format!("no answer within {within:?}")))
        .map_err(|e| format!("{address}: {e}"))
}

/// Opens a connection, and closes it.
pub(crate) async fn reach(address: SocketAddr, within: Duration) -> Result<(), String> {
    match tokio::time::timeout(within, TcpStream::connect(address)).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(format!("{address}: {error}")),
        Err(_) => Err(format!("{address}: no connection within {within:?}")),
    }
}

async fn secured(
    stream: TcpStream,
    address: IpAddr,
) -> Result<tokio_rustls::client::TlsStream<TcpStream>, String> {
    let settings = ClientSettings {
        identity: None,
        checks: PeerChecks::default(),
        alpn: Vec::new(),
        versions: (Version::Tls12, Version::Tls13),
        offers: Offers::default(),
        sni: false,
        match_server_name: false,
    };
    let config = client_config(settings).map_err(|error| error.to_string())?;
    let name = ServerName::IpAddress(address.into());
    TlsConnector::from(config).connect(name, stream).await.map_err(|error| error.to_string())
}

async fn converse<S>(stream: S, question: Question<'_>) -> Result<Answer, String>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut request = Request::builder().method(Method::GET).uri(question.path);
    if let Some(headers) = request.headers_mut() {
        *headers = question.headers;
        if !headers.contains_key(http::header::HOST) {
            let host = question.address.to_string().parse().map_err(|_| "no host")?;
            headers.insert(http::header::HOST, host);
        }
    }
    let request = request.body(Empty::<Bytes>::new()).map_err(|error| error.to_string())?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| error.to_string())?;
    let connection = tokio::spawn(connection);
    let exchange = async {
        let response = sender.send_request(request).await.map_err(|error| error.to_string())?;
        let status = response.status();
        let body = Limited::new(response.into_body(), question.longest)
            .collect()
            .await
            .map_err(|error| error.to_string())?;
        Ok(Answer { status, body: body.to_bytes() })
    };
    let answer = exchange.await;
    connection.abort();
    answer
}
