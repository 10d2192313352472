//! Probes: what a container is asked, and what its answers add up to.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use async_trait::async_trait;
use http::{HeaderName, HeaderValue, Request};
use http_body_util::Empty;
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::{Container, Probe, TCPSocketAction};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use tokio::net::TcpStream;

/// A probe that this node can carry out.
#[derive(Clone, Debug)]
pub(crate) struct Check {
    target: Target,
    pub(crate) delay: Duration,
    pub(crate) period: Duration,
    timeout: Duration,
    successes: u32,
    failures: u32,
}

#[derive(Clone, Debug)]
enum Target {
    Tcp(SocketAddr),
    Http { address: SocketAddr, path: String, headers: Vec<(String, String)> },
    Exec(Vec<String>),
}

/// Runs a command in a probed container, for exec probes.
#[async_trait]
pub(crate) trait Runner: Send + Sync {
    /// Runs it to its end. An error's text is what the event says. Whoever drops the future ends the command, with all that
    /// it has started.
    async fn run(&self, words: &[String]) -> Result<(), String>;
}

/// A probe that cannot be carried out.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ProbeError {
    #[error("an exec probe needs a command")]
    NoCommand,
    #[error("gRPC probes are not supported: use httpGet, tcpSocket or exec")]
    Grpc,
    #[error("HTTPS probes are not supported: use HTTP or tcpSocket")]
    Https,
    #[error("a probe needs httpGet, tcpSocket or exec")]
    None,
    #[error("port {0:?} is neither a number from 1 to 65535 nor the name of a port of the container")]
    Port(String),
    #[error("host {0:?} is no address")]
    Host(String),
}

impl Check {
    /// Reads a probe. `address` says where a port of this container is bound.
    pub(crate) fn new(
        probe: &Probe,
        container: &Container,
        address: impl Fn(u16) -> IpAddr,
    ) -> Result<Self, ProbeError> {
        let seconds = |value: Option<i32>, default: u64| {
            Duration::from_secs(value.and_then(|value| u64::try_from(value).ok()).unwrap_or(default))
        };
        let count =
            |value: Option<i32>, default| value.and_then(|v| u32::try_from(v).ok()).unwrap_or(default);
        Ok(Self {
            target: target(probe, container, address)?,
            delay: seconds(probe.initial_delay_seconds, 0),
            period: seconds(probe.period_seconds, 10).max(Duration::from_secs(1)),
            timeout: seconds(probe.timeout_seconds, 1).max(Duration::from_secs(1)),
            successes: count(probe.success_threshold, 1).max(1),
            failures: count(probe.failure_threshold, 3).max(1),
        })
    }

    /// Asks once. An error's text is what the event says.
    pub(crate) async fn ask(&self, runner: &dyn Runner) -> Result<(), String> {
        match tokio::time::timeout(self.timeout, self.target.ask(runner)).await {
            Ok(answer) => answer,
            Err(_) => Err(format!("{}: no answer in {} s", self.target.name(), self.timeout.as_secs())),
        }
    }

    /// A fresh tally for this probe.
    pub(crate) fn tally(&self) -> Tally {
        Tally { successes: self.successes, failures: self.failures, row: 0 }
    }
}

