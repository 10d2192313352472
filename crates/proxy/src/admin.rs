//! The admin server: what the proxy has, does and counts, in Envoy's shapes. It runs on the control thread.

mod certs;
mod clusters;
mod config_dump;
mod figures;
mod listeners;
mod logging;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Instant, SystemTime};

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use lateen_proto::envoy::config::bootstrap::v3::Bootstrap;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::{Notify, oneshot};

use crate::handle::lock;
use crate::store::Store;
use crate::worker::Command;

/// What the server answers from.
#[derive(Debug)]
pub(crate) struct Admin {
    store: Arc<Mutex<Store>>,
    bootstrap: Bootstrap,
    started: Instant,
    started_at: SystemTime,
    concurrency: usize,
    /// Notified when the process is asked to end.
    pub quit: Arc<Notify>,
}

type Answer = Response<Full<Bytes>>;

const HELP: &str = "admin commands are:\n\
  /: this text\n\
  /certs: print certificates\n\
  /clusters: upstream cluster status; ?format=json\n\
  /config_dump: the configuration; ?include_eds, ?resource=, ?mask=, ?name_regex=\n\
  /drain_listeners (POST): drain listeners; ?graceful, ?inboundonly\n\
  /listeners: listener addresses; ?format=json\n\
  /logging (POST): log levels; ?level=, ?paths=NAME:LEVEL,..., ?NAME=LEVEL\n\
  /quitquitquit (POST): exit\n\
  /ready: readiness\n\
  /server_info: server version and status\n\
  /stats: statistics; ?filter=REGEX, ?usedonly, ?format=json|prometheus\n\
  /stats/prometheus: statistics as Prometheus reads them\n";

/// A query.
pub(crate) struct Query(BTreeMap<String, String>);

impl Query {
    fn parse(text: &str) -> Self {
        let decode = |part: &str| {
            let plain = part.replace('+', " ");
            percent_encoding::percent_decode_str(&plain).decode_utf8_lossy().into_owned()
        };
        let pairs = text.split('&').filter(|pair| !pair.is_empty());
        Self(
            pairs
                .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
                .map(|(name, value)| (decode(name), decode(value)))
                .collect(),
        )
    }

    /// A parameter's value.
    pub(crate) fn value(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// Whether a parameter is there.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    fn wants_json(&self) -> bool {
        self.value("format") == Some("json")
    }
}

impl Admin {
    /// A server for a store.
    pub(crate) fn new(
        store: Arc<Mutex<Store>>,
        bootstrap: Bootstrap,
        concurrency: usize,
        quit: Arc<Notify>,
    ) -> Arc<Self> {
        let (started, started_at) = (Instant::now(), SystemTime::now());
        Arc::new(Self { store, bootstrap, started, started_at, concurrency, quit })
    }

    /// The address that a bootstrap asks for.
    pub(crate) fn address(bootstrap: &Bootstrap) -> Option<SocketAddr> {
        crate::source::socket_address(bootstrap.admin.as_ref()?.address.as_ref()?)
    }

