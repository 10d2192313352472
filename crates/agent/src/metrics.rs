//! Merged metrics: the proxy's, the agent's own, and the application's where its pod asks to be scraped
//! (`ISTIO_PROMETHEUS_ANNOTATIONS`, written by the injector from `prometheus.io/*`).

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use serde::Deserialize;

use crate::application::{Question, ask};
use crate::health::Admin;

/// The form that all parts are asked for, so that they make one text.
const TEXT: HeaderValue = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
/// Prometheus says here how long it waits.
const TIMEOUT_HEADER: &str = "x-prometheus-scrape-timeout-seconds";
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);
const LONGEST_ANSWER: usize = 64 << 20;

/// Where the application has its metrics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scrape {
    port: u16,
    path: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Annotations {
    scrape: String,
    port: String,
    path: String,
}

impl Scrape {
    /// Reads the variable's text; none when the pod does not ask to be scraped.
    ///
    /// # Errors
    /// Broken JSON, no port number, or the agent's own port, which would ask itself for ever.
    pub(crate) fn parse(text: &str, own_port: u16) -> Result<Option<Self>, String> {
        let given: Annotations = serde_json::from_str(text).map_err(|error| error.to_string())?;
        if given.scrape != "true" {
            return Ok(None);
        }
        let port = match given.port.as_str() {
            "" => 80,
            text => text.parse().map_err(|_| format!("port {text:?}: no port number"))?,
        };
        if port == own_port {
            return Err(format!("port {port} is the agent's own"));
        }
        let path = if given.path.is_empty() { "/metrics".to_owned() } else { given.path };
        Ok(Some(Self { port, path }))
    }
}

/// Gathers metrics, and counts how that goes.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    scrape: Option<Scrape>,
    scrapes: AtomicU64,
    envoy_failures: AtomicU64,
    application_failures: AtomicU64,
    /// In milliseconds; zero until the proxy was ready.
    startup: AtomicU64,
}

impl Metrics {
    pub(crate) fn new(scrape: Option<Scrape>) -> Self {
        Self { scrape, ..Self::default() }
    }

