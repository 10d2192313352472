//! The plain forwarder of a pod without a sidecar: an HTTP proxy that resolves services as kube-proxy would balance them.
//!
//! It makes up no answer: where the other side refuses or resets, the client's connection is reset.

use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONNECTION, HOST, HeaderName, HeaderValue};
use http::uri::{Authority, PathAndQuery};
use http::{Method, Request, Response, StatusCode, Uri, Version};
use http_body::{Body, Frame, SizeHint};
use http_body_util::{BodyExt, Full, combinators::BoxBody};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use socket2::SockRef;
use tokio::net::TcpStream;

use super::directory::DirectoryHandle;
use super::{forward, relay};

type Outgoing = BoxBody<Bytes, hyper::Error>;

/// What a forwarder knows.
#[derive(Clone)]
struct Forwarder {
    directory: DirectoryHandle,
    /// The pod's address: others see it as the caller.
    source: Ipv4Addr,
    /// The pod's namespace, which completes short names.
    home: Arc<str>,
}

/// The client's socket once more, to reset what hyper owns.
#[derive(Clone)]
struct Resetter(Arc<std::os::fd::OwnedFd>);

impl Resetter {
    fn new(stream: &TcpStream) -> io::Result<Self> {
        use std::os::fd::AsFd;
        Ok(Self(Arc::new(stream.as_fd().try_clone_to_owned()?)))
    }

    /// From now on closing the connection resets it.
    fn arm(&self) {
        // A socket that is gone already needs no reset.
        let _ = SockRef::from(&*self.0).set_linger(Some(Duration::ZERO));
    }
}

/// The exchange cannot be answered: the connection ends.
#[derive(Debug, thiserror::Error)]
#[error("the other side refused or reset the connection")]
struct Broken;