fn target(
    probe: &Probe,
    container: &Container,
    address: impl Fn(u16) -> IpAddr,
) -> Result<Target, ProbeError> {
    if let Some(exec) = &probe.exec {
        let words = exec.command.clone().unwrap_or_default();
        return if words.is_empty() { Err(ProbeError::NoCommand) } else { Ok(Target::Exec(words)) };
    }
    if probe.grpc.is_some() {
        return Err(ProbeError::Grpc);
    }
    let place = |host: Option<&String>, port: &IntOrString| -> Result<SocketAddr, ProbeError> {
        let port = port_number(port, container)?;
        let ip = match host {
            Some(host) => host.parse().map_err(|_| ProbeError::Host(host.clone()))?,
            None => address(port),
        };
        Ok(SocketAddr::new(ip, port))
    };
    if let Some(TCPSocketAction { host, port }) = &probe.tcp_socket {
        return Ok(Target::Tcp(place(host.as_ref(), port)?));
    }
    let get = probe.http_get.as_ref().ok_or(ProbeError::None)?;
    if get.scheme.as_deref().is_some_and(|scheme| scheme.eq_ignore_ascii_case("https")) {
        return Err(ProbeError::Https);
    }
    let path = get.path.as_deref().unwrap_or("/");
    let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
    let headers =
        get.http_headers.iter().flatten().map(|one| (one.name.clone(), one.value.clone())).collect();
    Ok(Target::Http { address: place(get.host.as_ref(), &get.port)?, path, headers })
}

fn port_number(port: &IntOrString, container: &Container) -> Result<u16, ProbeError> {
    let number = match port {
        IntOrString::Int(number) => Some(*number),
        IntOrString::String(name) => container
            .ports
            .iter()
            .flatten()
            .find(|one| one.name.as_ref() == Some(name))
            .map(|one| one.container_port)
            .or_else(|| name.parse().ok()),
    };
    let text = || match port {
        IntOrString::Int(number) => number.to_string(),
        IntOrString::String(name) => name.clone(),
    };
    number
        .and_then(|number| u16::try_from(number).ok())
        .filter(|number| *number != 0)
        .ok_or_else(|| ProbeError::Port(text()))
}

impl Target {
    async fn ask(&self, runner: &dyn Runner) -> Result<(), String> {
        match self {
            Self::Tcp(address) => match TcpStream::connect(address).await {
                Ok(_) => Ok(()),
                Err(error) => Err(format!("dial tcp {address}: {}", said(&error))),
            },
            Self::Http { address, path, headers } => get(*address, path, headers).await,
            Self::Exec(words) => runner.run(words).await,
        }
    }

    fn name(&self) -> String {
        match self {
            Self::Tcp(address) => format!("dial tcp {address}"),
            Self::Http { address, path, .. } => format!("Get \"http://{address}{path}\""),
            Self::Exec(words) => format!("command {words:?}"),
        }
    }
}

async fn get(address: SocketAddr, path: &str, headers: &[(String, String)]) -> Result<(), String> {
    let failed = |text: String| format!("Get \"http://{address}{path}\": {text}");
    let stream = TcpStream::connect(address)
        .await
        .map_err(|error| failed(format!("dial tcp {address}: connect: {}", said(&error))))?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| failed(error.to_string()))?;
    let driver = tokio::spawn(connection);
    let request = request(address, path, headers).map_err(|error| failed(error.to_string()))?;
    let answer = sender.send_request(request).await;
    driver.abort();
    let status = answer.map_err(|error| failed(error.to_string()))?.status();
    if (200..400).contains(&status.as_u16()) {
        Ok(())
    } else {
        Err(format!("HTTP probe failed with statuscode: {}", status.as_u16()))
    }
}

fn request(
    address: SocketAddr,
    path: &str,
    headers: &[(String, String)],
) -> Result<Request<Empty<bytes::Bytes>>, http::Error> {
    let mut request = Request::get(path)
        .header(http::header::HOST, address.to_string())
        .header(http::header::USER_AGENT, "kube-probe/1.33")
        .header(http::header::ACCEPT, "*/*")
        .body(Empty::new())?;
    for (name, value) in headers {
        let (name, value) = (HeaderName::try_from(name.as_str())?, HeaderValue::try_from(value.as_str())?);
        request.headers_mut().insert(name, value);
    }
    Ok(request)
}

/// A system error without Rust's `(os error N)`.
fn said(error: &std::io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or_default().to_lowercase()
}

/// Answers in a row, against the thresholds.
#[derive(Clone, Debug)]
pub(crate) struct Tally {
    successes: u32,
    failures: u32,
    /// Successes in a row when positive, failures when negative.
    row: i64,
}

