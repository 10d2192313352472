//! Origins, clients, resources.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use lateen_proxy::{Config, Handle, Resources};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Every wait ends after this.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

/// Waits at most [`DEADLINE`].
pub(crate) async fn within<T>(what: &str, work: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, work)
        .await
        .unwrap_or_else(|_| panic!("{what} took more than {DEADLINE:?}"))
}

/// Waits until a condition holds.
pub(crate) async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    within(what, async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

pub(crate) type Seen = Arc<Mutex<Vec<Request<Bytes>>>>;

/// A server that remembers what it was asked and answers as `answer` says.
pub(crate) struct Origin {
    pub(crate) address: SocketAddr,
    pub(crate) seen: Seen,
}

impl Origin {
    /// Answers every request with 200 and a line that says what it saw.
    pub(crate) async fn echo() -> Self {
        Self::start(|request| {
            let mut text = format!("{} {}\n", request.method(), request.uri());
            for (name, value) in request.headers() {
                text.push_str(&format!("{name}: {}\n", value.to_str().unwrap_or("?")));
            }
            text.push_str(&String::from_utf8_lossy(request.body()));
            Response::new(Full::new(Bytes::from(text)))
        })
        .await
    }

    pub(crate) async fn start(
        answer: impl Fn(&Request<Bytes>) -> Response<Full<Bytes>> + Send + Sync + 'static,
    ) -> Self {
        Self::at("127.0.0.1:0".parse().unwrap(), answer).await
    }

    pub(crate) async fn at(
        address: SocketAddr,
        answer: impl Fn(&Request<Bytes>) -> Response<Full<Bytes>> + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Seen::default();
        let answer = Arc::new(answer);
        let all = seen.clone();
        tokio::spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                let (answer, seen) = (answer.clone(), all.clone());
                let service = service_fn(move |request: Request<Incoming>| {
                    let (answer, seen) = (answer.clone(), seen.clone());
                    async move {
                        let (parts, body) = request.into_parts();
                        let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
                        let request = Request::from_parts(parts, body);
                        let response = answer(&request);
                        seen.lock().unwrap().push(request);
                        Ok::<_, Infallible>(response)
                    }
                });
                tokio::spawn(async move {
                    let builder = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
                    drop(builder.serve_connection(TokioIo::new(tcp), service).await);
                });
            }
        });
        Self { address, seen }
    }

    pub(crate) fn count(&self) -> usize {
        self.seen.lock().unwrap().len()
    }
}

/// Starts a proxy with one worker per core of a small machine.
pub(crate) fn proxy(resources: Value) -> Handle {
    try_proxy(resources).unwrap()
}

pub(crate) fn try_proxy(resources: Value) -> Result<Handle, String> {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("resources.json");
    std::fs::write(&file, resources.to_string()).unwrap();
    let config = Config {
        xds_file: Some(file),
        concurrency: 2,
        drain_time: Duration::from_millis(200),
        ..Config::default()
    };
    config.build().map_err(|error| error.to_string())
}

pub(crate) fn resources(value: Value) -> Resources {
    Resources::from_json(&value).unwrap()
}

pub(crate) fn socket(address: SocketAddr) -> Value {
    json!({"socket_address": {"address": address.ip().to_string(), "port_value": address.port()}})
}

/// A static cluster.
pub(crate) fn cluster(name: &str, hosts: &[SocketAddr]) -> Value {
    let endpoints: Vec<Value> =
        hosts.iter().map(|host| json!({"endpoint": {"address": socket(*host)}})).collect();
    json!({
        "name": name,
        "type": "STATIC",
        "connect_timeout": "5s",
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": endpoints}]},
    })
}

pub(crate) fn http2_options() -> Value {
    json!({"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
        "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
        "explicit_http_config": {"http2_protocol_options": {}},
    }})
}

/// A listener on port 0 with one chain.
pub(crate) fn listener(name: &str, filters: Value) -> Value {
    json!({
        "name": name,
        "address": socket("127.0.0.1:0".parse().unwrap()),
        "filter_chains": [{"name": name, "filters": filters}],
    })
}

