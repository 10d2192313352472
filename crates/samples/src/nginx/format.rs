//! nginx's log formats: text with variables of a request and its answer.

use http::{HeaderMap, HeaderName};

use crate::server::clf_time;

/// A format, ready to be filled in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Format(Vec<Part>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    RemoteAddress,
    RemoteUser,
    TimeLocal,
    Request,
    Method,
    Uri,
    Status,
    BodyBytes,
    Host,
    Header(HeaderName),
}

/// What is logged of a request.
pub(super) struct Line<'a> {
    pub(super) peer: std::net::IpAddr,
    pub(super) method: &'a http::Method,
    pub(super) uri: &'a str,
    pub(super) version: http::Version,
    pub(super) host: &'a str,
    pub(super) headers: &'a HeaderMap,
    pub(super) status: u16,
    pub(super) bytes: usize,
}

impl Format {
    /// nginx's own default.
    pub(super) fn combined() -> Self {
        let text = |text: &str| Part::Text(text.to_owned());
        Self(vec![
            Part::RemoteAddress,
            text(" - "),
            Part::RemoteUser,
            text(" ["),
            Part::TimeLocal,
            text("] \""),
            Part::Request,
            text("\" "),
            Part::Status,
            text(" "),
            Part::BodyBytes,
            text(" \""),
            Part::Header(http::header::REFERER),
            text("\" \""),
            Part::Header(http::header::USER_AGENT),
            text("\""),
        ])
    }

    /// Reads a format.
    ///
    /// # Errors
    /// A variable that is not known.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let mut parts = Vec::new();
        let mut pieces = text.split('$');
        parts.extend(pieces.next().filter(|text| !text.is_empty()).map(|text| Part::Text(text.to_owned())));
        for piece in pieces {
            let end = piece.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(piece.len());
            let (name, rest) = piece.split_at(end);
            parts.push(variable(name).ok_or_else(|| format!("unknown \"{name}\" variable"))?);
            if !rest.is_empty() {
                parts.push(Part::Text(rest.to_owned()));
            }
        }
        Ok(Self(parts))
    }

    /// The line of a request.
    pub(super) fn line(&self, line: &Line<'_>) -> String {
        self.0.iter().map(|part| part.of(line)).collect()
    }
}

impl Part {
    fn of(&self, line: &Line<'_>) -> String {
        match self {
            Self::Text(text) => text.clone(),
            Self::RemoteAddress => line.peer.to_string(),
            // Nobody logs in here.
            Self::RemoteUser => "-".to_owned(),
            Self::TimeLocal => clf_time(),
            Self::Request => format!("{} {} {:?}", line.method, line.uri, line.version),
            Self::Method => line.method.to_string(),
            Self::Uri => line.uri.to_owned(),
            Self::Status => line.status.to_string(),
            Self::BodyBytes => line.bytes.to_string(),
            Self::Host => line.host.to_owned(),
            Self::Header(name) => {
                line.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or("-").to_owned()
            }
        }
    }
}

fn variable(name: &str) -> Option<Part> {
    Some(match name {
        "remote_addr" => Part::RemoteAddress,
        "remote_user" => Part::RemoteUser,
        "time_local" => Part::TimeLocal,
        "request" => Part::Request,
        "request_method" => Part::Method,
        "request_uri" => Part::Uri,
        "status" => Part::Status,
        "body_bytes_sent" => Part::BodyBytes,
        "host" => Part::Host,
        other => Part::Header(other.strip_prefix("http_")?.replace('_', "-").parse().ok()?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_filled_in() {
        let mut headers = HeaderMap::new();
        headers.insert("x-forwarded-for", "10.0.0.1".parse().unwrap());
        let line = Line {
            peer: "127.0.0.6".parse().unwrap(),
            method: &http::Method::GET,
            uri: "/a?b",
            version: http::Version::HTTP_11,
            host: "h",
            headers: &headers,
            status: 404,
            bytes: 7,
        };
        let format =
            Format::parse("$remote_addr>$request|$status:$body_bytes_sent \"$http_x_forwarded_for\"")
                .unwrap();
        assert_eq!(format.line(&line), "127.0.0.6>GET /a?b HTTP/1.1|404:7 \"10.0.0.1\"");
        assert!(Format::combined().line(&line).ends_with("\"GET /a?b HTTP/1.1\" 404 7 \"-\" \"-\""));
        assert_eq!(Format::parse("a $nope b"), Err("unknown \"nope\" variable".to_owned()));
    }
}