impl Tally {
    /// Counts an answer. A verdict as long as a threshold is reached.
    pub(crate) fn count(&mut self, success: bool) -> Option<bool> {
        self.row = match (success, self.row > 0) {
            (true, true) => self.row + 1,
            (true, false) => 1,
            (false, true) => -1,
            (false, false) => self.row - 1,
        };
        if self.row >= i64::from(self.successes) {
            Some(true)
        } else if -self.row >= i64::from(self.failures) {
            Some(false)
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    fn check(probe: serde_json::Value) -> Result<Check, ProbeError> {
        let container = json!({"name": "c", "ports": [{"name": "http", "containerPort": 8080}]});
        let probe = serde_json::from_value(probe).unwrap();
        Check::new(&probe, &serde_json::from_value(container).unwrap(), |_| [127, 110, 0, 9].into())
    }

    /// Knows one command, which fails, and one that does not end.
    struct Commands;

    #[async_trait]
    impl Runner for Commands {
        async fn run(&self, words: &[String]) -> Result<(), String> {
            match words[0].as_str() {
                "false" => Err("exit status 1".to_owned()),
                "hang" => std::future::pending().await,
                _ => Ok(()),
            }
        }
    }

    #[tokio::test]
    async fn commands_are_run_within_their_time() {
        let of = |word: &str| check(json!({"exec": {"command": [word]}, "timeoutSeconds": 1})).unwrap();
        assert_eq!(of("true").ask(&Commands).await, Ok(()));
        assert_eq!(of("false").ask(&Commands).await.unwrap_err(), "exit status 1");
        assert_eq!(of("hang").ask(&Commands).await.unwrap_err(), "command [\"hang\"]: no answer in 1 s");
    }

    #[test]
    fn what_cannot_be_asked_is_refused() {
        assert_eq!(check(json!({"exec": {"command": []}})).unwrap_err(), ProbeError::NoCommand);
        assert_eq!(check(json!({"grpc": {"port": 1}})).unwrap_err(), ProbeError::Grpc);
        assert_eq!(check(json!({})).unwrap_err(), ProbeError::None);
        let bad = check(json!({"tcpSocket": {"port": "nope"}})).unwrap_err().to_string();
        assert!(bad.contains("\"nope\""), "{bad}");
        assert!(check(json!({"tcpSocket": {"port": 70000}})).is_err());
        assert!(check(json!({"httpGet": {"port": 1, "host": "example.com"}})).is_err());
    }

    #[test]
    fn ports_go_by_name() {
        let check = check(json!({"httpGet": {"port": "http", "path": "health"}})).unwrap();
        assert_eq!(check.target.name(), "Get \"http://127.110.0.9:8080/health\"");
        assert_eq!(check.period, Duration::from_secs(10));
    }

    #[test]
    fn a_verdict_needs_its_row() {
        let mut tally = Tally { successes: 1, failures: 3, row: 0 };
        let verdicts = [false, false, false, true, false].map(|answer| tally.count(answer));
        assert_eq!(verdicts, [None, None, Some(false), Some(true), None]);
    }

    #[tokio::test]
    async fn statuses_and_refusals_are_told() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = tokio::spawn(async move {
            for status in ["200 OK", "503 Service Unavailable"] {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut buffer = [0; 1024];
                let _ = stream.read(&mut buffer).await.unwrap();
                let answer = format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n");
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        });
        let probe = json!({"httpGet": {"port": address.port(), "host": "127.0.0.1", "path": "/ready"}});
        let check = check(probe).unwrap();
        assert_eq!(check.ask(&Commands).await, Ok(()));
        assert_eq!(check.ask(&Commands).await.unwrap_err(), "HTTP probe failed with statuscode: 503");
        server.await.unwrap();
        assert!(check.ask(&Commands).await.unwrap_err().contains("connection refused"));
    }
}
