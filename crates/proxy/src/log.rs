//! Access-log lines: compiled formats filled from what is known at the end of a request or connection.

use std::io::Write as _;
use std::rc::Rc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::{HeaderName, HeaderValue, StatusCode};
use lateen_route::access_log::{JsonNode, LogFacts, LogFormat};
use lateen_route::format::{Format, Part, Variable};
use lateen_route::request::HeaderRef;

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

    /// Writes a whole line, or what else a format makes.
    pub(crate) fn write_line(&self, format: &LogFormat, out: &mut Vec<u8>) {
        match format {
            LogFormat::Default => {
                default_format().write(out, false, |variable, out| self.write(variable, out))
            }
            LogFormat::Text { format, omit_empty } => {
                format.write(out, *omit_empty, |variable, out| self.write(variable, out));
            }
            LogFormat::Json { object, omit_empty } => {
                self.write_object(object, *omit_empty, out);
                out.push(b'\n');
            }
        }
    }

    fn write_object(&self, members: &[(Box<str>, JsonNode)], omit_empty: bool, out: &mut Vec<u8>) {
        out.push(b'{');
        let mut first = true;
        for (name, node) in members {
            let before = out.len();
            if !first {
                out.push(b',');
            }
            write_json_text(name.as_bytes(), out);
            out.push(b':');
            if self.write_node(node, omit_empty, out) {
                first = false;
            } else {
                out.truncate(before);
            }
        }
        out.push(b'}');
    }

    /// False when there is no value and it is to be left out.
    fn write_node(&self, node: &JsonNode, omit_empty: bool, out: &mut Vec<u8>) -> bool {
        match node {
            JsonNode::Format(format) => return self.write_json_format(format, omit_empty, out),
            JsonNode::Number(number) => drop(write!(out, "{number}")),
            JsonNode::Bool(truth) => drop(write!(out, "{truth}")),
            JsonNode::Null => out.extend_from_slice(b"null"),
            JsonNode::Object(members) => self.write_object(members, omit_empty, out),
            JsonNode::List(items) => {
                out.push(b'[');
                for (index, item) in items.iter().enumerate() {
                    if index > 0 {
                        out.push(b',');
                    }
                    if !self.write_node(item, false, out) {
                        out.extend_from_slice(b"null");
                    }
                }
                out.push(b']');
            }
        }
        true
    }

    fn write_json_format(&self, format: &Format, omit_empty: bool, out: &mut Vec<u8>) -> bool {
        let mut text = Vec::with_capacity(64);
        if let [Part::Value { variable, limit }] = format.parts() {
            if !self.write(variable, &mut text) {
                out.extend_from_slice(b"null");
                return !omit_empty;
            }
            if is_number(variable) {
                out.extend_from_slice(&text);
                return true;
            }
            if let Some(limit) = limit {
                text.truncate(*limit);
            }
        } else {
            format.write(&mut text, omit_empty, |variable, out| self.write(variable, out));
        }
        write_json_text(&text, out);
        true
    }

    /// Writes a variable; false when there is nothing to say.
    pub(crate) fn write(&self, variable: &Variable, out: &mut Vec<u8>) -> bool {
        match variable {
            Variable::StartTime(format) => self.write_start(format.as_deref(), out),
            Variable::Request(choice) => {
                self.write_request_header(&choice.first, out)
                    || choice.second.as_ref().is_some_and(|header| self.write_request_header(header, out))
            }
            Variable::Response(choice) | Variable::Trailer(choice) => {
                self.write_response_header(&choice.first, out)
                    || choice.second.as_ref().is_some_and(|header| self.write_response_header(header, out))
            }
            Variable::LocalReplyBody => {
                out.extend_from_slice(self.local_reply.as_bytes());
                true
            }
            Variable::Protocol => text(self.protocol, out),
            Variable::ResponseCode => number(self.status.into(), out),
            Variable::ResponseFlags if self.flags.is_empty() => false,
            Variable::ResponseFlags => {
                self.flags.write(out);
                true
            }
            Variable::ResponseFlagsLong if self.flags.is_empty() => false,
            Variable::ResponseFlagsLong => {
                self.flags.write_long(out);
                true
            }
            Variable::ResponseCodeDetails => text(Some(self.details).filter(|t| !t.is_empty()), out),
            Variable::ConnectionTerminationDetails => text(self.termination, out),
            Variable::UpstreamTransportFailureReason => {
                // One word, as Envoy writes it.
                text(self.upstream_failure.map(|reason| reason.replace(' ', "_")).as_deref(), out)
            }
            Variable::BytesReceived
            | Variable::DownstreamWireBytesReceived
            | Variable::UpstreamWireBytesSent => number(self.received, out),
            Variable::BytesSent | Variable::DownstreamWireBytesSent | Variable::UpstreamWireBytesReceived => {
                number(self.sent, out)
            }
            Variable::Duration => number(u64::try_from(self.duration.as_millis()).unwrap_or(u64::MAX), out),
            Variable::UpstreamHost | Variable::UpstreamRemoteAddress => {
                text(self.host.map(|h| &*h.text), out)
            }
            Variable::UpstreamRemoteAddressWithoutPort => text(self.host.map(|h| without_port(&h.text)), out),
            Variable::UpstreamRemotePort => text(self.host.and_then(|h| port(&h.text)), out),
            Variable::UpstreamCluster => text(self.cluster.map(|(_, stat)| stat), out),
            Variable::UpstreamClusterRaw => text(self.cluster.map(|(raw, _)| raw), out),
            Variable::UpstreamLocalAddress => text(self.upstream_local, out),
            Variable::UpstreamPeerUriSan => text(self.upstream_peer_uri, out),
            Variable::UpstreamRequestAttemptCount => number(self.attempts.into(), out),
            Variable::RouteName => text(self.route.filter(|name| !name.is_empty()), out),
            Variable::GrpcStatus { number: true } | Variable::GrpcStatusNumber => {
                self.grpc_status.is_some_and(|status| number(status.into(), out))
            }
            Variable::GrpcStatus { number: false } => text(self.grpc_status.map(grpc_name), out),
            Variable::Environment(name) => text(std::env::var(&**name).ok().as_deref(), out),
            Variable::Hostname => text(std::env::var("HOSTNAME").ok().as_deref(), out),
            other => self.write_downstream(other, out),
        }
    }

    fn write_downstream(&self, variable: &Variable, out: &mut Vec<u8>) -> bool {
        let down = self.down;
        let tls = down.tls.as_ref();
        let peer = tls.and_then(|tls| tls.peer.as_ref());
        match variable {
            Variable::ConnectionId => number(down.id, out),
            Variable::DownstreamLocalAddress => text(Some(&down.local_text), out),
            Variable::DownstreamLocalAddressWithoutPort => text(Some(without_port(&down.local_text)), out),
            Variable::DownstreamLocalPort => number(down.local.port().into(), out),
            Variable::DownstreamRemoteAddress => text(Some(&down.remote_text), out),
            Variable::DownstreamRemoteAddressWithoutPort => text(Some(without_port(&down.remote_text)), out),
            Variable::DownstreamRemotePort => number(down.remote.port().into(), out),
            Variable::DownstreamDirectRemoteAddress => text(Some(&down.direct_remote.to_string()), out),
            Variable::DownstreamDirectRemoteAddressWithoutPort => {
                text(Some(&down.direct_remote.ip().to_string()), out)
            }
            Variable::RequestedServerName => text(down.inspected.server_name.as_deref(), out),
            Variable::FilterChainName => text(Some(&*down.chain).filter(|name| !name.is_empty()), out),
            Variable::DownstreamTlsVersion => text(tls.map(|tls| tls.version), out),
            Variable::DownstreamTlsCipher => text(tls.map(|tls| &*tls.cipher), out),
            Variable::DownstreamLocalUriSan => text(tls.and_then(|tls| tls.local_uri.as_deref()), out),
            Variable::DownstreamPeerUriSan => {
                text(peer.map(|peer| peer.uris.join(",")).filter(|uris| !uris.is_empty()).as_deref(), out)
            }
            Variable::DownstreamPeerSubject => text(peer.map(|peer| &*peer.subject), out),
            Variable::DownstreamPeerSerial => text(peer.map(|peer| &*peer.serial), out),
            Variable::DownstreamPeerFingerprint256 => text(peer.map(|peer| &*peer.sha256), out),
            _ => false,
        }
    }

    fn write_start(&self, format: Option<&str>, out: &mut Vec<u8>) -> bool {
        match format {
            None => self.worker.write_date(self.started_at, out),
            Some(format) => write_time(self.started_at, format, out),
        }
        true
    }

    fn write_request_header(&self, header: &HeaderRef, out: &mut Vec<u8>) -> bool {
        let Some(head) = self.head else { return false };
        match header {
            HeaderRef::Method => text(Some(head.method.as_str()), out),
            HeaderRef::Scheme => text(Some(head.scheme), out),
            HeaderRef::Authority => text(Some(head.authority()).filter(|a| !a.is_empty()), out),
            HeaderRef::Path => text(Some(head.path()).filter(|p| !p.is_empty()), out),
            HeaderRef::Named(name) => header_text(head.headers.get(name), out),
        }
    }

    fn write_response_header(&self, header: &HeaderRef, out: &mut Vec<u8>) -> bool {
        let HeaderRef::Named(wanted) = header else { return false };
        header_text(self.response.iter().find(|(name, _)| name == wanted).map(|(_, value)| value), out)
    }
}

