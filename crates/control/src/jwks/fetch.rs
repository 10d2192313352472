//! One fetch of keys over HTTP or HTTPS.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, HOST, LOCATION, USER_AGENT};
use http::{Method, Request, Response, Uri};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use ipnet::IpNet;
use lateen_xds::resolve::by_server;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::ClientConfig;
use tokio_rustls::rustls::pki_types::ServerName;

use super::address::may_call;
use crate::settings::{JwksSettings, Settings};

/// The largest answer that is read.
const LARGEST: usize = 1 << 20;
/// How often a server may send us elsewhere.
const REDIRECTS: usize = 3;
/// How long one fetch may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// Why keys were not fetched.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FetchError {
    #[error("{0:?} is no address of HTTP or HTTPS")]
    Address(String),
    #[error("{0} does not resolve: {1}")]
    Name(String, std::io::Error),
    #[error(
        "{0} is at a private address ({1}), and such are not called: allow it with LATEEN_JWKS_ALLOWED_CIDRS, or give the \
         keys as jwks"
    )]
    Private(String, SocketAddr),
    #[error("{0}: {1}")]
    Connect(SocketAddr, std::io::Error),
    #[error("TLS with {0}: {1}")]
    Tls(String, std::io::Error),
    #[error("no root certificates to check {0} by: {1}; give some as cacerts/extra.pem")]
    Roots(String, Arc<str>),
    #[error("{0}")]
    Http(#[from] hyper::Error),
    #[error("the proxy answered {0} to CONNECT")]
    Proxy(http::StatusCode),
    #[error("it answered {0}")]
    Status(http::StatusCode),
    #[error("it sent us elsewhere more than {REDIRECTS} times")]
    Redirects,
    #[error("its answer could not be read, or is larger than {LARGEST} bytes: {0}")]
    Body(String),
    #[error("it answered what is no JWKS: {0}")]
    Keys(String),
    #[error("no answer within {PATIENCE:?}")]
    Late,
}

/// How keys are fetched.
#[derive(Clone, Debug)]
pub(crate) struct Fetcher {
    /// Private addresses that may be called.
    pub(crate) allowed: Vec<IpNet>,
    /// An HTTP proxy; then it is the proxy that decides what may be called.
    pub(crate) proxy: Option<Uri>,
    /// Hosts that are called without it.
    pub(crate) no_proxy: Vec<String>,
    /// The DNS server to ask in the place of the system's resolver.
    pub(crate) dns: Option<SocketAddr>,
    /// TLS; or why there can be none.
    pub(crate) tls: Result<Arc<ClientConfig>, Arc<str>>,
}

impl Fetcher {
    /// By the control plane's settings; further roots are in its file `cacerts/extra.pem`.
    pub(crate) fn new(settings: &Settings) -> Self {
        let path = settings.root.join("cacerts/extra.pem");
        let tls = match std::fs::read_to_string(&path) {
            Ok(extra) => lateen_ca::tls::public_client(&extra),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => lateen_ca::tls::public_client(""),
            Err(error) => Err(format!("{}: {error}", path.display())),
        };
        let JwksSettings { allowed, proxy, no_proxy, dns, .. } = settings.jwks.clone();
        Self { allowed, proxy, no_proxy, dns, tls: tls.map_err(Into::into) }
    }

    /// Fetches the keys at an address.
    pub(crate) async fn fetch(&self, uri: &str) -> Result<String, FetchError> {
        let text = tokio::time::timeout(PATIENCE, self.follow(uri)).await.map_err(|_| FetchError::Late)??;
        check(&text).map_err(FetchError::Keys)?;
        Ok(text)
    }

    async fn follow(&self, uri: &str) -> Result<String, FetchError> {
        let mut uri = uri.to_owned();
        for _ in 0..=REDIRECTS {
            let target = Target::parse(&uri)?;
            let response = self.ask(&target).await?;
            match response.status().as_u16() {
                200 => return body(response).await,
                301 | 302 | 303 | 307 | 308 => uri = target.elsewhere(&response)?,
                _ => return Err(FetchError::Status(response.status())),
            }
        }
        Err(FetchError::Redirects)
    }

    async fn ask(&self, target: &Target) -> Result<Response<Incoming>, FetchError> {
        match self.proxy.as_ref().filter(|_| !self.is_direct(&target.host)) {
            None => self.ask_on(target, self.connect(target).await?).await,
            Some(proxy) => {
                let proxy = Target::parse(&proxy.to_string())?;
                let found = self.look_up(&proxy).await;
                let tunnel = tunnel(&proxy, target, found).await?;
                self.ask_on(target, tunnel).await
            }
        }
    }

    async fn look_up(&self, target: &Target) -> std::io::Result<Vec<SocketAddr>> {
        match self.dns {
            Some(server) => {
                let found = by_server(server)(format!("{}:{}", target.host, target.port));
                found.await.map(|address| vec![address])
            }
            None => Ok(tokio::net::lookup_host((target.bare_host(), target.port)).await?.collect()),
        }
    }

    fn is_direct(&self, host: &str) -> bool {
        self.no_proxy.iter().any(|entry| {
            let entry = entry.trim().trim_start_matches('.');
            let below = host.strip_suffix(entry);
            entry == "*"
                || (!entry.is_empty() && below.is_some_and(|rest| rest.is_empty() || rest.ends_with('.')))
        })
    }

