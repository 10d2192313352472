//! The access log: which lines there have to be, and what they say of bytes.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::call::{Call, Protocol};
use super::observe::Answer;

/// How long a line of the access log may take.
const LOG_LINES: Duration = Duration::from_secs(10);
/// A log that has not grown for so long is whole.
const SILENCE: Duration = Duration::from_secs(3);
/// How long to wait for lines that may or may not come; both proxies write theirs after 200 ms at most.
const UNSURE: Duration = Duration::from_millis(400);

/// How long a file is by now.
pub(super) fn length(path: &Path) -> u64 {
    std::fs::metadata(path).map_or(0, |metadata| metadata.len())
}
/// What a log has to tell of.
#[derive(Default)]
pub(super) struct Awaited {
    /// Requests that were answered, by step.
    steps: BTreeSet<String>,
    /// Connections, by the client's address.
    connections: BTreeSet<String>,
    /// Whether there were requests without an answer, of which a log may or may not tell.
    unsure: bool,
}

impl Awaited {
    /// Adds what a call's answers leave behind.
    pub(super) fn add(&mut self, call: &Call, index: usize, answers: &[Answer]) {
        for (at, answer) in answers.iter().enumerate() {
            match (&call.protocol, answer.status) {
                (Protocol::Tcp, _) => self.connections.extend(answer.own.map(|own| own.to_string())),
                (_, 0) => self.unsure = true,
                (_, _) if call.is("raw") => self.unsure = true,
                (_, _) => drop(self.steps.insert(format!("{index}.{at}"))),
            }
        }
    }

    /// The lines of a log since an offset, once all is there.
    pub(super) async fn lines(&self, path: &Path, offset: u64) -> Vec<Value> {
        let deadline = Instant::now() + LOG_LINES;
        if self.unsure {
            tokio::time::sleep(UNSURE).await;
        }
        let (mut last, mut grown) = (0, Instant::now());
        loop {
            let text = std::fs::read(path).unwrap_or_default();
            if text.len() != last {
                (last, grown) = (text.len(), Instant::now());
            }
            let new = text.get(usize::try_from(offset).unwrap_or(0)..).unwrap_or_default();
            let lines: Vec<Value> = String::from_utf8_lossy(new)
                .lines()
                .filter_map(|line| serde_json::from_str(line).ok())
                .collect();
            let told: BTreeSet<&str> = lines.iter().filter_map(|line| line["step"].as_str()).collect();
            let all = self.steps.iter().all(|step| told.contains(step.as_str()));
            let peers: BTreeSet<&str> = lines.iter().filter_map(|line| line["peer"].as_str()).collect();
            let connections = self.connections.iter().all(|own| peers.contains(own.as_str()));
            // What goes through as bytes has no line for each request.
            let over = Instant::now() > deadline || grown.elapsed() > SILENCE;
            if (all && connections) || over {
                return lines;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

/// Whether a line without a step is of the connection that an answer came by, where it tells of nothing but that answer.
pub(super) fn is_of_connection(line: &Value, call: &Call, answer: &Answer) -> bool {
    let alone = call.protocol == Protocol::Tcp || call.is("raw") || matches!(answer.status, 400 | 408 | 431);
    let own = answer.own.map(|own| own.to_string());
    alone && own.is_some() && line["step"].is_null() && line["peer"].as_str() == own.as_deref()
}

/// Whether a line is of a connection that carried bytes.
fn is_of_bytes(line: &Value) -> bool {
    let carried = |name: &str| line[name].as_u64().is_some_and(|bytes| bytes > 0);
    line["step"].is_null() && line["path"].is_null() && (carried("received") || carried("sent"))
}

/// What the log says of connections of bytes, in no order.
pub(super) fn byte_lines(log: &[Value], own: Ipv4Addr) -> Vec<String> {
    let line = |line: &Value| {
        let field = |name: &str| match &line[name] {
            Value::Null => "-".to_owned(),
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        // The sizes of handshakes differ with the signatures in them.
        let secure = !matches!(field("sni").as_str(), "" | "-");
        let fields = ["flags", "termination", "cluster", "sni", "received", "sent"];
        fields[..if secure { 4 } else { 6 }]
            .iter()
            .map(|name| format!("{name}={}", field(name)))
            .collect::<Vec<_>>()
            .join(" ")
            .replace(&own.to_string(), "PROXY")
    };
    let mut out: Vec<String> = log.iter().filter(|line| is_of_bytes(line)).map(line).collect();
    out.sort();
    out
}