    /// Remembers how long it took until the proxy was ready.
    pub(crate) fn started(&self, after: Duration) {
        self.startup.store(u64::try_from(after.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// All metrics as one text. A part that cannot be had is left out, and counted.
    pub(crate) async fn merged(&self, admin: &Admin, application: IpAddr, asked: &HeaderMap) -> Vec<u8> {
        self.scrapes.fetch_add(1, Ordering::Relaxed);
        let seconds = asked.get(TIMEOUT_HEADER).and_then(|value| value.to_str().ok()?.parse::<f64>().ok());
        let within = seconds.and_then(|s| Duration::try_from_secs_f64(s).ok()).unwrap_or(DEFAULT_TIMEOUT);
        let (proxy, own) =
            tokio::join!(admin.get("/stats/prometheus"), self.of_application(application, asked, within));
        let mut text = Vec::new();
        match proxy {
            Ok((StatusCode::OK, body)) => append(&mut text, &body),
            Ok((status, _)) => self.failed(&self.envoy_failures, "the proxy", &status.to_string()),
            Err(reason) => self.failed(&self.envoy_failures, "the proxy", &reason),
        }
        let application = match own {
            Some(Ok(body)) => body,
            Some(Err(reason)) => {
                self.failed(&self.application_failures, "the application", &reason);
                Vec::new()
            }
            None => Vec::new(),
        };
        append(&mut text, self.own().as_bytes());
        append(&mut text, &application);
        text
    }

    async fn of_application(
        &self,
        address: IpAddr,
        asked: &HeaderMap,
        within: Duration,
    ) -> Option<Result<Vec<u8>, String>> {
        let scrape = self.scrape.as_ref()?;
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT, TEXT);
        if let Some(timeout) = asked.get(TIMEOUT_HEADER) {
            headers.insert(TIMEOUT_HEADER, timeout.clone());
        }
        let question = Question {
            address: SocketAddr::new(address, scrape.port),
            tls: false,
            path: &scrape.path,
            headers,
            within,
            longest: LONGEST_ANSWER,
        };
        Some(match ask(question).await {
            Ok(answer) if answer.status == StatusCode::OK => Ok(answer.body.to_vec()),
            Ok(answer) => Err(format!("{} for {}", answer.status, scrape.path)),
            Err(reason) => Err(reason),
        })
    }

    fn failed(&self, counter: &AtomicU64, whose: &str, reason: &str) {
        counter.fetch_add(1, Ordering::Relaxed);
        tracing::warn!("metrics of {whose}: {reason}");
    }

    /// The agent's own metrics, by Istio's names.
    fn own(&self) -> String {
        let mut text = String::new();
        let mut write = |name: &str, kind: &str, help: &str, samples: &[(&str, String)]| {
            // Writing into a string cannot fail.
            let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
            for (labels, value) in samples {
                let _ = writeln!(text, "{name}{labels} {value}");
            }
        };
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed).to_string();
        write(
            "istio_agent_scrapes_total",
            "counter",
            "The total number of scrapes.",
            &[("", of(&self.scrapes))],
        );
        write(
            "istio_agent_scrape_failures_total",
            "counter",
            "The total number of failed scrapes.",
            &[
                ("{type=\"envoy\"}", of(&self.envoy_failures)),
                ("{type=\"application\"}", of(&self.application_failures)),
            ],
        );
        let startup = Duration::from_millis(self.startup.load(Ordering::Relaxed));
        if !startup.is_zero() {
            let help = "The time from the process starting to being marked ready.";
            let seconds = startup.as_secs_f64().to_string();
            write("istio_agent_startup_duration_seconds", "gauge", help, &[("", seconds)]);
        }
        text
    }
}

/// Appends a part, a newline behind it, without OpenMetrics' mark of the end.
fn append(text: &mut Vec<u8>, part: &[u8]) {
    let part = part.trim_ascii_end();
    let part = part.strip_suffix(b"# EOF").unwrap_or(part);
    text.extend_from_slice(part);
    if !part.is_empty() && !part.ends_with(b"\n") {
        text.push(b'\n');
    }
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::routing::get;

    use super::*;

    async fn serve(path: &str, text: &'static str) -> SocketAddr {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new().route(path, get(move || async move { text }));
        tokio::spawn(async move { axum::serve(listener, router).await });
        address
    }

    #[test]
    fn annotations_are_read_as_the_injector_writes_them() {
        let parse = |text| Scrape::parse(text, 15020);
        assert_eq!(parse(r#"{"scrape":"","port":"","path":""}"#), Ok(None));
        let scrape = Scrape { port: 80, path: "/metrics".into() };
        assert_eq!(parse(r#"{"scrape":"true","path":"","port":""}"#), Ok(Some(scrape)));
        for bad in ["{", r#"{"scrape":"true","port":"x"}"#, r#"{"scrape":"true","port":"15020"}"#] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[tokio::test]
    async fn what_can_be_had_is_merged_and_what_cannot_is_counted() {
        let proxy = serve("/stats/prometheus", "# TYPE a counter\na 1\n").await;
        let application = serve("/custom", "# TYPE b counter\nb 2\n# EOF\n").await;
        let local = IpAddr::from([127, 0, 0, 1]);
        let scrape = Scrape { port: application.port(), path: "/custom".into() };
        let metrics = Metrics::new(Some(scrape));
        let asked = HeaderMap::new();
        let text = String::from_utf8(metrics.merged(&Admin::new(proxy), local, &asked).await).unwrap();
        assert!(text.starts_with("# TYPE a counter\na 1\n# HELP istio_agent_scrapes_total"), "{text}");
        assert!(text.ends_with("# TYPE b counter\nb 2\n") && !text.contains("EOF"), "{text}");
        assert!(text.contains("istio_agent_scrape_failures_total{type=\"application\"} 0\n"), "{text}");

        let gone = Metrics::new(Some(Scrape { port: 1, path: "/".into() }));
        let text = String::from_utf8(gone.merged(&Admin::new(proxy), local, &asked).await).unwrap();
        assert!(text.contains("a 1\n") && text.contains("{type=\"application\"} 1\n"), "{text}");
    }
}
