//! Access-log lines: compiled formats filled from what is known at the end of a request or connection.

mod line;
mod time;
mod variables;

use std::rc::Rc;
use std::time::{Duration, SystemTime};

use http::{HeaderName, HeaderValue, StatusCode};
use lateen_route::access_log::{JsonNode, LogFacts, LogFormat};
use lateen_route::format::{Format, Part, Variable};
use lateen_route::request::HeaderRef;

pub(crate) use self::time::DateCache;
use crate::downstream::Downstream;
use crate::flags::Flags;
use crate::http::head::Head;
use crate::listener::Log;
use crate::upstream::host::Host;
use crate::worker::Worker;

/// What a line can say.
#[derive(Debug)]
pub(crate) struct Record<'a> {
    /// Where the line is written from.
    pub worker: &'a Rc<Worker>,
    /// The client's connection.
    pub down: &'a Downstream,
    /// When it began, by the wall.
    pub started_at: SystemTime,
    /// How long it took.
    pub duration: Duration,
    /// The request's head.
    pub head: Option<&'a Head>,
    /// `HTTP/1.1`
    pub protocol: Option<&'static str>,
    /// The response's status; 0 without one.
    pub status: u16,
    /// What went wrong.
    pub flags: Flags,
    /// Why the response is what it is; empty when unknown.
    pub details: &'a str,
    /// Why the connection ended.
    pub termination: Option<&'a str>,
    /// What the upstream's transport said.
    pub upstream_failure: Option<&'a str>,
    /// Bytes of bodies.
    pub received: u64,
    /// Bytes of bodies.
    pub sent: u64,
    /// The response's headers, those that formats name.
    pub response: &'a [(HeaderName, HeaderValue)],
    /// The host that answered, or was tried last.
    pub host: Option<&'a Host>,
    /// Our address towards it.
    pub upstream_local: Option<&'a str>,
    /// Its identity.
    pub upstream_peer_uri: Option<&'a str>,
    /// The cluster, raw and by its metrics' name.
    pub cluster: Option<(&'a str, &'a str)>,
    /// The route's name.
    pub route: Option<&'a str>,
    /// Attempts made.
    pub attempts: u32,
    /// The body of an answer of our own, for the formats that make one.
    pub local_reply: &'a str,
    /// The response's gRPC status.
    pub grpc_status: Option<u32>,
    /// Chance, for logs that take a share.
    pub entropy: lateen_route::Entropy,
}

/// Writes a line to each log that wants one.
pub(crate) fn write_all(logs: &[Log], record: &Record<'_>) {
    for log in logs {
        if log.compiled.filter.as_ref().is_none_or(|filter| record.admitted(filter)) {
            record.worker.log(&log.file, |out| record.write_line(&log.compiled.format, out));
        }
    }
}

/// The response headers that the logs' formats name: what has to be kept until the end.
pub(crate) fn response_headers(logs: &[Log]) -> Vec<HeaderName> {
    let mut names = Vec::new();
    let mut note = |format: &Format| {
        for part in format.parts() {
            if let Part::Value { variable: Variable::Response(choice) | Variable::Trailer(choice), .. } = part
            {
                for header in [Some(&choice.first), choice.second.as_ref()].into_iter().flatten() {
                    if let HeaderRef::Named(name) = header {
                        names.push(name.clone());
                    }
                }
            }
        }
    };
    for log in logs {
        match &log.compiled.format {
            LogFormat::Default => note(default_format()),
            LogFormat::Text { format, .. } => note(format),
            LogFormat::Json { object, .. } => each_format(object.iter().map(|(_, node)| node), &mut note),
        }
    }
    names.sort_by(|a, b| a.as_str().cmp(b.as_str()));
    names.dedup();
    names
}

fn each_format<'n>(nodes: impl Iterator<Item = &'n JsonNode>, note: &mut dyn FnMut(&Format)) {
    let mut left: Vec<&JsonNode> = nodes.collect();
    while let Some(node) = left.pop() {
        match node {
            JsonNode::Format(format) => note(format),
            JsonNode::Object(members) => left.extend(members.iter().map(|(_, node)| node)),
            JsonNode::List(items) => left.extend(items),
            JsonNode::Number(_) | JsonNode::Bool(_) | JsonNode::Null => {}
        }
    }
}

/// Envoy's line where no format is given.
fn default_format() -> &'static Format {
    static FORMAT: std::sync::LazyLock<Format> = std::sync::LazyLock::new(|| {
        let text = "[%START_TIME%] \"%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%\" %RESPONSE_CODE% \
                    %RESPONSE_FLAGS% %BYTES_RECEIVED% %BYTES_SENT% %DURATION% %RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% \
                    \"%REQ(X-FORWARDED-FOR)%\" \"%REQ(USER-AGENT)%\" \"%REQ(X-REQUEST-ID)%\" \"%REQ(:AUTHORITY)%\" \
                    \"%UPSTREAM_HOST%\"\n";
        // A fixed text that the test below reads.
        Format::parse(text).unwrap_or_default()
    });
    &FORMAT
}

impl<'a> Record<'a> {
    /// A record of a connection as such.
    pub(crate) fn of_connection(worker: &'a Rc<Worker>, down: &'a Downstream) -> Self {
        Self {
            worker,
            down,
            started_at: SystemTime::now(),
            duration: Duration::ZERO,
            head: None,
            protocol: None,
            status: 0,
            flags: Flags::NONE,
            details: "",
            termination: None,
            upstream_failure: None,
            received: 0,
            sent: 0,
            response: &[],
            host: None,
            upstream_local: None,
            upstream_peer_uri: None,
            cluster: None,
            route: None,
            attempts: 0,
            local_reply: "",
            grpc_status: None,
            entropy: lateen_route::Entropy::default(),
        }
    }

    /// Whether a filter takes it.
    pub(crate) fn admitted(&self, filter: &lateen_route::access_log::LogFilter) -> bool {
        let mut text = Vec::new();
        self.flags.write(&mut text);
        let text = String::from_utf8_lossy(&text);
        let flags: Vec<&str> = text.split(',').filter(|flag| !flag.is_empty()).collect();
        let facts = LogFacts {
            status: self.status,
            duration_ms: u64::try_from(self.duration.as_millis()).unwrap_or(u64::MAX),
            flags: &flags,
            grpc_status: self.grpc_status,
            health_check: false,
            traced: false,
            request: None,
            entropy: self.entropy,
        };
        match self.head {
            None => filter.admits(&facts),
            Some(head) => self.down.with_view(|connection| {
                filter.admits(&LogFacts { request: Some(&head.view(connection, None)), ..facts })
            }),
        }
    }
}

/// Whether a status has no body by definition.
pub(crate) fn has_no_body(status: StatusCode) -> bool {
    status.is_informational() || status == StatusCode::NO_CONTENT || status == StatusCode::NOT_MODIFIED
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_format_reads() {
        assert!(default_format().parts().len() > 20);
    }
}
