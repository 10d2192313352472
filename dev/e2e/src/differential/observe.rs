//! What is observed of a call, as named texts in which two proxies have to agree.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};

use serde_json::Value;

use super::client::Connection;
use super::workload::Seen;

/// A call's answer, as the client saw it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Answer {
    /// `HTTP/1.1`.
    pub(crate) version: String,
    /// The status; 0 when there was none.
    pub(crate) status: u16,
    /// Headers, names in lower case.
    pub(crate) headers: Vec<(String, String)>,
    /// The names as they were written.
    pub(crate) names: Vec<String>,
    /// The body.
    pub(crate) body: String,
    /// Trailers.
    pub(crate) trailers: Vec<(String, String)>,
    /// Statuses before the last one.
    pub(crate) interim: Vec<u16>,
    /// How it ended, when not well: `closed`, `truncated`, `reset`, `silent`, `nonsense`.
    pub(crate) end: String,
    /// The body ended with the connection.
    pub(crate) until_close: bool,
    /// The common name of the certificate that was shown.
    pub(crate) shown: Option<String>,
    /// The client's address.
    pub(crate) own: Option<SocketAddr>,
    /// Answers before this one, to what was sent together with its request.
    pub(crate) before: Vec<String>,
    /// What TLS was spoken.
    pub(crate) spoken: Option<String>,
}

impl Answer {
    /// One that is still to come over a connection.
    pub(crate) fn over(connection: &Connection) -> Self {
        let (shown, spoken) = (connection.shown.clone(), connection.spoken.clone());
        Self { own: connection.own, shown, spoken, ..Self::default() }
    }
}

/// What was observed, by name. A missing name reads as `-`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Observation(pub(crate) BTreeMap<String, String>);

/// Headers whose values differ from request to request; that they are there is compared.
const CHANGING: &[&str] = &["x-request-id", "x-envoy-upstream-service-time"];

/// Headers that are not compared: the suite's own, and trace context, which stock Envoy makes only where a tracer is in its
/// bootstrap, ours always (the labs see it in what httpbin echoes).
const LEFT_OUT: &[&str] = &[
    "date",
    "x-step",
    "x-do",
    "x-check",
    "x-from",
    "x-b3-traceid",
    "x-b3-spanid",
    "x-b3-parentspanid",
    "x-b3-sampled",
];

/// The fields of a log line, and what they are called here.
const LOG: &[(&str, &str)] = &[
    ("flags", "flags"),
    ("details", "details"),
    ("termination", "termination"),
    ("cluster", "cluster"),
    ("route", "route"),
    ("received", "received"),
    ("sent", "sent"),
    ("protocol", "log.protocol"),
    ("code", "log.code"),
    ("sni", "log.sni"),
];

/// The format of the access log that [`Observation::of`] reads.
pub(crate) fn log_format() -> String {
    let fields = serde_json::json!({
        "step": "%REQ(X-STEP)%", "code": "%RESPONSE_CODE%", "flags": "%RESPONSE_FLAGS%", "details": "%RESPONSE_CODE_DETAILS%",
        "termination": "%CONNECTION_TERMINATION_DETAILS%", "cluster": "%UPSTREAM_CLUSTER_RAW%", "route": "%ROUTE_NAME%",
        "received": "%BYTES_RECEIVED%", "sent": "%BYTES_SENT%", "protocol": "%PROTOCOL%", "sni": "%REQUESTED_SERVER_NAME%",
        "failure": "%UPSTREAM_TRANSPORT_FAILURE_REASON%", "path": "%REQ(:PATH)%",
        "peer": "%DOWNSTREAM_DIRECT_REMOTE_ADDRESS%",
    });
    fields.to_string()
}

