//! Sending: each connection sends one request after the other, at its share of the rate.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use hdrhistogram::Histogram;
use http::Request;
use http::header::HOST;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::{Options, Until};

/// What the proxy of a pod, not the application, listens on.
const PROXY_PORTS: std::ops::RangeInclusive<u16> = 15_000..=15_090;
/// The longest latency that is told from longer ones, in microseconds: an hour.
const LONGEST: u64 = 3_600_000_000;

/// Why nothing could be sent.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RunError {
    #[error("cannot connect to {address}: {source}")]
    Connect { address: String, source: std::io::Error },
    #[error("{0}")]
    Http(String),
}

/// What came of a run.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// Answers by status; -1 counts requests without one.
    pub(crate) codes: BTreeMap<i32, u64>,
    /// How often a connection was opened.
    pub(crate) sockets: u64,
    /// Latencies in microseconds.
    pub(crate) latency: Histogram<u64>,
    /// Sizes of response heads; an answer that is an error counts as 0, as fortio has it.
    pub(crate) heads: Sizes,
    /// Sizes of responses, head and body.
    pub(crate) sizes: Sizes,
    /// How long it took.
    pub(crate) elapsed: Duration,
}

/// Count, sum, squares and ends of a size.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Sizes {
    pub(crate) count: u64,
    pub(crate) sum: u64,
    pub(crate) squares: f64,
    pub(crate) min: u64,
    pub(crate) max: u64,
}

impl Sizes {
    /// Counts one more.
    pub(crate) fn record(&mut self, size: u64) {
        self.min = if self.count == 0 { size } else { self.min.min(size) };
        self.max = self.max.max(size);
        self.count += 1;
        self.sum += size;
        self.squares += (size as f64).powi(2);
    }

    fn add(&mut self, other: Self) {
        if other.count > 0 {
            self.min = if self.count == 0 { other.min } else { self.min.min(other.min) };
            self.max = self.max.max(other.max);
            self.count += other.count;
            self.sum += other.sum;
            self.squares += other.squares;
        }
    }
}

/// Where a connection goes: the proxy of the environment, or the host itself; and how the target is written.
struct Target {
    address: String,
    uri: String,
    host: String,
}

impl Target {
    fn of(options: &Options) -> Self {
        let url = &options.url;
        let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        Self::within(url, variable)
    }

    /// In a pod on loopback `localhost` is where the application binds, and for the proxy's ports the pod's address.
    fn within(url: &http::Uri, variable: impl Fn(&str) -> Option<String>) -> Self {
        let authority = url.authority().map(ToString::to_string).unwrap_or_default();
        let (host, port) = (url.host().unwrap_or_default(), url.port_u16().unwrap_or(80));
        let path = url.path_and_query().map_or("/", |path| path.as_str()).to_owned();
        let own = if PROXY_PORTS.contains(&port) { "LATEEN_POD_IP" } else { "LATEEN_BIND_ADDRESS" };
        let is_local = matches!(host, "localhost" | "127.0.0.1");
        if let Some(ip) = variable(own).filter(|_| is_local) {
            return Self { address: format!("{ip}:{port}"), uri: path, host: authority };
        }
        let excepted = variable("no_proxy").is_some_and(|list| list.split(',').any(|one| one.trim() == host));
        match variable("http_proxy").filter(|_| !excepted) {
            Some(proxy) => {
                let address = proxy.trim_start_matches("http://").trim_end_matches('/').to_owned();
                Self { address, uri: url.to_string(), host: authority }
            }
            None => Self { address: format!("{host}:{port}"), uri: path, host: authority },
        }
    }

    async fn connect(&self) -> Result<SendRequest<Full<Bytes>>, RunError> {
        let stream = TcpStream::connect(&self.address)
            .await
            .map_err(|source| RunError::Connect { address: self.address.clone(), source })?;
        // Small requests wait for nothing.
        let _ = stream.set_nodelay(true);
        let (sender, connection) =
            handshake(TokioIo::new(stream)).await.map_err(|error| RunError::Http(error.to_string()))?;
        // Its end shows in the sender.
        tokio::spawn(connection);
        Ok(sender)
    }

    fn request(&self, options: &Options) -> Result<Request<Full<Bytes>>, RunError> {
        let body = Full::new(Bytes::from(options.body.clone()));
        let mut request = Request::builder()
            .method(options.method.clone())
            .uri(self.uri.as_str())
            .body(body)
            .map_err(|error| RunError::Http(error.to_string()))?;
        *request.headers_mut() = options.headers.clone();
        if !request.headers().contains_key(HOST) {
            let host =
                self.host.parse().map_err(|_| RunError::Http(format!("{:?} is no host", self.host)))?;
            request.headers_mut().insert(HOST, host);
        }
        Ok(request)
    }
}

/// One request; its answer as curl would print it with its head.
pub(crate) async fn once(options: &Options) -> Result<String, RunError> {
    let target = Target::of(options);
    let mut sender = target.connect().await?;
    let http = |error: hyper::Error| RunError::Http(error.to_string());
    let response = tokio::time::timeout(options.timeout, sender.send_request(target.request(options)?))
        .await
        .map_err(|_| RunError::Http(format!("no answer within {:?}", options.timeout)))?
        .map_err(http)?;
    let mut text = format!("{:?} {}\n", response.version(), response.status());
    for (name, value) in response.headers() {
        text += &format!("{name}: {}\n", String::from_utf8_lossy(value.as_bytes()));
    }
    let body = response.into_body().collect().await.map_err(http)?.to_bytes();
    Ok(format!("{text}\n{}", String::from_utf8_lossy(&body)))
}