    /// Serves until the runtime ends.
    pub(crate) async fn serve(self: Arc<Self>, listener: TcpListener) {
        loop {
            let Ok((tcp, _)) = listener.accept().await else {
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                continue;
            };
            let admin = self.clone();
            tokio::spawn(async move {
                let service = service_fn(|request| {
                    let admin = admin.clone();
                    async move { Ok::<_, Infallible>(admin.answer(&request).await) }
                });
                // A caller that goes away is no news.
                drop(
                    hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(tcp), service)
                        .await,
                );
            });
        }
    }

    async fn answer(&self, request: &Request<Incoming>) -> Answer {
        let query = Query::parse(request.uri().query().unwrap_or_default());
        let post = request.method() == Method::POST;
        match request.uri().path() {
            "/" | "/help" => text(StatusCode::OK, HELP),
            "/ready" => self.ready().await,
            "/server_info" => value(&self.server_info().await),
            "/config_dump" => self.config_dump(&query),
            "/clusters" if query.wants_json() => value(&clusters::json(&lock(&self.store))),
            "/clusters" => text(StatusCode::OK, clusters::text(&lock(&self.store))),
            "/listeners" if query.wants_json() => value(&listeners::json(&lock(&self.store))),
            "/listeners" => text(StatusCode::OK, listeners::text(&lock(&self.store))),
            "/certs" => value(&certs::json(&lock(&self.store))),
            "/stats/prometheus" => text(StatusCode::OK, figures::prometheus(&self.figures(&query))),
            "/stats" => self.stats(&query),
            "/memory" => value(&figures::memory()),
            "/drain_listeners" | "/logging" | "/quitquitquit" if !post => {
                text(StatusCode::METHOD_NOT_ALLOWED, "Method GET not allowed, POST required.")
            }
            "/logging" => {
                let (status, body) = logging::answer(&query);
                text(status, body)
            }
            "/drain_listeners" => {
                lock(&self.store).drain_listeners(query.has("inboundonly"));
                text(StatusCode::OK, "OK\n")
            }
            "/quitquitquit" => {
                self.quit.notify_one();
                text(StatusCode::OK, "OK\n")
            }
            _ => text(StatusCode::NOT_FOUND, format!("invalid path. {HELP}")),
        }
    }

    /// Whether traffic is served: resources have come, and every worker answers.
    async fn state(&self) -> &'static str {
        let (initialized, draining, workers) = {
            let store = lock(&self.store);
            (
                store.is_initialized(&self.bootstrap),
                store.shared.draining.is_cancelled(),
                store.workers().to_vec(),
            )
        };
        if draining {
            return "DRAINING";
        }
        if !initialized {
            return "PRE_INITIALIZING";
        }
        for worker in workers {
            let (answer, wait) = oneshot::channel();
            worker.tell(Command::Ping(answer));
            let patience = std::time::Duration::from_secs(1);
            if !matches!(tokio::time::timeout(patience, wait).await, Ok(Ok(()))) {
                return "INITIALIZING";
            }
        }
        "LIVE"
    }

    async fn ready(&self) -> Answer {
        let state = self.state().await;
        let status = if state == "LIVE" { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        text(status, format!("{state}\n"))
    }

    async fn server_info(&self) -> Value {
        let uptime = format!("{}s", self.started.elapsed().as_secs());
        let node = crate::source::discovery::node(&self.bootstrap);
        json!({
            "version": format!("lateen/{}", env!("CARGO_PKG_VERSION")),
            "state": self.state().await,
            "uptime_current_epoch": uptime,
            "uptime_all_epochs": uptime,
            "hot_restart_version": "disabled",
            "command_line_options": {
                "concurrency": self.concurrency,
                "service_cluster": node.cluster,
                "service_node": node.id,
            },
            "node": lateen_proto::json::to_value(&node, lateen_proto::json::Names::Proto).unwrap_or_default(),
        })
    }

    fn config_dump(&self, query: &Query) -> Answer {
        let store = lock(&self.store);
        match config_dump::json(&store, &self.bootstrap, self.started_at, query) {
            Ok(dump) => value(&dump),
            Err(reason) => text(StatusCode::BAD_REQUEST, reason),
        }
    }

    fn figures(&self, query: &Query) -> Vec<figures::Entry> {
        figures::collect(&lock(&self.store), self.started.elapsed(), query)
    }

    fn stats(&self, query: &Query) -> Answer {
        let entries = self.figures(query);
        match query.value("format") {
            Some("prometheus") => text(StatusCode::OK, figures::prometheus(&entries)),
            Some("json") => value(&figures::json(&entries)),
            _ => text(StatusCode::OK, figures::text(&entries)),
        }
    }
}

fn text(status: StatusCode, body: impl Into<String>) -> Answer {
    respond(status, "text/plain; charset=UTF-8", body.into())
}

fn value(json: &Value) -> Answer {
    // Serialising a value cannot fail.
    respond(StatusCode::OK, "application/json", serde_json::to_string_pretty(json).unwrap_or_default())
}

fn respond(status: StatusCode, content_type: &'static str, body: String) -> Answer {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, max-age=0"));
    headers.insert("x-content-type-options", HeaderValue::from_static("nosniff"));
    response
}

/// A time as protobuf JSON writes it.
fn timestamp(at: SystemTime) -> String {
    let mut out = Vec::new();
    crate::log::DateCache::default().write_iso(at, &mut out);
    String::from_utf8(out).unwrap_or_default()
}
