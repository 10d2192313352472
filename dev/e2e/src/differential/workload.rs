//! Scripted workloads: servers that answer as the request asks, and remember what came.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt as _;
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{
    AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, BufReader,
};
use tokio::net::{TcpListener, TcpStream};

use super::Problem;
use super::authority::{Authority, common_name};
use super::authorizer;
use super::behaviour::Behaviour;

/// What is spoken at a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Speaks {
    /// HTTP/1 and HTTP/2 in the clear.
    Http,
    /// The same over TLS.
    Https,
    /// Lines of text.
    Bytes,
    /// Envoy's protocol of authorization services.
    Checks,
}

/// One request as a workload saw it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) pod: String,
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) host: String,
    pub(crate) protocol: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: String,
    pub(crate) tls: String,
}

/// A pod by name and by what it speaks where.
type Pod = (String, Vec<(u16, Speaks)>);

/// What came from a proxy for a step.
type Book = Mutex<BTreeMap<(IpAddr, String), Vec<Seen>>>;

/// The workloads of a lane: each pod has an address, each of its ports a server.
pub(crate) struct Workloads {
    network: [u8; 3],
    next: AtomicU8,
    authority: Arc<Authority>,
    running: tokio::sync::Mutex<BTreeMap<Pod, Ipv4Addr>>,
    book: Arc<Book>,
}

/// What all servers of one port share.
#[derive(Clone)]
pub(super) struct Server {
    pod: Arc<str>,
    book: Arc<Book>,
}

impl Workloads {
    /// None yet; their addresses are in that network.
    pub(crate) fn new(network: [u8; 3], authority: Arc<Authority>) -> Self {
        Self { network, next: AtomicU8::new(1), authority, running: Default::default(), book: Arc::default() }
    }

    /// The address of a pod that speaks so; it is started when it is new.
    pub(crate) async fn run(&self, pod: &str, ports: &[(u16, Speaks)]) -> Result<Ipv4Addr, Problem> {
        let mut running = self.running.lock().await;
        let key = (pod.to_owned(), ports.to_vec());
        if let Some(address) = running.get(&key) {
            return Ok(*address);
        }
        let [a, b, c] = self.network;
        let address = Ipv4Addr::new(a, b, c, self.next.fetch_add(1, Ordering::Relaxed));
        for (port, speaks) in ports {
            let place = SocketAddr::from((address, *port));
            let listener = TcpListener::bind(place).await.map_err(|error| format!("{place}: {error}"))?;
            let tls = match speaks {
                Speaks::Https => Some(tokio_rustls::TlsAcceptor::from(Arc::new(self.authority.server(pod)?))),
                _ => None,
            };
            let server = Server { pod: pod.into(), book: self.book.clone() };
            match speaks {
                Speaks::Checks => drop(tokio::spawn(authorizer::serve(server, listener))),
                speaks => drop(tokio::spawn(server.listen(listener, *speaks, tls))),
            }
        }
        running.insert(key, address);
        Ok(address)
    }

    /// Forgets what came so far.
    pub(crate) fn forget(&self) {
        self.book.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// What came from a proxy for a step, in order; it is forgotten.
    pub(crate) fn take(&self, proxy: Ipv4Addr, step: &str) -> Vec<Seen> {
        let mut book = self.book.lock().unwrap_or_else(PoisonError::into_inner);
        book.remove(&(proxy.into(), step.to_owned())).unwrap_or_default()
    }
}

impl Server {
    /// The pod's name.
    pub(super) fn pod(&self) -> &str {
        &self.pod
    }