fn header_text(value: Option<&HeaderValue>, out: &mut Vec<u8>) -> bool {
    match value {
        Some(value) => {
            out.extend_from_slice(value.as_bytes());
            true
        }
        None => false,
    }
}

fn text(value: Option<&str>, out: &mut Vec<u8>) -> bool {
    match value {
        Some(value) => {
            out.extend_from_slice(value.as_bytes());
            true
        }
        None => false,
    }
}

fn number(value: u64, out: &mut Vec<u8>) -> bool {
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
    true
}

fn is_number(variable: &Variable) -> bool {
    matches!(
        variable,
        Variable::ResponseCode
            | Variable::BytesReceived
            | Variable::BytesSent
            | Variable::Duration
            | Variable::ConnectionId
            | Variable::UpstreamRequestAttemptCount
            | Variable::DownstreamLocalPort
            | Variable::DownstreamRemotePort
            | Variable::GrpcStatusNumber
    )
}

fn without_port(address: &str) -> &str {
    address.rsplit_once(':').map_or(address, |(ip, _)| ip.trim_start_matches('[').trim_end_matches(']'))
}

fn port(address: &str) -> Option<&str> {
    address.rsplit_once(':').map(|(_, port)| port)
}

/// gRPC's names of its statuses, as Envoy writes them.
fn grpc_name(status: u32) -> &'static str {
    match status {
        0 => "OK",
        1 => "Canceled",
        2 => "Unknown",
        3 => "InvalidArgument",
        4 => "DeadlineExceeded",
        5 => "NotFound",
        6 => "AlreadyExists",
        7 => "PermissionDenied",
        8 => "ResourceExhausted",
        9 => "FailedPrecondition",
        10 => "Aborted",
        11 => "OutOfRange",
        12 => "Unimplemented",
        13 => "Internal",
        14 => "Unavailable",
        15 => "DataLoss",
        16 => "Unauthenticated",
        _ => "InvalidCode",
    }
}