    async fn ask_on(
        &self,
        target: &Target,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    ) -> Result<Response<Incoming>, FetchError> {
        if !target.tls {
            return get(target, stream).await;
        }
        let config = self.tls.clone().map_err(|why| FetchError::Roots(target.host.clone(), why))?;
        let name = ServerName::try_from(target.bare_host().to_owned())
            .map_err(|_| FetchError::Address(target.host.clone()))?;
        let stream = TlsConnector::from(config).connect(name, stream).await;
        get(target, stream.map_err(|error| FetchError::Tls(target.host.clone(), error))?).await
    }

    /// A connection to an address that may be called: what was looked up is what is called.
    async fn connect(&self, target: &Target) -> Result<TcpStream, FetchError> {
        let found = self.look_up(target).await;
        let mut failure = None;
        for address in found.map_err(|error| FetchError::Name(target.host.clone(), error))? {
            if !may_call(address.ip(), &self.allowed) {
                failure = Some(FetchError::Private(target.host.clone(), address));
                continue;
            }
            match TcpStream::connect(address).await {
                Ok(stream) => return Ok(stream),
                Err(error) => failure = Some(FetchError::Connect(address, error)),
            }
        }
        Err(failure.unwrap_or_else(|| {
            FetchError::Name(target.host.clone(), std::io::Error::other("there is no address"))
        }))
    }
}

/// What is asked, and where.
#[derive(Debug)]
struct Target {
    tls: bool,
    host: String,
    port: u16,
    authority: String,
    path: String,
}

impl Target {
    fn parse(text: &str) -> Result<Self, FetchError> {
        let bad = || FetchError::Address(text.to_owned());
        let uri: Uri = text.parse().map_err(|_| bad())?;
        let tls = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(bad()),
        };
        let authority =
            uri.authority().filter(|authority| !authority.as_str().contains('@')).ok_or_else(bad)?;
        let port = authority.port_u16().unwrap_or(if tls { 443 } else { 80 });
        Ok(Self {
            tls,
            host: authority.host().to_owned(),
            port,
            authority: authority.to_string(),
            path: uri.path_and_query().map_or("/", |path| path.as_str()).to_owned(),
        })
    }

    /// The host without the brackets of an IPv6 address.
    fn bare_host(&self) -> &str {
        self.host.trim_start_matches('[').trim_end_matches(']')
    }

    /// Where an answer sends us; never from HTTPS to HTTP.
    fn elsewhere(&self, response: &Response<Incoming>) -> Result<String, FetchError> {
        let location = response.headers().get(LOCATION).and_then(|value| value.to_str().ok());
        let location = location.ok_or(FetchError::Status(response.status()))?;
        if location.starts_with('/') && !location.starts_with("//") {
            let scheme = if self.tls { "https" } else { "http" };
            return Ok(format!("{scheme}://{}{location}", self.authority));
        }
        match self.tls && !location.starts_with("https://") {
            true => Err(FetchError::Address(location.to_owned())),
            false => Ok(location.to_owned()),
        }
    }
}

async fn get(
    target: &Target,
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
) -> Result<Response<Incoming>, FetchError> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    // Ends with the sender and the response's body.
    tokio::spawn(connection);
    let request = Request::builder()
        .uri(&target.path)
        .header(HOST, &target.authority)
        .header(ACCEPT, "application/json")
        .header(USER_AGENT, concat!("lateen/", env!("CARGO_PKG_VERSION")))
        .body(Empty::<Bytes>::new())
        .map_err(|error| FetchError::Address(error.to_string()))?;
    Ok(sender.send_request(request).await?)
}

/// A connection through an HTTP proxy.
async fn tunnel(
    proxy: &Target,
    target: &Target,
    found: std::io::Result<Vec<SocketAddr>>,
) -> Result<impl AsyncRead + AsyncWrite + Unpin + Send + 'static, FetchError> {
    let found = found.map_err(|error| FetchError::Name(proxy.host.clone(), error))?;
    let nowhere = || FetchError::Name(proxy.host.clone(), std::io::Error::other("there is no address"));
    let address = *found.first().ok_or_else(nowhere)?;
    let stream = TcpStream::connect(address).await.map_err(|error| FetchError::Connect(address, error))?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection.with_upgrades());
    let to = format!("{}:{}", target.host, target.port);
    let request = Request::builder()
        .method(Method::CONNECT)
        .uri(&to)
        .header(HOST, &to)
        .body(Empty::<Bytes>::new())
        .map_err(|error| FetchError::Address(error.to_string()))?;
    let response = sender.send_request(request).await?;
    match response.status().is_success() {
        true => Ok(TokioIo::new(hyper::upgrade::on(response).await?)),
        false => Err(FetchError::Proxy(response.status())),
    }
}

async fn body(response: Response<Incoming>) -> Result<String, FetchError> {
    let read = Limited::new(response.into_body(), LARGEST).collect().await;
    let bytes = read.map_err(|error| FetchError::Body(error.to_string()))?.to_bytes();
    String::from_utf8(bytes.into()).map_err(|error| FetchError::Body(error.to_string()))
}

/// Whether it is a set of keys: what is none must not take the place of one.
fn check(text: &str) -> Result<(), String> {
    let json: serde_json::Value = serde_json::from_str(text).map_err(|error| error.to_string())?;
    match json["keys"].as_array() {
        Some(keys) if keys.iter().all(|key| key["kty"].is_string()) => Ok(()),
        _ => Err("a JSON object with the list \"keys\" is wanted".to_owned()),
    }
}