    async fn listen(self, listener: TcpListener, speaks: Speaks, tls: Option<tokio_rustls::TlsAcceptor>) {
        loop {
            let Ok((tcp, peer)) = listener.accept().await else { continue };
            let (server, tls) = (self.clone(), tls.clone());
            tokio::spawn(async move {
                match (speaks, tls) {
                    (Speaks::Bytes, _) => server.lines(tcp).await,
                    (_, None) => server.http(tcp, peer.ip(), String::new()).await,
                    (_, Some(tls)) => {
                        let Ok(stream) = tls.accept(tcp).await else { return };
                        let session = stream.get_ref().1;
                        let client = session.peer_certificates().and_then(<[_]>::first).map(common_name);
                        let about = format!(
                            "sni={} alpn={} client={}",
                            session.server_name().unwrap_or("-"),
                            String::from_utf8_lossy(session.alpn_protocol().unwrap_or(b"-")),
                            client.unwrap_or("-".into()),
                        );
                        server.http(stream, peer.ip(), about).await;
                    }
                }
            });
        }
    }

    async fn http(
        self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        peer: IpAddr,
        tls: String,
    ) {
        let service = service_fn(move |request| {
            let (server, tls) = (self.clone(), tls.clone());
            async move { server.answer(request, peer, tls).await }
        });
        let builder = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
        // A connection that a scenario breaks off is no failure.
        let _ = builder.serve_connection_with_upgrades(TokioIo::new(stream), service).await;
    }

    /// Remembers the request; says its place among those of its step.
    pub(super) fn note(&self, peer: IpAddr, step: String, seen: Seen) -> usize {
        let mut book = self.book.lock().unwrap_or_else(PoisonError::into_inner);
        let list = book.entry((peer, step)).or_default();
        list.push(seen);
        list.len() - 1
    }

    fn add_body(&self, peer: IpAddr, step: &str, place: usize, body: &str) {
        let mut book = self.book.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(seen) = book.get_mut(&(peer, step.to_owned())).and_then(|list| list.get_mut(place)) {
            seen.body = body.to_owned();
        }
    }

    async fn answer(
        &self,
        mut request: Request<Incoming>,
        peer: IpAddr,
        tls: String,
    ) -> Result<Response<Body>, String> {
        let header = |name: &str| {
            request.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned()
        };
        let (step, wishes) = (header("x-step"), header("x-do"));
        let seen = Seen {
            pod: self.pod.to_string(),
            method: request.method().to_string(),
            path: request.uri().path_and_query().map_or(String::new(), ToString::to_string),
            host: request.uri().authority().map_or_else(|| header("host"), ToString::to_string),
            protocol: format!("{:?}", request.version()),
            headers: request.headers().iter().map(text).collect(),
            body: String::new(),
            tls,
        };
        let place = self.note(peer, step.clone(), seen);
        let behaviour = match Behaviour::read(&wishes, &self.pod, place) {
            Ok(behaviour) => behaviour,
            Err(error) => return Ok(plain(StatusCode::NOT_IMPLEMENTED, error)),
        };
        if behaviour.upgrade {
            return Ok(self.upgrade(&mut request));
        }
        let mut received = String::new();
        if !behaviour.early {
            let collected = request.into_body().collect().await.map_err(|error| error.to_string())?;
            let trailers = collected.trailers().map(|map| map.iter().map(text).collect::<Vec<_>>());
            received = String::from_utf8_lossy(&collected.to_bytes()).into_owned();
            if let Some(trailers) = trailers {
                received.push_str(&format!(" trailers {trailers:?}"));
            }
            self.add_body(peer, &step, place, &received);
        }
        if behaviour.hang {
            std::future::pending::<()>().await;
        }
        tokio::time::sleep(behaviour.delay).await;
        if behaviour.reset {
            return Err("the scenario wants a reset".into());
        }
        let mut response =
            Response::builder().status(behaviour.status.unwrap_or(200)).header("x-from", &*self.pod);
        for (name, value) in &behaviour.headers {
            response = response.header(name, value);
        }
        let body = body(&behaviour, &received);
        response.body(body).map_err(|error| error.to_string())
    }

