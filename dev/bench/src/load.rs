//! The load generator: as many requests as a number of connections can make, or a fixed rate.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use hdrhistogram::Histogram;
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::BenchError;
use crate::resources::HOST;

/// What to send.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    /// Where the proxy listens.
    pub(crate) proxy: SocketAddr,
    /// HTTP/2 instead of HTTP/1.1.
    pub(crate) http2: bool,
    /// Connections.
    pub(crate) connections: usize,
    /// Requests a second over all connections; as many as possible when unset.
    pub(crate) rate: Option<f64>,
    /// For how long.
    pub(crate) duration: Duration,
}

/// What came of it.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// Requests answered with 200.
    pub(crate) requests: u64,
    /// The time it took.
    pub(crate) elapsed: Duration,
    /// Latencies, in microseconds. At a fixed rate they count from when a request was due.
    pub(crate) latency: Histogram<u64>,
}

impl Load {
    /// Runs it.
    ///
    /// # Errors
    /// When a connection fails, or an answer is not 200.
    pub(crate) async fn run(self) -> Result<Outcome, BenchError> {
        let start = Instant::now();
        let tasks: Vec<_> = (0..self.connections)
            .map(|index| {
                let pace = Pace::new(&self, index, start);
                tokio::spawn(async move {
                    if self.http2 { http2(self.proxy, pace).await } else { http1(self.proxy, pace).await }
                })
            })
            .collect();
        let mut latency = Histogram::new(3).map_err(|error| BenchError::Text(error.to_string()))?;
        for task in tasks {
            let one = task.await.map_err(|error| BenchError::Text(error.to_string()))??;
            latency.add(one).map_err(|error| BenchError::Text(error.to_string()))?;
        }
        Ok(Outcome { requests: latency.len(), elapsed: start.elapsed(), latency })
    }
}

/// When a connection's requests are due.
struct Pace {
    next: Instant,
    interval: Option<Duration>,
    end: Instant,
}

impl Pace {
    fn new(load: &Load, index: usize, start: Instant) -> Self {
        let interval = load.rate.map(|rate| Duration::from_secs_f64(load.connections as f64 / rate));
        // Connections take turns, rather than all sending at once.
        let offset = interval.map_or(Duration::ZERO, |i| i.mul_f64(index as f64 / load.connections as f64));
        Self { next: start + offset, interval, end: start + load.duration }
    }

    /// When the next request was due; none at the end.
    async fn due(&mut self) -> Option<Instant> {
        let now = Instant::now();
        if now >= self.end {
            return None;
        }
        let Some(interval) = self.interval else { return Some(now) };
        let due = self.next;
        self.next += interval;
        if due > now {
            tokio::time::sleep_until(due.into()).await;
        }
        (due < self.end).then_some(due)
    }
}

fn micros(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_micros()).unwrap_or(u64::MAX)
}

fn failed(what: impl std::fmt::Display) -> BenchError {
    BenchError::Text(format!("a request failed: {what}"))
}

async fn http1(proxy: SocketAddr, mut pace: Pace) -> Result<Histogram<u64>, BenchError> {
    let mut latency = Histogram::new(3).map_err(failed)?;
    let mut tcp = TcpStream::connect(proxy).await?;
    tcp.set_nodelay(true)?;
    let request = format!(
        "GET /headers?show=all HTTP/1.1\r\nHost: {HOST}\r\nUser-Agent: bench/1.0\r\nAccept: */*\r\n\
         X-Request-Id: 5a1b2c3d-1111-4222-8333-444455556666\r\n\r\n"
    );
    let mut buffer = Vec::with_capacity(16 * 1024);
    while let Some(due) = pace.due().await {
        tcp.write_all(request.as_bytes()).await?;
        buffer.clear();
        let mut end = None;
        while end.is_none_or(|end| buffer.len() < end) {
            if tcp.read_buf(&mut buffer).await? == 0 {
                return Err(failed("the connection was closed"));
            }
            if end.is_none() {
                end = length(&buffer)?;
            }
        }
        latency.record(micros(due)).map_err(failed)?;
    }
    Ok(latency)
}

/// How long a response is, once its head is there. It is looked at bytewise, so that the machine's time goes to the proxies.
fn length(buffer: &[u8]) -> Result<Option<usize>, BenchError> {
    let Some(head) = memchr::memmem::find(buffer, b"\r\n\r\n") else { return Ok(None) };
    if !buffer.starts_with(b"HTTP/1.1 200") {
        return Err(failed(String::from_utf8_lossy(&buffer[..head]).lines().next().unwrap_or_default()));
    }
    let name = b"content-length: ";
    let digits = buffer[..head]
        .split(|byte| *byte == b'\n')
        .find_map(|line| line.get(name.len()..).filter(|_| line[..name.len()].eq_ignore_ascii_case(name)));
    let body = digits.and_then(|digits| std::str::from_utf8(digits).ok()?.trim().parse::<usize>().ok());
    let body = body.ok_or_else(|| failed("a response does not tell its length"))?;
    Ok(Some(head + 4 + body))
}

async fn http2(proxy: SocketAddr, mut pace: Pace) -> Result<Histogram<u64>, BenchError> {
    let mut latency = Histogram::new(3).map_err(failed)?;
    let tcp = TcpStream::connect(proxy).await?;
    tcp.set_nodelay(true)?;
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(tcp))
            .await
            .map_err(failed)?;
    tokio::spawn(connection);
    while let Some(due) = pace.due().await {
        let request = http::Request::get(format!("http://{HOST}/headers?show=all"))
            .header("user-agent", "bench/1.0")
            .header("x-request-id", "5a1b2c3d-1111-4222-8333-444455556666")
            .body(Empty::<Bytes>::new())
            .map_err(failed)?;
        let response = sender.send_request(request).await.map_err(failed)?;
        if response.status() != 200 {
            return Err(failed(response.status()));
        }
        response.into_body().collect().await.map_err(failed)?;
        latency.record(micros(due)).map_err(failed)?;
    }
    Ok(latency)
}