/// Serves until it is dropped.
pub(crate) async fn serve(at: SocketAddr, source: Ipv4Addr, home: String, directory: DirectoryHandle) {
    let SocketAddr::V4(address) = at else { return };
    let listener = match forward::listen(address) {
        Ok(listener) => listener,
        Err(error) => return tracing::warn!(%error, %at, "the forwarder of a pod cannot listen"),
    };
    let forwarder = Forwarder { directory, source, home: home.into() };
    let mut connections = tokio::task::JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => { connections.spawn(forwarder.clone().connection(stream)); }
                Err(error) => {
                    tracing::warn!(%error, %at, "the forwarder of a pod cannot accept");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

impl Forwarder {
    async fn connection(self, stream: TcpStream) {
        let Ok(resetter) = Resetter::new(&stream) else { return };
        let service = service_fn(|request| {
            let (this, resetter) = (self.clone(), resetter.clone());
            async move {
                let answer = this.exchange(request, &resetter).await;
                if answer.is_err() {
                    resetter.arm();
                }
                answer
            }
        });
        let served = hyper::server::conn::http1::Builder::new()
            .preserve_header_case(true)
            .serve_connection(TokioIo::new(stream), service)
            .with_upgrades()
            .await;
        if let Err(error) = served {
            tracing::debug!(%error, "a forwarded connection ended");
        }
    }

    async fn exchange(
        &self,
        request: Request<Incoming>,
        resetter: &Resetter,
    ) -> Result<Response<Outgoing>, Broken> {
        let Some(authority) = target(&request) else {
            return Ok(say(
                StatusCode::BAD_REQUEST,
                "this is a proxy: ask for an absolute URL, or use CONNECT\n",
            ));
        };
        let default = if request.uri().scheme_str() == Some("https") { 443 } else { 80 };
        let port = authority.port_u16().unwrap_or(default);
        let upstream = match self.connect(authority.host(), port).await {
            Ok(upstream) => upstream,
            Err(Some(unknown)) => return Ok(say(StatusCode::BAD_GATEWAY, &unknown)),
            Err(None) => return Err(Broken),
        };
        if request.method() == Method::CONNECT {
            tokio::spawn(tunnel(request, upstream, resetter.clone()));
            return Ok(Response::new(empty()));
        }
        send(request, &authority, upstream, resetter).await
    }

    /// A connection to a service, a pod, or an address elsewhere. The error's text is for a name that does not exist.
    async fn connect(&self, host: &str, port: u16) -> Result<TcpStream, Option<String>> {
        let backends = self.directory.borrow().backends(host, port, &self.home);
        let source = IpAddr::V4(self.source);
        if let Some(backends) = backends {
            return forward::reach(&backends, source, source).await.ok_or(None);
        }
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let unknown = || Some(format!("could not resolve host {host}\n"));
        let outside = self.directory.borrow().outside(host);
        let found: Vec<SocketAddr> = match outside {
            Some(address) => vec![(address, port).into()],
            None => tokio::net::lookup_host((host, port)).await.map_err(|_| unknown())?.collect(),
        };
        for address in found {
            if let Ok(stream) = relay::connect(address, Some(source)).await {
                return Ok(stream);
            }
        }
        Err(None)
    }
}

fn target(request: &Request<Incoming>) -> Option<Authority> {
    request.uri().authority().cloned()
}

async fn tunnel(request: Request<Incoming>, mut upstream: TcpStream, resetter: Resetter) {
    let Ok(upgraded) = hyper::upgrade::on(request).await else { return };
    let mut client = TokioIo::new(upgraded);
    if tokio::io::copy_bidirectional(&mut client, &mut upstream).await.is_err() {
        resetter.arm();
        relay::reset(upstream);
    }
}

/// Sends a request on a connection of its own.
async fn send(
    mut request: Request<Incoming>,
    authority: &Authority,
    upstream: TcpStream,
    resetter: &Resetter,
) -> Result<Response<Outgoing>, Broken> {
    let (mut sender, connection) = hyper::client::conn::http1::Builder::new()
        .preserve_header_case(true)
        .handshake(TokioIo::new(upstream))
        .await
        .map_err(|_| Broken)?;
    tokio::spawn(connection.with_upgrades());
    let path = request.uri().path_and_query().cloned().unwrap_or(PathAndQuery::from_static("/"));
    *request.uri_mut() = Uri::from(path);
    *request.version_mut() = Version::HTTP_11;
    let headers = request.headers_mut();
    headers.remove(HeaderName::from_static("proxy-connection"));
    headers.remove(CONNECTION);
    if !headers.contains_key(HOST) {
        let host = HeaderValue::from_str(authority.as_str()).map_err(|_| Broken)?;
        headers.insert(HOST, host);
    }
    let response = sender.send_request(request).await.map_err(|_| Broken)?;
    let resetter = resetter.clone();
    Ok(response.map(|body| Watched { body, resetter }.boxed()))
}

fn empty() -> Outgoing {
    say(StatusCode::OK, "").into_body()
}

fn say(status: StatusCode, text: &str) -> Response<Outgoing> {
    let body = Full::new(Bytes::copy_from_slice(text.as_bytes())).map_err(|never: Infallible| match never {});
    let mut response = Response::new(body.boxed());
    *response.status_mut() = status;
    response
}

/// A body whose failure resets the client.
struct Watched {
    body: Incoming,
    resetter: Resetter,
}

impl Body for Watched {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(context);
        if let Poll::Ready(Some(Err(_))) = &polled {
            self.resetter.arm();
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::directory::Directory;
    use serde_json::json;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;
    use tokio::sync::watch;

    /// A forwarder, and an endpoint of service `web` (port 80) of its namespace.
    async fn world() -> (SocketAddr, TcpListener, tokio::task::JoinHandle<()>) {
        let endpoint = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = endpoint.local_addr().unwrap().port();
        let service = json!({"metadata": {"name": "web", "namespace": "n"},
            "spec": {"clusterIP": "127.210.0.9", "ports": [{"port": 80}]}});
        let slice = json!({"metadata": {"name": "w", "namespace": "n",
                "labels": {"kubernetes.io/service-name": "web"}},
            "addressType": "IPv4", "ports": [{"port": port}], "endpoints": [{"addresses": ["127.0.0.1"]}]});
        let service = Arc::new(serde_json::from_value(service).unwrap());
        let slice = Arc::new(serde_json::from_value(slice).unwrap());
        let (_sender, handle) = watch::channel(Arc::new(Directory::new(&[service], &[slice])));
        let free = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = free.local_addr().unwrap();
        drop(free);
        let server = tokio::spawn(serve(at, Ipv4Addr::LOCALHOST, "n".into(), handle));
        (at, endpoint, server)
    }

    async fn ask(at: SocketAddr, text: &str) -> TcpStream {
        let deadline = tokio::time::Instant::now() + Duration::from_secs(60);
        let mut stream = loop {
            match TcpStream::connect(at).await {
                Ok(stream) => break stream,
                Err(error) => assert!(tokio::time::Instant::now() < deadline, "{error}"),
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        };
        stream.write_all(text.as_bytes()).await.unwrap();
        stream
    }

    async fn head(stream: &mut TcpStream) -> String {
        let mut text = Vec::new();
        while !text.ends_with(b"\r\n\r\n") {
            text.push(stream.read_u8().await.unwrap());
        }
        String::from_utf8(text).unwrap()
    }

    #[tokio::test]
    async fn requests_reach_the_service_in_origin_form() {
        let (at, endpoint, server) = world().await;
        let mut client = ask(at, "GET http://web/status?x=1 HTTP/1.1\r\nHost: web\r\nX-A: b\r\n\r\n").await;
        let (mut upstream, _) = endpoint.accept().await.unwrap();
        let request = head(&mut upstream).await;
        assert!(request.starts_with("GET /status?x=1 HTTP/1.1\r\n"), "{request}");
        assert!(request.contains("Host: web\r\n") && request.contains("X-A: b\r\n"), "{request}");
        upstream.write_all(b"HTTP/1.1 418 Teapot\r\ncontent-length: 2\r\n\r\nhi").await.unwrap();
        assert!(head(&mut client).await.starts_with("HTTP/1.1 418"));
        server.abort();
    }

    #[tokio::test]
    async fn a_reset_stays_a_reset() {
        let (at, endpoint, server) = world().await;
        let mut client = ask(at, "GET http://web/ HTTP/1.1\r\nHost: web\r\n\r\n").await;
        let (mut upstream, _) = endpoint.accept().await.unwrap();
        head(&mut upstream).await;
        relay::reset(upstream);
        let error = client.read_u8().await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
        drop(endpoint);
        let mut client = ask(at, "GET http://web/ HTTP/1.1\r\nHost: web\r\n\r\n").await;
        let error = client.read_u8().await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
        server.abort();
    }

    #[tokio::test]
    async fn tunnels_carry_bytes() {
        let (at, endpoint, server) = world().await;
        let mut client = ask(at, "CONNECT web.n:80 HTTP/1.1\r\nHost: web.n:80\r\n\r\n").await;
        let (mut upstream, _) = endpoint.accept().await.unwrap();
        assert!(head(&mut client).await.starts_with("HTTP/1.1 200"));
        upstream.write_all(b"hello").await.unwrap();
        let mut buffer = [0; 5];
        client.read_exact(&mut buffer).await.unwrap();
        assert_eq!(&buffer, b"hello");
        server.abort();
    }

    #[tokio::test]
    async fn a_request_that_is_none_for_a_proxy_is_refused() {
        let (at, _endpoint, server) = world().await;
        let mut client = ask(at, "GET / HTTP/1.1\r\nHost: web\r\n\r\n").await;
        assert!(head(&mut client).await.starts_with("HTTP/1.1 400"));
        server.abort();
    }
}