fn write_json_text(text: &[u8], out: &mut Vec<u8>) {
    out.push(b'"');
    for c in String::from_utf8_lossy(text).chars() {
        match c {
            '"' => out.extend_from_slice(b"\\\""),
            '\\' => out.extend_from_slice(b"\\\\"),
            '\n' => out.extend_from_slice(b"\\n"),
            '\r' => out.extend_from_slice(b"\\r"),
            '\t' => out.extend_from_slice(b"\\t"),
            c if u32::from(c) < 0x20 => drop(write!(out, "\\u{:04x}", u32::from(c))),
            c => out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    out.push(b'"');
}

/// Dates as text, made once a second.
#[derive(Debug, Default)]
pub(crate) struct DateCache {
    second: u64,
    iso: Vec<u8>,
    http: Option<(u64, HeaderValue)>,
}

impl DateCache {
    /// `2026-11-21T13:30:00.123Z`
    pub(crate) fn write_iso(&mut self, at: SystemTime, out: &mut Vec<u8>) {
        let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
        if self.second != since.as_secs() || self.iso.is_empty() {
            self.second = since.as_secs();
            self.iso.clear();
            write_time(at, "%Y-%m-%dT%H:%M:%S.", &mut self.iso);
        }
        out.extend_from_slice(&self.iso);
        let millis = since.subsec_millis();
        out.extend_from_slice(&[digit(millis / 100), digit(millis / 10), digit(millis), b'Z']);
    }

    /// The `date` header for now.
    pub(crate) fn http(&mut self) -> HeaderValue {
        let now = SystemTime::now();
        let second = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        if let Some((at, value)) = &self.http
            && *at == second
        {
            return value.clone();
        }
        let text = httpdate::fmt_http_date(now);
        let value = HeaderValue::from_str(&text).unwrap_or_else(|_| HeaderValue::from_static(""));
        self.http = Some((second, value.clone()));
        value
    }
}

fn digit(n: u32) -> u8 {
    b'0' + u8::try_from(n % 10).unwrap_or_default()
}

/// Writes a time by strftime's letters and Envoy's `%3f`, `%6f`, `%9f`, `%f`, `%s`.
fn write_time(at: SystemTime, format: &str, out: &mut Vec<u8>) {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    let (year, month, day) = civil(since.as_secs() / 86_400);
    let (hour, minute, second) =
        ((since.as_secs() / 3600) % 24, (since.as_secs() / 60) % 60, since.as_secs() % 60);
    let mut chars = format.chars();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
            continue;
        }
        // Writing to a Vec cannot fail.
        let _ = match chars.next() {
            Some('Y') => write!(out, "{year:04}"),
            Some('m') => write!(out, "{month:02}"),
            Some('d') => write!(out, "{day:02}"),
            Some('H') => write!(out, "{hour:02}"),
            Some('M') => write!(out, "{minute:02}"),
            Some('S') => write!(out, "{second:02}"),
            Some('T') => write!(out, "{hour:02}:{minute:02}:{second:02}"),
            Some('F') => write!(out, "{year:04}-{month:02}-{day:02}"),
            Some('z') => write!(out, "+0000"),
            Some('Z') => write!(out, "UTC"),
            Some('s') => write!(out, "{}", since.as_secs()),
            Some('f') => write!(out, "{:09}", since.subsec_nanos()),
            Some('%') => write!(out, "%"),
            Some(width @ ('3' | '6' | '9')) if chars.as_str().starts_with('f') => {
                chars.next();
                match width {
                    '3' => write!(out, "{:03}", since.subsec_millis()),
                    '6' => write!(out, "{:06}", since.subsec_micros()),
                    _ => write!(out, "{:09}", since.subsec_nanos()),
                }
            }
            Some(other) => write!(out, "%{other}"),
            None => write!(out, "%"),
        };
    }
}