/// The whole run. A target that cannot be reached at all is an error; failures later are counted.
pub(crate) async fn all(options: &Options) -> Result<Outcome, RunError> {
    drop(Target::of(options).connect().await?);
    let started = Instant::now();
    let calls = Arc::new(AtomicU64::new(0));
    let workers: Vec<_> = (0..options.connections)
        .map(|_| tokio::spawn(worker(options.clone(), calls.clone(), started)))
        .collect();
    let mut outcome = Outcome::new(Duration::ZERO);
    for worker in workers {
        outcome.merge(worker.await.map_err(|error| RunError::Http(error.to_string()))??);
    }
    outcome.elapsed = started.elapsed();
    Ok(outcome)
}

impl Outcome {
    fn new(elapsed: Duration) -> Self {
        let latency = Histogram::new_with_bounds(1, LONGEST, 3);
        let latency = latency.unwrap_or_else(|_| unreachable!("these bounds and 3 digits are valid"));
        Self {
            codes: BTreeMap::new(),
            sockets: 0,
            latency,
            heads: Sizes::default(),
            sizes: Sizes::default(),
            elapsed,
        }
    }

    fn merge(&mut self, other: Self) {
        for (code, count) in other.codes {
            *self.codes.entry(code).or_default() += count;
        }
        self.sockets += other.sockets;
        // Both histograms have the same bounds.
        let _ = self.latency.add(&other.latency);
        self.heads.add(other.heads);
        self.sizes.add(other.sizes);
    }
}

async fn worker(options: Options, calls: Arc<AtomicU64>, started: Instant) -> Result<Outcome, RunError> {
    let target = Target::of(&options);
    let mut outcome = Outcome::new(Duration::ZERO);
    let mut connection: Option<SendRequest<Full<Bytes>>> = None;
    loop {
        let call = calls.fetch_add(1, Ordering::Relaxed);
        match options.until {
            Until::Calls(limit) if call >= limit => return Ok(outcome),
            Until::Elapsed(limit) if started.elapsed() >= limit => return Ok(outcome),
            _ => {}
        }
        if let Some(rate) = options.rate {
            let due = started + Duration::from_secs_f64(call as f64 / rate);
            tokio::time::sleep_until(due.into()).await;
        }
        let sent = Instant::now();
        let code = match exchange(&target, &options, &mut connection, &mut outcome).await {
            Ok(code) => code,
            Err(_) => {
                connection = None;
                -1
            }
        };
        let micros = u64::try_from(sent.elapsed().as_micros()).unwrap_or(u64::MAX);
        outcome.latency.saturating_record(micros.max(1));
        *outcome.codes.entry(code).or_default() += 1;
    }
}

async fn exchange(
    target: &Target,
    options: &Options,
    connection: &mut Option<SendRequest<Full<Bytes>>>,
    outcome: &mut Outcome,
) -> Result<i32, RunError> {
    let http = |error: hyper::Error| RunError::Http(error.to_string());
    let work = async {
        let kept = match connection.take() {
            Some(mut sender) => sender.ready().await.is_ok().then_some(sender),
            None => None,
        };
        let mut sender = match kept {
            Some(sender) => sender,
            None => {
                outcome.sockets += 1;
                target.connect().await?
            }
        };
        let response = sender.send_request(target.request(options)?).await.map_err(http)?;
        let code = i32::from(response.status().as_u16());
        let head = head_size(&response);
        let body = response.into_body().collect().await.map_err(http)?.to_bytes();
        Ok((sender, code, head, body.len() as u64))
    };
    let (sender, code, head, body) = tokio::time::timeout(options.timeout, work)
        .await
        .map_err(|_| RunError::Http("timed out".into()))??;
    let good = code < 400;
    outcome.heads.record(if good { head } else { 0 });
    outcome.sizes.record(head + body);
    // As fortio does: an error ends the connection.
    *connection = good.then_some(sender);
    Ok(code)
}

/// Bytes of the response's head as it was on the wire.
fn head_size<B>(response: &http::Response<B>) -> u64 {
    let line = format!("{:?} {}\r\n\r\n", response.version(), response.status()).len();
    let fields =
        response.headers().iter().map(|(name, value)| name.as_str().len() + value.len() + ": \r\n".len());
    (line + fields.sum::<usize>()) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_take_the_proxy_but_for_the_pods_own_ports() {
        let variables = BTreeMap::from([
            ("http_proxy", "http://127.10.0.9:15007"),
            ("no_proxy", "localhost,direct"),
            ("LATEEN_POD_IP", "127.10.0.9"),
            ("LATEEN_BIND_ADDRESS", "127.110.0.9"),
        ]);
        let of = |url: &str, variables: &BTreeMap<&str, &str>| {
            let target =
                Target::within(&url.parse().unwrap(), |name| variables.get(name).map(|v| (*v).to_owned()));
            format!("{} {} {}", target.address, target.uri, target.host)
        };
        for (url, wanted) in [
            ("http://httpbin:8000/get", "127.10.0.9:15007 http://httpbin:8000/get httpbin:8000"),
            ("http://direct/x", "direct:80 /x direct"),
            ("http://localhost:8080/", "127.110.0.9:8080 / localhost:8080"),
            ("http://127.0.0.1:15000/stats", "127.10.0.9:15000 /stats 127.0.0.1:15000"),
        ] {
            assert_eq!(of(url, &variables), wanted);
        }
        assert_eq!(of("http://localhost:8080/", &BTreeMap::new()), "localhost:8080 / localhost:8080");
    }

    #[test]
    fn latencies_are_kept_as_they_are() {
        let mut outcome = Outcome::new(Duration::ZERO);
        let mut other = Outcome::new(Duration::ZERO);
        other.latency.saturating_record(250_000);
        outcome.merge(other);
        assert!((outcome.latency.mean() - 250_000.0).abs() < 250.0);
    }
}