/// All paths to a cluster.
pub(crate) fn routes(cluster: &str) -> Value {
    json!([{"match": {"prefix": "/"}, "route": {"cluster": cluster}}])
}

/// Listener `l`, which sends everything to `origin`.
pub(crate) fn echoing(origin: &Origin) -> Value {
    json!({
        "listeners": [listener("l", json!([manager(routes("echo"))]))],
        "clusters": [cluster("echo", &[origin.address])],
    })
}

/// A connection manager with these routes.
pub(crate) fn manager(routes: Value) -> Value {
    manager_with(routes, json!({}))
}

/// A connection manager with these routes and settings.
pub(crate) fn manager_with(routes: Value, more: Value) -> Value {
    let filter = |name: &str, kind: &str| json!({"name": name, "typed_config": {"@type": format!("type.googleapis.com/envoy.extensions.filters.http.{kind}")}});
    let mut config = json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "test",
        "http_filters": [
            filter("envoy.filters.http.fault", "fault.v3.HTTPFault"),
            filter("envoy.filters.http.cors", "cors.v3.Cors"),
            filter("envoy.filters.http.router", "router.v3.Router"),
        ],
        "route_config": {"name": "routes", "virtual_hosts": [
            {"name": "all", "domains": ["*"], "include_request_attempt_count": true, "routes": routes},
        ]},
    });
    for (name, value) in more.as_object().unwrap() {
        config[name] = value.clone();
    }
    json!({"name": "envoy.filters.network.http_connection_manager", "typed_config": config})
}

/// A file access log of this format.
pub(crate) fn access_log(path: &str, format: &str) -> Value {
    json!([{
        "name": "envoy.access_loggers.file",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog",
            "path": path,
            "log_format": {"text_format_source": {"inline_string": format}},
        },
    }])
}

/// An answer read from a socket.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }
}

/// A GET on a connection of its own.
pub(crate) async fn get(address: SocketAddr, path: &str) -> Answer {
    ask(address, &format!("GET {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n")).await
}

/// Sends a request as it stands and reads the answer to the end of the connection.
pub(crate) async fn ask(address: SocketAddr, request: &str) -> Answer {
    within("an answer", async {
        let mut tcp = TcpStream::connect(address).await.unwrap();
        tcp.write_all(request.as_bytes()).await.unwrap();
        let mut bytes = Vec::new();
        tcp.read_to_end(&mut bytes).await.unwrap();
        parse(&bytes)
    })
    .await
}

/// A request on a connection that stays open; the answer has to have a length.
pub(crate) async fn ask_on(tcp: &mut TcpStream, request: &str) -> Answer {
    within("an answer", async {
        tcp.write_all(request.as_bytes()).await.unwrap();
        let mut bytes = Vec::new();
        loop {
            assert!(
                tcp.read_buf(&mut bytes).await.unwrap() > 0,
                "closed after {:?}",
                String::from_utf8_lossy(&bytes)
            );
            let text = String::from_utf8_lossy(&bytes);
            let Some(end) = text.find("\r\n\r\n") else { continue };
            let answer = parse(&bytes);
            let length: usize = answer.header("content-length").unwrap().parse().unwrap();
            if text.len() >= end + 4 + length {
                return answer;
            }
        }
    })
    .await
}

pub(crate) fn parse(bytes: &[u8]) -> Answer {
    let text = String::from_utf8_lossy(bytes);
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {text:?}"));
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap();
    Answer { status, head: head.to_owned(), body: body.to_owned() }
}

/// The lines of a log, once there are so many.
pub(crate) async fn log_lines(path: &std::path::Path, count: usize) -> Vec<String> {
    let read = || -> Vec<String> {
        std::fs::read_to_string(path).unwrap_or_default().lines().map(str::to_owned).collect()
    };
    let enough = async {
        while read().len() < count {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    if tokio::time::timeout(DEADLINE, enough).await.is_err() {
        panic!("{} has no {count} lines after {DEADLINE:?}: {:?}", path.display(), read());
    }
    read()
}