/// Year, month and day of a day number since 1970, by the proleptic Gregorian calendar.
fn civil(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let era = shifted / 146_097;
    let of_era = shifted % 146_097;
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_index = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month_index + 2) / 5 + 1;
    let month = if month_index < 10 { month_index + 3 } else { month_index - 9 };
    (year_of_era + era * 400 + u64::from(month <= 2), month, day)
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

    #[test]
    fn times_are_written_as_envoy_does() {
        let at = UNIX_EPOCH + Duration::new(1_763_731_805, 7_000_000);
        let mut out = Vec::new();
        DateCache::default().write_iso(at, &mut out);
        out.push(b' ');
        write_time(at, "%Y/%m/%dT%H:%M:%S%z %s.%3f", &mut out);
        assert_eq!(
            String::from_utf8_lossy(&out),
            "2025-11-21T13:30:05.007Z 2025/11/21T13:30:05+0000 1763731805.007"
        );
        assert_eq!(civil(59), (1970, 3, 1));
        assert_eq!(civil(11_016), (2000, 2, 29));
    }

    #[test]
    fn json_text_is_escaped() {
        let mut out = Vec::new();
        write_json_text(b"a\"b\\c\n\x01\xff", &mut out);
        assert_eq!(String::from_utf8_lossy(&out), "\"a\\\"b\\\\c\\n\\u0001\u{fffd}\"");
    }
}