    fn upgrade(&self, request: &mut Request<Incoming>) -> Response<Body> {
        let kind = request.headers().get("upgrade").cloned();
        let connect = request.method() == hyper::Method::CONNECT;
        let upgrade = hyper::upgrade::on(request);
        tokio::spawn(async move {
            let Ok(upgraded) = upgrade.await else { return };
            let (mut from, mut to) = tokio::io::split(TokioIo::new(upgraded));
            // Either side may end it.
            let _ = tokio::io::copy(&mut from, &mut to).await;
            let _ = to.shutdown().await;
        });
        let status = if connect { StatusCode::OK } else { StatusCode::SWITCHING_PROTOCOLS };
        let mut response = plain(status, String::new());
        if let (Some(kind), false) = (kind, connect) {
            response.headers_mut().insert("upgrade", kind);
            response.headers_mut().insert("connection", http::HeaderValue::from_static("upgrade"));
        }
        response.headers_mut().insert("x-from", http::HeaderValue::from_str(&self.pod).unwrap());
        response
    }

    /// Answers each line with `POD LINE`. Lines that mean more: `close` ends the connection, `reset` breaks it off, `eof`
    /// waits for the client's end and then says so, `hold` says nothing more, `big N` sends N bytes.
    async fn lines(self, tcp: TcpStream) {
        let mut stream = BufReader::new(tcp);
        let mut line = String::new();
        while let Ok(1..) = {
            line.clear();
            stream.read_line(&mut line).await
        } {
            let words = line.trim().to_owned();
            let done = match words.split_once(' ').unwrap_or((&words, "")) {
                ("close", _) => {
                    let _ = stream.write_all(format!("{} close\n", self.pod).as_bytes()).await;
                    return;
                }
                ("reset", _) => {
                    let socket = stream.into_inner();
                    let _ = socket2::SockRef::from(&socket).set_linger(Some(Duration::ZERO));
                    return;
                }
                ("eof", _) => {
                    let mut rest = Vec::new();
                    let _ = stream.read_to_end(&mut rest).await;
                    stream.write_all(format!("{} eof\n", self.pod).as_bytes()).await
                }
                ("big", size) => {
                    let size = size.parse().unwrap_or(0);
                    stream.write_all(&vec![b'x'; size]).await
                }
                ("hold", _) => Ok(()),
                _ => stream.write_all(format!("{} {words}\n", self.pod).as_bytes()).await,
            };
            if done.is_err() {
                return;
            }
        }
    }
}

type Body = http_body_util::combinators::UnsyncBoxBody<Bytes, String>;

fn plain(status: StatusCode, text: String) -> Response<Body> {
    let body = http_body_util::Full::new(Bytes::from(text)).map_err(|never: Infallible| match never {});
    let mut response = Response::new(body.boxed_unsync());
    *response.status_mut() = status;
    response
}

fn body(behaviour: &Behaviour, received: &str) -> Body {
    let pieces = behaviour.pieces(received);
    let simple = behaviour.pieces.is_none() && behaviour.trailers.is_empty() && !behaviour.cut;
    if simple {
        let whole: String = pieces.into_iter().map(|(_, text)| text).collect();
        let body = http_body_util::Full::new(Bytes::from(whole));
        return body.map_err(|never: Infallible| match never {}).boxed_unsync();
    }
    let trailers: http::HeaderMap = behaviour
        .trailers
        .iter()
        .filter_map(|(name, value)| Some((name.parse::<http::HeaderName>().ok()?, value.parse().ok()?)))
        .collect();
    let last = match (behaviour.cut, trailers.is_empty()) {
        (true, _) => Some(Err("the scenario wants it cut".to_owned())),
        (false, false) => Some(Ok(Frame::trailers(trailers))),
        (false, true) => None,
    };
    let frames = futures::stream::iter(pieces).then(|(pause, text)| async move {
        tokio::time::sleep(pause).await;
        Ok(Frame::data(Bytes::from(text)))
    });
    // A cut comes after the pieces are on their way.
    let last = futures::stream::iter(last).then(|last| async move {
        tokio::time::sleep(Duration::from_millis(100)).await;
        last
    });
    StreamBody::new(frames.chain(last)).boxed_unsync()
}

fn text((name, value): (&http::HeaderName, &http::HeaderValue)) -> (String, String) {
    (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned())
}