impl Observation {
    /// What client, workloads and log (each of the proxy at `own`) tell of one call.
    pub(crate) fn of(answer: &Answer, seen: &[Seen], log: Option<&Value>, own: Ipv4Addr, case: bool) -> Self {
        let mut out = Self::default();
        let outcome = match (answer.status, answer.end.as_str()) {
            (0, "") => "ok".to_owned(),
            (0, end) => end.to_owned(),
            (status, "") => status.to_string(),
            (status, end) => format!("{status}-{end}"),
        };
        out.put("outcome", &outcome, own);
        out.put("version", &answer.version, own);
        out.put("body", &answer.body, own);
        out.put("shown", answer.shown.as_deref().unwrap_or("-"), own);
        out.put("before", &answer.before.join(" | "), own);
        out.put("spoken", answer.spoken.as_deref().unwrap_or("-"), own);
        if answer.until_close {
            out.put("until-close", "true", own);
        }
        if !answer.interim.is_empty() {
            out.put("interim", &format!("{:?}", answer.interim), own);
        }
        if case {
            out.put("names", &answer.names.join(","), own);
        }
        let by = answer.headers.iter().find(|(name, _)| name == "x-from");
        out.put("by", by.map_or("-", |(_, pod)| pod), own);
        out.fields("resp", &answer.headers, own);
        out.fields("trailer", &answer.trailers, own);
        out.seen(seen, own);
        if let Some(log) = log {
            for (field, name) in LOG {
                let text = match &log[*field] {
                    Value::Null => "-".to_owned(),
                    Value::String(text) => text.clone(),
                    other => other.to_string(),
                };
                out.put(name, &text, own);
            }
            // The words of TLS libraries differ.
            let failed = log["failure"].as_str().is_some_and(|text| !text.is_empty() && text != "-");
            out.put("failure", if failed { "yes" } else { "-" }, own);
        }
        out
    }

    /// The value of a name.
    pub(crate) fn value(&self, name: &str) -> &str {
        self.0.get(name).map_or("-", String::as_str)
    }

    fn seen(&mut self, seen: &[Seen], own: Ipv4Addr) {
        let pods: Vec<&str> = seen.iter().map(|seen| seen.pod.as_str()).collect();
        self.put("attempts", &seen.len().to_string(), own);
        self.put("from", if pods.is_empty() { "-".to_owned() } else { pods.join(",") }.as_str(), own);
        let Some(last) = seen.last() else { return };
        for (name, value) in [
            ("seen.method", &last.method),
            ("seen.path", &last.path),
            ("seen.host", &last.host),
            ("seen.proto", &last.protocol),
            ("seen.body", &last.body),
            ("seen.tls", &last.tls),
        ] {
            self.put(name, value, own);
        }
        let headers: Vec<_> = last.headers.iter().filter(|(name, _)| name != "host").cloned().collect();
        self.fields("seen", &headers, own);
    }

    fn fields(&mut self, prefix: &str, fields: &[(String, String)], own: Ipv4Addr) {
        let mut joined: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for (name, value) in fields.iter().filter(|(name, _)| !LEFT_OUT.contains(&name.as_str())) {
            joined.entry(name).or_default().push(value);
        }
        for (name, values) in joined {
            let text = match name {
                changing if CHANGING.contains(&changing) => "(some)".to_owned(),
                "set-cookie" => {
                    values.iter().map(|value| without_made_up(value)).collect::<Vec<_>>().join("; & ")
                }
                _ => values.join(", "),
            };
            self.put(&format!("{prefix}.{name}"), &text, own);
        }
    }

    fn put(&mut self, name: &str, value: &str, own: Ipv4Addr) {
        if !value.is_empty() && value != "-" {
            self.0.insert(name.to_owned(), value.replace(&own.to_string(), "PROXY"));
        }
    }
}

/// A cookie whose made-up value (hexadecimal in quotes) is masked.
fn without_made_up(cookie: &str) -> String {
    let Some((name, rest)) = cookie.split_once("=\"") else { return cookie.to_owned() };
    match rest.split_once('"') {
        Some((value, rest)) if value.bytes().all(|byte| byte.is_ascii_hexdigit()) => {
            format!("{name}=\"({} digits)\"{rest}", value.len())
        }
        _ => cookie.to_owned(),
    }
}
